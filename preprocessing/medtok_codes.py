"""Build the TFDS data set `medtok_codes`: one example per medical code, with its subgraph of a knowledge graph.

    python -m preprocessing.medtok_codes --codes=medtok_codes/icd --data_dir=DIR
    python -m preprocessing.medtok_codes --codes=medtok_codes/release --source_dir=FILES --data_dir=DIR

`prepare` does the same from Python. `dataset/name.py` defines the names, `dataset/inputs.py` the inputs. The knowledge
graph is in `graph/` beside the record files, so both appear together or not at all.

With `--pipeline=beam` Apache Beam makes and writes the records, on this machine or, by `--beam_pipeline_options`, on a
Dataflow, Flink or Spark cluster whose workers all see `--data_dir` under the same path and have this package installed.
The examples, their order and the fingerprint are those of a local build; where a split takes several files, these may
begin at other examples.
"""

import contextlib
import functools
import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from absl import flags
from array_record.python.array_record_data_source import ArrayRecordDataSource
from tensorflow_datasets.core import file_adapters, writer
from tensorflow_datasets.proto import tf_example_pb2

from preprocessing.common import command_line
from preprocessing.common.checksums import sha256_once
from preprocessing.common.errors import InputError, UserError
from preprocessing.common.listing import LISTING, check_listing, write_listing
from preprocessing.common.progress import Bar
from preprocessing.dataset.beam import BeamPipeline, beam_examples
from preprocessing.dataset.build_lock import only_builder, quiet_tfds, writable
from preprocessing.dataset.examples import examples, open_plan, write_plan
from preprocessing.dataset.inputs import check_source, read_source, source_files
from preprocessing.dataset.known_codes import read_known_codes
from preprocessing.dataset.name import EMBEDDED, NAME, DatasetOptions, parse_name
from preprocessing.dataset.splits import SPLITS
from preprocessing.graph.knowledge_graph import KnowledgeGraph

_DESCRIPTIONS = {
    "icd": """\
Medical codes of ICD-10-CM, ICD-10-PCS, ICD-9-CM and ICD-9-CM procedures with their descriptions and hub-capped 2-hop
subgraphs of a knowledge graph: code hierarchies, GEM crosswalks, tabular notes and the Human Phenotype Ontology.""",
    "icd_ndc": """\
Medical codes of ICD-10-CM, ICD-10-PCS, ICD-9-CM, ICD-9-CM procedures and the National Drug Code directory with their
descriptions and hub-capped 2-hop subgraphs of a knowledge graph: code hierarchies, GEM crosswalks, tabular notes, the
Human Phenotype Ontology, and ingredients and pharmacologic classes of drugs.""",
    "primekg": """\
Medical codes of all code systems with their descriptions and hub-capped 2-hop subgraphs of PrimeKG around the nodes
that they are linked to.""",
    "release": """\
The medical codes published with MedTok (Su et al., ICML 2025), their descriptions and their subgraphs of PrimeKG.""",
}


_BATCH = 4096


class MedtokConfig(tfds.core.BuilderConfig):
    """Hold a TFDS config, whose `name` is the canonical spelling of `options`."""

    def __init__(self, options: DatasetOptions):
        super().__init__(name=options.config_name)
        self.options = options


class _DeterministicWriter(writer.ExampleWriter):
    """Write records with their features in a fixed order, because protobuf's order differs between processes."""

    def write(self, path, examples):
        return super().write(path, ((key, _canonical(record)) for key, record in examples))


def _canonical(record: bytes) -> bytes:
    return tf_example_pb2.Example.FromString(record).SerializeToString(deterministic=True)


