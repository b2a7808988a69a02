"""Collect the commands of the documentation."""

import dataclasses
import re
import shlex
from pathlib import Path

from tests.helpers.paths import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "eval" / "RESULTS.md"])
# What a command in running text begins with; everything in a block of the language bash is a command.
PROGRAMS = re.compile(r"(python -m |\./launch/|pip install |tensorboard |ruff |hf |git |torchrun )")


@dataclasses.dataclass(frozen=True)
class Command:
    """One command: its text without comments, and the page and line where it stands."""

    text: str
    page: str
    line: int


def collect(pages: list[Path] = PAGES) -> list[Command]:
    """Return the commands of all pages, in order; a command that is written twice comes once."""
    found: dict[str, Command] = {}
    for path in pages:
        page = path.relative_to(ROOT).as_posix()
        for line, text in [*_in_blocks(path.read_text(encoding="utf-8")), *_in_text(path.read_text(encoding="utf-8"))]:
            found.setdefault(text, Command(text, page, line))
    return list(found.values())


def _in_blocks(text: str) -> list[tuple[int, str]]:
    """Return line and text of every command in a bash block; variables that the block sets are filled in."""
    found = []
    for block in re.finditer(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        variables: dict[str, str] = {}
        line = text[: block.start()].count("\n") + 2
        for logical in re.findall(r"(?:.*\\\n)*.*\n", block[1]):
            words = shlex.split(logical.replace("\\\n", " "), comments=True)
            for name, value in variables.items():
                words = [word.replace(f"${name}", value) for word in words]
            if len(words) == 1 and re.fullmatch(r"[A-Z]+=.*", words[0]):
                name, _, value = words[0].partition("=")
                variables[name] = value
            else:
                found += [(line, command) for command in _split(words)]
            line += logical.count("\n")
    return found


def _in_text(text: str) -> list[tuple[int, str]]:
    """Return line and text of every command in running text and tables."""
    text = re.sub(r"^```.*?^```$", lambda block: "\n" * block[0].count("\n"), text, flags=re.MULTILINE | re.DOTALL)
    spans = [
        (text[: span.start()].count("\n") + 1, span[1].replace("\n", " ")) for span in re.finditer(r"`([^`]+)`", text)
    ]
    commands = [(line, shlex.split(span)) for line, span in spans if PROGRAMS.match(span)]
    return [(line, command) for line, words in commands for command in _split(words)]


def _split(words: list[str]) -> list[str]:
    """Return the commands that `&&` joins."""
    parts: list[list[str]] = [[]]
    for word in words:
        if word == "&&":
            parts.append([])
        else:
            parts[-1].append(word)
    return [shlex.join(part) for part in parts if part]
