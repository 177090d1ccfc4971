"""proxy.py: only what was verified is offered and served, and each refusal stands where an installer shows it."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from countermark import proxy as proxy_module
from countermark.clientpolicy import ClientPolicy, Exemption, Mode, Policies
from countermark.errors import CountermarkError
from countermark.filestore import FileStore
from countermark.limits import PROXY_HELD_BACK
from countermark.proxy import Proxy
from countermark.serving import Request, Response, Stream
from tests.machine import Machine
from tests.simulator import Published, World

JSON = {"accept": "application/vnd.pypi.simple.v1+json"}
NO_HASH = "0" * 64
NOTICE = "acme_demo-{}refused-py3-none-any.whl"


class Installer:
    """A machine with a proxy on it, asked the way installers ask."""

    def __init__(self, folder: Path, world: World) -> None:
        self.world = world
        self.machine = Machine(folder / "home", world)
        self.store = folder / "store"
        self.said: list[str] = []
        self.proxy = self.started()

    def started(self, *, local: Mode = Mode.OBSERVE) -> Proxy:
        return Proxy(
            self.machine.registry,
            self.world,
            FileStore(self.store),
            policies=Policies(local=ClientPolicy(mode=local)),
            clock=lambda: self.world.now,
            say=self.said.append,
        )

    def get(self, path: str, headers: dict[str, str] | None = None, method: str = "GET") -> Response:
        return self.proxy.answer(Request(method, path, headers or {}))

    def page(self, project: str, headers: dict[str, str] = JSON) -> dict[str, dict[str, Any]]:
        answer = self.get(f"/simple/{project}/", headers)
        assert answer.status == 200 and isinstance(answer.body, bytes), answer
        return {file["filename"]: file for file in json.loads(answer.body)["files"]}

    def told(self, url: str) -> str:
        """What is said to whoever asks for a name on a page, which is no file's."""
        answer = self.get(url.removeprefix("../.."))
        assert answer.status in (403, 409) and isinstance(answer.body, bytes), answer
        assert answer.headers["Cache-Control"] == "no-store"
        assert self.get(url.removeprefix("../..") + ".metadata").status == answer.status
        return str(json.loads(answer.body)["detail"]) + str(answer.reason)

    def file(self, file: Published, suffix: str = "") -> Response:
        return self.get(f"/packages/{file.project}/{file.filename}{suffix}")

    def refuse(self, code: int, *words: str, file: Published, suffix: str = "") -> dict[str, Any]:
        """Expect a refusal at the file's URL, in three places, and that not one byte was kept or served."""
        before = self.kept()
        answer = self.file(file, suffix)
        assert answer.status == (409 if code == 7 else 403), answer
        assert answer.content_type == "application/problem+json" and isinstance(answer.body, bytes)
        problem: dict[str, Any] = json.loads(answer.body)
        assert problem["code"] == f"exit-{code}" and problem["status"] == answer.status
        for word in words:
            assert word in problem["detail"], problem
        reason = answer.reason or ""
        assert reason.isascii() and reason.isprintable() and len(reason) < 200
        assert reason.endswith(f" exit-{code} {self.world.base}/h/exit-{code}")
        assert any(words[0] in line for line in self.said)
        assert self.proxy.report().exit_code == code
        assert self.kept() == before
        return problem

    def kept(self) -> list[str]:
        return sorted(path.name for path in self.store.rglob("*") if path.is_file())


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def installer(tmp_path: Path, world: World) -> Installer:
    return Installer(tmp_path, world)


def body(answer: Response) -> bytes:
    """All bytes that go out, as far as they do."""
    if isinstance(answer.body, bytes):
        return answer.body
    sent = b""
    try:
        for piece in answer.body.pieces:
            sent += piece
    except CountermarkError:
        pass
    return sent


def test_an_honest_file_is_offered_and_served(installer: Installer, world: World) -> None:
    """Hash, length, date and metadata's hash come from TUF and the log; the bytes are kept under their hash."""
    file = world.publish("acme-demo")
    world.override["/simple/acme-demo/"] = _edited(
        world, lambda item: item | {"requires-python": "<2", "size": 7, "upload-time": "1999-01-01T00:00:00Z"}
    )
    shown = installer.page("acme-demo")[file.filename]
    metadata = world.packages[f"acme-demo/{file.filename}.metadata"]
    assert shown == {
        "core-metadata": {"sha256": hashlib.sha256(metadata).hexdigest()},
        "filename": file.filename,
        "hashes": {"sha256": file.sha256},
        "size": len(file.data),
        "upload-time": "2025-11-22T08:26:40Z",
        "url": f"../../packages/acme-demo/{file.filename}",
        "yanked": False,
    }
    assert body(installer.file(file)) == file.data
    assert body(installer.file(file, ".metadata")) == metadata
    assert installer.kept() == sorted([file.sha256, hashlib.sha256(metadata).hexdigest()])
    assert installer.proxy.report().exit_code == 0 and installer.said == []
    world.check()


