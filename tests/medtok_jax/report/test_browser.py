"""The report in headless Chromium: what a reader sees and does, at two widths, with nothing on the console."""

import contextlib
import io
import re
import shutil

import numpy as np
import pytest
from matplotlib.image import imread

from medtok_jax.report import build
from medtok_jax.tokenizer import MedTokTokenizer
from tests.helpers.small_tokenizer import KEYS, REGIONS, make_tokens, write

sync_api = pytest.importorskip("playwright.sync_api")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium: apt-get install chromium")

WIDTHS = {"wide": (1280, 900), "narrow": (390, 844)}
EVIL_CODE = "</script><img src=x onerror=window.hacked=1>"
EVIL_TEXT = (
    """'"><script>window.hacked=1</script> <a href="javascript:window.hacked=1">b</a> &lt;i&gt; %{x} \u2028 <b>bold"""
)
KEYS_SHOWN = (*KEYS, *(f"ICD10CM/E11.{number}" for number in range(20, 60)), f"LOCAL/{EVIL_CODE}")


def hand_made_tokens():
    tokens = make_tokens(KEYS_SHOWN)
    tokens.strings["description"] = np.array([*tokens.strings["description"][:-1], EVIL_TEXT])
    # One token of each region is in no code.
    for unused in (0, REGIONS.text, REGIONS.text + REGIONS.graph):
        tokens.ids[tokens.ids == unused] = unused + 1
    return tokens


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> MedTokTokenizer:
    return MedTokTokenizer.from_pretrained(write(tmp_path_factory.mktemp("tok") / "hand-made", hand_made_tokens()))


@pytest.fixture(scope="module")
def whole(tokenizer, tmp_path_factory):
    """A report of all codes."""
    output = tmp_path_factory.mktemp("report")
    return build.write(tokenizer.directory.path, output, codes=None, method="tsne", max_codes=1000, progress=False)


@pytest.fixture(scope="module")
def launch():
    """Starts a browser with some arguments."""
    with sync_api.sync_playwright() as playwright:
        yield lambda *arguments: playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", *arguments])


@pytest.fixture(scope="module")
def browser(launch):
    with launch() as browser:
        yield browser


@contextlib.contextmanager
def opened(browser, path, width: str = "wide"):
    """A page, and at the end proof that nothing went wrong on it and that it asked for nothing."""
    size = dict(zip(("width", "height"), WIDTHS[width], strict=True))
    context = browser.new_context(viewport=size, is_mobile=width == "narrow", has_touch=width == "narrow")
    page, wrong = context.new_page(), []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: wrong.append(request.url) if request.url != path.as_uri() else None)
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-drawn]")
    yield page
    page.wait_for_timeout(50)
    context.close()
    assert [text for text in wrong if not text.startswith(("data:", "blob:"))] == []


@pytest.fixture(scope="module")
def wide(browser, whole):
    with opened(browser, whole) as page:
        yield page


def hover(page, key: str):
    """Moves the mouse to the mark of a code, and waits until the map has seen it."""
    row = sorted(KEYS_SHOWN).index(key)
    place = page.evaluate(
        """row => {
            const plot = document.getElementById("code-map");
            plot.scrollIntoView({ block: "center" });
            const trace = plot.data.find((trace) => trace.customdata.includes(row));
            const point = trace.customdata.indexOf(row);
            const { xaxis, yaxis } = plot._fullLayout;
            const box = plot.getBoundingClientRect();
            return [
              box.x + xaxis._offset + xaxis.l2p(trace.x[point]), box.y + yaxis._offset + yaxis.l2p(trace.y[point]),
            ];
        }""",
        row,
    )
    page.mouse.move(place[0] - 40, place[1] - 40)
    page.mouse.move(*place, steps=4)
    page.locator("#code-map .hoverlayer .hovertext").get_by_text(key.split("/")[1]).first.wait_for()
    return place


def choose(page, text: str):
    page.locator("#search").fill(text)
    page.locator("#search").press("Enter")


