"""The linear map of texts: trained on the crosswalks of the graph, and on no other pair."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from eval.baselines import text_crosswalk as baseline
from eval.baselines.pursuit import PursuitOptions
from eval.baselines.text_crosswalk import LinearMap, TextBatch, TextCrosswalkOptions, text_crosswalk, train
from tests.helpers import crosswalk_world
from tests.helpers.crosswalk_world import KEYS, PAIRS, WIDTH

OPTIONS = TextCrosswalkOptions(width=8, steps=150, batch_size=40, learning_rate=1e-2)


@pytest.fixture
def pairs_read(monkeypatch):
    """Return a function that returns every pair of partners in the batches that training takes."""
    taken = []

    class Recorder:
        def __init__(self, *_, **__):
            taken.clear()

        def run(self, batches, *_, **__):
            taken.extend(batches)

    monkeypatch.setattr(baseline, "Trainer", Recorder)

    def read(codes) -> set[tuple[str, str]]:
        baseline.train(codes, codes.text_vectors(progress=False), OPTIONS, seed=0, progress=False)
        found = set()
        for batch in taken:
            here = np.flatnonzero(batch.partner >= 0)
            # The text of a code has the number of the code.
            pairs = zip(batch.text_id[here], batch.text_id[batch.partner[here]], strict=True)
            found |= {(KEYS[a], KEYS[b]) for a, b in pairs}
        return found

    return read


def test_no_pair_that_is_held_out_is_read(pairs_read):
    kept, held = crosswalk_world.divided()
    shown = {(KEYS[a], KEYS[b]) for a, b in kept["gem_exact"].tolist()}
    found = pairs_read(crosswalk_world.make_codes(kept))
    assert len(held) > 20
    assert not found & held
    assert found == shown | {pair[::-1] for pair in shown}


def test_the_proof_above_can_fail(pairs_read):
    """With the complete crosswalk in the graph, the pairs that another data set holds out are read."""
    _, held = crosswalk_world.divided()
    assert held <= pairs_read(crosswalk_world.make_codes(crosswalk_world.facts()))


def test_losses_by_loops():
    rng = np.random.default_rng(0)
    texts, view = rng.normal(size=(2, 6, 5)).astype(np.float32)
    partner = np.array([1, 0, -1, -1, 5, 4], np.int32)
    text_id = np.array([0, 1, 2, 2, 4, 5], np.int32)
    kernel = rng.normal(size=(5, 3)).astype(np.float32)
    options = TextCrosswalkOptions(contrast_weight=0.5, distillation_weight=2.0)
    batch = TextBatch(*(jnp.asarray(array) for array in (texts, view, text_id, partner)))
    found = LinearMap(kernel).losses(batch, options)

    def unit(x):
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    logits = unit(texts @ kernel) @ unit(view @ kernel).T / 0.07
    contrast, distilled = [], []
    for i in range(6):
        right = {i} | ({partner[i]} if partner[i] >= 0 else set())
        allowed = [j for j in range(6) if j in right or text_id[j] != text_id[i]]
        total = np.log(np.exp(logits[i, allowed]).sum())
        contrast.append(-np.mean([logits[i, j] - total for j in right]))
        others = [j for j in range(6) if j != i]
        p, q = (np.exp(vectors[i] @ vectors[others].T / 0.1) for vectors in (unit(texts), unit(texts @ kernel)))
        p, q = p / p.sum(), q / q.sum()
        distilled.append((p * np.log(p / q)).sum())
    assert found["contrast"] == pytest.approx(0.5 * np.mean(contrast), rel=1e-4)
    assert found["distillation"] == pytest.approx(2.0 * np.mean(distilled), rel=1e-4)


def recall(vectors: np.ndarray) -> float:
    """Return the share of ICD-9 codes whose nearest ICD-10 code is their partner."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return float((np.argmax(unit[PAIRS:] @ unit[:PAIRS].T, axis=1) == np.arange(PAIRS)).mean())


def test_the_map_learns_what_crosswalks_show_and_transfers_it():
    """Pairs that are held out become similar too, as the map forgets the half of the text that means nothing."""
    kept, held = crosswalk_world.divided()
    codes = crosswalk_world.make_codes(kept)
    texts = codes.text_vectors(progress=False)
    options = dataclasses.replace(OPTIONS, distillation_weight=0.1)
    made = text_crosswalk(codes, options, PursuitOptions(codebook_size=40, num_tokens=4), seed=0, progress=False)
    assert made.projection.shape == (WIDTH, 8)
    rows = np.array(sorted(KEYS.index(a) for a, _ in held if a.startswith("ICD9CM")))

    def held_recall(vectors):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return float((np.argmax(unit[rows] @ unit[:PAIRS].T, axis=1) == rows - PAIRS).mean())

    assert held_recall(made.unquantized) > held_recall(texts) + 0.15
    assert recall(made.unquantized) > recall(texts) + 0.15
    assert made.about["trained_on"] == ["gem_exact", "gem_approximate"]
    assert made.about["steps"] == OPTIONS.steps


def test_training_follows_the_seed():
    codes = crosswalk_world.make_codes(crosswalk_world.divided()[0])
    texts = codes.text_vectors(progress=False)
    options = TextCrosswalkOptions(width=8, steps=3, batch_size=16)
    one, again, other = (train(codes, texts, options, seed=seed, progress=False).history for seed in (0, 0, 1))
    assert one == again
    assert one != other
