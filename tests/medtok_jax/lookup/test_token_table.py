"""The table on disk: strings of any content, the index of codes, and files that are none."""

import dataclasses
import json
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtok_jax import MedTokTokenizer
from medtok_jax.lookup import code_index
from medtok_jax.lookup.code_index import AMBIGUOUS, UNKNOWN, CodeIndex
from medtok_jax.lookup.directory import KnownCode, TokenizerDirectory
from medtok_jax.lookup.token_table import Strings, TokenTable, capitals, index_arrays, read_arrays
from preprocessing.common.errors import InputError
from tests.helpers.small_tokenizer import KEYS, make_tokens, write

texts = st.text(st.characters(exclude_categories=["Cs"]))
codes = st.text(st.sampled_from("aAbB01.ä "), min_size=1, max_size=4)
keys = st.builds(lambda system, code: f"{system}/{code}", st.sampled_from(["X", "Y", "ICD10CM"]), codes)


@given(strings=st.lists(texts))
def test_strings_come_back(strings):
    packed = Strings.of(strings)
    assert len(packed) == len(strings)
    assert packed.to_list() == strings
    assert [one.decode() for one in packed] == strings
    arrays = packed.arrays("key")
    assert Strings(arrays["key_text"], arrays["key_offsets"]).to_list() == strings
    with pytest.raises(IndexError):
        packed[len(strings)]


@given(drawn=st.lists(keys, unique=True, min_size=1), rows=st.integers(1, 40), asked=codes)
def test_the_index_equals_a_search_through_all_keys(drawn, rows, asked):
    """By the rules in words: without a dot all that differ by a dot alone, with one only the exact code."""
    drawn = ["X/other", *drawn]
    rows = min(rows, len(drawn))
    arrays, systems = index_arrays(drawn[:rows], drawn[rows:])
    index = CodeIndex(arrays, systems, rows)
    assert sorted(arrays["compact_entry"].tolist()) == list(range(len(drawn)))
    for system in (None, "X"):
        wanted = capitals(asked.strip())
        named = [(entry, *key.split("/", 1)) for entry, key in enumerate(drawn)]
        named = [(entry, capitals(code)) for entry, name, code in named if system in (None, name)]
        exact = [entry for entry, code in named if code == wanted]
        found = [entry for entry, code in named if code.replace(".", "") == wanted.replace(".", "")]
        if "." in wanted or (exact and system is not None):
            found = exact
        one = UNKNOWN if not found or (len(found) == 1 and found[0] >= rows) else found[0]
        assert index.candidates(asked, system) == found
        one = AMBIGUOUS if len(found) > 1 else one
        assert index.find_many([asked], system).tolist() == [one]
        with mock.patch.object(code_index, "MANY", 1):
            assert index.find_many([asked, f"X/{asked}"], system).tolist() == [
                one,
                *index.find_many([f"X/{asked}"], system),
            ]


def test_any_text_in_a_directory(tmp_path):
    """Descriptions in any script, or none at all; keys with other letters; codes that are known without tokens."""
    tokens = make_tokens()
    described = ["", "Ménière", "糖尿病", "a\nb\0c", "😀", *[""] * 14]
    tokens.strings["description"] = np.array(described, object)
    tokens.strings["key"] = np.array([*KEYS[:-1], "Custom/ä/b c"], object)
    tokens = dataclasses.replace(tokens, others=[KnownCode("Other/ß", "code")])
    read = TokenizerDirectory.read(write(tmp_path / "tok", tokens), verify=True)
    assert read.table["description"].to_pylist() == tokens.sorted().strings["description"].tolist()
    assert read.table["key"].to_pylist() == sorted(tokens.strings["key"])
    tokenizer = MedTokTokenizer.from_pretrained(tmp_path / "tok")
    assert tokenizer.describe("E11.65") == "糖尿病"
    assert tokenizer.encode("Custom/ä/b c") == tokens.ids[-1].tolist()
    assert tokenizer.look_up("Custom/ä/b c").key == "Custom/ä/b c"
    with pytest.raises(InputError, match="Other/ß has no tokens"):
        tokenizer.encode("ß")
    bare = dataclasses.replace(make_tokens(), strings=make_tokens().strings | {"description": np.array([""] * 19)})
    assert MedTokTokenizer.from_pretrained(write(tmp_path / "bare", bare)).describe("E11.9") == ""


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"none", b"\x10" + b"\0" * 40, b"\xff" * 8 + b"{}", (2).to_bytes(8, "little") + b"{}"),
        *((4).to_bytes(8, "little") + b"null", (2).to_bytes(8, "little") + b"[]", b"\0" * 8),
        (20_000).to_bytes(8, "little") + b"[" * 20_000,
    ],
    ids=range(9),
)
def test_a_file_that_is_no_table(tmp_path, content):
    (tmp_path / "tokens.safetensors").write_bytes(content)
    for opened in (read_arrays, TokenTable):
        with pytest.raises(InputError, match="is not a readable table of MedTok tokens") as told:
            opened(tmp_path / "tokens.safetensors")
        assert "\n" not in str(told.value)
    with pytest.raises(InputError, match="absent is not a readable table"):
        read_arrays(tmp_path / "absent")


def test_a_table_that_is_cut_anywhere(tmp_path):
    whole = (write(tmp_path / "tok") / "tokens.safetensors").read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for length in (*range(0, header, 97), header, header + 1, len(whole) - 1):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(InputError, match="is not a readable table of MedTok tokens"):
            read_arrays(tmp_path / "cut")
    fields = json.loads(whole[8:header])
    fields["ids"]["data_offsets"] = [0, 10**9]
    text = json.dumps(fields).encode()
    (tmp_path / "cut").write_bytes(len(text).to_bytes(8, "little") + text + whole[header:])
    with pytest.raises(InputError, match="is not a readable table of MedTok tokens"):
        read_arrays(tmp_path / "cut")
