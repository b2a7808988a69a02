"""From patient records to what ETHOS trains on, in one conversion."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medtok_jax.convert.ehr_models.spelling import TokenLists
from medtok_jax.convert.ethos import check, convert, files, meds, paper
from medtok_jax.convert.ethos import directory as ethos_directory
from medtok_jax.convert.ethos import vocabulary as ethos_vocabulary
from medtok_jax.convert.ethos.files import code_tokens
from medtok_jax.convert.request import make_request
from medtok_jax.lookup.directory import TokenizerDirectory
from medtok_jax.records.event_codes import CodeMapper
from medtok_jax.records.token_rows import TokenRows
from preprocessing.common.errors import InputError
from tests.helpers import small_tokenizer
from tests.helpers.small_ethos import at, frame, patient, write_meds

pytest.importorskip("torch")

SMALL = {"width": 8, "n_layer": 1, "n_head": 2, "n_positions": 64}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tokenizer, MEDS records, and what becomes of them with every choice for unmapped codes."""
    root = tmp_path_factory.mktemp("world")
    small_tokenizer.write(root / "tok")
    write_meds(root / "meds")
    for unmapped in ("keep", "drop", "unk"):
        _convert(root, root / unmapped, unmapped=unmapped)
    return root


def _convert(root, output, *, events="meds", unmapped="keep", options=SMALL, **more):
    request = make_request(
        output=str(output),
        tokenizer=str(root / "tok"),
        events=str(root / events) if events else None,
        unmapped=unmapped,
        options=options,
        **more,
    )
    convert.convert(request)


def _spelled(folder):
    """Tokens and times of each patient."""
    vocabulary, found = ethos_vocabulary.read(folder), {}
    for shard in map(ethos_directory.read_shard, ethos_directory.shard_paths(folder)):
        stops = [*shard.patient_offsets[1:], len(shard)]
        for patient_id, start, stop in zip(shard.patient_ids.tolist(), shard.patient_offsets, stops, strict=True):
            rows = slice(int(start), int(stop))
            found[patient_id] = (
                [vocabulary[number] for number in shard.tokens[rows]],
                shard.times[rows],
                {name: values[rows] for name, values in shard.stays.items()},
            )
    return found


def _expected(root, subject, unmapped, breaks):
    """One patient, by hand."""
    directory = TokenizerDirectory.read(root / "tok")
    keys = directory.table["key"].to_pylist()

    def of(key):
        if key in keys:
            return [f"MEDTOK//{number}" for number in small_tokenizer.ranked(directory.ids[keys.index(key)])]
        return {"keep": [key.replace(".", "").upper()], "drop": [], "unk": ["MEDTOK//UNK"]}[unmapped]

    quantile = 1 + sum(value < subject for value in breaks)
    codes = ["ICD9CM/250.00", "ICD10CM/E11.9", "ICD9CM/999.99"] if subject % 2 else ["ICD10CM/E11.65"]
    return [
        *("HOSPITAL_ADMISSION", "ADMISSION_TYPE//EMERGENCY", "INSURANCE//MEDICARE"),
        *("15m-45m", "ICU_ADMISSION", "ICU_TYPE//MICU", "15m-45m", "LAB//50912//MG/DL", f"Q{quantile}"),
        *("12h-18h", *of("NDC/00002143380"), "1d-2d", "ICU_DISCHARGE", "2d-4d"),
        *("HOSPITAL_DISCHARGE", "DISCHARGE_LOCATION//HEALTHCARE_FACILITY"),
        *(token for code in codes for token in of(code)),
        *("DRG//UNKNOWN", "TIMELINE_END"),
    ]


