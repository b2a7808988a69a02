"""Fixtures of the library's tests that the tests of the documentation share."""

from tests.medtok_jax.conftest import finished_run, run_config  # noqa: F401