def test_a_served_file_needs_the_registry_no_more(installer: Installer, world: World) -> None:
    """It comes from this disk, hashed again; a damaged one is fetched again; who holds it is told so."""
    file = world.publish("acme-demo")
    body(installer.file(file))
    path = f"/packages/acme-demo/{file.filename}"
    asked = world.asked.count(path)
    assert body(installer.file(file)) == file.data and world.asked.count(path) == asked
    (kept,) = installer.store.rglob(file.sha256)
    kept.write_bytes(b"damaged")
    assert body(installer.file(file)) == file.data and world.asked.count(path) == asked + 1
    tag = {"if-none-match": f'"{file.sha256}"'}
    assert installer.get(path, tag).status == 304
    head = installer.get(path, method="HEAD")
    assert head.status == 200 and isinstance(head.body, Stream) and head.body.length == len(file.data)


def test_swapped_bytes_are_refused_with_both_hashes(installer: Installer, world: World) -> None:
    """The insider's swap: the page keeps the logged hash, the file's URL says what contradicts what."""
    file = world.publish("acme-demo")
    world.packages[f"acme-demo/{file.filename}"] = b"swapped"
    swapped = hashlib.sha256(b"swapped").hexdigest()
    world.pages["acme-demo"][file.filename] = swapped
    assert installer.page("acme-demo")[file.filename]["hashes"] == {"sha256": file.sha256}
    installer.refuse(7, file.sha256, swapped, f"entry #{file.index}", file=file)
    assert installer.machine.evidence()
    # The insider tidies up: what was false in this run stays false in its report.
    world.packages[f"acme-demo/{file.filename}"] = file.data
    installer.refuse(7, swapped, file=file)


def test_a_swap_that_only_the_page_shows_changes_nothing(installer: Installer, world: World) -> None:
    """What the page says of hashes is not read."""
    file = world.publish("acme-demo")
    world.pages["acme-demo"][file.filename] = "ee" * 32
    assert installer.page("acme-demo")[file.filename]["hashes"] == {"sha256": file.sha256}
    assert body(installer.file(file)) == file.data


def test_false_metadata_is_refused(installer: Installer, world: World) -> None:
    """An installer resolves from it before it has the file: another requirement must not slip in."""
    file = world.publish("acme-demo")
    world.packages[f"acme-demo/{file.filename}.metadata"] += b"Requires-Dist: evil\n"
    installer.refuse(7, "the metadata of", "its entry in the log says", file=file, suffix=".metadata")
    assert installer.machine.evidence()


def test_a_file_that_was_never_logged_is_refused(installer: Installer, world: World) -> None:
    """Listed by the page alone: its name is not on ours, but a notice is, and whoever asks for that is told."""
    world.publish("acme-demo")
    forged = Published("acme-demo", "9.0", "acme_demo-9.0-py3-none-any.whl", b"forged", 0)
    world.packages["acme-demo/acme_demo-9.0-py3-none-any.whl"] = forged.data
    world.pages["acme-demo"][forged.filename] = forged.sha256
    shown = installer.page("acme-demo")
    assert forged.filename not in shown
    assert shown[NOTICE.format("9.0+")]["yanked"] is False, "what is false is not passed over"
    for name in (NOTICE.format("9.0+"), NOTICE.format("9.0-0")):
        assert shown[name]["hashes"] == {"sha256": NO_HASH}, "nobody vouches for what the page says of it"
        assert "the log has no entry for it" in installer.told(shown[name]["url"])
    installer.refuse(7, "the log has no entry for it", file=forged)


