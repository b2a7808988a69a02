"""Write a folder of official code files with a few rows each, in the format of each publisher.

Names of ICD, NDC and RxNorm are facts or invented; those of SNOMED CT, CPT and ATC are invented.
"""

from pathlib import Path

from tests.helpers.published import write_kg

ICD9_DX = "0010  Cholera due to vibrio cholerae\n38600 M\u00e9ni\u00e8re's disease, unspecified\nE8490 Home accidents\n"
ICD9_SG = "0010 Implantation of chemotherapeutic agent\n640  Circumcision\n"


def order_line(number: int, code: str, billable: int, short: str, long: str) -> str:
    """Return a line of an ICD-10 order file: 1-5 number, 7-13 code, 15 flag, 17-76 short, from 78 long description."""
    return f"{number:05} {code:<7} {billable} {short:<60} {long}\n"


ICD10CM_ORDER = (
    order_line(1, "E11", 0, "Type 2 diabetes mellitus", "Type 2 diabetes mellitus")
    + order_line(2, "E119", 1, "Type 2 diabetes w/o complications", "Type 2 diabetes mellitus without complications")
    + order_line(3, "S52501A", 1, "Unsp fx lower end r radius, init", "Unspecified fracture of right radius, initial")
)
ICD10PCS_ORDER = order_line(
    1, "001", 0, "Medical and Surgical, CNS, Bypass", "Central Nervous System and Cranial Nerves, Bypass"
) + order_line(2, "0016070", 1, "Bypass Cereb Vent to Nasophar", "Bypass Cerebral Ventricle to Nasopharynx, Open")


def conso(rxcui: str, sab: str, tty: str, code: str, name: str, suppress: str = "N") -> str:
    """Return a row of RXNCONSO.RRF: 18 values, each followed by a pipe."""
    return f"{rxcui}|ENG||||||{rxcui}1|{rxcui}1|{rxcui}||{sab}|{tty}|{code}|{name}||{suppress}|4096|\n"


RXNCONSO = (
    conso("6809", "RXNORM", "IN", "6809", "metformin")
    + conso("6809", "ATC", "RXN_IN", "A10BA02", "metformin as RxNorm has it")
    + conso("6809", "ATC", "IN", "A10BA02", "metformin")
    + conso("860975", "RXNORM", "PSN", "860975", "metformin 500 MG Oral Tablet")
    + conso("860975", "RXNORM", "SCD", "860975", "metformin hydrochloride 500 MG Oral Tablet")
    + conso("860975", "RXNORM", "SY", "860975", "Metformin HCl 500 MG Oral Tablet")
    + conso("861007", "RXNORM", "SCD", "861007", "an obsolete tablet", "O")
    + conso("215928", "ATC", "PT", "A10BA", "Made-up class of biguanides")
    + conso("215927", "ATC", "PT", "A10", "Made-up group of sugar drugs")
)


def sat(rxcui: str, name: str, sab: str, value: str) -> str:
    """Return a row of RXNSAT.RRF: 13 values, each followed by a pipe."""
    return f"{rxcui}|||{rxcui}1|AUI|{rxcui}|||{name}|{sab}|{value}|N|4096|\n"


RXNSAT = (
    sat("860975", "NDC", "RXNORM", "00002143380")
    + sat("860975", "NDC", "MTHSPL", "0002-1433-80")
    + sat("860975", "RXN_HUMAN_DRUG", "RXNORM", "US")
)

PRODUCT_HEADER = (
    "PRODUCTID\tPRODUCTNDC\tPRODUCTTYPENAME\tPROPRIETARYNAME\tPROPRIETARYNAMESUFFIX\tNONPROPRIETARYNAME\t"
    "DOSAGEFORMNAME\tROUTENAME\tSTARTMARKETINGDATE\tENDMARKETINGDATE\tMARKETINGCATEGORYNAME\tAPPLICATIONNUMBER\t"
    "LABELERNAME\tSUBSTANCENAME\tACTIVE_NUMERATOR_STRENGTH\tACTIVE_INGRED_UNIT\tPHARM_CLASSES\tDEASCHEDULE\t"
    "NDC_EXCLUDE_FLAG\tLISTING_RECORD_CERTIFIED_THROUGH\r\n"
)


