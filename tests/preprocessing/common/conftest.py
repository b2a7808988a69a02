"""Provide what tests of files share."""

import resource

import pytest


@pytest.fixture
def small_disk():
    """Let no file grow beyond 10,000 bytes, as if the disk were full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
