"""Write a data set as node-link JSON, for tools that read the published layout.

    python -m preprocessing.json_export --codes=medtok_codes/icd --data_dir=DIR --output=OUT
    python -m preprocessing.json_export --codes=medtok_codes/icd --output=OUT --keys=ICD10CM/E11.9 --per_code

`OUT/train.json`, `val.json` and `test.json` list the codes of each split, one per line. Their subgraphs are lines of
`OUT/graphs.jsonl` or, with `--per_code`, files `OUT/graphs/<key>.json`, where characters of the key other than letters,
digits, `.`, `-` and `_` are written as `%` and two hexadecimal digits. A subgraph has the form in which
`networkx.node_link_data` writes a `MultiDiGraph` with `edges="links"`:

    {"directed": true, "multigraph": true, "graph": {"key": "ICD10CM/E11.9", ...},
     "nodes": [{"id": 17, "type": "disease", "name": "...", "source": "MONDO", "source_id": "5148", "hop": 0}, ...],
     "links": [{"source": 17, "target": 4, "key": 0, "relation": "disease_protein"}, ...]}

Lines are preferable: a file for every code takes at least one disk block and is slow to write and to copy. Nothing in
this package reads the JSON back.
"""

import contextlib
import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from absl import flags

from preprocessing.common import command_line
from preprocessing.common.atomic import whole_file, whole_folder
from preprocessing.common.errors import InputError
from preprocessing.common.progress import Bar
from preprocessing.dataset.splits import SPLITS
from preprocessing.graph.knowledge_graph import KnowledgeGraph
from preprocessing.medtok_codes import MedtokCodes, open_prepared

LISTS = {"train": "train.json", "validation": "val.json", "test": "test.json"}
LINES = "graphs.jsonl"
FOLDER = "graphs"
_ADVICE = "choose another --output"
_BATCH = 4096
_UNSAFE = re.compile(rb"[^A-Za-z0-9._-]")
_TEXTS = ("key", "system", "code", "description")


@dataclasses.dataclass(frozen=True)
class NodeColumns:
    """Hold the type, name, source and source id of every node of a graph, and the names of its relations."""

    type: list[str]
    name: list[str]
    source: list[str]
    source_id: list[str]
    relations: tuple[str, ...]

    @classmethod
    def of(cls, graph: KnowledgeGraph) -> "NodeColumns":
        """Return the columns of `graph`."""
        names = ("type", "name", "source", "source_id")
        return cls(*(graph.nodes[name].to_pylist() for name in names), graph.relation_names)


def node_link(example: dict, columns: NodeColumns) -> dict:
    """Return one example in the node-link form of networkx, with the node ids of the knowledge graph."""
    texts = {name: example[name].decode() for name in _TEXTS}
    ids = example["nodes"].tolist()
    nodes = [
        {
            "id": node,
            "type": columns.type[node],
            "name": columns.name[node],
            "source": columns.source[node],
            "source_id": columns.source_id[node],
            "hop": hop,
        }
        for node, hop in zip(ids, example["hops"].tolist(), strict=True)
    ]
    ends = zip(*(example[name].tolist() for name in ("senders", "receivers", "relations")), strict=True)
    links = [
        {"source": ids[sender], "target": ids[receiver], "key": 0, "relation": columns.relations[relation]}
        for sender, receiver, relation in ends
    ]
    own = int(example["self_node"])
    graph = texts | {"self_node": None if own < 0 else ids[own]}
    return {"directed": True, "multigraph": True, "graph": graph, "nodes": nodes, "links": links}


def file_name(key: str) -> str:
    """Return a file name for a code that every file system accepts and that is unique to the code."""
    return _UNSAFE.sub(lambda match: b"%%%02X" % ord(match[0]), key.encode()).decode() + ".json"


