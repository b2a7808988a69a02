"""Whatever is in a file from elsewhere, its reader returns or says in one line what is wrong: all readers in one table.

A reader that is not in the table is found by the calls in the code.
"""

import contextlib
import io
import random

import pytest

from tests.helpers.foreign_readers import calls, library, mutations, publishers, records
from tests.helpers.foreign_readers.mutations import (
    ForeignReader,
    fault_of_reading,
    fault_of_sentence,
    files_of,
    mutated,
)

READERS: dict[str, ForeignReader] = publishers.READERS | records.READERS | library.READERS
MUTATIONS = 30
KIND = "changed files from elsewhere, read by all readers"
# Of all readers together.
THOROUGH = 100_000
# Numbers of changes that were once not told.
FOUND = {"BERT": (192, 346), "ETHOS vocabulary of the paper": (911, 1427)}
# Functions that read no file from elsewhere, by the reason for it.
NOT_FOREIGN = {
    "what this project wrote itself, for its next run, and checks or makes anew": {
        "eval/ablations.py:Runner.do",
        "eval/ablations.py:Runner.is_done",
        "eval/ablations.py:Runner.results",
        "eval/ablations.py:Runner._train",
        "eval/ehr/cohorts.py:_read",
        "eval/ehr/history.py:_as_npy",
        "eval/ehr/history.py:_is_of",
        "eval/ehr/history.py:_read",
        "eval/ehr/settings.py:check_folder",
        "eval/ehr/settings.py:declare",
        "eval/faults.py:rows_of",
        "eval/quality/label_building.py:_held_out",
        "medtok_jax/convert/huggingface/card.py:read_summary",
        "medtok_jax/convert/pytorch/convert.py:_metadata",
        "medtok_jax/data/code_table.py:load",
        "medtok_jax/data/hard_negatives.py:_open_or_find",
        "medtok_jax/inference/vocabulary.py:Parts._is_whole",
        "medtok_jax/inference/vocabulary.py:Parts.begin",
        "medtok_jax/inference/vocabulary.py:Parts.read",
        "medtok_jax/text/cache.py:_Progress.open",
        "medtok_jax/text/cache.py:_open",
        "medtok_jax/text/cache.py:_reopen",
        "medtok_jax/text/cache.py:_settings_of",
        "medtok_jax/text/cache.py:copy_states",
        "medtok_jax/training/reporting.py:_read_history",
        "medtok_jax/training/reporting.py:finished_summary",
        "preprocessing/common/lines.py:read_lines",
        "preprocessing/common/listing.py:_compared",
        "preprocessing/common/listing.py:check_listing",
        "preprocessing/common/locks.py:_holder",
        "preprocessing/dataset/examples.py:examples",
        "preprocessing/dataset/examples.py:open_plan",
        "preprocessing/download/fetch.py:read",
        "preprocessing/download/partial_file.py:PartialFile.state",
        "preprocessing/download/wget.py:_read_log",
        "preprocessing/meds/conversion.py:_finished",
        "preprocessing/meds/generated/write.py:_Writer._state",
        "preprocessing/meds/generated/write.py:_finished",
        "preprocessing/meds/planted/write.py:_finished",
        "preprocessing/medtok_codes.py:report_of",
        "preprocessing/pipeline/stages.py:_read",
        "preprocessing/stats/tables.py:print_stats",
        "preprocessing/stats/verification.py:read_checks",
    },
    "files of the project itself, beside its code": {
        "eval/ehr/cohorts.py:_stamp",
        "eval/ehr/report/blocks.py:_asset",
        "eval/ehr/tasks/spelling.py:read_spelling",
        "eval/speed/generated_source.py:_words",
        "medtok_jax/convert/ehr_models/graph_files.py:write_graphs",
        "medtok_jax/convert/ehr_models/mult_ehr.py:_write_script_and_config",
        "medtok_jax/convert/ethos/stage.py:write",
        "medtok_jax/lookup/code_files.py:write",
        "medtok_jax/report/page.py:_asset",
        "preprocessing/common_diagnoses.py:main",
        "preprocessing/dataset/sample.py:held_codes",
        "preprocessing/meds/generated/vocabularies.py:_table",
    },
    "runs inside of another program, with files that were converted for it": {
        "medtok_jax/convert/ehr_models/mult_ehr_files/make_graph.py:main",
        "medtok_jax/convert/ehr_models/visit_graphs.py:VisitGraphs.of",
        "medtok_jax/convert/ethos/files/code_tokens.py:read_codes",
        "medtok_jax/convert/ethos/files/infer_samples.py:read_labels",
        "medtok_jax/convert/ethos/files/stages.py:Meds.measurements",
        "medtok_jax/convert/ethos/files/stages.py:Meds.quantiles",
        "medtok_jax/convert/ethos/files/stages.py:_CompleteCounter.agg",
        "medtok_jax/convert/ethos/files/stages.py:_MeasurementCounter.agg",
        "medtok_jax/convert/ethos/files/stages.py:_StaticData.agg",
        "medtok_jax/convert/ethos/meds.py:Spelled.frames",
        "medtok_jax/convert/pytorch/modeling_medtok.py:MedTok.from_pretrained",
        "medtok_jax/convert/pytorch/modeling_medtok.py:_load_bert",
    },
    "no parser: bytes to hash, to copy, or of the system; JSON that was just written; an answer of a server": {
        "eval/ablations.py:Runner.settings",
        "eval/speed/random_text.py:_on_disk",
        "eval/speed/report.py:_processor",
        "eval/speed/setup.py:Setting.encoder_and_width",
        "medtok_jax/devices/compilation_cache.py:_processor",
        "medtok_jax/devices/memory.py:free_programs",
        "preprocessing/common/checksums.py:md5_of",
        "preprocessing/common/checksums.py:sha256_of",
        "preprocessing/common/foreign_files.py:_state_of",
        "preprocessing/download/listings.py:_json",
        "preprocessing/pipeline/stages.py:_stamp",
    },
}


