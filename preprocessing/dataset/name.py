"""Parse the name of a data set, which states everything that makes one data set differ from another.

`medtok_codes/<source>`, where the source is

- `icd`: the ICD code systems over the graph of their official files, from Python packages;
- `icd_ndc`: the same and the drugs of FDA's National Drug Code directory, as a package ships it;
- `primekg`: the codes of all code systems linked to PrimeKG, from files that `preprocessing.pipeline` made;
- `release`: the authors' published codes with their neighborhoods in PrimeKG, from the files of the release;

followed by any of these options, joined by `-`, each at most once except `holdout`:

- `groups`: CCSR and CCS groups as nodes of the graph (labels of the evaluation, so off by default); only with ICD;
- `holdout_<edge type>_<percent>_<name>`: holds out that part of the edge type, `holdout_gem_30_eval`, or all of it,
  `holdout_gem_100_eval`; only with ICD; may be given several times, for edge types that have no relation in common
  (`holdout_gem_30_eval-holdout_note_30_eval`);
- `nodes_<n>`: at most n nodes in a subgraph (64);
- `hubs_<n>`: at most n neighbors offered by a node (16); not for `release`, which comes with its neighborhoods;
- `sample_<n>`: n codes, the same as `data.sample_size=<n>` draws (`dataset/sample.py`). The graph is not sampled, so
  every example is the same as in the full data set.
"""

import dataclasses
import re
from collections.abc import Iterable

from preprocessing.common.errors import InputError, nearest
from preprocessing.graph.drug_graph import DRUG_RELATIONS
from preprocessing.graph.holdout import Holdout
from preprocessing.graph.icd_graph import EDGE_TYPES

NAME = "medtok_codes"
ICD, ICD_NDC, PRIMEKG, RELEASE = "icd", "icd_ndc", "primekg", "release"
SOURCES = (ICD, ICD_NDC, PRIMEKG, RELEASE)
# Sources that need no files, because Python packages hold them.
EMBEDDED = (ICD, ICD_NDC)
_FORMS = {
    "groups": re.compile(r"groups"),
    "holdout": re.compile(r"holdout_([a-z][a-z0-9_]*)_([0-9]{1,2}|100)_([a-z0-9]+)"),
    "nodes": re.compile(r"nodes_([1-9][0-9]{0,3})"),
    "hubs": re.compile(r"hubs_([1-9][0-9]{0,2})"),
    "sample": re.compile(r"sample_([1-9][0-9]{0,7})"),
}
_EXAMPLES = {
    "groups": "groups",
    "holdout": "holdout_gem_30_eval",
    "nodes": "nodes_32",
    "hubs": "hubs_8",
    "sample": "sample_1000",
}
_NOT_FOR = {
    "groups": {
        PRIMEKG: "PrimeKG holds no CCSR or CCS groups",
        RELEASE: "PrimeKG holds no CCSR or CCS groups",
    },
    "holdout": {
        PRIMEKG: "PrimeKG holds no edges between codes",
        RELEASE: "PrimeKG holds no edges between codes",
    },
    "hubs": {RELEASE: "the authors' release comes with the neighborhood of every code"},
}
_DEFAULT_NODES = 64
_DEFAULT_HUBS = 16


@dataclasses.dataclass(frozen=True)
class DatasetOptions:
    """Hold the options that a data set name states; see the docstring of this module."""

    source: str = ICD
    groups: bool = False
    holdouts: tuple[Holdout, ...] = ()
    max_nodes: int = _DEFAULT_NODES
    hub_cap: int = _DEFAULT_HUBS
    sample: int | None = None

    @property
    def config_name(self) -> str:
        """Return the canonical spelling of these options, in a fixed order and without defaults."""
        parts = [self.source]
        if self.groups:
            parts.append("groups")
        for holdout in _in_order(self.holdouts):
            parts.append(f"holdout_{holdout.edge_type}_{round(holdout.fraction * 100)}_{holdout.name}")
        if self.max_nodes != _DEFAULT_NODES:
            parts.append(f"nodes_{self.max_nodes}")
        if self.hub_cap != _DEFAULT_HUBS:
            parts.append(f"hubs_{self.hub_cap}")
        if self.sample:
            parts.append(f"sample_{self.sample}")
        return "-".join(parts)


