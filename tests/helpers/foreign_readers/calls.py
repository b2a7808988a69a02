"""Find the calls by which a module reads files, and the functions that a run enters."""

import ast
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.paths import ROOT

FLOORS = ("preprocessing", "configs", "medtok_jax", "eval")
# `module.function` as the house imports it, names of functions of the house that open foreign text, and methods.
_OF_MODULES = {
    *("np.load", "np.loadtxt", "np.fromfile", "np.memmap", "json.load", "json.loads", "pickle.load", "pickle.loads"),
    *("pl.read_parquet", "pl.scan_parquet", "pl.read_csv", "pl.scan_csv", "pl.read_parquet_schema", "pl.read_json"),
    *("pq.read_table", "pq.ParquetFile", "pq.read_schema", "pq.read_metadata", "csv.reader", "csv.DictReader"),
    *("csv.read_csv", "arrow_csv.read_csv", "gzip.open", "gzip.GzipFile", "zipfile.ZipFile", "tarfile.open"),
    *("ET.parse", "ET.fromstring", "yaml.safe_load", "yaml.load", "torch.load", "Tokenizer.from_file"),
}
_FUNCTIONS = {"load_file", "safe_open", "lines", "rows", "table", "read_blocks", "opened", "open", "read_parquet"}
_METHODS = {"read_text", "read_bytes", "open"}
_WRITING = ("w", "a", "x", "r+")


def readers(root: Path = ROOT) -> dict[str, list[int]]:
    """Return the functions that read a file or text of a format: `path.py:Class.function` -> lines of the calls."""
    found: dict[str, list[int]] = {}
    for path in (path for floor in FLOORS for path in sorted((root / floor).rglob("*.py"))):
        _collect(ast.parse(path.read_text(encoding="utf-8")), path.relative_to(root).as_posix(), (), found)
    return found


def _collect(node: ast.AST, path: str, inside: tuple[str, ...], found: dict[str, list[int]]) -> None:
    if isinstance(node, ast.Call) and _reads(node):
        found.setdefault(f"{path}:{'.'.join(inside)}", []).append(node.lineno)
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        inside = (*inside, node.name)
    for child in ast.iter_child_nodes(node):
        _collect(child, path, inside, found)


def _reads(call: ast.Call) -> bool:
    function = call.func
    given = [one.value for one in call.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    if isinstance(function, ast.Name):
        return function.id in _FUNCTIONS and not any(mode.startswith(_WRITING) for mode in given)
    if not isinstance(function, ast.Attribute):
        return False
    if isinstance(function.value, ast.Name) and f"{function.value.id}.{function.attr}" in _OF_MODULES:
        return True
    # Of the house's own classes, and of files, `open` is no name of one format; a mode says that it is a file.
    is_file = function.attr != "open" or any(mode in ("r", "rb", "rt") for mode in given) or _is_text(call)
    return function.attr in _METHODS and is_file


def _is_text(call: ast.Call) -> bool:
    return not call.args and any(one.arg == "encoding" for one in call.keywords)


@contextlib.contextmanager
def entered() -> Iterator[set[str]]:
    """Yield a set that receives the functions of the house that the body enters: `path.py:Class.function`."""
    found: set[str] = set()

    def note(frame, event: str, _) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(f"{ROOT}/"):
            found.add(f"{file.removeprefix(f'{ROOT}/')}:{frame.f_code.co_qualname}")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(before)