def overlap(tokens, row: int, other: int) -> float:
    """Weighted Jaccard overlap, by the book."""
    bags = []
    for place in (row, other):
        bag = {}
        for start, stop in tokens.config.bounds:
            ids, weights = (array[place, start:stop].tolist() for array in (tokens.ids, tokens.weights))
            for token, weight in zip(ids, weights, strict=True):
                bag[token] = bag.get(token, 0.0) + weight / sum(weights)
        bags.append(bag)
    pairs = [(bags[0].get(token, 0.0), bags[1].get(token, 0.0)) for token in bags[0].keys() | bags[1].keys()]
    return sum(map(min, pairs)) / sum(map(max, pairs))


@pytest.mark.parametrize("width", WIDTHS)
def test_everything_is_drawn_and_nothing_juts_out(browser, whole, width):
    with opened(browser, whole, width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width][0]
        assert page.get_by_text("WebGL is not supported").count() == 0
        for plot in ("#code-map", "#codebook-map", "#heat-map", "#use-plot"):
            box = page.locator(plot).bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= WIDTHS[width][0]
            image = imread(io.BytesIO(page.locator(plot).screenshot()))[..., :3]
            colored = (image.max(-1) - image.min(-1) > 0.25).mean()
            assert 0.0005 < colored < 0.5, plot
        assert page.locator("h1").inner_text() == "MedTok tokens: hand-made"


def test_summary_tells_codes_utilization_and_perplexity(wide, tokenizer):
    cards = wide.locator(".card").all_inner_texts()
    assert str(len(KEYS_SHOWN)) in cards[0]
    counts = np.bincount(tokenizer.directory.ids.ravel(), minlength=REGIONS.size)
    for name, card in zip(("text", "graph", "shared"), cards[2:5], strict=True):
        part = counts[slice(*REGIONS.bounds(name))]
        share = part[part > 0] / part.sum()
        assert name in card
        assert f"{100 * (part > 0).mean():.1f} %" in card
        assert f"perplexity {np.exp(-(share * np.log(share)).sum()):.0f}" in card


@pytest.mark.parametrize("text", ["E11.9", "e119", "icd10cm/e11.9"])
def test_search_finds_a_code_however_it_is_written(wide, text):
    wide.locator("#search").fill(text)
    first = wide.locator("#results li").first
    assert first.inner_text().startswith("E11.9 ICD10CM · what ICD10CM/E11.9 means")
    first.click()
    assert wide.locator("#code-view h3").inner_text().split() == ["E11.9", "ICD10CM"]
    assert wide.locator("#search-status").inner_text() == "Shown: ICD10CM/E11.9"


def test_search_by_keyboard_alone(browser, whole):
    with opened(browser, whole) as page:
        for _ in range(2):
            page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "search"
        page.keyboard.type("SNOMED means")
        options = page.locator("#results li")
        assert options.count() == 2
        assert page.locator("#search").get_attribute("aria-expanded") == "true"
        page.keyboard.press("ArrowUp")
        assert options.nth(1).get_attribute("aria-selected") == "true"
        assert page.locator("#search").get_attribute("aria-activedescendant") == options.nth(1).get_attribute("id")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        assert page.locator("#code-view h3").inner_text().split() == ["44054006", "SNOMED"]
        assert not page.locator("#results").is_visible()
        page.keyboard.type("5")
        page.keyboard.press("Escape")
        assert not page.locator("#results").is_visible()
        page.locator("#search").fill("no such thing")
        assert page.locator("#search-status").inner_text() == "No such code in this vocabulary."


def test_hovering_tells_the_code(wide):
    hover(wide, "ICD9CM/250.00")
    label = wide.locator("#code-map .hoverlayer .hovertext")
    label.wait_for()
    assert "250.00" in label.text_content()
    assert "what ICD9CM/250.00 means" in label.text_content()


def test_choosing_a_mark_shows_its_code(wide):
    wide.mouse.click(*hover(wide, "ATC/A10BA02"))
    wide.locator("#code-view h3").get_by_text("A10BA02").wait_for()
    assert "Alimentary tract and metabolism" in wide.locator("#code-view").inner_text()


