"""Input that ETHOS cannot read is refused: vocabulary, timelines, static data, estimates, checkpoint."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest

from medtok_jax.convert.ethos import check, directory, paper
from medtok_jax.convert.ethos import checkpoint as ethos_checkpoint
from medtok_jax.convert.ethos import vocabulary as ethos_vocabulary
from medtok_jax.convert.ethos.checkpoint import ModelSize
from preprocessing.common.errors import InputError
from tests.helpers.small_ethos import DAY, write_tokenized

torch = pytest.importorskip("torch")

N, DIM = 20, 6
SIZE = ModelSize(n_positions=32, n_layer=2, n_head=2, n_embd=8)
PATIENTS = [
    [("HOSPITAL_ADMISSION", 0), ("MEDTOK//3", DAY), ("TIMELINE_END", DAY)],
    [("MEDTOK//4", 0), ("HOSPITAL_DISCHARGE", DAY), ("TIMELINE_END", DAY)],
]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ethos") / "train"
    write_tokenized(folder, PATIENTS, ethos_vocabulary.required(N))
    return folder


@pytest.fixture
def data(written, tmp_path):
    """A sound data set, to be damaged."""
    return shutil.copytree(written, tmp_path / "train")


def test_sound_data_pass(data):
    summary = check.check_ethos(data, N)
    assert (summary.patients, summary.tokens, summary.medtok_tokens) == (2, 6, 2)


def _vocabulary(change):
    def damage(folder):
        path = ethos_vocabulary.find(folder)
        lines = change(path.read_text().splitlines())
        path.unlink()
        (folder / f"vocab_t{len(lines)}.csv").write_text("".join(f"{line}\n" for line in lines))

    return damage


def _shard(**changes):
    def damage(folder):
        path = folder / "0.safetensors"
        shard = directory.read_shard(path)
        arrays = {name: getattr(shard, name).copy() for name in directory.ARRAYS} | dict(shard.stays)
        for name, change in changes.items():
            arrays[name] = change(arrays[name]) if change else None
        from safetensors.numpy import save_file

        save_file({name: values for name, values in arrays.items() if values is not None}, path)

    return damage


def _static(change):
    def damage(folder):
        static = directory.read_static(folder)
        static = {patient: {prefix: dict(told) for prefix, told in about.items()} for patient, about in static.items()}
        change(static)
        directory.write_static(folder, static)

    return damage


def _put(index, value):
    def change(values):
        values[index] = value
        return values

    return change


class _Hostile:
    def __reduce__(self):
        return os.system, ("true",)


DAMAGES = {
    "a number": (_vocabulary(lambda lines: [*lines, "12.5"]), "read back"),
    "twice": (_vocabulary(lambda lines: [*lines, "MEDTOK//3"]), "twice"),
    "a false quantile": (_vocabulary(lambda lines: [*lines, "Q99"]), "quantile"),
    "a missing token of MedTok": (_vocabulary(lambda lines: [t for t in lines if t != "MEDTOK//17"]), "MEDTOK//17"),
    "a missing unknown": (_vocabulary(lambda lines: [t for t in lines if t != "RACE//UNKNOWN"]), "RACE//UNKNOWN"),
    "no vocabulary": (lambda folder: ethos_vocabulary.find(folder).unlink(), "exactly one"),
    "two vocabularies": (lambda folder: (folder / "vocab_t1.csv").write_text("A\n"), "exactly one"),
    "a wrong size": (lambda folder: ethos_vocabulary.find(folder).rename(folder / "vocab_t7.csv"), "its name"),
    "no timelines": (lambda folder: (folder / "0.safetensors").unlink(), "no timelines"),
    "no safetensors": (lambda folder: (folder / "0.safetensors").write_bytes(b"no"), "cannot be read as safetensors"),
    "int32 tokens": (_shard(tokens=lambda v: v.astype(np.int32)), "one-dimensional array of int64"),
    "an unknown token": (_shard(tokens=_put(1, 10_000)), "token ids go"),
    "a negative token": (_shard(tokens=_put(1, -1)), "token ids go"),
    "no end": (_shard(tokens=_put(5, 0)), "TIMELINE_END"),
    "no times": (_shard(times=None), "times is missing"),
    "times backwards": (_shard(times=_put(1, -1)), "must not descend"),
    "offsets not from 0": (_shard(patient_offsets=_put(0, 1)), "patient_offsets"),
    "an offset too large": (_shard(patient_offsets=_put(1, 6)), "patient_offsets"),
    "a patient twice": (_shard(patient_ids=_put(1, 1)), "twice"),
    "stays without intensive care": (_shard(icustay_id=None), "both of"),
    "stays that are no floats": (_shard(hadm_id=lambda v: v.astype(np.int64)), "float64"),
    "a patient in two files": (
        lambda folder: shutil.copy(folder / "0.safetensors", folder / "1.safetensors"),
        "another file",
    ),
    "no static data": (lambda folder: (folder / directory.STATIC).unlink(), "cannot be read"),
    "hostile static data": (
        lambda folder: (folder / directory.STATIC).write_bytes(pickle.dumps({1: _Hostile()})),
        r"names .*\.system",
    ),
    "a patient without static data": (_static(lambda static: static.pop(2)), "lacks 1 of the 2 patients"),
    "no birth": (_static(lambda static: static[2].pop("MEDS_BIRTH")), "has no MEDS_BIRTH"),
    "a birth without time": (_static(lambda static: static[1]["MEDS_BIRTH"].update(time=None)), "its time"),
    "another static context": (_static(lambda static: static[2].pop("RACE")), "the same"),
    "an unknown static token": (
        _static(lambda static: static[1]["RACE"].update(code=["RACE//NO"])),
        "number 0 of the timelines: a code of RACE",
    ),
    "changing static data without times": (
        _static(lambda static: static[1]["RACE"].update(code=["RACE//WHITE"] * 2)),
        "ascending times",
    ),
    "no estimates": (lambda folder: (folder / directory.INTERVALS).unlink(), "cannot be read"),
    "estimates without a mean": (
        lambda folder: (folder / directory.INTERVALS).write_text(json.dumps({"min": {"1d-2d": 1}})),
        "lacks",
    ),
    "quantiles that fall": (
        lambda folder: (folder / directory.QUANTILES).write_text(json.dumps({"A": [2, 1]})),
        "ascending",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_refuses(data, name):
    damage, sentence = DAMAGES[name]
    damage(data)
    with pytest.raises(InputError, match=sentence):
        check.check_ethos(data, N)


def test_files_between_must_be_longer_than_a_timeline(data):
    for number in (1, 2):
        shard = directory.read_shard(data / "0.safetensors")
        static = directory.read_static(data)
        static |= {10 * number + patient: static[patient] for patient in (1, 2)}
        directory.write_static(data, static)
        moved = directory.Timelines(
            shard.tokens, shard.times, shard.patient_ids + 10 * number, shard.patient_offsets, shard.stays
        )
        directory.write_shard(data / f"{number}.safetensors", moved)
    assert check.check_ethos(data, N, n_positions=6).patients == 6
    with pytest.raises(InputError, match="fewer than a timeline of 7"):
        check.check_ethos(data, N, n_positions=7)


@pytest.fixture(scope="module")
def checkpoint(written, tmp_path_factory):
    vocabulary = ethos_vocabulary.read(written)
    codebook = np.random.default_rng(0).normal(size=(N, DIM)).astype(np.float32)
    folder = tmp_path_factory.mktemp("model")
    return ethos_checkpoint.write(folder, vocabulary, codebook, SIZE, seed=1), vocabulary, codebook


def test_checkpoint_is_what_ethos_loads(checkpoint):
    path, vocabulary, _ = checkpoint
    check.check_checkpoint(path, vocabulary, SIZE)
    # As ETHOS reads it: everything is called that the file asks for.
    loaded = torch.load(path, weights_only=False)
    config = loaded["model_config"]
    assert type(config).__name__ == "GPT2Config"
    assert (config.n_positions, config.n_embd, config.n_layer, config.n_head) == (32, 8, 2, 2)
    assert config.bias is False
    assert not config.is_encoder_decoder
    assert config.vocab_size % 64 == 0
    assert config.vocab_size >= len(vocabulary)
    assert loaded["optimizer"] is None
    model = loaded["model"]
    assert len(model) == 2 + 2 * 6 + 2
    assert model["transformer.h.1.attn.c_attn.weight"].shape == (24, 8)
    assert model["transformer.h.1.mlp.c_proj.weight"].shape == (8, 32)
    assert model["lm_head.weight"].data_ptr() == model["transformer.wte.weight"].data_ptr()


def test_rows_of_medtok_tokens_are_the_codebook(checkpoint):
    path, vocabulary, codebook = checkpoint
    embedding = torch.load(path, weights_only=False)["model"]["transformer.wte.weight"].numpy()
    rows = embedding[[vocabulary.index(f"MEDTOK//{number}") for number in range(N)]]
    assert rows.std() == pytest.approx(0.02, rel=1e-4)
    wanted = codebook @ codebook.T
    np.testing.assert_allclose((rows @ rows.T) / (rows[0] @ rows[0]) * wanted[0, 0], wanted, atol=1e-3)
    others = np.delete(embedding, [vocabulary.index(f"MEDTOK//{number}") for number in range(N)], axis=0)
    assert others.std() == pytest.approx(0.02, rel=0.1)


CHECKPOINT_DAMAGES = {
    "a key": (lambda c: c.pop("wandb_path"), "lacks wandb_path"),
    "another vocabulary": (lambda c: c["vocab"].update(NEW=len(c["vocab"])), "another vocabulary"),
    "a weight": (lambda c: c["model"].pop("transformer.ln_f.weight"), "weights are missing"),
    "a shape": (lambda c: c["model"].update({"transformer.ln_f.weight": torch.ones(7)}), "is \\(7,\\)"),
    "a loose head": (lambda c: c["model"].update({"lm_head.weight": c["model"]["lm_head.weight"] + 1}), "the same"),
    "no number": (lambda c: c["model"]["transformer.wpe.weight"].fill_(torch.nan), "holds NaN"),
    "biases": (lambda c: setattr(c["model_config"], "bias", True), "bias is True"),
    "random rows": (lambda c: c["model"]["transformer.wte.weight"].mul_(10), "standard deviation"),
}


@pytest.mark.parametrize("name", CHECKPOINT_DAMAGES)
def test_refuses_checkpoints(checkpoint, tmp_path, name):
    path, vocabulary, _ = checkpoint
    damage, sentence = CHECKPOINT_DAMAGES[name]
    content = torch.load(path, weights_only=False)
    damage(content)
    torch.save(content, tmp_path / "recent_model.pt")
    with pytest.raises(InputError, match=sentence):
        check.check_checkpoint(tmp_path / "recent_model.pt", vocabulary, SIZE)


def test_refuses_hostile_checkpoints(checkpoint, tmp_path):
    for content in ({"model": _Hostile()}, [1]):
        torch.save(content, tmp_path / "recent_model.pt")
        with pytest.raises(InputError):
            check.check_checkpoint(tmp_path / "recent_model.pt", checkpoint[1], SIZE)
    (tmp_path / "recent_model.pt").write_bytes(b"no")
    with pytest.raises(InputError):
        check.check_checkpoint(tmp_path / "recent_model.pt", checkpoint[1], SIZE)


@pytest.mark.parametrize(
    ("size", "sentence"),
    [({"n_embd": 9}, "multiple of n_head"), ({"n_layer": 0}, "positive"), ({"dropout": 1.0}, "less than 1")],
)
def test_refuses_sizes(size, sentence):
    with pytest.raises(InputError, match=sentence):
        ModelSize(**{"n_head": 2, "n_embd": 8, **size}).check()


def test_vocabulary_of_the_first_release(tmp_path):
    content = paper.vocabulary(N)
    # 13 separators, the end, death, 21 ages, 10 deciles, in the order of the first release.
    assert [content["stoi"][t] for t in ("_5m-15m", "_=6mt", "_TIMELINE_END", "_DEATH", "_<5", "_>100", "_Q1")] == [
        *(0, 12, 13, 14, 15, 35, 36)
    ]
    assert content["stoi"]["MEDTOK//0"] == 46
    assert paper.read(paper.write(tmp_path, content)) == content
    # One that it wrote itself: ids are NumPy numbers, breaks NumPy arrays.
    own = {token: number for number, token in enumerate([*paper.SPECIAL, "ICD_PCS_0"])}
    own["ICD_PCS_0"] = np.int64(own["ICD_PCS_0"])
    base = {
        "vocab_size": len(own),
        "stoi": own,
        "itos": {number: token for token, number in own.items()},
        "q_storage": {"LAB_TEST": {"LAB_X": np.array([0.0, 1.0])}, "MEDICATION": {"aspirin": None}},
        "meta": {"separator_estimates": {"mean": {"_5m-15m": np.float64(1e-5)}}},
    }
    with open(tmp_path / "own.pkl", "wb") as file:
        pickle.dump(base, file)
    grown = paper.vocabulary(N, paper.read(tmp_path / "own.pkl"))
    assert grown["itos"][46] == "ICD_PCS_0"
    assert grown["itos"][47] == "MEDTOK//0"
    assert list(grown["q_storage"]) == ["LAB_TEST", "MEDICATION"]
    with pytest.raises(InputError, match="16-bit"):
        paper.vocabulary(70_000)
    base["itos"].pop(3)
    with open(tmp_path / "own.pkl", "wb") as file:
        pickle.dump(base, file)
    with pytest.raises(InputError, match="each once"):
        paper.read(tmp_path / "own.pkl")
