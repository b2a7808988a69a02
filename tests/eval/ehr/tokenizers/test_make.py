"""Tokenizers by name: codes, categories, translations and descriptions, on pairs and texts that are known."""

import dataclasses

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from eval.baselines.data import Codes
from eval.baselines.make import make as make_baseline
from eval.common.representation import load
from eval.ehr.tokenizers.code_features import translations
from eval.ehr.tokenizers.descriptions import describe, official_descriptions
from eval.ehr.tokenizers.make import NAMES, check_name, make
from eval.ehr.tokenizers.spelling import EventCodes, read_code
from preprocessing import medtok_codes
from preprocessing.common.errors import InputError
from preprocessing.dataset.known_codes import RETIRED, read_known_codes
from preprocessing.sources.icd import read_backward_gem
from tests.eval.ehr.tokenizers.conftest import CODES, MEDICAL
from tests.helpers.small_run import DATA_SET


def rows(matrix) -> list[tuple]:
    """Return the row of each code."""
    return list(map(tuple, matrix.weights.toarray().tolist()))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("ICD10CM/E11.9", "ICD10CM/E11.9"),
        ("DIAGNOSIS//ICD//10//E119", "ICD10CM/E11.9"),
        ("ICD9CM//4019", "ICD9CM/401.9"),
        ("PROCEDURE//ICD//9//0010", "ICD9Proc/00.10"),
        ("MEDICATION//NDC//00002143380", "NDC/00002143380"),
        ("MEDICATION//HICL//2803", ""),
        ("MEDICATION//START//LABETALOL 5 MG/ML IV", ""),
        ("LAB//50912//mg/dL", ""),
        ("ICD9CM/nonsense", ""),
        ("250.00", ""),
    ],
)
def test_codes_as_data_sets_spell_them(text, key):
    assert read_code(text) == key


def test_own_rows_of_other_events_are_the_same_for_every_tokenizer(context, small_dir):
    names = ("codes", "rollup", "gem", "words", "random", "shuffled", str(small_dir), "codes+words")
    for name in names:
        matrix = make(name, CODES, context)
        assert not matrix.mapped[~MEDICAL].any()
        columns = matrix.weights[~MEDICAL].toarray()
        np.testing.assert_array_equal(columns[:, :2], np.eye(2), err_msg=name)
        assert not matrix.weights[np.flatnonzero(MEDICAL)][:, :2].nnz
        np.testing.assert_allclose(matrix.weights.sum(1), 1, rtol=1e-6)


def test_codes_as_tokens(context):
    codes = np.array(["ICD10CM/E11.9", "ICD10CM/E119", "ICD9CM/250.00"])
    first, second, third = rows(make("codes", codes, context))
    assert first == second != third


def test_categories(context):
    codes = np.array(["ICD10CM/E11.65", "ICD10CM/E11.9", "ICD9CM/250.00", "ICD9CM/250.93", "NDC/00002143380"])
    found = rows(make("rollup", codes, context))
    assert found[0] == found[1] != found[2] == found[3]
    assert len(set(found)) == 3


def test_translations(context):
    codes = np.array(["ICD10CM/E11.9", "ICD10CM/E11.311", "ICD9CM/250.00", "ICD9CM/250.50", "ICD9CM/362.01"])
    matrix = make("gem", codes, context)
    found = np.array(rows(matrix))
    np.testing.assert_array_equal(found[0], found[2])
    # A combination: diabetes with ophthalmic manifestations, its retinopathy, and macular edema.
    assert found[1] @ found[3] == pytest.approx(1 / 3)
    assert found[1] @ found[4] == pytest.approx(1 / 3)
    assert found[1].sum() == pytest.approx(1)
    assert matrix.about["translated_codes"] == 2


def test_a_translation_is_the_first_and_exact_where_one_is():
    backward = translations()
    assert backward["I21.4"] == ("410.71",)
    # Tuberculosis of bones is one code, and also one of four combinations.
    assert backward["A18.03"] == ("015.60",)
    assert all(len(set(targets)) == len(targets) > 0 for targets in backward.values())
    exact = {row.icd10: row.icd9 for row in read_backward_gem() if row.is_exact}
    assert all(icd9 in backward[icd10] for icd10, icd9 in exact.items())


def test_descriptions_are_official_then_of_the_data_set(context):
    texts = describe(EventCodes.read(CODES), context.descriptions | {"ICD9CM/401.9": "high blood pressure"})
    found = dict(zip(CODES.tolist(), texts.tolist(), strict=True))
    assert found["ICD9CM/401.9"] == "Unspecified essential hypertension"
    assert found["ICD9CM/428"] == "Heart failure"
    assert found["MEDICATION//NDC//00002143380"] == "insulin lispro"
    assert found["MEDICATION//HICL//2803"] == found["LAB//50912//mg/dL"] == ""


def test_words_against_scikit_learn(context):
    texts = [text for text in describe(EventCodes.read(CODES), context.descriptions).tolist() if text]
    reference = TfidfVectorizer(ngram_range=(1, 2), norm="l1", token_pattern=r"[a-z0-9]+")
    wanted = reference.fit_transform(texts).toarray()
    matrix = make("words", CODES, context)
    found = matrix.weights[np.flatnonzero(matrix.mapped), matrix.own :].toarray()
    assert matrix.mapped.sum() == len(texts) == 9
    # Words are numbered in another order: compare codes with each other.
    np.testing.assert_allclose(found @ found.T, wanted @ wanted.T, atol=1e-6)
    np.testing.assert_allclose(np.sort(found, axis=1), np.sort(wanted, axis=1), atol=1e-6)


