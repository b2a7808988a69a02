"""The size that is printed before files are written, against the files, on generated records."""

import re

import pytest

from medtok_jax.convert.ehr_models import behrt, mult_ehr, transformehr
from medtok_jax.convert.ethos import convert as ethos
from medtok_jax.convert.request import make_request
from preprocessing import codes
from preprocessing.meds import convert
from preprocessing.meds.generated.vocabularies import CODE, read_vocabularies
from preprocessing.meds.generated.write import GenerateRequest, generate
from tests.helpers import small_tokenizer

pytest.importorskip("torch")
geometric = pytest.importorskip("torch_geometric.data")

from medtok_jax.convert.ehr_models import gt_behrt  # noqa: E402

TARGETS = {"behrt": behrt, "mult_ehr": mult_ehr, "transformehr": transformehr, "gt_behrt": gt_behrt, "ethos": ethos}
# A small model, beside which the timelines count.
OPTIONS = {"ethos": {"width": 12, "n_layer": 1, "n_positions": 16}}


# Rows of the codebook of `configs/default.py`; a file takes more bytes for a token where there are more tokens.
CODEBOOK = 12_000


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Two tokenizers of all codes that generated patients can have, and the records of 600 of them."""
    folder = tmp_path_factory.mktemp("sizes")
    generate(GenerateRequest(folder / "mimic4", 600, progress=False))
    convert.convert(convert.MedsRequest(folder / "mimic4", folder / "meds", progress=False))
    known = read_vocabularies()
    systems = {
        **{codes.ICD9CM: known.diagnoses[9], codes.ICD10CM: known.diagnoses[10], codes.NDC: known.drugs},
        **{codes.ICD9PROC: known.procedures[9], codes.ICD10PCS: known.procedures[10]},
    }
    keys = [
        f"{system}/{codes.display_code(system, code)}"
        for system, ranked in systems.items()
        for code in ranked.code[ranked.kind == CODE]
    ]
    tokens = small_tokenizer.make_tokens([key for key in keys if key != f"{codes.NDC}/0"])
    small_tokenizer.write(folder / "small", tokens)
    small_tokenizer.write_wide(folder / "large", tokens, CODEBOOK)
    return folder


def sizes(target, tokenizer, meds, output, capsys):
    """Convert; return the printed megabytes, and those of the files without lists of unmapped codes and vocabulary."""
    request = make_request(output=output, tokenizer=tokenizer, events=meds, options=OPTIONS.get(target))
    TARGETS[target].convert(request)
    told = re.search(r"(?:take|about) ([\d,.]+) MB", capsys.readouterr().out)
    lists = ("vocabulary.pkl", "label_vocabulary.pkl", "unmapped_codes.json", "vocab.txt", "dict.txt")
    files = [path for path in output.rglob("*") if path.is_file() and path.name not in (*lists, "initial_nodes.npy")]
    return float(told[1].replace(",", "")), sum(path.stat().st_size for path in files) / 1e6


@pytest.mark.thorough
@pytest.mark.integration
@pytest.mark.parametrize("target", TARGETS)
def test_the_size_is_printed_before_it_is_written(inputs, tmp_path, capsys, target):
    """Within a quarter of the truth, the lists of unmapped codes and of the vocabulary aside."""
    told, size = sizes(target, inputs / "small", inputs / "meds", tmp_path / "out", capsys)
    assert told == pytest.approx(size, rel=0.25, abs=0.2)


@pytest.mark.thorough
@pytest.mark.integration
@pytest.mark.parametrize("target", ["behrt", "transformehr"])
def test_the_printed_size_holds_for_a_codebook_of_usual_size(inputs, tmp_path, capsys, target):
    """A constant number of bytes for each token told half of the bytes of BEHRT's tables at full size."""
    output = tmp_path / "out"
    told, size = sizes(target, inputs / "large", inputs / "meds", output, capsys)
    matrix = sum(path.stat().st_size for path in output.glob("*.npy")) / 1e6
    assert told - matrix == pytest.approx(size - matrix, rel=0.15, abs=0.1)
