"""List the readers of files of users, of tokenizers and models, and of files that conversions to other formats read."""

import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from eval.common import representation
from eval.quality.labels import Labels as QualityLabels
from medtok_jax.convert import medtok_json
from medtok_jax.convert.ehr_models import (
    behrt,
    gt_behrt,
    mult_ehr,
    transformehr,
)
from medtok_jax.convert.ehr_models.behrt_check import check_behrt
from medtok_jax.convert.ehr_models.gt_behrt_check import check_gt_behrt
from medtok_jax.convert.ehr_models.mult_ehr_check import check_mult_ehr
from medtok_jax.convert.ehr_models.transformehr_check import check_transformehr
from medtok_jax.convert.ethos import check, paper
from medtok_jax.convert.ethos import checkpoint as ethos_checkpoint
from medtok_jax.convert.ethos import codes as ethos_codes
from medtok_jax.convert.ethos import vocabulary as ethos_vocabulary
from medtok_jax.convert.huggingface.card import read_summary
from medtok_jax.convert.pytorch import restore, weights
from medtok_jax.convert.request import make_request
from medtok_jax.inference import graph_input, model_reader
from medtok_jax.lookup.directory import TokenizerDirectory
from medtok_jax.models.bert import BertConfig, load_bert
from medtok_jax.report.codes import read_codes as read_listed_codes
from medtok_jax.text.encoder_files import TextTokenizer
from medtok_jax.tokenize import readers
from medtok_jax.tokenize.__main__ import _read_graph as read_graph_flag
from tests.helpers import hand_world, small_ethos, small_tokenizer, small_visits
from tests.helpers.foreign_readers.mutations import ForeignReader
from tests.helpers.foreign_readers.publishers import TABULAR, package, text_file

ROWS = [{"code": "E11.9", "system": "ICD10CM", "note": "a, b"}, {"code": "250.00", "system": "ICD9CM", "note": ""}]
CSV = 'code,system,note\nE11.9,ICD10CM,"a,\nb"\n250.00,ICD9CM,\n'
GRAPH = {
    "nodes": [{"id": 1, "name": "one", "hop": 0}, {"id": 2}],
    "links": [{"source": 1, "target": 2, "relation": "x"}],
}
PATIENTS = [
    [("HOSPITAL_ADMISSION", 0), ("MEDTOK//3", 8), ("TIMELINE_END", 9)],
    [("MEDTOK//4", 0), ("HOSPITAL_DISCHARGE", 8), ("TIMELINE_END", 9)],
]
BERT = {
    "model_type": "bert",
    "vocab_size": 8,
    "hidden_size": 4,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 4,
    "max_position_embeddings": 8,
}
WORDPIECES = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "heart": 4, "a": 5, "##a": 6, "b": 7}


