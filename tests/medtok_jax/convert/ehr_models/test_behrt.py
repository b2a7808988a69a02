"""Histories for BEHRT, against those put together by hand; every rule of the reader broken once."""

import json
import pickle
import shutil

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medtok_jax.convert.ehr_models import behrt
from medtok_jax.convert.ehr_models.behrt_check import check_behrt
from medtok_jax.convert.request import make_request
from medtok_jax.tokenizer import MedTokTokenizer
from preprocessing.common.errors import InputError
from tests.helpers import small_visits


def convert(request):
    behrt.convert(request)
    return request.output


def rows(folder, name):
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


def vocabulary(folder, name="vocabulary"):
    return pickle.loads((folder / f"{name}.pkl").read_bytes())["token2idx"]


@pytest.fixture(scope="module")
def tokenizer(small_tokenizer_dir):
    return MedTokTokenizer.from_pretrained(small_tokenizer_dir)


@pytest.fixture(scope="module")
def whole(small_tokenizer_dir, tmp_path_factory):
    """The export of the small patients, of whom the fourth, held out, comes back after two stays that overlap."""
    folder = tmp_path_factory.mktemp("whole")
    splits = {1: "train", 2: "tuning", 3: "train", 4: "held_out", 5: "train"}
    events = [*small_visits.EVENTS, *small_visits.stay(4, 43, "2100-02-01", "2100-02-03", "ICD10CM/E10.9")]
    events = small_visits.write(folder / "meds", events, splits=splits)
    return convert(make_request(output=folder / "out", tokenizer=small_tokenizer_dir, events=events))


def sentence(tokenizer, *codes, per_code=None):
    """Tokens of one visit and its `SEP`: K = 2, so the first of each embedding, then the second, none twice."""
    tokens = []
    for code in codes:
        if code in tokenizer:
            ids = tokenizer.look_up(code).ids
            tokens += [f"MEDTOK//{i}" for i in dict.fromkeys(ids[[0, 2, 4, 6, 1, 3, 5, 7]].tolist())][:per_code]
        else:
            tokens.append(code)
    return [*tokens, "SEP"]


def test_lengths_of_whole_histories_are_printed(small_tokenizer_dir, small_meds, tmp_path, capsys):
    """Those that nothing cuts, and the `CLS` that the loader adds."""
    request = make_request(
        output=tmp_path / "out", tokenizer=small_tokenizer_dir, events=small_meds, options={"max_len": 50}
    )
    convert(request)
    line = capsys.readouterr().out.splitlines()[0]
    whole = small_visits.write(tmp_path / "all", splits=dict.fromkeys(range(1, 6), "train"))
    options = {"max_len": 4096}
    convert(make_request(output=tmp_path / "long", tokenizer=small_tokenizer_dir, events=whole, options=options))
    lengths = [len(row["caliber_id"]) + 1 for row in rows(tmp_path / "long", "mlm")]
    median, high = np.quantile(lengths, [0.5, 0.95], method="nearest")
    over = np.mean(np.array(lengths) > 50)
    assert 0 < over < 1
    assert line.startswith(
        f"Histories of all visits have {median} tokens in the median and {high} at the 95th percentile; {over:.1%} are"
    )


def test_the_training_patients_for_masked_tokens(whole, tokenizer):
    kinds = small_visits.ALL_KINDS
    first, second = rows(whole, "mlm")
    assert [first["patid"], second["patid"]] == [1, 3]
    visits = [
        sentence(tokenizer, *kinds, "ICD9CM/250.00"),
        sentence(tokenizer, *kinds, "ICD10CM/E10.9"),
        sentence(tokenizer, *kinds, "SNOMED/44054006"),
    ]
    assert first["caliber_id"] == [*visits[0], *visits[1], *visits[2]]
    # Born in June 1950, in hospital in January and March 2020.
    assert first["age"] == ["834"] * len(visits[0]) + ["836"] * len(visits[1]) + ["837"] * len(visits[2])
    assert set(second["age"]) == {"UNK"}


def test_the_next_visit_labels_each_visit_before_it(whole, tokenizer):
    first, second, third = rows(whole, "train")
    assert [row["patid"] for row in (first, second, third)] == [1, 1, 3]
    assert first["code"] == sentence(tokenizer, *small_visits.ALL_KINDS, "ICD9CM/250.00")
    assert first["label"] == ["ICD10CM/E11.9", "ICD10CM/E10.9"]
    assert second["code"][: len(first["code"])] == first["code"]
    assert second["label"] == ["ICD10CM/E11.9", "SNOMED/44054006"]
    assert third["label"] == ["ICD10CM/S72.001A"]
    (tuning,) = rows(whole, "tuning")
    assert tuning["code"] == sentence(tokenizer, "ICD10CM/E11.9", "ICD9CM/999.99")
    assert tuning["label"] == ["ICD9CM/001.0"]
    (test,) = rows(whole, "test")
    stays = [
        sentence(tokenizer, *kinds) for kinds in (small_visits.ALL_KINDS, (*small_visits.ALL_KINDS, "ICD10CM/E11"))
    ]
    assert test["code"] == stays[0] + stays[1]
    assert test["label"] == ["ICD10CM/E10.9"]
    labels = vocabulary(whole, "label_vocabulary")
    assert next(iter(labels)) == "UNK"
    assert {"ICD9CM/999.99", "SNOMED/44054006"} < set(labels)
    assert not {"NDC/00002143380", "ICD9Proc/00.10"} & set(labels)


