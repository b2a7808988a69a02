"""The published copy of a tokenizer: no licensed descriptions, a model card, and opened where this package is not."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml

from medtok_jax import MedTokTokenizer
from medtok_jax.convert.huggingface import convert
from medtok_jax.convert.request import make_request
from medtok_jax.lookup import code_files
from medtok_jax.lookup.config import CONFIG
from medtok_jax.lookup.directory import TRANSFORMERS_CONFIG, KnownCode, TokenizerDirectory
from medtok_jax.lookup.token_table import TABLE
from preprocessing.common.checksums import sealed
from preprocessing.common.errors import InputError, UserError
from tests.helpers import guide_examples, small_tokenizer
from tests.helpers.auto_tokenizer import open_auto
from tests.helpers.small_tokenizer import KEYS, make_tokens

LICENSED = ("CPT4", "SNOMED", "ATC")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    tokens = make_tokens(embeddings=True)
    others = [KnownCode("ICD10CM/N18.6", "code"), KnownCode("ICD10CM/E10", "category")]
    tokens = dataclasses.replace(tokens, others=others)
    tokens.strings["kind"] = np.where(tokens.strings["key"] == "ICD10CM/E11", "category", "code")

    def add(folder):
        (folder / "model.safetensors").write_bytes(b"weights")

    return small_tokenizer.write(tmp_path_factory.mktemp("source") / "tok", tokens, prefer=["ICD9CM"], add=add)


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory):
    output = tmp_path_factory.mktemp("exported") / "out"
    convert.convert(make_request(output=output, tokenizer=source))
    return output


@pytest.fixture(scope="module")
def exported(folder):
    return MedTokTokenizer.from_pretrained(folder, verify=True)


@pytest.fixture(scope="module")
def original(source):
    return MedTokTokenizer.from_pretrained(source)


def test_a_copy_without_the_model(folder, source):
    names = [*code_files.names(), CONFIG, TABLE, TRANSFORMERS_CONFIG, "README.md"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    one, other = TokenizerDirectory.read(source).config, TokenizerDirectory.read(folder, verify=True).config
    assert other.identity != one.identity, "other descriptions make another tokenizer"
    same = dataclasses.replace(other, identity=one.identity, files=one.files)
    assert same == one


def test_the_same_tokens(folder, exported, original):
    for tokenizer in (exported, open_auto(folder)):
        np.testing.assert_array_equal(tokenizer.encode_many(KEYS), original.encode_many(KEYS))
        np.testing.assert_array_equal(tokenizer.embed(KEYS), original.embed(KEYS))
        np.testing.assert_array_equal(tokenizer.codebook, original.codebook)
        assert tokenizer.get_vocab() == original.get_vocab()
        assert tokenizer.look_up("0010").key == "ICD9CM/001.0", "the order of preference travels with it"
        assert tokenizer.look_up("E11").source == "category"
        with pytest.raises(ValueError, match=r"ICD10CM/N18\.6 has no tokens: this tokenizer holds 18 of the 19 codes"):
            tokenizer.encode("N18.6")
        for key in KEYS:
            found = tokenizer.nearest(original.encode(key), 4)
            assert [(near.key, near.score, near.description) for near in found] == [
                (near.key, near.score, "" if near.key.split("/")[0] in LICENSED else near.description)
                for near in original.nearest(original.encode(key), 4)
            ]


def test_residual_tokens_are_added_up(tmp_path):
    source = small_tokenizer.write(tmp_path / "tok", kind="residual")
    convert.convert(make_request(output=tmp_path / "out", tokenizer=source))
    exported = MedTokTokenizer.from_pretrained(tmp_path / "out")
    np.testing.assert_array_equal(exported.embed("E11.9"), MedTokTokenizer.from_pretrained(source).embed("E11.9"))


def test_card(folder, source, tmp_path):
    def card(**options) -> tuple[dict, str]:
        convert.convert(make_request(output=tmp_path / "card", tokenizer=source, overwrite=True, **options))
        _, metadata, text = (tmp_path / "card" / "README.md").read_text().split("---\n", 2)
        return yaml.safe_load(metadata), text

    metadata, text = card()
    assert metadata["library_name"] == "transformers"
    assert {"ICD10CM", "medtok"} <= set(metadata["tags"])
    assert "model-index" not in metadata
    assert "The figures are not known" in text
    assert "descriptions of the 2 codes of SNOMED are not in this repository" in text
    workdir = tmp_path / "run"
    workdir.mkdir()
    figures = {"codebook_utilization": 0.75, "codebook_utilization_text": 0.5, "cosine": 0.9}
    summary = {"codes": len(KEYS) - 1, "all_codes": figures, "validation": {"kl_loss": 0.125}, "missing_graph": 3}
    (workdir / "summary.json").write_text(json.dumps(sealed(summary)))
    metadata, text = card(workdir=workdir)
    (results,) = metadata["model-index"][0]["results"]
    assert {m["type"]: m["value"] for m in results["metrics"]} == {"codebook_utilization": 0.75, "cosine": 0.9}
    assert "| Share of the codebook in use, text | 0.5 |" in text
    assert "| Validation kl loss | 0.125 |" in text
    assert "3 codes have no subgraph" in text
    (workdir / "summary.json").write_text(json.dumps(sealed(summary | {"codes": 1})))
    assert "The figures are not known" in card(workdir=workdir)[1], "figures of another run are not told as this one's"


def test_licensed_descriptions_stay_at_home(folder, exported, capsys, source, tmp_path):
    for key in KEYS:
        assert exported.describe(key) == ("" if key.split("/")[0] in LICENSED else f"what {key} means")
    content = b"".join(path.read_bytes() for path in folder.iterdir())
    assert b"what ICD10CM" in content
    for system in LICENSED:
        assert f"what {system}".encode() not in content
    convert.convert(make_request(output=tmp_path / "out", tokenizer=source))
    printed = capsys.readouterr().out
    assert "The descriptions of 2 codes of CPT4 were left out" in printed
    assert f"Wrote 19 codes to {tmp_path / 'out'}; 114 spellings give the same tokens" in printed


def test_an_export_that_differs_is_not_written(folder, original, tmp_path):
    other = small_tokenizer.make_tokens(seed=1)
    moved = MedTokTokenizer.from_pretrained(small_tokenizer.write(tmp_path / "other", other))
    with pytest.raises(UserError, match="but must give"):
        convert.check_same(folder, moved)
    assert convert.check_same(folder, original) == 6 * len(KEYS)


def test_refuses_a_damaged_table(folder, tmp_path):
    module = convert.load_module(folder)
    assert not list(folder.rglob("__pycache__"))
    for content in (b"", b"none", b"\x10" + b"\0" * 40, (folder / TABLE).read_bytes()[:500]):
        (tmp_path / TABLE).write_bytes(content)
        with pytest.raises(ValueError, match="is not a readable table of MedTok tokens"):
            module.MedTokTokenizer(tmp_path / TABLE, folder / CONFIG)
    with pytest.raises(InputError, match="is not a tokenizer directory"):
        make_request(output=tmp_path / "out", tokenizer=tmp_path)


# In front of the guide's example and behind it.
BEFORE = """
import sys
for name in ("jax", "jaxlib", "flax", "medtok_jax", "preprocessing", "pyarrow", "torch"):
    sys.modules[name] = None  # As if it were not installed.
"""
AFTER = """
tokenizer.save_pretrained("again")
again = AutoTokenizer.from_pretrained("again", trust_remote_code=True)
assert again("E11.9")["input_ids"] == tokenizer("E11.9")["input_ids"]
print(tokenizer.decode(again.encode("E11.65")), again.embed("E11.65").shape, *again.encode("E11.65"))
"""


@pytest.mark.integration
def test_opens_where_neither_jax_nor_this_package_is(folder, original, tmp_path):
    shutil.copytree(folder, tmp_path / "medtok-icd")
    example = "".join(guide_examples.examples("Hugging Face", "python"))
    done = subprocess.run(
        [sys.executable, "-I", "-c", BEFORE + example + AFTER],
        cwd=tmp_path,
        env=os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    ids = " ".join(map(str, original.encode("E11.65")))
    assert done.stdout.split("\n")[-2] == f"{original.decode(original.encode('E11.65'))} (4, 4) {ids}"
