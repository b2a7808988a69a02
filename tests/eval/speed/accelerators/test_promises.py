"""Each promise that a program breaks is told, and none that it keeps."""

import dataclasses

import pytest

from eval.speed.accelerators import promises
from eval.speed.accelerators.counting import Collective, Counts, Matmul, Sort
from eval.speed.accelerators.hlo import Array, Frame
from eval.speed.accelerators.targets import TARGETS

V5E, H200 = TARGETS["v5e:2x4"], TARGETS["h200"]
SEARCH = Frame("/x/medtok_jax/models/search.py", "search_pursuit", 213)
ENCODER = Frame("/x/medtok_jax/models/bert.py", "attend", 9)
EMBEDDINGS, ROWS = Array("f32", (512, 128)), Array("f32", (128, 6000))
MATMUL = Matmul((EMBEDDINGS, ROWS), Array("f32", (512, 6000)), "float32", 1, 1, (SEARCH, ENCODER))
SIZES = {"graph_sizes": frozenset({1100, 2200, 8800}), "text_sizes": frozenset({64, 24}), "codes": 512}


def broken(*, matmuls=(), collectives=(), sorts=(), memory=0, target=V5E) -> list[str]:
    counts = Counts({}, 0, list(matmuls), list(collectives), list(sorts))
    return promises.broken("train", counts, target, memory=memory, **SIZES)


def test_a_program_that_keeps_them():
    others = dataclasses.replace(MATMUL, precision="bfloat16", frames=(ENCODER,))
    gradients = Collective("all-reduce", (Array("f32", (8, 1100)),), 1)
    embeddings = Collective("all-gather", (Array("f32", (512, 128)), Array("f32", (512, 4, 128))), 1)
    short = Sort(300, "jit(f)/top_k")
    assert broken(matmuls=[MATMUL, others], collectives=[gradients, embeddings], sorts=[short], memory=16 * 10**9) == []


@pytest.mark.parametrize(
    ("precision", "target", "told"),
    [
        ("default", V5E, "bfloat16"),
        ("default", H200, "TF32"),
        ("bfloat16", H200, "bfloat16"),
        ("three passes", V5E, "three passes"),
    ],
)
def test_a_matmul_in_less_than_float32(precision, target, told):
    wrong = dataclasses.replace(MATMUL, precision=precision)
    (sentence,) = broken(matmuls=[MATMUL, wrong], target=target)
    assert (
        f"1 of 2 matmuls of the search are in {told}, first f32[512,128] x f32[128,6000] at search.py:213." in sentence
    )


@pytest.mark.parametrize(
    ("file", "function", "part"),
    [
        ("models/search.py", "mixing_weights", "least squares"),
        ("models/dictionary.py", "optimal_directions.<locals>.one_round", "least squares"),
        ("models/kmeans.py", "_assign.<locals>.one", "k-means"),
        ("models/search.py", "pairwise_distance", "search"),
        ("training/losses.py", "info_nce", "logits"),
        ("training/losses.py", "similarity_distillation.<locals>.log_share", "logits"),
        ("training/losses.py", "orthogonality", "losses"),
        ("models/bert.py", "attend", ""),
    ],
)
def test_parts_that_are_promised(file, function, part):
    innermost = Frame("/x/medtok_jax/models/exact.py", "exact.<locals>.in_float32", 22)
    assert promises.part_of([innermost, Frame(f"/x/medtok_jax/{file}", function, 1)]) == part


@pytest.mark.parametrize(
    ("kind", "shape", "what"),
    [
        ("all-gather", (8, 1100, 128), "graphs"),
        ("all-gather", (8800, 128), "graphs"),
        ("all-to-all", (8, 2200), "graphs"),
        ("all-gather", (512, 64, 384), "token states"),
        ("collective-permute", (2, 448, 24, 384), "token states"),
        ("all-gather", (8, 64, 64, 384), "token states"),
        ("all-gather", (512, 64), ""),
        ("all-gather", (8, 64, 8), ""),
        ("all-gather", (1, 64, 384), ""),
        ("all-reduce", (512, 64, 384), ""),
    ],
)
def test_what_may_not_cross_devices(kind, shape, what):
    found = broken(collectives=[Collective(kind, (Array("bf16", shape),), 1)])
    assert found == ([] if not what else [f"train: {what} cross devices, in an {kind} of {Array('bf16', shape)}."])


def test_what_is_not_found_is_not_promised():
    counts = Counts({}, 0, [MATMUL], [], [])
    (sentence,) = promises.broken("train", counts, V5E, memory=0, parts=frozenset(("search", "logits")))
    assert sentence == "train: no matmul of the logits was found, so that nothing is known of its precision."


def test_a_program_that_does_not_fit():
    (sentence,) = broken(memory=17 * 10**9)
    assert sentence == "train: does not fit the 16 GB of a device of v5e:2x4: it needs 17.0 GB."


def test_a_full_sort_for_top_k():
    (sentence,) = broken(sorts=[Sort(6000, "jit(f)/jvp()/top_k"), Sort(6000, "jit(f)/sort")])
    assert sentence == "train: a top-k is a full sort of 6,000 values (jit(f)/jvp()/top_k)."
