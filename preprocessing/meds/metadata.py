"""Write the folder `metadata` of a MEDS data set made of MIMIC: codes, splits, and facts about the data set."""

import collections
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from preprocessing import codes
from preprocessing.common.extras import load
from preprocessing.common.rejects import Rejects
from preprocessing.common.spreadsheets import TableWriter
from preprocessing.linking.ndc_map import NdcMap
from preprocessing.meds import splits
from preprocessing.meds.layout import CODES, DATASET, SPLITS_FILE
from preprocessing.meds.mimic_codes import MimicCodes
from preprocessing.meds.mimic_files import MimicFiles
from preprocessing.meds.mimic_tables import MIMIC3, table_of

pl = load("polars")

_NAMES = {
    **{"mimic3": "MIMIC-III", "mimic4": "MIMIC-IV"},
    **{"eicu": "eICU-CRD", "diabetes130": "Diabetes 130-US hospitals", "ehrshot": "EHRSHOT"},
    "planted": "Planted world",
}
# Columns of ids that the source gives, and columns that modify a code.
_ID_COLUMNS = ["hadm_id", "icustay_id"]
_MODIFIERS = ["unit"]
_KNOWN = {"MEDS_BIRTH": "Birth", "MEDS_DEATH": "Death", "ED_REGISTRATION": "Arrival in the emergency department"}


def descriptions(files: MimicFiles, rejects: Rejects) -> tuple[dict[str, str], dict[str, str]]:
    """Read the dictionaries of MIMIC that exist.

    Returns:
        described: event code, or its beginning such as `LAB//<itemid>` -> description.
        loinc: beginning of an event code -> `LOINC/<code>`.
    """
    described: dict[str, str] = {}
    loinc: dict[str, str] = {}
    normal = MimicCodes()
    for table, role in (("d_icd_diagnoses", "DIAGNOSIS"), ("d_icd_procedures", "PROCEDURE")):
        for frame in _blocks(files, table, rejects):
            code = "icd9_code" if files.version == MIMIC3 else "icd_code"
            keys = normal.icd(role, frame[code], frame["icd_version"].fill_null("9"))
            described |= _pairs(keys, frame["long_title"])
    for frame in _blocks(files, "d_hcpcs", rejects):
        described |= _pairs(
            normal.procedure(frame["code"]), frame["long_description"].fill_null(frame["short_description"])
        )
    for frame in _blocks(files, "d_labitems", rejects):
        label = pl.concat_str("label", "fluid", "category", separator=", ", ignore_nulls=True)
        named = frame.select(key="LAB//" + pl.col("itemid"), label=label, loinc="LOINC/" + pl.col("loinc_code"))
        described |= _pairs(named["key"], named["label"])
        loinc |= _pairs(named["key"], named["loinc"])
    for frame in _blocks(files, "d_items", rejects):
        named = frame.select(key="CHART//" + pl.col("itemid"), label="label")
        described |= _pairs(named["key"], named["label"])
    return described, loinc


def _blocks(files: MimicFiles, name: str, rejects: Rejects):
    table = table_of(files.version, name)
    if table is not None and name in files.paths:
        yield from files.read(name, table.columns, table.optional, rejects, progress=False)


def _pairs(keys: "pl.Series", values: "pl.Series") -> dict[str, str]:
    return {key: value for key, value in zip(keys, values, strict=True) if key is not None and value is not None}


