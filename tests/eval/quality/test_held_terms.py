"""Terms that are held out of everything, from a tabular list and an ontology made by hand."""

import numpy as np
import pytest

from eval.quality import held_terms
from eval.quality.held_terms import INCLUSION, SYNONYM, build, contained, is_held_out
from preprocessing.common.errors import InputError
from preprocessing.graph.names import normal_form
from preprocessing.sources import packages
from preprocessing.sources.hpo import Hpo, Term
from preprocessing.sources.tabular import Tabular, TabularNode, read_tabular

ROWS = {"ICD10CM/E11": [1, 2], "ICD10CM/E11.9": [2], "ICD10CM/J45": [3]}
TEXTS = ["Type 2 diabetes mellitus", "Asthma, unspecified", "Fever of swamps in old houses"]


@pytest.fixture
def world(monkeypatch):
    """Return a function that builds terms from inclusion terms and synonyms, all of which are held out."""

    def make(inclusion: dict[str, list[str]], synonyms: dict[str, list[str]], links=()):
        nodes = tuple(
            TabularNode(code, "category", f"title {code}", -1, terms=tuple(t)) for code, t in inclusion.items()
        )
        tabular = Tabular(nodes, {}, ())
        terms = {name: Term(name, [f"first {name}", *of], [], [], []) for name, of in synonyms.items()}
        hpo = Hpo(terms, {"OMIM:1": "Sweet sickness; SWS"}, {}, (), (), (), {})
        monkeypatch.setattr(held_terms, "read_tabular", lambda: tabular)
        monkeypatch.setattr(held_terms, "read_hpo", lambda: hpo)
        monkeypatch.setattr(held_terms, "HELD_TERMS", 1.0)
        return build(TEXTS, list(links), lambda key: np.array(ROWS.get(key, []), np.int64))

    return make


def rows_of(terms) -> dict[str, list[int]]:
    return {
        str(text): terms.targets[terms.offsets[i] : terms.offsets[i + 1]].tolist() for i, text in enumerate(terms.text)
    }


def test_terms_search_the_codes_under_theirs(world):
    found, counts = world({"E11": ["Adult onset diabetes"], "J45": ["Wheeze", "Adult-onset diabetes"]}, {})
    # Spellings of one normal form are one term, for all of its codes.
    assert rows_of(found[INCLUSION]) == {"Adult onset diabetes": [1, 2, 3], "Wheeze": [3]}
    assert found[INCLUSION].given == ""
    assert counts[f"{INCLUSION}, in no text and behind no edge"] == 2
    assert SYNONYM not in found


def test_no_text_contains_a_term(world):
    """Neither word for word, nor by plural, case or `unspecified`; words apart or within a longer word do not count."""
    terms = ["Swamp fever", "DIABETES MELLITUS", "asthmas", "Old house, unspecified", "Type 2", "Ever of swamp"]
    found, _ = world({"E11": terms}, {})
    assert rows_of(found[INCLUSION]).keys() == {"Swamp fever", "Ever of swamp"}


def test_no_edge_comes_from_a_term(world):
    """The graph links a code to a phenotype or a disease by an equal name: these terms are in it in another form."""
    found, _ = world(
        {"E11": ["Sweet sickness", "Second name", "Fine"], "J45": ["Shared"]},
        {"HP:1": ["second names", "title E11", "Clean synonym", "shared"]},
        links=[("ICD10CM/J45", "HPO/HP:1"), ("ICD9CM/493", "HPO/HP:1")],
    )
    assert rows_of(found[INCLUSION]) == {"Fine": [1, 2]}
    assert rows_of(found[SYNONYM]) == {"Clean synonym": [3]}
    assert found[SYNONYM].given.startswith("GIVEN: the graph links")


def test_first_names_and_terms_that_name_codes_are_no_queries(world):
    found, _ = world(
        {"E11": ["Any condition in K80.5 with fever", "Wheeze"]}, {"HP:1": []}, [("ICD10CM/J45", "HPO/HP:1")]
    )
    assert rows_of(found[INCLUSION]) == {"Wheeze": [1, 2]}
    assert SYNONYM not in found


def test_terms_for_many_codes_are_no_names(world, monkeypatch):
    monkeypatch.setattr(held_terms, "MOST_CODES", 1)
    found, _ = world({"E11": ["Two"], "E11.9": ["One"]}, {})
    assert rows_of(found[INCLUSION]) == {"One": [2]}


def test_half_is_held_out_and_spellings_stay_together():
    texts = [f"disease of the {number}th kind" for number in range(4000)]
    held = is_held_out(texts)
    assert held.mean() == pytest.approx(0.5, abs=0.03)
    assert (is_held_out([f"Diseases of the {number}TH kind, unspecified" for number in range(4000)]) == held).all()


def test_contained_by_looking_everywhere():
    rng = np.random.default_rng(0)
    words = ["al", "be", "ce", "de"]

    def sentence(most: int) -> str:
        return " ".join(rng.choice(words, rng.integers(1, most)))

    texts, forms = [sentence(8) for _ in range(30)], {sentence(5) for _ in range(60)}
    wanted = {form for form in forms if any(f" {form} " in f" {normal_form(text)} " for text in texts)}
    assert contained(forms, texts) == wanted
    assert 0 < len(wanted) < len(forms)


def test_without_the_package_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(held_terms, "read_tabular", read_tabular.__wrapped__)
    with pytest.raises(
        InputError, match=r"simple_icd_10_cm, which is not installed; run: pip install 'medtok_jax\[quick"
    ):
        build(TEXTS, [], lambda key: np.zeros(0, np.int64))
