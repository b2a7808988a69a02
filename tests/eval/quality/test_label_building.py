"""Labels of a few real codes in a graph made by hand."""

import numpy as np

from eval.quality.label_building import BACKWARD, FORWARD, GIVEN_CROSSWALK, GIVEN_NOTES, build_labels, parts_of
from medtok_jax.data.code_table import CodeTable
from preprocessing.common.ragged import offsets_of
from preprocessing.graph.holdout import Holdout, hold_out
from preprocessing.graph.icd_graph import EDGE_TYPES, REVERSE
from preprocessing.graph.knowledge_graph import from_facts, node_table
from preprocessing.graph.neighborhoods import neighbor_table, subgraphs

# The official crosswalk has all three pairs.
PAIRS = [("ICD9CM/250.00", "ICD10CM/E11.9"), ("ICD9CM/401.9", "ICD10CM/I10"), ("ICD9CM/493.90", "ICD10CM/J45.909")]
CODES = sorted([*(code for pair in PAIRS for code in pair), "ICD10CM/E11.8", "ICD10CM/J45.998"])
PARENTS = {
    "ICD9CM/250": "ICD9CM/240-279",
    "ICD9CM/250.00": "ICD9CM/250",
    "ICD9CM/401.9": "ICD9CM/240-279",
    "ICD9CM/493.90": "ICD9CM/240-279",
    "ICD10CM/E11": "ICD10CM/E00-E89",
    "ICD10CM/E11.9": "ICD10CM/E11",
    "ICD10CM/E11.8": "ICD10CM/E11",
    "ICD10CM/I10": "ICD10CM/E00-E89",
    "ICD10CM/J45": "ICD10CM/E00-E89",
    "ICD10CM/J45.909": "ICD10CM/J45",
    "ICD10CM/J45.998": "ICD10CM/J45",
}
KEYS = list(dict.fromkeys([*CODES, *PARENTS, *PARENTS.values(), "HPO/HP:1"]))
NODE = {key: node for node, key in enumerate(KEYS)}
NOTES = [("ICD10CM/E11", "ICD10CM/J45"), ("ICD10CM/E11.8", "ICD10CM/E11.9")]


def numbered(pairs) -> np.ndarray:
    return np.array([(NODE[a], NODE[b]) for a, b in pairs], np.int64).reshape(-1, 2)


def facts(phenotype=(), gem=PAIRS, notes=NOTES) -> dict[str, np.ndarray]:
    return {
        "parent": numbered(PARENTS.items()),
        "gem_exact": numbered(gem[:1]),
        "gem_approximate": numbered(gem[1:]),
        "excludes1": numbered(notes),
        "hpo_link": numbered((code, "HPO/HP:1") for code in phenotype),
    }


def table_of(facts: dict[str, np.ndarray]) -> CodeTable:
    """Codes with the subgraphs that the real builder cuts."""
    rows = [("node", key, *key.split("/", 1)) for key in KEYS]
    graph = from_facts(node_table(rows), {name: pairs for name, pairs in facts.items() if len(pairs)}, REVERSE)
    anchors = np.array([[NODE[code]] for code in CODES], np.int32)
    cut = list(subgraphs(neighbor_table(graph, hub_cap=16, priority=()), anchors, max_nodes=32))
    names = ("nodes", "hops", "senders", "receivers", "relations")
    ragged = {name: np.concatenate([getattr(s, name) for s in cut]) for name in names}
    system, code = zip(*(key.split("/", 1) for key in CODES), strict=True)
    zeros = np.zeros(len(CODES), np.int32)
    return CodeTable(
        fingerprint="0",
        key=np.array(CODES, object),
        system=np.array(system, object),
        code=np.array(code, object),
        description=np.array(CODES, object),
        split=zeros.astype(np.int8),
        node_offsets=offsets_of([len(s.nodes) for s in cut]),
        edge_offsets=offsets_of([len(s.senders) for s in cut]),
        self_node=zeros,
        graph_id=np.arange(len(CODES)),
        graph=graph,
        **ragged,
    )


def labels_of(whole: dict[str, np.ndarray], held_types=("gem", "note")):
    """Labels of a data set that holds out these edge types whole."""
    relations = [relation for kind in held_types for relation in EDGE_TYPES[kind]]
    kept = {name: pairs for name, pairs in whole.items() if name not in relations}
    held = [(KEYS[a], KEYS[b], r) for r in relations if r in whole for a, b in whole[r].tolist()]
    return build_labels("medtok_codes/by_hand", table_of(kept), held)


def named(labels, queries) -> dict[tuple[str, str], str]:
    owner = np.repeat(queries.query, np.diff(queries.offsets))
    pairs = zip(labels.keys[owner].tolist(), labels.keys[queries.targets].tolist(), strict=True)
    return dict(zip(pairs, (queries.kind_names[kind] for kind in queries.kinds), strict=True))