def product(identity: str, ndc: str, name: str, generic: str, drug: str, suffix: str = "") -> str:
    """Return a row of product.txt.

    `drug` holds form, route, substances, strengths, units and classes, separated by `|`.
    """
    form, route, substances, strengths, units, classes = drug.split("|")
    return (
        f"{identity}\t{ndc}\tHUMAN PRESCRIPTION DRUG\t{name}\t{suffix}\t{generic}\t{form}\t{route}\t20140918\t\tNDA\t"
        f"NDA1\tA Company\t{substances}\t{strengths}\t{units}\t{classes}\t\tN\t20201231\r\n"
    )


PRODUCT = (
    PRODUCT_HEADER
    + product(
        "0002-1433_a",
        "0002-1433",
        "Trulicity",
        "Dulaglutide",
        "INJECTION, SOLUTION|SUBCUTANEOUS|DULAGLUTIDE|.75|mg/.5mL|GLP-1 Agonist [EPC],Glucagon-Like Peptide 1 [CS]",
    )
    + product(
        "50242-040_b",
        "50242-040",
        "Tussy",
        "aspirin and caffeine",
        'TABLET|ORAL; BUCCAL|ASPIRIN; CAFFEINE|250; 65|mg/1; mg/1|Cough [MoA],Drops, 5" [CS]',
        "Forte",
    )
    + product("60575-4112_c", "60575-4112", "caf\u00e9ine", "caf\u00e9ine", "PELLET|ORAL||||")
)
PACKAGE_HEADER = (
    "PRODUCTID\tPRODUCTNDC\tNDCPACKAGECODE\tPACKAGEDESCRIPTION\tSTARTMARKETINGDATE\tENDMARKETINGDATE\t"
    "NDC_EXCLUDE_FLAG\tSAMPLE_PACKAGE\r\n"
)


def package(identity: str, product_ndc: str, ndc: str, text: str) -> str:
    """Return a row of package.txt."""
    return f"{identity}\t{product_ndc}\t{ndc}\t{text}\t20141107\t\tN\tN\r\n"


PACKAGE = (
    PACKAGE_HEADER
    + package(
        "0002-1433_a",
        "0002-1433",
        "0002-1433-80",
        "4 SYRINGE in 1 CARTON (0002-1433-80)  > .5 mL in 1 SYRINGE (0002-1433-01) ",
    )
    + package("50242-040_b", "50242-040", "50242-040-62", "1 BOTTLE in 1 CARTON (50242-040-62)")
)

CONCEPT_HEADER = "id\teffectiveTime\tactive\tmoduleId\tdefinitionStatusId\r\n"
DESCRIPTION_HEADER = (
    "id\teffectiveTime\tactive\tmoduleId\tconceptId\tlanguageCode\ttypeId\tterm\tcaseSignificanceId\r\n"
)
FULLY_SPECIFIED_NAME, SYNONYM = "900000000000003001", "900000000000013009"


def concept(identity: str, active: int = 1) -> str:
    """Return a row of a concept snapshot."""
    return f"{identity}\t20250101\t{active}\t900000000000207008\t900000000000074008\r\n"


def description(concept_id: str, kind: str, term: str, active: int = 1) -> str:
    """Return a row of a description snapshot."""
    return (
        f"751689013\t20250101\t{active}\t900000000000207008\t{concept_id}\ten\t{kind}\t{term}\t900000000000448009\r\n"
    )


CONCEPTS = (
    CONCEPT_HEADER
    + concept("73211009")
    + concept("22298006")
    + concept("44054006")
    + concept("404684003", active=0)
    + concept("138875005")
)
DESCRIPTIONS = (
    DESCRIPTION_HEADER
    + description("73211009", SYNONYM, "Sweet illness")
    + description("73211009", FULLY_SPECIFIED_NAME, "An older name (disorder)", active=0)
    + description("73211009", FULLY_SPECIFIED_NAME, 'Made-up "sweet" illness (chronic) (disorder)')
    + description("22298006", FULLY_SPECIFIED_NAME, "Made-up fruit (organism)")
    + description("44054006", FULLY_SPECIFIED_NAME, "Made-up fruit (substance)")
    + description("404684003", FULLY_SPECIFIED_NAME, "Retired thing (finding)")
    + description("138875005", FULLY_SPECIFIED_NAME, "Root without tag")
)

