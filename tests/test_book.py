"""The book: it builds without a warning, all its links lead somewhere, and the way from a result to its rerun is short."""

import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest

from compendium import report
from compendium.paths import ROOT

HTML = ROOT / "build/book/html"
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("myst_nb") is None, reason="the book's packages are not installed: make .venv/book"
)


class Page(HTMLParser):
    """What a page links to and what can be linked to in it."""

    def __init__(self, text):
        super().__init__()
        self.links, self.places, self.bare = set(), set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.places |= {given[key] for key in ("id", "name") if given.get(key)}
        for key in ("href", "src"):
            if given.get(key):
                self.links.add(given[key])
        if tag == "img" and not (given.get("alt") or "").strip():
            self.bare.append(given.get("src"))


@pytest.fixture(scope="module")
def pages():
    done = subprocess.run([sys.executable, "tools/book.py"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr
    return {
        path: Page(path.read_text(encoding="utf-8")) for path in HTML.rglob("*.html") if "_static" not in path.parts
    }


def test_all_links_inside_resolve(pages):
    wrong = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link.startswith(("data:", "mailto:", "javascript:")):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists() or (
                parts.fragment and target in pages and parts.fragment not in pages[target].places
            ):
                wrong.append(f"{path.relative_to(HTML)}: {link}")
    assert not wrong


def test_every_claim_and_every_figure_has_its_page_and_every_picture_its_words(pages):
    for claim in report.collect().itertuples():
        assert HTML / f"claims/{claim.notebook}/{claim.id}.html" in pages
    figures = {p.relative_to(ROOT / "figures").with_suffix("") for p in (ROOT / "figures").glob("*/*/*.png")}
    assert all(HTML / f"figures/{figure}.html" in pages for figure in figures)
    assert not [(path.name, page.bare) for path, page in pages.items() if page.bare]


def test_from_the_front_to_a_rerun_in_four_clicks(pages):
    def links(page):
        return {link.split("#")[0] for link in pages[page].links}

    name, claim = "03_policy_opt/02_divergences", "probl2-beats-kl"
    assert "scorecard.html" in links(HTML / "index.html")
    assert f"claims/{name}/{claim}.html" in links(HTML / "scorecard.html")
    page = HTML / f"claims/{name}/{claim}.html"
    assert f"../../../figures/{name}/curves.html" in links(page)
    assert f"../../../notebooks/{name}.html" in links(page)
    assert f"python -m compendium.run notebooks/{name}.ipynb" in re.sub("<[^>]+>", "", page.read_text(encoding="utf-8"))


def test_nothing_is_fetched_to_show_a_page(pages):
    for page in pages.values():
        loaded = [link for link in page.links if re.match(r"https?://.*\.(js|css|woff2?|png|svg)($|\?)", link)]
        assert not loaded
