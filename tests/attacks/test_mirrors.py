"""Mirrors: trusted with nothing, asked in turn, and named when they were late, slow or lying."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from countermark.errors import CountermarkError, NetworkError, UsageError
from countermark.fetch import Answer, HttpFetcher
from countermark.freshness import Level
from countermark.mirrors import Mirrored, Source, fetcher_for
from countermark.pins import Home
from countermark.verified import Report
from countermark.verify import verify
from tests.machine import Machine, artifact
from tests.simulator import HOUR, Published, World
from tests.wire import SLOW, wire

MIRRORS = ("https://m1.test", "https://m2.test")


class _At:
    """A copy of a world under another URL."""

    def __init__(self, world: World, url: str) -> None:
        self.world, self.url = world, url

    def get(self, url: str, **options: Any) -> bytes | None:
        return self.world.get(self._there(url), **options)

    def chunks(self, url: str, *, max_bytes: int) -> Iterator[bytes]:
        return self.world.chunks(self._there(url), max_bytes=max_bytes)

    def post(self, url: str, body: bytes, **options: Any) -> Answer:
        raise AssertionError("a mirror was handed something")

    def _there(self, url: str) -> str:
        assert url.startswith(f"{self.url}/") and "/api/" not in url, url
        return self.world.base + url.removeprefix(self.url)


class Many:
    """A machine that knows two mirrors of its registry; each of the three is a world of its own."""

    def __init__(self, folder: Path, registry: World) -> None:
        self.machine = Machine(folder, registry)
        self.registry = self.machine.home.add(registry.base, registry.root, mirrors=MIRRORS)
        self.worlds = [registry, registry.copy(), registry.copy()]

    def verify(self, *files: Published) -> Report:
        """As a new process would: nothing is known of who answered before."""
        urls = (self.registry.url, *MIRRORS)
        sources = [
            Source(url, world if number == 0 else _At(world, url))
            for number, (url, world) in enumerate(zip(urls, self.worlds, strict=True))
        ]
        self.fetcher = Mirrored(sources)
        now = max(world.now for world in self.worlds)
        return verify([artifact(file) for file in files], self.registry, self.fetcher, now=now)

    def accept(self, *files: Published) -> list[str]:
        """Verified; returns who was passed over."""
        report = self.verify(*files)
        assert report.exit_code == 0 and report.to_json()["verified"], report.to_json()
        return [remark for remark in report.remarks if "passed over" in remark]


def down(world: World) -> None:
    world.down = lambda path: True


@pytest.fixture
def many(tmp_path: Path, world: World, wheel: Published) -> Many:
    return Many(tmp_path / "many", world)


def test_while_the_registry_answers_no_mirror_is_asked(many: Many, wheel: Published) -> None:
    """The list changes nothing for who can reach the registry."""
    before = [len(world.asked) for world in many.worlds[1:]]
    assert many.accept(wheel) == []
    assert [len(world.asked) for world in many.worlds[1:]] == before
    assert many.fetcher.urls[0] == many.registry.url


def test_a_mirror_stands_in_for_a_registry_that_is_down(many: Many, wheel: Published) -> None:
    """Everything comes from the first mirror, and the result says who did not answer."""
    down(many.worlds[0])
    (passed,) = many.accept(wheel)
    assert passed.startswith("https://registry.test was passed over: ") and "503" in passed
    assert many.fetcher.urls[0] == MIRRORS[0]


def test_a_stale_mirror_is_named_and_the_next_one_asked(many: Many, wheel: Published) -> None:
    """One that slept for two days has expired metadata; the other one verifies."""
    down(many.worlds[0])
    many.worlds[2].now += 48 * HOUR
    many.worlds[2].heartbeat()
    passed = many.accept(wheel)
    assert [line.partition(" was ")[0] for line in passed] == ["https://registry.test", MIRRORS[0]]
    assert "expired" in passed[1]


def test_a_mirror_behind_what_was_seen_is_passed_over_without_evidence(many: Many, wheel: Published) -> None:
    """Older than this machine's memory: a rollback if the registry did it, a late sync if a mirror does."""
    many.worlds[0].now += 600
    newer = many.worlds[0].publish("acme-demo", "2.0")
    many.accept(newer)
    many.worlds[2] = many.worlds[0].copy()
    down(many.worlds[0])
    passed = many.accept(newer, wheel)
    assert "rollback" in passed[1] and passed[1].startswith(f"mirror {MIRRORS[0]}")
    assert not many.machine.evidence()
    many.worlds[2].now += 60
    rolled_back = many.worlds[1]
    rolled_back.down = lambda path: False
    with pytest.raises(CountermarkError, match="rollback") as error:  # the registry itself shows the past
        many.worlds[0] = rolled_back
        many.verify(wheel)
    assert error.value.exit_code == 7 and many.machine.evidence()


def test_a_mirror_of_another_registry_is_passed_over(many: Many, wheel: Published) -> None:
    """Signed by nobody we know: it gets nothing, and keeps nobody from the next."""
    down(many.worlds[0])
    many.worlds[1] = World(keys="mallory")
    many.worlds[1].publish("acme-demo")
    passed = many.accept(wheel)
    assert passed[1].startswith(f"mirror {MIRRORS[0]}") and not many.machine.evidence()