ATC_CSV = (
    '"ATC code","ATC level name","DDD"\n'
    "A,Made-up organ,\n"
    "A10,Made-up group of sugar drugs,\n"
    'A10BA,"Made-up class, of biguanides",\n'
    "A10BA02,metformin,2 g\n"
    "A10BA02,metformin,1 g\n"
)
LONGULT = (
    "A made-up notice about the license\n\n"
    "99213\tMade-up visit of an established patient\n"
    "0042T\tMade-up perfusion analysis\n"
)


def hcpcs_line(code: str, number: int, kind: str, text: str, short: str = "", terminated: str = "") -> str:
    """Return a record of the HCPCS file.

    Its columns are: 1-5 code, 6-10 line, 11 kind, 12-91 long, 92-119 short, 285-292 termination date.
    """
    line = f"{code:>5}{number:05}{kind}{text:<80}{short:<28}"
    return f"{line:<268}{'20020101':<16}{terminated:<8}{'N':<28}\r\n"


HCPCS_TXT = (
    hcpcs_line(
        "J1100", 100, "3", "Injection, dexamethasone sodium phosphate, in a description that goes on beyond", "Dexa"
    )
    + hcpcs_line("J1100", 200, "4", "eighty columns, 1 mg")
    + hcpcs_line("A4550", 100, "3", "Surgical trays", "Surgical trays", "20251231")
    + hcpcs_line("TC", 100, "7", "Technical component", "Technical component")
    + hcpcs_line("TC", 200, "8", "goes on")
)

FILES = {
    "ICD9CM/CMS32_DESC_LONG_DX.txt": ICD9_DX.encode("cp1252"),
    "ICD9CM/CMS32_DESC_LONG_SG.txt": ICD9_SG.encode("cp1252"),
    "ICD10CM/icd10cm-order-2025.txt": ICD10CM_ORDER.encode(),
    "ICD10PCS/icd10pcs_order_2025.txt": ICD10PCS_ORDER.encode(),
    "RxNorm/rrf/RXNCONSO.RRF": RXNCONSO.encode(),
    "RxNorm/rrf/RXNSAT.RRF": RXNSAT.encode(),
    "NDC/product.txt": PRODUCT.encode("cp1252"),
    "NDC/package.txt": PACKAGE.encode(),
    "SNOMED/Snapshot/Terminology/sct2_Concept_Snapshot_INT_20250101.txt": CONCEPTS.encode(),
    "SNOMED/Snapshot/Terminology/sct2_Description_Snapshot-en_INT_20250101.txt": DESCRIPTIONS.encode(),
    "ATC/atc.csv": ATC_CSV.encode(),
    "CPT4/LONGULT.txt": LONGULT.encode(),
    "HCPCS/HCPC2025_JUL_ANWEB_06172025.txt": HCPCS_TXT.encode(),
}


def write_files(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    """Write the files to a folder and return the folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def write_all(folder: Path) -> Path:
    """Write every file that the pipeline downloads, as a person would have fetched them, and return the folder."""
    write_files(folder)
    order = ICD10CM_ORDER
    for number in range(40):
        text = f"Made-up illness number {number}"
        order += order_line(10 + number, f"Q{number:02}1", 1, text, text)
    (folder / "ICD10CM/icd10cm-order-2025.txt").write_text(order + "no line of such a file\n")
    for name in ("2018_I9gem.txt", "2018_I10gem.txt", "gem_i9pcs.txt", "gem_pcsi9.txt"):
        (folder / name).write_text("0010  A000    00000\n")
    write_kg(folder / "kg.csv")
    (folder / "mondo_exactmatch_icd10cm.sssom.tsv").write_text(
        "# mapping_set_id: made up\nsubject_id\tsubject_label\tpredicate_id\tobject_id\tobject_label\n"
        "MONDO:0005148\ttype 2 diabetes mellitus\tskos:exactMatch\tICD10CM:E11\tType 2 diabetes mellitus\n"
    )
    (folder / "mondo.obo").write_text("format-version: 1.2\n\n[Term]\nid: MONDO:0005148\nname: type 2 diabetes\n")
    (folder / "hp.obo").write_text("format-version: 1.2\n\n[Term]\nid: HP:0001944\nname: Dehydration\n")
    (folder / "drugbank vocabulary.csv").write_text(
        "DrugBank ID,Accession Numbers,Common name,CAS,UNII,Synonyms,Standard InChI Key\n"
        "DB00331,,Metformin,,,Dimethylbiguanide,\n"
    )
    return folder
