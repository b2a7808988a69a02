"""The exported tokenizer against `MedTokTokenizer`: spellings, batches, round trips, and a machine without JAX."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml

from medtok_jax import MedTokTokenizer
from medtok_jax.convert.huggingface import convert
from medtok_jax.convert.request import make_request
from preprocessing.common.errors import InputError, UserError
from tests.helpers import guide_examples, small_tokenizer
from tests.helpers.small_tokenizer import KEYS, REGIONS, K

# Two codes of one set of tokens, and what only an alias, a MEDS code or another spelling finds.
SPELLINGS = [
    *KEYS,
    *(
        "E11.9",
        "e119",
        " E119 ",
        "E1.19",
        "E11.9X",
        "icd10cm:E119",
        "ICD-10-CM/e11.9",
        "ICD10 | E11.65",
        "ICD10/0016070",
    ),
    *("DIAGNOSIS//ICD//10//E119", "DIAGNOSIS//ICD//9//25000", "PROCEDURE//ICD//9//0010", "DIAGNOSIS//ICD//9//0010"),
    *(
        "0010",
        "001.0",
        "00.10",
        "ICD9/0010",
        "ICD9CM/0010",
        "ICD9PCS/0010",
        "10021",
        "CPT/10021",
        "sct:10021",
        "E849.0",
    ),
    *(
        "0002-1433-80",
        "NDC//0002-1433-80",
        "00002-1433-80",
        "0002143380",
        "A10 BA02",
        "a10ba02",
        "ATC:A10BA02",
        "99213",
    ),
    *("", "/", "//", "ICD10CM/", "HIV/AIDS", "nonsense", "ſ72.001A", "E11.9\n", "\ud800", "E11.9" * 50, "LAB//E119"),
    *("[UNK]", "<text_0>", "RXCUI/860975", "J1815", "hcpcs j1815", "25.0", "250", "250.00", "SNOMEDCT_US|44054006"),
]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return small_tokenizer.write(tmp_path_factory.mktemp("source") / "tok")


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory):
    output = tmp_path_factory.mktemp("exported") / "out"
    convert.convert(make_request(output=output, tokenizer=source))
    return output


@pytest.fixture(scope="module")
def exported(folder):
    return convert.load_module(folder).MedTokTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def original(source):
    return MedTokTokenizer.from_pretrained(source)


def outcome(call) -> object:
    """Return the result of a call, or the name and candidates of its error."""
    try:
        return np.asarray(call()).tolist()
    except ValueError as error:
        name = type(error).__name__.replace("InputError", "ValueError")
        return name, getattr(error, "candidates", None)


@pytest.mark.parametrize("prefer", [(), "paper", ["SNOMED", "icd9proc"], "ICD9"])
@pytest.mark.parametrize("system", [None, "ICD9", "NDC", "cpt", "ICD10CM"])
def test_every_spelling_finds_the_same(folder, source, prefer, system):
    exported = convert.load_module(folder).MedTokTokenizer.from_pretrained(folder, prefer=prefer)
    original = MedTokTokenizer.from_pretrained(source, prefer=prefer)
    found = {text: outcome(lambda text=text: exported.encode(text, system=system)) for text in SPELLINGS}
    assert found == {text: outcome(lambda text=text: original.encode(text, system)) for text in SPELLINGS}
    assert sum(isinstance(ids, list) for ids in found.values()) > 3


def test_values_that_are_no_codes(exported, original):
    for value in (None, float("nan"), 3, b"E11.9"):
        assert outcome(lambda value=value: exported.encode(value)) == outcome(
            lambda value=value: original.encode(value)
        )
    assert exported([None, float("nan")])["input_ids"] == [[exported.unk_token_id] * 4 * K] * 2
    for call in (exported, original):
        with pytest.raises(ValueError, match="code system"):
            call("E11.9", system="ICD11")
        with pytest.raises(ValueError, match="errors"):
            call("E11.9", errors="ignore")


def test_vocabulary_and_special_tokens(exported, original):
    assert exported.get_vocab() == original.get_vocab()
    assert len(exported) == exported.vocab_size == original.vocab_size == REGIONS.size + 5
    for name in ("pad", "unk", "cls", "sep", "mask"):
        assert getattr(exported, f"{name}_token_id") == getattr(original, f"{name}_token_id")
    assert exported.tokenize("E11.9") == original.tokenize("E11.9")
    ids = list(range(exported.vocab_size))
    assert exported.convert_tokens_to_ids(exported.convert_ids_to_tokens(ids)) == ids
    assert sorted(exported.all_special_ids) == ids[-5:]


HISTORY = [["E11.9", "I10"], [], ["250.00", "A10BA02", "E10.9"], ["nonsense"]]
INPUTS = ["E11.9", ["E11.9", "nonsense", None], HISTORY, [HISTORY, [["E11.9"]], [[]]]]
LAYOUTS = [
    {},
    {"add_special_tokens": True},
    {"add_special_tokens": False},
    {"padding": True, "return_tensors": "np"},
    {"padding": "max_length", "max_length": 60, "padding_side": "left", "return_tensors": "np"},
    {"truncation": True, "max_length": 29},
    {"truncation": True, "max_length": 29, "truncation_side": "left", "padding": True, "return_tensors": "np"},
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("codes", INPUTS, ids=("code", "codes", "history", "histories"))
def test_batches_are_the_same(exported, original, codes, layout):
    wanted = original(codes, **layout)
    found = exported(codes, return_weights=True, return_visit_ids="visit_ids" in wanted, **layout)
    assert found.keys() == wanted.keys()

    def as_lists(value):
        return [as_lists(x) for x in value] if np.ndim(value) or isinstance(value, list) else value

    for name in wanted:
        ragged = isinstance(wanted[name], list)
        rows = zip(found[name], wanted[name], strict=True) if ragged else [(found[name], wanted[name])]
        for here, there in rows:
            np.testing.assert_array_equal(np.asarray(here, np.asarray(there).dtype), there, err_msg=name)


def test_codes_without_visits(exported):
    (row,) = exported([["E11.9", "E10.9"]], is_split_into_words=True)["input_ids"]
    assert row == [exported.cls_token_id, *exported.encode("E11.9"), *exported.encode("E10.9"), exported.sep_token_id]
    assert exported(["E11.9", "E10.9"], is_split_into_words=True, add_special_tokens=False)["input_ids"] == row[1:-1]
    with pytest.raises(ValueError, match="text_pair is not supported"):
        exported("E11.9", "E10.9")
    with pytest.raises(ValueError, match="nested too deeply"):
        exported([[[["E11.9"]]]])
    with pytest.raises(ValueError, match="the tokens of one code"):
        exported("E11.9", truncation=True, max_length=3)


def test_decode_and_nearest(exported, original):
    for key in KEYS:
        ids = original.encode(key).tolist()
        wanted = original.decode(ids, k=4)
        found = exported.nearest(ids, 4)
        assert [(near.key, near.description) for near in found] == [
            (near.key, "" if near.key.split("/")[0] in ("CPT4", "SNOMED", "ATC") else near.description)
            for near in wanted
        ]
        np.testing.assert_allclose([near.score for near in found], [near.score for near in wanted], rtol=1e-6)
        assert exported.decode(ids) == wanted[0].key
    row = exported([["E11.9", "I10"], ["E10.9"]])["input_ids"]
    first, last = exported.decode(exported.encode("E11.9")), exported.decode(exported.encode("E10.9"))
    assert exported.decode(row) == f"[CLS] {first} [UNK] [SEP] {last} [SEP]"
    assert exported.decode(row, skip_special_tokens=True) == f"{first} {last}"
    assert exported.batch_decode(np.array([row, row]), skip_special_tokens=True) == [f"{first} {last}"] * 2
    assert exported.decode([]) == ""


def test_embeddings(exported, original):
    np.testing.assert_array_equal(exported.embed(list(KEYS)), original.embed(list(KEYS)))
    np.testing.assert_array_equal(exported.embed("e119"), original.embed("e119"))
    np.testing.assert_array_equal(exported.embed("e119", pooled=True), original.embed("e119", pooled=True))
    np.testing.assert_array_equal(exported.codebook, original.directory.codebook)
    with pytest.raises(ValueError, match="not among"):
        exported.embed("nonsense")


def test_residual_tokens_are_added_up(tmp_path):
    source = small_tokenizer.write(tmp_path / "tok", kind="residual")
    convert.convert(make_request(output=tmp_path / "out", tokenizer=source))
    exported = convert.load_module(tmp_path / "out").MedTokTokenizer.from_pretrained(tmp_path / "out")
    np.testing.assert_array_equal(exported.embed("E11.9"), MedTokTokenizer.from_pretrained(source).embed("E11.9"))


def test_round_trips(exported, folder, tmp_path, monkeypatch):
    exported.save_pretrained(tmp_path / "again")
    again = type(exported).from_pretrained(tmp_path / "again")
    # A worker process imports the file itself.
    monkeypatch.setitem(sys.modules, "tokenization_medtok", module := convert.load_module(folder))
    sent = pickle.loads(content := pickle.dumps(module.MedTokTokenizer.from_pretrained(folder)))
    assert b"what ICD10CM" not in content, "a worker maps the table instead of being sent it"
    for other in (again, sent):
        assert other(HISTORY)["input_ids"] == exported(HISTORY)["input_ids"]
        assert (len(other), other.all_special_tokens) == (len(exported), exported.all_special_tokens)
    preferring = type(exported).from_pretrained(tmp_path / "again", prefer=["ICD9Proc"])
    preferring.save_pretrained(tmp_path / "preferring")
    assert type(exported).from_pretrained(tmp_path / "preferring").encode("0010") == exported.encode("ICD9Proc/00.10")


def test_collators(exported):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    rows = [exported([["E11.9"]], return_weights=True), exported([["E11.9", "E10.9"], ["E10.9"]], return_weights=True)]
    batch = transformers.DataCollatorWithPadding(exported)(rows)
    assert batch["input_ids"].shape == batch["weights"].shape == batch["attention_mask"].shape
    assert batch["weights"][0, -1] == 0
    masked = transformers.DataCollatorForLanguageModeling(exported, mlm_probability=0.5)(
        [{"input_ids": row["input_ids"]} for row in rows]
    )
    special = (batch["input_ids"] == exported.cls_token_id) | (batch["input_ids"] == exported.pad_token_id)
    assert (masked["labels"][special] == -100).all()
    assert (masked["labels"] != -100).any()


def test_card(folder, source, tmp_path):
    def card(**options) -> tuple[dict, str]:
        convert.convert(make_request(output=tmp_path / "card", tokenizer=source, overwrite=True, **options))
        _, metadata, text = (tmp_path / "card" / "README.md").read_text().split("---\n", 2)
        return yaml.safe_load(metadata), text

    metadata, text = card()
    assert metadata["library_name"] == "transformers"
    assert {"ICD10CM", "medtok"} <= set(metadata["tags"])
    assert "model-index" not in metadata
    assert "The figures are not known" in text
    assert "descriptions of the 2 codes of SNOMED are not in this repository" in text
    workdir = tmp_path / "run"
    workdir.mkdir()
    figures = {"codebook_utilization": 0.75, "codebook_utilization_text": 0.5, "cosine": 0.9}
    summary = {"codes": len(KEYS), "all_codes": figures, "validation": {"kl_loss": 0.125}, "missing_graph": 3}
    (workdir / "summary.json").write_text(json.dumps(summary))
    metadata, text = card(workdir=workdir)
    (results,) = metadata["model-index"][0]["results"]
    assert {m["type"]: m["value"] for m in results["metrics"]} == {"codebook_utilization": 0.75, "cosine": 0.9}
    assert "| Share of the codebook in use, text | 0.5 |" in text
    assert "| Validation kl loss | 0.125 |" in text
    assert "3 codes have no subgraph" in text
    (workdir / "summary.json").write_text(json.dumps(summary | {"codes": 1}))
    assert "The figures are not known" in card(workdir=workdir)[1], "figures of another run are not told as this one's"


def test_licensed_descriptions_stay_at_home(folder, exported, capsys, source, tmp_path):
    for key in KEYS:
        licensed = key.split("/")[0] in ("CPT4", "SNOMED", "ATC")
        assert exported.describe(key) == ("" if licensed else f"what {key} means")
    content = b"".join(path.read_bytes() for path in folder.iterdir())
    assert b"what CPT4" not in content
    convert.convert(make_request(output=tmp_path / "out", tokenizer=source))
    assert "The descriptions of 2 codes of CPT4 were left out" in capsys.readouterr().out


def test_an_export_that_differs_is_not_written(folder, original, source, tmp_path):
    other = small_tokenizer.make_tokens(seed=1)
    moved = MedTokTokenizer.from_pretrained(small_tokenizer.write(tmp_path / "other", other))
    with pytest.raises(UserError, match="but must give"):
        convert.check_same(folder, moved)
    assert convert.check_same(folder, original) == 6 * len(KEYS)


def test_refuses_a_damaged_table(folder, tmp_path):
    module = convert.load_module(folder)
    for content in (b"", b"none", b"\x10" + b"\0" * 40, (folder / "tokens.safetensors").read_bytes()[:500]):
        (tmp_path / "tokens.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match="is not a table of MedTok tokens"):
            module.MedTokTokenizer(tmp_path / "tokens.safetensors")
    with pytest.raises(InputError, match="is not a tokenizer directory"):
        make_request(output=tmp_path / "out", tokenizer=tmp_path)


# In front of the guide's example and behind it.
BEFORE = """
import sys
for name in ("jax", "jaxlib", "flax", "medtok_jax", "preprocessing", "pyarrow", "torch"):
    sys.modules[name] = None  # As if it were not installed.
"""
AFTER = """
tokenizer.save_pretrained("again")
again = AutoTokenizer.from_pretrained("again", trust_remote_code=True)
assert again("E11.9")["input_ids"] == tokenizer("E11.9")["input_ids"]
print(tokenizer.decode(again.encode("E11.65")), again.embed("E11.65").shape, *again.encode("E11.65"))
"""


@pytest.mark.integration
def test_opens_where_neither_jax_nor_this_package_is(folder, original, tmp_path):
    shutil.copytree(folder, tmp_path / "medtok-icd")
    example = "".join(guide_examples.examples("Hugging Face", "python"))
    done = subprocess.run(
        [sys.executable, "-I", "-c", BEFORE + example + AFTER],
        cwd=tmp_path,
        env=os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    ids = " ".join(map(str, original.encode("E11.65")))
    assert done.stdout.split("\n")[-2] == f"{original.decode(original.encode('E11.65'))[0].key} (4, 4) {ids}"
