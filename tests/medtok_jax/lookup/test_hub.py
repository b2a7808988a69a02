"""A text encoder and a tokenizer taken by their hub names, from a local server that speaks the hub's protocol."""

from pathlib import Path

import numpy as np
import pytest

from medtok_jax import MedTokTokenizer
from tests.helpers.local_hub import Hub, run_python, serve
from tests.helpers.small_tokenizer import KEYS, make_tokens, write

NAME, TOKENIZER = "team/tiny-bert", "team/medtok"
FILES = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": b"weights",
    "tokenizer.json": b"{}",
    "pytorch_model.bin": b"a pickle that is not wanted",
}


@pytest.fixture
def tokenizer(tmp_path) -> dict[str, bytes]:
    def add(folder):
        (folder / "graph").mkdir()
        (folder / "graph" / "nodes.parquet").write_bytes(b"nodes")

    folder = write(tmp_path / "tok", make_tokens(), add=add)
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return files | {"tokenizer.py": b"raise SystemExit", "weights.pkl": b"a pickle that is not wanted"}


@pytest.fixture
def hub(tokenizer):
    with serve({NAME: FILES, TOKENIZER: tokenizer}) as address:
        yield address


def resolve(name: str, endpoint: str, home: Path):
    code = f"from medtok_jax.text.encoder_files import resolve_text_encoder as r; print(r({name!r}))"
    return run_python(code, endpoint, home)


@pytest.mark.integration
def test_only_the_needed_files_are_downloaded(hub, tmp_path):
    done = resolve(NAME, hub, tmp_path)
    assert done.returncode == 0, done.stderr
    directory = Path(done.stdout.splitlines()[-1])
    assert directory.is_relative_to(tmp_path)
    found = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert found == {name: content for name, content in FILES.items() if name != "pytorch_model.bin"}
    assert not any("pytorch_model.bin" in path for path in Hub.asked if "/resolve/" in path)


@pytest.mark.integration
def test_an_unknown_model_is_one_sentence(hub, tmp_path):
    done = resolve("team/absent", hub, tmp_path)
    assert done.returncode != 0
    sentence = done.stderr.strip().splitlines()[-1]
    assert "InputError: The text encoder 'team/absent' is not a directory, and the Hugging Face hub did not" in sentence


def open_tokenizer(name: str, endpoint: str, home: Path):
    code = (
        f"from medtok_jax import MedTokTokenizer as M; print(M.from_pretrained({name!r}, verify=True).directory.path)"
    )
    return run_python(code, endpoint, home)


@pytest.mark.integration
def test_a_tokenizer_by_its_name(hub, tokenizer, tmp_path):
    done = open_tokenizer(TOKENIZER, hub, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    directory = Path(done.stdout.splitlines()[-1])
    assert directory.is_relative_to(tmp_path / "home")
    found = {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}
    assert found == {name: content for name, content in tokenizer.items() if not name.endswith((".py", ".pkl"))}
    opened = MedTokTokenizer.from_pretrained(directory)
    np.testing.assert_array_equal(opened.encode_many(KEYS), make_tokens().ids)


@pytest.mark.integration
def test_an_unknown_tokenizer_is_one_sentence(hub, tmp_path):
    done = open_tokenizer("team/absent", hub, tmp_path / "home")
    assert done.returncode != 0
    sentence = done.stderr.strip().splitlines()[-1]
    assert "InputError: The tokenizer 'team/absent' is not a directory, and the Hugging Face hub did not" in sentence
