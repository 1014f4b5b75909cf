"""What the files of the page hold, told without a browser: nothing inline, nothing from elsewhere, no text as HTML."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from segmentation.serve import page

FOLDER = Path(page.__file__).parent / "page"
SCRIPTS = sorted(FOLDER.glob("*.js"))
SERVED_BESIDE = {"report.css", "charts.css", "viewer.css", "viewer.js", "niivue.js"}


class Elements(HTMLParser):
    """Elements of a page with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def elements():
    parser = Elements()
    parser.feed((FOLDER / "index.html").read_text(encoding="utf-8"))
    return parser.found


def test_nothing_is_inline_as_the_security_policy_asks(elements):
    assert all(attributes.get("src") for tag, attributes in elements if tag == "script")
    assert [tag for tag, _ in elements if tag == "style"] == []
    named = {name for _, attributes in elements for name in attributes}
    assert [name for name in named if name == "style" or name.startswith("on")] == []


def test_every_file_that_the_page_asks_for_is_served(elements):
    asked = [value for _, attributes in elements for name in ("src", "href") if (value := attributes.get(name))]
    files = [value.removeprefix("/static/") for value in asked if value.startswith("/static/")]
    assert len(files) >= 6
    assert [name for name in files if name not in SERVED_BESIDE and not (FOLDER / name).is_file()] == []
    assert [value for value in asked if not value.startswith(("/", "#"))] == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_imports_what_is_there(script):
    for names, module in re.findall(r'import \{ ([^}]+) \} from "\./([\w.]+)"', script.read_text(encoding="utf-8")):
        exported = (FOLDER / module).read_text(encoding="utf-8")
        for name in names.split(", "):
            assert re.search(rf"export (async )?(function|const|class) {name}\b", exported), f"{module} has no {name}"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_never_reads_text_as_html_or_calls_elsewhere(script):
    source = script.read_text(encoding="utf-8")
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b|new Function|localStorage"
    assert re.findall(forbidden, source) == []
    assert set(re.findall(r"https?://[^\"'`\s]+", source)) <= {"http://www.w3.org/2000/svg"}


def test_style_asks_for_nothing():
    assert re.findall(r"@import|url\(", (FOLDER / "app.css").read_text(encoding="utf-8")) == []


def test_every_colour_is_a_variable_of_the_report(root):
    shared = (root / "segmentation" / "report" / "report.css").read_text(encoding="utf-8")
    used = set(re.findall(r"var\((--[\w-]+)\)", (FOLDER / "app.css").read_text(encoding="utf-8")))
    assert used
    assert [name for name in used if f"{name}:" not in shared] == []
