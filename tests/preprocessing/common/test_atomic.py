import errno
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from preprocessing.common import atomic
from preprocessing.common.errors import InputError
from tests.helpers import killed_writer
from tests.helpers.paths import ROOT
from tests.helpers.permissions import readable_by_others


@pytest.fixture(params=["exchange", "two renames"])
def exchange(request, monkeypatch):
    """Replaces folders in both ways that file systems allow."""
    if request.param == "two renames":
        monkeypatch.setattr(atomic, "_exchange", lambda first, second: False)


def refused(sentence):
    """Expect one sentence."""
    return pytest.raises(InputError, match=sentence)


def names(folder):
    """Return the sorted names of everything below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_file_appears_at_the_end_and_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "deep" / "table.npy"
    for number in range(2):
        with atomic.whole_file(path) as partial:
            assert partial.suffix == ".npy"
            np.save(partial, np.array([number]))
            assert path.exists() == bool(number)
        assert np.load(path) == [number]
    assert names(tmp_path) == ["deep", "deep/table.npy"]


@pytest.mark.usefixtures("exchange")
def test_a_folder_appears_at_the_end_and_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "deep" / "graph"
    with atomic.whole_folder(path) as folder:
        (folder / "a").write_text("1")
        assert not path.exists()
    assert (path / "a").read_text() == "1"
    with atomic.whole_folder(path) as folder:
        (folder / "b").write_text("2")
        assert (path / "a").exists()
    assert names(tmp_path) == ["deep", "deep/graph", "deep/graph/b"]


@pytest.mark.usefixtures("exchange")
def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    for name in ("graph", "text"):
        (tmp_path / name).symlink_to(f"disk/{name}")
    for number in range(2):
        with atomic.whole_folder(tmp_path / "graph") as folder:
            (folder / f"a{number}").write_text("1")
        atomic.write_text(tmp_path / "text", str(number))
    assert (tmp_path / "graph").is_symlink()
    assert (tmp_path / "text").is_symlink()
    assert names(disk) == ["graph", "graph/a1", "text"]
    assert (disk / "text").read_text() == "1"


def test_a_link_to_itself_is_refused(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with refused(r"loop cannot be written \(Too many levels of symbolic links\)"):
        atomic.write_text(tmp_path / "loop", "1")
    with refused(r"loop cannot be written \(Too many levels"), atomic.whole_folder(tmp_path / "loop"):
        pass
    assert names(tmp_path) == ["loop"]


@pytest.mark.usefixtures("exchange")
def test_permissions_stay(tmp_path):
    graph, text = tmp_path / "graph", tmp_path / "text"
    graph.mkdir(mode=0o700)
    text.touch(mode=0o600)
    with atomic.whole_folder(graph) as folder:
        (folder / "a").write_text("1")
    atomic.write_text(text, "1")
    assert [path.stat().st_mode & 0o777 for path in (graph, text)] == [0o700, 0o600]
    assert names(tmp_path) == ["graph", "graph/a", "text"]


def test_what_holds_patient_data_is_private(tmp_path):
    with atomic.private(), atomic.whole_folder(tmp_path / "folder") as folder:
        (folder / "sub").mkdir()
        for name in ("a", "sub/b"):
            (folder / name).write_text("1")
    with atomic.private():
        atomic.write_text(tmp_path / "text", "1")
        subprocess.run([sys.executable, "-c", "open('child', 'w')"], cwd=tmp_path, check=True)
    assert readable_by_others(tmp_path / "folder", tmp_path / "text", tmp_path / "child") == []
    atomic.write_text(tmp_path / "other", "1")
    assert readable_by_others(tmp_path / "other") != []


@pytest.mark.usefixtures("exchange")
def test_a_folder_that_is_shared_stays_shared(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder").chmod(0o750)
    with atomic.private(), atomic.whole_folder(tmp_path / "folder") as folder:
        (folder / "a").write_text("1")
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "folder", tmp_path / "folder" / "a")] == [0o750, 0o600]


def test_text_and_json(tmp_path):
    atomic.write_text(tmp_path / "text", "ü\n")
    atomic.write_json(tmp_path / "json", {"b": 1, "a": "ü"}, sort_keys=True, ensure_ascii=False)
    assert (tmp_path / "text").read_bytes() == "ü\n".encode()
    assert (tmp_path / "json").read_text(encoding="utf-8") == '{\n "a": "ü",\n "b": 1\n}\n'


@pytest.mark.integration
@pytest.mark.parametrize("case", killed_writer.CASES)
def test_a_writer_killed_at_any_system_call_leaves_the_old_or_the_new_content(case, tmp_path):
    # In memory where there is such a folder: nothing is waited for, and the calls are the same.
    folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else str(tmp_path)
    script = f"""
import sys, tempfile
from pathlib import Path
from tests.helpers.killed_writer import check
with tempfile.TemporaryDirectory(dir={folder!r}) as root:
    print(check({case!r}, Path(root)))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == killed_writer.UNTRACED:
        pytest.skip("this machine does not let a process trace its child")
    assert not done.returncode, done.stderr
    assert int(done.stdout) > {"lines": 10}.get(case, 40)