@functools.cache
def _shared() -> tempfile.TemporaryDirectory:
    """Return a folder that is removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="medtok-foreign-")


@functools.cache
def _tokenizer() -> Path:
    return small_tokenizer.write(Path(_shared().name) / "tokenizer")


@functools.cache
def _meds() -> Path:
    splits = {1: "train", 2: "tuning", 3: "train", 4: "held_out", 5: "train"}
    return small_visits.write(Path(_shared().name) / "meds", splits=splits)


def _export(convert: Callable, read: Callable[[Path], object], weight: float = 0.3, **options) -> ForeignReader:
    def write(folder: Path) -> None:
        request = make_request(output=folder / "out", tokenizer=_tokenizer(), events=_meds(), options=options)
        convert(request)

    return ForeignReader(write, lambda folder: read(folder / "out"), weight)


def _coded(name: str, content: str | bytes) -> ForeignReader:
    def read(path: Path) -> None:
        list(readers.read_codes(path, {}, progress=False))
        list(readers.read_raw(path, {}, keep=True, progress=False))
        readers.other_fields(path, {})

    return text_file(name, content, read)


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def _read_directory(folder: Path) -> None:
    found = TokenizerDirectory.read(folder / "tokenizer")
    found.to_tokens()
    found.embeddings(np.arange(len(found.tokens)))
    representation.from_tokenizer(found, "name")


def _write_directory(folder: Path) -> None:
    small_tokenizer.write(folder / "tokenizer", small_tokenizer.make_tokens(embeddings=True))


def _write_shard(folder: Path) -> None:
    small_ethos.write_tokenized(folder / "train", PATIENTS, ethos_vocabulary.required(20))


def _write_checkpoint(folder: Path) -> None:
    size = ethos_checkpoint.ModelSize(n_positions=32, n_layer=1, n_head=2, n_embd=8)
    codebook = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    ethos_checkpoint.write(folder, ethos_vocabulary.complete([], 20), codebook, size)


def _read_checkpoint(folder: Path) -> None:
    size = ethos_checkpoint.ModelSize(n_positions=32, n_layer=1, n_head=2, n_embd=8)
    check.check_checkpoint(folder / ethos_checkpoint.FILE, ethos_vocabulary.complete([], 20), size)


def _write_encoder(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    (folder / "config.json").write_text(json.dumps(BERT))
    tokenizer = Tokenizer(models.WordPiece(WORDPIECES, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def _read_encoder(folder: Path) -> None:
    BertConfig.from_directory(folder)
    TextTokenizer(folder, 8)(["a heart", ""])


def _write_bert(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(BERT))
    names = {"embeddings.word_embeddings.weight": (8, 4), "embeddings.position_embeddings.weight": (8, 4)}
    names |= {"embeddings.token_type_embeddings.weight": (2, 4)}
    names |= {f"embeddings.LayerNorm.{part}": (4,) for part in ("weight", "bias")}
    for part in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
        names |= {f"encoder.layer.0.{part}.weight": (4, 4), f"encoder.layer.0.{part}.bias": (4,)}
    for part in ("intermediate.dense", "output.dense"):
        names |= {f"encoder.layer.0.{part}.weight": (4, 4), f"encoder.layer.0.{part}.bias": (4,)}
    for part in ("attention.output.LayerNorm", "output.LayerNorm"):
        names |= {f"encoder.layer.0.{part}.{one}": (4,) for one in ("weight", "bias")}
    save_file({name: np.ones(shape, np.float32) for name, shape in names.items()}, folder / "one.safetensors")
    index = {"weight_map": dict.fromkeys(names, "one.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _write_model(folder: Path) -> None:
    save_file({"params.x": np.ones((2, 3), np.float32)}, folder / model_reader.VARIABLES)
    (folder / model_reader.CONFIG).write_text(json.dumps({"format_version": model_reader.FORMAT_VERSION, "sha256": {}}))


def _write_torch_config(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "medtok", "format_version": 1, "model": {}}))
    save_file({"x": np.ones((2, 3), np.float32)}, folder / "model.safetensors")


def _read_torch(folder: Path) -> None:
    weights.read_weights(folder / "model.safetensors")
    restore.read_model(restore.read_config(folder / "config.json"), folder)


def _read_titles(path: Path) -> None:
    with package(path.parent, ethos_codes):
        ethos_codes.category_titles()


def _read_summary(path: Path) -> None:
    read_summary(TokenizerDirectory.read(_tokenizer()).config, path.parent)


def _read_entries(folder: Path) -> None:
    for path in sorted(folder.glob("*.json")):
        list(medtok_json.entries(path))


READERS = {
    "codes.csv": _coded("codes.csv", CSV),
    "codes.txt": _coded("codes.txt", "code;note\nE11.9;x\n250.00;\n"),
    "codes.json": _coded("codes.json", json.dumps(ROWS, indent=1)),
    "codes.jsonl": _coded("codes.jsonl", "".join(f"{json.dumps(row)}\n" for row in ROWS)),
    "codes.parquet": _coded("codes.parquet", _parquet(pa.Table.from_pylist(ROWS))),
    "codes of a report": text_file("codes.txt", "E11.9\n250.00\n", read_listed_codes),
    "graph": text_file("graph.json", json.dumps(GRAPH), graph_input.read_json),
    "graph of a flag": text_file("graph.json", json.dumps(GRAPH), read_graph_flag),
    "tokenizer directory": ForeignReader(_write_directory, _read_directory),
    "text encoder": ForeignReader(_write_encoder, _read_encoder),
    "BERT": ForeignReader(_write_bert, load_bert, 0.3),
    "model": ForeignReader(_write_model, model_reader.load),
    "PyTorch model": ForeignReader(_write_torch_config, _read_torch),
    "summary of a run": text_file("summary.json", '{"codes": 19, "all_codes": {}}', _read_summary),
    "saved representation": ForeignReader(
        lambda folder: hand_world.representation().save(folder / "r"), lambda folder: representation.load(folder / "r")
    ),
    "labels of quality": ForeignReader(
        lambda folder: hand_world.labels().save(folder / "l"), lambda folder: QualityLabels.load(folder / "l")
    ),
    "MedTok JSON": _export(medtok_json.convert, _read_entries, 1.0),
    "BEHRT": _export(behrt.convert, check_behrt),
    "GT-BEHRT": _export(gt_behrt.convert, check_gt_behrt),
    "MulT-EHR": _export(mult_ehr.convert, check_mult_ehr),
    "TransformEHR": _export(transformehr.convert, check_transformehr),
    "ETHOS": ForeignReader(_write_shard, lambda folder: check.check_ethos(folder / "train", 20)),
    "ETHOS checkpoint": ForeignReader(_write_checkpoint, _read_checkpoint, 0.3),
    "ETHOS vocabulary of the paper": ForeignReader(
        lambda folder: paper.write(folder, paper.vocabulary(20)), lambda folder: paper.read(next(folder.iterdir()))
    ),
    "ETHOS titles": text_file("icd10c-tabular-April-1-2026.xml", TABULAR, _read_titles),
}
