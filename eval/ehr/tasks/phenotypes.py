"""Group diagnoses into the 25 phenotypes of Harutyunyan et al. (2019, doi:10.1038/s41597-019-0103-9).

Each phenotype is a group of the single-level Clinical Classifications Software (CCS) of AHRQ, which classifies codes of
ICD-9-CM. A code of ICD-10-CM is mapped by the General Equivalence Mappings from ICD-10-CM to ICD-9-CM: it gets the
groups of all codes that together stand for it, and of its alternatives those groups in which at least half of them are.
So I10 (401.0, 401.1 or 401.9) is essential hypertension, although 401.0 alone is hypertension with complications.
"""

import collections
import functools

from preprocessing.codes import ICD9CM, ICD10CM
from preprocessing.common.extras import load
from preprocessing.sources import icd

pl = load("polars")

# Name -> number of the group in CCS; `hcup_ccs_2015_definitions.yaml` of github.com/YerevaNN/mimic3-benchmarks.
PHENOTYPES = {
    "acute and unspecified renal failure": 157,
    "acute cerebrovascular disease": 109,
    "acute myocardial infarction": 100,
    "cardiac dysrhythmias": 106,
    "chronic kidney disease": 158,
    "chronic obstructive pulmonary disease and bronchiectasis": 127,
    "complications of surgical procedures or medical care": 238,
    "conduction disorders": 105,
    "congestive heart failure; nonhypertensive": 108,
    "coronary atherosclerosis and other heart disease": 101,
    "diabetes mellitus with complications": 50,
    "diabetes mellitus without complication": 49,
    "disorders of lipid metabolism": 53,
    "essential hypertension": 98,
    "fluid and electrolyte disorders": 55,
    "gastrointestinal hemorrhage": 153,
    "hypertension with complications and secondary hypertension": 99,
    "other liver diseases": 151,
    "other lower respiratory disease": 133,
    "other upper respiratory disease": 134,
    "pleurisy; pneumothorax; pulmonary collapse": 130,
    "pneumonia (except that caused by tuberculosis or sexually transmitted disease)": 122,
    "respiratory failure; insufficiency; arrest (adult)": 131,
    "septicemia (except in labor)": 2,
    "shock": 249,
}
# Events that are diagnoses; those of no code system cannot be grouped.
DIAGNOSIS = r"^(?:ICD9CM/|ICD10CM/|SNOMED/|DIAGNOSIS//)"


@functools.cache
def _groups() -> dict[str, list[int]]:
    """Return for each code that CCS classifies, directly or by the mappings, its positions in `PHENOTYPES`."""
    place = {str(number): index for index, number in enumerate(PHENOTYPES.values())}
    of_icd9 = {code: {place[group]} if group in place else set() for code, group, _ in icd.read_ccs()}
    found = {f"{ICD9CM}/{code}": groups for code, groups in of_icd9.items()}
    mapped: dict[str, list[tuple[set[int], bool]]] = {}
    for pair in icd.read_backward_gem():
        if pair.icd9 in of_icd9:
            mapped.setdefault(pair.icd10, []).append((of_icd9[pair.icd9], pair.is_part))
    for icd10, pairs in mapped.items():
        parts = [groups for groups, is_part in pairs if is_part]
        alternatives = [groups for groups, is_part in pairs if not is_part]
        votes = collections.Counter(group for groups in alternatives for group in groups)
        common = {group for group, count in votes.items() if 2 * count >= len(alternatives)}
        found[f"{ICD10CM}/{icd10}"] = common.union(*parts)
    return {code: sorted(groups) for code, groups in found.items()}


def diagnoses(events: "pl.DataFrame") -> "pl.DataFrame":
    """Return the diagnoses among events."""
    return events.filter(pl.col("code").str.contains(DIAGNOSIS))


def with_phenotypes(diagnoses: "pl.DataFrame") -> "pl.DataFrame":
    """Return a row for each phenotype of a diagnosis, with the column `phenotype`, an int64 position in `PHENOTYPES`.

    Raises:
        InputError: the package with the tables is not installed.
    """
    pairs = [(code, place) for code, places in _groups().items() for place in places]
    table = pl.DataFrame(pairs, schema={"code": pl.String, "phenotype": pl.Int64}, orient="row")
    return diagnoses.join(table, on="code", how="inner", maintain_order="left")


def count_ungrouped(diagnoses: "pl.DataFrame") -> int:
    """Return the number of diagnoses whose code is in no group of CCS, so that they cannot be of a phenotype."""
    return int((~diagnoses["code"].is_in(list(_groups()))).sum())
