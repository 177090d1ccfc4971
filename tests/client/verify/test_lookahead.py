"""lookahead.py, prefetch.py: many files are asked for side by side, and nothing is judged otherwise."""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from countermark import limits, lookahead, prefetch
from countermark.clientpolicy import Policies
from countermark.errors import CountermarkError, NetworkError
from countermark.fetch import Answer, StatusError
from countermark.lockcheck import verify_locks
from countermark.lockfile import read_lock
from countermark.prefetch import Prefetcher, Wanted
from countermark.verified import Report
from countermark.verify import verify
from tests.machine import Machine, artifact
from tests.simulator import World

COUNT = 24


class Far:
    """A registry that is some milliseconds away: how many answers were on the way at once, and how many in all."""

    def __init__(self, world: World, seconds: float = 0.0) -> None:
        self.world, self.seconds = world, seconds
        self.now = self.most = self.asked = 0
        self.by_caller: list[str] = []  # what was asked for in turn, or as the first of many
        self._lock = threading.Lock()

    def get(self, url: str, **options: Any) -> bytes | None:
        with self._lock:
            self.now, self.asked = self.now + 1, self.asked + 1
            self.most = max(self.most, self.now)
            if threading.current_thread() is threading.main_thread():
                self.by_caller.append(url)
        try:
            time.sleep(self.seconds)
            with self._lock:
                return self.world.get(url, **options)
        finally:
            with self._lock:
                self.now -= 1

    def post(self, url: str, body: bytes, **options: Any) -> Any:
        return self.world.post(url, body, **options)


@pytest.fixture(scope="module")
def published() -> World:
    """So many projects, in as many bins as they fall into, some signed, one withdrawn."""
    world = World(bit_length=8)
    for number in range(COUNT):
        world.publish(f"p{number:02}", signed=number % 3 > 0)
    return world


def lock(folder: Path, world: World) -> Path:
    """Requirements with hashes, which name no file."""
    pages = sorted((project, page) for project, page in world.pages.items() if page)
    lines = [f"{project}==1.0 --hash=sha256:{sha}\n" for project, page in pages for sha in page.values()]
    (folder / "requirements.txt").write_text("".join(lines))
    return folder / "requirements.txt"


def check(folder: Path, world: World, far: Any, name: str, tick: prefetch.Tick = prefetch.quiet) -> Report:
    """A machine that has asked nothing yet verifies them all."""
    machine = Machine(folder / name, world)
    return verify_locks(
        [read_lock(lock(folder, world))], machine.registry, far, now=world.now, policies=Policies(), tick=tick
    )


