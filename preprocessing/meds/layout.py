"""Define the names that the Medical Event Data Standard fixes: folders, files, columns and codes."""

from preprocessing.common.extras import load

pl = load("polars")

DATA, METADATA = "data", "metadata"
DATASET = "dataset.json"
SPLITS_FILE = "subject_splits.parquet"
CODES = "codes.parquet"
BIRTH, DEATH = "MEDS_BIRTH", "MEDS_DEATH"

# The columns that every frame has, in this order, with their types.
COLUMNS = {
    "subject_id": pl.Int64,
    "time": pl.Datetime("us"),
    "code": pl.String,
    "numeric_value": pl.Float32,
    "text_value": pl.String,
    "hadm_id": pl.Int64,
}
