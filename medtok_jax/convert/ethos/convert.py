"""Write everything that ETHOS needs to train on MedTok tokens: data, vocabulary, tokenization, and an initial model.

    OUT/train, OUT/test              tokenized data sets (see `directory`), if --events is given
    OUT/models/medtok/recent_model.pt   initial checkpoint, in which the embeddings of MedTok tokens are the codebook
    OUT/ethos_stage                  stages with which ETHOS itself writes MedTok tokens (see `stage`)
    OUT/vocabulary/vocab_t{N}.csv    all MedTok tokens and the others that ETHOS needs, if --events is not given
    OUT/medtok_vocab_t{N}.pkl        vocabulary of ETHOS's first release
    OUT/unmapped_codes.json          codes in the records that the tokenizer does not hold, with counts
    OUT/medtok.json                  identity of the tokenizer, and settings of the conversion
    OUT/meds                         the records as MEDS, if --events is a MIMIC directory

--events is a MEDS data set, a directory of another source, or a data set that ETHOS has tokenized.
"""

import dataclasses
import shlex
from pathlib import Path

import numpy as np

from medtok_jax.convert.ehr_models.projection import kept_variance, project
from medtok_jax.convert.ehr_models.spelling import TokenLists
from medtok_jax.convert.ethos import check, checkpoint, codes, meds, rewrite
from medtok_jax.convert.ethos import directory as ethos_directory
from medtok_jax.convert.ethos import paper as ethos_paper
from medtok_jax.convert.ethos import stage as ethos_stage
from medtok_jax.convert.ethos import vocabulary as ethos_vocabulary
from medtok_jax.convert.ethos.checkpoint import ModelSize
from medtok_jax.convert.record_codes import RecordCodes
from medtok_jax.convert.request import Request
from medtok_jax.convert.timelines import describe_lengths
from medtok_jax.lookup.directory import TokenizerDirectory
from medtok_jax.records.event_codes import CodeMapper
from preprocessing.common import extras
from preprocessing.common.atomic import whole_folder
from preprocessing.common.errors import InputError
from preprocessing.meds.dataset import MedsDataset
from preprocessing.meds.open import open_events

METADATA = "medtok.json"
UNMAPPED = "unmapped_codes.json"
MODEL = Path("models") / "medtok"
# Share of the timelines that ETHOS validates on, if the records have no tuning split.
VALIDATION = 0.05
_SIZES = {"width": "n_embd", "n_layer": "n_layer", "n_head": "n_head", "n_positions": "n_positions"}


@dataclasses.dataclass(frozen=True)
class EthosData:
    """Describe tokenized data: size of each part, vocabulary, share for validation, and notes on omitted events."""

    parts: dict[str, check.Summary]
    vocabulary: list[str]
    validation: float
    notes: list[str]


def convert(request: Request) -> None:
    """Write `request.output` and print the steps that remain.

    Raises:
        InputError: an argument cannot be used, or torch is missing.
    """
    directory = TokenizerDirectory.read(request.tokenizer)
    size = ModelSize(**{_SIZES[name]: request.options[name] for name in _SIZES if name in request.options})
    size.check()
    extras.load("torch")
    paper = request.options.get("paper_vocabulary")
    base = ethos_paper.read(Path(paper).expanduser()) if paper else None
    with whole_folder(request.output) as folder:
        dataset = _open_events(request, folder)
        mapped = RecordCodes.of(directory, request.unmapped, dataset)
        tokens = TokenLists.of(mapped.rows, request.options.get("tokens_per_code", 0))
        ethos_stage.write(folder, directory, mapped, tokens, request.output)
        written = ethos_paper.write(folder, ethos_paper.vocabulary(directory.config.codebook_size, base))
        ethos_paper.read(written)
        data = None
        if dataset is not None:
            speller = meds.Speller(mapped.mapper, tokens)
            data = _checked_data(_from_meds(dataset, directory, speller, folder, size), mapped.mapper, folder, size)
        elif request.events:
            rewritten = _rewrite(request.events, directory, mapped.mapper, tokens, folder, size)
            data = _checked_data(rewritten, mapped.mapper, folder, size)
        if data:
            path = checkpoint.write(folder / MODEL, data.vocabulary, directory.codebook, size)
            check.check_checkpoint(path, data.vocabulary, size)
            share = project(directory.codebook, size.n_embd).share
            print(kept_variance(directory.config.embedding_dim, size.n_embd, share))
        else:
            _write_vocabulary(folder / "vocabulary", directory.config.codebook_size)
        metadata = {
            "tokenizer": directory.config.identity,
            "unmapped": request.unmapped,
            "model": dataclasses.asdict(size),
        }
        ethos_directory.write_json(folder / METADATA, metadata)
    print(_summary(request.output, data, size))


