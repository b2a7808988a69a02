"""Name the label functions: what the windows of ACES cannot say, in plain steps over the stays of one file.

A function gets the events and stays of some patients, the stays that can be samples, and the counter of exclusions. It
returns the stays that are samples, with the columns `prediction_time`, datetime64[us], and `value`: bool for a binary
task, int64 for one of several classes, a list of bools for several labels.
"""

from collections.abc import Callable

from eval.ehr.tasks import multilabel, outcomes, paper
from eval.ehr.tasks.shard import Shard
from eval.ehr.tasks.stays import Exclusions
from preprocessing.common.extras import load

pl = load("polars")

Function = Callable[[Shard, "pl.DataFrame", Exclusions], "pl.DataFrame"]
FUNCTIONS: dict[str, Function] = {
    function.__name__: function
    for function in (
        outcomes.died_in_stay,
        outcomes.long_stay,
        outcomes.stay_classes,
        outcomes.long_stated_stay,
        outcomes.stated_stay_classes,
        outcomes.readmitted,
        outcomes.readmitted_or_dead,
        outcomes.entered_icu,
        multilabel.phenotypes,
        multilabel.new_phenotypes,
        multilabel.first_orders,
        paper.next_visit_death,
        paper.next_visit_soon,
        paper.next_visit_phenotypes,
        paper.visit_classes,
        paper.visit_drugs,
    )
}
