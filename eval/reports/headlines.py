"""List the few headline figures that comparisons begin with."""

from typing import NamedTuple

from eval.quality import cross_system, groups, identity, relations, tree_metrics
from eval.quality.label_building import FORWARD


class Headline(NamedTuple):
    """Identify a figure of a report, and give it a title."""

    title: str
    family: str
    metric: str
    scope: str
    view: str

    @property
    def name(self) -> tuple[str, str, str, str]:
        """Return the name of the figure, see `Measurement.name`."""
        return self.family, self.metric, self.view, self.scope


def _views(title: str, family: str, metric: str, scope: str) -> list[Headline]:
    """Return the headlines of a figure by vectors and by tokens."""
    return [Headline(f"{title}, {view}", family, metric, scope, view) for view in ("vectors", "tokens")]


HEADLINES = (
    *_views("ICD-9 to ICD-10 R@1", cross_system.FAMILY, "R@1", FORWARD),
    *_views("ICD-9 to ICD-10 R@10", cross_system.FAMILY, "R@10", FORWARD),
    *_views("same-category 1-NN", tree_metrics.FAMILY, tree_metrics.SAME_CATEGORY, tree_metrics.ALL),
    *_views("ICD-10-CM same-category 1-NN", tree_metrics.FAMILY, tree_metrics.SAME_CATEGORY, "ICD10CM"),
    *_views("CCSR probe", groups.FAMILY, groups.MACRO_ACCURACY, "CCSR"),
    *_views("CCS probe", groups.FAMILY, groups.MACRO_ACCURACY, "CCS"),
    *_views("held-out relations AUC", relations.FAMILY, relations.AUC, relations.ALL),
    *_views("held-out relations Hits@10", relations.FAMILY, relations.HITS, relations.ALL),
    Headline("collisions of the ordered tuple", identity.FAMILY, identity.MODEL_MADE, "ordered tuple", "tokens"),
)
