"""List the few headline figures that comparisons begin with."""

from typing import NamedTuple

from eval.quality import (
    codebook_use,
    cross_system,
    free_text,
    groups,
    held_terms,
    identity,
    prefixes,
    relations,
    tree_metrics,
)
from eval.quality.label_building import BACKWARD, FORWARD


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


RETRIEVAL_VIEWS = ("vectors", "tokens", "unweighted tokens")
# The length that figures of shorter codes begin with.
SHORT = 8


def _views(
    title: str, family: str, metric: str, scope: str, views: tuple[str, ...] = ("vectors", "tokens")
) -> list[Headline]:
    """Return the headlines of a figure by some views."""
    return [Headline(f"{title}, {view}", family, metric, scope, view) for view in views]


def _short(title: str, metric: str, scope: str) -> list[Headline]:
    """Return the headlines of a figure of the first `SHORT` tokens."""
    return _views(f"{title}, {SHORT} tokens", prefixes.FAMILY, metric, prefixes.scope_of(scope, SHORT), RETRIEVAL_VIEWS)


HEADLINES = (
    *_views("ICD-9 to ICD-10 R@1", cross_system.FAMILY, "R@1", FORWARD, RETRIEVAL_VIEWS),
    *_views("ICD-9 to ICD-10 R@10", cross_system.FAMILY, "R@10", FORWARD, RETRIEVAL_VIEWS),
    *_views("ICD-10 to ICD-9 R@1", cross_system.FAMILY, "R@1", BACKWARD, RETRIEVAL_VIEWS),
    *_views("same-category 1-NN", tree_metrics.FAMILY, tree_metrics.SAME_CATEGORY, tree_metrics.ALL, RETRIEVAL_VIEWS),
    *_views("ICD-10-CM same-category 1-NN", tree_metrics.FAMILY, tree_metrics.SAME_CATEGORY, "ICD10CM"),
    *_views("CCSR probe", groups.FAMILY, groups.MACRO_ACCURACY, "CCSR"),
    *_views("CCS probe", groups.FAMILY, groups.MACRO_ACCURACY, "CCS"),
    *_views("held-out relations AUC", relations.FAMILY, relations.AUC, relations.ALL, RETRIEVAL_VIEWS),
    *_views("held-out relations Hits@10", relations.FAMILY, relations.HITS, relations.ALL),
    *_views("inclusion terms AP@100", free_text.FAMILY, free_text.AP, held_terms.INCLUSION, RETRIEVAL_VIEWS),
    *_views("HPO synonyms AP@100", free_text.FAMILY, free_text.AP, held_terms.SYNONYM, RETRIEVAL_VIEWS),
    *_short("ICD-9 to ICD-10 R@1", "R@1", FORWARD),
    *_short("ICD-9 to ICD-10 R@10", "R@10", FORWARD),
    *_short("same-category 1-NN", tree_metrics.SAME_CATEGORY, tree_metrics.ALL),
    *_short("held-out relations AUC", relations.AUC, relations.ALL),
    Headline("collisions of the ordered tuple", identity.FAMILY, identity.MODEL_MADE, "ordered tuple", "tokens"),
    Headline("bits of all tokens", codebook_use.FAMILY, codebook_use.TOTAL_BITS, "code", ""),
)
