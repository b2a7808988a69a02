"""Write visits for TransformEHR (Yang et al., 2023), https://github.com/whaleloops/TransformEHR.

Its `preprocess.py` writes and its `sample_load.py` reads three files with an entry for each patient: pickled visits,
pickled dates, and a line of text. The files are:

    train/, dev/, test/     value.pickle   one pickle for each patient: a list of visits ([tokens], [], [])
                            dates.pickle   one pickle for each patient: the days on which visits ended, `2156-01-11`,
                                           ascending
                            key.txt        subject_id
    dict.txt                the vocabulary: BERT's special and unused tokens, then MedTok tokens (`MEDTOK//<id>`)
    tokenizer/              the same vocabulary as `vocab.txt`, for `--tokenizer_name`
    model/config.json       configuration of BART with that vocabulary, for `--config_name`
    embed_tokens.npy        [tokens, width] float32, for `model.shared`
    unmapped_codes.json     codes that the tokenizer does not hold

As in `preprocess.py`, visits that end on the same day are merged. The repository lacks `dataset.py`, which would make
batches of these files.
"""

import json
import pickle  # nosec B403 # It only writes.
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medtok_jax.convert.ehr_models import spelling, transformehr_check
from medtok_jax.convert.ehr_models.open import Records, open_records, print_size
from medtok_jax.convert.ehr_models.projection import kept_variance
from medtok_jax.convert.ehr_models.spelling import Spelling
from medtok_jax.convert.ehr_models.transformehr_check import PARTS, SPECIAL, UNKNOWN
from medtok_jax.convert.request import Request
from medtok_jax.records.visits import Visits
from preprocessing.common.atomic import whole_folder
from preprocessing.common.errors import InputError
from preprocessing.common.progress import Bar

WIDTH = 768
HEADS = 12
MAX_POSITIONS = 1024
STD = 0.02
# Number of patients, drawn evenly from all, from which the size of the files is estimated.
_SAMPLED = 1024


def convert(request: Request) -> None:
    """Write all files into `request.output` and print the steps to train TransformEHR on them.

    Options: `width` (768 by default), `tokens_per_code` (0, the default: all).

    Raises:
        InputError: an argument cannot be used.
    """
    width = int(request.options.get("width", WIDTH))
    if width % HEADS:
        raise InputError(f"--width={width} must be a multiple of {HEADS}, the number of attention heads of BART.")
    records = open_records(request)
    spelled = spelling.by_tokens(
        records.rows,
        records.visits,
        special=list(SPECIAL),
        unknown=UNKNOWN if request.unmapped == "unk" else None,
        per_code=request.options.get("tokens_per_code", 0),
    )
    matrix, share = spelled.initial_matrix(width, std=STD)
    print_size(records.visits, _pickled_bytes(records.visits, spelled) + matrix.nbytes)
    matrix[0] = 0.0  # the row of `[PAD]`, as in every embedding with a padding index
    with whole_folder(request.output) as folder:
        write_patients(folder, records, spelled)
        _write_vocabulary(folder, spelled.tokens, width)
        np.save(folder / "embed_tokens.npy", matrix)
        records.write_report(folder)
        counts = transformehr_check.check_transformehr(folder)
    print(kept_variance(records.rows.config.embedding_dim, width, share))
    for part, (patients, visits) in counts.items():
        print(f"{part} holds {patients:,} patients with {visits:,} visits.")
    if all(patients == visits for patients, visits in counts.values()):
        print("Warning: no patient has two visits on different days, so that there is no next visit to learn from.")
    print(next_steps(request.output))


def write_patients(folder: Path, records: Records, spelled: Spelling) -> None:
    """Write the patients of each split into a folder of its own."""
    visits = records.visits
    bounds = visits.patient_offsets
    split = records.dataset.split_of(visits.subject[bounds[:-1]])
    for part, name in PARTS.items():
        (folder / part).mkdir()
        patients = np.flatnonzero(split == name)
        with (
            open(folder / part / "value.pickle", "wb") as values,
            open(folder / part / "dates.pickle", "wb") as dates,
            open(folder / part / "key.txt", "w", encoding="utf-8") as keys,
        ):
            for patient in Bar(patients, f"Writing {part}", unit=" patients", show=True):
                first, stop = bounds[patient : patient + 2]
                for file, content in zip((values, dates), _pickles(visits, spelled, first, stop), strict=True):
                    file.write(content)
                keys.write(f"{visits.subject[first]}\n")


