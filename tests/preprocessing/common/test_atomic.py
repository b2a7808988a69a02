import pytest

from preprocessing.common.atomic import whole_folder
from preprocessing.common.errors import InputError


def test_it_appears_at_the_end_and_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "deep" / "graph"
    with whole_folder(path) as folder:
        (folder / "a").write_text("1")
        assert not path.exists()
    assert (path / "a").read_text() == "1"
    with whole_folder(path) as folder:
        (folder / "b").write_text("2")
        assert (path / "a").exists()
    assert [file.name for file in path.iterdir()] == ["b"]
    assert [file.name for file in path.parent.iterdir()] == ["graph"]


def test_failure_leaves_the_old_one(tmp_path):
    path = tmp_path / "graph"
    with whole_folder(path) as folder:
        (folder / "a").write_text("1")
    (tmp_path / "graph.partial").mkdir()
    (tmp_path / "graph.partial" / "of a process that was killed").write_text("")
    with pytest.raises(ZeroDivisionError), whole_folder(path) as folder:
        (folder / "b").write_text(f"{len(list(folder.iterdir()))} {1 / 0}")
    assert [file.name for file in tmp_path.rglob("*")] == ["graph", "a"]


def test_what_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"), whole_folder(tmp_path / "file" / "graph"):
        pass
