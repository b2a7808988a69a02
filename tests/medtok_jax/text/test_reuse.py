"""One text cache takes over states of another, as marks left in the other show."""

import numpy as np
import pytest

from medtok_jax.text import cache as text_cache
from medtok_jax.text.cache import open_or_encode
from preprocessing.common.listing import write_listing
from tests.helpers.damages import DAMAGES

TEXTS = ["Fever", "Cholera", "Asthma", "Essential (primary) hypertension", *(f"Finger {n} broken" for n in range(9))]
NAMES = ["Seizure", "Asthma", *(f"finger {n}" for n in range(5))]
MORE_TEXTS = ["Gout", "Cholera", "Asthma", "Seizure", "Ménière's disease"]
MORE_NAMES = ["Asthma", "Fever", "finger 3", "Hearing loss"]
MARK = 7.0


@pytest.fixture
def encode(tiny_encoder):
    """Return a function that opens a cache: `encode(folder, texts, names, **options)`."""

    def encoded(folder, texts, names, **options) -> text_cache.TextCache:
        options = {"max_length": 16, "dtype": "float32", "progress": False} | options
        return open_or_encode(tiny_encoder, folder, texts, names, **options)

    return encoded


def states(cache, row: int) -> np.ndarray:
    return np.asarray(cache.states[cache.offsets[row] : cache.offsets[row + 1]])


@pytest.fixture
def marked(tmp_path, encode):
    """A folder with a cache of TEXTS and NAMES, whose every value is `MARK`."""
    encode(tmp_path, TEXTS, NAMES)
    (folder,) = tmp_path.iterdir()
    for name in ("states.bin", "names.bin"):
        values = np.fromfile(folder / name, np.float32)
        np.full_like(values, MARK).tofile(folder / name)
    write_listing(folder)
    return tmp_path


def test_what_is_there_is_copied_and_the_rest_encoded(marked, encode, tmp_path_factory):
    found = encode(marked, MORE_TEXTS, MORE_NAMES)
    fresh = encode(tmp_path_factory.mktemp("fresh"), MORE_TEXTS, MORE_NAMES)
    np.testing.assert_array_equal(found.offsets, fresh.offsets)
    np.testing.assert_array_equal(found.token_ids, fresh.token_ids)
    for row, text in enumerate(MORE_TEXTS):
        if text in TEXTS:
            assert (states(found, row) == MARK).all(), text
        else:
            np.testing.assert_allclose(states(found, row), states(fresh, row), atol=1e-5, err_msg=text)
    for row, name in enumerate(MORE_NAMES, start=1):
        if name in NAMES:
            assert (found.name_embedding[row] == MARK).all(), name
        else:
            # "Fever" too: its states are there, but not its mean.
            expected = fresh.name_embedding[row]
            np.testing.assert_allclose(found.name_embedding[row], expected, atol=1e-5, err_msg=name)
    assert not found.name_embedding[0].any()


def test_the_same_strings_in_another_order_need_no_encoder(marked, encode, monkeypatch):
    monkeypatch.setattr(text_cache._Store, "put", lambda *_: pytest.fail("something was encoded"))
    assert (encode(marked, TEXTS[::-1], NAMES[2:]).states == MARK).all()


@pytest.mark.parametrize("options", [{"max_length": 12}, {"dtype": "bfloat16"}])
def test_other_settings_share_nothing(marked, encode, options):
    found = encode(marked, MORE_TEXTS, MORE_NAMES, **options)
    assert not (np.asarray(found.states, np.float32) == MARK).any()
    assert not (np.asarray(found.name_embedding, np.float32) == MARK).any()


def test_an_interrupted_encoding_does_not_take_over_later_ones(encode, tmp_path, monkeypatch, tmp_path_factory):
    """Its count of batches is of what was missing when it began."""
    monkeypatch.setattr(text_cache, "FLUSH_EVERY", 1)
    monkeypatch.setattr(text_cache, "tokens_a_batch", lambda: 48)
    put, calls = text_cache._Store.put, []

    def stop_at_the_third(store, members, outputs):
        calls.append(members)
        if len(calls) == 3:
            raise KeyboardInterrupt
        put(store, members, outputs)

    with monkeypatch.context() as patch:
        patch.setattr(text_cache._Store, "put", stop_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            encode(tmp_path, TEXTS, NAMES)
    encode(tmp_path, MORE_TEXTS, MORE_NAMES)
    found = encode(tmp_path, TEXTS, NAMES)
    fresh = encode(tmp_path_factory.mktemp("fresh"), TEXTS, NAMES)
    np.testing.assert_allclose(found.states, fresh.states, atol=1e-5)
    np.testing.assert_allclose(found.name_embedding, fresh.name_embedding, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "damage"), [("about.json", "half"), ("states.bin", "one bit"), ("text_digests.npy", "missing")]
)
def test_nothing_is_copied_from_a_damaged_cache(marked, encode, name, damage):
    (other,) = marked.iterdir()
    DAMAGES[damage](other / name)
    found = encode(marked, MORE_TEXTS, MORE_NAMES)
    assert not (found.states == MARK).any()
    assert not (found.name_embedding == MARK).any()


def test_find():
    wanted, held = text_cache.digests(["b", "x", "a", "b"]), text_cache.digests(["a", "b", "c"])
    assert text_cache.find(wanted, held).tolist() == [1, -1, 0, 1]
    assert text_cache.find(wanted, held[:0]).tolist() == [-1] * 4
    # Half of the bits alike is not the same string.
    assert text_cache.find(held ^ np.array([0, 1], np.uint64), held).tolist() == [-1] * 3
