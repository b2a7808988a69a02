"""Whole runs on a small sample of the real data: what they leave, how they go on, how they stop."""

import dataclasses
import json
import os
import signal

import jax
import numpy as np
import pytest
from flax import nnx
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medtok_jax import train
from medtok_jax.data.input_pipeline import eval_batches
from medtok_jax.devices import sharding
from medtok_jax.devices.interruption import Interrupted
from medtok_jax.lookup.directory import TokenizerDirectory
from medtok_jax.regions import parts_of
from medtok_jax.training import checkpoints, reporting, setup
from medtok_jax.training.codebook_fit import fit_codebook
from medtok_jax.training.evaluation import validation_rows
from medtok_jax.training.inputs import ModelInputs
from medtok_jax.training.metrics import quantization_metric_names
from medtok_jax.training.programs import Programs
from medtok_jax.training.state import TrainState
from medtok_jax.training.steps import TERMS, NonFiniteLoss
from preprocessing.common.errors import InputError
from tests.helpers.small_run import small_config


def variables(workdir, kind="last") -> dict[str, np.ndarray]:
    """All arrays of a run's checkpoint."""
    found = checkpoints.find(workdir / "checkpoints" / kind).restore_variables()
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(found)}


def parameters(state) -> dict[str, np.ndarray]:
    """All trained arrays of a state, named as in a checkpoint."""
    tree = {"params": nnx.to_pure_dict(state.params)}
    return {jax.tree_util.keystr(path): np.array(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def assert_same_run(one, other) -> None:
    first, second = variables(one), variables(other)
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)
    assert TokenizerDirectory.read(one / "tokenizer").config == TokenizerDirectory.read(other / "tokenizer").config


def run_steps(ready: setup.Training, workdir) -> TrainState:
    """Train to the end without making a tokenizer."""
    log = reporting.Log(workdir, step=0, regions=ready.programs.structure.regions)
    state = train.train(ready, log, checkpoints.CheckpointWriter(workdir, ready.metadata))
    log.close()
    return state


def fit(ready: setup.Training, inputs: ModelInputs | None = None) -> TrainState:
    """Fit the codebook once more."""
    config = ready.config
    return fit_codebook(
        ready.state, ready.programs, inputs or ready.inputs, seed=config.seed, model=config.model, anew=True
    )


@pytest.fixture(scope="module")
def programs() -> dict[str, Programs]:
    """Compiled programs by all that they depend on."""
    return {}


@pytest.fixture(autouse=True)
def compiled_once(programs, monkeypatch):
    """Let the runs of these tests share compiled programs, as far as a configuration says the same of them."""
    assemble, compile_programs = setup.assemble, setup.compile_programs

    def assemble_with_shared(config, data, *arguments, **options):
        about = config.to_dict()
        about |= {"init_from": "", "resume_from": "", "train": about["train"] | {"checkpoint_every": 0}}
        key = repr((about, data.sizes(), options["first_step"], options["last_step"]))

        def compile_or_find(*given) -> Programs:
            if key not in programs:
                programs[key] = compile_programs(*given)
            return programs[key]

        monkeypatch.setattr(setup, "compile_programs", compile_or_find)
        return assemble(config, data, *arguments, **options)

    monkeypatch.setattr(setup, "assemble", assemble_with_shared)


@pytest.fixture(scope="module")
def config(run_config):
    return run_config


@pytest.fixture(scope="module")
def finished(finished_run):
    return finished_run


def test_every_code_is_tokenized(finished):
    workdir, _ = finished
    tokens = TokenizerDirectory.read(workdir / "tokenizer", verify=True)
    ids = tokens.ids
    assert len(ids) == len(set(tokens.table["key"].to_pylist())) > 500
    for columns, (low, high) in {(0, 5): (0, 60), (5, 6): (60, 84), (6, 8): (84, 120)}.items():
        part = ids[:, slice(*columns)]
        assert part.min() >= low
        assert part.max() < high
        # Within one embedding all tokens are different rows.
        assert all(len(set(row)) == len(row) for row in part.tolist())


def test_every_metric_is_logged(finished, run_config):
    workdir, _ = finished
    events = EventAccumulator(str(workdir / "logs"), size_guidance={"scalars": 0}).Reload()
    logged = set(events.Tags()["scalars"])
    names = [part.embedding for part in parts_of(run_config.model)]
    wanted = {"total_loss", "quantization_loss", "packing_loss", "kl_loss", *quantization_metric_names(names)}
    wanted |= {
        f"codebook_{what}{region}"
        for what in ("utilization", "perplexity")
        for region in ("", "_text", "_graph", "_shared")
    }
    wanted |= {f"term/{name}" for name in TERMS}
    speed = {"learning_rate", "gradient_norm", "parameter_norm", "update_norm", "codes_per_second", "step_seconds"}
    assert {f"train/{name}" for name in wanted | speed} <= logged
    assert {f"validation/{name}" for name in wanted} <= logged
    assert events.Tags()["images"] == ["codebook"]
    assert [event.step for event in events.Scalars("train/total_loss")] == [2, 4, 6, 8, 10, 12]


def test_losses_fall(finished):
    _, summary = finished
    losses = summary["losses"]
    assert losses["total_loss"]["last"] < losses["total_loss"]["first"]
    assert losses["packing_loss"]["last"] < losses["packing_loss"]["first"]
    assert losses["quantization_loss"]["last"] < losses["quantization_loss"]["max"]


@pytest.mark.integration
def test_a_finished_run_is_not_trained_again(finished, config):
    workdir, summary = finished
    table = workdir / "tokenizer" / "tokens.safetensors"
    before = (workdir / "metrics.jsonl").read_bytes(), table.stat().st_mtime_ns
    assert train.train_and_evaluate(config, workdir) == json.loads(json.dumps(summary))
    assert before == ((workdir / "metrics.jsonl").read_bytes(), table.stat().st_mtime_ns)


@pytest.mark.integration
def test_stopped_twice_and_resumed_equals_uninterrupted(finished, config, tmp_path, monkeypatch):
    """Real signals in mid-accumulation, after the codebook was fitted; then the same call again."""
    step_annotation = jax.profiler.StepTraceAnnotation
    for number, last_step in ((signal.SIGTERM, 7), (signal.SIGINT, 9)):

        def annotate(name, step_num, number=number, last_step=last_step):
            if step_num == last_step - 1:
                os.kill(os.getpid(), number)
            return step_annotation(name, step_num=step_num)

        with monkeypatch.context() as patch:
            patch.setattr(jax.profiler, "StepTraceAnnotation", annotate)
            with pytest.raises(Interrupted) as stopped:
                train.train_and_evaluate(config, tmp_path)
        assert (stopped.value.code, stopped.value.step) == (128 + number, last_step)
    train.train_and_evaluate(config, tmp_path)
    assert_same_run(finished[0], tmp_path)
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == [2, 4, 6, 8, 10, 12]


def test_the_last_codebook_is_fitted_to_the_trained_embeddings(finished, config):
    ready = setup.set_up(config, finished[0], progress=False)
    assert (int(ready.state.step), ready.plan.refits) == (12, True)
    name = "['params']['quantizer']['rows']"
    again = parameters(fit(ready))[name]
    np.testing.assert_allclose(parameters(ready.state)[name], again, atol=1e-5)
    # The tokenizer is made of it, whatever its loss.
    assert checkpoints.find(finished[0], prefer="best").step == 12


def test_the_codebook_is_fitted_to_each_training_code_alike(finished, config):
    ready = setup.set_up(config, finished[0], progress=False)
    assert config.loss.positive_relations, "a step draws codes with positives more often"
    size, wanted, seen = config.train.batch_size, config.model.kmeans_samples, []

    def builder(rows, valid, partner):
        assert valid.all()
        assert (partner == -1).all()
        seen.append(rows)
        return ready.inputs.unmasked_builder(rows, valid, partner)

    fit(ready, dataclasses.replace(ready.inputs, unmasked_builder=builder))
    codes, seen = ready.inputs.data.rows("train"), np.concatenate(seen)
    assert wanted < len(codes)
    assert wanted <= len(seen) < wanted + size
    assert set(seen) <= set(codes)
    assert len(np.unique(seen)) == len(seen)


@pytest.mark.thorough
@pytest.mark.integration
def test_more_epochs_from_another_run_without_recompilation(finished, config, tmp_path):
    longer = config.copy_and_resolve_references()
    longer.unlock()
    longer.resume_from = str(finished[0])
    ready = setup.set_up(longer.lock(), tmp_path, progress=False)
    run_steps(ready, tmp_path)
    assert len(ready.programs.train_step.executables) == 1
    batches = eval_batches(ready.inputs.eval_source(validation_rows(ready.inputs.data, longer)))
    shapes = {tuple(leaf.shape for leaf in jax.tree.leaves(batch)) for batch in batches}
    assert ready.programs.eval_step._cache_size() == len(shapes) <= 2
    assert checkpoints.find(tmp_path).step == 24
    logged = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert min(logged) == 14
    # The same command again finds its own checkpoint before the other run's.
    summary = train.train_and_evaluate(longer, tmp_path)
    assert summary["step"] == 24
    assert f"Compared with the tokenizer of {finished[0]}:" in summary["since_start"]
    assert any("keep their meaning" in sentence for sentence in summary["since_start"])


def test_fine_tuning_starts_from_the_weights(finished, data_dir, tmp_path, monkeypatch):
    """On a data set with another relation: known relations keep their rows, whatever their new number."""
    load_data = setup.load_data

    def with_a_first_relation(*arguments, **options):
        data = load_data(*arguments, **options)
        graph, relations = data.table.graph, np.asarray(data.table.relations) + 1
        names, reverse = ["new", *graph.relation_names], [0, *(number + 1 for number in graph.reverse)]
        graph = dataclasses.replace(graph, relation_names=names, reverse=reverse, relation=graph.relation + 1)
        return dataclasses.replace(data, table=dataclasses.replace(data.table, graph=graph, relations=relations))

    monkeypatch.setattr(setup, "load_data", with_a_first_relation)
    config = small_config(data_dir, init_from=str(finished[0]), train__steps=1)
    ready = setup.set_up(config, tmp_path, progress=False)
    assert int(ready.state.step) == 0
    assert (ready.plan.kmeans_step, ready.plan.refits) == (-1, False)
    saved = variables(finished[0], "best")
    fresh = parameters(ready.state)
    np.testing.assert_array_equal(fresh["['params']['quantizer']['rows']"], saved["['params']['quantizer']['rows']"])
    before = checkpoints.find(finished[0], prefer="best").metadata()["relation_names"]
    now = ready.metadata["relation_names"]
    assert now == ["new", *before]
    name = "['params']['graph_encoder']['relations']['embedding']"
    for row, relation in enumerate(now):
        if relation in before:
            np.testing.assert_array_equal(fresh[name][row], saved[name][before.index(relation)])


@pytest.mark.integration
def test_another_configuration_is_refused(finished, config):
    other = config.copy_and_resolve_references()
    other.unlock()
    other.model.codebook_size = 160
    with pytest.raises(InputError, match=r"model.codebook_size: 120 -> 160"):
        train.train_and_evaluate(other.lock(), finished[0])


def test_another_data_set_is_refused(finished, config, monkeypatch):
    load_data = setup.load_data

    def changed(*arguments, **options):
        data = load_data(*arguments, **options)
        return dataclasses.replace(data, table=dataclasses.replace(data.table, fingerprint="0" * 64))

    monkeypatch.setattr(setup, "load_data", changed)
    with pytest.raises(InputError, match="another data set"):
        setup.set_up(config, finished[0], progress=False)


@pytest.mark.integration
def test_a_loss_that_is_nan_stops_the_run(data_dir, run_config, tmp_path, monkeypatch):
    config = run_config.copy_and_resolve_references()
    config.unlock()
    config.train.checkpoint_every = 1
    place_batch, step_annotation, steps = sharding.place_batch, jax.profiler.StepTraceAnnotation, [0]

    def annotate(name, step_num):
        steps[0] = step_num
        return step_annotation(name, step_num=step_num)

    def place(batch, mesh):
        spoiled = dataclasses.replace(batch, text=batch.text * np.nan) if steps[0] == 4 else batch
        return place_batch(spoiled, mesh)

    monkeypatch.setattr(jax.profiler, "StepTraceAnnotation", annotate)
    monkeypatch.setattr(sharding, "place_batch", place)
    with pytest.raises(NonFiniteLoss, match=r"not finite at step 5: .*="):
        train.train_and_evaluate(config.lock(), tmp_path)
    kept = variables(tmp_path)
    assert checkpoints.find(tmp_path).step == 5
    assert all(np.isfinite(array).all() for array in kept.values())


@pytest.mark.thorough
@pytest.mark.integration
def test_the_text_encoder_can_be_trained_in_bfloat16(data_dir, tiny_encoder, tmp_path):
    config = small_config(
        data_dir,
        model__text_encoder_model=str(tiny_encoder),
        model__text_encoder_trainable=True,
        loss__distillation_weight=0.0,
        loss__shared_distillation_weight=0.0,
        loss__text_distillation_weight=0.0,
        train__mixed_precision=True,
        train__batch_size=8,
        train__steps=2,
    )
    ready = setup.set_up(config, tmp_path / "run", progress=False)
    name = "['params']['text_encoder']['bert']['layers'][0]['qkv']['kernel']"
    before = parameters(ready.state)
    state = run_steps(ready, tmp_path)
    assert np.abs(parameters(state)[name] - before[name]).max() > 0
