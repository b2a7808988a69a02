"""What the command line shows of a code."""

import io

import numpy as np
import pytest
from rich.console import Console

from medtok_jax import tokenize
from medtok_jax.regions import Regions
from medtok_jax.vocabulary import TokenTable
from preprocessing.errors import InputError


@pytest.fixture
def table() -> TokenTable:
    """Three codes of two tokens an embedding; the first two share six of eight tokens, the third none."""
    ids = np.array([[0, 1, 4, 5, 8, 9, 8, 10], [0, 1, 4, 5, 8, 9, 11, 12], [2, 3, 6, 7, 13, 14, 13, 15]], np.int32)
    return TokenTable(
        key=np.array(["ICD10CM/E11.9", "ICD9CM/250.00", "ICD10CM/S72.0"]),
        description=np.array(["Type 2 diabetes", "Diabetes mellitus", "Fracture of femur"]),
        ids=ids,
        weights=np.full(ids.shape, 0.5, np.float32),
        regions=Regions(4, 4, 8),
        num_tokens=2,
    )


def shown(table: TokenTable, code: str, neighbors: int) -> str:
    console = Console(file=io.StringIO(), width=120)
    tokenize.show_code(table, code, neighbors, console)
    return console.file.getvalue()


def test_tokens_and_neighbors(table):
    text = shown(table, "e119", 2)
    assert "ICD10CM/E11.9" in text
    assert "Type 2 diabetes" in text
    for region in ("text", "graph", "shared"):
        assert region in text
    assert "10 (0.50)" in text
    # Six halves in common; each code has 4 in all.
    assert text.index(f"{3 / 5:.2f}") < text.index("ICD9CM/250.00") < text.index("ICD10CM/S72.0")


def test_without_neighbors(table):
    assert "ICD9CM/250.00" not in shown(table, "ICD10CM/E11.9", 0)


@pytest.mark.parametrize("arguments", [["tokenize"], ["tokenize", "code"], ["tokenize", "file", "x"]])
def test_says_how_it_is_used(arguments):
    with pytest.raises(InputError, match="tokenize code CODE"):
        tokenize.main(arguments)
