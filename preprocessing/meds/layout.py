"""Define the names that the Medical Event Data Standard fixes: folders, files, columns and codes."""

from preprocessing.common.extras import load

pl = load("polars")

DATA, METADATA = "data", "metadata"
DATASET = "dataset.json"
SPLITS_FILE = "subject_splits.parquet"
CODES = "codes.parquet"
BIRTH, DEATH = "MEDS_BIRTH", "MEDS_DEATH"
# The labels of a task are `labels/<task>/labels.parquet`.
LABELS, TASK_FILE = "labels", "labels.parquet"
# Codes of birth and death in MEDS before 0.3, in EHRSHOT, and in other data that FEMR made of OMOP.
OLD_CODES = {
    **dict.fromkeys(("SNOMED/184099003", "SNOMED/3950001"), BIRTH),
    **dict.fromkeys(("SNOMED/419620001", "Death Type/OMOP generated", "Condition Type/OMOP4822053"), DEATH),
}
# Entry of `dataset.json` that is true if times only order events: intervals between them have no meaning.
TIME_IS_ORDER = "time_is_order"

# The columns that every frame has, in this order, with their types.
COLUMNS = {
    "subject_id": pl.Int64,
    "time": pl.Datetime("us"),
    "code": pl.String,
    "numeric_value": pl.Float32,
    "text_value": pl.String,
    "hadm_id": pl.Int64,
}