def test_a_partner_that_another_road_shows_is_not_evaluated():
    """Both codes of the second pair are linked to one phenotype, which lies two steps from one to the other."""
    labels = labels_of(facts(phenotype=PAIRS[1]))
    assert named(labels, labels.crosswalk[FORWARD]) == dict(
        zip(PAIRS, ("exact", "not evaluated", "approximate"), strict=True)
    )
    assert named(labels, labels.crosswalk[BACKWARD]) == {
        pair[::-1]: kind for pair, kind in named(labels, labels.crosswalk[FORWARD]).items()
    }
    assert labels.counts["crosswalk pairs of which a subgraph contains the other code"] == 1
    without = labels_of(facts())
    assert set(named(without, without.crosswalk[FORWARD]).values()) == {"exact", "approximate"}


def test_a_note_is_looked_for_by_the_codes_under_its_ends():
    """The note between two codes of one category is left out."""
    labels = labels_of(facts())
    pairs = named(labels, labels.relations["excludes1"])
    assert {target for _, target in pairs} == {"ICD10CM/J45.909", "ICD10CM/J45.998"}
    assert len({query for query, _ in pairs}) == 1
    assert next(iter(pairs))[0] in ("ICD10CM/E11.9", "ICD10CM/E11.8")
    assert labels.counts["note edges that join two categories"] == 1


def test_a_note_whose_end_a_subgraph_shows_is_left_out():
    labels = labels_of(facts(phenotype=("ICD10CM/E11.8", "ICD10CM/E11.9", "ICD10CM/J45.909")))
    assert labels.relations == {}
    assert labels.counts["note edges of which a subgraph contains the other code"] == 1


def test_what_is_not_held_out_is_said_to_be_given():
    whole = facts()
    labels = labels_of(whole, held_types=())
    chosen = hold_out(whole, KEYS, list(EDGE_TYPES["gem"]), Holdout("gem", 0.3, "eval"))[1]
    wanted = {(KEYS[a], KEYS[b]) for pairs in chosen.values() for a, b in pairs.tolist()}
    assert set(named(labels, labels.crosswalk[FORWARD])) == wanted if wanted else labels.crosswalk == {}
    for queries in labels.crosswalk.values():
        assert queries.given == GIVEN_CROSSWALK
    assert {queries.given for queries in labels.relations.values()} <= {GIVEN_NOTES}
    one = labels_of(whole, held_types=("gem",))
    assert one.crosswalk[FORWARD].given == ""


def test_a_graph_that_never_had_a_crosswalk_takes_the_official_one():
    """PrimeKG's graph takes, of three official pairs, those whose ICD-9 code a hold-out would choose."""
    bare = {"parent": facts()["parent"]}
    labels = build_labels("medtok_codes/primekg", table_of(bare), [])
    found = named(labels, labels.crosswalk[FORWARD]) if labels.crosswalk else {}
    whole = facts()
    chosen = hold_out(whole, KEYS, list(EDGE_TYPES["gem"]), Holdout("gem", 0.3, "eval"))[1]
    assert {a for a, _ in found} == {KEYS[a] for pairs in chosen.values() for a, _ in pairs.tolist()}
    assert labels.relations == {}
    assert all(queries.given == "" for queries in labels.crosswalk.values())


def test_paths_and_groups():
    labels = labels_of(facts())
    row = {key: number for number, key in enumerate(labels.keys.tolist())}
    path = [KEYS[node] for node in labels.path[row["ICD10CM/E11.9"]] if node >= 0]
    assert path == ["ICD10CM/E00-E89", "ICD10CM/E11", "ICD10CM/E11.9"]
    assert labels.path[row["ICD10CM/I10"], 2] == -1
    group = {name: {key: labels.groups[name][row[key]] for key in CODES} for name in ("CCSR", "CCS")}
    assert group["CCSR"]["ICD10CM/J45.909"] == group["CCSR"]["ICD10CM/J45.998"] != group["CCSR"]["ICD10CM/I10"]
    assert {group["CCSR"][key] for key in CODES if key.startswith("ICD9CM/")} == {-1}
    assert len({group["CCS"][key] for key in CODES if key.startswith("ICD9CM/")}) == 3
    category = {key: labels.category[row[key]] for key in CODES}
    assert category["ICD10CM/E11.9"] == category["ICD10CM/E11.8"] != category["ICD10CM/J45.909"]


def test_groups_in_the_graph_are_said_to_be_given():
    with_groups = facts() | {"in_group": numbered([("ICD10CM/E11.9", "HPO/HP:1")])}
    labels = build_labels("medtok_codes/icd-groups", table_of(with_groups), [])
    assert labels.given["groups"].startswith("GIVEN")


def test_halves():
    part = parts_of([f"X/{number}" for number in range(10_000)])
    assert abs(part.mean() - 0.5) < 0.02
    assert part[:5].tolist() == parts_of([f"X/{number}" for number in range(5)]).tolist()