def test_no_codes_of_any_system(context):
    events, context = np.array(["LAB//1", "LAB//2"]), dataclasses.replace(context, first="")
    for name in ("codes", "words", "rollup", "random", "wordpieces"):
        np.testing.assert_array_equal(make(name, events, context).weights.toarray(), np.eye(2))


def test_two_side_by_side(context, small_dir):
    both = make(f"{small_dir}+words", CODES, context)
    alone, words = make(str(small_dir), CODES, context), make("words", CODES, context)
    assert both.name == "small+words"
    tokens = alone.num_features - alone.own
    np.testing.assert_allclose(
        both.weights[0, both.own : both.own + tokens].toarray(), alone.weights[0, alone.own :].toarray() / 2
    )
    # Of a code without tokens only the words are read.
    np.testing.assert_allclose(
        both.weights[6, both.own + tokens :].toarray(), words.weights[6, words.own :].toarray(), rtol=1e-6
    )
    assert both.initial.shape == (both.num_features, 4)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("word", "'word' is no tokenizer: neither a directory nor a known name; did you mean 'words'?"),
        ("shuffle", "did you mean 'shuffled'?"),
        ("codes:unweighted", "codes takes no suffix; leave :unweighted out"),
        ("text_vq:expand", "did you mean 'expanded'?"),
        ("codes+words+gem", "names 3 tokenizers"),
        ("text_vq:embeddings:expanded", "embeddings, which have no tokens"),
    ],
)
def test_names_that_are_refused(name, sentence):
    with pytest.raises(InputError, match=sentence):
        check_name(name)


def test_names_that_are_known(small_dir, tmp_path):
    for name in (*NAMES, str(small_dir), f"{small_dir}:expanded", "text_vq:unweighted", "runs/default+words"):
        assert check_name(name) == name
    odd = tmp_path / "a+b:c"
    odd.mkdir()
    assert check_name(str(odd)) == str(odd)


def test_shuffled_needs_a_run(context):
    with pytest.raises(InputError, match="shuffled needs a run or tokenizer directory"):
        make("shuffled", CODES, dataclasses.replace(context, first=""))


def test_a_label_for_a_path(context, small_dir):
    assert make(f"mine={small_dir}:unweighted", CODES, context).name == "mine:unweighted"


def test_titles_are_those_of_a_data_set(data_dir):
    """Every title is that of the data set, but of codes of earlier editions that stand for codes of the other one."""
    known = read_known_codes(medtok_codes.open_prepared(DATA_SET, data_dir)).to_pylist()
    official = official_descriptions()
    assert official.keys() == {row["key"] for row in known}
    other = [row for row in known if official[row["key"]] != row["description"]]
    assert all(row["kind"] == RETIRED for row in other)
    assert len(other) < 400


@pytest.mark.thorough
@pytest.mark.integration
def test_text_baselines_are_those_of_a_data_set(data_dir, context):
    """The text vector and the tokens of a code are those that the baselines give it."""
    codes = Codes.open(DATA_SET, str(data_dir), progress=False)
    raw = make_baseline("raw_text", codes, progress=False)
    some = raw.keys[::37]
    given = dataclasses.replace(context, data_set=DATA_SET, data_dir=str(data_dir))
    vectors = make("raw_text", some, given).vectors
    assert (np.sum(vectors * raw.vectors[::37], axis=1) > 0.999).all()

    matrix = make("text_pursuit", some, given)
    (folder,) = context.folder.iterdir()
    made = load(folder)
    assert folder.name == "text_pursuit-36-8"
    assert made.tokens.shape == (600, 8)
    assert made.codebook.shape == (36, 384)
    token = [np.flatnonzero((made.codebook == row).all(1)).item() for row in matrix.initial[matrix.own :]]
    found = np.zeros((len(some), 36))
    found[:, token] = matrix.weights[:, matrix.own :].toarray()
    wanted = np.zeros((len(some), 36))
    np.add.at(wanted, (np.arange(len(some))[:, None], made.tokens[::37]), made.weights[::37])
    wanted /= wanted.sum(1, keepdims=True)
    # The cache of the data set rounds its text states, which may turn a near tie.
    assert np.mean(np.abs(found - wanted).max(1) < 0.02) > 0.8
    assert make("text_pursuit:unweighted", some, given).about["data_set"]["name"] == DATA_SET
    assert make("text_pursuit:embeddings", some, given).vectors.shape == (len(some), 384)


def test_wordpieces_are_those_of_a_data_set(data_dir, context):
    made = make_baseline("wordpieces", Codes.open(DATA_SET, str(data_dir), progress=False), progress=False)
    matrix = make("wordpieces", made.keys, dataclasses.replace(context, descriptions={}))
    wanted = np.zeros((len(made), made.num_ids), np.float32)
    owner, column = np.nonzero(made.tokens >= 0)
    wanted[owner, made.tokens[owner, column]] = made.weights[owner, column]
    used = np.flatnonzero(wanted.any(0))
    # How rare a wordpiece is, is counted over distinct descriptions here.
    found = matrix.weights[:, matrix.own :].toarray()
    assert ((found > 0) == (wanted[:, used] > 0)).all()
    np.testing.assert_allclose(found, wanted[:, used], atol=0.05)
    np.testing.assert_array_equal(matrix.initial[matrix.own :], made.codebook[used])
