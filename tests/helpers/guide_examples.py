"""Extract the examples of docs/integration_guide.md for the tests that run them."""

import re

from tests.helpers.paths import ROOT

PAGE = ROOT / "docs" / "integration_guide.md"


def examples(section: str, language: str) -> list[str]:
    """Return the fenced blocks of a language under a heading of the second level.

    Raises:
        ValueError: there are no such blocks.
    """
    found = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", found[1] if found else "", re.MULTILINE | re.DOTALL)
    if not blocks:
        raise ValueError(f"{PAGE} has no {language} examples under {section!r}")
    return blocks
