"""Conversions for models of patient records need no JAX: it is not imported by any of them."""

import subprocess
import sys

import pytest

MODULES = ("gt_behrt", "behrt", "transformehr", "mult_ehr", "visits", "unpickling")


@pytest.mark.integration
@pytest.mark.parametrize("module", MODULES)
def test_jax_is_not_imported(module):
    program = f"import sys, medtok_jax.convert.{module}; sys.exit('jax' in sys.modules or 'flax' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