# Under `python -m` this file is loaded twice, as `__main__` and by its own name, and TFDS registers a name once.
class MedtokCodes(tfds.core.GeneratorBasedBuilder, skip_registration=__name__ == "__main__"):
    """Build `medtok_codes`; use `prepare` rather than TFDS's `download_and_prepare`.

    Attributes:
        progress_bar: bar that shows the examples written, or None.
        source_dir: directory of the files from which the data set is built, or None.
        plan_dir: directory of the plan while the data set is built.
        with_beam: whether Apache Beam makes the examples.

    Features of an example with V nodes and E directed edges:
        key, system, code, description: Text (bytes when read).
        nodes: int32 [V], node ids of the knowledge graph, the anchors first; V = 0 if a code has no node.
        hops: uint8 [V], 0 for the anchors, 1 or 2.
        self_node: int32, position in `nodes` of the node that is the code itself, -1 if there is none.
        senders, receivers: int32 [E], positions in `nodes`. Edge 2i + 1 is the exact reverse of edge 2i.
        relations: int32 [E], positions in the graph's relation names, of the edge sender -> receiver.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 (the name and type that TFDS reads)
    BUILDER_CONFIGS = [MedtokConfig(DatasetOptions())]  # noqa: RUF012

    progress_bar: Bar | None = None
    source_dir: Path | None = None
    plan_dir: Path | None = None
    with_beam: bool = False

    @functools.cached_property
    def knowledge_graph(self) -> KnowledgeGraph:
        """Return the knowledge graph of a data set that is built, opened once."""
        return KnowledgeGraph.load(graph_path(self))

    def _info(self) -> tfds.core.DatasetInfo:
        ints = tfds.features.Tensor(shape=(None,), dtype=np.int32)
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTIONS[self.builder_config.options.source],
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
        """Print nothing, because nothing is downloaded and the progress bar shows the rest."""

    def _log_download_done(self) -> None:
        """Print nothing; see `_log_download_bytes`."""

    def _example_writer(self) -> writer.ExampleWriter:
        return _DeterministicWriter(file_format=self.info.file_format)

    def _split_generators(self, dl_manager) -> dict:
        del dl_manager
        options = self.builder_config.options
        source = read_source(options, self.source_dir, Path(self.data_path) / "graph", self.progress_bar is not None)
        write_plan(self.plan_dir, source.codes, source.table, options.max_nodes)
        plan = open_plan(self.plan_dir)
        if self.with_beam:
            if self.progress_bar is not None:
                self.progress_bar.set_description(f"Beam writes {plan.num_codes:,} codes")
            return {split: beam_examples(self.plan_dir, split, plan.ranges[split]) for split in SPLITS}
        if self.progress_bar is not None:
            self.progress_bar.reset(total=plan.num_codes)
            self.progress_bar.set_description("writing codes")
        return {split: self._generate_examples(split, plan.ranges[split]) for split in SPLITS}

    def _generate_examples(self, split: str, ranges: int) -> Iterator[tuple[str, dict]]:
        for position in range(ranges):
            for example in examples(self.plan_dir, split, position):
                if self.progress_bar is not None:
                    self.progress_bar.update()
                yield example


def prepare(
    name: str = f"{NAME}/icd",
    data_dir: str | os.PathLike | None = None,
    progress: bool = True,
    *,
    source_dir: str | os.PathLike | None = None,
    beam: BeamPipeline | None = None,
) -> MedtokCodes:
    """Open the data set `name` below `data_dir`, building it first if it is absent.

    All files appear under their final names at once, when they are complete. The next build removes the leftovers of an
    interrupted one. Of several processes that ask for the same data set, one builds and the others wait.

    Args:
        name: `medtok_codes/icd`, `icd_ndc`, `primekg` or `release`, with options (`dataset/name.py`).
        data_dir: TFDS data directory; None takes the default of TFDS.
        progress: whether to show a progress bar while building.
        source_dir: directory of the files to build from (`dataset.inputs.FILES`); not for `icd` and `icd_ndc`.
        beam: options to build with Apache Beam; None builds in this process.

    Raises:
        InputError: the name is not understood, files to build from are missing or are not those that the data set was
            built from, the directory cannot be written or holds something else, the disk is full, or a package that
            ships the official files is missing.
    """
    path = dataset_path(name, data_dir)
    source_dir = None if source_dir is None else Path(source_dir).expanduser()
    if not path.exists():
        check_source(name, parse_name(name), source_dir, data_dir)
        _build(name, data_dir, path, progress, source_dir, beam)
        return open_prepared(name, data_dir)
    builder = open_prepared(name, data_dir)
    if source_dir is not None:
        _check_same_source(name, builder, source_dir)
    return builder


def check_available(name: str = f"{NAME}/icd", data_dir: str | os.PathLike | None = None) -> None:
    """Check quickly that `prepare` without a source directory could open or build the data set.

    Raises:
        InputError: the name is not understood, or the data set is absent and must be built from files.
    """
    if not dataset_path(name, data_dir).exists():
        check_source(name, parse_name(name), None, data_dir)


def _check_same_source(name: str, builder: MedtokCodes, source_dir: Path) -> None:
    options = parse_name(name)
    check_source(name, options, source_dir)
    built_from, given = report_of(builder).get("sources", {}), source_files(options, source_dir)
    for file, identity in given.items():
        if built_from.get(file) != identity:
            raise InputError(
                f"{builder.data_path} was built from another {file} than the one in {source_dir}; delete that data "
                f"set to build it again, or choose another --data_dir."
            )


def report_of(builder: tfds.core.DatasetBuilder) -> dict:
    """Return the report of a build: numbers of rows and links that were read, linked, dropped and rejected."""
    return json.loads((graph_path(builder) / "report.json").read_text(encoding="utf-8"))


def open_prepared(name: str = f"{NAME}/icd", data_dir: str | os.PathLike | None = None) -> MedtokCodes:
    """Open an existing data set without building it.

    Raises:
        InputError: the data set is absent (the message says how to build it), incomplete or damaged.
    """
    path = dataset_path(name, data_dir)
    if not path.exists():
        where = "" if data_dir is None else f" --data_dir={data_dir}"
        files = "" if parse_name(name).source in EMBEDDED else " --source_dir=DIR"
        raise InputError(
            f"there is no data set {name} in {path.parents[2]}; "
            f"build it with: python -m preprocessing.medtok_codes --codes={name}{files}{where}"
        )
    try:
        if not (path / LISTING).exists():
            # Its builder was killed at the very end.
            with contextlib.suppress(InputError):  # Others may only read here.
                write_listing(path)
        if (path / LISTING).exists():
            check_listing(path, digest=sha256_once)
        builder = _builder(name, data_dir)
        tfds.core.features.FeatureConnector.from_config(path)
        for split in SPLITS:
            records = builder.as_data_source(split)
            records[len(records) - 1]  # An interrupted copy lacks the end of a file.
        _ = builder.knowledge_graph
        read_known_codes(builder)
    except Exception as error:  # TFDS, protobuf and array_record raise many kinds for a damaged directory.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} does not hold a complete {name} data set ({reason}); delete that directory and build it again."
        ) from error
    return builder


def dataset_path(name: str, data_dir: str | os.PathLike | None = None) -> Path:
    """Return the directory of the data set `name`, whether or not it exists."""
    root = Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    return root / NAME / parse_name(name).config_name / str(MedtokCodes.VERSION)


def graph_path(builder: tfds.core.DatasetBuilder) -> Path:
    """Return the directory of the knowledge graph of a prepared builder."""
    return Path(builder.data_path) / "graph"


def fingerprint(builder: tfds.core.DatasetBuilder, graph: KnowledgeGraph | None = None) -> str:
    """Return the SHA-256 (hex) of the records and of the graph, which does not depend on how they were built.

    Args:
        builder: of a data set that is built.
        graph: its knowledge graph, where it is open already.
    """
    digest = hashlib.sha256()
    for split in sorted(SPLITS):
        digest.update(_split_digest([Path(file) for file in builder.info.splits[split].filepaths]))
    for file in sorted(graph_path(builder).glob("*.npy")):
        digest.update(_file_digest(file))
    # The bytes of the parquet file name the library that wrote it, so the values are hashed instead.
    graph = graph or KnowledgeGraph.load(graph_path(builder))
    digest.update(json.dumps([graph.relation_names, graph.reverse, graph.node_types]).encode())
    for column in graph.nodes.columns:
        digest.update("\0".join(map(str, column.to_pylist())).encode())
    return digest.hexdigest()


def _split_digest(files: list[Path]) -> bytes:
    """Return the digest of a split's only file, or of its records if Beam wrote several files with other bounds."""
    if len(files) == 1:
        return _file_digest(files[0])
    digest = hashlib.sha256()
    source = ArrayRecordDataSource([os.fspath(file) for file in sorted(files)])
    for start in range(0, len(source), _BATCH):
        for record in source.__getitems__(range(start, min(start + _BATCH, len(source)))):
            digest.update(hashlib.sha256(record).digest())
    return digest.digest()