@pytest.mark.parametrize("apply", [False, True], ids=["in the log", "applied"])
def test_a_held_file_is_withdrawn_from_the_page(installer: Installer, world: World, apply: bool) -> None:
    """Also before TUF shows it. uv would install from its cache what a page lists; notices stand in for it."""
    file, other = world.publish("acme-demo"), world.publish("acme-demo", "2.0")
    assert len(installer.page("acme-demo")) == 2
    world.decide("hold", file, "malware")
    world.release() if apply else world.heartbeat()
    world.now += 61  # a judgement is a minute old at most
    shown = installer.page("acme-demo")
    notices = [NOTICE.format("1.0+"), NOTICE.format("1.0-0")]
    assert list(shown) == [other.filename, *notices] and shown[other.filename]["yanked"] is False
    for name in notices:  # taken by nobody but who asks for exactly that version
        assert file.filename in str(shown[name]["yanked"])
        assert installer.get(shown[name]["url"].removeprefix("../..")).status == 403
    assert installer.proxy.report().exit_code == 6
    installer.proxy = installer.started()
    installer.page("acme-demo")
    assert installer.proxy.report().exit_code == 0, "another version is there, and nobody asked for this one"
    installer.refuse(6, file.filename, file=file)
    assert body(installer.file(other)) == other.data


def test_a_withdrawn_project_is_a_page_of_notices(installer: Installer, world: World) -> None:
    """200 and nothing that installs, never a 404: uv would go on to the next index. Any version asked for is told."""
    file = world.publish("acme-demo")
    world.decide("takedown", file, "malware")
    world.release()
    answer = installer.get("/simple/acme-demo/", JSON)
    assert answer.status == 200 and isinstance(answer.body, bytes)
    page = json.loads(answer.body)
    shown = {item["filename"]: item for item in page["files"]}
    assert list(shown) == [NOTICE.format("1.0+"), NOTICE.format("1.0-0")]
    assert shown[NOTICE.format("1.0+")]["yanked"] is False and shown[NOTICE.format("1.0-0")]["yanked"]
    for item in shown.values():
        assert item["url"].endswith(quote(item["filename"])) and "removed (malware)" in installer.told(
            item["url"]
        )
    assert page["project-status"]["status"] == "quarantined"
    assert "removed (malware)" in page["project-status"]["reason"]
    text = body(installer.get("/simple/acme-demo/", {"accept": "text/html"})).decode()
    assert '<meta name="pypi:project-status" content="quarantined">' in text
    installer.refuse(6, "removed (malware)", file=file)
    assert installer.get("/simple/nobody/", JSON).status == 404


def test_a_notice_has_the_hash_of_a_lock(installer: Installer, world: World) -> None:
    """poetry and pdm ask only for what has the hash in their lock; of the name for resolvers nobody has bytes."""
    file = world.publish("acme-demo")
    world.decide("hold", file, "malware")
    world.heartbeat()
    shown = installer.page("acme-demo")
    assert shown[NOTICE.format("1.0-0")]["hashes"] == {"sha256": file.sha256}
    assert shown[NOTICE.format("1.0+")]["hashes"] == {"sha256": NO_HASH}


@pytest.mark.parametrize(
    "name", ["1.0+refused", "1.0+Refused", "1.0+cu.refused", "1.0-0refused", "1.0-00Refused"]
)
def test_no_file_is_offered_under_the_name_of_a_notice(installer: Installer, world: World, name: str) -> None:
    """uv would install it from its cache while the page shows the notice of that name."""
    version, _, build = name.partition("-")
    own = f"acme_demo-{name}-py3-none-any.whl"
    world.publish("acme-demo", version.lower(), filename=own)
    assert installer.page("acme-demo") == {}
    assert installer.get(f"/packages/acme-demo/{quote(own)}").status == 404
    assert installer.kept() == [] and build in ("", "0refused", "00Refused")


def test_a_version_of_which_something_is_left_has_no_notice(installer: Installer, world: World) -> None:
    """Installers could prefer a notice, which is a wheel for every machine, to the file that they may have."""
    held = world.publish("acme-demo")
    other = world.publish("acme-demo", filename="acme_demo-1.0-py3-none-linux_x86_64.whl", data=b"other")
    world.decide("hold", held, "malware")
    world.heartbeat()
    assert list(installer.page("acme-demo")) == [other.filename]


def test_a_registry_that_withholds_the_file_is_obeyed(installer: Installer, world: World) -> None:
    """Its door refuses before log and TUF say why."""
    file = world.publish("acme-demo")
    world.override[f"/packages/acme-demo/{file.filename}"] = _raising(world, 403, "held for review")
    installer.refuse(6, "the registry gives it to nobody: held for review", file=file)


