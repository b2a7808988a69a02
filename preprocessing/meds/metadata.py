"""The folder `metadata` of a MEDS data set made of MIMIC: codes, splits, and what the data set is."""

import collections
import datetime
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from preprocessing import codes
from preprocessing.common.extras import load
from preprocessing.common.rejects import Rejects
from preprocessing.meds import splits
from preprocessing.meds.layout import CODES, DATASET, SPLITS
from preprocessing.meds.mimic_codes import MimicCodes
from preprocessing.meds.mimic_files import MIMIC3, Kind, MimicFiles

pl = load("polars")

_NAMES = {"mimic3": "MIMIC-III", "mimic4": "MIMIC-IV"}
# The column that numbers stays comes from the source, and a unit modifies its code.
_ID_COLUMNS, _MODIFIERS = ["hadm_id", "icustay_id"], ["unit"]
_KNOWN = {"MEDS_BIRTH": "Birth", "MEDS_DEATH": "Death", "ED_REGISTRATION": "Arrival in the emergency department"}


def descriptions(files: MimicFiles, rejects: Rejects) -> tuple[dict[str, str], dict[str, str]]:
    """What the dictionaries of MIMIC say: event code, or `LAB//<itemid>` -> description, and -> its LOINC code.

    A dictionary that is absent says nothing.
    """
    text, number = Kind.TEXT, Kind.TEXT
    icd = (
        {"icd9_code": number, "long_title": text}
        if files.version == MIMIC3
        else {"icd_code": number, "long_title": text}
    )
    described: dict[str, str] = {}
    loinc: dict[str, str] = {}
    normal = MimicCodes()
    for table, role in (("d_icd_diagnoses", "DIAGNOSIS"), ("d_icd_procedures", "PROCEDURE")):
        for frame in _blocks(files, table, icd, {"icd_version": text}, rejects):
            keys = normal.icd(role, frame[next(iter(icd))], frame["icd_version"].fill_null("9"))
            described |= _pairs(keys, frame["long_title"])
    hcpcs = {"code": text, "short_description": text}
    for frame in _blocks(files, "d_hcpcs", hcpcs, {"long_description": text}, rejects):
        described |= _pairs(
            normal.procedure(frame["code"]), frame["long_description"].fill_null(frame["short_description"])
        )
    lab = {"itemid": text, "label": text}
    for frame in _blocks(files, "d_labitems", lab, {"fluid": text, "category": text, "loinc_code": text}, rejects):
        label = pl.concat_str("label", "fluid", "category", separator=", ", ignore_nulls=True)
        named = frame.select(key="LAB//" + pl.col("itemid"), label=label, loinc="LOINC/" + pl.col("loinc_code"))
        described |= _pairs(named["key"], named["label"])
        loinc |= _pairs(named["key"], named["loinc"])
    for frame in _blocks(files, "d_items", lab, {"category": text}, rejects):
        named = frame.select(key="CHART//" + pl.col("itemid"), label="label")
        described |= _pairs(named["key"], named["label"])
    return described, loinc


def _blocks(files: MimicFiles, table: str, columns: dict, optional: dict, rejects: Rejects):
    if table in files.paths:
        yield from files.read(table, columns, optional, rejects, progress=False)


def _pairs(keys: "pl.Series", values: "pl.Series") -> dict[str, str]:
    return {key: value for key, value in zip(keys, values, strict=True) if key is not None and value is not None}


def write_codes(
    folder: Path, events: Mapping[str, int], texts: Mapping[str, str], known: tuple[dict[str, str], dict[str, str]]
) -> None:
    """`codes.parquet`: code, description, parent_codes and events, sorted by code.

    Args:
        events: of each code. texts: what the data say of a code. known: what `descriptions` returns.
    """
    described, loinc = known
    rows: dict[str, list] = {"code": [], "description": [], "parent_codes": [], "events": []}
    for code in sorted(events):
        item = "//".join(code.split("//")[:2])
        told = described.get(code) or described.get(item) or _KNOWN.get(code) or texts.get(code)
        rows["code"].append(code)
        rows["description"].append(told)
        rows["parent_codes"].append([loinc[item]] if item in loinc else _parents(code))
        rows["events"].append(events[code])
    kinds = (pa.string(), pa.string(), pa.list_(pa.string()), pa.int64())
    pq.write_table(pa.table(rows, schema=pa.schema(list(zip(rows, kinds, strict=True)))), folder / CODES)


def _parents(code: str) -> list[str] | None:
    """The code above an ICD code, one character shorter, and the product of an NDC; None where it is not known."""
    system, slash, bare = code.partition("/")
    if slash and system in codes.ICD_SYSTEMS and codes.is_wellformed(system, bare):
        compact = codes.compact_code(bare)
        if len(compact) > (codes.stem_length(system, compact) or len(compact)):
            return [f"{system}/{codes.display_code(system, compact[:-1])}"]
    if system == codes.NDC and len(bare) == 11:
        return [f"{system}/{bare[:9]}"]
    return None


def write_splits(folder: Path, subjects: np.ndarray, split: np.ndarray) -> None:
    """`subject_splits.parquet`: subject_id and split, sorted."""
    names = pa.array(np.array(splits.SPLITS, object)[split].tolist(), pa.string())
    pq.write_table(pa.table({"subject_id": pa.array(subjects, pa.int64()), "split": names}), folder / SPLITS)


def write_dataset(folder: Path, version: str, release: str | None, columns: list[str], meds_version: str) -> None:
    """`dataset.json`.

    Args:
        version: `mimic3` or `mimic4`. release: of the data set, where it is known. columns: beside those of MEDS.
    """
    others = [name for name in columns if name not in _ID_COLUMNS and name not in _MODIFIERS]
    about = {
        "dataset_name": _NAMES[version],
        "dataset_version": release,
        "etl_name": "medtok_jax preprocessing.meds",
        "etl_version": "1",
        "meds_version": meds_version,
        "created_at": datetime.datetime.now(datetime.UTC).replace(microsecond=0, tzinfo=None).isoformat(),
        "raw_source_id_columns": _ID_COLUMNS,
        "code_modifier_columns": _MODIFIERS,
        "other_extension_columns": others,
    }
    about = {name: value for name, value in about.items() if value is not None}
    (folder / DATASET).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def write_malformed(path: Path, malformed: collections.Counter[tuple[str, str, str]]) -> None:
    """CSV of the codes that do not have the shape of their system: system, raw, code, events; most frequent first."""
    rows = sorted(malformed.items(), key=lambda item: (-item[1], item[0]))
    columns = {name: [key[place] for key, _ in rows] for place, name in enumerate(("system", "raw", "code"))}
    schema = dict.fromkeys(columns, pl.String) | {"events": pl.Int64}
    pl.DataFrame({**columns, "events": [count for _, count in rows]}, schema=schema).write_csv(path)
