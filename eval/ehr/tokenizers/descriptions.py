"""Describe the codes of a data set in words: by the official files of ICD, or as the data set describes them."""

import functools
from collections.abc import Mapping

import numpy as np

from eval.ehr.tokenizers.spelling import EventCodes
from preprocessing.dataset.known_codes import graph_categories, known_codes
from preprocessing.graph.icd_trees import GraphDraft, add_trees
from preprocessing.graph.knowledge_graph import node_table
from preprocessing.sources.icd import vocabulary
from preprocessing.sources.icd_editions import read_editions
from preprocessing.sources.tabular import read_tabular


def describe(codes: EventCodes, given: Mapping[str, str]) -> np.ndarray:
    """Return the description of each code that names a code system, `[codes]` str, empty where there is none.

    The official title comes first, so that a code is described alike in every data set. Other events have none, also
    where a data set describes them, as they have no tokens of any tokenizer.

    Args:
        codes: codes of a data set.
        given: descriptions by the data set, by the code as it spells it.

    Raises:
        InputError: a package that ships the official files is missing.
    """
    official = official_descriptions()
    found = [
        (official.get(key) or given.get(spelled) or "") if key else ""
        for spelled, key in zip(codes.spelled.tolist(), codes.keys.tolist(), strict=True)
    ]
    return np.array([" ".join(text.split()) for text in found], dtype=str)


@functools.cache
def official_descriptions() -> dict[str, str]:
    """Return the title of every ICD code, category and code of an earlier edition, by key.

    Raises:
        InputError: a package that ships the official files is missing.
    """
    trees = GraphDraft()
    add_trees(trees, vocabulary(), read_tabular())
    table = known_codes(vocabulary(), graph_categories(node_table(trees.rows)), read_editions())
    return dict(zip(table["key"].to_pylist(), table["description"].to_pylist(), strict=True))
