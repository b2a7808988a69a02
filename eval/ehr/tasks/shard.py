"""Define what a label function gets: the events and stays of the patients of one file."""

import dataclasses
from collections.abc import Mapping, Sequence

from eval.ehr.tasks.spelling import Spelling
from preprocessing.common.extras import load

pl = load("polars")

DAY = pl.duration(hours=24)


@dataclasses.dataclass(frozen=True)
class Shard:
    """Hold the events and stays of whole patients.

    Attributes:
        events: columns `subject_id`, `time`, `code`, `text_value`, `hadm_id` and perhaps `route`, sorted.
        stays: all stays, also those that cannot be samples: `stay`, a number, and the columns of `stays.read_stays`.
        spelling: how the data set spells stays.
        names: description of each code, if there is one.
        parents: codes above each code.
    """

    events: "pl.DataFrame"
    stays: "pl.DataFrame"
    spelling: Spelling
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    parents: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)

    def events_like(self, predicate: str) -> "pl.DataFrame":
        """Return the events that a predicate of the spelling names."""
        return self.events.filter(pl.col("code").str.contains(self.spelling.patterns[predicate]))


def is_among(stays: "pl.DataFrame") -> "pl.Expr":
    """Return the expression that is true for the rows whose `stay` is among those of a frame."""
    return pl.col("stay").is_in(stays["stay"].unique().implode())


def flags(samples: "pl.DataFrame", pairs: "pl.DataFrame", place: str, count: int) -> "pl.Expr":
    """Return a column of lists of `count` bools, true at the places that a stay is paired with.

    Args:
        samples: column `stay`.
        pairs: columns `stay` and the one named by `place`, int64.
        place: name of that column.
        count: length of the lists.
    """
    found = pairs.group_by("stay").agg(pl.col(place))
    joined = samples.select("stay").join(found, on="stay", how="left", maintain_order="left")[place]
    lists = [[index in places for index in range(count)] for places in map(set, joined.fill_null([]).to_list())]
    return pl.Series("value", lists, pl.List(pl.Boolean))