def parse_name(name: str) -> DatasetOptions:
    """Return the options that the name `medtok_codes/<config>` states.

    Raises:
        InputError: a part of the name is not understood; the message gives the nearest spelling.
    """
    dataset, _, config = name.partition("/")
    if dataset != NAME or not config:
        raise InputError(f"{name!r} is not a data set of this package; did you mean '{NAME}/{config or ICD}'?")
    source, *options = config.split("-")
    if source not in SOURCES:
        raise InputError(
            f"{name!r} names the unknown source {source!r}; did you mean "
            f"'{NAME}/{nearest(source, SOURCES)}'? (sources: {', '.join(SOURCES)})"
        )
    values: dict[str, tuple[str, ...]] = {}
    holdouts: list[Holdout] = []
    for option in options:
        kind, groups = _parse_option(name, option)
        if kind in values and kind != "holdout":
            raise InputError(f"{name!r} gives the option {kind} twice; give it once.")
        if reason := _NOT_FOR.get(kind, {}).get(source):
            raise InputError(f"{name!r} has the option {kind}, but {reason}; leave {option!r} out.")
        values[kind] = groups
        if kind == "holdout":
            holdouts.append(_parse_holdout(name, *groups))
    _check_holdouts(name, holdouts)
    if any(holdout.edge_type == "in_group" for holdout in holdouts) and "groups" not in values:
        raise InputError(f"{name!r} holds out edges to groups, but its graph has none; add the option 'groups'.")
    drugs = [holdout.edge_type for holdout in holdouts if holdout.edge_type in DRUG_RELATIONS]
    if drugs and source != ICD_NDC:
        raise InputError(f"{name!r} holds out {drugs[0]!r}, but its graph has no drugs; '{NAME}/{ICD_NDC}' has them.")
    return DatasetOptions(
        source=source,
        groups="groups" in values,
        holdouts=_in_order(holdouts),
        max_nodes=int(values.get("nodes", (_DEFAULT_NODES,))[0]),
        hub_cap=int(values.get("hubs", (_DEFAULT_HUBS,))[0]),
        sample=int(values["sample"][0]) if "sample" in values else None,
    )


def _parse_option(name: str, option: str) -> tuple[str, tuple[str, ...]]:
    for kind, form in _FORMS.items():
        if match := form.fullmatch(option):
            return kind, match.groups()
    kind = nearest(option.partition("_")[0], _FORMS)
    raise InputError(
        f"{name!r} has the option {option!r}, which is not understood; the nearest is written like "
        f"{_EXAMPLES[kind]!r} (options: {', '.join(_EXAMPLES.values())})."
    )


def _parse_holdout(name: str, edge_type: str, percent: str, label: str) -> Holdout:
    if edge_type not in EDGE_TYPES:
        raise InputError(
            f"{name!r} holds out the edge type {edge_type!r}, which is not known; did you mean "
            f"{nearest(edge_type, EDGE_TYPES)!r}? (edge types: {', '.join(EDGE_TYPES)})"
        )
    if int(percent) == 0:
        raise InputError(f"{name!r} holds out 0 percent of {edge_type!r}; give 1 to 100, or leave the option out.")
    return Holdout(edge_type, int(percent) / 100, label)


def _in_order(holdouts: Iterable[Holdout]) -> tuple[Holdout, ...]:
    return tuple(sorted(holdouts, key=lambda holdout: list(EDGE_TYPES).index(holdout.edge_type)))


def _check_holdouts(name: str, holdouts: list[Holdout]) -> None:
    held: dict[str, str] = {}
    for holdout in holdouts:
        for relation in EDGE_TYPES[holdout.edge_type]:
            if relation in held:
                raise InputError(
                    f"{name!r} holds out {relation!r} twice, by {held[relation]!r} and {holdout.edge_type!r}; give one."
                )
            held[relation] = holdout.edge_type
