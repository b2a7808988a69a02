"""Write copies of MIMIC-III and MIMIC-IV with the official columns and a few rows of invented patients."""

import csv
import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path

from preprocessing.meds.mimic_tables import TABLES, DownloadScope

# Columns as the official files have them, in their order (https://mimic.mit.edu/docs).
_MIMIC3 = {
    "PATIENTS": "ROW_ID,SUBJECT_ID,GENDER,DOB,DOD,DOD_HOSP,DOD_SSN,EXPIRE_FLAG",
    "ADMISSIONS": "ROW_ID,SUBJECT_ID,HADM_ID,ADMITTIME,DISCHTIME,DEATHTIME,ADMISSION_TYPE,ADMISSION_LOCATION,"
    "DISCHARGE_LOCATION,INSURANCE,LANGUAGE,RELIGION,MARITAL_STATUS,ETHNICITY,EDREGTIME,EDOUTTIME,DIAGNOSIS,"
    "HOSPITAL_EXPIRE_FLAG,HAS_CHARTEVENTS_DATA",
    "DIAGNOSES_ICD": "ROW_ID,SUBJECT_ID,HADM_ID,SEQ_NUM,ICD9_CODE",
    "PROCEDURES_ICD": "ROW_ID,SUBJECT_ID,HADM_ID,SEQ_NUM,ICD9_CODE",
    "PRESCRIPTIONS": "ROW_ID,SUBJECT_ID,HADM_ID,ICUSTAY_ID,STARTDATE,ENDDATE,DRUG_TYPE,DRUG,DRUG_NAME_POE,"
    "DRUG_NAME_GENERIC,FORMULARY_DRUG_CD,GSN,NDC,PROD_STRENGTH,DOSE_VAL_RX,DOSE_UNIT_RX,FORM_VAL_DISP,"
    "FORM_UNIT_DISP,ROUTE",
    "ICUSTAYS": "ROW_ID,SUBJECT_ID,HADM_ID,ICUSTAY_ID,DBSOURCE,FIRST_CAREUNIT,LAST_CAREUNIT,FIRST_WARDID,"
    "LAST_WARDID,INTIME,OUTTIME,LOS",
    "TRANSFERS": "ROW_ID,SUBJECT_ID,HADM_ID,ICUSTAY_ID,DBSOURCE,EVENTTYPE,PREV_CAREUNIT,CURR_CAREUNIT,PREV_WARDID,"
    "CURR_WARDID,INTIME,OUTTIME,LOS",
    "DRGCODES": "ROW_ID,SUBJECT_ID,HADM_ID,DRG_TYPE,DRG_CODE,DESCRIPTION,DRG_SEVERITY,DRG_MORTALITY",
    "CPTEVENTS": "ROW_ID,SUBJECT_ID,HADM_ID,COSTCENTER,CHARTDATE,CPT_CD,CPT_NUMBER,CPT_SUFFIX,TICKET_ID_SEQ,"
    "SECTIONHEADER,SUBSECTIONHEADER,DESCRIPTION",
    "LABEVENTS": "ROW_ID,SUBJECT_ID,HADM_ID,ITEMID,CHARTTIME,VALUE,VALUENUM,VALUEUOM,FLAG",
    "CHARTEVENTS": "ROW_ID,SUBJECT_ID,HADM_ID,ICUSTAY_ID,ITEMID,CHARTTIME,STORETIME,CGID,VALUE,VALUENUM,VALUEUOM,"
    "WARNING,ERROR,RESULTSTATUS,STOPPED",
    "D_ICD_DIAGNOSES": "ROW_ID,ICD9_CODE,SHORT_TITLE,LONG_TITLE",
    "D_ICD_PROCEDURES": "ROW_ID,ICD9_CODE,SHORT_TITLE,LONG_TITLE",
    "D_LABITEMS": "ROW_ID,ITEMID,LABEL,FLUID,CATEGORY,LOINC_CODE",
}
_MIMIC4 = {
    "hosp/patients": "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod",
    "hosp/admissions": "subject_id,hadm_id,admittime,dischtime,deathtime,admission_type,admit_provider_id,"
    "admission_location,discharge_location,insurance,language,marital_status,race,edregtime,edouttime,"
    "hospital_expire_flag",
    "hosp/diagnoses_icd": "subject_id,hadm_id,seq_num,icd_code,icd_version",
    "hosp/procedures_icd": "subject_id,hadm_id,seq_num,chartdate,icd_code,icd_version",
    "hosp/prescriptions": "subject_id,hadm_id,pharmacy_id,poe_id,poe_seq,order_provider_id,starttime,stoptime,"
    "drug_type,drug,formulary_drug_cd,gsn,ndc,prod_strength,form_rx,dose_val_rx,dose_unit_rx,form_val_disp,"
    "form_unit_disp,doses_per_24_hrs,route",
    "hosp/hcpcsevents": "subject_id,hadm_id,chartdate,hcpcs_cd,seq_num,short_description",
    "hosp/drgcodes": "subject_id,hadm_id,drg_type,drg_code,description,drg_severity,drg_mortality",
    "hosp/transfers": "subject_id,hadm_id,transfer_id,eventtype,careunit,intime,outtime",
    "hosp/omr": "subject_id,chartdate,seq_num,result_name,result_value",
    "hosp/labevents": "labevent_id,subject_id,hadm_id,specimen_id,itemid,order_provider_id,charttime,storetime,value,"
    "valuenum,valueuom,ref_range_lower,ref_range_upper,flag,priority,comments",
    "hosp/emar": "subject_id,hadm_id,emar_id,emar_seq,poe_id,pharmacy_id,enter_provider_id,charttime,medication,"
    "event_txt,scheduletime,storetime",
    "hosp/d_icd_diagnoses": "icd_code,icd_version,long_title",
    "hosp/d_icd_procedures": "icd_code,icd_version,long_title",
    "hosp/d_labitems": "itemid,label,fluid,category",
    "hosp/d_hcpcs": "code,category,long_description,short_description",
    "icu/icustays": "subject_id,hadm_id,stay_id,first_careunit,last_careunit,intime,outtime,los",
    "icu/chartevents": "subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,itemid,value,valuenum,valueuom,"
    "warning",
}
COLUMNS = {"mimic3": _MIMIC3, "mimic4": _MIMIC4}