def test_a_mirror_in_the_middle_of_a_sync_lacks_files_that_others_have(many: Many, wheel: Published) -> None:
    """Its timestamp is new, its tiles are not there yet: each file comes from who has it."""
    down(many.worlds[0])
    many.worlds[1].down = lambda path: path.startswith(("/log/", "/tuf/bins/"))
    assert len(many.accept(wheel)) == 1


def test_without_any_source_the_cache_is_what_is_left(many: Many, wheel: Published) -> None:
    """Known files pass offline, and the registry is named, not the mirror that was asked last."""
    many.accept(wheel)
    for world in many.worlds:
        down(world)
    report = many.verify(wheel)
    assert report.exit_code == 0 and "registry.test" in (report.late or ""), report.to_json()
    many.machine = Machine(many.machine.home.path / "new", many.worlds[0])
    many.registry = many.machine.home.add(many.worlds[0].base, many.worlds[0].root, mirrors=MIRRORS)
    with pytest.raises(NetworkError, match=r"registry\.test"):
        many.verify(wheel)


def test_an_old_timestamp_is_blamed_on_the_mirror_that_served_it(many: Many, wheel: Published) -> None:
    """Not expired, three hours old: the operator is not accused of what a mirror does."""
    down(many.worlds[0])
    for world in many.worlds:
        world.now += 3 * HOUR
    report = many.verify(wheel)
    assert report.freshness == Level.OK.value and MIRRORS[0] in (report.late or "")


def test_a_slow_source_delays_a_run_once(tmp_path: Path) -> None:
    """It drips each file; after its first deadline the others are asked first, and it is named."""
    with wire() as slow, wire() as good:
        world = World(base=slow.url)
        wheel = world.publish("acme-demo")
        slow.world = world
        good.world = world
        slow.attack("/", SLOW["size of a chunk"])
        registry = Home(tmp_path).add(slow.url, world.root, mirrors=[good.url])
        hurried = HttpFetcher(deadline=timedelta(seconds=1))
        fetcher = Mirrored([Source(slow.url, hurried), Source(good.url, HttpFetcher())])
        started = time.monotonic()
        report = verify([artifact(wheel)], registry, fetcher, now=world.now)
        assert report.exit_code == 0 and time.monotonic() - started < 4
        (passed,) = [remark for remark in report.remarks if "passed over" in remark]
        assert "too slow" in passed and slow.url in passed


def test_a_file_of_any_size_comes_from_one_source(many: Many, wheel: Published) -> None:
    """The next one is asked before the first piece, never in the middle."""
    many.accept(wheel)
    url = f"{many.registry.url}/packages/acme-demo/{wheel.filename}"
    down(many.worlds[0])
    assert b"".join(many.fetcher.chunks(url, max_bytes=10_000)) == wheel.data
    for world in many.worlds:
        down(world)
    with pytest.raises(NetworkError):
        list(many.fetcher.chunks(url, max_bytes=10_000))


@pytest.mark.parametrize("kept", [(), MIRRORS])
def test_the_list_is_kept_with_the_pin(tmp_path: Path, world: World, kept: tuple[str, ...]) -> None:
    """Pinning again without a list keeps it, with one replaces it; without mirrors the pin is as it always was."""
    home = Home(tmp_path)
    home.add(world.base, world.root, mirrors=kept)
    home.add(world.base, world.root)
    registry = home.registry(world.base)
    assert registry.mirrors == kept
    written = json.loads((registry.folder / "registry.json").read_bytes())
    assert ("mirrors" in written) is bool(kept)
    assert isinstance(fetcher_for(registry), Mirrored if kept else HttpFetcher)
    home.add(world.base, world.root, mirrors=["https://M3.test/"])
    assert home.registry(world.base).mirrors == ("https://m3.test",)


def test_a_pin_by_first_use_stays_one_when_mirrors_are_added(tmp_path: Path, world: World) -> None:
    """Naming a mirror vouches for nothing."""
    home = Home(tmp_path)
    home.add(world.base, world.root, first_use=True)
    assert home.add(world.base, world.root, first_use=True, mirrors=MIRRORS).first_use
    assert home.registry(world.base).first_use and home.registry(world.base).mirrors == MIRRORS
    assert not home.add(world.base, world.root).first_use
    assert not home.registry(world.base).first_use


@pytest.mark.parametrize(
    "mirrors",
    [
        ["https://registry.test"],
        ["m1.test"],
        ["https://u:p@x.test"],
        [f"https://m{n}.test" for n in range(17)],
    ],
)
def test_a_list_that_makes_no_sense_is_refused(tmp_path: Path, world: World, mirrors: list[str]) -> None:
    """The registry itself, no URL, a password, too many: nothing is written."""
    with pytest.raises(UsageError):
        Home(tmp_path).add(world.base, world.root, mirrors=mirrors)
    assert not list(tmp_path.rglob("*"))
