import datetime
import hashlib
import json

import pytest

from preprocessing.common.errors import InputError
from preprocessing.download.manifest import FILE_NAME, Manifest


def add(manifest, name, content, **known):
    path = manifest.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    fields = {"source": "https://example.org/a.zip", "version": "v1", "license": "CC0"} | known
    manifest.record(name, size=len(content), sha256=sha256, **fields)


@pytest.fixture
def written(tmp_path):
    manifest = Manifest(tmp_path)
    add(manifest, "NDC/product.txt", b"PRODUCTID\n", catalogue="NDC", archive="ndctext.zip", date="2026-04-01")
    add(manifest, "HCPCS/h.txt", "ä\n".encode(), catalogue="HCPCS", by_hand=True)
    manifest.write()
    return tmp_path


def test_what_is_recorded_is_read_again(written):
    manifest = Manifest.read(written)
    assert manifest.files["NDC/product.txt"] == {
        "source": "https://example.org/a.zip",
        "version": "v1",
        "license": "CC0",
        "date": "2026-04-01",
        "size": 10,
        "sha256": hashlib.sha256(b"PRODUCTID\n").hexdigest(),
        "catalogue": "NDC",
        "archive": "ndctext.zip",
    }
    assert manifest.files["HCPCS/h.txt"]["date"] == datetime.datetime.now(datetime.UTC).date().isoformat()
    assert manifest.names("HCPCS") == ["HCPCS/h.txt"]
    manifest.verify()
    manifest.verify(written, ["NDC/product.txt"])


def test_equal_contents_are_equal_bytes(written, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    manifest = Manifest(other)
    for name, entry in reversed(Manifest.read(written).files.items()):
        manifest.files[name] = dict(reversed(entry.items()))
    manifest.write()
    assert (other / FILE_NAME).read_bytes() == (written / FILE_NAME).read_bytes()
    assert [path.name for path in other.iterdir()] == [FILE_NAME]


def test_no_manifest_is_an_empty_one(tmp_path):
    assert Manifest.read(tmp_path).files == {}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(b"PRODUCTID"), "has 9 bytes where 10 are recorded"),
        (lambda path: path.write_bytes(b"PRODUCTIX\n"), "has changed"),
    ],
)
def test_a_changed_file_is_told(written, damage, words):
    damage(written / "NDC" / "product.txt")
    manifest = Manifest.read(written)
    with pytest.raises(InputError, match=words):
        manifest.verify()
    manifest.verify(names=["HCPCS/h.txt"])


def test_a_file_that_is_not_recorded_is_told(written):
    with pytest.raises(InputError, match=r"does not record NDC/package\.txt"):
        Manifest.read(written).verify(names=["NDC/package.txt"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"format": 2, "files": {}}',
        '{"format": 1}',
        '{"format": 1, "files": {"a": {"size": 1}}}',
        json.dumps({"format": 1, "files": {"../a": dict.fromkeys(("source", "version", "license", "date"), "x")}}),
    ],
)
def test_a_damaged_manifest_is_one_sentence(tmp_path, text):
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(InputError, match="delete it and download again"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize("name", ["../a", "/a", "", "a\\b", "a/../../b"])
def test_only_names_inside_the_folder_are_recorded(tmp_path, name):
    with pytest.raises(ValueError, match="cannot be recorded"):
        Manifest(tmp_path).record(name, source="s", version="v", license="l", size=1, sha256="0" * 64)
