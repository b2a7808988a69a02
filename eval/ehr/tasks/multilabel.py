"""Label stays with several classes at once: phenotypes of the coming stay, and drugs first ordered after a day."""

from eval.ehr.tasks.drugs import DRUGS, orders
from eval.ehr.tasks.outcomes import in_hospital_after_a_day
from eval.ehr.tasks.phenotypes import PHENOTYPES, grouped
from eval.ehr.tasks.shard import Shard, flags, is_among
from eval.ehr.tasks.stays import Exclusions, of_stay, within
from preprocessing.common.extras import load

pl = load("polars")


def phenotypes(shard: Shard, samples: "pl.DataFrame", exclusions: Exclusions) -> "pl.DataFrame":
    """Label admissions with the phenotypes of the stay that begins; see `functions`."""
    samples, _, here = _coming(shard, samples, exclusions)
    return samples.with_columns(flags(samples, here, "phenotypes", len(PHENOTYPES)))


def new_phenotypes(shard: Shard, samples: "pl.DataFrame", exclusions: Exclusions) -> "pl.DataFrame":
    """Label admissions with those phenotypes of the coming stay that the patient did not have; see `functions`."""
    samples, diagnoses, here = _coming(shard, samples, exclusions)
    known = diagnoses.explode("phenotypes").drop_nulls("phenotypes").select("subject_id", "phenotypes", seen="time")
    known = known.join(samples.select("stay", "subject_id", "start"), on="subject_id", how="inner")
    known = known.filter(pl.col("seen") < pl.col("start"))
    new = here.join(known, on=["stay", "phenotypes"], how="anti")
    return samples.with_columns(flags(samples, new, "phenotypes", len(PHENOTYPES)))


def _coming(shard: Shard, samples: "pl.DataFrame", exclusions: Exclusions):
    """Return the stays that follow another one, all diagnoses, and pairs of `stay` and position in `phenotypes`."""
    earlier = shard.stays.select("subject_id", earlier="end")
    earlier = samples.select("stay", "subject_id", "start").join(earlier, on="subject_id", how="inner")
    earlier = earlier.filter(pl.col("earlier") < pl.col("start"))
    samples = exclusions.leave_out(samples, "no earlier stay", ~is_among(earlier))
    diagnoses = grouped(shard.events)
    own = of_stay(diagnoses, samples)
    samples = exclusions.leave_out(samples, "no diagnosis in the stay", ~is_among(own))
    exclusions.note("diagnoses of the stays", len(own))
    exclusions.note("diagnoses in no group of CCS", own["phenotypes"].null_count())
    pairs = own.select("stay", "phenotypes").explode("phenotypes").drop_nulls().unique()
    return samples.with_columns(prediction_time="start"), diagnoses, pairs


def first_orders(shard: Shard, samples: "pl.DataFrame", exclusions: Exclusions) -> "pl.DataFrame":
    """Label stays with the drugs that are ordered after the first day and not on it; see `functions`."""
    samples = in_hospital_after_a_day(samples, exclusions)
    found = orders(shard.events.filter(pl.col("time").is_not_null()), shard.names, shard.parents)
    here = within(found, samples).join(samples.select("stay", "prediction_time"), on="stay", how="left")
    is_early = pl.col("time") <= pl.col("prediction_time")
    early, late = here.filter(is_early), here.filter(~is_early)
    first = late.join(early, on=["stay", "drug"], how="anti").select("stay", "drug").unique()
    return samples.with_columns(flags(samples, first, "drug", len(DRUGS)))
