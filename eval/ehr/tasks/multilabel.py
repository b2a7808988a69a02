"""Label stays with several classes at once: phenotypes of the coming stay, and drugs first ordered after a day."""

from eval.ehr.tasks.drugs import DRUGS, orders
from eval.ehr.tasks.outcomes import in_hospital_after_a_day
from eval.ehr.tasks.phenotypes import PHENOTYPES, count_ungrouped, diagnoses, with_phenotypes
from eval.ehr.tasks.shard import Shard, flags, is_among
from eval.ehr.tasks.stays import Exclusions, of_stay
from preprocessing.common.extras import load
from preprocessing.meds.mimic_tables import END_OF_DAY

pl = load("polars")


def phenotypes(shard: Shard, samples: "pl.DataFrame", exclusions: Exclusions) -> "pl.DataFrame":
    """Label admissions with the phenotypes of the stay that begins; see `functions`."""
    samples, own = _coming(shard, samples, exclusions)
    return samples.with_columns(flags(samples, with_phenotypes(own), "phenotype", len(PHENOTYPES)))


def new_phenotypes(shard: Shard, samples: "pl.DataFrame", exclusions: Exclusions) -> "pl.DataFrame":
    """Label admissions with those phenotypes of the coming stay that the patient did not have; see `functions`."""
    samples, own = _coming(shard, samples, exclusions)
    known = with_phenotypes(diagnoses(shard.events)).select("subject_id", "phenotype", seen="time").unique()
    known = known.join(samples.select("stay", "subject_id", "start"), on="subject_id", how="inner")
    known = known.filter(pl.col("seen") < pl.col("start"))
    new = with_phenotypes(own).join(known, on=["stay", "phenotype"], how="anti")
    return samples.with_columns(flags(samples, new, "phenotype", len(PHENOTYPES)))


def _coming(shard: Shard, samples: "pl.DataFrame", exclusions: Exclusions) -> tuple["pl.DataFrame", "pl.DataFrame"]:
    """Return the stays with a diagnosis that follow another stay, and their diagnoses."""
    earlier = shard.stays.select("subject_id", earlier="end")
    earlier = samples.select("stay", "subject_id", "start").join(earlier, on="subject_id", how="inner")
    earlier = earlier.filter(pl.col("earlier") < pl.col("start"))
    samples = exclusions.leave_out(samples, "no earlier stay", ~is_among(earlier))
    own = of_stay(diagnoses(shard.events), samples)
    samples = exclusions.leave_out(samples, "no diagnosis in the stay", ~is_among(own))
    exclusions.note("diagnoses of the stays", len(own))
    exclusions.note("diagnoses in no group of CCS", count_ungrouped(own))
    return samples.with_columns(prediction_time="start"), own


def _at_an_unknown_time_of_that_day() -> "pl.Expr":
    """Return whether an order of the day of the prediction states no time: it stands at the end of day or stay."""
    own_day = pl.col("time").dt.date() == pl.col("prediction_time").dt.date()
    return own_day & ((pl.col("time").dt.time() == END_OF_DAY) | (pl.col("time") == pl.col("end")))


def first_orders(shard: Shard, samples: "pl.DataFrame", exclusions: Exclusions) -> "pl.DataFrame":
    """Label stays with the drugs that are ordered after the first day and not on it; see `functions`."""
    samples = in_hospital_after_a_day(samples, exclusions)
    found = orders(shard.events.filter(pl.col("time").is_not_null()), shard.names, shard.parents)
    bounds = samples.select("stay", "prediction_time", "end")
    here = of_stay(found, samples).join(bounds, on="stay", how="left")
    early = here.filter((pl.col("time") <= pl.col("prediction_time")) | _at_an_unknown_time_of_that_day())
    late = here.filter((pl.col("time") > pl.col("prediction_time")) & (pl.col("time") <= pl.col("end")))
    first = late.join(early, on=["stay", "drug"], how="anti").select("stay", "drug").unique()
    return samples.with_columns(flags(samples, first, "drug", len(DRUGS)))
