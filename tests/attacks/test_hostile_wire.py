"""Endless data, bombs, lying lengths and slow retrieval, at every door through which the client takes something in.

The registry behind the socket is honest (tests/simulator.py), one file of it comes over a hostile wire
(tests/wire.py), and the client is the production one with its real fetcher.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from countermark.clientpolicy import ClientPolicy, Mode, Policies
from countermark.errors import CountermarkError, NetworkError
from countermark.fetch import HttpFetcher
from countermark.filestore import FileStore
from countermark.proxy import Proxy
from countermark.serving import Request, Stream
from countermark.trust import opened
from countermark.verify import verify
from tests.machine import Machine, artifact
from tests.simulator import Published, World
from tests.wire import BROKEN, ENDLESS, SLOW, Wire, wire

FAST = timedelta(
    seconds=20
)  # longer than any of these may take, so that no deadline does the work of a bound
LONG = pytest.mark.exhaustive
BUFFERED = 16 << 20  # bytes that the two ends of a loopback connection may hold, generously

VERIFIED = [  # what a verification from nothing fetches
    "/tuf/2.root.json",
    "/tuf/timestamp.json",
    ".snapshot.json",
    ".targets.json",
    "/tuf/1.trust.json",
    ".index.json",
    ".bins-",
    "/tuf/bins/",
    "/tuf/targets/trust/",
    "/log/tile/0/",
    "/log/tile/entries/",
]
DOORS = [*VERIFIED, "/log/checkpoint", "/simple/", "/packages/"]


def pairs(ways: Iterable[str]) -> list[Any]:
    """Each door with one of the ways, each way at one door; the rest of their product takes long."""
    table = [(door, way, number) for number, door in enumerate(DOORS) for way in ways]
    names = list(ways)
    return [
        pytest.param(door, way, marks=() if door == DOORS[1] or names[n % len(names)] == way else LONG)
        for door, way, n in table
    ]


class Bench:
    """One server for all cases, and a new machine for each."""

    def __init__(self, server: Wire) -> None:
        self.server = server
        self.world = server.world = World(base=server.url)
        self.wheel: Published = self.world.publish("acme-demo", data=b"PK" * 5000)

    def knock(self, door: str, machine: Machine, fetcher: HttpFetcher) -> int:
        """Take something in through this door; returns the exit code of what comes of it."""
        now = self.world.now
        try:
            if door == "/log/checkpoint":
                with opened(machine.registry, fetcher, now=now) as view:
                    view.at_newest_head()
                return 0
            if door in ("/simple/", "/packages/"):
                return self._install(machine, fetcher)
            return verify([artifact(self.wheel)], machine.registry, fetcher, now=now).exit_code
        except CountermarkError as error:
            return error.exit_code

    def _install(self, machine: Machine, fetcher: HttpFetcher) -> int:
        store = FileStore(machine.home.path / "store")
        clock, policies = (lambda: self.world.now), Policies(local=ClientPolicy(mode=Mode.OBSERVE))
        proxy = Proxy(machine.registry, fetcher, store, policies=policies, clock=clock, say=lambda line: None)
        path = f"/packages/{self.wheel.project}/{self.wheel.filename}"
        answer = proxy.answer(Request("GET", path, {}))
        if answer.status == 200:
            body = b"".join(answer.body.pieces) if isinstance(answer.body, Stream) else answer.body
            assert body == self.wheel.data
            return 0
        assert not list(store._folder.rglob("*/??????*")), "something that was refused is in the store"
        assert isinstance(answer.body, bytes)
        return int(json.loads(answer.body)["code"].removeprefix("exit-"))

    def refuses(self, folder: Path, door: str, deadline: timedelta = FAST) -> float:
        """Nothing comes in, nothing is kept, and the same machine takes the honest file; returns the seconds."""
        machine = Machine(folder, self.world)
        before = machine.snapshot()
        fetcher = HttpFetcher(deadline=deadline)
        started = time.monotonic()
        code = self.knock(door, machine, fetcher)
        seconds = time.monotonic() - started
        assert code == 3, code
        fetcher.close()
        learned = ("/tuf/", "timeline.json", "verified.txt")  # of what came honestly
        kept = {name for name in machine.snapshot() if not any(part in name for part in learned)}
        assert kept == set(before), "a broken answer left something behind"
        self.server.attack("nowhere", lambda body: iter([]))
        assert self.knock(door, machine, HttpFetcher()) == 0
        return seconds


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with wire() as server:
        yield Bench(server)


@pytest.mark.parametrize(("door", "how"), pairs(ENDLESS))
def test_endless_data_is_read_up_to_the_bound_of_its_door(
    tmp_path: Path, bench: Bench, door: str, how: str
) -> None:
    """However it is packed, what never ends is cut; the server notices before it has sent much."""
    bench.server.attack(door, ENDLESS[how])
    bench.refuses(tmp_path, door)
    assert bench.server.sent < BUFFERED


@pytest.mark.parametrize(("door", "how"), pairs(BROKEN))
def test_a_broken_answer_is_no_answer(tmp_path: Path, bench: Bench, door: str, how: str) -> None:
    """Cut, lying about its length, or in an encoding nobody asked for: as if nothing had come, and no evidence."""
    bench.server.attack(door, BROKEN[how])
    bench.refuses(tmp_path, door)


@pytest.mark.parametrize("how", SLOW)
def test_slow_retrieval_ends_at_the_deadline_wherever_it_drips(bench: Bench, how: str) -> None:
    """A byte now and then keeps every read alive; the whole answer has a deadline all the same."""
    bench.server.attack("/log/checkpoint", SLOW[how])
    fetchers: list[Callable[[HttpFetcher], object]] = [
        lambda fetcher: fetcher.get(f"{bench.server.url}/log/checkpoint"),
        lambda fetcher: b"".join(fetcher.chunks(f"{bench.server.url}/log/checkpoint", max_bytes=1)),
    ]
    for fetch in fetchers:
        started = time.monotonic()
        with pytest.raises(NetworkError, match=r"slow|reach|longer"):
            fetch(HttpFetcher(deadline=timedelta(seconds=0.3)))
        assert time.monotonic() - started < 3


@pytest.mark.parametrize("door", DOORS)
def test_slow_retrieval_ends_at_every_door(tmp_path: Path, bench: Bench, door: str) -> None:
    """The end of chunks that never comes, byte by byte: the deadline holds for each file."""
    bench.server.attack(door, SLOW["size of a chunk"])
    assert bench.refuses(tmp_path, door, timedelta(seconds=1)) < 6
