"""Looking codes up: every spelling, one at a time and by the thousand, against a search through all keys."""

import random

import numpy as np
import pytest

from medtok_jax.lookup.code_index import AMBIGUOUS, MANY, UNKNOWN, AmbiguousCodeError, CodeIndex, UnknownCodeError
from medtok_jax.lookup.code_names import PAPER_ORDER, CodeNames
from medtok_jax.lookup.token_table import index_arrays
from preprocessing.common.errors import InputError
from tests.helpers.small_tokenizer import KEYS

SORTED = sorted([*KEYS, "ICD9CM/E84", "Custom/a.1", "Custom/A1", "Custom/ä.1", "RxNorm/99213"])


def make_index(prefer=()) -> CodeIndex:
    index = CodeIndex.of_keys(SORTED)
    index.prefer = index.resolve_order(prefer)
    return index


@pytest.fixture(scope="module")
def index() -> CodeIndex:
    return make_index()


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("E11.9", "ICD10CM/E11.9"),
        ("E119", "ICD10CM/E11.9"),
        ("e11.9", "ICD10CM/E11.9"),
        (" E11.9\n", "ICD10CM/E11.9"),
        ("ICD10CM/E11.9", "ICD10CM/E11.9"),
        ("icd10cm/e119", "ICD10CM/E11.9"),
        ("ICD10CM:E11.9", "ICD10CM/E11.9"),
        ("ICD-10-CM: e11.9", "ICD10CM/E11.9"),
        ("ICD10CM | E11.9", "ICD10CM/E11.9"),
        ("ICD10/E119", "ICD10CM/E11.9"),
        ("ICD10CM//E11.9", "ICD10CM/E11.9"),
        ("DIAGNOSIS//ICD//10//E119", "ICD10CM/E11.9"),
        ("DIAGNOSIS//ICD//9//0010", "ICD9CM/001.0"),
        ("PROCEDURE//ICD//9//0010", "ICD9Proc/00.10"),
        ("PROCEDURE//ICD//10//0016070", "ICD10PCS/0016070"),
        ("001.0", "ICD9CM/001.0"),
        ("00.10", "ICD9Proc/00.10"),
        ("E11", "ICD10CM/E11"),
        ("s72001a", "ICD10CM/S72.001A"),
        ("E8490", "ICD9CM/E849.0"),
        ("SNOMEDCT_US/44054006", "SNOMED/44054006"),
        ("44054006", "SNOMED/44054006"),
        ("0002-1433-80", "NDC/00002143380"),
        ("NDC/2-1433-80", None),
        ("ndc:0002-1433-80", "NDC/00002143380"),
        ("a10 ba 02", "ATC/A10BA02"),
        ("CPT/99213", "CPT4/99213"),
        ("HCPCS//J1815", "HCPCS/J1815"),
        ("rxcui/860975", "RxNorm/860975"),
        ("http://hl7.org/fhir/sid/icd-10-cm|E119", "ICD10CM/E11.9"),
        ("http://hl7.org/fhir/sid/icd-9-cm|001.0", "ICD9CM/001.0"),
        ("urn:oid:2.16.840.1.113883.6.90|E11.9", "ICD10CM/E11.9"),
        ("2.16.840.1.113883.6.104|0010", "ICD9Proc/00.10"),
        ("http://snomed.info/sct|10021", "SNOMED/10021"),
        ("Custom/a.1", "Custom/a.1"),
        ("ä.1", "Custom/ä.1"),
        # A dot in the wrong place makes another code, and so do another system and anything around it.
        ("E1.19", None),
        ("E119.", None),
        ("2.5000", None),
        ("25.00", None),
        ("ICD9CM/E11.9", None),
        ("FOO/E11.9", None),
        ("FOO//BAR//E11.9", None),
        ("PROCEDURE//ICD//10//E119", None),
        ("E11.90", None),
        ("E1", None),
        ("E11.9 E11.9", None),
        ("ICD10CM/../ICD10CM/E11.9", None),
        ("ICD10CM/E11.9/", None),
        ("../E11.9", None),
        ("", None),
        ("/", None),
        ("ICD10CM/", None),
        ("\0E11.9", None),
        # Capitals of these are the letters of codes, but they are not.
        ("ſ72.001A", None),
        ("ſ72001A", None),
        ("Ｅ11.9", None),
        ("\ud800", None),
    ],
)
def test_find(index, text, key):
    if key is None:
        with pytest.raises(UnknownCodeError, match="is not among the 24 codes of this tokenizer") as told:
            index.find(text)
        assert len(str(told.value).splitlines()) == 1
    else:
        assert SORTED[index.find(text)] == key
    assert index.find_many([text]).tolist() == [UNKNOWN if key is None else SORTED.index(key)]