# Two patients, three stays: 11 dies in the second of two, 12 is older than 89 and dies at home.
_ROWS3 = {
    "PATIENTS": [
        {"subject_id": 11, "gender": "F", "dob": "2100-02-03 00:00:00", "dod": "2160-05-09 00:00:00"},
        {"subject_id": 12, "gender": "M", "dob": "1850-07-01 00:00:00", "dod": "2151-01-01 00:00:00"},
    ],
    "ADMISSIONS": [
        {
            **{"subject_id": 11, "hadm_id": 101, "admittime": "2160-01-10 20:30:00", "insurance": "Medicare"},
            **{"dischtime": "2160-01-15 12:00:00", "admission_type": "EMERGENCY", "ethnicity": "WHITE"},
            **{"admission_location": "EMERGENCY ROOM ADMIT", "discharge_location": "HOME", "marital_status": "SINGLE"},
            **{"edregtime": "2160-01-10 15:00:00", "edouttime": "2160-01-10 21:00:00", "hospital_expire_flag": 0},
        },
        {
            **{"subject_id": 11, "hadm_id": 102, "admittime": "2160-05-01 08:00:00", "insurance": "Medicare"},
            **{"dischtime": "2160-05-09 03:20:00", "deathtime": "2160-05-09 03:20:00", "ethnicity": "WHITE"},
            **{"admission_type": "ELECTIVE", "discharge_location": "DEAD/EXPIRED", "hospital_expire_flag": 1},
        },
        {
            **{"subject_id": 12, "hadm_id": 103, "admittime": "2150-07-01 00:00:00", "insurance": "Private"},
            **{"dischtime": "2150-07-02 10:00:00", "admission_type": "EMERGENCY", "ethnicity": "ASIAN"},
            **{"admission_location": "CLINIC REFERRAL/PREMATURE", "discharge_location": "SNF"},
            **{"hospital_expire_flag": 0},
        },
    ],
    "DIAGNOSES_ICD": [
        {"subject_id": 11, "hadm_id": 101, "seq_num": 1, "icd9_code": "25000"},
        {"subject_id": 11, "hadm_id": 101, "seq_num": 2, "icd9_code": "0010"},
        {"subject_id": 11, "hadm_id": 102, "seq_num": 1, "icd9_code": "E8490"},
        {"subject_id": 11, "hadm_id": 102, "seq_num": 2, "icd9_code": "V3001"},
        {"subject_id": 12, "hadm_id": 103, "seq_num": 1, "icd9_code": "25000"},
        {"subject_id": 12, "hadm_id": 103, "seq_num": 2, "icd9_code": "2500X"},
        {"subject_id": 12, "hadm_id": 103, "seq_num": "", "icd9_code": ""},
    ],
    "PROCEDURES_ICD": [
        {"subject_id": 11, "hadm_id": 101, "seq_num": 1, "icd9_code": "0010"},
        {"subject_id": 12, "hadm_id": 103, "seq_num": 1, "icd9_code": "3893"},
    ],
    "PRESCRIPTIONS": [
        {
            **{"subject_id": 11, "hadm_id": 101, "startdate": "2160-01-10 00:00:00", "drug": "Insulin", "ndc": "0"},
            **{"dose_val_rx": "2-4", "dose_unit_rx": "UNIT"},
        },
        {
            **{"subject_id": 11, "hadm_id": 101, "startdate": "2160-01-15 00:00:00", "drug": "Aspirin"},
            **{"ndc": "00002143380", "dose_val_rx": "1,325.5", "dose_unit_rx": "mg"},
        },
        {"subject_id": 11, "hadm_id": 102, "startdate": "", "drug": "Heparin, Porcine", "ndc": "2143380"},
        {"subject_id": 11, "hadm_id": 102, "enddate": "2160-05-02 00:00:00", "drug": "Senna", "ndc": "00904516561"},
    ],
    "ICUSTAYS": [
        {
            **{"subject_id": 11, "hadm_id": 102, "icustay_id": 201, "first_careunit": "MICU", "last_careunit": "SICU"},
            **{"intime": "2160-05-03 00:00:00", "outtime": "2160-05-08 23:00:00"},
        }
    ],
    "TRANSFERS": [
        {"subject_id": 11, "hadm_id": 101, "eventtype": "admit", "intime": "2160-01-10 20:30:00"},
        {
            **{"subject_id": 11, "hadm_id": 102, "eventtype": "transfer", "curr_careunit": "MICU"},
            "intime": "2160-05-03 00:00:00",
        },
    ],
    "DRGCODES": [
        {
            **{"subject_id": 11, "hadm_id": 102, "drg_type": "APR ", "drg_code": "1334"},
            **{"description": "RESPIRATORY FAILURE", "drg_severity": 4, "drg_mortality": 3},
        },
    ],
    "CPTEVENTS": [
        {"subject_id": 11, "hadm_id": 101, "chartdate": "2160-01-11 00:00:00", "cpt_cd": "99232"},
        {"subject_id": 11, "hadm_id": 101, "cpt_cd": "G0378", "description": "OBSERVATION"},
    ],
    "LABEVENTS": [
        {
            **{"subject_id": 12, "hadm_id": "", "itemid": 50912, "charttime": "2149-12-01 07:15:00"},
            **{"value": "1.3", "valuenum": "1.3", "valueuom": "mg/dL"},
        },
        {"subject_id": 12, "hadm_id": 103, "itemid": 51463, "charttime": "2150-07-01 09:00:00", "value": "FEW"},
    ],
    "CHARTEVENTS": [
        {
            **{"subject_id": 11, "hadm_id": 102, "icustay_id": 201, "itemid": 211, "charttime": "2160-05-03 01:00:00"},
            **{"value": "88", "valuenum": 88, "valueuom": "BPM"},
        }
    ],
    "D_ICD_DIAGNOSES": [
        {"icd9_code": "25000", "short_title": "DMII wo cmp", "long_title": "Invented title of diabetes, one"},
    ],
    "D_ICD_PROCEDURES": [{"icd9_code": "3893", "short_title": "Ven cath", "long_title": "Invented title of a line"}],
    "D_LABITEMS": [
        {"itemid": 50912, "label": "Creatinine", "fluid": "Blood", "category": "Chemistry", "loinc_code": "2160-0"}
    ],
}
_ROWS4 = {
    "hosp/patients": [
        {
            **{"subject_id": 10000021, "gender": "F", "anchor_age": 52, "anchor_year": 2180, "dod": "2181-02-11"},
            "anchor_year_group": "2014 - 2016",
        },
        {"subject_id": 10000022, "gender": "M", "anchor_age": 91, "anchor_year": 2150},
        {"subject_id": 10000023, "gender": "M", "anchor_age": 30, "anchor_year": 2150},
    ],
    "hosp/admissions": [
        {
            **{"subject_id": 10000021, "hadm_id": 20000101, "admittime": "2180-05-06 22:23:00", "insurance": "Other"},
            **{"dischtime": "2180-05-07 17:15:00", "admission_type": "URGENT", "race": "WHITE", "language": "ENGLISH"},
            **{"admission_location": "TRANSFER FROM HOSPITAL", "discharge_location": "HOME"},
            **{"marital_status": "WIDOWED", "edregtime": "2180-05-06 19:17:00", "edouttime": "2180-05-06 23:30:00"},
            **{"hospital_expire_flag": 0},
        },
        {
            **{"subject_id": 10000022, "hadm_id": 20000102, "admittime": "2150-03-01 10:00:00", "insurance": ""},
            **{"dischtime": "2150-03-03 11:00:00", "deathtime": "2150-03-03 10:45:00", "race": "UNKNOWN"},
            **{"admission_type": "EW EMER.", "discharge_location": "DIED", "hospital_expire_flag": 1},
        },
    ],
    "hosp/diagnoses_icd": [
        {"subject_id": 10000021, "hadm_id": 20000101, "seq_num": 1, "icd_code": "E119   ", "icd_version": 10},
        {"subject_id": 10000021, "hadm_id": 20000101, "seq_num": 2, "icd_code": "0010", "icd_version": 9},
        {"subject_id": 10000022, "hadm_id": 20000102, "seq_num": 1, "icd_code": "S72001A", "icd_version": 10},
        {"subject_id": 10000022, "hadm_id": 20000102, "seq_num": 2, "icd_code": "NOCODE??", "icd_version": 10},
    ],
    "hosp/procedures_icd": [
        {
            **{"subject_id": 10000021, "hadm_id": 20000101, "seq_num": 1, "chartdate": "2180-05-07"},
            **{"icd_code": "0010", "icd_version": 9},
        },
        {
            **{"subject_id": 10000022, "hadm_id": 20000102, "seq_num": 1, "chartdate": "2150-03-02"},
            **{"icd_code": "0016070", "icd_version": 10},
        },
    ],
    "hosp/prescriptions": [
        {
            **{"subject_id": 10000021, "hadm_id": 20000101, "starttime": "2180-05-07 01:00:00", "drug": "Heparin"},
            **{"ndc": "63323026201", "dose_val_rx": "5000", "dose_unit_rx": "UNIT", "route": "SC"},
            **{"stoptime": "2180-05-07 20:00:00", "drug_type": "MAIN"},
        },
        {"subject_id": 10000022, "hadm_id": 20000102, "starttime": "2150-03-01 11:00:00", "drug": "NS", "ndc": ""},
        # Ordered on the day of the discharge, after it.
        {"subject_id": 10000022, "hadm_id": 20000102, "starttime": "2150-03-03 18:30:00", "drug": "NS", "ndc": "0"},
    ],
    "hosp/hcpcsevents": [
        {
            **{"subject_id": 10000021, "hadm_id": 20000101, "chartdate": "2180-05-06", "hcpcs_cd": "99218"},
            "short_description": "Hospital observation services",
        },
        {"subject_id": 10000022, "hadm_id": 20000102, "chartdate": "2150-03-02", "hcpcs_cd": "G0378"},
        {"subject_id": 10000022, "hadm_id": 20000102, "chartdate": "2150-03-02", "hcpcs_cd": "??"},
    ],
    "hosp/drgcodes": [
        {
            **{"subject_id": 10000021, "hadm_id": 20000101, "drg_type": "HCFA", "drg_code": "442"},
            "description": "DISORDERS OF LIVER, W MCC",
        },
    ],
    "hosp/transfers": [
        {
            **{"subject_id": 10000021, "hadm_id": 20000101, "transfer_id": 1, "eventtype": "admit"},
            **{"careunit": "Transplant", "intime": "2180-05-06 22:23:00", "outtime": "2180-05-07 17:15:00"},
        },
        {
            **{"subject_id": 10000021, "hadm_id": 20000101, "transfer_id": 2, "eventtype": "discharge"},
            "intime": "2180-05-07 17:15:00",
        },
    ],
    "hosp/omr": [
        {"subject_id": 10000023, "chartdate": "2150-06-01", "result_name": "BMI (kg/m2)", "result_value": "24.5"},
        {"subject_id": 10000023, "chartdate": "2150-06-01", "result_name": "Blood Pressure", "result_value": "120/80"},
    ],
    "hosp/labevents": [
        {
            **{"labevent_id": 1, "subject_id": 10000021, "hadm_id": 20000101, "itemid": 50912, "value": "1.1"},
            **{"charttime": "2180-05-06 22:30:00", "storetime": "2180-05-06 23:30:00", "valuenum": "1.1"},
            **{"valueuom": "mg/dL", "comments": 'said "fine", twice'},
        },
        {
            **{"labevent_id": 2, "subject_id": 10000023, "hadm_id": "", "itemid": 50912, "value": "___"},
            **{"charttime": "", "storetime": "2150-06-02 08:00:00"},
        },
    ],
    "hosp/emar": [
        {
            **{"subject_id": 10000021, "hadm_id": 20000101, "charttime": "2180-05-07 02:10:00"},
            **{"medication": "Heparin", "event_txt": "Administered"},
        }
    ],
    "hosp/d_icd_diagnoses": [
        {"icd_code": "0010", "icd_version": 9, "long_title": "Invented title of cholera"},
        {"icd_code": "E119", "icd_version": 10, "long_title": "Invented title of diabetes, two"},
    ],
    "hosp/d_icd_procedures": [
        {"icd_code": "0016070", "icd_version": 10, "long_title": "Invented title of a bypass"},
        {"icd_code": "0010", "icd_version": 9, "long_title": "Invented title of an implant"},
    ],
    "hosp/d_labitems": [{"itemid": 50912, "label": "Creatinine", "fluid": "Blood", "category": "Chemistry"}],
    "hosp/d_hcpcs": [{"code": "G0378", "long_description": "Invented text, per hour", "short_description": "per hr"}],
    "icu/icustays": [
        {
            **{"subject_id": 10000022, "hadm_id": 20000102, "stay_id": 30000001, "intime": "2150-03-01 12:00:00"},
            **{"first_careunit": "MICU", "last_careunit": "MICU", "outtime": "2150-03-03 10:00:00", "los": 1.9},
        }
    ],
    "icu/chartevents": [
        {
            **{"subject_id": 10000022, "hadm_id": 20000102, "stay_id": 30000001, "itemid": 220045, "value": "91"},
            **{"charttime": "2150-03-01 13:00:00", "valuenum": 91, "valueuom": "bpm"},
        }
    ],
}
ROWS = {"mimic3": _ROWS3, "mimic4": _ROWS4}


