"""ETHOS predicts the samples of labels: where their timelines end, and what its results say of them."""

import importlib
import sys
import types

import polars as pl
import pytest

torch = pytest.importorskip("torch")

from tests.helpers.small_ethos import DAY, HOUR, at  # noqa: E402

MODULE = "medtok_jax.convert.ethos.files.infer_samples"
EPOCH = at(0).replace(year=1970)
# Patients 5 and 9: times of their tokens in hours of 2150; several tokens have one time, as those of an admission do.
HOURS = {5: [0, 0, 0, 7, 30, 30, 90], 9: [2, 2, 40]}


def _microseconds(hour: int) -> int:
    return int((at(0, 0) - EPOCH).total_seconds()) * 1_000_000 + hour * HOUR


class Timelines:
    """Has what ETHOS's data sets have; a timeline is everything from the patient's first token to a given one."""

    def __init__(self, input_dir, n_positions=2048, **kwargs):
        assert not kwargs, "ETHOS knows nothing of labels"
        self.patient_ids = torch.tensor(list(HOURS))
        self.patient_offsets = torch.tensor([0, len(HOURS[5])])
        self.times = torch.tensor([_microseconds(hour) for hours in HOURS.values() for hour in hours])
        self.tokens = torch.arange(len(self.times))

    def __getitem__(self, place):
        first = self.patient_offsets[int((self.patient_offsets <= place).sum()) - 1]
        return self.tokens[first : place + 1]


@pytest.fixture
def infer(monkeypatch):
    """Return the module, imported beside packages that stand for ETHOS's."""
    rooms = ("ethos", "ethos.datasets", "ethos.inference")
    parts = ("ethos.datasets.base", *(f"ethos.inference.{name}" for name in ("inference", "run_inference", "utils")))
    for name in (*rooms, *parts, "loguru"):
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        room, _, last = name.rpartition(".")
        if room:
            setattr(sys.modules[room], last, module)
    sys.modules["ethos.datasets.base"].InferenceDataset = Timelines
    sys.modules["ethos.inference.utils"].get_dataset_cls = {"hospital_mortality": Timelines}.get
    told = []
    sys.modules["loguru"].told = told
    sys.modules["loguru"].logger = types.SimpleNamespace(info=told.append)
    yield importlib.import_module(MODULE)
    sys.modules.pop(MODULE)


def _labels(path, *rows):
    frame = pl.DataFrame(rows, schema=["subject_id", "prediction_time", "boolean_value"], orient="row")
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(path)
    return path


def test_timelines_end_at_the_prediction_times(infer, tmp_path):
    rows = [
        (9, at(1, 0), True),  # 24 hours: two tokens, and 16 hours before the next
        (5, at(1, 6), False),  # at the time of two tokens, which are seen
        (5, at(1, 5), True),  # an hour before them
        (5, at(0, 0), True),  # at the time of the first ones
        (5, at(90, 0), False),  # long after the last
        (9, at(0, 1), True),  # before the first
        (7, at(1, 0), True),  # a training patient
    ]
    _labels(tmp_path / "labels" / "a.parquet", *rows[:3])
    _labels(tmp_path / "labels" / "b.parquet", *rows[3:])
    dataset = infer.dataset_at_samples("hospital_mortality")(tmp_path, labels=tmp_path / "labels", n_positions=8)
    assert len(dataset) == 5
    found = [dataset[place] for place in range(len(dataset))]
    assert [timeline.tolist() for timeline, _ in found] == [[0, 1, 2], [0, 1, 2, 3], [*range(6)], [*range(7)], [7, 8]]
    answers = [(about["patient_id"], about["prediction_time"], about["expected"]) for _, about in found]
    expected = sorted(rows[:5])
    times = [_microseconds(0) + int((time - at(0)).total_seconds()) * 1_000_000 for _, time, _ in expected]
    assert answers == [(row[0], time, str(row[2]).lower()) for row, time in zip(expected, times, strict=True)]
    assert [about["data_idx"] for _, about in found] == [2, 3, 5, 6, 8]
    (told,) = sys.modules["loguru"].told
    assert told.startswith("Of 7 labels, 6 are of patients in ")
    assert "; 5 of them have a token" in told


def test_the_workers_of_ethos_find_the_samples(infer):
    for name in ("inference", "run_inference"):
        assert sys.modules[f"ethos.inference.{name}"].get_dataset_cls is infer.dataset_at_samples


def test_values_of_any_type_and_times_of_any_unit(infer, tmp_path):
    frame = pl.DataFrame({"subject_id": [3], "prediction_time": [at(1)], "boolean_value": [None], "integer_value": [4]})
    frame.with_columns(pl.col("prediction_time").cast(pl.Datetime("ms"))).write_parquet(tmp_path / "x.parquet")
    (row,) = infer.read_labels(tmp_path / "x.parquet").rows()
    assert row == (3, _microseconds(0) + DAY, "4")
