"""A folder with a listing: any file that is not what was written is noticed, and a cache is made anew."""

import json
import os

import pytest

from preprocessing.common import listing
from preprocessing.common.listing import LISTING, Damage, cached, check_listing, is_whole, write_listing
from tests.helpers.damages import DAMAGES, flip

FILES = {"a.npy": b"some numbers", "deep/b.bin": b"more numbers", LISTING: None}


def write(folder) -> None:
    for name, content in FILES.items():
        if content:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "folder")
    write_listing(tmp_path / "folder")
    return tmp_path / "folder"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_is_noticed(folder, name, damage):
    check_listing(folder)
    DAMAGES[damage](folder / name)
    with pytest.raises(Damage, match=name.split("/")[-1]):
        check_listing(folder)


@pytest.mark.parametrize("place", [number / 20 for number in range(21)])
def test_a_listing_that_is_damaged_anywhere_fits_nothing(folder, place):
    content = json.loads((folder / LISTING).read_text())
    flip(folder / LISTING, place)
    try:
        check_listing(folder)
    except Damage:
        return
    # Such as a blank that became another one.
    assert json.loads((folder / LISTING).read_text()) == content


def test_sizes_are_those_of_all_files_and_digests_those_of_a_part(folder):
    flip(folder / "a.npy")
    check_listing(folder, part="deep/")
    with pytest.raises(Damage):
        check_listing(folder, part="a")
    (folder / "a.npy").write_bytes(b"")
    with pytest.raises(Damage):
        check_listing(folder, part="deep/")


def test_a_digest_is_compared_again_where_size_or_time_changed(folder, monkeypatch):
    check_listing(folder, remember=True)
    check_listing(folder, remember=True, digest=None)
    flip(folder / "deep/b.bin")
    os.utime(folder / "deep/b.bin", ns=(0, 0))
    with pytest.raises(Damage, match="is not what"):
        check_listing(folder, remember=True)
    flip(folder / "deep/b.bin")
    check_listing(folder, remember=True)
    for damaged in ("[]", "{", '{"a.npy": 3}'):
        (folder / listing.COMPARED).write_text(damaged)
        check_listing(folder, remember=True)


def test_a_damaged_cache_is_made_anew_and_says_so(tmp_path, capsys):
    made = []

    def fill(partial) -> None:
        made.append(partial)
        write(partial)

    for _ in range(2):
        folder = cached(tmp_path / "cache", fill, advice="set data.cache_dir")
    assert len(made) == 1
    assert capsys.readouterr().err == ""
    flip(folder / "a.npy")
    cached(folder, fill, advice="set data.cache_dir")
    assert len(made) == 2
    told = f"warning: {folder} is damaged (a.npy is not what {LISTING} describes); it is made anew.\n"
    assert capsys.readouterr().err == told
    assert is_whole(folder)
    assert os.listdir(tmp_path) == ["cache"]