def _write_vocabulary(folder: Path, codebook_size: int) -> None:
    folder.mkdir()
    ethos_vocabulary.write(folder, ethos_vocabulary.complete((), codebook_size))
    ethos_vocabulary.read(folder)


def _open_events(request: Request, folder: Path) -> MedsDataset | None:
    """Return the records of a request as MEDS; None if there are none, or ETHOS has tokenized them.

    Raises:
        InputError: the records cannot be read, or their times are only an order.
    """
    if request.events is None or rewrite.is_tokenized(request.events):
        return None
    dataset = open_events(request.events, folder / "meds")
    if dataset.time_is_order:
        raise InputError(
            f"ETHOS learns the time between events, but {request.events} gives only their order (time_is_order in"
            " metadata/dataset.json); choose another --to or other records."
        )
    return dataset


def _checked_data(data: EthosData, mapper: CodeMapper, folder: Path, size: ModelSize) -> EthosData:
    """Write the report of unmapped codes, and return the data with notes on them.

    Raises:
        InputError: there is no timeline to train on.
    """
    mapper.write(folder / UNMAPPED)
    train = data.parts["train"]
    # ETHOS validates on the end of the data; at least one timeline must remain before it to train on.
    left = (train.tokens - size.n_positions) * (1 - data.validation) - size.n_positions
    if left < 1:
        fits = max(8, int(train.tokens * (1 - data.validation) / (2 - data.validation)) - 1)
        raise InputError(
            f"{train.tokens:,} training tokens are too few for timelines of {size.n_positions:,} tokens; give"
            f" --n_positions={fits} or less."
        )
    warnings = [warning] if (warning := mapper.warning()) else []
    return dataclasses.replace(data, notes=[*mapper.summary().splitlines(), *warnings, *data.notes])


def _from_meds(
    dataset: MedsDataset, directory: TokenizerDirectory, speller: meds.Speller, folder: Path, size: ModelSize
) -> EthosData:
    n = directory.config.codebook_size
    spelled = meds.spell(dataset, speller, folder / "spelled")
    _print_sizes(meds.timeline_lengths(spelled, n), len(spelled.vocabulary(n)), size)
    written = meds.write(spelled, n, folder)
    parts = {name: check.check_ethos(folder / name, n, n_positions=size.n_positions) for name in written.tokens}
    train = written.tokens["train"]
    share = train.get("tuning", 0) / sum(train.values())
    left_out = dataclasses.asdict(written.left_out)
    notes = [f"{count:,} {name.replace('_', ' ')} were left out." for name, count in left_out.items() if count]
    return EthosData(parts, written.vocabulary, round(share, 4) if 0 < share < 0.5 else VALIDATION, notes)


def _print_sizes(timelines: dict[str, np.ndarray], vocabulary_size: int, size: ModelSize) -> None:
    """Print the lengths of timelines, which ETHOS reads in windows, and the size of the files before any is written.

    Args:
        timelines: `[patients]` int64 of each directory, tokens of each timeline.
        vocabulary_size: number of tokens.
        size: sizes of the network.
    """
    remedy = "a smaller --tokens_per_code shortens them"
    for name, lengths in timelines.items():
        print(describe_lengths(lengths, size.n_positions, f"{name}: timelines", remedy))
    model = checkpoint.weight_bytes(size, vocabulary_size)
    total = model + sum(map(ethos_directory.timeline_bytes, timelines.values()))
    print(f"The files will have about {total / 1e6:,.1f} MB, of which the model has {model / 1e6:,.1f} MB.")


def _rewrite(
    events: Path,
    directory: TokenizerDirectory,
    mapper: CodeMapper,
    tokens: TokenLists,
    folder: Path,
    size: ModelSize,
) -> EthosData:
    sources = rewrite.find_parts(events)
    vocabulary = ethos_vocabulary.read(sources["train"])
    _check_origin(events, vocabulary, directory)
    has_titles = (codes.kinds(vocabulary) == codes.CM_TITLE).any()
    titles = codes.category_titles() if has_titles else {}
    n = directory.config.codebook_size
    counting = rewrite.Rewriter(vocabulary, CodeMapper.of(directory, mapper.unmapped), tokens, titles, n)
    timelines = {name: rewrite.timeline_lengths(source, counting) for name, source in sources.items()}
    _print_sizes(timelines, len(counting.vocabulary), size)
    rewriter = rewrite.Rewriter(vocabulary, mapper, tokens, titles, n)
    parts = {}
    for name, source in sources.items():
        rewrite.rewrite(source, folder / name, rewriter)
        parts[name] = check.check_ethos(folder / name, n, n_positions=size.n_positions)
    return EthosData(parts, rewriter.vocabulary, VALIDATION, [])