def write_codes(
    folder: Path,
    events: Mapping[str, int],
    texts: Mapping[str, str],
    known: tuple[dict[str, str], dict[str, str]],
    ndc_map: NdcMap | None = None,
) -> None:
    """Write `codes.parquet` into `folder`: code, description, parent_codes and events, sorted by code.

    Args:
        folder: folder `metadata` of the data set.
        events: code -> number of its events.
        texts: code -> text of its events, which describes it if no dictionary does.
        known: the result of `descriptions`.
        ndc_map: codes of other systems that stand for NDCs, or None.
    """
    described, loinc = known
    rows: dict[str, list] = {"code": [], "description": [], "parent_codes": [], "events": []}
    for code in sorted(events):
        item = "//".join(code.split("//")[:2])
        description = described.get(code) or described.get(item) or _KNOWN.get(code) or texts.get(code)
        rows["code"].append(code)
        rows["description"].append(description)
        rows["parent_codes"].append([loinc[item]] if item in loinc else parents(code, ndc_map))
        rows["events"].append(events[code])
    kinds = (pa.string(), pa.string(), pa.list_(pa.string()), pa.int64())
    pq.write_table(pa.table(rows, schema=pa.schema(list(zip(rows, kinds, strict=True)))), folder / CODES)


def parents(code: str, ndc_map: NdcMap | None) -> list[str] | None:
    """Return the category above an ICD code; what stands for an NDC, and its product; None for other codes.

    A prefix that ends in the placeholder X is no category: ICD-10-CM/T81.4XXA is below T81.4. The categories of
    ICD-10-PCS are its tables, of three characters.
    """
    system, slash, bare = code.partition("/")
    if not slash or not codes.is_wellformed(system, bare):
        return None
    above = list(codes.ancestors(system, bare))
    if system == codes.ICD10PCS:
        above = above[-1:]
    elif system == codes.ICD10CM:
        above = [category for category in above if not category.endswith("X")]
    if not above:
        return None
    others = ndc_map.codes_of(bare) if ndc_map and system == codes.NDC else ()
    return [*others, f"{system}/{above[0]}"]


def write_splits(folder: Path, subjects: np.ndarray, split: np.ndarray) -> None:
    """Write `subject_splits.parquet` with the columns subject_id and split, sorted.

    Args:
        folder: folder `metadata` of the data set.
        subjects: sorted ids, int64 [n].
        split: position of each subject's split in `splits.SUBJECT_SPLITS`, int8 [n].
    """
    names = pa.array(np.array(splits.SUBJECT_SPLITS, object)[split].tolist(), pa.string())
    pq.write_table(pa.table({"subject_id": pa.array(subjects, pa.int64()), "split": names}), folder / SPLITS_FILE)


def write_dataset(
    folder: Path,
    version: str,
    release: str | None,
    columns: list[str],
    meds_version: str,
    further: Mapping[str, object] | None = None,
) -> None:
    """Write `dataset.json`, without a time of creation: the same input gives the same bytes.

    Args:
        folder: folder `metadata` of the data set.
        version: name of the source: `mimic3`, `mimic4`, `eicu`, `diabetes130`, `ehrshot` or `planted`.
        release: release of the source, such as `3.1`, or None.
        columns: names of the columns that MEDS does not define.
        meds_version: version of the package `meds`.
        further: further entries of the file, such as `time_is_order`.
    """
    others = [name for name in columns if name not in _ID_COLUMNS and name not in _MODIFIERS]
    about = {
        "dataset_name": _NAMES[version],
        "dataset_version": release,
        "etl_name": "medtok_jax preprocessing.meds",
        "etl_version": "1",
        "meds_version": meds_version,
        "raw_source_id_columns": [name for name in _ID_COLUMNS if name in columns],
        "code_modifier_columns": [name for name in _MODIFIERS if name in columns],
        "other_extension_columns": others,
        **(further or {}),
    }
    about = {name: value for name, value in about.items() if value is not None}
    (folder / DATASET).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def write_malformed(path: Path, malformed: collections.Counter[tuple[str, str, str]]) -> None:
    """Write a CSV (system, raw, code, events) of codes without the shape of their system, most frequent first."""
    rows = sorted(malformed.items(), key=lambda item: (-item[1], item[0]))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = TableWriter(file)
        writer.row(("system", "raw", "code", "events"))
        writer.rows((*key, count) for key, count in rows)
