"""Pages and errors: every code is explained, nothing is scriptable, no refusal is cacheable."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from countermark import errors as client_errors
from countermark_server import errors
from countermark_server.errors import CODES, ServerError, from_rule, problem, reason
from countermark_server.web.help import EXIT_CODES, HELP
from countermark_server.web.pages import marked
from tests.doors import BASE_URL, DoorWorld


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DoorWorld]:
    made = DoorWorld(tmp_path_factory.mktemp("registry"))
    yield made
    made.close()


def test_every_code_has_a_help_page_and_every_page_a_code(world: DoorWorld) -> None:
    """A link we print always leads somewhere, and explains the exit codes too."""
    assert HELP.keys() == CODES.keys()
    for code, text in HELP.items():
        page = world.client.get(f"/h/{code}")
        assert page.status_code == 200 and page.content_type.startswith("text/html")
        assert CODES[code].title in html.unescape(page.get_data(as_text=True)) and len(text) > 40
        for number in EXIT_CODES:
            assert f'id="exit-{number}"' in page.get_data(as_text=True)
    assert world.client.get("/h/").status_code == 200
    assert world.client.get("/h/exit-6").status_code == 200
    assert world.client.get("/h/6").status_code == 200


def test_exit_codes_on_the_page_are_those_of_the_programs() -> None:
    """The table explains each exit code that an error of the client ends in."""
    used = {
        cls.exit_code
        for cls in vars(client_errors).values()
        if isinstance(cls, type) and issubclass(cls, client_errors.CountermarkError)
    }
    assert used <= EXIT_CODES.keys() and EXIT_CODES.keys() == set(range(8))


def test_every_code_that_the_server_raises_is_in_the_table() -> None:
    """A code is a word from the table; a typo would silently become `entry-refused`."""
    root = Path(errors.__file__).parent
    raised = set()
    for path in root.rglob("*.py"):
        text = path.read_text("utf-8")
        raised |= set(re.findall(r'\b(?:ServerError|ArchiveError)\(\s*"([^"]+)"', text))
    assert raised and raised <= CODES.keys()
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in CODES)


def test_pages_allow_no_script_and_escape_what_they_show(world: DoorWorld) -> None:
    """A strict policy on every answer; markup in an address comes back as text."""
    for path in ("/", "/h/", "/h/file-held", "/simple/", "/nothing", "/h/<script>alert(1)</script>"):
        answer = world.client.get(path)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "script-src" not in policy and "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "<script" not in answer.get_data(as_text=True) or answer.content_type.endswith("json")
        assert "Set-Cookie" not in answer.headers
    assert world.client.get("/static/countermark.css").status_code == 200
    assert world.client.get("/static/../pages.py").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/nothing", "not-found"),
        ("GET", "/h/nothing", "not-found"),
        ("DELETE", "/simple/", "not-allowed"),
        ("GET", "/legacy/", "not-allowed"),
        ("GET", "/api/v1/files/demo/demo-1.0.tar.gz", "not-found"),
    ],
)
def test_what_the_framework_refuses_is_a_problem_document_too(
    world: DoorWorld, method: str, path: str, code: str
) -> None:
    """Unknown paths and methods are refused in the same form as everything else."""
    answer = world.client.open(path, method=method)
    assert answer.get_json()["code"] == code and answer.status_code == CODES[code].status
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_browser_is_shown_a_refusal_as_a_page(world: DoorWorld) -> None:
    """Whoever asks for HTML first reads words and a link; installers, which take HTML last, keep the document."""
    browser = (
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
        "application/signed-exchange;v=b3;q=0.7"
    )
    answer = world.client.get("/<b>nothing", headers={"Accept": browser})
    text = answer.get_data(as_text=True)
    assert answer.status_code == 404 and answer.content_type == "text/html; charset=utf-8"
    assert "there is nothing at /&lt;b&gt;nothing" in text and 'href="/h/not-found"' in text
    assert answer.headers["Cache-Control"] == "no-store"
    pip = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01"
    for accept in (pip, "*/*", "application/json", "text/html;q=0.2, application/json"):
        assert world.client.get("/nothing", headers={"Accept": accept}).get_json()["code"] == "not-found"
    assert world.client.delete("/simple/", headers={"Accept": browser}).get_json()["code"] == "not-allowed"


def test_help_texts_show_code_as_code(world: DoorWorld) -> None:
    """What stands between backquotes is set as code; nothing else in a text becomes markup."""
    text = world.client.get("/h/not-authenticated").get_data(as_text=True)
    assert "<code>countermark login</code>" in text and "`" not in text
    assert marked("a `<b>` <i>") == "a <code>&lt;b&gt;</code> &lt;i&gt;"


def test_an_unforeseen_error_shows_no_traceback(world: DoorWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 with one sentence; the story is in the telemetry."""
    world.app.view_functions["web.front"] = lambda: 1 // 0
    answer = world.client.get("/")
    assert answer.status_code == 500 and answer.get_json()["code"] == "internal"
    assert "Traceback" not in answer.get_data(as_text=True) and "ZeroDivision" not in answer.status


def test_reason_phrases_are_one_short_ascii_line() -> None:
    """Whatever a name holds, the status line stays one line that every client shows."""
    hostile = "näme\r\nSet-Cookie: a=b\t" + "x" * 500
    line = problem(ServerError("filename-invalid", hostile), BASE_URL).status
    assert re.fullmatch(r"400 [ -~]{1,180}", line) and line.endswith("/h/filename-invalid")
    assert re.fullmatch(r"[ -~]{1,180}", reason("detail", "https://" + "long." * 100))


def test_rules_of_the_log_speak_through_the_same_table() -> None:
    """A rule with a page of its own keeps its name; another is `entry-refused`, with the rule's name in words."""
    assert from_rule("signature-required", "sign").code == "signature-missing"
    assert from_rule("key-expired", "enrol again").code == "key-expired"
    other = from_rule("last-owner", "no owner would be left")
    assert other.code == "entry-refused" and "last-owner" in other.detail


def test_health_and_metrics_answer(world: DoorWorld) -> None:
    """The database answers; counters are there."""
    assert world.client.get("/healthz").get_data() == b"ok\n"
    assert b"countermark_uploads_total" in world.client.get("/metrics").get_data()
