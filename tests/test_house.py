"""The house stands as docs/architecture.md draws it: imports run down, in no circle, and every room can be overseen."""

import ast
import itertools
import sys
from pathlib import Path

import networkx as nx
import pytest

from medtok_jax.lookup import code_files
from medtok_jax.lookup.config import CODE_FILE
from tests.helpers.paths import ROOT

# From the ground up; configurations are read by the library and by the judges of its results.
FLOORS = ("preprocessing", "configs", "medtok_jax", "eval")
# What a floor may import, beside itself.
BELOW = {
    "preprocessing": set(),
    "configs": set(),
    "medtok_jax": {"preprocessing", "configs"},
    "eval": {"preprocessing", "medtok_jax", "configs"},
}
MOST_MODULES = 17
MOST_LINES = 450
# It stands alone in one file, because it travels with the model that it opens.
STAND_ALONE = {"medtok_jax/convert/pytorch/modeling_medtok.py"}
IMPORTERS = {"import_module", "__import__"}
# These import by a name that is no literal: the public names of the library, loaded late, and packages of extras.
BY_STRING = {"medtok_jax", "preprocessing.common.extras"}
# It is copied into the package of ETHOS and imports its neighbors there.
COPIED = {"medtok_jax.convert.ethos.files.stages"}
# Whatever shows progress goes through it, so that logs hold lines.
PROGRESS = "preprocessing.common.progress"
# Packages that draw bars.
DRAWING = {"tqdm", "rich.progress", "rich.status", "rich.live", "alive_progress", "progressbar"}
# Packages of JAX, which `medtok_jax.lookup` must run without.
JAX = {"jax", "jaxlib", "flax", "optax", "orbax", "jraph", "clu", "grain"}


def modules(root: Path) -> dict[str, ast.Module]:
    """Return every module of the floors by its dotted name, parsed."""
    paths = itertools.chain.from_iterable(sorted((root / floor).rglob("*.py")) for floor in FLOORS)
    return {_name(path.relative_to(root)): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def _name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imports(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Return the modules that each module imports, at its top or inside a function: names of packages are kept too."""
    found = {}
    for name, tree in trees.items():
        found[name] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                whole = {f"{node.module}.{alias.name}" for alias in node.names}
                # `from package import module` is an import of the module, any other one of what holds the name.
                found[name] |= {one if one in trees else node.module for one in whole}
            elif isinstance(node, ast.Call) and _called(node) in IMPORTERS and node.args:
                argument = node.args[0]
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    found[name].add(argument.value)
    return found


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


def relative(trees: dict[str, ast.Module]) -> set[str]:
    """Return the modules that import relatively, which hides from the other checks what they import."""
    nodes = ((name, node) for name, tree in trees.items() for node in ast.walk(tree))
    return {name for name, node in nodes if isinstance(node, ast.ImportFrom) and node.level}


def bound_by_string(trees: dict[str, ast.Module]) -> set[str]:
    """Return the modules that import something whose name is no literal string."""
    nodes = ((name, node) for name, tree in trees.items() for node in ast.walk(tree) if isinstance(node, ast.Call))
    calls = ((name, node) for name, node in nodes if _called(node) in IMPORTERS)
    return {name for name, node in calls if not (node.args and isinstance(node.args[0], ast.Constant))}


def room(module: str, names: set[str]) -> str:
    """Return the room of a module: the folder it lies in; a file at a floor's top is a room of its own."""
    floor, _, rest = module.partition(".")
    return f"{floor}.{rest.split('.')[0]}" if rest else floor


def upward(found: dict[str, set[str]]) -> list[str]:
    """Return the imports that leave their floor for one that is not below it."""
    steps = ((name, target) for name, targets in found.items() for target in sorted(targets))
    floors = ((name, target, name.split(".")[0], target.split(".")[0]) for name, target in steps)
    return [
        f"{name} imports {target}"
        for name, target, here, there in floors
        if there in (*FLOORS, "tests") and there != here and there not in BELOW[here]
    ]


def circles(edges: list[tuple[str, str]]) -> list[list[str]]:
    """Return the groups of names that import one another."""
    graph = nx.DiGraph((a, b) for a, b in edges if a != b)
    return sorted(sorted(part) for part in nx.strongly_connected_components(graph) if len(part) > 1)


def file_edges(found: dict[str, set[str]]) -> list[tuple[str, str]]:
    return [(name, target) for name, targets in found.items() for target in targets if target in found]


def room_edges(found: dict[str, set[str]]) -> list[tuple[str, str]]:
    names = set(found)
    return [(room(a, names), room(b, names)) for a, b in file_edges(found)]


def crowded(root: Path) -> list[str]:
    """Return the folders that hold more than `MOST_MODULES` modules; `__init__.py` does not count."""
    folders = {path.parent for floor in FLOORS for path in (root / floor).rglob("*.py")}
    counts = {folder: sum(path.name != "__init__.py" for path in folder.glob("*.py")) for folder in folders}
    return sorted(f"{folder.relative_to(root)}: {count}" for folder, count in counts.items() if count > MOST_MODULES)


def reached(start: list[str], found: dict[str, set[str]]) -> set[str]:
    """Return everything that some modules import, directly or through others, with the packages above each."""
    seen, left = set(), list(start)
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        parents = [name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)]
        left += [*found.get(name, ()), *(parent for parent in parents if parent in found)]
    return seen


@pytest.fixture(scope="module")
def found() -> dict[str, set[str]]:
    return imports(modules(ROOT))


def test_no_import_runs_upward(found):
    assert upward(found) == []


def test_no_circle_between_files(found):
    assert circles(file_edges(found)) == []


def test_no_circle_between_rooms(found):
    assert circles(room_edges(found)) == []


def test_no_room_is_crowded():
    assert crowded(ROOT) == []


def test_files_stay_short():
    paths = {path.relative_to(ROOT).as_posix(): path for floor in FLOORS for path in (ROOT / floor).rglob("*.py")}
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in paths.items()}
    assert {name: count for name, count in lines.items() if count > MOST_LINES and name not in STAND_ALONE} == {}


