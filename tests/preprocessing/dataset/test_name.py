import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.common.errors import InputError
from preprocessing.dataset.name import DatasetOptions, parse_name
from preprocessing.graph.holdout import Holdout
from preprocessing.graph.icd_graph import EDGE_TYPES


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("icd", DatasetOptions()),
        ("icd-groups", DatasetOptions(groups=True)),
        ("icd-holdout_gem_30_eval", DatasetOptions(holdouts=(Holdout("gem", 0.3, "eval"),))),
        (
            "icd-holdout_gem_30_eval-holdout_note_20_b",
            DatasetOptions(holdouts=(Holdout("gem", 0.3, "eval"), Holdout("note", 0.2, "b"))),
        ),
        ("icd-holdout_code_first_5_a1", DatasetOptions(holdouts=(Holdout("code_first", 0.05, "a1"),))),
        ("icd-holdout_gem_100_eval", DatasetOptions(holdouts=(Holdout("gem", 1.0, "eval"),))),
        ("icd-nodes_32-hubs_8", DatasetOptions(max_nodes=32, hub_cap=8)),
        ("icd-sample_500", DatasetOptions(sample=500)),
        ("primekg-nodes_32-hubs_8-sample_500", DatasetOptions("primekg", max_nodes=32, hub_cap=8, sample=500)),
        ("release", DatasetOptions("release")),
        ("release-nodes_32-sample_500", DatasetOptions("release", max_nodes=32, sample=500)),
    ],
)
def test_names(name, options):
    assert parse_name(f"medtok_codes/{name}") == options
    assert options.config_name == name


@given(
    st.builds(
        DatasetOptions,
        groups=st.booleans(),
        # Of the edge types that share relations, one each; in the order of names.
        holdouts=st.lists(st.sampled_from(["gem", "note", "hpo_link"]), unique=True).flatmap(
            lambda kinds: st.tuples(
                *(
                    st.builds(
                        Holdout,
                        st.just(kind),
                        st.integers(1, 100).map(lambda percent: percent / 100),
                        st.from_regex("[a-z0-9]{1,6}", fullmatch=True),
                    )
                    for kind in sorted(kinds, key=list(EDGE_TYPES).index)
                )
            )
        ),
        max_nodes=st.integers(1, 9999),
        hub_cap=st.integers(1, 999),
        sample=st.none() | st.integers(1, 10_000_000),
    )
    | st.builds(DatasetOptions, source=st.just("primekg"), max_nodes=st.integers(1, 9999), hub_cap=st.integers(1, 999))
    | st.builds(DatasetOptions, source=st.just("release"), max_nodes=st.integers(1, 9999))
)
def test_round_trip(options):
    assert parse_name(f"medtok_codes/{options.config_name}") == options


def test_one_spelling_for_equal_options():
    assert parse_name("medtok_codes/icd-hubs_8-groups-nodes_64").config_name == "icd-groups-hubs_8"
    swapped = parse_name("medtok_codes/icd-holdout_note_30_eval-holdout_gem_30_eval")
    assert swapped.config_name == "icd-holdout_gem_30_eval-holdout_note_30_eval"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("medtok_codes", "medtok_codes/icd"),
        ("medtok/icd", "medtok_codes/icd"),
        ("medtok_codes/icdd", "medtok_codes/icd"),
        ("medtok_codes/icd-group", "'groups'"),
        ("medtok_codes/icd-node_32", "'nodes_32'"),
        ("medtok_codes/icd-hubs_0", "'hubs_8'"),
        ("medtok_codes/icd-hubs_8x", "'hubs_8'"),
        ("medtok_codes/icd-holdout_gen_30_eval", "'gem'"),
        ("medtok_codes/icd-holdout_gem_30", "'holdout_gem_30_eval'"),
        ("medtok_codes/icd-holdout_gem_00_eval", "0 percent"),
        ("medtok_codes/icd-holdout_gem_101_eval", "'holdout_gem_30_eval'"),
        ("medtok_codes/icd-holdout_gem_30_a-holdout_gem_30_b", "'gem_exact' twice"),
        ("medtok_codes/icd-holdout_excludes1_30_a-holdout_note_30_a", "'excludes1' twice"),
        ("medtok_codes/icd-groups-groups", "twice"),
        ("medtok_codes/icd-holdout_in_group_30_eval", "add the option 'groups'"),
        ("medtok_codes/icd-", "nearest"),
        ("medtok_codes/../icd", "medtok_codes/icd"),
        ("medtok_codes/releases", "medtok_codes/release"),
        ("medtok_codes/prime", "medtok_codes/primekg"),
        ("medtok_codes/release-hubs_8", "comes with the neighborhood of every code; leave 'hubs_8' out"),
        ("medtok_codes/release-holdout_gem_30_eval", "no edges between codes"),
        ("medtok_codes/primekg-groups", "no CCSR or CCS groups"),
    ],
)
def test_anything_else_is_refused_with_the_nearest_spelling(name, hint):
    with pytest.raises(InputError, match=hint):
        parse_name(name)
