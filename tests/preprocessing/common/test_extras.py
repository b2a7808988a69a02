"""One sentence names the extra of a missing package, another the error of a broken one."""

import sys

import pytest

from preprocessing.common import extras
from preprocessing.common.errors import InputError
from tests.helpers.paths import ROOT


def test_a_package_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "polars", None)
    assert not extras.installed("polars")
    with pytest.raises(InputError, match=r"Python package polars, .* run: pip install 'medtok_jax\[ehr\]'$"):
        extras.load("polars")


def test_a_package_that_is_there():
    assert extras.load("polars").DataFrame({"a": [1]}).height == 1
    assert extras.installed("polars")


def test_a_package_that_is_broken(monkeypatch, tmp_path):
    (tmp_path / "broken_package.py").write_text("from json import nothing")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(extras.EXTRAS, "broken_package", "ehr")
    with pytest.raises(InputError, match=r"broken_package is installed but cannot be imported.*'nothing'"):
        extras.load("broken_package")


def test_other_modules_are_no_extras():
    assert extras.explain(ModuleNotFoundError(name="preprocessing.nothing")) is None
    assert "medtok_jax[ehr]" in str(extras.explain(ModuleNotFoundError(name="polars.io")))


def test_every_extra_is_in_the_setup():
    text = (ROOT / "setup.py").read_text()
    assert all(f'"{extra}": ' in text for extra in extras.EXTRAS.values())
