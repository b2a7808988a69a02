"""The page in headless Chromium, wide and narrow: complete, readable, and silent."""

import shutil

import pytest

from eval.ehr.report import blocks, build
from eval.ehr.report.blocks import DataTable, Heading, Listing, Paragraph, Picture, Strong
from tests.helpers.ehr_cells import SKILLS, cell, run

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DOCUMENT = [
    Heading("Title", 1),
    Heading("First part"),
    Paragraph("Text < more."),
    Paragraph("Careful.", is_warning=True),
    Listing(["one", "two"]),
    DataTable(["name", "value"], [["a", Strong("0.5 [0.4, 0.6]")], ["b", 1234], ["c", None], ["d", 0.25]]),
    Picture(b"<svg/>", "A figure."),
]


def test_markdown():
    assert blocks.markdown(DOCUMENT) == (
        "# Title\n\n## First part\n\nText < more.\n\n> **Note:** Careful.\n\n- one\n- two\n\n"
        "| name | value |\n| --- | ---: |\n| a | **0.5 [0.4, 0.6]** |\n| b | 1,234 |\n| c |  |\n| d | 0.250 |\n"
    )


def test_html():
    page = blocks.page("Title & more", DOCUMENT)
    assert page.count("<h1>") == 1
    assert "<title>Title &amp; more</title>" in page
    assert '<a href="#first-part">First part</a>' in page
    assert '<h2 id="first-part">First part</h2>' in page
    assert "<p>Text &lt; more.</p>" in page
    assert '<p class="warning">Careful.</p>' in page
    assert "<strong>0.5\u00a0[0.4,\u00a00.6]</strong>" in page
    assert '<td class="number">1,234</td>' in page
    assert 'src="data:image/svg+xml;base64,PHN2Zy8+" alt="A figure."' in page
    assert "<figcaption>A figure.</figcaption>" in page
    assert "default-src &#x27;none&#x27;" in page


@pytest.mark.integration
@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium: apt-get install chromium")
def test_in_a_browser(tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    cells = [cell(name) for name in SKILLS]
    cells += [cell(name, regime="few_shot", setting=f"k={k}") for name in SKILLS for k in (1, 8)]
    build.write(cells, run(flows={"mortality": [("stays", 400)]}), tmp_path)
    address = (tmp_path / "report.html").as_uri()
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        for width in (1440, 390):
            page, wrong = browser.new_page(viewport={"width": width, "height": 900}), []
            page.on("console", lambda message, wrong=wrong: wrong.append(message.text))
            page.on("request", lambda request, wrong=wrong: wrong.append(request.url))
            page.goto(address)
            assert [one for one in wrong if one != address and not one.startswith("data:")] == []
            # Wide tables and figures are scrolled in their own box, the page is not.
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0 && image.alt)")
            assert page.evaluate("document.images.length") == 3
            links = page.evaluate("[...document.querySelectorAll('nav a')].map(link => link.getAttribute('href'))")
            assert all(page.query_selector(link) for link in links)
            names = page.evaluate("[...document.querySelectorAll('td:first-child')].map(cell => cell.clientWidth)")
            assert min(names) > 90
        browser.close()