def _file_digest(file: Path) -> bytes:
    return f"{file.name}\n".encode() + bytes.fromhex(sha256_once(file))


def _builder(name: str, data_dir: str | os.PathLike | None) -> MedtokCodes:
    options = parse_name(name)
    predefined = {config.name: config for config in MedtokCodes.BUILDER_CONFIGS}
    config = predefined.get(options.config_name) or MedtokConfig(options)
    root = None if data_dir is None else Path(data_dir).expanduser()
    with quiet_tfds():
        return MedtokCodes(config=config, data_dir=root, file_format=file_adapters.FileFormat.ARRAY_RECORD)


def _build(
    name: str,
    data_dir: str | os.PathLike | None,
    path: Path,
    progress: bool,
    source_dir: Path | None,
    beam: BeamPipeline | None,
) -> None:
    with writable(path), only_builder(path):
        if path.exists():  # Another process built it while this one waited.
            return
        builder = _builder(name, data_dir)
        builder.source_dir = source_dir
        builder.with_beam = beam is not None
        builder.plan_dir = path.parent.resolve() / f"plan.incomplete.{os.getpid()}"
        try:
            with quiet_tfds(), Bar(desc="reading official files", unit=" codes", show=progress) as bar:
                builder.progress_bar = bar if progress else None
                builder.download_and_prepare(download_config=_download_config(beam))
            write_listing(path)
        finally:
            builder.progress_bar = None
            shutil.rmtree(builder.plan_dir, ignore_errors=True)


