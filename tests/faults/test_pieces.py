"""Pieces of a long pass over codes that are damaged are made again, and with them those that come later."""

import numpy as np
import pytest

from medtok_jax.inference.vocabulary import Parts
from tests.helpers.damages import DAMAGES, flip


def finish(parts: Parts) -> list[int]:
    """Make what is missing of three pieces; return which that were."""
    missing = list(range(parts.begin(), 3))
    for number in missing:
        parts.save(number, {"ids": np.full((50, 3), number)})
    return missing


@pytest.fixture
def parts(tmp_path) -> Parts:
    parts = Parts(tmp_path / "tokenizer", {"run": "this"})
    assert finish(parts) == [0, 1, 2]
    assert finish(parts) == []
    return parts


@pytest.mark.parametrize("name", ["plan.json", "000000.npz", "000001.npz", "000002.npz"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_pieces_are_made_again(parts, name, damage):
    whole = parts.read()["ids"].tolist()
    DAMAGES[damage](parts.folder / name)
    first = 0 if name == "plan.json" else int(name[:6])
    assert finish(parts) == [0, 1, 2][first:]
    assert parts.read()["ids"].tolist() == whole


def test_a_bit_anywhere_changes_nothing(parts):
    whole = parts.read()["ids"].tolist()
    for place in np.linspace(0, 1, 200):
        flip(parts.folder / "000001.npz", place)
        finish(parts)
        assert parts.read()["ids"].tolist() == whole
