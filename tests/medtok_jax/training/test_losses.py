"""Every loss against loops in NumPy that transcribe model.md sections 3-4 and paper eq. 5-9."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict
from scipy.special import logsumexp, rel_entr, softmax

from medtok_jax.batch import CodeLinks
from medtok_jax.models.codebook import Quantizer
from medtok_jax.models.link_head import LinkHead
from medtok_jax.models.outputs import Embeddings, View
from medtok_jax.regions import Regions
from medtok_jax.training import losses
from tests.helpers.matmuls import is_exact, matmuls

BATCH, WIDTH = 6, 5
VALID = np.array([True, True, False, True, True, True])
NAMES = ("text_specific", "graph_specific", "text_cross", "graph_cross")
REGION = dict(zip(NAMES, ("text", "graph", "shared", "shared"), strict=True))
CONFIG = ConfigDict(
    {
        "alpha": 0.3,
        "commitment_weight": 0.8,
        "beta": 0.2,
        "lambda_val": 0.1,
        "infonce_temperature": 0.2,
        "kl_temperature": 0.15,
        "quantization_weight": 1.5,
        "kl_weight": 0.7,
        "packing_weight": 1.2,
        "shared_weight": 0.9,
        "specific_weight": 1.1,
        "joint_weight": 0.6,
        "distillation_weight": 0.4,
        "shared_joint_weight": 0.3,
        "shared_distillation_weight": 0.2,
        "text_joint_weight": 0.25,
        "text_distillation_weight": 0.15,
        "distillation_temperature": 0.3,
        "cross_covariance_weight": 0.5,
        "link_weight": 0.9,
        "contrasted": "quantized",
    }
)
# Weights of terms that are left out at zero.
LATER = (
    *("joint_weight", "distillation_weight", "shared_joint_weight", "shared_distillation_weight"),
    *("text_joint_weight", "text_distillation_weight"),
    *("cross_covariance_weight", "link_weight"),
)
# Of the fifth code no text is known.
TEACHER = np.random.default_rng(4).normal(size=(BATCH, 7)).astype(np.float32) * (np.arange(BATCH) != 4)[:, None]
# Of the fourth code no graph is shown.
HAS_BOTH = np.arange(BATCH) != 3
# Of the second code no text is shown.
HAS_TEXT = np.arange(BATCH) != 1
# The sixth code has no link; the third, whose node is the first's too, is invalid.
LINKS = CodeLinks(
    node=np.array([7, 8, 7, 9, 5, -1], np.int32),
    relation=np.array([0, 1, 2, 3, 1, -1], np.int32),
    known=np.eye(BATCH, dtype=bool) | (np.add.outer(np.arange(BATCH), np.arange(BATCH)) == 4),
)
NODE_NAMES = np.random.default_rng(6).normal(size=(BATCH, 7)).astype(np.float32)


@pytest.fixture(scope="module")
def quantizer():
    return Quantizer(Regions(text=8, graph=7, shared=9), WIDTH, num_tokens=2, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def link_head():
    head = LinkHead(4, 4 * WIDTH, NODE_NAMES.shape[1], rngs=nnx.Rngs(1))
    head.relations[...] = jnp.asarray(np.random.default_rng(5).normal(size=(4, 4 * WIDTH)), jnp.float32)
    return head


def random_raw(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(BATCH, WIDTH)).astype(np.float32) for name in NAMES}


def make_view(quantizer: Quantizer, raw: dict) -> View:
    prepared = {name: quantizer.prepare(jnp.asarray(raw[name])) for name in NAMES}
    quantized = tuple(quantizer(prepared[name], REGION[name]) for name in NAMES)
    return View(Embeddings(**prepared), quantized, tuple(q.distances for q in quantized[2:]), tuple(NAMES))


@pytest.fixture(scope="module", params=["quantized", "unquantized"])
def config(request):
    return ConfigDict(CONFIG.to_dict() | {"contrasted": request.param})


@pytest.fixture(scope="module")
def scored(quantizer, link_head, config):
    """`f(raw, raw_augmented, valid, excluded, partners, teacher) -> terms`, compiled, by raw embeddings."""

    shown = {"has_text": HAS_TEXT, "has_both": HAS_BOTH}

    def terms(raw, augmented, valid, excluded, partners, teacher=TEACHER, links=LINKS, names=NODE_NAMES, shown=shown):
        views = make_view(quantizer, raw), make_view(quantizer, augmented)
        given = {"excluded": excluded, "partners": partners, "teacher": teacher, **shown}
        given |= {"links": links, "link_scores": lambda codes: link_head(codes, links.relation, names)}
        return losses.loss_terms(*views, valid, **given, config=config)

    return jax.jit(terms)


def relations() -> tuple[np.ndarray, np.ndarray]:
    """Pairs that are no negatives, and partners."""
    excluded = losses.not_negatives(jnp.array([0, 1, 2, 1, 4, 5]), jnp.array([0, 1, 2, 3, 4, 4]))
    partner = np.array([1, 0, 3, 2, -1, -1])
    return np.asarray(excluded), partner[:, None] == np.arange(BATCH)


def cosine(a, b) -> float:
    return float(a @ b / np.sqrt((a @ a + 1e-12) * (b @ b + 1e-12)))


def reference_info_nce(anchors, candidates, valid, *, temperature, excluded, partners=None) -> float:
    """Mean over valid anchors i and their positives p of -log(exp(s_ip/t) / sum over allowed j of exp(s_ij/t))."""
    rows = []
    for i in np.flatnonzero(valid):
        positives = {int(i)}
        if partners is not None:
            positives |= {int(j) for j in np.flatnonzero(partners[i]) if valid[j]}
        allowed = sorted(positives | {int(j) for j in range(len(valid)) if valid[j] and not excluded[i, j]})
        score = {j: cosine(anchors[i], candidates[j]) / temperature for j in allowed}
        total = logsumexp(list(score.values()))
        rows.append(np.mean([total - score[p] for p in positives]))
    return float(np.mean(rows))


def pair(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, BATCH, WIDTH)).astype(np.float32)


def test_masked_mean():
    assert float(losses.masked_mean(jnp.array([1.0, 2.0, 9.0]), jnp.array([True, True, False]))) == 1.5
    assert float(losses.masked_mean(jnp.array([1.0, jnp.nan]), jnp.array([True, False]))) == 1.0
    assert float(losses.masked_mean(jnp.array([1.0, 2.0]), jnp.array([False, False]))) == 0.0


@pytest.mark.parametrize("valid", [np.ones(BATCH, bool), VALID])
@pytest.mark.parametrize("with_partners", [False, True])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_info_nce_by_loops(valid, with_partners, temperature):
    a, b = pair()
    excluded, partners = relations()
    arguments = {"temperature": temperature, "excluded": excluded, "partners": partners if with_partners else None}
    found = losses.info_nce(jnp.asarray(a), jnp.asarray(b), jnp.asarray(valid), **arguments)
    np.testing.assert_allclose(found, reference_info_nce(a, b, valid, **arguments), rtol=1e-5)


def test_info_nce_counts_both_directions():
    a, b = map(jnp.asarray, pair())
    none = jnp.zeros((BATCH, BATCH), bool)
    there = losses.info_nce(a, b, VALID, temperature=0.2, excluded=none)
    back = losses.info_nce(b, a, VALID, temperature=0.2, excluded=none)
    assert abs(there - back) > 1e-3
    logits = np.array([[cosine(x, y) / 0.2 for y in np.asarray(b)[VALID]] for x in np.asarray(a)[VALID]])
    np.testing.assert_allclose(there, -np.log(np.diag(softmax(logits, 1))).mean(), rtol=1e-5)
    np.testing.assert_allclose(back, -np.log(np.diag(softmax(logits, 0))).mean(), rtol=1e-5)


def test_info_nce_of_a_batch_without_negatives_is_zero():
    a, b = map(jnp.asarray, pair())
    found = losses.info_nce(a, b, VALID, temperature=0.07, excluded=jnp.ones((BATCH, BATCH), bool))
    np.testing.assert_allclose(found, 0.0, atol=1e-6)


def test_not_negatives():
    found = losses.not_negatives(jnp.array([0, 0, 1]), jnp.array([5, 6, 6]))
    np.testing.assert_array_equal(found, [[True, True, False], [True, True, True], [False, True, True]])


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_kl_against_scipy(quantizer, temperature):
    view = make_view(quantizer, random_raw(0))
    p, q = (softmax(-np.asarray(x, np.float64) / temperature, axis=1) for x in view.shared_distances)
    wanted = rel_entr(p, q).sum(1)[VALID].mean()
    found = losses.kl_loss(*view.shared_distances, VALID, temperature=temperature)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    assert abs(found - losses.kl_loss(*view.shared_distances[::-1], VALID, temperature=temperature)) > 1e-5


def test_orthogonality_by_loops():
    a, b = pair()
    matrix = np.zeros((WIDTH, WIDTH))
    for row in np.flatnonzero(VALID):
        matrix += np.outer(a[row], b[row])
    wanted = ((matrix / VALID.sum()) ** 2).sum()
    np.testing.assert_allclose(losses.orthogonality(jnp.asarray(a), jnp.asarray(b), VALID), wanted, rtol=1e-5)


def reference_cross_covariance(a, b, valid) -> float:
    """Squared correlations of all pairs of dimensions, less what independence leaves, for each dimension."""
    rows, width = int(valid.sum()), a.shape[1]
    covariance = np.cov(np.asarray(a[valid], float), np.asarray(b[valid], float), rowvar=False, ddof=0)
    variance = np.diag(covariance) + losses.LEAST_VARIANCE
    squared = (covariance**2 / np.outer(variance, variance))[:width, width:]
    return float((squared.sum() - width**2 / (rows - 1)) / width)


@pytest.mark.parametrize("valid", [np.ones(BATCH, bool), VALID])
def test_cross_covariance_by_numpy(valid):
    a, b = pair()
    found = losses.cross_covariance(jnp.asarray(a), jnp.asarray(3 * b + 2), jnp.asarray(valid))
    np.testing.assert_allclose(found, reference_cross_covariance(a, b, valid), atol=1e-4)


@pytest.mark.parametrize(("count", "width"), [(64, 4), (64, 32), (512, 32), (512, 128)])
def test_the_size_of_cross_covariance_depends_on_neither_width_nor_batch(count, width):
    rng = np.random.default_rng(count + width)
    valid = jnp.ones(count, bool)
    draws = [rng.normal(size=(2, count, width)).astype(np.float32) for _ in range(30)]
    independent = [float(losses.cross_covariance(*map(jnp.asarray, draw), valid)) for draw in draws]
    assert abs(np.mean(independent)) < 4 * np.std(independent) / np.sqrt(30)
    white = draws[0][0] - draws[0][0].mean(0)
    white = white @ np.linalg.inv(np.linalg.cholesky(white.T @ white / count)).T
    rotation = np.linalg.qr(rng.normal(size=(width, width)))[0]
    rotated = losses.cross_covariance(jnp.asarray(white), jnp.asarray(white @ rotation), valid)
    np.testing.assert_allclose(rotated, 1 - width / (count - 1), rtol=1e-3)


def test_a_descent_on_cross_covariance_makes_embeddings_uncorrelated():
    """Two linear maps of the same inputs, which start alike, come to read different dimensions."""
    rng = np.random.default_rng(0)
    inputs, valid = jnp.asarray(rng.normal(size=(256, 8)), jnp.float32), jnp.ones(256, bool)
    maps = jnp.asarray(rng.normal(size=(8, 4)), jnp.float32)
    other = maps + 0.1 * jnp.asarray(rng.normal(size=(8, 4)), jnp.float32)
    step = jax.jit(jax.value_and_grad(lambda m: losses.cross_covariance(inputs @ m[0], inputs @ m[1], valid)))
    both = jnp.stack([maps, other])
    first, _ = step(both)
    for _ in range(100):
        last, gradient = step(both)
        both = both - gradient
    assert first > 1
    assert last < 0


def test_too_few_rows_have_no_cross_covariance():
    a, b = map(jnp.asarray, pair())
    for count in (0, 1, 2):
        value, gradient = jax.value_and_grad(losses.cross_covariance)(a, b, jnp.arange(BATCH) < count)
        assert float(value) == 0.0
        assert np.isfinite(gradient).all()


def reference_link_prediction(scores, links, valid, *, temperature) -> float:
    """Mean over codes of the surprise at their node among it and the nodes of others that are not known to be true."""
    linked = np.flatnonzero(valid & (links.node >= 0))
    found = []
    for code in linked:
        logits = {other: scores[code, other] / temperature for other in linked if not links.known[code, other]}
        logits[code] = scores[code, code] / temperature
        found.append(logsumexp(list(logits.values())) - logits[code])
    return float(np.mean(found))


@pytest.mark.parametrize("valid", [np.ones(BATCH, bool), VALID])
def test_link_prediction_by_loops(valid):
    scores = np.random.default_rng(0).normal(size=(BATCH, BATCH)).astype(np.float32)
    found = losses.link_prediction(jnp.asarray(scores), LINKS, jnp.asarray(valid), temperature=0.3)
    np.testing.assert_allclose(found, reference_link_prediction(scores, LINKS, valid, temperature=0.3), rtol=1e-5)


def test_a_batch_without_links_has_no_link_prediction():
    none = LINKS.replace(node=np.full(BATCH, -1, np.int32))

    def loss(scores):
        return losses.link_prediction(scores, none, VALID, temperature=0.1)

    value, gradient = jax.value_and_grad(loss)(jnp.ones((BATCH, BATCH)))
    assert float(value) == 0.0
    assert not np.any(gradient)


def test_quantization_loss_value_and_gradients(quantizer):
    graphdef, params, rest = nnx.split(quantizer, nnx.Param, ...)
    e = np.asarray(quantizer.prepare(jnp.asarray(pair()[0])))
    weights = {"commitment_weight": 0.8, "alpha": 0.3}

    def loss(params, e, commitment_weight, alpha):
        quantized = nnx.merge(graphdef, params, rest)(e, "graph")
        return losses.quantization_loss(e, quantized, VALID, commitment_weight=commitment_weight, alpha=alpha)

    vector = np.asarray(quantizer(jnp.asarray(e), "graph").vector)
    wanted = (0.8 + 0.3) * ((e - vector) ** 2).sum(1)[VALID].mean()
    np.testing.assert_allclose(loss(params, e, **weights), wanted, rtol=1e-5)
    to_params, to_e = jax.grad(loss, argnums=(0, 1))(params, e, **weights)
    by_hand = np.where(VALID[:, None], 2 * 0.8 * (e - vector) / VALID.sum(), 0)
    np.testing.assert_allclose(to_e, by_hand, atol=1e-6)
    rows = to_params["rows"][...]
    assert np.abs(rows).max() > 1e-4
    _, commitment_to_e = jax.grad(loss, argnums=(0, 1))(params, e, 0.8, 0.0)
    np.testing.assert_array_equal(commitment_to_e, to_e)
    codebook_to_params, codebook_to_e = jax.grad(loss, argnums=(0, 1))(params, e, 0.0, 0.3)
    assert not np.any(codebook_to_e)
    np.testing.assert_allclose(codebook_to_params["rows"][...], rows, atol=1e-7)
    double = jax.grad(loss)(params, e, 0.8, 0.6)["rows"][...]
    np.testing.assert_allclose(double, 2 * rows, rtol=1e-5, atol=1e-7)


def test_the_specific_contrast_trains_the_specific_tokens_alone(quantizer):
    excluded, _ = relations()

    def prepare(x):
        return quantizer.prepare(jnp.asarray(x))

    def contrast(specific, shared, specific_augmented, shared_augmented):
        return losses.specific_contrast(
            quantizer(specific, "text").output,
            quantizer(specific_augmented, "text").output,
            quantizer(shared, "shared").output,
            quantizer(shared_augmented, "shared").output,
            VALID,
            temperature=0.2,
            excluded=excluded,
        )

    inputs = [prepare(x) for x in (*pair(0), *pair(1))]
    outputs = [np.asarray(quantizer(x, r).output) for x, r in zip(inputs, ["text", "shared"] * 2, strict=True)]
    wanted = reference_info_nce(
        np.concatenate(outputs[:2], 1), np.concatenate(outputs[2:], 1), VALID, temperature=0.2, excluded=excluded
    )
    np.testing.assert_allclose(contrast(*inputs), wanted, rtol=1e-5)
    gradients = jax.grad(contrast, argnums=(0, 1, 2, 3))(*inputs)
    assert [bool(np.any(g)) for g in gradients] == [True, False, True, False]


def reference_distillation(student, teacher, valid, *, temperature) -> float:
    """Mean over codes of the relative entropy of their likeness to the others."""
    known = [i for i in np.flatnonzero(valid) if np.any(teacher[i])]
    found = []
    for i in known:
        others = [j for j in known if j != i]
        p, q = (softmax([cosine(x[i], x[j]) / temperature for j in others]) for x in (teacher, student))
        found.append(rel_entr(p, q).sum())
    return float(np.mean(found))


def reference_terms(quantizer, link_head, config, raw, augmented, valid, excluded, partners) -> dict[str, float]:
    """All of sections 3-4, each written down once more."""
    view, second = make_view(quantizer, raw), make_view(quantizer, augmented)
    e, e_2 = ({name: np.asarray(getattr(v.embeddings, name), np.float64) for name in NAMES} for v in (view, second))
    vector = {name: np.asarray(view.of(name).vector, np.float64) for name in NAMES}
    vector_2 = {name: np.asarray(second.of(name).vector, np.float64) for name in NAMES}
    out, out_2 = (vector, vector_2) if config.contrasted == "quantized" else (e, e_2)
    whole, whole_2 = (np.concatenate([x[name] for name in NAMES], axis=1) for x in (out, out_2))
    # The last that is quantized is taken by itself too; where there is one shared embedding, that is it.
    last, last_2 = (x["graph_cross"] for x in (out, out_2))
    first, first_2 = (x["text_specific"] for x in (out, out_2))
    contrast = {"temperature": CONFIG.infonce_temperature, "excluded": excluded, "partners": partners}

    def mean(x):
        return x[valid].mean()

    def join(a, b):
        return np.concatenate([a, b], axis=1)

    p, q = (
        softmax(-np.asarray(view.of(name).distances, np.float64) / CONFIG.kl_temperature, axis=1)
        for name in ("text_cross", "graph_cross")
    )

    def overlap(specific, shared) -> float:
        matrix = sum(np.outer(a, b) for a, b in zip(specific[valid], shared[valid], strict=True)) / valid.sum()
        return (matrix**2).sum()

    quantized = np.concatenate([vector[name] for name in NAMES], axis=1)
    link_scores = np.asarray(link_head(jnp.asarray(quantized, jnp.float32), LINKS.relation, NODE_NAMES))
    packing = {
        "shared_contrast": CONFIG.shared_weight
        * (
            reference_info_nce(out["text_cross"], out["graph_cross"], valid, **contrast)
            + reference_info_nce(out["graph_cross"], out["text_cross"], valid, **contrast)
        ),
        "alignment": -2 * CONFIG.beta * mean((e["text_cross"] * e["graph_cross"]).sum(1)),
        "text_contrast": CONFIG.specific_weight
        * reference_info_nce(
            join(out["text_specific"], out["graph_cross"]),
            join(out_2["text_specific"], out_2["graph_cross"]),
            valid,
            **contrast,
        ),
        "graph_contrast": CONFIG.specific_weight
        * reference_info_nce(
            join(out["graph_specific"], out["text_cross"]),
            join(out_2["graph_specific"], out_2["text_cross"]),
            valid,
            **contrast,
        ),
        "text_orthogonality": CONFIG.lambda_val * overlap(out["text_specific"], e["text_cross"]),
        "graph_orthogonality": CONFIG.lambda_val * overlap(out["graph_specific"], e["graph_cross"]),
    }
    distance = sum(mean(((vector[name] - e[name]) ** 2).sum(1)) for name in NAMES)
    return {name: CONFIG.packing_weight * value for name, value in packing.items()} | {
        "quantization": CONFIG.quantization_weight * (CONFIG.commitment_weight + CONFIG.alpha) * distance,
        "kl": CONFIG.kl_weight * mean(rel_entr(p, q).sum(1)),
        "joint_contrast": CONFIG.joint_weight * reference_info_nce(whole, whole_2, valid, **contrast)
        + CONFIG.shared_joint_weight * reference_info_nce(last, last_2, valid, **contrast)
        + CONFIG.text_joint_weight * reference_info_nce(first, first_2, valid & HAS_TEXT, **contrast),
        "distillation": CONFIG.distillation_weight
        * reference_distillation(whole, TEACHER, valid, temperature=CONFIG.distillation_temperature)
        + CONFIG.shared_distillation_weight
        * reference_distillation(last, TEACHER, valid, temperature=CONFIG.distillation_temperature)
        + CONFIG.text_distillation_weight
        * reference_distillation(first, TEACHER, valid & HAS_TEXT, temperature=CONFIG.distillation_temperature),
        "cross_covariance": CONFIG.cross_covariance_weight
        * reference_cross_covariance(out["text_specific"], out["graph_specific"], valid & HAS_BOTH),
        "link_prediction": CONFIG.link_weight
        * reference_link_prediction(link_scores, LINKS, valid, temperature=CONFIG.infonce_temperature),
    }


@pytest.mark.parametrize("with_partners", [False, True])
def test_all_terms_by_loops(quantizer, link_head, config, scored, with_partners):
    raw, augmented = random_raw(0), random_raw(1)
    excluded, partners = relations()
    arguments = (raw, augmented, VALID, excluded, partners if with_partners else None)
    found, wanted = scored(*arguments), reference_terms(quantizer, link_head, config, *arguments)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-4, atol=1e-6, err_msg=name)


def test_the_total_is_the_sum_of_its_terms(scored):
    excluded, partners = relations()
    terms = scored(random_raw(0), random_raw(1), VALID, excluded, partners)
    totals = losses.totals(terms)
    np.testing.assert_allclose(totals["total_loss"], sum(terms.values()), rtol=1e-6)
    np.testing.assert_allclose(totals["packing_loss"], sum(terms[name] for name in losses.PACKING_TERMS), rtol=1e-5)
    others = {"quantization", "kl", *losses.PACKING_TERMS, *losses.BEYOND_THE_PAPER}
    assert terms.keys() == others
    assert totals["quantization_loss"] == terms["quantization"]
    assert totals["kl_loss"] == terms["kl"]


def test_all_terms_and_their_gradients_are_exact(scored):
    excluded, partners = relations()

    def total(raw):
        return sum(scored(raw, random_raw(1), VALID, excluded, partners).values())

    found = matmuls(jax.value_and_grad(total), random_raw(0))
    assert len(found) > 40
    assert all(map(is_exact, found))


def test_terms_beyond_the_paper_are_left_out_at_weight_zero(quantizer):
    weights = dict.fromkeys(LATER, 0.0)
    config = ConfigDict(CONFIG.to_dict() | weights)
    views = make_view(quantizer, random_raw(0)), make_view(quantizer, random_raw(1))
    given = {"excluded": relations()[0], "partners": None, "teacher": None, "has_text": HAS_TEXT, "has_both": HAS_BOTH}
    terms = losses.loss_terms(*views, jnp.asarray(VALID), **given, config=config)
    assert [float(terms[name]) for name in losses.BEYOND_THE_PAPER] == [0.0] * len(losses.BEYOND_THE_PAPER)


def test_invalid_rows_change_nothing(scored):
    excluded, partners = relations()
    raw, augmented = random_raw(0), random_raw(1)
    other, other_augmented = random_raw(7), random_raw(8)
    garbage, garbage_augmented = (
        {name: np.where(VALID[:, None], a[name], 100 * b[name]) for name in NAMES}
        for a, b in ((raw, other), (augmented, other_augmented))
    )

    def total(raw, augmented):
        return sum(scored(raw, augmented, VALID, excluded, partners).values())

    gradients = jax.value_and_grad(total, argnums=(0, 1))
    value, found = gradients(raw, augmented)
    other_value, other_found = gradients(garbage, garbage_augmented)
    np.testing.assert_allclose(value, other_value, rtol=1e-6)
    for leaf, other_leaf in zip(jax.tree.leaves(found), jax.tree.leaves(other_found), strict=True):
        np.testing.assert_allclose(leaf[VALID], other_leaf[VALID], atol=1e-6)
        assert not np.any(leaf[~VALID])
        assert not np.any(other_leaf[~VALID])


def test_the_order_of_a_batch_does_not_matter(scored):
    raw, augmented = random_raw(0), random_raw(1)
    excluded, partners = relations()
    order = np.random.default_rng(0).permutation(BATCH)

    def shuffle(tree):
        return {name: value[order] for name, value in tree.items()}

    square = np.ix_(order, order)
    there = scored(raw, augmented, VALID, excluded, partners)
    shown = {"has_text": HAS_TEXT[order], "has_both": HAS_BOTH[order]}
    given = {"teacher": TEACHER[order], "shown": shown, "links": LINKS.take(order), "names": NODE_NAMES[order]}
    back = scored(shuffle(raw), shuffle(augmented), VALID[order], excluded[square], partners[square], **given)
    for name in there:
        np.testing.assert_allclose(there[name], back[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("case", ["random", "collapsed", "on a row", "zero", "all invalid"])
def test_every_gradient_is_finite(quantizer, scored, case):
    raw, augmented = random_raw(0), random_raw(1)
    valid = np.zeros(BATCH, bool) if case == "all invalid" else VALID
    if case == "collapsed":
        raw = augmented = {name: np.ones((BATCH, WIDTH), np.float32) for name in NAMES}
    if case == "zero":
        raw = augmented = {name: np.zeros((BATCH, WIDTH), np.float32) for name in NAMES}
    if case == "on a row":
        start = {name: quantizer.regions.bounds(REGION[name])[0] for name in NAMES}
        raw = augmented = {name: np.asarray(quantizer.codebook()[start[name] : start[name] + BATCH]) for name in NAMES}
    excluded, partners = relations()
    jacobian = jax.jacrev(scored, argnums=(0, 1))(raw, augmented, valid, excluded, partners)
    terms = scored(raw, augmented, valid, excluded, partners)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((terms, jacobian)))
    if case == "all invalid":
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(terms))
