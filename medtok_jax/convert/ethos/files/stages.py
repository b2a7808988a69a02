"""Stages of tokenization that write MedTok tokens; a part of ETHOS, as `ethos/tokenize/medtok/__init__.py`.

`dataset=medtok_mimic` is ETHOS's own tokenization of MIMIC-IV with `MedTok.tokens` in place of the tokens for ICD and
ATC codes and of the conversion of ICD-9 codes. `dataset=medtok_meds` reads MEDS of any source.

The names that stages have in the configuration are looked up here, so ETHOS's own are imported too.
"""

import functools
import json
import pickle
from pathlib import Path

import polars as pl
from ethos.constants import STATIC_DATA_FN
from ethos.tokenize.common import CodeCounter as _CodeCounter
from ethos.tokenize.common import transform_to_quantiles
from ethos.tokenize.mappings import get_mimic_drug_name_to_atc_mapping
from ethos.tokenize.mimic import (  # noqa: F401
    BMIData,
    DeathData,
    DemographicData,
    DiagnosesData,
    EdData,
    HCPCSData,
    ICUStayData,
    InpatientData,
    LabData,
    MeasurementData,
    MedicationData,
    PatientFluidOutputData,
    ProcedureData,
    TransferData,
)
from ethos.tokenize.patterns import ScanAndAggregate
from loguru import logger

from . import events

_tokens_of = functools.lru_cache(maxsize=1)(events.read_codes)


@functools.lru_cache(maxsize=1)
def _drugs() -> dict[str, list[str]]:
    return get_mimic_drug_name_to_atc_mapping()


class MedTok:
    """The tokens of medical codes."""

    @staticmethod
    def tokens(df: pl.DataFrame, *, codes: str, unmapped: str = "keep", vocab=None) -> pl.DataFrame:
        """Each medical code in its MedTok tokens.

        Args:
            df: events.
            codes: file with the tokens of each code.
            unmapped: what becomes of codes that are not in it: `keep` them (ETHOS's own stages may follow), `drop`
                them, or `unk`.
            vocab: of ETHOS; not used, it holds all MedTok tokens.
        """
        tokens = _tokens_of(str(codes))
        # Drugs are told by name, for which ETHOS knows ATC codes; of use only where the tokenizer has some.
        drugs = _drugs() if any(key.startswith("ATC/") for key in tokens) else None
        found = events.look_up(df["code"], tokens, drugs)
        _tell(df, found, unmapped)
        return events.replace_codes(df, found, unmapped)


def _tell(df: pl.DataFrame, found: pl.DataFrame, unmapped: str) -> None:
    """Logs how many events have codes without tokens, and the most frequent of these."""
    counts = df["code"].value_counts(name="events").join(found.filter("medical"), on="code")
    missing = counts.filter(pl.col("tokens").is_null()).sort("events", "code", descending=[True, False])
    most = ", ".join(f"{code} ({count:,})" for code, count in missing.head(5).select("code", "events").iter_rows())
    logger.info(
        f"MedTok: {counts['events'].sum():,} events with medical codes, {missing['events'].sum():,} of them with"
        f" {len(missing):,} codes that have no tokens ({unmapped})" + (f", most of all {most}" if most else "")
    )


