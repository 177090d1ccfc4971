"""The frozen HTML form of the simple index: the same facts as the JSON, for tools that take no JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from countermark.simplepage import HTML_TYPE, JSON_TYPE, TEXT_HTML, encode_page, negotiate
from tests.archives import metadata, wheel
from tests.doors import DoorWorld

WHEEL = "demo-1.0-py3-none-any.whl"
EXTRA = "Requires-Python: >=3.9, <4\n"


class Links(HTMLParser):
    """The links and meta elements of a page, as a browser reads them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[dict[str, str | None]] = []
        self.meta: dict[str | None, str | None] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "a":
            self.links.append(found)
        elif tag == "meta":
            self.meta[found.get("name")] = found.get("content")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DoorWorld]:
    """A registry with one listed wheel, and its log at work."""
    made = DoorWorld(tmp_path)
    with made.run():
        assert made.person("grace").upload(WHEEL, wheel(extra=EXTRA)).status_code == 200
        made.set_state(WHEEL, state="listed")
        yield made
    made.close()


def test_a_page_in_html_says_what_the_json_says(world: DoorWorld) -> None:
    """PEP 503 with hash and requires-python, PEP 658's digest under both names, PEP 592's yank with its reason."""
    answer = world.client.get("/simple/demo/", headers={"Accept": "text/html"})
    assert answer.content_type == "text/html; charset=utf-8" and answer.headers["Vary"] == "Accept"
    page = Links(answer.get_data(as_text=True))
    assert page.meta == {"pypi:repository-version": "1.4", "pypi:project-status": "active"}
    sha256 = hashlib.sha256(wheel(extra=EXTRA)).hexdigest()
    inside = "sha256=" + hashlib.sha256(metadata("demo", "1.0", EXTRA)).hexdigest()
    expected = {
        "href": f"../../packages/demo/{WHEEL}#sha256={sha256}",
        "data-requires-python": "<4,>=3.9",
        "data-core-metadata": inside,
        "data-dist-info-metadata": inside,
    }
    assert page.links == [expected]
    index = world.decide("yank", WHEEL, reason="broken")
    page = Links(world.client.get("/simple/demo/", headers={"Accept": HTML_TYPE}).get_data(as_text=True))
    assert page.links == [expected | {"data-yanked": page.links[0]["data-yanked"]}]
    assert f"yanked by entry {index} of the log" in str(page.links[0]["data-yanked"])
    page = Links(world.client.get("/simple/", headers={"Accept": "text/html"}).get_data(as_text=True))
    assert page.links == [{"href": "demo/"}]


def test_a_project_without_listed_files_is_an_empty_page(world: DoorWorld) -> None:
    """As in JSON: 200 and no links, never a 404."""
    world.decide("hold", WHEEL, reason="malware", about=None, evidence_sha256=None)
    answer = world.client.get("/simple/demo/", headers={"Accept": "text/html"})
    assert answer.status_code == 200 and Links(answer.get_data(as_text=True)).links == []
    assert world.client.get("/simple/demo-2/", headers={"Accept": "text/html"}).status_code == 404


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, JSON_TYPE),
        ("", JSON_TYPE),
        ("*/*", JSON_TYPE),
        ("text/html", TEXT_HTML),
        ("text/*", TEXT_HTML),
        (HTML_TYPE, HTML_TYPE),
        ("application/vnd.pypi.simple.latest+html", HTML_TYPE),
        # pip, uv and poetry, word by word.
        (f"{JSON_TYPE}, {HTML_TYPE}; q=0.1, text/html; q=0.01", JSON_TYPE),
        (f"{JSON_TYPE}, {HTML_TYPE};q=0.2, text/html;q=0.01", JSON_TYPE),
        (f"{JSON_TYPE}, */*;q=0.1", JSON_TYPE),
        # pip before 22.2, and a browser.
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", TEXT_HTML),
        (f"{JSON_TYPE};q=0.1, TEXT/HTML", TEXT_HTML),
        (f"{JSON_TYPE};q=0, text/html;q=0.5", TEXT_HTML),
        ("image/png", None),
        ("text/html;q=7", None),
    ],
)
def test_each_tool_gets_the_form_it_likes_best(accept: str | None, form: str | None) -> None:
    """Quality values count, a type's own name counts before a range, nonsense counts as a no."""
    assert negotiate(accept) == form


def test_what_a_page_quotes_cannot_become_markup() -> None:
    """A reason or a name with angle brackets and quotes stays text."""
    evil = '"><script>alert(1)</script>'
    file = {
        "filename": evil,
        "url": evil,
        "hashes": {"sha256": "00"},
        "yanked": evil,
        "requires-python": evil,
    }
    status = {"status": "quarantined", "reason": evil}
    text = encode_page({"name": evil, "files": [file], "project-status": status}, TEXT_HTML).decode()
    assert "<script>" not in text
    page = Links(text)
    assert page.links[0]["data-yanked"] == evil and page.meta["pypi:project-status-reason"] == evil
