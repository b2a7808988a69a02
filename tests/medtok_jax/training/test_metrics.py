"""Metrics of section 6 by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from medtok_jax.models.codebook import Quantizer
from medtok_jax.models.outputs import Embeddings, View
from medtok_jax.regions import EMBEDDINGS, Regions
from medtok_jax.training.metrics import CodebookUsage, WeightedSums, Window, describe_usage, quantization_metrics

REGIONS = Regions(text=4, graph=3, shared=5)
SEARCHED = dict(zip(EMBEDDINGS, ("text", "graph", "shared", "shared"), strict=True))
VALID = np.array([True, True, False, True])


def make_view(seed: int = 0, collapsed: bool = False) -> View:
    quantizer = Quantizer(REGIONS, 3, num_tokens=2, normalize=False, rngs=nnx.Rngs(0))
    raw = np.random.default_rng(seed).normal(size=(4, 4, 3))
    raw = np.repeat(raw[:, :1], 4, axis=1) if collapsed else raw
    e = {name: quantizer.prepare(jnp.asarray(x)) for name, x in zip(EMBEDDINGS, raw, strict=True)}
    quantized = tuple(quantizer(e[name], SEARCHED[name]) for name in EMBEDDINGS)
    return View(Embeddings(**e), quantized, tuple(q.distances for q in quantized[2:]), EMBEDDINGS)


def test_usage_counts_every_token_of_valid_codes():
    view = make_view()
    wanted = np.zeros(12)
    for name in EMBEDDINGS:
        for row in np.flatnonzero(VALID):
            for token in np.asarray(view.of(name).ids[row]):
                wanted[token] += 1
    usage = CodebookUsage.of(view, jnp.asarray(VALID), 12)
    np.testing.assert_array_equal(usage.compute(), wanted)
    assert wanted.sum() == 3 * 4 * 2
    np.testing.assert_array_equal(usage.merge(usage).compute(), 2 * wanted)


def test_utilization_and_perplexity_by_hand():
    counts = np.array([2.0, 2, 2, 2, 0, 0, 8, 1, 3, 0, 0, 0])
    found = describe_usage(counts, REGIONS)
    assert found["codebook_utilization"] == pytest.approx(7 / 12)
    assert found["codebook_utilization_text"] == 1
    assert found["codebook_utilization_graph"] == pytest.approx(1 / 3)
    assert found["codebook_utilization_shared"] == pytest.approx(2 / 5)
    assert found["codebook_perplexity_text"] == pytest.approx(4)
    assert found["codebook_perplexity_graph"] == pytest.approx(1)
    assert found["codebook_perplexity_shared"] == pytest.approx(1 / (0.25**0.25 * 0.75**0.75))
    whole = [2 / 20] * 4 + [8 / 20, 1 / 20, 3 / 20]
    assert found["codebook_perplexity"] == pytest.approx(np.prod([p**-p for p in whole]))


def test_nothing_used_is_no_division_by_zero():
    found = describe_usage(np.zeros(12), REGIONS)
    assert found["codebook_utilization"] == 0
    assert all(np.isfinite(value) for value in found.values())


def test_quantization_metrics_by_hand():
    view = make_view()
    found = quantization_metrics(view, jnp.asarray(VALID))
    for name in EMBEDDINGS:
        e, v = np.asarray(view.of(name).embedding)[VALID], np.asarray(view.of(name).vector)[VALID]
        power = np.mean([x @ x for x in e])
        cosines = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in zip(e, v, strict=True)]
        spread = np.sqrt(np.mean([np.sum((x - e.mean(0)) ** 2) for x in e]) / power)
        errors = [np.sum((x - y) ** 2) for x, y in zip(e, v, strict=True)]
        np.testing.assert_allclose(found[f"reconstruction_error_{name}"], np.mean(errors) / power, rtol=1e-5)
        np.testing.assert_allclose(found[f"cosine_{name}"], np.mean(cosines), rtol=1e-5)
        np.testing.assert_allclose(found[f"spread_{name}"], spread, rtol=1e-5)
    for metric in ("reconstruction_error", "cosine", "spread"):
        np.testing.assert_allclose(found[metric], np.mean([found[f"{metric}_{n}"] for n in EMBEDDINGS]), rtol=1e-6)


def test_collapsed_embeddings_have_no_spread():
    assert float(quantization_metrics(make_view(collapsed=True), jnp.asarray(VALID))["spread"]) < 1e-3


def test_means_are_weighted_by_valid_codes():
    first = WeightedSums.of({"loss": jnp.array(1.0)}, jnp.array([True, True, True]))
    second = WeightedSums.of({"loss": jnp.array(5.0)}, jnp.array([True, False, False]))
    empty = WeightedSums.of({"loss": jnp.array(0.0)}, jnp.zeros(3, bool))
    assert first.merge(second).merge(empty).compute() == {"loss": pytest.approx(2.0)}
    assert empty.compute() == {"loss": 0.0}


def test_sums_keep_their_names_in_any_order():
    valid = jnp.array([True, True])
    sums = WeightedSums.of({"b": jnp.array(1.0), "a": jnp.array(2.0)}, valid)
    both = sums.merge(WeightedSums.of({"a": jnp.array(4.0), "b": jnp.array(3.0)}, valid))
    assert both.sums() == {"a": 12.0, "b": 8.0}
    assert both.compute() == {"a": 3.0, "b": 2.0}
    with pytest.raises(ValueError, match="'c'"):
        sums.merge(WeightedSums.of({"a": jnp.array(4.0), "c": jnp.array(3.0)}, valid))


def test_windows_merge_both_parts():
    view = make_view()
    scalars = WeightedSums.of({"loss": jnp.array(1.0)}, jnp.asarray(VALID))
    window = Window(scalars, CodebookUsage.of(view, jnp.asarray(VALID), 12))
    merged = window.merge(window)
    assert float(merged.scalars.weight) == 6
    assert merged.usage.compute().sum() == 48