@pytest.mark.parametrize(
    ("text", "system", "key"),
    [
        ("0010", "ICD9CM", "ICD9CM/001.0"),
        ("0010", "icd9proc", "ICD9Proc/00.10"),
        ("10021", "CPT4", "CPT4/10021"),
        ("ICD9CM/0010", "ICD9CM", "ICD9CM/001.0"),
        ("ICD9CM/0010", "ICD9", "ICD9CM/001.0"),
        ("ICD9CM/0010", "ICD9Proc", None),
        ("E119", "ICD9", None),
        ("0002143380", "NDC", None),
    ],
)
def test_a_system_of_its_own(index, text, system, key):
    wanted = UNKNOWN if key is None else SORTED.index(key)
    assert index.find_many([text, None], system).tolist() == [wanted, UNKNOWN]
    if key is None:
        with pytest.raises(UnknownCodeError):
            index.find(text, system)
    else:
        assert SORTED[index.find(text, system)] == key


def test_codes_that_are_known_without_tokens():
    """A bare code may mean whatever the systems know, whichever of them has tokens."""
    rows = ["ICD9Proc/78.06", "ICD10CM/I10", "ICD9CM/401"]
    arrays, systems = index_arrays(rows, ["ICD9CM/780.6", "ICD10CM/I10.9"])
    index = CodeIndex(arrays, systems, len(rows))
    assert index.find_many(["7806", "780.6", "78.06", "I109"]).tolist() == [AMBIGUOUS, UNKNOWN, 0, UNKNOWN]
    with pytest.raises(AmbiguousCodeError) as told:
        index.find("7806")
    assert told.value.candidates == ("ICD9CM/780.6", "ICD9Proc/78.06")
    for system in ("ICD9CM", "icd9-dx"):
        with pytest.raises(UnknownCodeError, match=r"ICD9CM/780\.6 has no tokens: this tokenizer holds 3 of the 5"):
            index.find("7806", system)
    assert index.find("7806", "ICD9Proc") == 0
    preferring = CodeIndex(arrays, systems, len(rows), ["ICD9CM"])
    assert preferring.find_many(["7806", "I10"]).tolist() == [UNKNOWN, 1], "the preferred system wins or has no tokens"
    assert index.systems_knowing("7806") == {"ICD9CM", "ICD9Proc"}
    assert index.systems_knowing("7806", "ICD9CM") == {"ICD9CM"}
    assert index.infer_system("780.6") == ("ICD9CM", "780.6")
    assert index.find_ancestor("I109") == ("ICD10CM/I10.9", 1)
    with pytest.raises(UnknownCodeError, match="neither is a code above it"):
        index.find_ancestor("780.6")


def test_a_code_of_several_systems(index):
    with pytest.raises(AmbiguousCodeError, match=r"'0010' is a code of several systems: ICD9CM/001.0, ICD9P") as told:
        index.find("0010")
    assert told.value.candidates == ("ICD9CM/001.0", "ICD9Proc/00.10")
    assert isinstance(told.value, InputError)
    with pytest.raises(AmbiguousCodeError):
        index.find("ICD9/0010")
    # Spelled exactly so, a code goes before one that differs by its dot.
    assert SORTED[index.find("Custom/a1")] == "Custom/A1"
    assert index.find_many(["0010", "99213", "E11.9"]).tolist() == [AMBIGUOUS, AMBIGUOUS, SORTED.index("ICD10CM/E11.9")]


@pytest.mark.parametrize(
    ("prefer", "text", "key"),
    [
        (["ICD9CM"], "0010", "ICD9CM/001.0"),
        (["ICD9Proc", "ICD9CM"], "0010", "ICD9Proc/00.10"),
        (["icd9"], "0010", "ICD9CM/001.0"),
        (PAPER_ORDER, "0010", "ICD9CM/001.0"),
        (PAPER_ORDER, "10021", "SNOMED/10021"),
        (["ICD9CM"], "99213", None),
        (["RxNorm"], "99213", "RxNorm/99213"),
    ],
)
def test_an_order_of_preference(prefer, text, key):
    index = make_index(prefer)
    if key is None:
        with pytest.raises(AmbiguousCodeError):
            index.find(text)
    else:
        assert SORTED[index.find(text)] == key
        assert index.find_many([text]).tolist() == [SORTED.index(key)]


@pytest.mark.parametrize("system", ["ICD11", "", "ICD10CM/", 3, None])
def test_no_code_system(index, system):
    if system is None:
        with pytest.raises(InputError, match="must be text"):
            index.names.systems_named(system)
        return
    for ask in (lambda: index.find("E11.9", system), lambda: index.find_many(["E11.9"], system)):
        if system == "ICD10CM/":
            ask()
            continue
        with pytest.raises(InputError, match="ode system"):
            ask()