@pytest.mark.parametrize("unmapped", ["keep", "drop", "unk"])
def test_timelines_are_those_made_by_hand(world, unmapped):
    out = world / unmapped
    breaks = json.loads((out / "train" / "quantiles.json").read_text())["Q//LAB//50912//MG/DL"]
    assert breaks == np.quantile(np.arange(1, 26), np.linspace(0, 1, 11)[1:-1], method="nearest").tolist()
    train, test = _spelled(out / "train"), _spelled(out / "test")
    assert list(train) == [*range(1, 26)], "who validates comes last"
    assert list(test) == [*range(26, 31)]
    for subject, (tokens, times, stays) in {**train, **test}.items():
        assert tokens == _expected(world, subject, unmapped, breaks)
        assert times[0] == np.datetime64(at(0, 8), "us").astype(np.int64)
        assert set(stays["hadm_id"]) == {subject * 10.0}
        assert stays["icustay_id"][tokens.index("ICU_TYPE//MICU")] == subject * 100
        assert np.isnan(stays["icustay_id"][0])
    static = ethos_directory.read_static(out / "train")[3]
    assert {prefix: told["code"] for prefix, told in static.items()} == {
        "GENDER": ["GENDER//F"],
        "MARITAL": ["MARITAL//MARRIED"],
        "MEDS_BIRTH": ["MEDS_BIRTH"],
        "RACE": ["RACE//BLACK"],
    }


def test_losses_are_told(world):
    told = json.loads((world / "keep" / "unmapped_codes.json").read_text())
    system = next(system for system in told["systems"] if system["name"] == "ICD9CM")
    assert (system["mapped"], system["unmapped"]) == (15, 15)
    assert system["unmapped_codes"][0]["code"] == "ICD9CM/999.99"


def test_one_vocabulary_for_all(world):
    out = world / "keep"
    vocabulary = ethos_vocabulary.read(out / "train")
    assert ethos_vocabulary.read(out / "test") == vocabulary
    assert set(vocabulary) >= set(ethos_vocabulary.required(small_tokenizer.REGIONS.size))
    order = [vocabulary.index(t) for t in ("GENDER//F", "HOSPITAL_ADMISSION", "LAB//50912//MG/DL", "BMI//UNKNOWN")]
    assert order == sorted(order)
    size = check.ModelSize(n_positions=64, n_layer=1, n_head=2, n_embd=8)
    check.check_checkpoint(out / "models" / "medtok" / "recent_model.pt", vocabulary, size)


def test_the_same_twice(world, tmp_path):
    _convert(world, tmp_path / "again")
    old = world / "keep"
    for path in sorted(path for path in old.rglob("*") if path.is_file() and path.suffix != ".yaml"):
        assert (tmp_path / "again" / path.relative_to(old)).read_bytes() == path.read_bytes(), path


def test_commands_that_follow(world, tmp_path, capsys):
    _convert(world, tmp_path / "out dir")
    told = capsys.readouterr().out
    command = next(line for line in told.splitlines() if "ethos_train" in line)
    arguments = dict(word.split("=", 1) for word in shlex.split(command) if "=" in word and word[0] != "-")
    assert arguments["data_fp"] == str(tmp_path / "out dir" / "train")
    assert arguments["resume"] == "true"
    assert (arguments["n_embd"], arguments["n_positions"]) == ("8", "64")
    assert 0.15 < float(arguments["val_size"]) < 0.25, "the 5 of 25 patients that the records set apart"
    assert "ICD9CM: 15 of 30 events are mapped" in told


@pytest.mark.integration
def test_stage_is_whole(world):
    stage = world / "keep" / "ethos_stage"
    codes = code_tokens.read_codes(stage / "medtok_codes.parquet").table
    directory = TokenizerDirectory.read(world / "tok")
    assert len(codes) == len(directory.ids)
    row = directory.table["key"].to_pylist().index("ICD10CM/E11.9")
    assert codes["ICD10CM/E119"] == [f"MEDTOK//{number}" for number in small_tokenizer.ranked(directory.ids[row])]
    for name in ("medtok_mimic", "medtok_meds"):
        text = (stage / "configs" / "dataset" / f"{name}.yaml").read_text()
        assert f"'{stage}/medtok_codes.parquet'" in text
        assert "@" not in text
        assert "unmapped: keep" in text
    assert (stage / "tokenize" / "medtok" / "__init__.py").is_file()
    assert (stage / "infer_samples.py").read_text() == Path(files.__file__).with_name("infer_samples.py").read_text()
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import code_tokens as c; print(len(c.read_codes(sys.argv[2])[0]))"
    )
    arguments = [str(stage / "tokenize" / "medtok"), str(stage / "medtok_codes.parquet")]
    ran = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    assert int(ran.stdout) == len(codes)