def export_json(
    builder: MedtokCodes,
    output: Path,
    *,
    per_code: bool = False,
    limit: int | None = None,
    keys: Collection[str] = (),
    progress: bool = True,
) -> dict[str, int]:
    """Write a prepared data set as JSON into `output`; the same data set gives the same bytes.

    Args:
        builder: the data set.
        output: a directory; the files of an earlier export are replaced, and other files are kept.
        per_code: whether to write one file per subgraph instead of one line.
        limit: maximum number of codes of each split, the first in the order of the data set; None for all.
        keys: keys to write; all if empty.
        progress: whether to show a progress bar.

    Returns:
        The number of codes written, by split.

    Raises:
        InputError: a key is not in the data set, or `output` cannot be written.
    """
    columns = NodeColumns.of(builder.knowledge_graph)
    missing = set(keys)
    counts = {}
    total = len(keys) or sum(min(limit or info.num_examples, info.num_examples) for info in _splits(builder))
    with contextlib.ExitStack() as files:
        lists = {split: files.enter_context(whole_file(output / name, advice=_ADVICE)) for split, name in LISTS.items()}
        # What is entered last appears first: the lists are never ahead of the subgraphs.
        write = files.enter_context(_each_in_a_file(output) if per_code else _each_on_a_line(output))
        bar = files.enter_context(Bar(total=total, desc="writing JSON", unit=" codes", show=progress))
        for split, path in lists.items():
            listed = []
            for example in _examples(builder, split, limit, keys):
                graph = node_link(example, columns)
                write(graph)
                listed.append(json.dumps({field: graph["graph"][field] for field in _TEXTS}, ensure_ascii=False))
                missing.discard(graph["graph"]["key"])
                bar.update()
            path.write_text("[\n" + ",\n".join(listed) + "\n]\n", encoding="utf-8")
            counts[split] = len(listed)
        if missing:
            example = min(missing)
            raise InputError(f"--keys names {example!r}, which is not in the data set; keys look like ICD10CM/E11.9.")
    if per_code:
        (output / LINES).unlink(missing_ok=True)
    else:
        shutil.rmtree(output / FOLDER, ignore_errors=True)
    return counts


@contextlib.contextmanager
def _each_on_a_line(output: Path) -> Iterator[Callable[[dict], object]]:
    """Yield a function that writes one subgraph as a line of the file `LINES`."""
    with whole_file(output / LINES, advice=_ADVICE) as path, path.open("w", encoding="utf-8") as lines:
        yield lambda graph: lines.write(json.dumps(graph, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def _each_in_a_file(output: Path) -> Iterator[Callable[[dict], object]]:
    """Yield a function that writes one subgraph as a file of the folder `FOLDER`."""
    with whole_folder(output / FOLDER, advice=_ADVICE) as folder:

        def write(graph: dict) -> None:
            text = json.dumps(graph, ensure_ascii=False)
            (folder / file_name(graph["graph"]["key"])).write_text(text + "\n", encoding="utf-8")

        yield write


def _splits(builder: MedtokCodes) -> list:
    return [builder.info.splits[split] for split in SPLITS]


def _examples(builder: MedtokCodes, split: str, limit: int | None, keys: set[str]) -> Iterator[dict]:
    """Yield the wanted examples of a split, in the order of the data set."""
    source = builder.as_data_source(split)
    wanted = 0
    for start in range(0, len(source), _BATCH):
        for example in source.__getitems__(range(start, min(start + _BATCH, len(source)))):
            if keys and example["key"].decode() not in keys:
                continue
            if limit is not None and wanted == limit:
                return
            wanted += 1
            yield example


def main(argv: list[str]) -> None:
    """Export the data set that `--codes` names."""
    example = "python -m preprocessing.json_export --codes=medtok_codes/icd --data_dir=DIR --output=OUT"
    command_line.expect_arguments(argv, 0, example)
    values = flags.FLAGS
    if values.codes is None:
        raise InputError(f"--codes is missing; name the data set, for example: {example}")
    if values.output is None:
        raise InputError("--output is missing; give the directory to write to, for example --output=json.")
    counts = export_json(
        open_prepared(values.codes, values.data_dir),
        Path(values.output).expanduser(),
        per_code=values.per_code,
        limit=values.limit,
        keys=values.keys,
    )
    shown = ", ".join(f"{split} {count:,}" for split, count in counts.items())
    print(f"{values.codes} is in {values.output} as JSON: {shown}")


if __name__ == "__main__":
    flags.DEFINE_string("codes", None, "data set of codes, with its options in its name")
    flags.DEFINE_string("data_dir", None, "TFDS data directory (default: that of TFDS)")
    flags.DEFINE_string("output", None, "directory to write to")
    flags.DEFINE_integer("limit", None, "at most this many codes of each split", lower_bound=1)
    flags.DEFINE_list("keys", [], "only these keys, such as ICD10CM/E11.9,ICD9CM/250.00")
    flags.DEFINE_bool("per_code", False, "write one file per code instead of one line")
    command_line.run(main)