class Meds:
    """Stages for MEDS of any source, in the place of ETHOS's own for MIMIC-IV."""

    @staticmethod
    def words(df: pl.DataFrame, vocab=None) -> pl.DataFrame:
        """Patients, stays and diagnosis-related groups as ETHOS writes them."""
        df = events.with_words(events.with_demographics(df).sort("subject_id", "time", maintain_order=True))
        return df.filter(pl.col("time").is_null() | (pl.col("time").cast(pl.Int64) >= 0) | events.is_static(df))

    @staticmethod
    def spelled(df: pl.DataFrame, vocab=None) -> pl.DataFrame:
        """Codes in the spelling of ETHOS's vocabulary."""
        fixed = (
            events.is_static(df)
            | pl.col("code").str.starts_with(events.MEDTOK)
            | pl.col("code").str.contains("^Q[0-9]+$")
        )
        return df.with_columns(pl.when(fixed).then("code").otherwise(events.spelled(pl.col("code"))).alias("code"))

    @staticmethod
    def measurements(df: pl.DataFrame, *, counts: str, vocab=None) -> pl.DataFrame:
        """The most frequent measurements, each followed by what becomes its quantile; others are left out."""
        measured = events.is_measurement(df, _is_medical(df))
        known = (
            list(vocab) if vocab is not None else pl.read_csv(counts)["code"].head(events.MAX_MEASUREMENTS).to_list()
        )
        name = events.spelled(pl.col("code"))
        words = (
            pl.when(measured).then(pl.concat_list(name, events.quantile_code(name))).otherwise(pl.concat_list("code"))
        )
        return df.filter(~measured | name.is_in(known)).with_columns(words.alias("code")).explode("code")

    @staticmethod
    def quantiles(df: pl.DataFrame, *, code_quantiles: str, vocab=None) -> pl.DataFrame:
        """ETHOS's own transformation, which cannot do without measurements."""
        if not json.loads(Path(code_quantiles).read_text()):
            return df
        return transform_to_quantiles(df, code_quantiles=code_quantiles)

    @staticmethod
    def timed(df: pl.DataFrame, vocab=None) -> pl.DataFrame:
        """Events of the timeline: those that have a time and are not told ahead of it."""
        return df.filter(~events.is_static(df) & pl.col("time").is_not_null())


def _is_medical(df: pl.DataFrame) -> pl.Expr:
    medical = [code for code in df["code"].unique().to_list() if events.key_of(code)]
    return pl.col("code").is_in(medical) | pl.col("code").str.starts_with(events.MEDTOK)


class _MeasurementCounter(ScanAndAggregate):
    """Counts the events of each measurement."""

    def __call__(self, df: pl.DataFrame, **_) -> pl.DataFrame:
        df = df.filter(events.is_measurement(df, _is_medical(df)))
        return df.select(events.spelled(pl.col("code")).alias("code").value_counts()).unnest("code")

    def agg(self, in_fps: list, out_fp: str | Path) -> None:
        counts = pl.concat([pl.read_parquet(path) for path in in_fps]).group_by("code").agg(pl.col("count").sum())
        counts.sort("count", "code", descending=[True, False]).write_csv(out_fp)


class _StaticData(ScanAndAggregate):
    """ETHOS's own collector, for records in which nothing may be known of some patients."""

    def __call__(self, df: pl.DataFrame, **_) -> pl.DataFrame:
        return df.filter(events.is_static(df)).select("subject_id", "time", "code")

    def agg(self, in_fps: list, out_fp: str | Path) -> None:
        static = events.static_data(pl.concat([pl.read_parquet(path) for path in in_fps]))
        with Path(out_fp).with_name(STATIC_DATA_FN).open("wb") as file:
            pickle.dump(static, file)


class _CompleteCounter(type(_CodeCounter)):
    """Counts the codes that make the vocabulary, and adds those that must be in it although they did not occur.

    A test set may have MedTok tokens that the training set has not, and ETHOS looks up what it says of an unknown
    patient, the quantiles that spell an age, and the intervals.
    """

    def __call__(self, df: pl.DataFrame, **_) -> pl.DataFrame:
        return super().__call__(df)

    def agg(self, in_fps: list, out_fp: str | Path, *, tokens: str) -> None:
        super().agg(in_fps, out_fp)
        counts = pl.read_csv(out_fp)
        needed = pl.Series("code", Path(tokens).read_text().split("\n")[:-1])
        missing = needed.filter(~needed.is_in(counts["code"].to_list())).to_frame()
        pl.concat([counts, missing.with_columns(count=pl.lit(0, counts.schema["count"]))]).write_csv(out_fp)


MeasurementCounter = _MeasurementCounter()
StaticData = _StaticData()
CompleteCounter = _CompleteCounter()