def test_without_records(world, tmp_path, capsys):
    _convert(world, tmp_path / "out", events=None)
    vocabulary = ethos_vocabulary.read(tmp_path / "out" / "vocabulary")
    assert vocabulary[: small_tokenizer.REGIONS.size] == [f"MEDTOK//{n}" for n in range(small_tokenizer.REGIONS.size)]
    assert "dataset=medtok_mimic" in capsys.readouterr().out
    assert paper.read(next((tmp_path / "out").glob("*.pkl")))["stoi"]["_DEATH"] == 14


@pytest.mark.parametrize("per_code", [1, 3])
def test_codes_of_fewer_tokens_make_shorter_timelines(world, tmp_path, capsys, per_code):
    out = tmp_path / "out"
    _convert(world, out, options=SMALL | {"tokens_per_code": per_code, "n_positions": 27})
    told = capsys.readouterr().out
    whole, short = _spelled(world / "keep" / "train"), _spelled(out / "train")
    directory = TokenizerDirectory.read(world / "tok")
    keys = directory.table["key"].to_pylist()
    for subject, (tokens, _, _) in short.items():
        codes = ["NDC/00002143380", *(["ICD9CM/250.00", "ICD10CM/E11.9"] if subject % 2 else ["ICD10CM/E11.65"])]
        of_codes = [small_tokenizer.ranked(directory.ids[keys.index(code)]) for code in codes]
        kept = [f"MEDTOK//{number}" for ids in of_codes for number in ids[:per_code]]
        assert [token for token in tokens if token.startswith("MEDTOK//")] == kept
        assert len(tokens) == len(whole[subject][0]) - sum(len(ids) - per_code for ids in of_codes)
    lengths = np.array([len(tokens) for tokens, _, _ in short.values()])
    median, high = np.quantile(lengths, [0.5, 0.95], method="nearest")
    line = next(line for line in told.splitlines() if line.startswith("train: timelines have"))
    over = (lengths > 27).mean()
    assert line.startswith(
        f"train: timelines have {median} tokens in the median and {high} at the 95th percentile; {over:.1%} are longer"
    )
    assert ("a smaller --tokens_per_code" in line) == (over > 0)
    codes = code_tokens.read_codes(out / "ethos_stage" / "medtok_codes.parquet").table
    assert {len(tokens) for tokens in codes.values()} == {per_code}


def test_lengths_of_tokenized_data_are_printed_too(world, tmp_path, capsys):
    _convert(world, tmp_path / "out", events="keep")
    lengths = [len(tokens) for tokens, _, _ in _spelled(tmp_path / "out" / "train").values()]
    assert f"train: timelines have {int(np.quantile(lengths, 0.5, method='nearest'))} tokens" in capsys.readouterr().out


def test_what_ethos_tokenized_gets_a_checkpoint(world, tmp_path):
    """Tokens of MedTok that are there already stay as they are."""
    (tmp_path / "tokenized").mkdir()
    (tmp_path / "tokenized" / "train").symlink_to(world / "keep" / "train")
    request = make_request(
        output=str(tmp_path / "out"),
        tokenizer=str(world / "tok"),
        events=str(tmp_path / "tokenized"),
        options=SMALL,
    )
    convert.convert(request)
    assert _spelled(tmp_path / "out" / "train")[1][0] == _spelled(world / "keep" / "train")[1][0]
    assert (tmp_path / "out" / "models" / "medtok" / "recent_model.pt").is_file()


def test_parent_codes_stand_for_codes_without_tokens(world, tmp_path):
    root = shutil.copytree(world / "meds", tmp_path / "meds")
    (root / "metadata").mkdir(exist_ok=True)
    events = pl.concat(map(pl.read_parquet, (root / "data").rglob("*.parquet")), how="diagonal")
    mapper = CodeMapper(small_tokenizer.KEYS)
    kept = events.filter(pl.Series(mapper.is_medical(events["code"]) & (mapper.rows(events["code"]) < 0)))
    (lacked, count) = kept["code"].value_counts(sort=True).row(0)
    parents = pl.DataFrame({"code": [lacked], "parent_codes": [["ICD10CM/E11.9"]]})
    parents.write_parquet(root / "metadata" / "codes.parquet")
    _convert(world, tmp_path / "out", events=root, unmapped="nearest")
    systems = json.loads((tmp_path / "out" / convert.UNMAPPED).read_text())["systems"]
    listed = [code for system in systems for code in system["replaced_codes"]]
    assert listed == [{"code": lacked, "events": count, "nearest": "ICD10CM/E11.9", "source": "parent"}]
    text = (tmp_path / "out" / "ethos_stage" / "configs" / "dataset" / "medtok_meds.yaml").read_text()
    assert "unmapped: nearest" in text
    stand_ins = code_tokens.read_codes(tmp_path / "out" / "ethos_stage" / "medtok_codes.parquet").stand_ins
    directory = TokenizerDirectory.read(world / "tok")
    row = directory.table["key"].to_pylist().index("ICD10CM/E11.9")
    tokens = [f"MEDTOK//{number}" for number in small_tokenizer.ranked(directory.ids[row])]
    assert stand_ins == {code_tokens.key_of(lacked): tokens}


