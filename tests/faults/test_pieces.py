"""Pieces of a long pass over codes that are damaged are made again, and with them those that come later."""

import numpy as np
import pytest

from medtok_jax.inference.vocabulary import Parts
from tests.helpers.damages import DAMAGES, flip

KIND = "damaged pieces of a pass over codes"


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
def test_damaged_pieces_are_made_again(parts, name, damage, tell):
    whole = parts.read()["ids"].tolist()
    DAMAGES[damage](parts.folder / name)
    first = 0 if name == "plan.json" else int(name[:6])
    is_made_again = finish(parts) == [0, 1, 2][first:]
    is_whole = parts.read()["ids"].tolist() == whole
    tell(KIND, tried=1, held=int(is_made_again and is_whole))
    assert is_made_again
    assert is_whole


def test_a_bit_anywhere_changes_nothing(parts, tell):
    whole, places, wrong = parts.read()["ids"].tolist(), np.linspace(0, 1, 200), []
    for place in places:
        flip(parts.folder / "000001.npz", place)
        finish(parts)
        if parts.read()["ids"].tolist() != whole:
            wrong.append(place)
    tell(KIND, tried=len(places), held=len(places) - len(wrong))
    assert wrong == []
