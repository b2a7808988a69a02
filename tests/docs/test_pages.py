"""Check the pages of the documentation: links, named files, the generated page, the citation."""

import ast
import importlib
import re

import pytest
import yaml

from tests.helpers import configuration_page
from tests.helpers.paths import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "eval" / "RESULTS.md"])
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
FLOORS = ("preprocessing", "medtok_jax", "eval")
FOLDERS = (*FLOORS, "configs", "tests", "launch", "docs")
# Files that the pipeline document names, or that commands write.
ELSEWHERE = {"docs/from_the_pipeline_document.md", "docs/integration_guide.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which does not exist"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_exist(page):
    if page.relative_to(ROOT).as_posix() in ELSEWHERE:
        return
    for name in re.findall(
        r"`((?:preprocessing|medtok_jax|eval|configs|tests|launch|docs)/[\w/.]+)[`:]", page.read_text()
    ):
        assert (ROOT / name).exists(), f"{page.name} names {name}, which does not exist"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_overrides_name_fields(page):
    fields = configuration_page.flat(configuration_page.default.get_config())
    named = re.findall(r"--config\.([a-z_]+(?:\.\w+)*)(?:=|`| )", page.read_text(encoding="utf-8"))
    assert [name for name in named if name not in fields] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples_import_what_is_there(page):
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] in FLOORS:
                module = importlib.import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == [], node.module


def test_the_index_lists_every_page():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if page.parent.name == "docs" and f"({page.name})" not in index] == [
        "README.md"
    ]


@pytest.mark.parametrize("floor", FLOORS)
def test_the_architecture_lists_every_room(floor):
    rooms = {path.parent.name for path in (ROOT / floor).glob("*/__init__.py")}
    section = re.search(rf"^### .*`{floor}/`\n(.*?)(?=^#)", ARCHITECTURE, re.MULTILINE | re.DOTALL)[1]
    listed = {name for row in re.findall(r"^\| (`\w+/`.*?) \|", section, re.M) for name in re.findall(r"`(\w+)/`", row)}
    assert listed == rooms


def test_the_configuration_page_is_up_to_date():
    message = "run python -m tests.helpers.configuration_page"
    assert configuration_page.PAGE.read_text(encoding="utf-8") == configuration_page.page(), message


def test_every_field_has_a_comment():
    fields = configuration_page.fields("default.py")
    assert fields.keys() == configuration_page.flat(configuration_page.default.get_config()).keys()


def test_the_readme_stays_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 140
    assert all(path.stat().st_size < 200_000 for path in (ROOT / "docs" / "images").iterdir())


def test_the_citation_can_be_read():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation.keys() >= {"message", "title", "authors", "version", "license", "preferred-citation"}
    assert citation["authors"] == [{"name": "The medtok_jax developers"}]
    paper = citation["preferred-citation"]
    assert paper.keys() >= {"type", "title", "authors", "year", "conference"}
    assert f'version="{citation["version"]}"' in (ROOT / "setup.py").read_text(encoding="utf-8")