def test_lookup_needs_no_jax(found):
    start = [name for name in found if name.startswith("medtok_jax.lookup")]
    assert start
    assert {name for name in reached(start, found) if name.split(".")[0] in JAX} == set()


def test_the_code_of_a_tokenizer_directory_needs_nothing_else(found):
    """It imports itself, numpy, transformers and, for tensors, torch; `code_files` names all of its files."""
    start = f"medtok_jax.lookup.{Path(CODE_FILE).stem}"
    others = {name.split(".")[0] for module in code_files.MODULES for name in found[module] - set(code_files.MODULES)}
    assert others - sys.stdlib_module_names == {"numpy", "transformers", "torch"}
    edges = nx.DiGraph((a, b) for a, b in file_edges(found))
    assert nx.descendants(edges, start) | {start} == set(code_files.MODULES)
    assert len(set(code_files.names())) == len(code_files.MODULES)


def test_the_ground_floor_needs_no_jax(found):
    reached_names = reached([m for m in found if m.startswith("preprocessing")], found)
    assert {name for name in reached_names if name.split(".")[0] in JAX} == set()


def test_no_import_hides():
    trees = modules(ROOT)
    assert relative(trees) == COPIED
    assert bound_by_string(trees) == BY_STRING


def drawing(found: dict[str, set[str]]) -> set[str]:
    """Return the modules that import a package which draws bars."""
    return {name for name, targets in found.items() if any(_is_within(target, DRAWING) for target in targets)}


def _is_within(module: str, packages: set[str]) -> bool:
    return any(f"{module}.".startswith(f"{package}.") for package in packages)


def test_one_helper_draws_all_bars(found):
    assert drawing(found) == {PROGRESS}


@pytest.mark.parametrize("text", ["from tqdm import tqdm", "import tqdm.auto", "from rich.progress import track"])
def test_another_bar_is_found(house, text):
    (house / "eval" / "tool.py").write_text(f"def late():\n    {text}")
    assert drawing(imports(modules(house))) == {"eval.tool"}


@pytest.fixture
def house(tmp_path):
    """A house of one file a floor."""
    for floor, text in {
        "preprocessing": "",
        "configs": "",
        "medtok_jax": "from preprocessing import tool",
        "eval": "from medtok_jax import tool",
    }.items():
        (tmp_path / floor).mkdir()
        (tmp_path / floor / "__init__.py").write_text("")
        (tmp_path / floor / "tool.py").write_text(text)
    return tmp_path


def test_the_checks_pass_a_sound_house(house):
    found = imports(modules(house))
    assert upward(found) == circles(file_edges(found)) == circles(room_edges(found)) == crowded(house) == []


@pytest.mark.parametrize(
    "text",
    [
        "import eval.tool",
        "def late():\n    from medtok_jax import tool",
        "import importlib\nimportlib.import_module('medtok_jax.tool')",
        "__import__('eval.tool')",
        "from tests import helpers",
    ],
)
def test_an_upward_import_is_found(house, text):
    (house / "preprocessing" / "tool.py").write_text(text)
    assert upward(imports(modules(house))) != []


def test_an_import_that_hides_is_found(house):
    path = house / "preprocessing" / "tool.py"
    path.write_text("from .other import name")
    assert relative(modules(house)) == {"preprocessing.tool"}
    path.write_text("import importlib\nfloor = 'eval'\nimportlib.import_module(f'{floor}.tool')")
    assert bound_by_string(modules(house)) == {"preprocessing.tool"}


def test_a_circle_of_files_and_of_rooms_is_found(house):
    for name, text in {"a/one": "from preprocessing.b import two", "b/two": "import preprocessing.a.three"}.items():
        path = house / "preprocessing" / f"{name}.py"
        path.parent.mkdir()
        path.write_text(text)
    (house / "preprocessing" / "a" / "three.py").write_text("")
    found = imports(modules(house))
    assert circles(file_edges(found)) == []
    assert circles(room_edges(found)) == [["preprocessing.a", "preprocessing.b"]]
    (house / "preprocessing" / "a" / "three.py").write_text("from preprocessing.a import one")
    assert circles(file_edges(imports(modules(house)))) != []


def test_an_eighteenth_module_is_found(house):
    for number in range(MOST_MODULES - 1):
        (house / "eval" / f"m{number}.py").write_text("")
    assert crowded(house) == []
    (house / "eval" / "one_more.py").write_text("")
    assert crowded(house) == ["eval: 18"]


def test_jax_below_lookup_is_found(house):
    (house / "medtok_jax" / "lookup.py").write_text("from medtok_jax import tool")
    (house / "medtok_jax" / "tool.py").write_text("def late():\n    import jax.numpy as jnp")
    found = imports(modules(house))
    assert {name for name in reached(["medtok_jax.lookup"], found) if name.split(".")[0] in JAX} == {"jax.numpy"}
