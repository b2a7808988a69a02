import pytest

from preprocessing.common.checksums import md5_of, sha256_of, sha256_of_files


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