def write(
    folder: Path,
    version: str,
    *,
    capitals: bool = True,
    gzipped: bool = False,
    without: tuple = (),
    only: tuple = (),
    rows: Mapping[str, Sequence[Mapping[str, object]]] | None = None,
) -> Path:
    """Write a complete copy to a folder and return the folder.

    Args:
        folder: folder of the copy.
        version: `mimic3` or `mimic4`.
        capitals: whether headers and names of files of MIMIC-III are in capitals.
        gzipped: whether files are compressed.
        without: tables to leave out.
        only: the only tables to write; empty for all.
        rows: rows of each table instead of `ROWS`.
    """
    for table, columns in COLUMNS[version].items():
        if table in without or (only and table not in only):
            continue
        header = columns if capitals else columns.lower()
        name = table if capitals else table.lower()
        path = folder / f"{name}.csv{'.gz' if gzipped else ''}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with (gzip.open if gzipped else open)(path, "wt", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header.split(","))
            for row in (ROWS[version] if rows is None else rows).get(table, ()):
                writer.writerow([row.get(column, "") for column in columns.lower().split(",")])
    return folder


def always_fetched(version: str) -> list[str]:
    """Return the files, without ending, of the tables that are part of every download."""
    return [table.file for table in TABLES[version] if table.scope is DownloadScope.ALWAYS]
