"""Damage every file that is read back: the result is that of the undamaged file, or one sentence refuses it.

Files are found by listing the folders of a run that has ended, so that a new kind of file is covered too.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from medtok_jax import MedTokTokenizer
from medtok_jax.data.dataset import load_data
from medtok_jax.inference import model_reader
from medtok_jax.text import cache as text_cache
from medtok_jax.training import checkpoints, reporting
from medtok_jax.training.inputs import make_sampler
from preprocessing.common.errors import UserError
from preprocessing.dataset.known_codes import read_known_codes
from preprocessing.medtok_codes import open_prepared, report_of
from tests.helpers import tiny_run
from tests.helpers.contents import content_of
from tests.helpers.damages import DAMAGES, flip

pytestmark = pytest.mark.integration
# Files that people and TensorBoard read, and nothing here.
NOT_READ = ("work/codebook.png", "work/parameters.txt", "work/logs/")
STEPS = 4


def read_data(root: Path) -> dict:
    """Open the data as training does, with the report of their build."""
    config = tiny_run.get_config(str(root))
    data = load_data(config, encoder_dir=root / "encoders/tiny", progress=False)
    builder = open_prepared(config.data.name, root / "data")
    table, graph = vars(data.table).copy(), vars(data.table.graph).copy()
    del table["graph"]
    nodes = graph.pop("nodes").to_pydict()
    graph.pop("knowledge_graph", None)
    near = make_sampler(config, data).hard_negatives.neighbors
    return {"table": table, "graph": graph, "nodes": nodes, "near": near, "texts": vars(data.cache)} | {
        "ids": [data.selected, data.text_id, data.node_name, data.row_of_node],
        "report": report_of(builder),
        "known": read_known_codes(builder).to_pydict(),
    }


def read_checkpoints(root: Path) -> dict:
    """Read both checkpoints."""
    found = [checkpoints.find(root / "work", prefer=kind) for kind in checkpoints.KINDS]
    return {"metadata": [one.metadata() for one in found], "state": [one.restore_variables() for one in found]}


def read_tokenizer(root: Path) -> dict:
    """Open the tokenizer, its table and its model."""
    tokenizer = MedTokTokenizer.from_pretrained(root / "work/tokenizer")
    saved = model_reader.load(root / "work/tokenizer")
    table = tokenizer.directory.table.to_pydict()
    graph = {name: np.asarray(getattr(saved.graph, name)) for name in ("indptr", "indices", "relation")}
    return {"table": table, "arrays": tokenizer.table.arrays, "config": str(tokenizer.config)} | {
        "tokens": [tokenizer(key).input_ids for key in table["key"][:5]],
        "variables": saved.variables,
        "about": [str(saved.config), saved.sizes, saved.node_types, saved.relation_names, saved.reverse],
        "graph": [graph, saved.graph.nodes.to_pydict()],
    }


def read_logs(root: Path) -> dict:
    """Read what a run that goes on reads of its logs; without the summary it would be made anew."""
    from medtok_jax.regions import Regions

    logged = checkpoints.find(root / "work").metadata()["logged"]
    log = reporting.Log(root / "work", step=STEPS, regions=Regions(20, 8, 12), logged=logged)
    log.close()
    summary = reporting.finished_summary(root / "work", step=STEPS, last_step=STEPS)
    return {"entries": log.history + log.validations, "summary": summary}


READERS: dict[str, Callable[[Path], dict]] = {
    "data": read_data,
    "work/checkpoints": read_checkpoints,
    "work/tokenizer": read_tokenizer,
    "work": read_logs,
}


def files_of(part: str, root: Path) -> Iterator[str]:
    """Yield the files of a part that belong to no longer name of a part, relative to the root."""
    for path in sorted((root / part).rglob("*")):
        name = path.relative_to(root).as_posix()
        longest = max((other for other in READERS if name.startswith(f"{other}/")), key=len)
        if path.is_file() and longest == part and not name.startswith(NOT_READ) and path.name != ".lock":
            yield name


@pytest.fixture(autouse=True)
def one_encoder(monkeypatch):
    """Compile the text encoder once."""
    load, compiled = text_cache.load_bert, {}

    def compile_once(directory, dtype, gelu):
        return compiled.setdefault((str(dtype), gelu), load(directory, dtype=dtype, gelu=gelu))

    run, programs = text_cache.compile_encoder, {}
    monkeypatch.setattr(text_cache, "load_bert", compile_once)
    monkeypatch.setattr(text_cache, "compile_encoder", lambda bert: programs.setdefault(id(bert), run(bert)))


def outcome(part: str, root: Path, whole: str, capsys) -> str:
    """Return how reading ended: `same`, `refused`, `told`, or what is wrong."""
    capsys.readouterr()
    try:
        found = content_of(READERS[part](root))
    except UserError as error:
        sentence = str(error)
        return "refused" if "\n" not in sentence and sentence.endswith(".") else f"no sentence: {sentence}"
    except BaseException as error:
        return f"traceback of {type(error).__name__}: {error}"
    if found == whole:
        return "same"
    told = capsys.readouterr().err
    return "told" if part == "work" and told.startswith("warning: ") else "silently other"


def check(part: str, root: Path, ended_run: Path, damages: Callable[[int], list], capsys, tell) -> None:
    """Damage the files of a part one after another, and restore all after each.

    A lost log is told, and a lost summary is made anew by the run that goes on.
    """
    whole, wrong, count = content_of(READERS[part](root)), [], 0
    for number, name in enumerate(files_of(part, ended_run)):
        for damage, apply in damages(number):
            apply(root / name)
            found = outcome(part, root, whole, capsys)
            made_anew = (
                name == "work/summary.json"
                and reporting.finished_summary(root / "work", step=STEPS, last_step=STEPS) is None
            )
            if found not in ("same", "refused", "told") and not made_anew:
                wrong.append(f"{name}, {damage}: {found}"[:300])
            count += 1
            top = part.split("/")[0]
            shutil.rmtree(root / top)
            shutil.copytree(ended_run / top, root / top)
    tell(f"damaged files of {part}", tried=count, held=count - len(wrong))
    assert not wrong, f"{len(wrong)} of {count}:\n" + "\n".join(wrong)
    assert count


@pytest.mark.parametrize("part", READERS)
def test_a_damaged_file_changes_no_result_silently(part, root, ended_run, capsys, tell):
    """Each file once with a changed bit, and once damaged in another way."""
    others = [name for name in DAMAGES if name != "one bit"]

    def damages(number: int) -> list:
        return [(name, DAMAGES[name]) for name in ("one bit", others[number % len(others)])]

    check(part, root, ended_run, damages, capsys, tell)


@pytest.mark.thorough
@pytest.mark.parametrize("part", READERS)
def test_every_damage_of_every_file(part, root, ended_run, capsys, tell):
    bits = [(f"bit at {place:.2f}", lambda path, p=place: flip(path, p)) for place in np.linspace(0, 1, 12)]
    check(part, root, ended_run, lambda _: [*DAMAGES.items(), *bits], capsys, tell)
