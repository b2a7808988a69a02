"""The command line: what it shows of a code, and how it fails."""

import io
import re
import subprocess
import sys

import pytest
from absl import flags
from rich.console import Console

from medtok_jax.lookup import code_files
from medtok_jax.tokenize.__main__ import define_flags, main
from medtok_jax.tokenize.display import show_code
from medtok_jax.tokenizer import MedTokTokenizer
from preprocessing.common.errors import InputError
from tests.helpers.small_tokenizer import write


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> MedTokTokenizer:
    return MedTokTokenizer.from_pretrained(write(tmp_path_factory.mktemp("tok") / "tok"))


def shown(tokenizer: MedTokTokenizer, code: str, **options) -> str:
    console = Console(file=io.StringIO(), width=160)
    show_code(tokenizer, tokenizer.look_up(code), console, **options)
    return console.file.getvalue()


def test_tokens_and_neighbors(tokenizer):
    text = shown(tokenizer, "e119", neighbors=3)
    assert "ICD10CM/E11.9  what ICD10CM/E11.9 means" in text
    # A row of ids and one of weights for each embedding, after its name.
    cells = [re.split(r" *│ *", line)[2:-1] for line in text.splitlines() if line.startswith("│")][:8]
    assert [int(number) for row in cells[::2] for number in row] == tokenizer.encode("E11.9")
    weights = [f"({weight:.2f})".replace("(0.", "(.") for weight in tokenizer.look_up("E11.9").weights]
    assert [weight for row in cells[1::2] for weight in row] == weights
    neighbors = tokenizer.neighbors("E11.9", 3)
    table = [re.split(r" *│ *", line)[1:3] for line in text.splitlines() if "means" in line and "│" in line]
    assert table == [[f"{neighbor.score:.2f}", neighbor.key] for neighbor in neighbors]


def test_each_token_has_a_line(tokenizer):
    text = shown(tokenizer, "ICD10CM/E11.9", verbose=True)
    for token in tokenizer.tokenize("E11.9"):
        assert token in text
    assert "ICD10CM/E11.9," not in text
    assert "means" not in text.split("\n", 2)[2]


def run(arguments: list[str], **values) -> None:
    """Run the command with arguments and flags, as `python -m medtok_jax.tokenize` does."""
    given = flags.FlagValues()
    define_flags(given)
    main(given(["tokenize", *arguments, *(f"--{name}={value}" for name, value in values.items())]), given)


@pytest.mark.parametrize("arguments", [[], ["codes"], ["file", "x"]])
def test_says_how_it_is_used(arguments):
    with pytest.raises(InputError, match="tokenize code CODE"):
        run(arguments)


@pytest.mark.parametrize(
    ("arguments", "given", "sentence"),
    [
        (["code"], {}, "No code is given"),
        (["code", "E11.9"], {}, "either --tokenizer=TOK or --workdir=DIR"),
        (["code", "E11.9"], {"tokenizer": "a", "workdir": "b"}, "either --tokenizer=TOK or --workdir=DIR"),
        (["code", "E11.9"], {"workdir": "/absent"}, "/absent/tokenizer is not a directory"),
        (["code", "E11.9", "E11"], {"description": "x"}, "for one code"),
        (["code", "E11.9"], {"tokenizer": "a", "graph": "/absent"}, "/absent cannot be read"),
        (["file"], {}, "--input is missing"),
        (["file"], {"input": "a"}, "--output is missing"),
        (["verify"], {}, "--tokenizer is missing"),
        (["vocabulary"], {"workdir": "/absent"}, "--output is missing"),
        (["vocabulary"], {"workdir": "/absent", "output": "/proc/x"}, "There is no checkpoint under /absent"),
    ],
)
def test_bad_input_is_one_sentence(arguments, given, sentence, tokenizer):
    if given.get("tokenizer") == "a" and len(given) > 1 and "workdir" not in given:
        given = given | {"tokenizer": str(tokenizer.directory.path)}
    with pytest.raises(InputError, match=sentence):
        run(arguments, **given)


@pytest.mark.integration
def test_it_runs_as_a_module(tokenizer):
    command = [sys.executable, "-m", "medtok_jax.tokenize", "verify", f"--tokenizer={tokenizer.directory.path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    files = len(code_files.names()) + 1
    told = (
        f"Verified {tokenizer.directory.path}: {tokenizer.num_codes} codes in {files} files, all as they were written."
    )
    assert done.stdout == f"{told}\n"


def test_a_file_without_any_token_is_an_error(tokenizer, tmp_path, capsys):
    (tmp_path / "codes.csv").write_text("code\nnonsense\n\nrubbish\n")
    paths = {"input": tmp_path / "codes.csv", "output": tmp_path / "t.csv", "tokenizer": tokenizer.directory.path}
    with pytest.raises(InputError, match=r"No row of .*codes\.csv has tokens"):
        run(["file"], **paths)
    assert "0 rows with tokens + 2 rejected = 2 rows" in capsys.readouterr().out
    assert len((tmp_path / "t.csv.rejects.csv").read_text().splitlines()) == 3


def test_a_file_adds_up(tokenizer, tmp_path, capsys):
    (tmp_path / "codes.csv").write_text("id;code\n1;E11.9\n2;\n3;E11\n4;nonsense\n")
    paths = {"input": tmp_path / "codes.csv", "output": tmp_path / "t.csv", "tokenizer": tokenizer.directory.path}
    run(["file"], **paths)
    told = capsys.readouterr().out.splitlines()
    assert told == [
        "Rejected rows by reason: no code (0, NaN, null or empty): 1; a code that this tokenizer does not know: 1.",
        f"Wrote {paths['output']}: 4 rows, 2 from the table (50.0%), 2 rejected (50.0%).",
        f"2 rows with tokens + 2 rejected = 4 rows of {paths['input']}.",
        f"{paths['output']}.rejects.csv lists the rejected rows with reasons.",
    ]
    assert (tmp_path / "t.csv").read_text().startswith("row,code,key,source,ids,weights,id\n")
    with pytest.raises(InputError, match="has tokens"):
        run(["file"], **paths, keep_columns=False, edition_column="id", code_column="code")
    assert (tmp_path / "t.csv.rejects.csv").read_text().count("its edition of ICD is") == 3
    assert (tmp_path / "t.csv").read_text() == "row,code,key,source,ids,weights\n"
