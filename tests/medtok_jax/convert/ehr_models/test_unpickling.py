"""Pickles are read without calling or importing anything that is not listed."""

import collections
import datetime
import io
import os
import pickle
import resource

import pytest

from medtok_jax.convert.ehr_models import unpickling
from preprocessing.common.errors import InputError

PLAIN = {"a": [1, 2.5, None, True, "é", b"x", (1, (2, 3)), {4}, frozenset({5})], "big": 1 << 80}


def written(path, *objects, protocol=pickle.HIGHEST_PROTOCOL):
    path.write_bytes(b"".join(pickle.dumps(each, protocol) for each in objects))
    return path


class Trap:
    """Calls `function` when it is unpickled by whoever allows that."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_objects_come_back(tmp_path, protocol):
    # Before protocol 4 sets and bytes ask for functions by name.
    kept = [each for each in PLAIN["a"] if protocol >= 4 or not isinstance(each, bytes | set | frozenset)]
    plain = PLAIN | {"a": kept}
    assert unpickling.load(written(tmp_path / "x", plain, protocol=protocol)) == plain


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_function_that_is_not_listed_is_not_called(tmp_path, protocol):
    target = tmp_path / "made"
    path = written(tmp_path / "x", [Trap(os.mkdir, str(target))], protocol=protocol)
    with pytest.raises(InputError, match=r"names (posix|nt)\.mkdir"):
        unpickling.load(path)
    assert not target.exists()
    pickle.loads(path.read_bytes())
    assert target.exists()


def test_a_listed_class_comes_back_and_others_still_do_not(tmp_path):
    allowed = {"collections.OrderedDict": collections.OrderedDict}
    value = collections.OrderedDict(a=1)
    assert unpickling.load(written(tmp_path / "x", value), allowed) == value
    with pytest.raises(InputError, match=r"datetime\.date"):
        unpickling.load(written(tmp_path / "y", [value, datetime.date(2020, 1, 1)]), allowed)


def test_what_is_asked_for_may_be_replaced(tmp_path):
    target = tmp_path / "made"
    path = written(tmp_path / "x", Trap(os.mkdir, str(target)))
    assert unpickling.load(path, {"posix.mkdir": lambda name: ("asked for", name)}) == ("asked for", str(target))
    assert not target.exists()


def test_a_name_with_dots_is_no_way_around_the_list(tmp_path):
    # From protocol 4 on a name may lead into what it names.
    path = tmp_path / "x"
    path.write_bytes(b"\x80\x04\x8c\x0bcollections\x8c\x10OrderedDict.keys\x93.")
    with pytest.raises(InputError, match=r"OrderedDict\.keys"):
        unpickling.load(path, {"collections.OrderedDict": collections.OrderedDict})


def test_references_to_the_outside_are_refused(tmp_path):
    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return "elsewhere" if obj == "there" else None

    buffer = io.BytesIO()
    Pickler(buffer).dump(["there"])
    (tmp_path / "x").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="outside"):
        unpickling.load(tmp_path / "x")


def test_several_objects_in_one_file(tmp_path):
    path = written(tmp_path / "x", [1], "two", {3: 4})
    assert list(unpickling.load_each(path)) == [[1], "two", {3: 4}]
    with pytest.raises(InputError, match="3 pickled objects"):
        unpickling.load(path)


def test_damage_is_one_sentence(tmp_path):
    whole = pickle.dumps(PLAIN["a"])
    for damaged in (whole[:-3], b"no pickle", b"\x80\x04\x8c", b"\x80\x63.", whole + b"(", b"\x80\x04]\x94h\x99."):
        (tmp_path / "x").write_bytes(damaged)
        with pytest.raises(InputError, match="cannot be unpickled"):
            unpickling.load(tmp_path / "x")
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(InputError, match="0 pickled objects"):
        unpickling.load(tmp_path / "x")
    with pytest.raises(InputError, match="cannot be read"):
        unpickling.load(tmp_path / "absent")


@pytest.mark.parametrize(
    "numbered", [b"Nr\x00\x00\x00\x08.", b"Np99999999\n.", b"]\x94Nr\x00\x00\x00\x08.", b"Nq\x02."]
)
def test_a_few_bytes_do_not_reserve_gigabytes(tmp_path, numbered):
    (tmp_path / "x").write_bytes(numbered)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"unpickled \(it gives an object the number"):
        unpickling.load(tmp_path / "x")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