def _download_config(beam: BeamPipeline | None) -> tfds.download.DownloadConfig:
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    return config if beam is None else beam.configure(config)


def main(argv: list[str]) -> None:
    """Build the data set that the flags name, unless it exists."""
    command_line.expect_arguments(argv, 0, "python -m preprocessing.medtok_codes --codes=medtok_codes/icd")
    # TFDS records the class in the data set, so it must be the importable one and not that of `__main__`.
    from preprocessing import medtok_codes

    values = flags.FLAGS
    pipeline = None
    if values.pipeline == "beam":
        pipeline = BeamPipeline(tuple(shlex.split(values.beam_pipeline_options)))
    elif values.beam_pipeline_options:
        raise InputError("--beam_pipeline_options needs --pipeline=beam; add it, or leave the options out.")
    builder = medtok_codes.prepare(values.codes, values.data_dir, source_dir=values.source_dir, beam=pipeline)
    counts = ", ".join(f"{split} {builder.info.splits[split].num_examples:,}" for split in SPLITS)
    print(f"{values.codes} is in {builder.data_path}: {counts}")
    if rejected := report_of(builder).get("rejected"):
        print(f"{rejected:,} rows rejected or used in part: see {graph_path(builder) / 'rejects.csv'}")
        if values.strict:
            raise UserError(f"{rejected:,} rows were rejected, and --strict does not allow that.")


if __name__ == "__main__":
    flags.DEFINE_string("codes", f"{NAME}/icd", "data set, with options: see preprocessing/dataset/name.py")
    flags.DEFINE_string("data_dir", None, "TFDS data directory (default: that of TFDS)")
    flags.DEFINE_string(
        "source_dir",
        None,
        "directory of the files to build from. medtok_codes/primekg: the output of preprocessing.pipeline "
        "(processed_descriptions.csv, graph/, links/links.parquet); medtok_codes/release: all_codes_mappings.parquet "
        "and kg.csv",
    )
    flags.DEFINE_enum("pipeline", "local", ["local", "beam"], "make the records in this process or with Apache Beam")
    flags.DEFINE_string(
        "beam_pipeline_options",
        "",
        "options of Beam, such as '--runner=FlinkRunner --flink_master=host:8081' (default: the direct runner)",
    )
    flags.DEFINE_bool("strict", False, "exit with status 1 if a row of the source files was rejected")
    command_line.run(main)
