"""Every sequence model respects padding, seeds, test samples and frozen vectors, and learns what counts cannot."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from sklearn.metrics import roc_auc_score

from eval.ehr.inputs import Sequences, sequences, statics
from eval.ehr.models import sequences as module
from eval.ehr.models import training
from eval.ehr.models.batches import Patients, Shape
from eval.ehr.models.choice import MODELS, choose
from eval.ehr.models.classifier import Classifier
from eval.ehr.models.counts import Logistic
from eval.ehr.models.embedding import CodeEmbedding, first_table, make_lookup
from eval.ehr.models.gt_behrt import graph_attention
from eval.ehr.models.layers import Dropout
from eval.ehr.models.pretraining import MaskedCodes, contrast
from eval.ehr.models.sequences import SequenceModel
from eval.ehr.models.training import TrainingOptions, predict, shuffled_rows, train_step
from preprocessing.common.errors import InputError
from tests.helpers.planted_patients import CODES, patients, single_codes, some_tokens, some_vectors, split_of

pytestmark = pytest.mark.integration

# Graphs of visits take the longest to compile.
NAMES = [
    pytest.param(name, marks=pytest.mark.thorough) if model.graphs else name
    for name, model in MODELS.items()
    if isinstance(model, SequenceModel)
]
SMALL = {"width": 16, "num_layers": 2, "num_heads": 2, "inner": 32, "progress": False}
FEW = TrainingOptions(batch_size=16, epochs=1, least_steps=8, most_steps=8, evaluations=4)
TRAIN, TUNING, TEST = np.arange(60), np.arange(60, 90), np.arange(90, 120)


def small(name: str, **changes) -> SequenceModel:
    return dataclasses.replace(MODELS[name], **SMALL, options=FEW, **changes)


def fit(model, inputs, y, matrix, *, test=TEST, seed=0, trials=1, kind="binary", classes=1):
    split = split_of(inputs, y, TRAIN, TUNING, test)
    return model.fit_predict(split, matrix, seed=seed, trials=trials, classes=classes, kind=kind)


def built(name: str, matrix, outputs: int = 1) -> Classifier:
    """Return a model that is not trained."""
    rngs = nnx.Rngs(0)
    table = first_table(matrix, 16, used=np.ones(matrix.num_features, bool), seed=0)
    vector_width = 0 if matrix.vectors is None else matrix.vectors.shape[1]
    backbone = MODELS[name].make_backbone(16, num_layers=2, num_heads=2, inner=32, rngs=rngs)
    embedding = CodeEmbedding(table, vector_width, rngs=rngs)
    return Classifier(embedding, backbone, np.zeros(outputs), kind="binary", rngs=rngs)


def batched(inputs, y, shape: Shape):
    made = Patients(sequences(inputs, shape.length), statics(inputs), y[:, None].astype(np.float32), shape)
    rows = np.arange(len(y))
    return made.batch(rows, np.ones(len(y), bool), made.edges_of(rows[None]))


@pytest.mark.parametrize("name", NAMES)
def test_padding_is_not_read(name):
    inputs, y = patients(6, signal="order")
    visits = 4 if MODELS[name].graphs else 0
    model, lookup = built(name, single_codes()), make_lookup(single_codes())
    batch = batched(inputs, y, Shape(32, visits))
    expected = model(lookup, batch, None)
    longer = batched(inputs, y, Shape(64, 2 * visits))
    np.testing.assert_allclose(model(lookup, longer, None), expected, atol=1e-5)
    noise = np.random.default_rng(0)
    changed = batch._replace(
        code=np.where(batch.mask, batch.code, noise.integers(0, CODES, batch.code.shape)),
        days=np.where(batch.mask, batch.days, 99).astype(np.float32),
        age=np.where(batch.mask, batch.age, 99).astype(np.float32),
    )
    np.testing.assert_allclose(model(lookup, changed, None), expected, atol=1e-5)
    read = batch._replace(code=np.where(batch.mask, (batch.code + 1) % CODES, 0))
    assert np.abs(model(lookup, read, None) - expected).max() > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_patients_of_a_batch_do_not_read_one_another(name):
    inputs, y = patients(6, signal="order")
    visits = 4 if MODELS[name].graphs else 0
    model, lookup = built(name, single_codes()), make_lookup(single_codes())
    together = model(lookup, batched(inputs, y, Shape(32, visits)), None)
    alone = model(lookup, batched(inputs.take(np.array([3])), y[3:4], Shape(32, visits)), None)
    np.testing.assert_allclose(alone[0], together[3], atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_visits_is_read(name):
    """Two patients whose visits are the same in another order differ; counts of their codes do not."""
    inputs, y = patients(6, signal="order")
    visits = 4 if MODELS[name].graphs else 0
    model, lookup = built(name, single_codes()), make_lookup(single_codes())
    batch = batched(inputs, y, Shape(32, visits))
    swapped = np.array(batch.code)
    for row in range(6):
        first = np.flatnonzero(batch.mask[row] & (batch.visit[row] == 0))
        second = np.flatnonzero(batch.mask[row] & (batch.visit[row] == 1))
        size = min(len(first), len(second))
        swapped[row, first[:size]], swapped[row, second[:size]] = (
            batch.code[row, second[:size]],
            batch.code[row, first[:size]],
        )
    found = [model(lookup, one, None) for one in (batch, batch._replace(code=swapped))]
    assert np.abs(found[0] - found[1]).max() > 1e-4


def test_attention_over_edges_is_that_of_a_mask():
    rng = np.random.default_rng(0)
    query, key, value = rng.normal(size=(3, 5, 2, 3))
    adjacency = rng.random((5, 5)) < 0.5
    adjacency[4] = False
    receivers, senders = np.nonzero(adjacency)
    padding = (0, 7)
    found = graph_attention(
        jnp.asarray(query),
        jnp.asarray(key),
        jnp.asarray(value),
        senders=jnp.pad(senders, padding),
        receivers=jnp.pad(receivers, padding),
        edge_mask=jnp.pad(np.ones(len(senders), bool), padding),
    )
    logits = np.einsum("qhd,khd->hqk", query, key) / np.sqrt(3)
    weights = np.exp(logits) * adjacency
    weights /= np.maximum(weights.sum(axis=-1, keepdims=True), 1e-9)
    np.testing.assert_allclose(found, np.einsum("hqk,khd->qhd", weights, value).reshape(5, 6), atol=1e-5)


def test_dropout_keeps_the_mean_and_depends_on_key_and_place():
    states = jnp.ones((200, 50))
    dropout = Dropout(jax.random.key(0), jnp.float32(0.25))
    dropped = dropout(states, 1)
    assert float(jnp.mean(dropped == 0)) == pytest.approx(0.25, abs=0.02)
    assert float(jnp.mean(dropped)) == pytest.approx(1, abs=0.03)
    np.testing.assert_array_equal(dropped, dropout(states, 1))
    assert bool(jnp.any(dropped != dropout(states, 2)))


def test_masked_codes_are_chosen_among_distinct_ones():
    rng = np.random.default_rng(0)
    code = np.array([3, 5, 3, 9, 9])
    table, guess = rng.normal(size=(10, 4)), rng.normal(size=(5, 4))
    counted = np.array([True, True, True, True, False])
    logits = guess @ table[[3, 5, 9]].T
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(5), [0, 1, 0, 2, 2]]
    found = contrast(jnp.asarray(guess), jnp.asarray(table[code]), jnp.asarray(code), jnp.asarray(counted))
    assert float(found) == pytest.approx(losses[:4].mean(), rel=1e-4)


@pytest.mark.integration
@pytest.mark.parametrize("name", NAMES)
def test_pretraining_learns_masked_codes(name):
    inputs, y = patients(16, signal="order")
    model, lookup = built(name, single_codes()), make_lookup(single_codes())
    # Code c of a visit stands beside c + 1, so that one tells the other.
    batch = batched(inputs, y, Shape(32, 4 if MODELS[name].graphs else 0))
    place = np.cumsum(batch.mask, axis=1) % 2
    batch = batch._replace(code=np.where(batch.mask, (2 * batch.visit + place) % CODES, 0).astype(np.int32))
    masked = MaskedCodes(model.embedding, model.backbone, rngs=nnx.Rngs(1))
    graphdef, params = nnx.split(masked)
    state, losses = training.OPTIMIZER.init(params), []
    for number in range(60):
        params, state, loss = train_step(
            graphdef,
            params,
            state,
            lookup,
            batch,
            learning_rate=jnp.float32(3e-3),
            dropout=jnp.float32(0),
            key=jax.random.key(0),
            number=jnp.int32(number),
        )
        losses.append(float(loss))
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


@pytest.mark.integration
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pretrain_steps", [0, 2])
def test_the_same_seed_gives_the_same_probabilities(name, pretrain_steps):
    inputs, y = patients(120, signal="code")
    model = small(name, pretrain_steps=pretrain_steps)
    first, second, other = (fit(model, inputs, y, some_tokens(), seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.probabilities, second.probabilities)
    assert (first.probabilities != other.probabilities).any()
    assert first.probabilities.shape == first.tuning.shape == (30,)


@pytest.mark.integration
@pytest.mark.parametrize("name", NAMES)
def test_test_samples_are_only_predicted(name):
    inputs, y = patients(120, signal="code")
    whole = fit(small(name), inputs, y, some_tokens())
    part = fit(small(name), inputs, y, some_tokens(), test=TEST[5:8][::-1])
    np.testing.assert_array_equal(part.tuning, whole.tuning)
    np.testing.assert_allclose(part.probabilities, whole.probabilities[5:8][::-1], atol=1e-6)


@pytest.mark.integration
@pytest.mark.parametrize("matrix", [single_codes(), some_tokens(), some_tokens(expanded=True), some_vectors()])
def test_every_matrix_is_read_and_its_parameters_are_counted(matrix):
    inputs, y = patients(120, signal="code")
    found = fit(small("transformer"), inputs, y, matrix).about
    bare = fit(small("transformer"), inputs, y, single_codes()).about["parameters"] - 16 * CODES
    assert found["parameters"] == bare + matrix.parameters(16)
    made = sequences(inputs.take(TRAIN), 256)
    positions = np.diff(matrix.weights.indptr)[made.code] if matrix.expanded else np.ones_like(made.code)
    assert found["positions"] == pytest.approx((positions * made.mask).sum(axis=1).mean())


@pytest.mark.integration
@pytest.mark.parametrize("name", NAMES)
def test_samples_without_codes_are_predicted(name):
    inputs, y = patients(120, signal="code")
    nothing = inputs.masked(np.zeros(CODES, bool))
    fitted = fit(small(name, pretrain_steps=2), nothing, y, some_tokens())
    assert np.isfinite(fitted.probabilities).all()
    assert fitted.about["positions"] == 0


@pytest.mark.integration
def test_fixed_vectors_are_not_updated(monkeypatch):
    lookups = []
    make = module.make_lookup
    monkeypatch.setattr(module, "make_lookup", lambda matrix: lookups.append(make(matrix)) or lookups[-1])
    runs = []
    tune = module.tune
    monkeypatch.setattr(module, "tune", lambda *args, **named: runs.append(tune(*args, **named)) or runs[-1])
    inputs, y = patients(120, signal="code")
    fit(small("transformer"), inputs, y, some_vectors())
    np.testing.assert_array_equal(lookups[0].vectors, make(some_vectors()).vectors)
    sizes = {leaf.shape for leaf in jax.tree.leaves(runs[0].params)}
    assert lookups[0].vectors.shape not in sizes


@pytest.mark.integration
def test_tokenizers_and_settings_of_equal_shapes_share_programs():
    inputs, y = patients(120, signal="code")
    fit(small("transformer"), inputs, y, single_codes())
    before = train_step._cache_size()
    shifted = dataclasses.replace(single_codes(), weights=single_codes().weights[::-1].tocsr())
    fit(small("transformer"), inputs, y, shifted, trials=3, seed=5)
    assert train_step._cache_size() == before


@pytest.mark.integration
def test_multilabel_and_multiclass_outcomes():
    inputs, y = patients(120, signal="code")
    labels = np.stack([y, np.zeros(120, bool), ~y], axis=1)
    found = fit(small("transformer"), inputs, labels, single_codes(), kind="multilabel", classes=3)
    assert found.probabilities.shape == (30, 3)
    assert found.about["untaught_classes"] == [1]
    assert (found.probabilities[:, 1] == 0).all()
    classes = np.where(y, 3, np.arange(120) % 2)
    found = fit(small("transformer"), inputs, classes, single_codes(), kind="multiclass", classes=4)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-5)
    assert found.about["untaught_classes"] == [2]


@pytest.mark.integration
@pytest.mark.thorough
@pytest.mark.parametrize("name", NAMES)
def test_order_is_learned_by_sequence_models_and_not_by_counts(name):
    inputs, y = patients(700, signal="order")
    parts = np.split(np.arange(700), [400, 550])
    options = TrainingOptions(batch_size=32, epochs=60, patience=100)
    model = dataclasses.replace(small(name), options=options)
    scores = {}
    for one in (model, Logistic()):
        split = split_of(inputs, y, *parts)
        fitted = one.fit_predict(split, single_codes(), seed=0, trials=1, classes=1, kind="binary")
        scores[one.name] = roc_auc_score(y[parts[2]], fitted.probabilities)
    assert scores[name] > 0.85
    assert scores["logistic"] < 0.65


def test_batches_pass_over_all_samples_before_any_returns():
    sizes = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3])
    rows = shuffled_rows(sizes, 10, 2, seed=1)
    assert rows.shape == (10, 2)
    assert sorted(rows.ravel()) == sorted([*range(10), *range(10)])
    assert shuffled_rows(sizes[:3], 2, 8, seed=1).shape == (2, 8)
    assert (shuffled_rows(sizes, 10, 2, seed=1) == rows).all()
    assert (shuffled_rows(sizes, 10, 2, seed=2) != rows).any()


def test_samples_of_like_length_are_together():
    sizes = np.random.default_rng(0).permutation(np.arange(64 * 16))
    rows = shuffled_rows(sizes, 16, 64, seed=1)
    longest = sizes[rows].max(axis=1)
    assert ((sizes[rows] // 64) == (longest // 64)[:, None]).all()
    assert sorted(longest) != longest.tolist()


@pytest.mark.parametrize("name", NAMES)
def test_predictions_do_not_depend_on_the_batch(name):
    """Samples of few and of many codes are predicted alike alone and beside longer ones, in their own order."""
    inputs, y = patients(40, signal="order")
    made = sequences(inputs, 64)
    made.mask[::3, 4:] = False
    known = Patients(made, statics(inputs), y[:, None].astype(np.float32), Shape(64, 4 if name == "gt_behrt" else 0))
    graphdef, params = nnx.split(built(name, single_codes()))
    lookup = make_lookup(single_codes())
    together, alone = (predict(graphdef, params, lookup, known, size) for size in (40, 1))
    np.testing.assert_allclose(alone, together, atol=1e-6)
    assert len(np.unique(together)) > 20


@pytest.mark.parametrize("name", NAMES)
def test_a_fixed_shape_changes_no_probability(name):
    """Samples cut to their latest codes are predicted alike padded to what they need and to a shape with more room."""
    inputs, y = patients(40, signal="order")
    visits = 4 if MODELS[name].graphs else 0
    cut = sequences(inputs, 8)
    made = Sequences(**{key: np.pad(array, ((0, 0), (0, 56))) for key, array in vars(cut).items()})
    graphdef, params = nnx.split(built(name, single_codes()))
    lookup = make_lookup(single_codes())

    def predicted(shape: Shape) -> np.ndarray:
        known = Patients(made, statics(inputs), y[:, None].astype(np.float32), shape)
        return predict(graphdef, params, lookup, known, 16)

    needed = predicted(Shape(16, visits))
    assert len(np.unique(needed)) > 20
    for shape in (Shape(16, visits, is_fixed=True), Shape(64, 2 * visits, is_fixed=True)):
        np.testing.assert_allclose(predicted(shape), needed, atol=1e-6)


@pytest.mark.integration
@pytest.mark.parametrize("name", NAMES)
def test_samples_of_all_tasks_share_programs_in_a_fixed_shape(name):
    inputs, y = patients(120, signal="code")
    visits = 4 if MODELS[name].graphs else 0
    model = small(name, shape=Shape(32, visits, is_fixed=True))
    fit(model, inputs, y, single_codes())
    before = train_step._cache_size(), training._probabilities._cache_size()
    few = split_of(inputs, y, np.arange(20), np.arange(20, 23), np.arange(30, 101))
    # Fewer codes, fewer visits and other numbers of samples.
    for split in (few, split_of(inputs.masked(np.arange(CODES) < 3), y, TRAIN, TUNING, TEST)):
        model.fit_predict(split, single_codes(), seed=1, trials=1, classes=1, kind="binary")
    assert (train_step._cache_size(), training._probabilities._cache_size()) == before


def test_models_are_chosen_by_name():
    assert [model.name for model in choose(["gt_behrt", "logistic", "gt_behrt"])] == ["gt_behrt", "logistic"]
    assert list(MODELS) == ["logistic", "lightgbm", "transformer", "behrt", "gt_behrt"]
    with pytest.raises(InputError, match="no model 'berht'; did you mean 'behrt'"):
        choose(["berht"])
    smoke = choose(["behrt"], smoke=True, pretrain_steps=100)[0]
    assert smoke.options.steps(10**6) == 8
    assert smoke.pretrain_steps == 4