def test_an_unreachable_file_is_no_5xx(installer: Installer, world: World) -> None:
    """Installers retry those for seconds and lose the reason."""
    file = world.publish("acme-demo")
    world.override[f"/packages/acme-demo/{file.filename}"] = _raising(world, 502, "Bad Gateway")
    installer.refuse(3, "502 Bad Gateway", file=file)
    del world.override[f"/packages/acme-demo/{file.filename}"]
    assert body(installer.file(file)) == file.data and installer.proxy.report().exit_code == 0


def test_what_is_too_old_to_judge_is_refused(installer: Installer, world: World) -> None:
    """An expired registry: everything it names is a notice."""
    file = world.publish("acme-demo")
    installer.proxy.check()
    world.now += 100 * 3600
    assert list(installer.page("acme-demo")) == [NOTICE.format("1.0+"), NOTICE.format("1.0-0")]
    installer.refuse(4, "expired", file=file)


def test_a_rollback_is_refused_for_every_file(installer: Installer, world: World) -> None:
    """The view itself contradicts what this machine saw: nothing is offered, an evidence file is written."""
    file = world.publish("acme-demo")
    old = world.copy()
    world.publish("other-demo")
    installer.page("acme-demo")
    world.override["/tuf/timestamp.json"] = old.tuf["timestamp.json"]
    world.now += 61
    assert list(installer.page("acme-demo")) == [NOTICE.format("1.0+"), NOTICE.format("1.0-0")]
    installer.refuse(7, "rollback", file=file)
    assert installer.machine.evidence()


def test_the_policy_decides_what_is_true_but_not_good_enough(tmp_path: Path) -> None:
    """A file signed by the registry alone: served and said where it is only warned about, refused otherwise."""
    world = World(mode="warn")
    installer = Installer(tmp_path, world)
    file = world.publish("acme-demo", signed=False)
    assert body(installer.file(file)) == file.data
    assert installer.said and not installer.proxy.report().to_json()["verified"]
    installer.proxy = installer.started(local=Mode.ENFORCE)
    installer.refuse(5, file.filename, file=file)


def test_no_policy_lets_unknown_bytes_through(tmp_path: Path) -> None:
    """`observe` lets a file pass that was taken down; which bytes would be right, nobody says any more."""
    world = World(mode="observe")
    installer = Installer(tmp_path, world)
    file = world.publish("acme-demo")
    world.decide("takedown", file, "malware")
    world.release()
    assert file.filename not in installer.page("acme-demo")
    installer.refuse(6, "removed (malware)", file=file)