def test_tokens_of_another_tokenizer_are_refused(world, tmp_path):
    small_tokenizer.write(tmp_path / "tok", small_tokenizer.make_tokens(seed=5))
    request = make_request(
        output=str(tmp_path / "out"), tokenizer=str(tmp_path / "tok"), events=str(world / "keep"), options=SMALL
    )
    with pytest.raises(InputError, match="another tokenizer"):
        convert.convert(request)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({**SMALL, "n_head": 3}, "multiple of n_head"),
        ({**SMALL, "n_positions": 4096}, "--n_positions="),
        ({**SMALL, "paper_vocabulary": "/nowhere.pkl"}, "cannot be read"),
    ],
)
def test_refuses(world, tmp_path, options, sentence):
    with pytest.raises(InputError, match=sentence):
        _convert(world, tmp_path / "out", options=options)
    assert not any(tmp_path.iterdir())


def test_patients_that_cannot_be_told(tmp_path):
    """Without a birth no age; before 1970 no time; codes that only the test has."""
    root = write_meds(tmp_path / "meds", {"train": range(1, 9), "held_out": range(9, 11)})
    path = root / "data" / "held_out" / "0.parquet"
    odd = [{**row, "subject_id": 11} for row in patient(11) if row["code"] != "MEDS_BIRTH"]
    late = [{"subject_id": 10, "time": at(6), "code": "NEW//THING"}]
    old = [{"subject_id": 9, "time": at(-200 * 365), "code": "LAB//50912//mg/dL", "numeric_value": 1.0}]
    rows = pl.concat([pl.read_parquet(path), frame(odd + late + old)])
    rows.sort("subject_id", "time", maintain_order=True, nulls_last=False).write_parquet(path)
    small_tokenizer.write(tmp_path / "tok")
    directory = TokenizerDirectory.read(tmp_path / "tok")
    from preprocessing.meds.dataset import MedsDataset

    speller = meds.Speller(convert.CodeMapper(directory.table["key"]), TokenLists.of(TokenRows.of(directory), 0))
    (tmp_path / "out").mkdir()
    spelled = meds.spell(MedsDataset.open(root), speller, tmp_path / "out" / "spelled", progress=False)
    lengths = meds.timeline_lengths(spelled, small_tokenizer.REGIONS.size)
    written = meds.write(spelled, small_tokenizer.REGIONS.size, tmp_path / "out")
    assert {name: found.tolist() for name, found in lengths.items()} == {
        name: [len(tokens) for tokens, _, _ in _spelled(tmp_path / "out" / name).values()] for name in ("train", "test")
    }
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["test", "train"]
    left_out = written.left_out
    assert left_out.subjects_without_birth == 1
    assert left_out.events_before_1970 == 1
    assert left_out.test_events_not_in_the_vocabulary == 1
    assert sorted(_spelled(tmp_path / "out" / "test")) == [9, 10]


def test_values_are_sampled_evenly_whatever_the_files():
    rng = np.random.default_rng(0)
    values = rng.normal(size=5000)
    whole, parts = meds.MeasuredValues(limit=1000), meds.MeasuredValues(limit=1000)
    whole.add(pl.Series(["A"] * 5000), values)
    for part in np.array_split(values, 7):
        parts.add(pl.Series(["A"] * len(part)), part)
    np.testing.assert_array_equal(whole.breaks()["A"], parts.breaks()["A"])
    exact = np.quantile(values, np.linspace(0, 1, 11)[1:-1])
    np.testing.assert_allclose(whole.breaks()["A"], exact, atol=0.15)
