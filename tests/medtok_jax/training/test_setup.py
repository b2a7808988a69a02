"""A run decides these things before it starts."""

import dataclasses

import pytest

from configs import default
from medtok_jax.data import code_table
from medtok_jax.text import cache as text_cache
from medtok_jax.training import setup
from medtok_jax.training.inputs import keeps_states
from preprocessing.common.errors import InputError
from preprocessing.graph.knowledge_graph import KnowledgeGraph
from tests.helpers.small_run import small_config


@dataclasses.dataclass
class Device:
    """An accelerator of so many bytes; None where it does not tell."""

    size: int | None
    platform: str = "gpu"

    def memory_stats(self) -> dict | None:
        return None if self.size is None else {"bytes_limit": self.size}


@pytest.fixture
def decide(data):
    """Decides for the hand-made data."""

    def make(asked: str, device: Device, trained: bool = False) -> bool:
        config = default.get_config()
        with config.unlocked():
            config.data.states_on_device, config.model.text_encoder_trainable = asked, trained
        return keeps_states(config, data, device)

    return make


def test_states_lie_on_an_accelerator_with_room(decide, data):
    size = data.cache.states.nbytes
    assert decide("auto", Device(int(2.6 * size)))
    assert not decide("auto", Device(int(2.4 * size)))
    assert not decide("auto", Device(None))
    assert decide("yes", Device(int(1.1 * size)))
    assert decide("yes", Device(None))
    assert not decide("no", Device(100 * size))
    assert not decide("yes", Device(100 * size), trained=True)
    assert not decide("auto", Device(None, platform="cpu"))
    assert decide("yes", Device(None, platform="cpu"))


def test_states_that_do_not_fit_are_told(decide, data):
    with pytest.raises(InputError, match=r"data.states_on_device is 'yes', but .* do not fit"):
        decide("yes", Device(data.cache.states.nbytes // 2))


class Opened(Exception):
    """Everything has been read."""


def test_the_data_set_and_the_text_encoder_are_read_once(data_dir, tmp_path, monkeypatch):
    calls = []

    def counted(name, function):
        def call(*arguments, **options):
            calls.append(name)
            return function(*arguments, **options)

        return call

    def stop(*_, **__):
        raise Opened

    monkeypatch.setattr(code_table, "fingerprint", counted("fingerprint", code_table.fingerprint))
    monkeypatch.setattr(KnowledgeGraph, "load", counted("graph", KnowledgeGraph.load))
    monkeypatch.setattr(text_cache, "encoder_identity", counted("encoder", text_cache.encoder_identity))
    monkeypatch.setattr(setup, "assemble", stop)
    with pytest.raises(Opened):
        setup.set_up(small_config(data_dir), tmp_path, progress=False)
    assert sorted(calls) == ["encoder", "fingerprint", "graph"]


def test_compiled_programs_are_kept_beside_the_other_caches(tmp_path, monkeypatch, capsys):
    folders = []

    def kept(caches):
        folders.append(caches)
        return "There is no room."

    def opened(*_, **__):
        raise Opened

    monkeypatch.setattr(setup.medtok_codes, "check_available", lambda *_: None)
    monkeypatch.setattr(setup, "resolve_text_encoder", lambda _: tmp_path)
    monkeypatch.setattr(setup, "keep_compiled", kept)
    monkeypatch.setattr(setup, "load_data", opened)
    with pytest.raises(Opened):
        setup.set_up(small_config(tmp_path / "data"), tmp_path / "run", progress=False)
    assert folders == [tmp_path / "data" / "medtok_cache"]
    assert capsys.readouterr().out == "There is no room.\n"


def test_a_run_that_goes_on_from_another_one_keeps_its_codebook():
    config = default.get_config().copy_and_resolve_references().unlock()
    plan = setup.TrainingPlan.of(config, 0, 30)
    assert (plan.kmeans_step, plan.refits) == (min(config.model.kmeans_step, 10), True)
    for name in ("resume_from", "init_from"):
        changed = config.copy_and_resolve_references()
        changed[name] = "runs/before"
        plan = setup.TrainingPlan.of(changed, 0, 30)
        assert (plan.kmeans_step, plan.refits) == (-1, False)
