"""Write copies of eICU-CRD, Diabetes-130 and EHRSHOT with the official columns and a few rows of invented patients."""

import csv
import gzip
from pathlib import Path

# Columns as the official files have them, in their order (https://eicu-crd.mit.edu/eicutables).
EICU_COLUMNS = {
    "patient": "patientunitstayid,patienthealthsystemstayid,gender,age,ethnicity,hospitalid,wardid,apacheadmissiondx,"
    "admissionheight,hospitaladmittime24,hospitaladmitoffset,hospitaladmitsource,hospitaldischargeyear,"
    "hospitaldischargetime24,hospitaldischargeoffset,hospitaldischargelocation,hospitaldischargestatus,unittype,"
    "unitadmittime24,unitadmitsource,unitvisitnumber,unitstaytype,admissionweight,dischargeweight,"
    "unitdischargetime24,unitdischargeoffset,unitdischargelocation,unitdischargestatus,uniquepid",
    "hospital": "hospitalid,numbedscategory,teachingstatus,region",
    "diagnosis": "diagnosisid,patientunitstayid,activeupondischarge,diagnosisoffset,diagnosisstring,icd9code,"
    "diagnosispriority",
    "medication": "medicationid,patientunitstayid,drugorderoffset,drugstartoffset,drugivadmixture,drugordercancelled,"
    "drugname,drughiclseqno,dosage,routeadmin,frequency,loadingdose,prn,drugstopoffset,gtc",
    "treatment": "treatmentid,patientunitstayid,treatmentoffset,treatmentstring,activeupondischarge",
    "pastHistory": "pasthistoryid,patientunitstayid,pasthistoryoffset,pasthistoryenteredoffset,pasthistorynotetype,"
    "pasthistorypath,pasthistoryvalue,pasthistoryvaluetext",
    "admissionDx": "admissiondxid,patientunitstayid,admitdxenteredoffset,admitdxpath,admitdxname,admitdxtext",
    "apachePatientResult": "apachepatientresultsid,patientunitstayid,physicianspeciality,"
    "physicianinterventioncategory,acutephysiologyscore,apachescore,apacheversion,predictedicumortality,"
    "actualicumortality,predictediculos,actualiculos,predictedhospitalmortality,actualhospitalmortality,"
    "predictedhospitallos,actualhospitallos,preopmi,preopcardiaccath,ptcawithin24h,unabridgedunitlos,"
    "unabridgedhosplos,actualventdays,predventdays,unabridgedactualventdays",
}
_LIVED = {
    **{"patienthealthsystemstayid": 900, "uniquepid": "002-1", "gender": "Female", "age": "> 89", "ethnicity": "Asian"},
    **{"hospitalid": 59, "hospitaladmittime24": "23:36:00", "hospitaladmitsource": "Floor"},
    **{"hospitaldischargeyear": 2015, "hospitaldischargelocation": "Home", "hospitaldischargestatus": "Alive"},
    **{"unittype": "MICU", "unitdischargestatus": "Alive"},
}
_DIED = {
    **_LIVED,
    **{"patientunitstayid": 21, "patienthealthsystemstayid": 800, "gender": "Male", "age": 61},
    **{"hospitaladmittime24": "08:00:00", "hospitaladmitoffset": -60, "hospitaldischargeyear": 2014},
    **{"hospitaldischargeoffset": 600, "hospitaldischargelocation": "Death", "hospitaldischargestatus": "Expired"},
    **{"unitdischargeoffset": 600, "unitdischargelocation": "Death", "unitdischargestatus": "Expired"},
    **{"unitstaytype": "admit", "unitadmitsource": "Floor"},
}
EICU = {
    # One patient with two hospital stays: in 900 she is twice in intensive care, in 800 (named Male) he dies.
    "patient": [
        _LIVED
        | {"patientunitstayid": 12, "hospitaladmitoffset": -1448, "hospitaldischargeoffset": 1176}
        | {"unitdischargeoffset": 100, "unitstaytype": "stepdown/other", "dischargeweight": "45.0"},
        _LIVED
        | {
            "patientunitstayid": 11,
            "hospitaladmitoffset": -8,
            "hospitaldischargeoffset": 2616,
            "admissionheight": 157.5,
        }
        | {"unitdischargeoffset": 1000, "unitdischargelocation": "Floor", "unitstaytype": "admit"}
        | {"unitadmitsource": "Emergency Department", "admissionweight": 0},
        _DIED,
        # Nobody is discharged from 700: no status, no age, no sex, no hour; the ICU knows of the death.
        _DIED
        | {"patientunitstayid": 31, "patienthealthsystemstayid": 700, "uniquepid": "002-2", "hospitalid": 1}
        | {"gender": "", "age": "", "hospitaladmittime24": "", "hospitaldischargestatus": ""},
        {**_DIED, "patientunitstayid": 31},
        {**_DIED, "patientunitstayid": 41, "patienthealthsystemstayid": 600, "uniquepid": ""},
    ],
    "hospital": [{"hospitalid": 59, "numbedscategory": "<100", "teachingstatus": "f", "region": "Midwest"}],
    "diagnosis": [
        {"patientunitstayid": 11, "diagnosisoffset": 20, "diagnosisstring": "a|b", "diagnosispriority": "Major"}
        | {"icd9code": "401.9, I10, 401.9"},
        {"patientunitstayid": 11, "diagnosisoffset": 20, "diagnosisstring": "c|d", "icd9code": ""},
        {"patientunitstayid": 11, "diagnosisoffset": 30, "icd9code": "E980.2, E87.2, V08, V45.01, v45.01XA"},
        {"patientunitstayid": 11, "diagnosisoffset": 40, "icd9code": "31.1, 8, ??, E11.9X9X9"},
        {"patientunitstayid": 21, "diagnosisoffset": 700, "icd9code": "038.9"},
        {"patientunitstayid": 99, "diagnosisoffset": 1, "icd9code": "038.9"},
        {"patientunitstayid": "x", "diagnosisoffset": 1, "icd9code": "038.9"},
    ],
    "medication": [
        {"patientunitstayid": 21, "drugorderoffset": 134, "drugstartoffset": 300, "drugordercancelled": "No"}
        | {"drugname": "WARFARIN SODIUM 5 MG PO TABS", "drughiclseqno": 2812, "dosage": "5 3", "routeadmin": "PO"}
        | {"frequency": "Daily", "drugstopoffset": 500, "gtc": 0},
        {"patientunitstayid": 21, "drugorderoffset": 5, "drugstartoffset": -188, "drugordercancelled": "No"}
        | {"drugname": "aspirin  EC 81/MG", "drugstopoffset": -200, "gtc": 0},
        {"patientunitstayid": 21, "drugorderoffset": 5, "drugstartoffset": 5, "drugordercancelled": "Yes"}
        | {"drugname": "HEPARIN", "drughiclseqno": 1, "drugstopoffset": 0, "gtc": 0},
    ],
    "treatment": [{"patientunitstayid": 21, "treatmentoffset": 10, "treatmentstring": "pulmonary|oxygen"}],
    "pastHistory": [
        {"patientunitstayid": 21, "pasthistoryoffset": 4, "pasthistoryenteredoffset": 10}
        | {"pasthistorypath": "notes/Progress Notes/Past History/Organ Systems/Renal", "pasthistoryvaluetext": "renal"}
    ],
    "admissionDx": [
        {"patientunitstayid": 21, "admitdxenteredoffset": 15, "admitdxtext": "Sepsis"}
        | {"admitdxpath": "admission diagnosis|All Diagnosis|Sepsis, pulmonary"}
    ],
    "apachePatientResult": [
        {"patientunitstayid": 21, "apacheversion": "IVa", "acutephysiologyscore": 23, "apachescore": 47}
        | {"predictedicumortality": "1.2E-2", "predictedhospitalmortality": -1, "actualhospitalmortality": "EXPIRED"}
    ],
}
DIABETES_COLUMNS = (
    "encounter_id,patient_nbr,race,gender,age,weight,admission_type_id,discharge_disposition_id,admission_source_id,"
    "time_in_hospital,payer_code,medical_specialty,num_lab_procedures,num_procedures,num_medications,number_outpatient,"
    "number_emergency,number_inpatient,diag_1,diag_2,diag_3,number_diagnoses,max_glu_serum,A1Cresult,metformin,"
    "repaglinide,nateglinide,chlorpropamide,glimepiride,acetohexamide,glipizide,glyburide,tolbutamide,pioglitazone,"
    "rosiglitazone,acarbose,miglitol,troglitazone,tolazamide,examide,citoglipton,insulin,glyburide-metformin,"
    "glipizide-metformin,glimepiride-pioglitazone,metformin-rosiglitazone,metformin-pioglitazone,change,diabetesMed,"
    "readmitted"
)
_ENCOUNTER = {
    **dict.fromkeys(DIABETES_COLUMNS.split(",")[24:47], "No"),
    **{"race": "Caucasian", "gender": "Female", "age": "[70-80)", "weight": "?", "admission_type_id": 1},
    **{"discharge_disposition_id": 1, "admission_source_id": 7, "time_in_hospital": 3, "payer_code": "MC"},
    **{"medical_specialty": "Cardiology", "num_lab_procedures": 41, "num_procedures": 0, "num_medications": 8},
    **{"number_outpatient": 0, "number_emergency": 0, "number_inpatient": 2, "number_diagnoses": 3},
    **{"diag_1": "250.83", "diag_2": 8, "diag_3": "?", "max_glu_serum": "None", "A1Cresult": "None"},
    **{"change": "Ch", "diabetesMed": "Yes", "readmitted": "NO"},
}
DIABETES = [
    # Patient 7 has three encounters, listed out of order, and expires in the last one; 8 goes to a hospice.
    _ENCOUNTER
    | {"encounter_id": 300, "patient_nbr": 7, "discharge_disposition_id": 11, "time_in_hospital": 14, "age": "[80-90)"},
    _ENCOUNTER
    | {"encounter_id": 100, "patient_nbr": 7, "readmitted": "<30", "insulin": "Up", "A1Cresult": ">8"}
    | {"glyburide-metformin": "Steady", "weight": "[75-100)"},
    _ENCOUNTER
    | {"encounter_id": 200, "patient_nbr": 7, "readmitted": ">30", "diag_1": "V57", "diag_2": "38", "diag_3": "E878"},
    _ENCOUNTER
    | {"encounter_id": 250, "patient_nbr": 8, "gender": "Unknown/Invalid", "discharge_disposition_id": 13}
    | {"admission_type_id": 6, "race": "?", "payer_code": "?", "max_glu_serum": "Norm"},
]
MAPPING = """admission_type_id,description
1,Emergency
6,NULL
,
discharge_disposition_id,description
1,Discharged to home
11,Expired
13,Hospice / home
,
admission_source_id,description
7, Emergency Room
"""
EHRSHOT_COLUMNS = "patient_id,start,end,code,value,unit,visit_id,omop_table"
EHRSHOT = """5,1950-06-01 00:00:00,,SNOMED/3950001,,,,person
5,1950-06-01 00:00:00,,Gender/F,,,,person
5,2012-03-01 08:15:00,2012-03-04 12:00:00,Visit/IP,,,77,visit_occurrence
5,2012-03-01 09:00:00,,LOINC/718-7,13.5,g/dL,77,measurement
5,2012-03-01 09:00:00,,LOINC/5778-6,Yellow,,77,measurement
5,2012-03-02 00:00:00,2012-03-02 23:59:00,SNOMED/44054006,,,77,condition_occurrence
5,2014-05-06 00:00:00,,Death Type/OMOP generated,,,,death
6,1970-01-01 00:00:00,,SNOMED/3950001,,,,person
6,2011-01-01 10:00:00,,RxNorm/860975,,,78,drug_exposure
6,,,CPT4/99213,,,78,procedure_occurrence
7,1980-01-01 00:00:00,,SNOMED/3950001,,,,person
8,1990-01-01 00:00:00,,SNOMED/3950001,,,,person
"""
SPLITS = "omop_person_id,split\n5,test\n6,val\n7,train\n"
LABELS = {
    "guo_los": "5,2012-03-01 23:59:00,True,boolean\n6,2011-01-01T23:59,False,boolean\n"
    "9,2011-01-01T23:59,True,boolean\n",
    "lab_anemia": "5,2012-03-01 08:59:00,2,categorical\n5,2012-03-01 08:59:30,0,categorical\n",
}


def _write(path: Path, columns: str, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns.split(","), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def eicu(folder: Path) -> Path:
    """Write a copy of eICU-CRD, gzipped as PhysioNet publishes it."""
    for table, rows in EICU.items():
        _write(folder / f"{table}.csv.gz", EICU_COLUMNS[table], rows)
    return folder


def diabetes130(folder: Path) -> Path:
    """Write a copy of Diabetes-130, as UCI's archive holds it."""
    _write(folder / "diabetic_data.csv", DIABETES_COLUMNS, DIABETES)
    (folder / "IDS_mapping.csv").write_text(MAPPING, encoding="utf-8")
    return folder


def ehrshot(folder: Path) -> Path:
    """Write a copy of the CSV release of EHRSHOT."""
    files = {
        "data/ehrshot.csv": f"{EHRSHOT_COLUMNS}\n{EHRSHOT}",
        "splits/person_id_map.csv": SPLITS,
        **{
            f"benchmark/{task}/labeled_patients.csv": f"patient_id,prediction_time,value,label_type\n{rows}"
            for task, rows in LABELS.items()
        },
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder
