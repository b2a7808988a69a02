import os

import pytest

from medtok_jax import train
from medtok_jax.devices.run_lock import only_run
from preprocessing.common.errors import InputError


def test_a_second_run_in_a_work_directory_is_refused(tmp_path):
    holder = rf"run is in use by process {os.getpid()} on \S+ since 20\S+"
    sentence = rf"{holder}; wait until it ends, or choose another --workdir\.$"
    with only_run(tmp_path / "run", advice="choose another --workdir"):
        with pytest.raises(InputError, match=sentence):
            train.train_and_evaluate(None, tmp_path / "run")
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    assert not list((tmp_path / "run").iterdir())
