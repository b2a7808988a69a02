import random
import stat
import struct
import zipfile

import pytest

from preprocessing.common.errors import InputError
from preprocessing.download.archives import member_names, unzip

TEXT = b"00001 A00     0 Cholera\r\n" * 40
LIMIT = 10_000_000


def make(path, members, compression=zipfile.ZIP_DEFLATED):
    """A zip archive of `members`: name or ZipInfo -> bytes."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def info(name, mode):
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    return member


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_unpacks_all_with_their_folders(tmp_path):
    archive = make(tmp_path / "a.zip", [("b/two.txt", TEXT), ("one.txt", b"1"), ("b/", b"")])
    files = unzip(archive, tmp_path / "out", max_bytes=LIMIT)
    assert tree(tmp_path / "out") == {"b/two.txt": TEXT, "one.txt": b"1"}
    assert files == [tmp_path / "out" / "b/two.txt", tmp_path / "out" / "one.txt"]
    assert member_names(archive) == ["b/two.txt", "one.txt"]


def test_flattens_what_is_wanted_and_prefers_what_is_nearest_the_root(tmp_path):
    """The full release of RxNorm holds the prescribable one too, farther from the root."""
    archive = make(tmp_path / "a.zip", [("prescribe/rrf/A.RRF", b"other"), ("rrf/A.RRF", TEXT), ("readme.txt", b"r")])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept").write_text("kept")
    unzip(archive, tmp_path / "out", max_bytes=LIMIT, wanted=lambda name: name.endswith(".RRF"), flatten=True)
    assert tree(tmp_path / "out") == {"A.RRF": TEXT, "kept": b"kept"}


def test_two_equally_near_members_are_no_choice(tmp_path):
    archive = make(tmp_path / "a.zip", [("x/A.RRF", b"1"), ("y/A.RRF", b"2")])
    with pytest.raises(InputError, match="both"):
        unzip(archive, tmp_path / "out", max_bytes=LIMIT, flatten=True)


@pytest.mark.parametrize(
    "name",
    ["../evil.txt", "a/../../evil.txt", "/tmp/evil.txt", "C:/evil.txt", "C:evil.txt", "..\\evil.txt", "\\evil.txt"],
)
def test_no_member_leaves_the_folder(tmp_path, name):
    archive = make(tmp_path / "a.zip", [("good.txt", TEXT), (name, b"evil")])
    # Also where only the good member is wanted: such an archive was made to do harm.
    for wanted in (None, lambda name: name == "good.txt"):
        with pytest.raises(InputError, match="leave its folder"):
            unzip(archive, tmp_path / "out", max_bytes=LIMIT, wanted=wanted)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip"]


@pytest.mark.parametrize("mode", [stat.S_IFLNK | 0o777, stat.S_IFIFO | 0o600, stat.S_IFCHR | 0o600])
def test_no_link_and_no_device(tmp_path, mode):
    archive = make(tmp_path / "a.zip", [(info("link", mode), b"/etc/passwd"), ("link/x", b"through the link")])
    with pytest.raises(InputError, match="link or a device"):
        unzip(archive, tmp_path / "out", max_bytes=LIMIT)
    assert not (tmp_path / "out").exists()


def test_a_link_in_the_archive_of_an_honest_tool_is_refused_too(tmp_path):
    (tmp_path / "target").write_text("secret")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    member = zipfile.ZipInfo.from_file(tmp_path / "target", "link")
    member.external_attr = (tmp_path / "link").lstat().st_mode << 16
    with pytest.raises(InputError, match="is a link or a device"):
        unzip(make(tmp_path / "a.zip", [(member, b"target")]), tmp_path / "out", max_bytes=LIMIT)


def test_a_bomb_is_known_by_its_ratio(tmp_path):
    archive = make(tmp_path / "a.zip", [("bomb", b"\0" * 5_000_000)])
    assert archive.stat().st_size < 10_000
    with pytest.raises(InputError, match="200 times"):
        unzip(archive, tmp_path / "out", max_bytes=LIMIT)


def test_limits_of_all_and_of_one(tmp_path):
    content = [(f"{n}.bin", random.Random(n).randbytes(1_000)) for n in range(10)]
    archive = make(tmp_path / "a.zip", content)
    with pytest.raises(InputError, match="10,000 bytes, more than the 9,999"):
        unzip(archive, tmp_path / "out", max_bytes=9_999)
    with pytest.raises(InputError, match="more than the 999"):
        unzip(archive, tmp_path / "out", max_bytes=LIMIT, max_member_bytes=999)
    assert len(unzip(archive, tmp_path / "out", max_bytes=10_000, max_member_bytes=1_000)) == 10


def test_a_member_that_is_longer_than_it_says(tmp_path):
    """Sizes in the directory at the end are claims: 4,000 bytes that call themselves 40."""
    archive = make(tmp_path / "a.zip", [("a", b"x" * 4000)], zipfile.ZIP_STORED)
    raw = bytearray(archive.read_bytes())
    directory = raw.rindex(b"PK\x01\x02")
    raw[directory + 24 : directory + 28] = struct.pack("<L", 40)
    archive.write_bytes(raw)
    with pytest.raises(InputError):
        unzip(archive, tmp_path / "out", max_bytes=100)
    assert not (tmp_path / "out").exists()


def test_a_name_that_comes_twice(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        archive = make(tmp_path / "a.zip", [("a", b"1"), ("a", b"2")])
    with pytest.raises(InputError, match="holds 'a' twice"):
        unzip(archive, tmp_path / "out", max_bytes=LIMIT)


def test_an_encrypted_member(tmp_path):
    archive = make(tmp_path / "a.zip", [("a", TEXT)])
    raw = bytearray(archive.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(signature) + flags] |= 1
    archive.write_bytes(raw)
    with pytest.raises(InputError, match="which is encrypted"):
        unzip(archive, tmp_path / "out", max_bytes=LIMIT)


@pytest.mark.parametrize("kept", [0, 10, 200, 0.5, -1])
def test_a_truncated_archive_is_one_sentence(tmp_path, kept):
    archive = make(tmp_path / "a.zip", [(f"{n}.bin", random.Random(n).randbytes(5_000)) for n in range(3)])
    raw = archive.read_bytes()
    archive.write_bytes(raw[: int(len(raw) * kept) if isinstance(kept, float) else kept])
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match=r"(is empty|cannot be read as a complete zip archive).*get it again\.$"):
        unzip(archive, tmp_path / "out", max_bytes=LIMIT)
    assert tree(tmp_path / "out") == {}


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_a_changed_byte_leaves_nothing(tmp_path, compression):
    """The last member is damaged; the others are whole, but none appears."""
    content = [("a", TEXT), ("b", TEXT), ("z", random.Random(1).randbytes(3_000))]
    archive = make(tmp_path / "a.zip", content, compression)
    raw = bytearray(archive.read_bytes())
    raw[raw.rindex(b"PK\x03\x04") + 1_000] ^= 0xFF
    archive.write_bytes(raw)
    with pytest.raises(InputError, match="cannot be read as a complete zip"):
        unzip(archive, tmp_path / "out", max_bytes=LIMIT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    leftover = tmp_path / ".partial-01234567-out"
    leftover.mkdir()
    (leftover / "half").write_text("half")
    unzip(make(tmp_path / "a.zip", [("a", TEXT)]), tmp_path / "out", max_bytes=LIMIT)
    assert not leftover.exists()
    assert tree(tmp_path / "out") == {"a": TEXT}


def test_an_archive_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be unpacked"):
        unzip(tmp_path / "none.zip", tmp_path / "out", max_bytes=LIMIT)
