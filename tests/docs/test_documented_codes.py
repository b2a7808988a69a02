"""Check that no code that the documentation looks up is missing from the sample of the quickstart."""

import ast
import re

import pytest

from configs import default
from preprocessing.codes import compact_code
from preprocessing.dataset.sample import sample
from preprocessing.sources.icd import vocabulary
from tests.helpers.commands import PAGES

README = "README.md"
# What separates codes in a text, such as the lines of a CSV file or the values of a flag.
_SEPARATORS = re.compile(r"[\s,;='\"()\[\]{}`#:]+")
# A code of ICD with its dot or with a letter, in any spelling of its system.
_CODE = re.compile(r"(?:\w+//?)*(?:[A-Z]\d[\dA-Z](?:\.?[\dA-Z]{1,4})?|\d{3}\.\d{1,2}|\d{2}\.\d{1,2})", re.IGNORECASE)


def words(text: str, *, printed: bool) -> set[str]:
    """Return the words of the Python and bash blocks of a page that may be codes: in Python, those in strings.

    Args:
        text: the page.
        printed: whether codes in comments of Python, which say what is printed, count too.
    """
    found: set[str] = set()
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if language == "python":
            strings = (node.value for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Constant))
            texts = [value for value in strings if isinstance(value, str)]
            found |= {value for value in texts if re.fullmatch(r"\d{3,5}", value)}
            if printed:
                found |= {comment for line in block.splitlines() for comment in re.findall(r"\b\w+/[\w.]+", line)}
        else:
            texts = [block] if language == "bash" else []
        found |= {word for value in texts for word in _SEPARATORS.split(value) if _CODE.fullmatch(word)}
    return found


@pytest.fixture(scope="module")
def codes() -> dict[str, set[str]]:
    """Return the keys that each spelling may mean: the key, and its code with and without the dot."""
    spelled: dict[str, set[str]] = {}
    for record in vocabulary():
        for spelling in (
            record.key,
            record.code,
            compact_code(record.code),
            f"{record.system}/{compact_code(record.code)}",
        ):
            spelled.setdefault(spelling.upper(), set()).add(record.key)
    return spelled


def meant(words: set[str], codes: dict[str, set[str]]) -> set[str]:
    """Return the keys of the codes among some words; MEDS writes the system in several parts before the code."""
    found: set[str] = set()
    for word in words:
        found |= codes.get(word.upper(), codes.get(word.rpartition("//")[2].upper(), set()))
    return found


@pytest.fixture(scope="module")
def documented(codes) -> set[str]:
    # The README shows what the quickstart prints, whose codes are a sample; other pages, what a full training prints.
    texts = {page: page.read_text(encoding="utf-8") for page in PAGES}
    return set().union(*(meant(words(text, printed=page.name == README), codes) for page, text in texts.items()))


def test_codes_are_found_in_every_form(codes):
    python = "look_up('E119', x=10)  # 250\nopen('0010')\nread('ICD9CM/250.00,\\n1,I10')  # or ICD9CM/401.1 (0.42)"
    bash = "python -m tool E11.65 --codes=ICD10CM/N18.6,DIAGNOSIS//ICD//10//E108 --size=2000"
    page = f"```python\n{python}\n```\n```bash\n{bash}\n```\nE10.9\n"
    looked_up = {
        *("ICD10CM/E11.9", "ICD9CM/001.0", "ICD9Proc/00.10", "ICD9CM/250.00", "ICD10CM/I10"),
        *("ICD10CM/E11.65", "ICD10CM/N18.6", "ICD10CM/E10.8"),
    }
    assert meant(words(page, printed=False), codes) == looked_up
    assert meant(words(page, printed=True), codes) == looked_up | {"ICD9CM/401.1"}


def test_samples_hold_every_documented_code(documented):
    assert documented >= {
        "ICD10CM/E11.9",
        "ICD10CM/I10",
        "ICD9CM/250.00",
        "ICD10CM/N18.6",
        "ICD9CM/001.0",
        "ICD9Proc/00.10",
    }
    keys = [record.key for record in vocabulary()]
    quickstart = default.get_config("quickstart").data
    drawn = {keys[row] for row in sample(keys, quickstart.sample_size, quickstart.include)}
    assert documented - drawn == set()