def test_unknown_codes_are_unknown_everywhere(ask, tokenizer):
    folder = convert(ask("unk"))
    (tuning,) = rows(folder, "tuning")
    assert tuning["code"] == [*sentence(tokenizer, "ICD10CM/E11.9")[:-1], "UNK", "SEP"]
    assert list(vocabulary(folder))[-1].startswith("MEDTOK//")
    assert "ICD9CM/999.99" not in vocabulary(folder, "label_vocabulary")


@pytest.mark.parametrize("per_code", [0, 1, 3])
@pytest.mark.parametrize("max_len", [16, 22, 30, 64])
def test_long_histories_lose_their_oldest_visits_and_then_whole_codes(ask, tokenizer, per_code, max_len):
    folder = convert(ask(max_len=max_len, tokens_per_code=per_code))
    assert json.loads((folder / "model_config.json").read_text())["max_len_seq"] == max_len
    per_code = per_code or None
    kinds = small_visits.ALL_KINDS
    stays = [(*kinds, "ICD9CM/250.00"), (*kinds, "ICD10CM/E10.9"), (*kinds, "SNOMED/44054006")]
    visits = [sentence(tokenizer, *codes, per_code=per_code) for codes in stays]
    wanted = []
    for visit in reversed(visits):
        if len(wanted) + len(visit) > max_len - 1:
            break
        wanted = visit + wanted
    if not wanted:
        for count in range(1, 5):
            shorter = sentence(tokenizer, *stays[-1][:count], per_code=per_code)
            wanted = shorter if len(shorter) <= max_len - 1 else wanted
    assert rows(folder, "mlm")[0]["caliber_id"] == wanted


def test_the_embedding_begins_as_the_codebook(whole, tokenizer):
    matrix, place = np.load(whole / "word_embeddings.npy"), vocabulary(whole)
    assert matrix.shape == (len(place), 288)
    ours = matrix[[place[f"MEDTOK//{i}"] for i in range(36)]]
    book = tokenizer.directory.codebook
    scale = np.linalg.norm(ours) / np.linalg.norm(book)
    np.testing.assert_allclose(ours @ ours.T, book @ book.T * scale**2, atol=1e-5)
    assert list(place)[:5] == ["PAD", "UNK", "SEP", "CLS", "MASK"]
    assert list(place.values()) == list(range(len(place)))


def change(name, column, value):
    def damage(folder):
        path = folder / f"{name}.parquet"
        table = pq.read_table(path)
        data = table.to_pydict()
        data[column][0] = value(data[column][0]) if callable(value) else value
        pq.write_table(pa.table(data, schema=table.schema), path)

    return damage


def change_vocabulary(folder):
    path = folder / "vocabulary.pkl"
    value = pickle.loads(path.read_bytes())
    value["token2idx"]["MEDTOK//3"] = 10_000
    path.write_bytes(pickle.dumps(value))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (change("mlm", "age", lambda ages: ages[1:]), "tokens and"),
        (change("mlm", "age", lambda ages: ["1320"] * len(ages)), "row 0: age 0 is not a month"),
        (change("train", "age", lambda ages: ["1", *ages[1:]]), "changes within a visit"),
        (change("train", "code", lambda codes: ["SEP", *codes[1:]]), "must begin with a code"),
        (change("train", "code", lambda codes: [*codes[:-1], "MEDTOK//1"]), "end with SEP"),
        (change("train", "code", lambda codes: [codes[0], "SEP", "SEP", *codes[3:]]), "visit without codes"),
        (change("mlm", "caliber_id", lambda codes: ["CLS", *codes[1:]]), "row 0: token 0 is not in the vocabulary"),
        (change("test", "code", lambda codes: ["E11.9", *codes[1:]]), "token 0 is not in the vocabulary"),
        (change("test", "label", []), "label must be"),
        (change("test", "label", ["MEDTOK//1"]), "label must be"),
        (change_vocabulary, "numbered from 0"),
        (lambda folder: np.save(folder / "word_embeddings.npy", np.zeros((3, 288), np.float32)), "there are"),
    ],
)
def test_what_behrt_could_not_use_is_told(whole, tmp_path, damage, words):
    folder = shutil.copytree(whole, tmp_path / "copy")
    assert check_behrt(folder) == {"mlm": 2, "train": 3, "tuning": 1, "test": 1}
    damage(folder)
    with pytest.raises(InputError, match=words):
        check_behrt(folder)


def test_histories_that_are_too_long_are_told(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "copy")
    config = json.loads((folder / "model_config.json").read_text())
    (folder / "model_config.json").write_text(json.dumps(config | {"max_len_seq": 20}))
    with pytest.raises(InputError, match="there is room for 19"):
        check_behrt(folder)


