"""Find the chapter of a code: the top level of its code system, with the official title."""

import bisect
import dataclasses

from preprocessing.codes import ICD9CM, ICD9PROC, ICD10CM, ICD10PCS, compact_code, is_wellformed, stem_length
from preprocessing.graph.icd_trees import ICD9CM_CHAPTERS, ICD9PROC_CHAPTERS, ICD10PCS_SECTIONS

ATC = "ATC"
# Chapters of ICD-10-CM (NCHS tabular list): first and last category, title.
ICD10CM_CHAPTERS = (
    ("A00", "B99", "Certain infectious and parasitic diseases"),
    ("C00", "D49", "Neoplasms"),
    (
        "D50",
        "D89",
        "Diseases of the blood and blood-forming organs and certain disorders involving the immune mechanism",
    ),
    ("E00", "E89", "Endocrine, nutritional and metabolic diseases"),
    ("F01", "F99", "Mental, Behavioral and Neurodevelopmental disorders"),
    ("G00", "G99", "Diseases of the nervous system"),
    ("H00", "H59", "Diseases of the eye and adnexa"),
    ("H60", "H95", "Diseases of the ear and mastoid process"),
    ("I00", "I99", "Diseases of the circulatory system"),
    ("J00", "J99", "Diseases of the respiratory system"),
    ("K00", "K95", "Diseases of the digestive system"),
    ("L00", "L99", "Diseases of the skin and subcutaneous tissue"),
    ("M00", "M99", "Diseases of the musculoskeletal system and connective tissue"),
    ("N00", "N99", "Diseases of the genitourinary system"),
    ("O00", "O9A", "Pregnancy, childbirth and the puerperium"),
    ("P00", "P96", "Certain conditions originating in the perinatal period"),
    ("Q00", "QA0", "Congenital malformations, deformations and chromosomal abnormalities"),
    ("R00", "R99", "Symptoms, signs and abnormal clinical and laboratory findings, not elsewhere classified"),
    ("S00", "T88", "Injury, poisoning and certain other consequences of external causes"),
    ("U00", "U85", "Codes for special purposes"),
    ("V00", "Y99", "External causes of morbidity"),
    ("Z00", "Z99", "Factors influencing health status and contact with health services"),
)
# Main anatomical or pharmacological groups of ATC (WHO Collaborating Centre for Drug Statistics Methodology).
ATC_GROUPS = {
    "A": "Alimentary tract and metabolism",
    "B": "Blood and blood forming organs",
    "C": "Cardiovascular system",
    "D": "Dermatologicals",
    "G": "Genito urinary system and sex hormones",
    "H": "Systemic hormonal preparations, excl. sex hormones and insulins",
    "J": "Antiinfectives for systemic use",
    "L": "Antineoplastic and immunomodulating agents",
    "M": "Musculo-skeletal system",
    "N": "Nervous system",
    "P": "Antiparasitic products, insecticides and repellents",
    "R": "Respiratory system",
    "S": "Sensory organs",
    "V": "Various",
}
_RANGES = {ICD10CM: ICD10CM_CHAPTERS, ICD9CM: ICD9CM_CHAPTERS, ICD9PROC: ICD9PROC_CHAPTERS}
_FIRSTS = {system: [first for first, _, _ in chapters] for system, chapters in _RANGES.items()}
_LETTERS = {ICD10PCS: ICD10PCS_SECTIONS, ATC: ATC_GROUPS}


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Chapter:
    """Name a chapter of `system` by its title and span.

    The span is a range of categories or a first character; it is empty for the one chapter of a system without any.
    """

    system: str
    span: str
    title: str


def chapter_of(system: str, code: str) -> Chapter:
    """Return the chapter of an ICD-10-CM or ICD-9 code, the section of ICD-10-PCS, or the main group of ATC.

    Codes of other systems, and codes that are not well-formed, get one chapter that stands for their system.

    Args:
        system: OMOP vocabulary name.
        code: with or without its dot.
    """
    compact = compact_code(code)
    if system in _LETTERS and compact[:1] in _LETTERS[system]:
        return Chapter(system, compact[0], _LETTERS[system][compact[0]])
    if system in _RANGES and is_wellformed(system, compact):
        index = bisect.bisect_right(_FIRSTS[system], compact[: stem_length(system, compact)]) - 1
        if index >= 0:
            first, last, title = _RANGES[system][index]
            return Chapter(system, first if first == last else f"{first}-{last}", title)
    return Chapter(system, "", system)
