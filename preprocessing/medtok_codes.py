"""The TFDS data set `medtok_codes`: one example per medical code, with its subgraph of a knowledge graph.

    python -m preprocessing.medtok_codes --name=medtok_codes/icd --data_dir=DIR

builds it; `prepare` does the same from Python. `dataset_name` tells what a name may say. The knowledge graph lies in
`graph/` beside the record files, so both appear together or not at all.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from absl import flags, logging
from tensorflow_datasets.core import file_adapters, writer
from tensorflow_datasets.proto import tf_example_pb2
from tqdm import tqdm

from preprocessing import command_line
from preprocessing.codes import CodeRecord, category_of
from preprocessing.dataset_name import NAME, DatasetOptions, parse_name
from preprocessing.errors import InputError
from preprocessing.holdout import hold_out, write_held_out
from preprocessing.icd_graph import EDGE_TYPES, FIRST_KEPT, PRIORITY, REVERSE, icd_facts
from preprocessing.knowledge_graph import KnowledgeGraph, from_facts, node_table
from preprocessing.linking import link_by_key
from preprocessing.sources.icd import official_counts, vocabulary
from preprocessing.splits import SPLITS, sample, split_of
from preprocessing.subgraphs import neighbour_table, subgraphs

_DESCRIPTION = """\
Medical codes of ICD-10-CM, ICD-10-PCS, ICD-9-CM and ICD-9-CM procedures with their descriptions and hub-capped 2-hop
subgraphs of a knowledge graph: code hierarchies, GEM crosswalks, tabular notes and the Human Phenotype Ontology."""


class MedtokConfig(tfds.core.BuilderConfig):
    """A TFDS config whose `name` is the canonical spelling of `options`."""

    def __init__(self, options: DatasetOptions):
        super().__init__(name=options.config_name)
        self.options = options


class _DeterministicWriter(writer.ExampleWriter):
    """Writes records whose features are in a fixed order; protobuf's own order of a map differs between processes."""

    def write(self, path, examples):
        return super().write(path, ((key, _canonical(record)) for key, record in examples))


def _canonical(record: bytes) -> bytes:
    return tf_example_pb2.Example.FromString(record).SerializeToString(deterministic=True)