def test_a_large_file_goes_out_without_its_end_until_it_is_right(
    installer: Installer, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above the bound bytes pass through; the last of them only with the right hash."""
    monkeypatch.setattr(proxy_module, "PROXY_WHOLE_BYTES", 100_000)
    data = bytes(range(256)) * 1200
    good, bad, long = (world.publish("acme-demo", v, data=data + v.encode()) for v in ("1.0", "2.0", "3.0"))
    assert body(installer.file(good)) == good.data and installer.kept() == [good.sha256]
    world.packages[f"acme-demo/{bad.filename}"] = bad.data[:-1] + b"!"
    world.packages[f"acme-demo/{long.filename}"] = long.data + b"!" * 200_000
    for file in (bad, long):
        answer = installer.file(file)
        assert answer.status == 200 and isinstance(answer.body, Stream)
        assert answer.body.length == len(file.data)
        sent = body(answer)
        assert len(sent) <= len(file.data) - PROXY_HELD_BACK
        installer.refuse(7, file.filename, file=file)
    assert installer.kept() == [good.sha256]


def test_an_answer_may_be_kept_until_its_judgement_ends(
    installer: Installer, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever it is asked for: the last second is that of the judgement; what refuses or passes through has none."""
    monkeypatch.setattr(proxy_module, "PROXY_WHOLE_BYTES", 1000)
    file = world.publish("acme-demo")
    large = world.publish("acme-demo", "2.0", data=bytes(range(256)) * 1000)
    judged = world.now
    for later in (0, 1, 59):
        world.now = judged + later
        for suffix in ("", ".metadata"):
            assert installer.file(file, suffix).headers["X-Accel-Expires"] == f"@{judged + 59}"
        assert installer.get("/simple/acme-demo/", JSON).headers["X-Accel-Expires"] == f"@{judged + 59}"
    passing = installer.file(large)
    assert "X-Accel-Expires" not in passing.headers and passing.headers["X-Accel-Buffering"] == "no"
    assert body(passing) == large.data
    assert "X-Accel-Expires" in installer.file(large).headers  # from this disk now
    assert (
        "X-Accel-Expires" not in installer.get(f"/packages/acme-demo/{file.filename}", method="HEAD").headers
    )
    world.decide("hold", file, "malware")
    world.release()
    world.now = judged + 60
    assert "X-Accel-Expires" not in installer.file(file).headers
    world.down = lambda path: True
    world.now += 60
    assert "X-Accel-Expires" not in installer.get("/simple/acme-demo/", JSON).headers


def test_people_are_told_which_exceptions_are_in_force(installer: Installer, world: World) -> None:
    """With reason, approver and end, as in every result; one that has ended is not told, and no cache keeps it."""
    world.publish("acme-demo")
    assert body(installer.get("/")).decode().endswith("\nno exception is in force\n")
    excused = Exemption("acme-old", "moves", "ops", world.now + 60)
    lenient = Policies(local=ClientPolicy(mode=Mode.OBSERVE, exceptions=(excused,)))
    installer.proxy._policies = lenient
    answer = installer.get("/")
    told = body(answer).decode().splitlines()
    assert told[0].startswith(f"verified files of {world.base} (log of ") and excused.sentence() in told[1]
    assert answer.headers["Cache-Control"] == "no-store"
    world.now += 61
    assert "no exception is in force" in body(installer.get("/")).decode()


def test_names_that_are_none_lead_nowhere(installer: Installer, world: World) -> None:
    """Traversal, other projects' files, foreign paths and methods; one spelling of a project's page."""
    file = world.publish("acme-demo")
    world.publish("other-demo")
    asked = len(world.asked)
    for path in (
        "/simple/",
        "/simple/../x/",
        "/simple/%2e%2e/",
        "/packages/a/b/c",
        "/log/checkpoint",
        "//",
    ):
        assert installer.get(path, JSON).status == 404, path
    assert installer.get(f"/packages/acme-demo/{file.filename}", method="POST").status == 405
    assert len(world.asked) == asked
    assert installer.get(f"/packages/other-demo/{file.filename}").status == 404
    for spelling in ("/simple/Acme.Demo/", "/simple/acme-demo"):
        answer = installer.get(spelling, JSON)
        assert (answer.status, answer.headers["Location"]) == (301, "/simple/acme-demo/")
    assert installer.get("/simple/acme-demo/", {"accept": "image/png"}).status == 406


def _edited(world: World, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> bytes:
    raw = world.get(f"{world.base}/simple/acme-demo/")
    assert raw is not None
    page = json.loads(raw)
    return json.dumps(page | {"files": [edit(item) for item in page["files"]]}).encode()


def _raising(world: World, status: int, reason: str) -> Callable[[], bytes | None]:
    from countermark.fetch import Answer, StatusError

    def refuse() -> bytes | None:
        raise StatusError(f"{world.base}/packages", Answer(status, reason))

    return refuse


def test_projects_asked_for_together_are_judged_against_one_view(installer: Installer, world: World) -> None:
    """Two people ask for each of three projects at once: each is looked up once, and the moment is asked for once."""
    files = [world.publish(f"acme-{number}") for number in range(3)]
    answers: list[Response] = []

    def ask(file: Published) -> None:
        answers.append(installer.get(f"/simple/{file.project}/", JSON))

    world.asked.clear()
    with installer.proxy._judging:  # as if another project were being judged
        threads = [threading.Thread(target=ask, args=[file]) for file in files * 2]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 20
        while len(installer.proxy._waiting) < len(files) and time.monotonic() < deadline:
            time.sleep(0.01)
    for thread in threads:
        thread.join(20)
    assert [answer.status for answer in answers] == [200] * 6
    assert world.asked.count("/tuf/timestamp.json") == 1
    for file in files:
        assert world.asked.count(f"/simple/{file.project}/") == 1
    assert not installer.proxy._answers and not installer.proxy._waiting


def test_metadata_is_kept_like_a_file(installer: Installer, world: World) -> None:
    """It is fetched and hashed once; spoiled on this disk it is fetched again."""
    file = world.publish("acme-demo")
    assert installer.file(file, ".metadata").status == 200
    world.asked.clear()
    metadata = world.packages[f"acme-demo/{file.filename}.metadata"]
    assert body(installer.file(file, ".metadata")) == metadata
    assert not world.asked
    (kept,) = [path for path in installer.store.rglob("*") if path.is_file()]
    kept.write_bytes(b"Requires-Dist: evil\n")
    assert body(installer.file(file, ".metadata")) == metadata
    assert len(world.asked) == 1
