"""Conversions for models of patient records need no JAX: none of their modules imports it."""

import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT

ROOMS = ("medtok_jax/convert/ehr_models", "medtok_jax/records")
PROGRAM = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    assert not {"jax", "flax"} & set(sys.modules), name
"""


@pytest.mark.integration
def test_jax_is_not_imported():
    names = [path.relative_to(ROOT).with_suffix("") for room in ROOMS for path in sorted((ROOT / room).glob("*.py"))]
    modules = [".".join(name.parts) for name in names if name.name != "__init__"]
    assert {"medtok_jax.convert.ehr_models.gt_behrt", "medtok_jax.records.visits"} < set(modules)
    subprocess.run([sys.executable, "-c", PROGRAM, *modules], check=True, cwd=ROOT)