# Under `python -m` this file is loaded twice, as `__main__` and by its own name, and TFDS registers a name once.
class MedtokCodes(tfds.core.GeneratorBasedBuilder, skip_registration=__name__ == "__main__"):
    """Builder of `medtok_codes`; use `prepare` rather than TFDS's `download_and_prepare`.

    Features of an example with V nodes and E directed edges:
        key, system, code, description: Text (bytes when read).
        nodes: int32 [V], node ids of the knowledge graph, the anchor first; V = 0 where a code has no node.
        hops: uint8 [V], 0 for the anchor, 1 or 2.
        self_node: int32, position in `nodes` of the node that is the code itself, -1 if there is none.
        senders, receivers: int32 [E], positions in `nodes`. Edge 2i + 1 is the exact reverse of edge 2i.
        relations: int32 [E], positions in the graph's relation names, of the edge sender -> receiver.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 (the name and type that TFDS reads)
    BUILDER_CONFIGS = [MedtokConfig(DatasetOptions())]  # noqa: RUF012

    progress_bar: tqdm | None = None

    def _info(self) -> tfds.core.DatasetInfo:
        ints = tfds.features.Tensor(shape=(None,), dtype=np.int32)
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    "key": tfds.features.Text(),
                    "system": tfds.features.Text(),
                    "code": tfds.features.Text(),
                    "description": tfds.features.Text(),
                    "nodes": ints,
                    "hops": tfds.features.Tensor(shape=(None,), dtype=np.uint8),
                    "self_node": tfds.features.Scalar(dtype=np.int32),
                    "senders": ints,
                    "receivers": ints,
                    "relations": ints,
                }
            ),
        )

    def _log_download_bytes(self) -> None:
        """Says nothing: nothing is downloaded, and the progress bar tells the rest."""

    def _log_download_done(self) -> None:
        """Says nothing; see `_log_download_bytes`."""

    def _example_writer(self) -> writer.ExampleWriter:
        return _DeterministicWriter(file_format=self.info.file_format)

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager
        options = self.builder_config.options
        ids, graph = _write_graph(Path(self.data_path) / "graph", options)
        records = _records(options)
        if self.progress_bar is not None:
            self.progress_bar.reset(total=len(records))
            self.progress_bar.set_description("writing codes")
        table = neighbour_table(graph, hub_cap=options.hub_cap, priority=PRIORITY, first_kept=FIRST_KEPT)
        splits = split_of([record.key for record in records])
        if len(set(splits.tolist())) < len(SPLITS):
            raise InputError(f"{len(records)} codes leave a split empty; take a larger sample than {options.sample}.")
        return {
            name: self._generate_examples(
                [record for record, split in zip(records, splits, strict=True) if split == position],
                ids,
                table,
                options.max_nodes,
            )
            for position, name in enumerate(SPLITS)
        }

    def _generate_examples(self, records: list[CodeRecord], ids, table, max_nodes) -> Iterator[tuple[str, dict]]:
        anchors, self_nodes = link_by_key(records, ids)
        found = subgraphs(table, anchors, max_nodes=max_nodes)
        for record, self_node, subgraph in zip(records, self_nodes, found, strict=True):
            if self.progress_bar is not None:
                self.progress_bar.update()
            yield (
                record.key,
                {
                    "key": record.key,
                    "system": record.system,
                    "code": record.code,
                    "description": record.description,
                    "nodes": subgraph.nodes,
                    "hops": subgraph.hops,
                    "self_node": self_node,
                    "senders": subgraph.senders,
                    "receivers": subgraph.receivers,
                    "relations": subgraph.relations,
                },
            )


def _records(options: DatasetOptions) -> list[CodeRecord]:
    records = list(vocabulary())
    if options.sample is None:
        return records
    categories = [category_of(record) for record in records]
    return [records[i] for i in sample([record.system for record in records], categories, options.sample)]


def _write_graph(path: Path, options: DatasetOptions) -> tuple[dict[str, int], KnowledgeGraph]:
    """Builds the graph and writes it, what was held out and the counts of the sources; returns node ids and graph."""
    source = icd_facts(options.groups)
    facts = source.facts
    held = {}
    if options.holdout is not None:
        keys = list(source.ids)
        facts, held = hold_out(facts, keys, EDGE_TYPES[options.holdout.edge_type], options.holdout)
    graph = from_facts(node_table(source.rows), facts, REVERSE)
    graph.save(path)
    if options.holdout is not None:
        write_held_out(path / "holdout.parquet", held, keys)
    lists = [dict(zip(row.dtype.names, row.item(), strict=True)) for row in official_counts()]
    report = {"code_lists": lists, "counts": source.counts}
    (path / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return source.ids, graph


def prepare(name: str = f"{NAME}/icd", data_dir: str | os.PathLike | None = None, progress: bool = True) -> MedtokCodes:
    """Opens the data set `name` below `data_dir`, building it first where it is absent.

    Files appear under their final name all at once, when they are complete. Whatever an interrupted build left is
    removed by the next one. Of several processes that ask for the same data set one builds and the others wait.

    Args:
        name: `medtok_codes/icd`, with options (`dataset_name`).
        data_dir: TFDS data directory; None takes TFDS's own default.
        progress: show a progress bar while building.

    Raises:
        InputError: the name is not understood, the directory cannot be written or holds something else, the disk is
            full, or a package that ships the official files is missing.
    """
    path = dataset_path(name, data_dir)
    if not path.exists():
        _build(name, data_dir, path, progress)
    return open_prepared(name, data_dir)


def open_prepared(name: str = f"{NAME}/icd", data_dir: str | os.PathLike | None = None) -> MedtokCodes:
    """Opens a data set that is there, and never builds.

    Raises:
        InputError: it is absent (the sentence says how to build it), incomplete or damaged.
    """
    path = dataset_path(name, data_dir)
    if not path.exists():
        where = "" if data_dir is None else f" --data_dir={data_dir}"
        raise InputError(
            f"there is no data set {name} in {path.parents[2]}; "
            f"build it with: python -m preprocessing.medtok_codes --name={name}{where}"
        )
    try:
        builder = _builder(name, data_dir)
        tfds.core.features.FeatureConnector.from_config(path)
        for split in SPLITS:
            records = builder.as_data_source(split)
            records[len(records) - 1]  # The end of a file is what a copy that broke off lacks.
        KnowledgeGraph.load(graph_path(builder))
    except Exception as error:  # TFDS, protobuf and array_record raise many kinds for a damaged directory.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} does not hold a complete {name} data set ({reason}); delete that directory and build it again."
        ) from error
    return builder


def dataset_path(name: str, data_dir: str | os.PathLike | None = None) -> Path:
    """Directory of the data set `name`, whether or not it exists."""
    root = Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    return root / NAME / parse_name(name).config_name / str(MedtokCodes.VERSION)


def graph_path(builder: tfds.core.DatasetBuilder) -> Path:
    """Directory of the knowledge graph of a prepared builder."""
    return Path(builder.data_path) / "graph"


def fingerprint(builder: tfds.core.DatasetBuilder) -> str:
    """SHA-256 (hex) of the record files' bytes and of the graph; independent of where and when it was built."""
    digest = hashlib.sha256()
    files = sorted(Path(file) for split in SPLITS for file in builder.info.splits[split].filepaths)
    files += sorted(graph_path(builder).glob("*.npy"))
    for file in files:
        digest.update(f"{file.name}\n".encode())
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    # Values rather than bytes of the parquet file, which names the library that wrote it.
    graph = KnowledgeGraph.load(graph_path(builder))
    digest.update(json.dumps([graph.relation_names, graph.reverse, graph.node_types]).encode())
    for column in graph.nodes.columns:
        digest.update("\0".join(map(str, column.to_pylist())).encode())
    return digest.hexdigest()