@pytest.mark.parametrize("value", [None, 250.0, 25000, b"E11.9", ["E11.9"], float("nan"), object()])
def test_what_is_no_text(index, value):
    with pytest.raises(InputError, match="A code must be text"):
        index.find(value)


def spellings(key: str, rng: random.Random) -> str:
    system, code = key.split("/")
    code = rng.choice([code, code.replace(".", ""), code.lower(), f" {code} "])
    return rng.choice([code, code, f"{system}/{code}", f"{system.lower()}:{code}", f"{system}//{code}"])


def naive(text: str) -> int:
    """Search through all keys, by the rules in words: the text's system, then its code with its dot or without."""
    systems, code = CodeNames(sorted({key.split("/")[0] for key in SORTED})).split(text)
    code = code.strip().upper()
    found = []
    for row, key in enumerate(SORTED):
        system, display = key.upper().split("/")
        same = display == code if "." in code else display.replace(".", "") == code
        if same and (systems is None or system in [s.upper() for s in systems]):
            found.append(row)
    exact = [row for row in found if SORTED[row].split("/")[1].upper() == code]
    if systems is not None and len(systems) == 1 and exact:
        found = exact
    return found[0] if len(found) == 1 else AMBIGUOUS if found else UNKNOWN


def test_many_at_once_equal_one_by_one_and_a_search_through_all_keys(index):
    rng = random.Random(0)
    texts = [spellings(rng.choice(SORTED), rng) for _ in range(3000)]
    texts += [rng.choice("ABEV0129") + "".join(rng.choices("01259.", k=rng.randint(1, 5))) for _ in range(3000)]
    wanted = [naive(text) for text in texts]
    assert {UNKNOWN, AMBIGUOUS} < set(wanted)
    assert index.find_many(texts).tolist() == wanted
    assert index.find_many(np.array(texts)).tolist() == wanted
    # From so many on, common spellings are found in a dictionary.
    assert len(texts) < MANY < 5 * len(texts)
    assert index.find_many(texts * 5).tolist() == wanted * 5
    for text, row in zip(texts[::7], wanted[::7], strict=True):
        if row >= 0:
            assert index.find(text) == row
        else:
            with pytest.raises(UnknownCodeError if row == UNKNOWN else AmbiguousCodeError):
                index.find(text)


def test_missing_codes_among_many(index):
    row = SORTED.index("ICD10CM/E11.9")
    assert index.find_many([None, "E11.9", float("nan")]).tolist() == [UNKNOWN, row, UNKNOWN]
    assert index.find_many([]).tolist() == []
    assert index.find_many([None]).tolist() == [UNKNOWN]
    for texts in (["E11.9", 3], ["E11.9", b"E11.9"], [["E11.9"]], [3], [{}]):
        with pytest.raises(InputError):
            index.find_many(texts)


@pytest.mark.parametrize(
    ("text", "system", "key", "found"),
    [
        ("E11.9XYZ", None, "ICD10CM/E11.9XYZ", "ICD10CM/E11.9"),
        ("E119XYZ", "ICD10CM", "ICD10CM/E11.9XYZ", "ICD10CM/E11.9"),
        ("E11.8", None, "ICD10CM/E11.8", "ICD10CM/E11"),
        ("ICD9CM/E849.01", None, None, None),
        ("ICD9CM/E849.9", None, None, None),
        ("250.01", None, None, None),
        ("ICD9Proc/25.01", None, "ICD9Proc/25.01", "ICD9Proc/25.0"),
        ("E12.9", None, None, None),
        ("NDC/00002143399", None, None, None),
        ("99214", "ICD9CM", None, None),
        ("E1.18", None, None, None),
        ("nonsense", None, None, None),
    ],
)
def test_ancestors(index, text, system, key, found):
    if found is None:
        with pytest.raises(UnknownCodeError, match="neither is a code above it"):
            index.find_ancestor(text, system)
    else:
        assert index.find_ancestor(text, system) == (key, SORTED.index(found))


def test_a_code_of_five_digits_may_be_one_of_a_billing_system(index):
    with pytest.raises(UnknownCodeError, match="'99214' does not name its code system; it may be a code of CPT4"):
        index.find_ancestor("99214")


@pytest.mark.parametrize(
    ("text", "system", "wanted"),
    [
        ("E11.8", None, ("ICD10CM", "E11.8")),
        ("E118", "icd10cm", ("ICD10CM", "E11.8")),
        ("Custom/new", None, ("Custom", "new")),
        ("anything", "SNOMED", ("SNOMED", "anything")),
        ("anything", None, None),
        ("12345", None, None),
        ("ICD9CM/250", "SNOMED", None),
    ],
)
def test_the_system_of_a_new_code(index, text, system, wanted):
    if wanted is None:
        with pytest.raises(InputError, match=r"does not name its code system|is not a code of"):
            index.infer_system(text, system)
    else:
        assert index.infer_system(text, system) == wanted
