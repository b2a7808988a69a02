"""Label visits as the evaluation of the MedTok paper does, which selects on the future."""

from eval.ehr.tasks.drugs import DRUGS, ORDER, orders
from eval.ehr.tasks.outcomes import class_of_days
from eval.ehr.tasks.phenotypes import DIAGNOSIS, PHENOTYPES, count_ungrouped, diagnoses, with_phenotypes
from eval.ehr.tasks.shard import Shard, flags, is_among
from eval.ehr.tasks.stays import Exclusions, of_stay
from preprocessing.common.extras import load

pl = load("polars")

READMISSION_DAYS = 15
_PROCEDURE = r"^(?:ICD9Proc|ICD10PCS|CPT4|HCPCS)/|^PROCEDURE//"
_KINDS = {"diagnosis": DIAGNOSIS, "procedure": _PROCEDURE, "prescription": ORDER}


def next_visit_death(shard: Shard, samples: "pl.DataFrame", exclusions: Exclusions) -> "pl.DataFrame":
    """Label visits with the death in the next one; see `functions`."""
    samples = _followed(shard, samples, exclusions)
    return samples.with_columns(value=pl.col("died").is_between("next_start", "next_end").fill_null(False))


def next_visit_soon(shard: Shard, samples: "pl.DataFrame", exclusions: Exclusions) -> "pl.DataFrame":
    """Label visits with the beginning of the next one within 15 days; see `functions`."""
    samples = _followed(shard, samples, exclusions)
    return samples.with_columns(value=pl.col("next_start") - pl.col("end") <= pl.duration(days=READMISSION_DAYS))


def next_visit_phenotypes(shard: Shard, samples: "pl.DataFrame", exclusions: Exclusions) -> "pl.DataFrame":
    """Label visits with the phenotypes of the next one; see `functions`."""
    samples = _followed(shard, samples, exclusions)
    visits = shard.stays.filter(is_among(samples.select(stay="next_stay")))
    own = of_stay(diagnoses(shard.events), visits)
    exclusions.note("diagnoses of the next visits", len(own))
    exclusions.note("diagnoses in no group of CCS", count_ungrouped(own))
    here = with_phenotypes(own).select("phenotype", next_stay="stay").unique()
    here = here.join(samples.select("stay", "next_stay"), on="next_stay", how="inner")
    return samples.with_columns(flags(samples, here, "phenotype", len(PHENOTYPES)))


def visit_classes(shard: Shard, samples: "pl.DataFrame", exclusions: Exclusions) -> "pl.DataFrame":
    """Label visits with one of ten classes of their length; see `functions`."""
    samples = _complete(shard, samples, exclusions)
    return samples.with_columns(value=class_of_days((pl.col("end") - pl.col("start")).dt.total_days()))


def visit_drugs(shard: Shard, samples: "pl.DataFrame", exclusions: Exclusions) -> "pl.DataFrame":
    """Label visits of patients with several ones with the drugs ordered in them; see `functions`."""
    samples = _complete(shard, samples, exclusions)
    alone = pl.len().over("subject_id") < 2
    samples = exclusions.leave_out(samples, "only one such visit of the patient", alone)
    own = of_stay(orders(shard.events, shard.names, shard.parents), samples)
    return samples.with_columns(flags(samples, own, "drug", len(DRUGS)))


def _complete(shard: Shard, samples: "pl.DataFrame", exclusions: Exclusions) -> "pl.DataFrame":
    """Return the visits with a diagnosis, a procedure and a prescription; they are predicted at their end."""
    for kind, pattern in _KINDS.items():
        found = of_stay(shard.events.filter(pl.col("code").str.contains(pattern)), samples)
        samples = exclusions.leave_out(samples, f"no {kind}", ~is_among(found))
    return samples.with_columns(prediction_time="end")


def _followed(shard: Shard, samples: "pl.DataFrame", exclusions: Exclusions) -> "pl.DataFrame":
    """Return such visits that another one follows, with its `next_stay`, `next_start` and `next_end`."""
    samples = _complete(shard, samples, exclusions).sort("subject_id", "start", maintain_order=True)
    following = {f"next_{name}": pl.col(name).shift(-1).over("subject_id") for name in ("stay", "start", "end")}
    samples = samples.with_columns(**following)
    return exclusions.leave_out(samples, "no later visit of the patient", pl.col("next_stay").is_null())