@pytest.fixture(params=READERS)
def reader(request, tmp_path):
    """A reader, its name, and a folder of its own with sound files."""
    folder = tmp_path / "files"
    folder.mkdir()
    found = READERS[request.param]
    with contextlib.redirect_stdout(io.StringIO()):
        found.write(folder)
    return request.param, found, folder


def faults_of(name: str, reader: ForeignReader, folder, numbers) -> dict[str, str]:
    """Return for changes of one file what the reader did wrong, by file, change and number."""
    files = files_of(folder)
    found = {}
    for number in numbers:
        rng = random.Random(f"{name} {number}")
        file = rng.choice(sorted(files))
        change, content = mutated(files[file], rng)
        path = folder / file
        # A new file each time: the reader may still map the old one into memory.
        path.unlink()
        path.write_bytes(content)
        if fault := fault_of_reading(reader, folder):
            found[f"{file}, {change}, {number}"] = fault
        path.unlink()
        path.write_bytes(files[file])
    return found


def test_any_change_is_read_or_told(reader, tell):
    name, found, folder = reader
    assert fault_of_reading(found, folder) is None
    numbers = [*range(max(2, round(MUTATIONS * found.weight))), *FOUND.get(name, ())]
    wrong = faults_of(name, found, folder, numbers)
    tell(KIND, tried=len(numbers), held=len(numbers) - len(wrong))
    assert wrong == {}


@pytest.mark.thorough
def test_a_hundred_thousand_changes_are_read_or_told(reader, tell):
    name, found, folder = reader
    share = found.weight / sum(one.weight for one in READERS.values())
    numbers = range(MUTATIONS, MUTATIONS + round(THOROUGH * share))
    wrong = faults_of(name, found, folder, numbers)
    tell(KIND, tried=len(numbers), held=len(numbers) - len(wrong))
    assert wrong == {}


@pytest.mark.integration
def test_every_reader_is_in_the_table(tmp_path):
    """A function that reads a file is entered by a reader of the table, or named with the reason why it need not be."""
    with calls.entered() as entered, contextlib.redirect_stdout(io.StringIO()):
        for number, (name, one) in enumerate(READERS.items()):
            folder = tmp_path / str(number)
            folder.mkdir()
            one.write(folder)
            assert fault_of_reading(one, folder) is None, name
    named = set().union(*NOT_FOREIGN.values())
    reading = set(calls.readers())
    assert reading - named - entered == set()
    assert named - reading == set(), "they do not read files any more"


def test_a_new_reader_is_found(tmp_path):
    (tmp_path / "eval").mkdir()
    path = tmp_path / "eval" / "new.py"
    for text in ("np.load(path)", "path.read_text()", "with path.open('rb') as file: pass", "pl.read_parquet(path)"):
        path.write_text(f"class A:\n    def read(path):\n        {text}\n")
        assert calls.readers(tmp_path) == {"eval/new.py:A.read": [3]}
    path.write_text("def write(path):\n    open(path, 'w')\n    Table.open(path)\n")
    assert calls.readers(tmp_path) == {}


def test_what_is_wrong_is_seen(monkeypatch):
    def raising(error):
        def read(_):
            raise error

        return ForeignReader(lambda _: None, read)

    assert fault_of_reading(raising(KeyError("a")), None).startswith("KeyError in ")
    slow = ForeignReader(lambda _: None, lambda _: sum(range(1_000_000)))
    assert fault_of_reading(slow, None) is None
    monkeypatch.setattr(mutations, "SLOWEST", 1e-4)
    assert fault_of_reading(slow, None).endswith("s of the processor")
    assert fault_of_sentence("two\nlines") == "a sentence of several lines"
    assert fault_of_sentence("bytes \x00") == "a sentence that is not printable"
    assert fault_of_sentence("x" * 5000) == "a sentence of thousands of characters"
    assert fault_of_sentence("one line") is None
