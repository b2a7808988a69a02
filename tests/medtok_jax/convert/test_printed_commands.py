"""Commands that conversions print can be typed as they stand, also where a path holds blanks and quotation marks."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from medtok_jax.convert import medtok_json
from medtok_jax.convert.ehr_models import mult_ehr, transformehr
from medtok_jax.convert.huggingface import convert as huggingface
from medtok_jax.convert.request import make_request

OUT = Path("/records/Anne's own data/out")


def test_those_of_transformehr():
    text = transformehr.next_steps(OUT)
    command = text[text.index("python main_bart.py") : text.index("The repository lacks")].replace("\\\n", " ")
    words = set(shlex.split(command))
    assert {f"--tokenizer_name={OUT}/tokenizer", f"--config_name={OUT}/model", f"--test_data_file={OUT}/test"} <= words
    assert {f"--train_data_file={OUT}/train", f"--eval_data_file={OUT}/dev"} <= words
    assert ast.literal_eval(re.search(r"dir_path = (.*);", text)[1]) == f"{OUT}/train"
    assert ast.literal_eval(re.search(r"numpy\.load\((.*?)\)", text)[1]) == f"{OUT}/embed_tokens.npy"


def test_those_of_mult_ehr():
    lines = [shlex.split(line) for line in mult_ehr.next_steps(OUT).splitlines() if "records" in line]
    assert lines == [
        ["python", f"{OUT}/make_graph.py"],
        ["cp", f"{OUT}/HGT_Causal_MEDTOK.yml", "MulT-EHR/configs/"],
    ]


@pytest.mark.integration
def test_those_of_tokenizers(small_tokenizer_dir, tmp_path, capsys):
    for convert in (huggingface.convert, medtok_json.convert):
        output = tmp_path / f"Anne's own {convert.__module__}"
        convert(make_request(output=output, tokenizer=small_tokenizer_dir))
        text = capsys.readouterr().out
        if convert is huggingface.convert:
            (upload,) = [line for line in text.splitlines() if "hf upload" in line]
            assert str(output) in shlex.split(upload.partition("#")[0])
            assert ast.literal_eval(re.search(r"from_pretrained\((.*), trust", text)[1]) == str(output)
        else:
            exec(next(line for line in text.splitlines() if "json.load" in line).strip(), {})