@pytest.mark.usefixtures("exchange")
def test_a_failing_body_leaves_the_old_content(tmp_path):
    with atomic.whole_folder(tmp_path / "graph") as folder:
        (folder / "a").write_text("1")
    with pytest.raises(ZeroDivisionError), atomic.whole_folder(tmp_path / "graph") as folder:
        (folder / "b").write_text(f"{1 / 0}")
    atomic.write_text(tmp_path / "file", "1")
    with pytest.raises(ZeroDivisionError), atomic.whole_file(tmp_path / "file") as partial:
        partial.write_text(f"{1 / 0}")
    assert names(tmp_path) == ["file", "graph", "graph/a"]
    assert (tmp_path / "file").read_text() == "1"


@pytest.mark.usefixtures("exchange")
def test_writers_at_once_do_not_disturb_each_other(tmp_path):
    with atomic.whole_folder(tmp_path / "graph") as first, atomic.whole_folder(tmp_path / "graph") as second:
        (first / "a").write_text("first")
        (second / "a").write_text("second")
    assert (tmp_path / "graph" / "a").read_text() == "first"
    problems = []

    def write(number):
        try:
            for _ in range(20):
                with atomic.whole_folder(tmp_path / "graph") as folder:
                    (folder / "a").write_text(str(number))
                with atomic.whole_file(tmp_path / "file") as partial:
                    partial.write_text(str(number))
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        atomic.recover(tmp_path / "graph")
    assert not problems
    assert names(tmp_path) == ["file", "graph", "graph/a"]


def test_what_lies_aside_is_put_back_and_what_was_replaced_is_not(tmp_path):
    old = tmp_path / ".old-01234567-graph"
    old.mkdir()
    (old / "a").write_text("1")
    (tmp_path / ".old-01234567-another graph").mkdir()
    atomic.recover(tmp_path / "graph")
    assert names(tmp_path) == [".old-01234567-another graph", "graph", "graph/a"]
    atomic.recover(tmp_path / "graph")
    old.mkdir()
    atomic.recover(tmp_path / "graph")
    assert old.exists()
    with atomic.whole_folder(tmp_path / "graph"):
        pass
    assert names(tmp_path) == [".old-01234567-another graph", "graph"]


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("1")
    (tmp_path / "folder").mkdir()
    below = atomic.whole_folder(tmp_path / "file" / "graph", advice="choose another --output")
    with refused(r"graph cannot be written \(.*\); choose another --output\.$"), below:
        pass
    there = atomic.whole_folder(tmp_path / "file")
    with refused(r"file cannot be written, since a file lies there; choose another place\.$"), there:
        pass
    with refused(r"folder cannot be written \(Is a directory\); make room there or choose"):
        atomic.write_text(tmp_path / "folder", "")
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_is_told_in_a_sentence_and_leaves_the_old_content(tmp_path):
    for name, write in {
        "text": lambda path: path.write_text("x" * 20_000),
        "array.npy": lambda path: np.save(path, np.zeros(5000)),
        "arrays.npz": lambda path: np.savez(path, zeros=np.zeros(5000)),
    }.items():
        atomic.write_text(tmp_path / name, "1")
        sentence = rf"{name} cannot be written \(.*\); make room there or choose another place\.$"
        with refused(sentence), atomic.whole_file(tmp_path / name) as partial:
            write(partial)
        assert (tmp_path / name).read_text() == "1"
    with refused(r"folder cannot be written"), atomic.whole_folder(tmp_path / "folder") as partial:
        (partial / "a").write_text("x" * 20_000)
    assert names(tmp_path) == ["array.npy", "arrays.npz", "text"]


def test_errors_of_other_files_are_passed_on(tmp_path):
    with pytest.raises(FileNotFoundError), atomic.whole_file(tmp_path / "file"):
        (tmp_path / "absent").read_text()
    with pytest.raises(OSError, match="Input/output"), atomic.whole_folder(tmp_path / "folder"):
        raise OSError(errno.EIO, "Input/output error", str(tmp_path / "source"))


@pytest.mark.parametrize("path", [".", "..", "/", "deep/.."])
def test_a_path_without_a_name_is_refused(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept").touch()
    with refused("give a path that ends in a name"), atomic.whole_folder(path):
        pass
    with refused("give a path that ends in a name"):
        atomic.write_text(path, "text")
    assert names(tmp_path) == ["kept"]


def test_only_a_folder_of_the_same_kind_is_replaceable(tmp_path):
    atomic.check_replaceable(tmp_path / "absent", "marker")
    atomic.check_replaceable(tmp_path, "marker")
    (tmp_path / "of_a_user").touch()
    with refused("is not empty and was not made by this command; choose another --output"):
        atomic.check_replaceable(tmp_path, "marker")
    (tmp_path / "marker").touch()
    atomic.check_replaceable(tmp_path, "marker")
