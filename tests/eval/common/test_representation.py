import dataclasses
import json

import numpy as np
import pytest

from eval.common import representation
from eval.common.representation import Representation
from eval.quality.bags import bags_of
from medtok_jax.lookup.directory import TokenizerDirectory
from medtok_jax.lookup.similarity import Similarity
from medtok_jax.regions import EMBEDDINGS
from preprocessing.common.errors import InputError
from tests.helpers import hand_world, small_tokenizer


def same(first: Representation, second: Representation) -> None:
    """Compare everything but the folders that they were loaded from."""
    for field in dataclasses.fields(Representation):
        if field.name == "source":
            continue
        a, b = getattr(first, field.name), getattr(second, field.name)
        assert np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b, field.name


@pytest.mark.parametrize("kind", ["top_k", "residual"])
def test_a_tokenizer_directory(tmp_path, kind):
    tokens = small_tokenizer.make_tokens(kind=kind, embeddings=True)
    path = small_tokenizer.write(tmp_path / "run" / "tokenizer", tokens, kind=kind)
    found = representation.load(tmp_path / "run")
    directory = TokenizerDirectory.read(path)
    rows = np.arange(len(found))
    assert found.name == "run"
    assert found.keys.tolist() == sorted(small_tokenizer.KEYS)
    assert found.vectors == pytest.approx(
        Similarity(directory.tokens, directory.config.bounds).quantized(rows).reshape(len(rows), -1)
    )
    assert found.unquantized == pytest.approx(directory.embeddings(rows).reshape(len(rows), -1))
    assert np.array_equal(found.tokens, directory.ids)
    assert found.num_ids == small_tokenizer.REGIONS.size
    start = EMBEDDINGS.index("text_cross") * small_tokenizer.K
    assert np.array_equal(found.part("tokens", "text_cross"), directory.ids[:, start : start + small_tokenizer.K])
    assert found.about["data_set"]["name"] == "medtok_codes/hand_made"


def test_embeddings_of_different_lengths(tmp_path):
    """Another quantizer may give embeddings 1, 3 and 2 tokens; bags weigh each embedding alike."""
    path = small_tokenizer.write_uneven(tmp_path / "tokenizer")
    found, directory = representation.load(path), TokenizerDirectory.read(path)
    assert found.embeddings == ("text_specific", "shared_first", "graph_specific")
    assert found.bounds == ((0, 1), (1, 4), (4, 6))
    assert np.array_equal(found.part("tokens", "shared_first"), directory.ids[:, 1:4])
    assert found.part("weights", "graph_specific").shape == (len(found), 2)
    assert found.part("vectors", "graph_specific") == pytest.approx(directory.codebook[directory.ids[:, 4:]].sum(1))
    assert bags_of(found).sum(1) == pytest.approx(np.full(len(found), float(found.tokens.shape[1])))
    same(representation.load(found.save(tmp_path / "saved"), found.name), found)
    for change in ({"token_bounds": ((0, 6),)}, {"token_bounds": ((0, 1), (1, 4), (4, 5))}, {"tokens": None}):
        with pytest.raises(InputError, match="are not those of the columns"):
            dataclasses.replace(found, weights=None, **change)


def test_codes_that_are_not_in_the_data_set_are_left_out(tmp_path):
    """Categories and codes of earlier editions are in no metric."""
    tokens = small_tokenizer.make_tokens(embeddings=True)
    tokens.strings["kind"] = np.array(["code", "category", "retired"] * 6 + ["code"])
    path = small_tokenizer.write(tmp_path / "tokenizer", tokens)
    found, order = representation.load(path), np.argsort(small_tokenizer.KEYS)
    rows = [row for row in order if tokens.strings["kind"][row] == "code"]
    assert found.keys.tolist() == [small_tokenizer.KEYS[row] for row in rows]
    assert np.array_equal(found.tokens, tokens.ids[rows])
    assert found.unquantized == pytest.approx(tokens.embeddings[rows].astype(np.float16).reshape(len(rows), -1))
    assert found.descriptions.tolist() == [f"what {key} means" for key in found.keys]


def test_saved_and_read_again(tmp_path):
    whole = hand_world.representation(about={"graph": False})
    same(representation.load(whole.save(tmp_path / "whole")), whole)
    assert representation.load(tmp_path / "whole").source == tmp_path / "whole"
    bare = dataclasses.replace(whole, tokens=None, weights=None, unquantized=None, codebook=None, embeddings=())
    same(representation.load(bare.save(tmp_path / "bare")), bare)
    assert representation.load(tmp_path / "bare", "other").name == "other"
    # A folder is replaced as a whole.
    bare.save(tmp_path / "whole")
    same(representation.load(tmp_path / "whole"), bare)


def test_some_codes():
    whole = hand_world.representation()
    some = whole.take(np.array([3, 5, 100]))
    assert some.keys.tolist() == whole.keys[[3, 5, 100]].tolist()
    assert np.array_equal(some.tokens, whole.tokens[[3, 5, 100]])
    assert len(some.codebook) == len(whole.codebook)


def test_what_does_not_fit_together_is_refused(tmp_path):
    whole = hand_world.representation()
    for change, what in (
        ({"keys": whole.keys[::-1]}, "sorted"),
        ({"vectors": whole.vectors[1:]}, "rows of vectors"),
        ({"tokens": None, "weights": None, "vectors": None}, "nothing to evaluate"),
        ({"weights": whole.weights[:, 1:]}, "one for each token"),
        ({"tokens": whole.tokens[:, 1:], "weights": None}, "equal shares"),
    ):
        with pytest.raises(InputError, match=what):
            dataclasses.replace(whole, **change)
    with pytest.raises(InputError, match="neither a tokenizer directory"):
        representation.load(tmp_path)
    path = whole.save(tmp_path / "saved")
    (path / representation.FILE).write_text(json.dumps({"format_version": 99}))
    with pytest.raises(InputError, match="format version"):
        representation.load(path)
    (path / representation.FILE).write_text("{")
    with pytest.raises(InputError, match="cannot be read as a representation"):
        representation.load(path)
