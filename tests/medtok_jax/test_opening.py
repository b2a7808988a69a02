"""Opening a tokenizer: by directory, package or name, in a worker process, and after it was saved."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

from medtok_jax import MedTokTokenizer
from medtok_jax.lookup import code_files
from medtok_jax.lookup.config import CONFIG
from medtok_jax.lookup.directory import TRANSFORMERS_CONFIG
from medtok_jax.lookup.token_table import TABLE
from preprocessing.common.errors import InputError
from tests.helpers.paths import ROOT
from tests.helpers.small_tokenizer import KEYS, make_tokens, write


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> MedTokTokenizer:
    path = write(tmp_path_factory.mktemp("tokenizer") / "tok", make_tokens(embeddings=True))
    return MedTokTokenizer.from_pretrained(path)


def contents(path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_saved_and_opened_again_it_is_the_same(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "copy")
    copy = MedTokTokenizer.from_pretrained(tmp_path / "copy", verify=True)
    before, after = contents(tokenizer.directory.path), contents(tmp_path / "copy")
    settings = json.loads(after.pop(TRANSFORMERS_CONFIG))
    assert before.pop(TRANSFORMERS_CONFIG)
    assert before == after
    assert settings["auto_map"] == {"AutoTokenizer": ["tokenization_medtok.MedTokTokenizer", None]}
    assert settings["tokenizer_class"] == "MedTokTokenizer"
    assert str(tmp_path.parent) not in json.dumps(settings), "no path of this machine travels with it"
    assert copy.config == tokenizer.config
    np.testing.assert_array_equal(copy.encode_many(KEYS), tokenizer.encode_many(KEYS))
    np.testing.assert_array_equal(copy.embed(KEYS, quantized=False), tokenizer.embed(KEYS, quantized=False))
    copy.save_pretrained(tmp_path / "copy")
    tokenizer.save_pretrained(tmp_path / "copy")
    again = MedTokTokenizer.from_pretrained(tmp_path / "copy", verify=True)
    again.save_pretrained(tmp_path / "third")
    assert contents(tmp_path / "third") == contents(tmp_path / "copy")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["copy", "third"]


def test_something_else_is_not_replaced(tokenizer, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").touch()
    with pytest.raises(InputError, match="is not a tokenizer directory"):
        tokenizer.save_pretrained(tmp_path / "other")
    assert (tmp_path / "other" / "precious").exists()
    with pytest.raises(InputError, match="filename_prefix is not supported"):
        tokenizer.save_pretrained(tmp_path / "new", filename_prefix="my")
    assert not (tmp_path / "new").exists()


def test_settings_are_saved(tokenizer, tmp_path):
    path = tokenizer.directory.path
    preferring = MedTokTokenizer.from_pretrained(path, prefer=["ICD9Proc"], padding_side="left")
    preferring.save_pretrained(tmp_path / "copy")
    opened = MedTokTokenizer.from_pretrained(tmp_path / "copy")
    assert opened.encode("0010") == tokenizer.encode("ICD9Proc/00.10")
    assert opened.padding_side == "left"
    assert MedTokTokenizer.from_pretrained(tmp_path / "copy", prefer="ICD9CM").look_up("0010").key == "ICD9CM/001.0"
    with pytest.raises(InputError, match="several systems"):
        MedTokTokenizer.from_pretrained(tmp_path / "copy", prefer=[]).encode("0010")


def test_a_work_directory_is_its_tokenizer(tmp_path):
    write(tmp_path / "tokenizer")
    assert MedTokTokenizer.from_pretrained(tmp_path).num_codes == len(KEYS)


@pytest.mark.parametrize("folder", ["", "tokenizer"])
def test_an_installed_package_that_holds_a_tokenizer(tmp_path, monkeypatch, folder):
    """It lies in the package or in its folder `tokenizer`, and the package is not imported."""
    package = tmp_path / "site" / "medtok_sample"
    write(package / folder)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (tmp_path / "site" / "plain_package").mkdir()
    (tmp_path / "site" / "module_only.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.chdir(tmp_path)
    opened = MedTokTokenizer.from_pretrained("medtok_sample", verify=True)
    assert opened.directory.path == package / folder
    assert opened.encode("E11.9") == make_tokens().ids[KEYS.index("ICD10CM/E11.9")].tolist()
    # A directory of the same name goes first.
    here = write(tmp_path / "medtok_sample")
    assert MedTokTokenizer.from_pretrained("medtok_sample").directory.path.resolve() == here
    for name in ("plain_package", "module_only", "json", "sys", "absent_package"):
        with pytest.raises(InputError, match="is not a directory, nor an installed package with a token"):
            MedTokTokenizer.from_pretrained(name)


@pytest.mark.parametrize("name", ["", "absent", "./a/b", "/absent/x", "a/b/c", "~", 3, None, b"x", "\0", "x" * 5000])
def test_no_tokenizer(name, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError):
        MedTokTokenizer.from_pretrained(name)


def test_what_is_none_of_the_three_is_refused_naming_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"not a directory, nor an installed package .* nor OWNER/NAME on the Hugging"):
        MedTokTokenizer.from_pretrained("absent")
    with pytest.raises(InputError, match="is not a directory, and the Hugging Face hub did not give it"):
        MedTokTokenizer.from_pretrained("team/absent")
    with pytest.raises(InputError, match=r"holds no readable medtok\.json; a tokenizer is written by training"):
        MedTokTokenizer.from_pretrained(tmp_path)


def test_a_worker_process_opens_it_itself(tokenizer, tmp_path):
    sent = pickle.dumps(tokenizer)
    assert b"what ICD10CM" not in sent, "a worker maps the table instead of being sent it"
    assert b"<text_" not in sent
    opened = pickle.loads(sent)
    assert opened.tokenize("E11.9") == tokenizer.tokenize("E11.9")
    np.testing.assert_array_equal(opened.embed("E11.9", quantized=False), tokenizer.embed("E11.9", quantized=False))
    keys = tuple(f"SNOMED/{number}" for number in range(10_000, 12_000))
    larger = MedTokTokenizer.from_pretrained(write(tmp_path / "tok", make_tokens(keys)))
    larger.neighbors("10021")
    assert abs(len(pickle.dumps(larger)) - len(sent)) < 200, "its size does not depend on the number of codes"
    larger.add_tokens(["[TIME]"])
    preferring = MedTokTokenizer.from_pretrained(tokenizer.directory.path, prefer="ICD9CM")
    assert pickle.loads(pickle.dumps(larger)).encode("[TIME]") == larger.encode("[TIME]")
    assert pickle.loads(pickle.dumps(preferring)).look_up("0010").key == "ICD9CM/001.0"


@pytest.mark.integration
def test_look_up_imports_no_jax(tokenizer):
    """Nor anything else that takes long to start."""
    code = f"""
