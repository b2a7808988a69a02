"""A text encoder and a tokenizer taken by their hub names, from a local server that speaks the hub's protocol."""

import fnmatch
import re
from pathlib import Path

import numpy as np
import pytest

from configs import paper, pipeline
from medtok_jax import MedTokTokenizer
from medtok_jax.lookup import code_files
from medtok_jax.lookup.hub import PATTERNS, PINNED, download
from medtok_jax.text.encoder_files import HUB_PATTERNS
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
def test_a_tokenizer_by_its_name_in_transformers(hub, tmp_path):
    code = f"""
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained({TOKENIZER!r}, trust_remote_code=True)
print(type(tokenizer).__module__, *tokenizer.encode("E11.9"))
"""
    done = run_python(code, hub, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    module, *ids = done.stdout.split()
    assert module.startswith("transformers_modules.")
    assert ids == [str(number) for number in make_tokens().ids[KEYS.index("ICD10CM/E11.9")]]


def test_options_of_the_download(monkeypatch, tmp_path):
    """Options of a download, as transformers has them, reach the client of the hub and not the tokenizer."""
    asked = {}

    def download(name, **options):
        asked.update(options, name=name)
        return write(tmp_path / "tok")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    opened = MedTokTokenizer.from_pretrained(
        TOKENIZER, revision="v1", token="secret", cache_dir="here", local_files_only=True, padding_side="left"
    )
    assert opened.padding_side == "left"
    assert len(asked.pop("allow_patterns")) > 3
    assert asked == {
        "name": TOKENIZER,
        "revision": "v1",
        "token": "secret",
        "cache_dir": "here",
        "local_files_only": True,
    }
    opened.save_pretrained(tmp_path / "copy")
    assert "secret" not in (tmp_path / "copy" / "tokenizer_config.json").read_text()


@pytest.mark.parametrize(
    ("name", "revision", "asked"),
    [
        ("bert-base-uncased", None, ("bert-base-uncased", PINNED["bert-base-uncased"])),
        ("bert-base-uncased@main", None, ("bert-base-uncased", "main")),
        ("team/tiny-bert@v1.0", None, ("team/tiny-bert", "v1.0")),
        ("team/tiny-bert@v1.0", "v2", ("team/tiny-bert", "v2")),
        ("team/tiny-bert", None, ("team/tiny-bert", None)),
    ],
)
def test_the_revision_of_a_download(name, revision, asked, monkeypatch, tmp_path):
    given = {}
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **more: given.update(more, name=name) or "x")
    download(name, ["config.json"], what="text encoder", revision=revision)
    assert (given["name"], given["revision"], given["allow_patterns"]) == (*asked, ["config.json"])


def test_repositories_that_the_project_names_are_pinned():
    named = {configuration.get_config().model.text_encoder_model for configuration in (paper, pipeline)}
    assert named <= PINNED.keys()
    assert all(re.fullmatch("[0-9a-f]{40}", commit) for commit in PINNED.values())


def test_only_files_that_hold_data_are_downloaded():
    """Weights, tables and JSON; beside them the Python files of a tokenizer, which transformers asks for by name."""
    kinds = {Path(pattern).suffix for pattern in (*PATTERNS, *HUB_PATTERNS) if pattern not in code_files.names()}
    assert kinds == {".json", ".safetensors", ".parquet", ".npy", ".txt"}
    assert not any(fnmatch.fnmatch("graph/weights.pkl", pattern) for pattern in PATTERNS)


@pytest.mark.integration
def test_a_tokenizer_by_its_name(hub, tokenizer, tmp_path):
    done = open_tokenizer(TOKENIZER, hub, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    directory = Path(done.stdout.splitlines()[-1])
    assert directory.is_relative_to(tmp_path / "home")
    found = {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}
    assert found == {name: text for name, text in tokenizer.items() if name not in ("tokenizer.py", "weights.pkl")}
    opened = MedTokTokenizer.from_pretrained(directory)
    np.testing.assert_array_equal(opened.encode_many(KEYS), make_tokens().ids)


@pytest.mark.integration
def test_an_unknown_tokenizer_is_one_sentence(hub, tmp_path):
    done = open_tokenizer("team/absent", hub, tmp_path / "home")
    assert done.returncode != 0
    sentence = done.stderr.strip().splitlines()[-1]
    assert "InputError: The tokenizer 'team/absent' is not a directory, and the Hugging Face hub did not" in sentence


@pytest.mark.integration
@pytest.mark.parametrize("name", [TOKENIZER, "team/absent"])
def test_the_token_of_the_user_goes_to_the_hub_and_appears_nowhere(hub, tmp_path, monkeypatch, name):
    """Not in the output, even of the most talkative client that fails, nor in a file that stays."""
    monkeypatch.setenv("HF_TOKEN", "hf_hunter2")
    monkeypatch.setenv("HF_HUB_VERBOSITY", "debug")
    done = open_tokenizer(name, hub, tmp_path / "home")
    assert (done.returncode == 0) == (name == TOKENIZER), done.stderr
    assert "Bearer hf_hunter2" in Hub.credentials
    written = b"".join(path.read_bytes() for path in (tmp_path / "home").rglob("*") if path.is_file())
    assert "hunter2" not in done.stdout + done.stderr + written.decode("utf-8", "replace")
