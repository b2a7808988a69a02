"""Apache Beam's direct runner builds the data set that the local build writes."""

import filecmp
from pathlib import Path

import numpy as np
import pytest

from preprocessing import medtok_codes
from preprocessing.common.errors import InputError
from preprocessing.dataset import examples
from preprocessing.dataset.beam import BeamPipeline
from tests.helpers.published import write_release
from tests.helpers.small_run import DATA_SET

pytest.importorskip("apache_beam")

SPLITS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch):
    """Several ranges in every split."""
    monkeypatch.setattr(examples, "RANGE", 16)


def read(builder):
    return {split: list(builder.as_data_source(split)) for split in SPLITS}


def assert_same_examples(builder, other):
    for split, expected in read(other).items():
        found = read(builder)[split]
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert a.keys() == b.keys()
            for name in a:
                assert np.array_equal(a[name], b[name]), name


def files(builder):
    return sorted(str(path.relative_to(builder.data_path)) for path in Path(builder.data_path).rglob("*"))


@pytest.mark.thorough
@pytest.mark.integration
def test_the_direct_runner_writes_the_bytes_of_a_local_build(small, tmp_path):
    beam = medtok_codes.prepare(DATA_SET, tmp_path, progress=False, beam=BeamPipeline())
    assert_same_examples(beam, small)
    names = [name for name in files(small) if not name.endswith("graph")]
    assert files(beam) == files(small)
    assert filecmp.cmpfiles(beam.data_path, small.data_path, names, shallow=False)[1:] == ([], [])
    assert [path.name for path in beam.data_path.parent.iterdir()] == ["1.0.0"]


@pytest.mark.integration
def test_files_that_begin_elsewhere_have_the_same_fingerprint(tmp_path, monkeypatch):
    folder = write_release(tmp_path / "release")
    monkeypatch.setattr(medtok_codes, "_BATCH", 7)
    configure = medtok_codes._download_config
    monkeypatch.setattr(medtok_codes, "_download_config", lambda beam: configure(beam).replace(num_shards=3))
    built = {
        name: medtok_codes.prepare(
            "medtok_codes/release", tmp_path / name, progress=False, source_dir=folder, beam=pipeline
        )
        for name, pipeline in (("beam", BeamPipeline()), ("local", None))
    }
    assert_same_examples(built["beam"], built["local"])
    lengths = {name: builder.info.splits["train"].shard_lengths for name, builder in built.items()}
    assert len(lengths["beam"]) == len(lengths["local"]) == 3
    assert lengths["beam"] != lengths["local"]
    assert medtok_codes.fingerprint(built["beam"]) == medtok_codes.fingerprint(built["local"])
    record = next(Path(built["beam"].data_path).glob("*train*00001-of*"))
    record.write_bytes(next(Path(built["beam"].data_path).glob("*train*00002-of*")).read_bytes())
    assert medtok_codes.fingerprint(built["beam"]) != medtok_codes.fingerprint(built["local"])


@pytest.mark.thorough
@pytest.mark.integration
def test_workers_in_other_processes(tmp_path):
    folder = write_release(tmp_path / "release")
    pipeline = BeamPipeline(("--direct_running_mode=multi_processing", "--direct_num_workers=2"))
    name = "medtok_codes/release"
    beam = medtok_codes.prepare(name, tmp_path / "beam", progress=False, source_dir=folder, beam=pipeline)
    assert_same_examples(beam, medtok_codes.prepare(name, tmp_path / "local", progress=False, source_dir=folder))


def test_options_are_checked():
    with pytest.raises(InputError, match="--runner=FlinkRunner, not 'runner=FlinkRunner'"):
        BeamPipeline(("runner=FlinkRunner",))
