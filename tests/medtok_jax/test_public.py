"""Type checkers see the public names where they are, and mypy is strict about their modules."""

import ast
import tomllib
from pathlib import Path

import medtok_jax
from tests.helpers.paths import ROOT


def test_the_stub_declares_every_public_name_in_its_module():
    stub = ast.parse(Path(medtok_jax.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    declared = {
        alias.asname: node.module.removeprefix("medtok_jax.")
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert declared == medtok_jax._PUBLIC
    assert set(declared) == set(medtok_jax.__all__)
    assert Path(medtok_jax.__file__).with_name("py.typed").exists()


def test_types_of_public_names_are_checked_strictly():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]["overrides"]
    strict = {name for one in settings if one.get("disallow_untyped_defs") for name in one["module"]}
    unchecked = {name for one in settings if one.get("ignore_errors") for name in one["module"]}
    public = {"medtok_jax", *(f"medtok_jax.{module}" for module in medtok_jax._PUBLIC.values())}
    assert public <= strict
    assert not strict & unchecked
    assert not any(
        f"{module}.".startswith(name.removesuffix("*")) for module in strict for name in unchecked if "*" in name
    )


def test_modules_that_are_not_checked_exist():
    """A name that is misspelled, or was moved, would leave the list longer than it needs to be."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]["overrides"]
    for name in (name for one in settings if one.get("ignore_errors") for name in one["module"]):
        path = ROOT.joinpath(*name.removesuffix(".*").split("."))
        assert path.is_dir() if name.endswith(".*") else path.with_suffix(".py").exists(), name
