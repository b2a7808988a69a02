"""Figures, samples, maps and the page of a report, and how its command line fails; the browser has tests of its own."""

import collections
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from medtok_jax.lookup.directory import TokenizerDirectory
from medtok_jax.regions import Regions
from medtok_jax.report import build, maps, page
from medtok_jax.report import data as report_data
from medtok_jax.report.codes import read_codes, sample_evenly, select
from medtok_jax.tokenizer import MedTokTokenizer
from preprocessing.common.errors import InputError
from tests.helpers.forked import run_module
from tests.helpers.small_tokenizer import KEYS, REGIONS, make_tokens, positions, write, write_uneven

HOSTILE = "</script><script>x</script><!-- \u2028\u2029 & \" ' <b> ${script} \x07"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> MedTokTokenizer:
    return MedTokTokenizer.from_pretrained(write(tmp_path_factory.mktemp("tok") / "tok"))


def test_use_of_a_region():
    ids = np.array([[0, 4, 6, 6], [0, 5, 6, 7], [1, 4, 8, 6], [0, 4, 6, 7]], np.int32)
    text, graph, shared = report_data.region_use(ids, Regions(3, 3, 4))
    assert (text.start, text.size, text.used) == (0, 3, 2)
    assert (graph.start, graph.size, graph.used) == (3, 3, 2)
    assert (shared.start, shared.size, shared.used) == (6, 4, 3)
    # Token 0 three times of four, token 1 once.
    assert text.perplexity == pytest.approx(0.75**-0.75 * 0.25**-0.25)
    assert text.busiest == pytest.approx(0.75)
    assert shared.busiest == pytest.approx(5 / 8)


def test_use_agrees_with_the_metrics_of_training():
    from medtok_jax.training.metrics import describe_usage

    ids = make_tokens().ids
    wanted = describe_usage(np.bincount(ids.reshape(-1), minlength=REGIONS.size), REGIONS)
    for use in report_data.region_use(ids, REGIONS):
        assert use.used / use.size == pytest.approx(wanted[f"codebook_utilization_{use.name}"])
        assert use.perplexity == pytest.approx(wanted[f"codebook_perplexity_{use.name}"])


def test_codes_of_tokens_counts_a_code_once():
    ids = make_tokens().ids
    wanted = [sum(token in row for row in ids.tolist()) for token in range(REGIONS.size)]
    assert report_data.codes_of_tokens(ids, REGIONS.size).tolist() == wanted


def test_codes_whose_token_set_is_their_own():
    # The first two hold the same tokens in another order.
    assert report_data.alone(np.array([[1, 2, 3, 4], [2, 1, 4, 3], [1, 2, 3, 5]], np.int32)) == pytest.approx(1 / 3)


def test_main_region_is_that_of_the_token_which_adds_most():
    codebook = np.array([[1.0, 0], [0, 3], [1, 0], [0, 1]])
    ids = np.array([[0, 1, 2, 3], [0, 1, 3, 2]])
    # The long row of the graph region outweighs the heavier token of the text region, unless its weight is too small.
    weights = np.array([[0.9, 0.4, 0.5, 0.5], [0.5, 0.1, 0.2, 0.7]])
    assert report_data.main_region(ids, weights, codebook, positions(1)).tolist() == [1, 2]


def test_a_quantizer_with_embeddings_of_different_lengths(tmp_path):
    directory = TokenizerDirectory.read(write_uneven(tmp_path / "tok"))
    about = report_data.describe(directory, select(MedTokTokenizer.from_pretrained(tmp_path / "tok"), None, 9), "pca")
    assert about["bounds"] == [[0, 1], [1, 4], [4, 6]]
    assert [one["region"] for one in about["embeddings"]] == [0, 2, 1]
    ids, weights = directory.ids, directory.weights
    longest = (np.linalg.norm(directory.codebook, axis=1)[ids] * weights).argmax(1)
    found = report_data.main_region(ids, weights, directory.codebook, directory.config.positions)
    assert found.tolist() == [[0, 2, 2, 2, 1, 1][place] for place in longest]


def test_only_codes_of_the_data_set_are_counted(tmp_path):
    """Categories and codes of earlier editions are in no figure and in no sample."""
    tokens = make_tokens()
    tokens.strings["kind"] = np.array(["category" if key == "ICD10CM/E11" else "code" for key in KEYS])
    tokens.ids[KEYS.index("ICD10CM/E11")] = tokens.ids[KEYS.index("ICD10CM/E11.9")]
    tokenizer = MedTokTokenizer.from_pretrained(write(tmp_path / "tok", tokens))
    selection = select(tokenizer, None, 99)
    assert "ICD10CM/E11" not in [tokenizer.key_at(row) for row in selection.rows]
    about = report_data.describe(tokenizer.directory, selection, "pca")
    assert (about["vocabulary"], about["alone"]) == (len(KEYS) - 1, 1.0)


def test_sample_takes_as_many_of_every_system():
    system = np.array(["A"] * 3 + ["B"] * 40 + ["C"] * 57)
    length = np.array([5] * 100)
    rows = sample_evenly(system, length, 23)
    assert collections.Counter(system[rows]) == {"A": 3, "B": 10, "C": 10}
    assert np.all(np.diff(rows) > 0)
    # Even within a system: runs of five or six neighbors give one code each.
    assert np.diff(rows[system[rows] == "C"]).max() <= 6
    assert np.array_equal(rows, sample_evenly(system, length, 23))


def test_sample_prefers_general_codes():
    length = np.array([7, 5, 7, 7, 7, 3])
    assert sample_evenly(np.array(["A"] * 6), length, 2).tolist() == [1, 5]