def test_widths_that_do_not_fit_are_refused(ask):
    with pytest.raises(InputError, match="multiple of 12"):
        behrt.convert(ask(width=100))


def label_file(path, **values):
    """Labels of patient 1 in the second stay and at its end, of patient 2 years later, and of one who is not there."""
    times = [small_visits.at("2020-03-10"), small_visits.at("2020-03-21", 16), small_visits.at("2030-01-01")]
    rows = {"subject_id": [1, 1, 2, 99], "prediction_time": [*times, times[0]], **values}
    pl.DataFrame(rows).write_parquet(path)
    return str(path)


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        ({"boolean_value": [True, False, True, True]}, ["False", "True"]),
        ({"integer_value": [3, 0, 3, 7]}, ["0", "3", "7"]),
        ({"categorical_value": ["late", "early", "late", "late"]}, ["early", "late"]),
    ],
)
def test_labels_of_a_file_are_classes(ask, tokenizer, tmp_path, capsys, values, classes):
    folder = convert(ask(labels=label_file(tmp_path / "labels.parquet", **values)))
    first, second = rows(folder, "train")
    given = [str(value) for value in next(iter(values.values()))]
    assert (first["label"], second["label"]) == ([given[0]], [given[1]])
    assert list(vocabulary(folder, "label_vocabulary")) == ["UNK", *classes]
    stay = sentence(tokenizer, *small_visits.ALL_KINDS, "ICD9CM/250.00")
    assert first["code"] == stay
    # Of the second stay, drugs alone are seen at the discharge, before its diagnoses are coded.
    assert second["code"] == [*stay, *sentence(tokenizer, "NDC/00002143380")]
    assert [row["patid"] for row in rows(folder, "tuning")] == [2]
    told = capsys.readouterr().out
    assert "1 labels are left out" in told
    assert "without histories in test;" in told, "no label is of patient 4, who is held out"
    again = convert(ask(inputs="coded", labels=label_file(tmp_path / "labels.parquet", **values)))
    coded = sentence(tokenizer, *small_visits.ALL_KINDS, "ICD10CM/E10.9")
    assert [row["code"] for row in rows(again, "train")] == [stay, [*stay, *coded]]


def test_tasks_are_classes_and_numbers_are_refused(ask, tmp_path):
    folder = convert(ask(task="mortality"))
    assert [(row["patid"], row["label"]) for row in rows(folder, "train")] == [
        (1, ["False"]),
        (1, ["True"]),
        (3, ["False"]),
    ]
    with pytest.raises(InputError, match="BEHRT predicts classes, not numbers"):
        behrt.convert(ask(labels=label_file(tmp_path / "labels.parquet", float_value=[0.5] * 4)))
    with pytest.raises(InputError, match="both given"):
        behrt.convert(ask(task="mortality", labels=label_file(tmp_path / "labels.parquet", float_value=[0.5] * 4)))


def test_events_after_the_prediction_time_leave_the_histories_equal(ask, tmp_path):
    labels = label_file(tmp_path / "labels.parquet", boolean_value=[True, False, True, True])
    times = {1: small_visits.at("2020-03-21", 16), 2: small_visits.at("2030-01-01")}
    whole = rows(convert(ask(labels=labels)), "train")
    known = [event for event in small_visits.EVENTS if not event[1] or event[1] <= times.get(event[0], event[1])]
    assert len(known) < len(small_visits.EVENTS)
    later = small_visits.stay(1, 13, "2020-03-25", "2020-03-30", "ICD10CM/S72.001A", "NDC/99999999999", kind="NEWBORN")
    splits = dict(zip(range(1, 6), ["train", "tuning", "train", "held_out", "train"], strict=True))
    for name, changed in (("deleted", known), ("replaced", known + later)):
        events = small_visits.write(tmp_path / name, changed, splits=splits)
        assert rows(convert(ask(events=events, labels=labels)), "train") == whole


def test_the_next_visit_has_the_diagnoses_of_all_stays_that_are_one(small_tokenizer_dir, tmp_path):
    events = [
        *small_visits.stay(1, 11, "2020-01-01", "2020-01-05", "ICD10CM/E11.9"),
        *small_visits.stay(1, 12, "2020-02-01", "2020-02-03", "NDC/00002143380"),
        *small_visits.stay(1, 13, "2020-02-02", "2020-02-20", "ICD10CM/E10.9", "ICD10CM/E11.9"),
        *small_visits.stay(1, 14, "2020-02-20", "2020-02-21", "SNOMED/44054006", "ICD10CM/E10.9"),
        *small_visits.stay(1, 15, "2020-03-02", "2020-03-21", "NDC/00002143380"),
    ]
    records = small_visits.write(tmp_path / "meds", events, splits={1: "train"})
    folder = convert(make_request(output=tmp_path / "out", tokenizer=small_tokenizer_dir, events=records))
    assert [row["label"] for row in rows(folder, "train")] == [["ICD10CM/E10.9", "ICD10CM/E11.9", "SNOMED/44054006"]]
