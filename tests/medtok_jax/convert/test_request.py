"""The request of a conversion and its command line are checked before any work; an error is one sentence."""

import pytest

from medtok_jax.convert.request import check_output, make_request
from preprocessing.common.errors import InputError
from tests.helpers.forked import run_module
from tests.helpers.paths import ROOT


def command(*arguments) -> tuple[int, str, str]:
    done = run_module("medtok_jax.convert", *arguments)
    return done.returncode, done.stdout, done.stderr


def test_where_the_tokenizer_is(small_tokenizer_dir, tmp_path):
    output = tmp_path / "out"
    assert make_request(output=output, tokenizer=small_tokenizer_dir).tokenizer == small_tokenizer_dir
    workdir = small_tokenizer_dir.parent
    request = make_request(output=output, workdir=workdir)
    assert (request.workdir, request.tokenizer, request.events) == (workdir, workdir / "tokenizer", None)
    request = make_request(output=output, tokenizer=workdir, workdir=tmp_path, unmapped="unk", options={"width": 3})
    assert (request.workdir, request.tokenizer) == (tmp_path, workdir / "tokenizer")
    assert (request.output, request.unmapped, request.options) == (output.resolve(), "unk", {"width": 3})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Give the tokenizer to convert"),
        ({"workdir": "nowhere"}, "The work directory nowhere does not exist"),
        ({"tokenizer": "nowhere"}, "The tokenizer directory nowhere does not exist"),
        ({"workdir": "tests"}, "is not a tokenizer directory"),
        ({"workdir": "tests", "unmapped": "burn"}, "unmapped is 'burn'"),
    ],
)
def test_refuses_what_is_not_there(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError, match=message):
        make_request(output=tmp_path / "out", **options)


def test_output_is_empty_or_to_be_replaced(tmp_path, monkeypatch):
    place = tmp_path / "out"
    assert check_output(place, False, []) == place
    place.mkdir()
    assert check_output(place, False, []) == place
    (place / "file").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        check_output(place, False, [])
    assert check_output(place, True, []) == place
    with pytest.raises(InputError, match="is not a directory"):
        check_output(place / "file", True, [])
    (tmp_path / "link").symlink_to(place)
    with pytest.raises(InputError, match="is not empty"):
        check_output(tmp_path / "link", False, [])
    assert check_output(tmp_path / "link", True, []) == place
    for other in (place, place / "deeper"):
        with pytest.raises(InputError, match="which must not be removed"):
            check_output(place, True, [other])
    monkeypatch.chdir(place)
    with pytest.raises(InputError, match="which must not be removed"):
        check_output(tmp_path, True, [])
    with pytest.raises(InputError, match="which must not be removed"):
        check_output(".", True, [])


@pytest.mark.integration
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give either --to="),
        (["--to=pytorch", "--from=pytorch"], "Give either --to="),
        (["--to=pytorch"], "--output is missing"),
        (["--to=pytorch", "--output=/tmp/none", "pytorch"], "'pytorch' is not a flag"),
        (["--to=tensorflow", "--output=/tmp/none"], "value should be one of"),
        (["--from=pytorch", "--output=/tmp/none"], "--input is missing"),
        (["--from=pytorch", "--input=nowhere", "--output=/tmp/none"], "The directory nowhere does not exist"),
    ],
)
def test_wrong_commands_are_told_in_a_sentence(arguments, message):
    status, _, error = command(*arguments)
    assert (status, message in error, len(error.splitlines())) == (2, True, 1), error


@pytest.mark.integration
def test_help_shows_what_to_type():
    status, text, _ = command("--help")
    assert status == 0
    assert "python -m medtok_jax.convert --workdir=DIR --to=pytorch --output=OUT" in text


@pytest.mark.integration
def test_from_the_command_line(small_tokenizer_dir, tmp_path):
    arguments = ("--to=huggingface", f"--tokenizer={small_tokenizer_dir}", f"--output={tmp_path / 'out'}")
    status, text, error = command(*arguments)
    assert status == 0, error
    assert f"hf upload TEAM/NAME {tmp_path / 'out'} ." in text
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    status, _, error = command(*arguments)
    assert (status, "is not empty" in error) == (2, True)
    assert command(*arguments, "--overwrite")[0] == 0