def _pickles(visits: Visits, spelled: Spelling, first: int, stop: int) -> tuple[bytes, bytes]:
    """Return what `value.pickle` and `dates.pickle` hold of a patient, whose visits are `first` to `stop`."""
    days = list(_days(visits, first, stop))
    visited = [(_tokens(visits, spelled, same), [], []) for _, same in days]
    return pickle.dumps(visited, protocol=4), pickle.dumps([day for day, _ in days], protocol=4)


def _pickled_bytes(visits: Visits, spelled: Spelling) -> float:
    """Return about how many bytes the pickles of all patients will have, from a sample of the patients.

    A pickle holds a token in full where a patient first has it, and refers to it after that, so that the bytes of a
    token depend on the codebook and on the histories.
    """
    bounds = visits.patient_offsets
    count = len(bounds) - 1
    patients = np.unique(np.linspace(0, count - 1, min(count, _SAMPLED)).astype(np.int64))
    pickled = (_pickles(visits, spelled, bounds[one], bounds[one + 1]) for one in patients)
    return sum(len(content) for both in pickled for content in both) * count / len(patients)


def _days(visits: Visits, first: int, stop: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the days on which a patient's visits ended, ascending, and the visits of each day."""
    day = visits.end[first:stop].astype("datetime64[D]")
    for value in np.unique(day):
        yield str(value), first + np.flatnonzero(day == value)


def _tokens(visits: Visits, spelled: Spelling, same_day: np.ndarray) -> list[str]:
    codes = dict.fromkeys(int(code) for visit in same_day for code in visits.codes_of(visit))
    return [spelled.tokens[token] for code in codes for token in spelled.of(code)]


def _write_vocabulary(folder: Path, tokens: list[str], width: int) -> None:
    text = "".join(f"{token}\n" for token in tokens)
    (folder / "dict.txt").write_text(text, encoding="utf-8")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.txt").write_text(text, encoding="utf-8")
    # In lower case the tokens would not be in the vocabulary.
    tokenizer_config = {"tokenizer_class": "BertTokenizer", "do_lower_case": False}
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=1) + "\n")
    ids = {token: number for number, token in enumerate(tokens)}
    config = {
        "model_type": "bart",
        "vocab_size": len(tokens),
        "d_model": width,
        **{f"{side}_layers": 6 for side in ("encoder", "decoder")},
        **{f"{side}_attention_heads": HEADS for side in ("encoder", "decoder")},
        **{f"{side}_ffn_dim": 4 * width for side in ("encoder", "decoder")},
        "max_position_embeddings": MAX_POSITIONS,
        "init_std": STD,
        # The repository's copy of BART reads these fields, which the configuration in transformers no longer has.
        "static_position_embeddings": False,
        "normalize_embedding": True,
        "normalize_before": False,
        "add_final_layer_norm": False,
        "pad_token_id": ids["[PAD]"],
        "bos_token_id": ids["[CLS]"],
        "decoder_start_token_id": ids["[CLS]"],
        "eos_token_id": ids["[SEP]"],
    }
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def next_steps(output: Path) -> str:
    """Return the steps that remain in the repository of TransformEHR."""
    names = ("tokenizer", "model", "train", "dev", "test")
    tokenizer, model, train, dev, test = (shlex.quote(str(output / name)) for name in names)
    return f"""Next (git clone https://github.com/whaleloops/TransformEHR; its README lists the packages):
  sample_load.py  dir_path = {str(output / "train")!r}; it prints the patients
  main_bart.py    after model.resize_token_embeddings(len(tokenizer)):
                  import numpy, torch; model.model.shared.weight.data.copy_(
                      torch.from_numpy(numpy.load({str(output / "embed_tokens.npy")!r})))
  python main_bart.py --do_pos_emb --icd_training --load_cui_leng --model_type=bart \\
      --tokenizer_name={tokenizer} --config_name={model} \\
      --do_train --train_data_file={train} --do_eval --eval_data_file={dev} \\
      --test_data_file={test} --block_size 512 --mlm --mlm_probability 0.5 --output_dir=OUT --logging_dir=LOG
The repository lacks dataset.py, which main_bart.py imports: ask its authors for it, or write it."""