def _builder(name: str, data_dir: str | os.PathLike | None) -> MedtokCodes:
    options = parse_name(name)
    predefined = {config.name: config for config in MedtokCodes.BUILDER_CONFIGS}
    config = predefined.get(options.config_name) or MedtokConfig(options)
    root = None if data_dir is None else Path(data_dir).expanduser()
    with _quiet_tfds():
        return MedtokCodes(config=config, data_dir=root, file_format=file_adapters.FileFormat.ARRAY_RECORD)


def _build(name: str, data_dir: str | os.PathLike | None, path: Path, progress: bool) -> None:
    with _writable(path), _only_builder(path):
        if path.exists():  # Another process built it while this one waited.
            return
        for leftover in path.parent.glob("*incomplete*"):
            shutil.rmtree(leftover)
        builder = _builder(name, data_dir)
        config = tfds.download.DownloadConfig(try_download_gcs=False)
        with _quiet_tfds(), tqdm(desc="reading official files", unit=" codes", disable=not progress) as bar:
            builder.progress_bar = bar
            try:
                builder.download_and_prepare(download_config=config)
            finally:
                builder.progress_bar = None


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    """Turns what the file system refuses into one sentence."""
    refusals = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST)
    try:
        yield
    except OSError as error:
        if error.errno not in refusals:
            raise
        raise InputError(
            f"the data set cannot be written to {path} ({error.strerror}); choose another --data_dir."
        ) from error


@contextlib.contextmanager
def _only_builder(path: Path) -> Iterator[None]:
    """Holds a lock on the directory above `path`, and removes that directory again if nothing came of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
        os.close(descriptor)


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """TFDS's own progress bars and messages would interrupt this module's."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        yield
    finally:
        tfds.enable_progress_bar()
        logging.set_verbosity(verbosity)


def main(argv: list[str]) -> None:
    """Builds the data set that the flags name, or says that it is there."""
    command_line.expect_arguments(argv, 0, "python -m preprocessing.medtok_codes --name=medtok_codes/icd")
    # By its own name, so that the class that TFDS records in the data set is the one that can be imported.
    from preprocessing import medtok_codes

    name, data_dir = flags.FLAGS.name, flags.FLAGS.data_dir
    builder = medtok_codes.prepare(name, data_dir)
    counts = ", ".join(f"{split} {builder.info.splits[split].num_examples:,}" for split in SPLITS)
    print(f"{name} is in {builder.data_path}: {counts}")


if __name__ == "__main__":
    flags.DEFINE_string("name", f"{NAME}/icd", "data set, with options: see preprocessing/dataset_name.py")
    flags.DEFINE_string("data_dir", None, "TFDS data directory; TFDS's own default when not given")
    command_line.run(main)