import sys, medtok_jax
from medtok_jax import MedTokTokenizer
tokenizer = MedTokTokenizer.from_pretrained({str(tokenizer.directory.path)!r}, verify=True)
tokenizer([["E11.9"], ["250.00"]], padding=True, return_tensors="np"), tokenizer.encode_patient([["E11.9"]])
tokenizer.neighbors("E11.9"), tokenizer.neighbors("E11.9", by="embedding"), tokenizer.decode([1])
heavy = {{"jax", "jaxlib", "flax", "torch", "tensorflow", "matplotlib", "absl", "pandas", "polars", "scipy"}}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_nothing_of_the_directory_is_run(tokenizer, tmp_path):
    """Python files and pickles beside the tokenizer are left alone, its own code too, and what it lists is copied."""
    path = write(tmp_path / "tok")
    for name in ("tokenizer.py", "__init__.py", "model.pkl", "conftest.py"):
        (path / name).write_text("raise SystemExit('run')")
    opened = MedTokTokenizer.from_pretrained(path, verify=True)
    assert type(opened) is MedTokTokenizer
    opened.save_pretrained(tmp_path / "copy")
    wanted = [*code_files.names(), CONFIG, TABLE, TRANSFORMERS_CONFIG]
    assert sorted(p.name for p in (tmp_path / "copy").iterdir()) == sorted(wanted)


def test_code_of_the_directory_that_was_changed(tmp_path):
    """The library runs its own code, and reports that the copy in the directory is not the one that was written."""
    path = write(tmp_path / "tok")
    (path / "tokenization_medtok.py").write_text("raise SystemExit('run')")
    with pytest.raises(InputError, match=r"tokenization_medtok\.py is damaged"):
        MedTokTokenizer.from_pretrained(path)