def test_tokens_of_a_code(wide, tokenizer):
    choose(wide, "ICD10CM/E11.9")
    known = tokenizer.look_up("ICD10CM/E11.9")
    shown = [text.split() for text in wide.locator("#code-tokens .token").all_inner_texts()]
    wanted = [[str(token), f"{weight:.2f}"] for token, weight in zip(known.ids, known.weights, strict=True)]
    assert shown == wanted
    button = wide.locator("#code-tokens .token").nth(5)
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    holders = [key for key, row in zip(sorted(KEYS_SHOWN), tokenizer.directory.ids, strict=True) if known.ids[5] in row]
    told = wide.locator("#code-token").inner_text()
    assert f"Token {known.ids[5]} shared region" in told
    assert f"In {len(holders)} of {len(KEYS_SHOWN)} codes" in told
    listed = [button.get_attribute("title") for button in wide.locator("#code-token .bars button").all()]
    assert len(listed) == min(8, len(holders))
    assert set(listed) <= set(holders)


def test_codes_that_share_most(wide, tokenizer):
    choose(wide, "ICD10CM/E11.9")
    buttons = wide.locator("#neighbors button")
    shown = [(button.get_attribute("title"), button.locator(".count").inner_text()) for button in buttons.all()]
    assert shown == [(key, f"{score:.2f}") for key, score, _ in tokenizer.neighbors("ICD10CM/E11.9", 10)]
    buttons.first.click()
    assert wide.locator("#code-view h3").inner_text().split()[::-1] == shown[0][0].split("/")


def test_colors_switch_and_groups_are_picked_out(browser, whole):
    with opened(browser, whole) as page:

        def colors():
            return page.evaluate("[...new Set(document.getElementById('code-map').data[1].marker.color)]")

        def legend():
            return page.locator("#legend button").all_inner_texts()

        systems = sorted({key.split("/")[0] for key in KEYS_SHOWN})
        assert [text.split("\n")[0] for text in legend()] == systems
        by_system = colors()
        page.get_by_role("radio", name="chapter").check()
        assert any(text.startswith("S00-T88 Injury, poisoning") for text in legend())
        assert any(text.startswith("A Alimentary tract") for text in legend())
        assert len(colors()) > 3
        page.get_by_role("radio", name="main region").check()
        assert [text.split("\n")[0] for text in legend()] == ["text", "graph", "shared"]
        assert set(colors()) == {"#0072b2", "#d55e00", "#009e73"} != set(by_system)
        button = page.locator("#legend button").first
        button.click()
        button = page.locator("#legend button").first
        assert button.get_attribute("aria-pressed") == "true"
        faded, active = page.evaluate(
            "document.getElementById('code-map').data.slice(0, 2).map((trace) => trace.x.length)"
        )
        assert active == int(button.inner_text().split("\n")[-1])
        assert faded + active == len(KEYS_SHOWN)


def test_no_two_groups_look_the_same(wide):
    wide.get_by_role("radio", name="chapter").check()
    shapes = wide.locator("#legend path").all()
    looks = [(shape.get_attribute("fill"), shape.get_attribute("d")) for shape in shapes]
    assert len(set(looks)) == len(looks) > 7


def test_heat_map_holds_the_overlaps(wide, tokenizer):
    choose(wide, "ICD10CM/E11.9")
    wide.locator("#heat-mode").select_option("nearest")
    rows, values = wide.evaluate(
        "(({ customdata, z }) => [customdata, z])(document.getElementById('heat-map').data[0])"
    )
    assert len(rows) == 30
    wanted = [[overlap(tokenizer.directory, a, b) for b in rows] for a in rows]
    assert np.allclose(values, wanted, atol=1e-6)
    assert np.allclose(np.diag(values), 1.0)


