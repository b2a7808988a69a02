"""The JSON files of the authors' format, read as their users' code reads them."""

import json

import numpy as np
import pytest

from medtok_jax.convert import medtok_json
from medtok_jax.convert.request import make_request
from medtok_jax.regions import EMBEDDINGS
from medtok_jax.tokenizer import MedTokTokenizer
from preprocessing.common.errors import InputError
from tests.helpers import small_tokenizer
from tests.helpers.forked import run_module


@pytest.fixture(scope="module")
def output(small_tokenizer_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("json") / "out"
    medtok_json.convert(make_request(output=folder, tokenizer=small_tokenizer_dir))
    return folder


def read(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_tokens_and_embeddings_of_every_code(output, small_tokenizer_dir):
    tokenizer = MedTokTokenizer.from_pretrained(small_tokenizer_dir)
    tokens, embeddings = read(output, "code2tokens.json"), read(output, "code2embeddings.json")
    bare = sorted({key.split("/")[1] for key in small_tokenizer.KEYS})
    assert list(tokens) == list(embeddings) == bare
    # The systems of this file are unambiguous but for one code.
    keys = {key.split("/")[1]: key for key in small_tokenizer.KEYS if key != "CPT4/10021"}
    for code in bare:
        assert tokens[code] == tokenizer.look_up(keys[code]).ids.tolist()
        expected = np.concatenate(list(tokenizer.embed(keys[code])))
        assert len(expected) == len(EMBEDDINGS) * small_tokenizer.DIM
        np.testing.assert_allclose(np.array(embeddings[code], np.float32), expected, rtol=1e-6)


def test_a_code_of_two_systems_is_that_of_the_first_of_the_authors(output, small_tokenizer_dir):
    tokenizer = MedTokTokenizer.from_pretrained(small_tokenizer_dir)
    assert read(output, "left_out.json") == {"10021": ["CPT4/10021"]}
    assert read(output, "code2tokens.json")["10021"] == tokenizer.look_up("SNOMED/10021").ids.tolist()


def test_their_users_code_makes_an_array_and_a_vocabulary(output):
    """As public code does it: an array of all values, and ICD-10-CM codes with a dot after three characters."""
    embeddings = read(output, "code2embeddings.json")
    array = np.array(list(embeddings.values()), dtype=np.float32)
    assert array.shape == (len(embeddings), len(EMBEDDINGS) * small_tokenizer.DIM)
    spelled = "E119"[:3] + "." + "E119"[3:]
    assert spelled in set(read(output, "code2tokens.json"))


def test_the_order_of_embeddings_is_that_of_the_authors():
    assert EMBEDDINGS == ("text_specific", "graph_specific", "text_cross", "graph_cross")


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("code2tokens.json", lambda text: text.replace("[", "[0, ", 1), "Entry 1 of .* differs"),
        ("code2tokens.json", lambda text: "".join(text.splitlines(keepends=True)[:-2]), "holds 17 of 18 codes"),
        ("code2embeddings.json", lambda text: text.replace(": [", ": [NaN, ", 1), "Entry 1 of .* differs"),
        ("code2embeddings.json", lambda text: text.replace("]", "", 1), "Line 2 of .* is not an entry"),
    ],
)
def test_a_file_that_differs_is_refused(output, small_tokenizer_dir, tmp_path, name, damage, words):
    for path in output.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tokenizer = MedTokTokenizer.from_pretrained(small_tokenizer_dir)
    rows, _ = medtok_json.bare_codes(tokenizer.directory.table["key"].to_pylist())
    ids = tokenizer.directory.ids[np.array(list(rows.values()))]
    medtok_json.check(tmp_path, list(rows), ids, 16)
    (tmp_path / name).write_text(damage((tmp_path / name).read_text()))
    with pytest.raises(InputError, match=words):
        medtok_json.check(tmp_path, list(rows), ids, 16)


@pytest.mark.integration
def test_the_command_line(small_tokenizer_dir, tmp_path):
    words = [f"--tokenizer={small_tokenizer_dir}", "--to=medtok", f"--output={tmp_path / 'out'}"]
    done = run_module("medtok_jax.convert", *words)
    assert done.returncode == 0, done.stderr
    assert "Writing 18 codes with 16 numbers each" in done.stdout
    assert (tmp_path / "out" / "code2embeddings.json").is_file()
    assert "1 codes are in left_out.json" in done.stdout
