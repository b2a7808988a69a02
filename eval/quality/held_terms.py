"""Collect terms for codes that are in no text and behind no edge of a data set: queries of free-text search.

There are two kinds: the inclusion terms of the tabular list of ICD-10-CM, each for the codes under the code that lists
it, but for terms that name a code; and the exact synonyms of phenotypes of the HPO, each for the ICD-10-CM codes under
those that the graph links to the phenotype. Half of all terms are held out, by a stable hash of their normal form
(`is_held_out`). What trains on such terms may use the other half alone.

Today neither kind is a text that a model is trained on: descriptions are those of the official lists, and a phenotype's
node has its first name. But a term can equal a description or a name by chance, and the graph uses both kinds to link
codes to phenotypes, where a name of the one equals a name of the other (`preprocessing.graph.icd_graph`). So a held-out
term is left out if a description or a name of a node contains it, word for word, or if it links a code to a phenotype.
"""

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from eval.quality.labels import Terms
from preprocessing.codes import ICD10CM
from preprocessing.common.hashing import hash_strings, uniform
from preprocessing.common.ragged import offsets_of
from preprocessing.graph.names import normal_form
from preprocessing.sources.hpo import Hpo, read_hpo
from preprocessing.sources.tabular import Tabular, read_tabular

INCLUSION, SYNONYM = "ICD-10-CM inclusion terms", "HPO synonyms"
GIVEN_LINK = "GIVEN: the graph links the codes to the phenotype, under its first name"
HELD_TERMS = 0.5
# Terms of fewer letters are contained by chance; terms for more codes are no names of a code.
SHORTEST, MOST_CODES = 3, 100
_SALT = "eval/free_text"
_CODE = re.compile(r"\b[A-TV-Z][0-9][0-9A-Z](?:\.|\b)")


def is_held_out(texts: Sequence[str]) -> np.ndarray:
    """Return which terms are held out of everything: bool `[n]`, equal for equal normal forms."""
    return uniform(hash_strings(_SALT, [normal_form(text) for text in texts])) < HELD_TERMS


def build(
    texts: Iterable[str], links: Sequence[tuple[str, str]], codes_under: Callable[[str], np.ndarray]
) -> tuple[dict[str, Terms], dict[str, int]]:
    """Return the held-out terms of each kind, all in the first split, and counts.

    Args:
        texts: every description and every name of a node of the data set.
        links: keys of a code and of a phenotype that the graph links, such as `HPO/HP:0001250`.
        codes_under: key of a node -> rows of the codes under it, ascending.

    Raises:
        InputError: a package that ships the terms is missing; the message says what to install.
    """
    tabular, hpo = read_tabular(), read_hpo()
    targets = {
        INCLUSION: _collect(_inclusion_terms(tabular), codes_under),
        SYNONYM: _collect(_synonyms(hpo, links), codes_under),
    }
    forms = {form for of in targets.values() for form in of}
    known = contained(forms, texts) | (_icd_forms(tabular) & _hpo_forms(hpo))
    # A synonym that is an inclusion term too would count twice.
    known_synonyms = known | set(targets[INCLUSION])
    found = {
        INCLUSION: _terms(targets[INCLUSION], known, ""),
        SYNONYM: _terms(targets[SYNONYM], known_synonyms, GIVEN_LINK),
    }
    counts = {f"{name}, held out": int(np.sum(is_held_out(list(of)))) for name, of in targets.items() if of}
    counts |= {f"{name}, in no text and behind no edge": len(terms) for name, terms in found.items() if len(terms)}
    return {name: terms for name, terms in found.items() if len(terms)}, counts


def contained(forms: set[str], texts: Iterable[str]) -> set[str]:
    """Return the normal forms whose words stand side by side in one of some texts.

    Args:
        forms: normal forms, see `preprocessing.graph.names.normal_form`.
        texts: texts as they are written.
    """
    lengths: dict[str, set[int]] = {}
    for form in forms:
        words = form.split(" ")
        lengths.setdefault(words[0], set()).add(len(words))
    found = set()
    for text in set(texts):
        words = normal_form(text).split(" ")
        for start, word in enumerate(words):
            for length in lengths.get(word, ()):
                if start + length <= len(words):
                    found.add(" ".join(words[start : start + length]))
    return found & forms


def _inclusion_terms(tabular: Tabular) -> list[tuple[str, str]]:
    """Return (key of a code, term) of all inclusion terms that name no code."""
    return [
        (f"{ICD10CM}/{node.code}", term)
        for node in tabular.nodes
        if node.is_code
        for term in node.terms
        if not _CODE.search(term)
    ]


def _synonyms(hpo: Hpo, links: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return (key of a linked ICD-10-CM code, synonym) of all exact synonyms but the first name."""
    linked = ((code, phenotype.removeprefix("HPO/")) for code, phenotype in links if code.startswith(f"{ICD10CM}/"))
    return [(code, name) for code, term in linked if term in hpo.terms for name in hpo.terms[term].names[1:]]


def _collect(
    pairs: Iterable[tuple[str, str]], codes_under: Callable[[str], np.ndarray]
) -> dict[str, tuple[str, np.ndarray]]:
    """Return normal form -> (a spelling, rows of all codes that it means), sorted by form."""
    keys: dict[str, tuple[str, list[str]]] = {}
    for key, text in pairs:
        form = normal_form(text)
        if len(form) >= SHORTEST:
            keys.setdefault(form, (" ".join(text.split()), []))[1].append(key)
    rows = {
        form: (text, np.unique(np.concatenate([codes_under(key) for key in sorted(set(of))])))
        for form, (text, of) in sorted(keys.items())
    }
    return {form: (text, of) for form, (text, of) in rows.items() if 0 < len(of) <= MOST_CODES}


def _icd_forms(tabular: Tabular) -> set[str]:
    """Return the normal forms by which the graph links codes of ICD-10-CM; other titles are descriptions."""
    return {normal_form(name) for node in tabular.nodes if node.is_code for name in (node.description, *node.terms)}


def _hpo_forms(hpo: Hpo) -> set[str]:
    """Return the normal forms by which the graph links phenotypes and diseases."""
    names = [name for term in hpo.terms.values() for name in term.names]
    names += [part for name in hpo.diseases.values() for part in name.split(";")]
    return {normal_form(name) for name in names}


def _terms(targets: dict[str, tuple[str, np.ndarray]], known: set[str], given: str) -> Terms:
    """Return the held-out terms whose normal form is not known."""
    held = is_held_out(list(targets)) if targets else []
    chosen = [one for (form, one), out in zip(targets.items(), held, strict=True) if out and form not in known]
    rows = [rows for _, rows in chosen]
    return Terms(
        text=np.array([text for text, _ in chosen], np.str_),
        offsets=offsets_of([len(one) for one in rows]),
        targets=np.concatenate(rows).astype(np.int32) if rows else np.zeros(0, np.int32),
        part=np.zeros(len(rows), np.int8),
        given=given,
    )