def _check_origin(events: Path, vocabulary: list[str], directory: TokenizerDirectory) -> None:
    """Refuse MedTok tokens of another tokenizer, recognized by the metadata or by ids beyond the codebook."""
    n = directory.config.codebook_size
    foreign = ethos_vocabulary.medtok_token(n) in vocabulary
    metadata = next((path for path in (events / METADATA, events.parent / METADATA) if path.is_file()), None)
    if metadata and any(token.startswith("MEDTOK//") for token in vocabulary):
        foreign |= ethos_directory.read_json(metadata).get("tokenizer") != directory.config.identity
    if foreign:
        raise InputError(f"{events} holds tokens of another tokenizer than {directory.path}; convert with that one.")


def _summary(output: Path, data: EthosData | None, size: ModelSize) -> str:
    """Return a summary of the written files, and the commands that remain."""
    out = shlex.quote(str(output))
    install = "git clone https://github.com/ipolharvard/ethos-ares && pip install -e ethos-ares    # needs Python 3.12"
    if data is None:
        head = f"{output} was written; without --events it holds no data."
        return _lines(head, "To tokenize with ETHOS:", [install, *stage_commands(output)])
    lines = [
        f"{name} holds {part.patients:,} patients and {part.tokens:,} tokens, {part.medtok_tokens:,} of them of MedTok."
        for name, part in data.parts.items()
    ]
    lines = [f"{output} was written.", *lines, *data.notes]
    lines.append(f"Codes that the tokenizer does not hold are listed in {output / UNMAPPED}.")
    train = [
        install,
        "export WANDB_MODE=offline    # ethos_infer reads only models of logged runs",
        # ETHOS's evaluation needs torchrun, as only the distributed model knows its device.
        "# Set nproc_per_node to the number of GPUs, which must divide gradient_accumulation_steps.",
        "torchrun --no_python --standalone --nproc_per_node=1"
        f" ethos_train {train_arguments(output, data.validation, size)}",
    ]
    if "test" in data.parts:
        model = f"task=readmission model_fp={out}/{MODEL}/best_model.pt"
        train.append(f"ethos_infer {model} input_dir={out}/test output_dir={out}/results rep_num=20")
        train.append(f"# It writes to {out}/results_RUN, where RUN is the id of the training run in Weights & Biases.")
    return _lines("\n".join(lines), "To train and predict:", train)


def stage_commands(output: Path) -> list[str]:
    """Return the commands that tokenize with MedTok's stages in ETHOS, and that make a checkpoint for the result."""
    stage = f"{shlex.quote(str(output))}/{ethos_stage.FOLDER}"
    tokenize = f"ethos_tokenize --config-dir={stage}/configs dataset=medtok_mimic output_dir=TOKENIZED"
    return [
        f"cp -r {stage}/tokenize/medtok ethos-ares/src/ethos/tokenize/",
        f"{tokenize} out_fn=train input_dir=MEDS/data/train",
        f"{tokenize} out_fn=test input_dir=MEDS/data/test vocab=TOKENIZED/train",
        "python -m medtok_jax.convert --workdir=DIR --to=ethos --events=TOKENIZED --output=OUT",
    ]


def train_arguments(output: Path, validation: float, size: ModelSize) -> str:
    """Return arguments of `ethos_train`: those of ETHOS's training script, with the initial checkpoint."""
    given = {
        "data_fp": output / "train",
        "out_dir": output / MODEL,
        "resume": "true",
        "val_size": validation,
        "n_positions": size.n_positions,
        "n_layer": size.n_layer,
        "n_head": size.n_head,
        "n_embd": size.n_embd,
        "dropout": size.dropout,
        "batch_size": 32,
        "gradient_accumulation_steps": 16,
        "lr": 0.0006,
        "min_lr": 0.00001,
        "warmup_iters": 5000,
        "lr_decay_iters": 100_000,
        "max_iters": 200_000,
        "eval_interval": 1500,
        "wandb_log": "true",
    }
    return " ".join(f"{name}={shlex.quote(str(value))}" for name, value in given.items())


def _lines(head: str, title: str, commands: list[str]) -> str:
    return "\n".join([head, "", title, *(f"    {command}" for command in commands)])
