"""Extract the examples of the documentation for the tests that run them."""

import re
from pathlib import Path

from tests.helpers.paths import ROOT

GUIDE = ROOT / "docs" / "integration_guide.md"
BENCHMARKS = ROOT / "docs" / "ehr_benchmarks.md"


def examples(section: str, language: str, page: Path = GUIDE) -> list[str]:
    """Return the fenced blocks of a language under a heading of the second level.

    Raises:
        ValueError: there are no such blocks.
    """
    found = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", page.read_text(), re.MULTILINE | re.DOTALL)
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", found[1] if found else "", re.MULTILINE | re.DOTALL)
    if not blocks:
        raise ValueError(f"{page} has no {language} examples under {section!r}")
    return blocks