def test_heat_map_of_a_list(wide):
    wide.locator("#heat-clear").click()
    for code in ("E11.9", "250.00", "E11.9"):
        choose(wide, code)
        wide.locator("#heat-add").click()
    assert wide.locator("#heat-mode").input_value() == "mine"
    labels = wide.evaluate("document.getElementById('heat-map').layout.xaxis.ticktext")
    assert labels == ["E11.9", "250.00"]
    wide.locator("#heat-clear").click()
    assert "Your list is empty" in wide.locator("#heat-note").inner_text()


def test_codebook_by_region(wide):
    names = wide.evaluate("document.getElementById('codebook-map').data.map((trace) => trace.name)")
    assert names == ["text (11)", "graph (9)", "shared (13)", "unused (3)"]
    rows = [row.split("\t") for row in wide.locator("#use-table tbody tr").all_inner_texts()]
    assert [row[0] for row in rows] == ["text", "graph", "shared"]
    assert rows[0][1] == "11 / 12"
    bars = wide.evaluate("document.getElementById('use-plot').data.map((trace) => trace.y)")
    assert [sum(heights) for heights in bars] == [REGIONS.text, REGIONS.graph, REGIONS.shared]
    assert [heights[0] for heights in bars] == [1, 1, 1]


def test_hostile_texts_are_shown_as_they_stand(wide):
    wide.locator("#search").fill("javascript:window")
    assert EVIL_CODE in wide.locator("#results li").first.inner_text()
    wide.locator("#search").press("Enter")
    assert EVIL_CODE in wide.locator("#code-view h3").inner_text()
    assert re.sub(r"\s+", " ", EVIL_TEXT) in re.sub(r"\s+", " ", wide.locator("#code-view").inner_text())
    wide.locator("#heat-mode").select_option("nearest")
    hover(wide, f"LOCAL/{EVIL_CODE}")
    label = wide.locator("#code-map .hoverlayer .hovertext")
    label.get_by_text("LOCAL").wait_for()
    for text in (EVIL_CODE, EVIL_TEXT):
        assert re.sub(r"\s", "", text) in re.sub(r"\s", "", label.text_content())
    assert wide.locator("img[src=x], svg a").count() == 0
    assert wide.evaluate("window.hacked") is None


def test_without_webgl(launch, whole):
    with launch("--disable-gpu", "--disable-3d-apis") as browser, opened(browser, whole) as page:
        assert page.evaluate("document.getElementById('codebook-map').data[0].type") == "scatter"
        assert page.locator("#codebook-map .scatterlayer path.point").count() == REGIONS.size


def test_list_of_codes(browser, tokenizer, tmp_path):
    codes = tmp_path / "codes.txt"
    wanted = ["S72.001A", "E11.9", "ICD9Proc/25.0"]
    codes.write_text("\n".join([*wanted, "XYZ"]))
    path = build.write(tokenizer.directory.path, tmp_path, codes=codes, method="pca", max_codes=9, progress=False)
    with opened(browser, path) as page:
        assert page.locator("#notes").inner_text() == "1 of the listed codes could not be found: XYZ."
        assert page.locator("#heat-mode").input_value() == "listed"
        labels = page.evaluate("document.getElementById('heat-map').layout.xaxis.ticktext")
        assert labels == [code.split("/")[-1] for code in wanted]
        page.locator("#search").fill("E10.9")
        assert "Not among the 3 codes on this page" in page.locator("#search-status").inner_text()


def test_texts_can_be_read_by_contrast(wide):
    """WCAG 2.2, 1.4.3: 4.5 to 1 for text."""
    pairs = wide.evaluate(
        """[...document.querySelectorAll("main p, main h2, main h3, main button, main td, main th, main span.count")]
            .filter((element) => element.offsetParent && element.innerText.trim()).map((element) => {
              let ground = element;
              while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
              return [getComputedStyle(element).color, getComputedStyle(ground).backgroundColor];
            })"""
    )
    for ink, ground in set(map(tuple, pairs)):
        light = sorted(luminance(color) for color in (ink, ground))
        assert (light[1] + 0.05) / (light[0] + 0.05) >= 4.5, (ink, ground)


def luminance(color: str) -> float:
    parts = np.array([int(part) for part in re.findall(r"\d+", color)[:3]]) / 255
    return float(np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])
