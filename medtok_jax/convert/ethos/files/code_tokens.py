"""Replace medical codes, in any spelling of patient records, by their MedTok tokens.

The module needs only polars. It is copied to `ethos/tokenize/medtok/code_tokens.py` in ETHOS and runs there, without
the tokenizer and its index of codes; it maps codes as the conversion does (`records.event_codes`). The conversion uses
`replace_codes` too.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import polars as pl

MEDTOK = "MEDTOK//"
# Replaces a code that the tokenizer does not hold, if `unmapped` is `unk`.
UNK = f"{MEDTOK}UNK"
# A code without tokens of its own gets those of the nearest code above it, if `unmapped` is this.
NEAREST = "nearest"
_PREFIXED = re.compile(r"([A-Za-z][A-Za-z0-9 _.-]{0,40}?) *[/:|] *(.+)", re.DOTALL)
# Names of code systems, in capitals and without anything but letters and digits. The names of an edition alone, such as
# ICD10, say nothing here: whether a diagnosis or a procedure is meant, only an index of all codes could tell.
_SYSTEMS = {
    **{name: name for name in ("ICD10CM", "ICD10PCS", "ICD9CM", "ICD9PROC", "SNOMED", "RXNORM", "NDC", "ATC")},
    **{name: name for name in ("CPT4", "HCPCS")},
    **{"ICD10DX": "ICD10CM", "ICD10PROC": "ICD10PCS", "ICD10PROCEDURE": "ICD10PCS", "ICD9DX": "ICD9CM"},
    **{"ICD9PCS": "ICD9PROC", "ICD9PROCEDURE": "ICD9PROC", "SNOMEDCT": "SNOMED", "SNOMEDCTUS": "SNOMED"},
    **{"SCT": "SNOMED", "RXCUI": "RXNORM", "CPT": "CPT4", "NDC11": "NDC", "ATCWHO": "ATC"},
}
_NOT_NAME = re.compile(r"[^A-Z0-9]")
# ETHOS's own extraction of MIMIC-IV has names after `HCPCS//`, not codes.
_HCPCS = re.compile(r"[A-Z][0-9]{4}", re.IGNORECASE)
_EDITION = re.compile(r"0?(9|10)(?:\.0+)?")
# What the edition of ICD says behind the kind of the event.
_ICD = {
    ("DIAGNOSIS", "9"): "ICD9CM",
    ("DIAGNOSIS", "10"): "ICD10CM",
    ("PROCEDURE", "9"): "ICD9PROC",
    ("PROCEDURE", "10"): "ICD10PCS",
}
# A part of the code of a drug; the others may be its name, with any characters, and what was done with it.
_NDC = re.compile(r"[0-9]{11}|[0-9]{4,5}-[0-9]{3,4}-[0-9]{1,2}")
_NDC_PRODUCT = re.compile(r"[0-9]{4,5}-[0-9]{3,4}")
_DRUG = re.compile(r"MEDICATION//(.+)//Administered")
# Codes without dots of the systems whose codes have others above them, and characters before the dot of ICD codes.
_SHAPES = {
    "ICD10CM": re.compile(r"[A-Z](?:[0-9][0-9A-Z]|A[0-9])[0-9A-Z]{0,4}"),
    "ICD10PCS": re.compile(r"[0-9A-HJ-NP-Z]{7}"),
    "ICD9CM": re.compile(r"[0-9]{3,5}|V[0-9]{2,4}|E[0-9]{3,4}"),
    "ICD9PROC": re.compile(r"[0-9]{2,4}"),
    "ATC": re.compile(r"[ABCDGHJLMNPRSV](?:[0-9]{2}(?:[A-Z](?:[A-Z](?:[0-9]{2})?)?)?)?"),
    "NDC": re.compile(r"[0-9]{11}"),
}
_STEMS = {"ICD10CM": 3, "ICD9CM": 3, "ICD9PROC": 2}
# Characters of the codes above, the longest first; the shortest code above another of ICD-10-PCS is its table.
_LEVELS = {"ICD10PCS": (6, 5, 4, 3), "ATC": (5, 4, 3, 1), "NDC": (9,)}


class Codes(NamedTuple):
    """Hold the tokens of codes by `key_of`.

    Attributes:
        table: tokens of the codes of the tokenizer.
        stand_ins: tokens of codes of the records that the tokenizer lacks, from their parent codes or from its model;
            an event outside of all code systems is here as the records spell it.
    """

    table: Mapping[str, list[str]]
    stand_ins: Mapping[str, list[str]]


def read_codes(path: str | Path) -> Codes:
    """Read the tokens of codes from a Parquet file with the columns `code`, `tokens` and `in_table`.

    `code` is `SYSTEM/code`, or a code as the records spell it where `in_table` is false; `tokens` lists ids of rows of
    the codebook.
    """
    table = pl.read_parquet(path)
    tokens = table["tokens"].cast(pl.List(pl.String)).to_list()
    of_table: dict[str, list[str]] = {}
    stand_ins: dict[str, list[str]] = {}
    for code, row, in_table in zip(table["code"], tokens, table["in_table"], strict=True):
        key = key_of(code)
        words = [MEDTOK + number for number in row]
        if not in_table:
            stand_ins[key or code] = words
        elif key:
            of_table[key] = words
    return Codes(of_table, stand_ins)


def key_of(code: str) -> str | None:
    """Return `SYSTEM/code` in capitals without dots for a code in any spelling of patient records, None otherwise.

    A dot that stands where no code of the system has it is kept, as it makes another code: 34.0 is no 340.
    """
    system, bare = _split(_of_drug(code).strip())
    if system is None or (system == "HCPCS" and not _HCPCS.fullmatch(bare)):
        return None
    bare = (_digits(bare) if system == "NDC" else bare).upper()
    stem, dot, rest = bare.partition(".")
    is_misplaced = dot and (not rest or len(stem) != _stem_length(system, bare))
    return f"{system}/{bare}" if is_misplaced else f"{system}/{stem}{rest.replace('.', '')}"


def _of_drug(code: str) -> str:
    """Return `NDC/00002143380` for `MEDICATION//A/B//00002143380//Administered`, the code of another event as it is.

    A drug that names another system keeps it.
    """
    kind, *parts = (text.strip() for text in code.split("//"))
    if kind.upper() != "MEDICATION":
        return code
    for place, part in enumerate(parts[:-1]):
        if _system_of(part) not in (None, "NDC"):
            return f"{part}//{parts[place + 1]}"
    ndc = [text for text in parts if _NDC.fullmatch(text)]
    return f"NDC/{ndc[0]}" if ndc else code


def _split(text: str) -> tuple[str | None, str]:
    """Return the code system that a text names, None if it names none, and the code behind it."""
    if "//" in text:
        kind, *rest, code = text.split("//")
        edition = _EDITION.fullmatch(rest[-1].strip()) if rest else None
        name = "".join([*rest[:-1], edition[1]] if edition else rest)
        plain = _NOT_NAME.sub("", name.upper()).removeprefix("ICD")
        system = _ICD.get((_NOT_NAME.sub("", kind.upper()), plain)) or _system_of(name if rest else kind)
    else:
        found = _PREFIXED.fullmatch(text)
        system, code = (_system_of(found[1]), found[2]) if found else (None, text)
    return system, code.strip()


def _system_of(name: str) -> str | None:
    """Return the code system of a name, None if there is none."""
    return _SYSTEMS.get(_NOT_NAME.sub("", name.upper()))


def _digits(ndc: str) -> str:
    """Return an NDC with hyphens as 5, 4 and 2 digits, a product as 5 and 4, and every other text as it is."""
    if "-" not in ndc or not (_NDC.fullmatch(ndc) or _NDC_PRODUCT.fullmatch(ndc)):
        return ndc
    return "".join(text.zfill(digits) for text, digits in zip(ndc.split("-"), (5, 4, 2), strict=False))


def _stem_length(system: str, code: str) -> int:
    return 4 if system == "ICD9CM" and code.startswith("E") else _STEMS.get(system, 0)


def _above(key: str) -> Iterator[str]:
    """Yield the keys above that of a code, nearest first; they need not exist."""
    system, code = key.split("/", 1)
    if system in _SHAPES and _SHAPES[system].fullmatch(code):
        levels = _LEVELS.get(system) or range(len(code) - 1, _stem_length(system, code) - 1, -1)
        yield from (f"{system}/{code[:length]}" for length in levels if length < len(code))


def _nearest(code: str, key: str | None, codes: Codes) -> list[str]:
    """Return the tokens of the nearest code above one without tokens, else of its parent codes or the model; or []."""
    above = next((codes.table[other] for other in _above(key) if other in codes.table), None) if key else None
    return above or codes.stand_ins.get(key or code, [])


def look_up(
    codes: pl.Series, known: Codes, drugs: Mapping[str, list[str]] | None = None, *, unmapped: str = "keep"
) -> pl.DataFrame:
    """Look up the tokens of the distinct codes of events.

    Args:
        codes: codes of events.
        known: see `read_codes`.
        drugs: ATC codes of each drug name in lower case, for medications that are given by name.
        unmapped: with `NEAREST`, a code without tokens gets those that stand for it.

    Returns:
        `code`, `medical` (bool, True for codes of a code system) and `tokens` (a list, or null).
    """
    rows = []
    for code in codes.drop_nulls().unique().to_list():
        key = key_of(code)
        keys = [key] if key else []
        if not keys and drugs and (drug := _DRUG.fullmatch(code)):
            keys = [f"ATC/{atc}" for atc in drugs.get(drug[1].strip(" ").lower(), ())]
        found = [token for name in keys for token in known.table.get(name, ())]
        if not found and unmapped == NEAREST:
            found = _nearest(code, key, known)
        rows.append((code, bool(keys or found), found or None))
    schema = {"code": pl.String, "medical": pl.Boolean, "tokens": pl.List(pl.String)}
    return pl.DataFrame(rows, schema=schema, orient="row")


def count_missing(codes: pl.Series, found: pl.DataFrame) -> list[str]:
    """Return a sentence for each code system: its events, and how many of them have codes without tokens.

    No code is named, as records may hold anything in place of one.

    Args:
        codes: codes of events.
        found: see `look_up`.
    """
    counts = codes.alias("code").value_counts(name="events").join(found.filter("medical"), on="code")
    systems = [(key_of(code) or "other/").split("/")[0] for code in counts["code"]]
    missing = pl.col("tokens").is_null()
    sums = counts.group_by(system=pl.Series("system", systems, pl.String)).agg(
        pl.col("events").sum(), lacking=pl.col("events").filter(missing).sum(), codes=missing.sum()
    )
    return [
        f"{events:,} events have codes of {system}, {lacking:,} of them {codes:,} codes without tokens"
        for system, events, lacking, codes in sums.sort("system").iter_rows()
    ]


def replace_codes(df: pl.DataFrame, found: pl.DataFrame, unmapped: str) -> pl.DataFrame:
    """Replace the medical codes of events by tokens, in their order; other columns are repeated for each token.

    Args:
        df: events.
        found: see `look_up`.
        unmapped: treatment of medical codes without tokens: `keep` them (so does `nearest`), `drop` them, or replace
            them by `unk`.
    """
    # A left join may reorder rows, so their order is kept in a column.
    df = df.with_row_index("__row").join(found, on="code", how="left")
    missing = pl.col("medical").fill_null(False) & pl.col("tokens").is_null()
    if unmapped == "drop":
        df = df.filter(~missing)
    elif unmapped == "unk":
        df = df.with_columns(pl.when(missing).then(pl.lit(UNK)).otherwise("code").alias("code"))
    words = pl.when(pl.col("tokens").is_null()).then(pl.concat_list("code")).otherwise("tokens")
    df = df.with_columns(words.alias("code"))
    return df.drop("medical", "tokens").sort("__row").explode("code").drop("__row")
