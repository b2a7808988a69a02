"""Every regular expression takes time in proportion to the text, whatever stands in it."""

import ast
import re
import time
from pathlib import Path

import pytest

from tests.helpers.foreign_readers.calls import FLOORS
from tests.helpers.paths import ROOT

# Methods that try a match at every place of a text; the others try only its beginning.
EVERYWHERE = ("search", "sub", "subn", "findall", "finditer", "split")
ANCHORED = ("match", "fullmatch")
SHORT, LONG = 1_000, 4_000
# Four times the text takes four times as long, or sixteen times if the time grows with its square.
MOST_GROWTH = 9.0
# Seconds of this process below which an expression is fast; a square of four thousand takes longer.
NOISE = 0.01
HEADS = ("", "A00", '"', "(")
UNITS = (
    *" a0A.,;:/-|\"'\\()[]",
    *("a ", "A0", "0.", " (", "(a", ") ", "[a", "] ", '\\"', " and", " 1 AA", "A00", "(A00", "//", " (begin 1986)"),
)


def expressions(root: Path = ROOT) -> dict[str, tuple[str | bytes, int, bool]]:
    """Return the literal regular expressions: place -> pattern, flags, and if it is tried at every place of a text."""
    found = {}
    for path in (path for floor in FLOORS for path in sorted((root / floor).rglob("*.py"))):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if not _is_expression(node):
                continue
            words = {getattr(one, "attr", "") for given in (*node.args[1:], *node.keywords) for one in ast.walk(given)}
            flags = re.IGNORECASE * ("IGNORECASE" in words) | re.DOTALL * ("DOTALL" in words) | re.M * ("M" in words)
            name = re.match(r"_?[A-Z_]+(?= = )", text.splitlines()[node.lineno - 1])
            used = node.func.attr if node.func.attr != "compile" else None
            is_anchored = used in ANCHORED or (used is None and name is not None and not _used(name[0], text))
            found[f"{path.relative_to(root).as_posix()}:{node.lineno}"] = node.args[0].value, flags, not is_anchored
    return found


def _is_expression(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
        return False
    of_re = isinstance(node.func.value, ast.Name) and node.func.value.id == "re"
    literal = isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str | bytes)
    return of_re and literal and node.func.attr in ("compile", *EVERYWHERE, *ANCHORED)


def _used(name: str, text: str) -> bool:
    return re.search(rf"\b{name}\.({'|'.join(EVERYWHERE)})\(", text) is not None


def seconds(pattern: str | bytes, flags: int, everywhere: bool, text: str) -> float:
    """Return the time of this process that one use of an expression takes, the least of three."""
    expression = re.compile(pattern, flags)
    subject = text.encode() if isinstance(pattern, bytes) else text
    use = expression.findall if everywhere else expression.fullmatch
    times = []
    for _ in range(3):
        begin = time.process_time()
        use(subject)
        times.append(time.process_time() - begin)
        if times[-1] < NOISE:
            break
    return min(times)


def growing(pattern: str | bytes, flags: int, everywhere: bool) -> tuple[float, str]:
    """Return how much longer four times a text takes, and the text: the first one that is too slow, or the slowest."""
    worst = 0.0, ""
    for head in HEADS:
        for unit in UNITS:
            # Nothing matches the end, so that all that came before is tried in other ways.
            texts = [head + unit * (length // len(unit)) + "\0" for length in (SHORT, LONG)]
            long = seconds(pattern, flags, everywhere, texts[1])
            if long > NOISE:
                growth = long / max(seconds(pattern, flags, everywhere, texts[0]), 1e-6)
                worst = max(worst, (growth, f"{head}{unit}..."))
                if growth >= MOST_GROWTH:
                    return worst
    return worst


def test_time_is_in_proportion_to_the_text(tell):
    found = {place: growing(*expression) for place, expression in expressions().items()}
    texts = len(HEADS) * len(UNITS)
    slow = {place: worst for place, worst in found.items() if worst[0] >= MOST_GROWTH}
    tell("texts for regular expressions", tried=len(found) * texts, held=(len(found) - len(slow)) * texts)
    assert slow == {}


@pytest.mark.parametrize(
    ("pattern", "is_fine"),
    [
        (r"\s*\(([^()]+)\)\s*$", False),
        (r"([^\[\]]+\[[A-Za-z/ ]+\])", False),
        (r"\s*\(([A-Z][0-9A][0-9A-Z]\S*)\)\s*$", False),
        (r"(?:\s*\(begin [0-9]{4}\))+$", False),
        (r"\(([^()]+)\)$", True),
    ],
)
def test_squares_are_seen(pattern, is_fine):
    assert (growing(pattern, 0, True)[0] < MOST_GROWTH) == is_fine
