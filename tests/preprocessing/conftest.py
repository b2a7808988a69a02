"""Provide parsed sources and a small data set for the tests of the ground floor."""

import pytest

from preprocessing import medtok_codes
from preprocessing.graph import icd_graph, knowledge_graph
from preprocessing.sources import icd
from preprocessing.sources.tabular import read_tabular
from tests.helpers.small_run import DATA_SET


@pytest.fixture(scope="session")
def simple_icd_10_cm():
    """Return the package of this name, which takes seconds to import."""
    return pytest.importorskip("simple_icd_10_cm")


@pytest.fixture(scope="session")
def tabular():
    return read_tabular()


@pytest.fixture(scope="session")
def vocabulary():
    return icd.vocabulary()


@pytest.fixture(scope="session")
def facts():
    return icd_graph.icd_facts()


@pytest.fixture(scope="session")
def graph(facts):
    nodes = knowledge_graph.node_table(facts.rows)
    return knowledge_graph.from_facts(nodes, facts.facts, icd_graph.REVERSE)


@pytest.fixture(scope="session")
def small(data_dir):
    return medtok_codes.prepare(DATA_SET, data_dir, progress=False)


@pytest.fixture(scope="session")
def small_examples(small):
    return {split: list(small.as_data_source(split)) for split in ("train", "validation", "test")}