def test_sample_of_fewer_codes_than_systems():
    assert len(sample_evenly(np.array(list("ABCDE")), np.ones(5), 2)) == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("codes.txt", "\ufeffE11.9\r\n\nICD9CM/250.00\n"),
        ("codes.csv", 'code,system\n"E11.9",ICD10CM\n250.00,ICD9CM\n'),
        ("codes.json", '["E11.9", {"code": "250.00", "system": "ICD9CM"}]'),
    ],
)
def test_lists_of_codes(tokenizer, tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text.encode())
    keys = tokenizer.directory.table["key"].take(select(tokenizer, path, 100).rows).to_pylist()
    assert keys == ["ICD10CM/E11.9", "ICD9CM/250.00"]


def test_codes_that_are_not_there_are_told(tokenizer, tmp_path):
    path = tmp_path / "codes.txt"
    path.write_text("E11.9\nE11.9\nXYZ\n10021\n")
    selection = select(tokenizer, path, 100)
    assert len(selection.rows) == 1
    assert [code for code, _ in selection.rejected] == ["XYZ", "10021"]
    assert "CPT4/10021, SNOMED/10021" in selection.rejected[1][1]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("codes.txt", "XYZ", "None of the codes in .* can be shown; the first of them: 'XYZ'"),
        ("codes.txt", "\n", "because it is empty"),
        ("codes.xlsx", "", "ends in none of"),
        ("codes.csv", "a,b\n1,2\n", "no column 'code'"),
    ],
)
def test_lists_that_cannot_be_used(tokenizer, tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        select(tokenizer, path, 100)


def test_list_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_codes(tmp_path / "none.txt")


@pytest.mark.parametrize("method", ["tsne", "umap", "pca"])
def test_maps_keep_groups_together(method):
    pytest.importorskip({"tsne": "openTSNE", "umap": "umap", "pca": "sklearn"}[method])
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(3), 30)
    vectors = np.eye(3, 20)[group] * 5 + rng.normal(size=(90, 20)) * 0.3
    points = maps.project(vectors, method)
    assert points.shape == (90, 2)
    assert points.dtype == np.float32
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert np.array_equal(group[distance.argmin(1)], group)
    assert np.array_equal(points, maps.project(vectors, method))


@pytest.mark.parametrize("method", ["tsne", "pca"])
@pytest.mark.parametrize("count", [1, 2, 4, 5, 40])
def test_maps_of_few_or_equal_codes(method, count):
    for vectors in (np.zeros((count, 6)), np.eye(count, 6)):
        points = maps.project(vectors, method)
        assert points.shape == (count, 2)
        assert np.isfinite(points).all()


def test_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    sentence = "Python package umap, which is not installed; run: pip install 'medtok_jax[report]'"
    with pytest.raises(InputError, match=re.escape(sentence)):
        maps.project(np.random.default_rng(0).normal(size=(30, 4)), "umap")


class Scripts(HTMLParser):
    """Collects what stands in script elements."""

    def __init__(self):
        super().__init__()
        self.scripts, self.titles, self.inside = [], [], None

    def handle_starttag(self, tag, attributes):
        self.inside = tag
        if tag == "script":
            self.scripts.append((dict(attributes), ""))

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        elif self.inside == "title":
            self.titles.append(data)


def test_data_cannot_leave_its_script_element():
    parser = Scripts()
    parser.feed(page.build(HOSTILE, {"text": HOSTILE}))
    assert len(parser.scripts) == 3
    attributes, text = parser.scripts[0]
    assert attributes == {"id": "data", "type": "application/json"}
    assert json.loads(text) == {"text": HOSTILE}
    assert not re.search("[<>&\u2028\u2029]", text)
    assert parser.titles[0].strip() == HOSTILE.strip()


def test_numbers_that_javascript_cannot_read_are_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        page.to_json({"number": float("nan")})


def test_same_report_every_time(tokenizer, tmp_path):
    options = {"codes": None, "method": "tsne", "max_codes": 12, "progress": False}
    pages = [build.write(tokenizer.directory.path, tmp_path / name, **options).read_bytes() for name in "ab"]
    assert pages[0] == pages[1]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["report.html"]


@pytest.mark.integration
def test_needs_no_jax():
    code = "import sys, medtok_jax.report; print(sorted({'jax', 'flax', 'torch', 'umap'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.fixture
def command(tokenizer, tmp_path):
    """Runs the command line with flags over good ones."""

    def run(*arguments, **given):
        wanted = {"tokenizer": tokenizer.directory.path, "output": tmp_path / "out", "method": "pca"} | given
        given = [f"--{name}={value}" for name, value in wanted.items() if value is not None]
        return run_module("medtok_jax.report", *given, *arguments)

    return run


@pytest.mark.integration
def test_command_line(command, tmp_path):
    codes = tmp_path / "codes.txt"
    codes.write_text("E11.9\nXYZ\n")
    told = command(show=codes)
    assert told.returncode == 0, told.stderr
    assert re.search(r"Wrote .*report\.html \(\d\.\d MB\)", told.stdout)
    assert "warning: 1 of the listed codes cannot be shown; the first of them: 'XYZ'" in told.stderr


@pytest.mark.integration
def test_command_line_says_how_it_is_used(command, tmp_path):
    (tmp_path / "file").write_text("")
    wrong = {
        "--tokenizer and --output are required": command(tokenizer=None),
        "number of arguments": command("extra"),
        "cannot be written": command(output=tmp_path / "file"),
        "should be one of": command(method="mds"),
    }
    for sentence, told in wrong.items():
        assert told.returncode == 2
        assert sentence in told.stderr
        assert "Traceback" not in told.stderr


def test_hand_made_keys_are_all_shown_by_default(tokenizer):
    assert len(select(tokenizer, None, 100).rows) == len(KEYS)
