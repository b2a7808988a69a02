"""Define stages of tokenization that write MedTok tokens; copied to `ethos/tokenize/medtok/__init__.py` in ETHOS.

`dataset=medtok_mimic` is ETHOS's own tokenization of MIMIC-IV with `MedTok.tokens` in place of the tokens for ICD and
ATC codes and of the conversion of ICD-9 codes. `dataset=medtok_meds` reads MEDS of any source.

ETHOS looks up the stages of a configuration by name in this module, so its own stages are imported too.
"""

import functools
import json
import pickle  # nosec B403 # It only writes.
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

from . import code_tokens, events

_codes_of = functools.lru_cache(maxsize=1)(code_tokens.read_codes)


@functools.lru_cache(maxsize=1)
def _drugs() -> dict[str, list[str]]:
    return get_mimic_drug_name_to_atc_mapping()


class MedTok:
    """Define the stage that replaces medical codes by MedTok tokens."""

    @staticmethod
    def tokens(df: pl.DataFrame, *, codes: str, unmapped: str = "keep", vocab=None) -> pl.DataFrame:
        """Replace each medical code by its MedTok tokens.

        Args:
            df: events.
            codes: file with the tokens of each code.
            unmapped: treatment of codes that are not in the file: `keep` them (ETHOS's own stages may follow), `drop`
                them, replace them by `unk`, or take the `nearest` code above, a parent code or the model's tokens as
                the conversion does, and keep the rest.
            vocab: vocabulary of ETHOS; not used, as it holds all MedTok tokens.
        """
        known = _codes_of(str(codes))
        # Drugs are given by name, which ETHOS maps to ATC codes; the map is needed only if the tokenizer has some.
        drugs = _drugs() if any(key.startswith("ATC/") for key in known.table) else None
        found = code_tokens.look_up(df["code"], known, drugs, unmapped=unmapped)
        for line in code_tokens.count_missing(df["code"], found):
            logger.info(f"MedTok: {line} ({unmapped}).")
        return code_tokens.replace_codes(df, found, unmapped)


class Meds:
    """Define stages for MEDS of any source, which replace ETHOS's own for MIMIC-IV."""

    @staticmethod
    def words(df: pl.DataFrame, vocab=None) -> pl.DataFrame:
        """Write patients, stays and diagnosis-related groups as ETHOS does."""
        df = events.with_words(events.with_demographics(df).sort("subject_id", "time", maintain_order=True))
        return df.filter(pl.col("time").is_null() | (pl.col("time").cast(pl.Int64) >= 0) | events.is_static(df))

    @staticmethod
    def spelled(df: pl.DataFrame, vocab=None) -> pl.DataFrame:
        """Spell codes as ETHOS's vocabulary does."""
        fixed = (
            events.is_static(df)
            | pl.col("code").str.starts_with(code_tokens.MEDTOK)
            | pl.col("code").str.contains("^Q[0-9]+$")
        )
        return df.with_columns(pl.when(fixed).then("code").otherwise(events.spelled(pl.col("code"))).alias("code"))

    @staticmethod
    def measurements(df: pl.DataFrame, *, counts: str, codes: str, vocab=None) -> pl.DataFrame:
        """Keep the most frequent measurements, each followed by a code that becomes its quantile."""
        measured = events.is_measurement(df, _is_medical(df, codes))
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
        """Transform values to quantiles as ETHOS does, or return the events unchanged if there are no measurements."""
        if not json.loads(Path(code_quantiles).read_text()):
            return df
        return transform_to_quantiles(df, code_quantiles=code_quantiles)

    @staticmethod
    def timed(df: pl.DataFrame, vocab=None) -> pl.DataFrame:
        """Return the events of the timeline: those that have a time and are not static."""
        return df.filter(~events.is_static(df) & pl.col("time").is_not_null())


def _is_medical(df: pl.DataFrame, codes: str) -> pl.Expr:
    """Return a mask of the events with codes of a code system, with tokens that stand for them, or of MedTok."""
    others = _codes_of(str(codes)).stand_ins
    medical = [code for code in df["code"].unique().to_list() if code_tokens.key_of(code) or code in others]
    return pl.col("code").is_in(medical) | pl.col("code").str.starts_with(code_tokens.MEDTOK)


class _MeasurementCounter(ScanAndAggregate):
    """Count the events of each measurement."""

    def __call__(self, df: pl.DataFrame, *, codes: str, **_) -> pl.DataFrame:
        df = df.filter(events.is_measurement(df, _is_medical(df, codes)))
        return df.select(events.spelled(pl.col("code")).alias("code").value_counts()).unnest("code")

    def agg(self, in_fps: list, out_fp: str | Path) -> None:
        counts = pl.concat([pl.read_parquet(path) for path in in_fps]).group_by("code").agg(pl.col("count").sum())
        counts.sort("count", "code", descending=[True, False]).write_csv(out_fp)


class _StaticData(ScanAndAggregate):
    """Collect static data as ETHOS does, also for patients without any."""

    def __call__(self, df: pl.DataFrame, **_) -> pl.DataFrame:
        return df.filter(events.is_static(df)).select("subject_id", "time", "code")

    def agg(self, in_fps: list, out_fp: str | Path) -> None:
        static = events.static_data(pl.concat([pl.read_parquet(path) for path in in_fps]))
        with Path(out_fp).with_name(STATIC_DATA_FN).open("wb") as file:
            pickle.dump(static, file)


class _CompleteCounter(type(_CodeCounter)):
    """Count the codes that make the vocabulary, and add those that must be in it although they did not occur.

    A test set may have MedTok tokens that the training set lacks, and ETHOS looks up the tokens for unknown static
    data, the quantiles that spell an age, and the intervals.
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
