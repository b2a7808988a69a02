"""Visits for TransformEHR, read back as its sample_load.py does; every rule of the reader broken once."""

import json
import pickle
import shutil

import numpy as np
import pytest

from medtok_jax.convert.ehr_models import transformehr
from medtok_jax.convert.ehr_models.transformehr_check import check_transformehr
from medtok_jax.convert.request import make_request
from medtok_jax.tokenizer import MedTokTokenizer
from preprocessing.common.errors import InputError
from tests.helpers import small_visits


def convert(request):
    transformehr.convert(request)
    return request.output


def read(folder):
    """Patient -> list of (tokens, date)."""
    keys = (folder / "key.txt").read_text().splitlines()
    with open(folder / "value.pickle", "rb") as values, open(folder / "dates.pickle", "rb") as dates:
        found = {key: list(zip(pickle.load(values), pickle.load(dates), strict=True)) for key in keys}
        assert not values.read()
        assert not dates.read()
    return {key: [(visit[0], day) for visit, day in visits] for key, visits in found.items()}


@pytest.fixture(scope="module")
def tokenizer(small_tokenizer_dir):
    return MedTokTokenizer.from_pretrained(small_tokenizer_dir)


@pytest.fixture(scope="module")
def whole(small_tokenizer_dir, small_meds, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "out"
    return convert(make_request(output=output, tokenizer=small_tokenizer_dir, events=small_meds))


def tokens_of(tokenizer, *codes):
    found = []
    for code in codes:
        ids = tokenizer.look_up(code).ids[[0, 2, 4, 6, 1, 3, 5, 7]].tolist() if code in tokenizer else [code]
        found += [f"MEDTOK//{i}" if isinstance(i, int) else i for i in dict.fromkeys(ids)]
    return found


def test_visits_are_dated_by_their_end(whole, tokenizer):
    train, kinds = read(whole / "train"), small_visits.ALL_KINDS
    assert list(train) == ["1", "3"]
    assert train["1"] == [
        (tokens_of(tokenizer, *kinds, "ICD9CM/250.00"), "2020-01-05"),
        (tokens_of(tokenizer, *kinds, "ICD10CM/E10.9"), "2020-03-21"),
        (tokens_of(tokenizer, *kinds, "SNOMED/44054006"), "2020-04-02"),
    ]
    assert [day for _, day in train["3"]] == ["2022-02-02", "2022-02-05"]
    (unmapped, _), _ = read(whole / "dev")["2"]
    assert unmapped == tokens_of(tokenizer, "ICD10CM/E11.9", "ICD9CM/999.99")


def test_visits_that_end_on_one_day_are_one(whole, tokenizer):
    wanted = tokens_of(tokenizer, *small_visits.ALL_KINDS, "ICD10CM/E11")
    assert read(whole / "test") == {"4": [(wanted, "2100-01-03")]}


def test_the_vocabulary_is_bert_s_then_ours(whole, tokenizer):
    tokens = (whole / "dict.txt").read_text().splitlines()
    assert len(tokens) == 1 + 99 + 4 + 95 + 36 + 2
    assert (tokens[0], *tokens[100:104]) == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    assert tokens[199:] == [*(f"MEDTOK//{i}" for i in range(36)), "ICD9CM/999.99", "NDC/99999999999"]
    matrix = np.load(whole / "embed_tokens.npy")
    ours, book = matrix[199:235], tokenizer.directory.codebook
    scale = np.linalg.norm(ours) / np.linalg.norm(book)
    np.testing.assert_allclose(ours @ ours.T, book @ book.T * scale**2, atol=1e-5)
    assert not matrix[0].any()


def test_transformers_reads_vocabulary_and_configuration(whole):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.BertTokenizer.from_pretrained(whole / "tokenizer")
    tokens = (whole / "dict.txt").read_text().splitlines()
    assert tokenizer.convert_tokens_to_ids(tokens) == list(range(len(tokens))) == list(range(len(tokenizer)))
    assert (tokenizer.pad_token_id, tokenizer.mask_token_id) == (0, 103)
    config = transformers.AutoConfig.from_pretrained(whole / "model")
    assert (config.model_type, config.vocab_size, config.d_model) == ("bart", len(tokens), 768)
    assert (config.pad_token_id, config.eos_token_id, config.decoder_start_token_id) == (0, 102, 101)


def test_unknown_codes_are_one_token(ask, tokenizer):
    folder = convert(ask("unk", tokens_per_code=1))
    (visit, _), _ = read(folder / "dev")["2"]
    assert visit == [f"MEDTOK//{tokenizer.encode('ICD10CM/E11.9')[0]}", "[UNK]"]


def change_patient(change):
    def damage(folder):
        path = folder / "test" / "value.pickle"
        visits = pickle.loads(path.read_bytes())
        path.write_bytes(pickle.dumps(change(visits)))

    return damage


def rewrite(path, change):
    def damage(folder):
        (folder / path).write_bytes(change((folder / path).read_bytes()))

    return damage


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (change_patient(lambda visits: [(visits[0][0], [])]), "tuple of tokens and two empty lists"),
        (change_patient(lambda visits: [([], [], [])]), "tuple of tokens and two empty lists"),
        (
            change_patient(lambda visits: [(["E11.9"], [], [])]),
            "patient number 0: visit 0 has a token that is not in dict.txt",
        ),
        (change_patient(lambda visits: [(["[MASK]"], [], [])]), "visit 0 has a token that is not in dict.txt"),
        (change_patient(lambda visits: visits * 2), "as many visits as dates"),
        (rewrite("test/dates.pickle", lambda old: pickle.dumps(["2100-1-x"])), "not written as YYYY-MM-DD"),
        (rewrite("train/dates.pickle", lambda old: pickle.dumps(["2020-03-01"] * 3) + old), "must be ascending"),
        (rewrite("train/key.txt", lambda old: b"1\n1\n"), "is empty, repeated"),
        (rewrite("train/key.txt", lambda old: b"1\n"), "must hold equally many patients"),
        (rewrite("dict.txt", lambda old: old + b"[PAD]\n"), "hold no token twice"),
        (rewrite("dict.txt", lambda old: old + b"more\n"), "differs from dict.txt"),
        (rewrite("model/config.json", lambda old: old.replace(b"normalize_before", b"x")), "lacks normalize_before"),
        (rewrite("model/config.json", lambda old: old.replace(b"768", b"780")), "has 237 tokens"),
    ],
)
def test_what_transformehr_could_not_use_is_told(whole, tmp_path, damage, words):
    folder = shutil.copytree(whole, tmp_path / "copy")
    assert check_transformehr(folder) == {"train": (2, 5), "dev": (1, 2), "test": (1, 1)}
    damage(folder)
    with pytest.raises(InputError, match=words):
        check_transformehr(folder)


def test_widths_that_do_not_fit_are_refused(ask):
    with pytest.raises(InputError, match="multiple of 12"):
        transformehr.convert(ask(width=100))
    assert json.loads((convert(ask(width=24)) / "model" / "config.json").read_text())["d_model"] == 24
