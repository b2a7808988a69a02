import json

import pytest

from preprocessing.common import checksums
from preprocessing.common.checksums import md5_of, sealed, sha256_of, sha256_of_files, sha256_once, unsealed


def test_checksums_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert md5_of(tmp_path / "a") == "900150983cd24fb0d6963f7d28e17f72"


def test_files_together_differ_by_content_name_and_order(tmp_path):
    for name, content in (("a", "1"), ("b", "2"), ("deep/a", "1")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    a, b, deep = tmp_path / "a", tmp_path / "b", tmp_path / "deep" / "a"
    assert len({sha256_of_files(files) for files in ([a], [b], [a, b], [b, a], [])}) == 5
    assert sha256_of_files([a]) == sha256_of_files([str(deep)])
    b.write_text("1")
    assert sha256_of_files([a]) != sha256_of_files([b])


def test_an_absent_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        sha256_of(tmp_path / "a")


def test_a_file_is_read_once_as_long_as_it_stays(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"abc")
    read = []
    monkeypatch.setattr(checksums, "sha256_of", lambda path: read.append(path) or sha256_of(path))
    assert sha256_once(tmp_path / "a") == sha256_once(str(tmp_path / "a")) == sha256_of(tmp_path / "a")
    assert len(read) == 1
    (tmp_path / "a").write_bytes(b"abcd")
    assert sha256_once(tmp_path / "a") == sha256_of(tmp_path / "a")
    assert len(read) == 2


def test_any_change_of_what_is_sealed_is_noticed():
    content = {"loss": 0.1, "none": float("nan"), "names": ("a", "ä"), "deep": {"b": None}}
    text = json.dumps(sealed(content))
    assert json.dumps(unsealed(json.loads(text))) == json.dumps(content)
    for place in range(len(text)):
        changed = text[:place] + chr(ord(text[place]) ^ 1) + text[place + 1 :]
        try:
            parsed = json.loads(changed)
        except ValueError:
            continue
        with pytest.raises(ValueError, match="checksum"):
            unsealed(parsed)
    for nothing in ([], None, 3, {}):
        with pytest.raises(ValueError, match="checksum"):
            unsealed(nothing)