def test_what_many_files_need_is_asked_for_side_by_side(
    tmp_path: Path, published: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many questions as before, each once, and the outcome is the same to the letter."""
    beside, before = Far(published, 0.006), Far(published)
    told: list[tuple[str, int, int]] = []
    found = check(tmp_path, published, beside, "beside", lambda *step: told.append(step))
    for module in ("countermark.lockcheck", "countermark.lookahead", "countermark.verify"):
        monkeypatch.setattr(f"{module}.PREFETCH_FROM", 10**6)
    assert check(tmp_path, published, before, "before").to_json() == found.to_json()
    assert found.exit_code == 5 and len(found.outcomes) == COUNT  # the unsigned are refused, the others not
    assert 2 <= beside.most <= limits.PREFETCH_THREADS and before.most == 1
    assert beside.asked == before.asked
    assert told[-1] == ("files", COUNT, COUNT) and ("answers", COUNT, COUNT) in told, told


def test_of_many_answers_one_is_waited_for(tmp_path: Path) -> None:
    """Pages, tiles of the bins tree, bins: the first says how far the registry is. The first file shows the way."""
    world = World(bit_length=10)
    for number in range(COUNT):
        world.publish(f"p{number:02}")
    far = Far(world, 0.006)
    assert check(tmp_path, world, far, "far").exit_code == 0
    kinds = ("/simple/", "/tuf/bins/", ".bins-", "/tile/entries/")
    waited = {kind: sum(kind in url for url in far.by_caller) for kind in kinds}
    assert waited == {"/simple/": 1, "/tuf/bins/": 2 + 1, ".bins-": 1 + 1, "/tile/entries/": 1}
    assert sum(kind in path for path in world.asked for kind in kinds[:3]) > 2 * COUNT


def test_a_second_run_asks_for_nothing_that_it_has(tmp_path: Path, published: World) -> None:
    far, machine = Far(published), Machine(tmp_path / "home", published)
    locks = [read_lock(lock(tmp_path, published))]
    for _ in range(2):
        published.asked.clear()
        verify_locks(locks, machine.registry, far, now=published.now, policies=Policies())
    assert not [path for path in published.asked if "bins" in path]


@pytest.mark.parametrize("kind", ["bin", "tile", "entries", "page"])
def test_what_cannot_be_brought_is_told_where_it_is_needed(
    tmp_path: Path, published: World, kind: str
) -> None:
    """An answer that fails or lies: exactly the refusals of a run that asks one after the other."""
    world = published.copy()
    marks = {"bin": ".bins-", "tile": "/log/tile/", "entries": "/tile/entries/", "page": "/simple/p07/"}
    for answer in (None, b"x"):
        outcomes = []
        for bound in (8, 10**6):
            lying = Lying(world, marks[kind], answer)
            with pytest.MonkeyPatch.context() as patch:
                for module in ("countermark.lockcheck", "countermark.lookahead", "countermark.verify"):
                    patch.setattr(f"{module}.PREFETCH_FROM", bound)
                outcomes.append(_what_came(tmp_path, world, lying, f"{kind}-{answer}-{bound}"))
        assert outcomes[0] == outcomes[1] and outcomes[0][0] in (3, 5, 7), outcomes


class Lying:
    """A registry that answers one kind of question with rubbish, or not at all."""

    def __init__(self, world: World, mark: str, answer: bytes | None) -> None:
        self.world, self.mark, self.answer = world, mark, answer

    def get(self, url: str, **options: Any) -> bytes | None:
        time.sleep(limits.PREFETCH_WORTH.total_seconds())  # far enough away
        if self.mark in url and self.answer is None:
            raise NetworkError(f"cannot reach {url}")
        return self.answer if self.mark in url else self.world.get(url, **options)

    def post(self, url: str, body: bytes, **options: Any) -> Any:
        return self.world.post(url, body, **options)


def _what_came(folder: Path, world: World, fetcher: Any, name: str) -> tuple[int, str]:
    try:
        report = check(folder, world, fetcher, name)
    except CountermarkError as error:
        return error.exit_code, str(error)
    told = [outcome.to_json() for outcome in report.outcomes]
    return report.exit_code, str(
        [{**each, "hint": ""} for each in told]
    )  # it names the evidence file's folder


def test_few_files_are_asked_for_as_ever(
    tmp_path: Path, published: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file alone brings nothing ahead, and imports nothing for it."""
    monkeypatch.setattr(lookahead, "of_files", None)
    world = published.copy()
    one = world.publish("alone")
    machine = Machine(tmp_path / "home", world)
    assert verify([artifact(one)], machine.registry, world, now=world.now).exit_code == 0


class Echo:
    """Answers with the URL; notes who asked when."""

    def __init__(self, fail: dict[str, Exception] | None = None, size: int = 0) -> None:
        self.asked: list[str] = []
        self.headers: list[Any] = []
        self.fail, self.size = fail or {}, size

    def get(
        self, url: str, *, max_bytes: int = 0, missing_ok: bool = False, headers: Any = None
    ) -> bytes | None:
        self.asked.append(url)
        self.headers.append(headers)
        if url in self.fail:
            raise self.fail[url]
        return url.encode().ljust(self.size)

    def post(self, url: str, body: bytes, **options: Any) -> Any:
        raise AssertionError


def far_away(fetcher: Echo) -> Prefetcher:
    """One whose every answer seems to take a minute."""
    clock = itertools.count(step=60)
    return Prefetcher(fetcher, lambda: float(next(clock)))


def wanted(count: int) -> list[Wanted]:
    return [Wanted(f"u{number}", 100) for number in range(count)]


def test_each_answer_is_handed_out_once_and_within_its_bound() -> None:
    echo = Echo()
    fetcher = far_away(echo)
    fetcher.bring([*wanted(3), *wanted(3)])
    assert sorted(echo.asked) == ["u0", "u1", "u2"]
    fetcher.bring(wanted(3))
    assert fetcher.get("u0", max_bytes=100) == b"u0" and len(echo.asked) == 3
    assert fetcher.get("u0", max_bytes=100) == b"u0" and len(echo.asked) == 4
    assert (
        fetcher.get("u1", max_bytes=1) == b"u1" and echo.asked[-1] == "u1"
    )  # too long: the network's to judge
    assert fetcher.get("u2", headers={"Accept": "x"}) == b"u2" and echo.asked[-1] == "u2"  # another question
    fetcher.bring([Wanted(f"v{number}", 100, {"Accept": "x"}) for number in range(3)])
    assert echo.headers == [None] * 5 + [{"Accept": "x"}] * 4


def test_a_file_that_is_missing_stops_nothing_and_a_dead_network_stops_all() -> None:
    missing, dead = Echo({"u3": StatusError("u3", Answer(503, "busy"))}), Echo(
        {f"u{number}": NetworkError("away") for number in range(500)}
    )  # fmt: skip
    fetcher = far_away(missing)
    fetcher.bring(wanted(50))
    assert (
        len(missing.asked) == 50 and fetcher.get("u49", max_bytes=100) == b"u49" and len(missing.asked) == 50
    )
    far_away(dead).bring(wanted(500))
    assert len(dead.asked) <= 4 * limits.PREFETCH_THREADS


def test_a_registry_that_is_near_is_asked_in_turn() -> None:
    echo = Echo()
    fetcher = Prefetcher(echo, lambda: 0.0)
    fetcher.bring(wanted(50))
    assert echo.asked == ["u0"] and fetcher.get("u0", max_bytes=100) == b"u0"


def test_a_bug_of_a_fetcher_is_met_by_who_asks() -> None:
    """And nobody waits for a thread that is dead."""
    fetcher = far_away(Echo({f"u{number}": RuntimeError("bug") for number in range(2, 50)}))
    fetcher.bring(wanted(50))
    with pytest.raises(RuntimeError):
        fetcher.get("u40", max_bytes=100)


def test_what_is_held_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "PREFETCH_MAX_BYTES", 10_000)
    echo = Echo(size=1000)
    far_away(echo).bring([Wanted(f"u{number}", 1000) for number in range(5000)])
    assert len(echo.asked) < 1000
