"""Status: whether each part of a registry works, and what waits, seen from beside it.

    web          answers   http://127.0.0.1:8080/healthz
    log          answers   http://127.0.0.1:40713/metrics
    scan         not well  http://127.0.0.1:40717/metrics
    head         12 entries signed, 12 public, seen by the witness quorum 4 s ago
    tuf          timestamp 9 for 23 h, snapshot 7 for 6 d, root 1 for 364 d
    waiting      2 files at scan (the oldest for 3 min), 1 file at moderation (the oldest for 2 h)
    disk         41.2 GB of 98.3 GB free

A part is asked where it says that it listens (run/NAME.json), or where the settings say so. Its answer says that it
lives; whether it gets on is read off what waits for it, and off the public trees, as strangers see them. Nothing is
written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Engine, func, select

from countermark import tufjson
from countermark.errors import CountermarkError
from countermark.fetch import Fetcher
from countermark_server import adopted, db
from countermark_server.console import PARTS, counted
from countermark_server.errors import ServerError
from countermark_server.journey import STATIONS, State
from countermark_server.published import Published
from countermark_server.settings import Settings
from countermark_server.stores import heads, places
from countermark_server.stores.public import TIMESTAMP, Public

RAW_PARTS = ("web", "log")  # of a log for load tests
LATE_SECONDS = 60  # what a part should have done by then
LISTING_SECONDS = 600  # a file waits for one TUF publish of all that came with it, and perhaps for an import
ROOT_SECONDS = 30 * 86_400  # a ceremony takes some planning
DISK_LEAST = 0.05  # of the whole
_LATE = {State.LOGGED: LATE_SECONDS * 5, State.SCANNED: LATE_SECONDS * 5, State.CLEARED: LISTING_SECONDS}


@dataclass(frozen=True)
class Part:
    """One process: where it was asked, and why it is not well."""

    name: str
    url: str | None  # None: it has not said where it listens, so it was not started here or has ended
    why: str | None = None  # None: it is well


@dataclass(frozen=True)
class Waiting:
    """What waits for a part: how much, and since when the oldest does."""

    room: str
    count: int
    seconds: int


@dataclass(frozen=True)
class Status:
    """All of it; `problems` are sentences, none of them when all is well."""

    parts: Sequence[Part]
    signed: int
    public: int
    quorum_age: int | None
    expires: Mapping[str, tuple[int, int]]  # role: version, seconds left
    waiting: Sequence[Waiting]
    disk_free: int
    disk_total: int
    problems: Sequence[str]

    @property
    def silent(self) -> list[str]:
        """Parts that do not answer, or say themselves that they are not well."""
        return [part.name for part in self.parts if part.why is not None]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        expires = {role: {"version": found[0], "seconds": found[1]} for role, found in self.expires.items()}
        return {**asdict(self), "expires": expires}


def look(
    settings: Settings, engine: Engine, fetcher: Fetcher, *, parts: Sequence[str], clock: Callable[[], float]
) -> Status:
    """Ask every part, and read what waits. `parts`: those that should run on this machine; empty: all."""
    now, origin = int(clock()), settings.registry.origin
    raw = settings.testing.raw_add
    asked = [_ask(settings, fetcher, name) for name in parts or (RAW_PARTS if raw else PARTS)]
    public = places.public(settings)
    with db.read(engine) as connection:
        head = heads.load(connection, origin)
        waiting = _entries_waiting(connection, now=now) + _files_waiting(connection, now=now)
    signed = 0 if head is None else head.tree_size
    size, quorum_age, problems = 0, None, list[str]()
    try:
        checkpoint = Published(public, clock).checkpoint()
        size, quorum_age = checkpoint.size, max(0, now - checkpoint.quorum_time)
    except (ServerError, CountermarkError) as error:
        problems.append(f"head: {error}")
    expires = dict[str, tuple[int, int]]()
    if not raw:
        try:
            expires = _expiries(public, now=now)
        except (CountermarkError, LookupError, TypeError, ValueError) as error:
            problems.append(f"tuf: {error}")
    disk = shutil.disk_usage(settings.data)
    problems += [f"{part.name}: {part.why}" for part in asked if part.why is not None]
    if signed > size and (quorum_age is None or quorum_age > LATE_SECONDS):
        problems.append(f"head: the newest {counted(signed - size, 'entry')} signed and not public")
    problems += _late(waiting) + _ending(expires)
    if disk.free < disk.total * DISK_LEAST:
        problems.append(f"disk: {_size(disk.free)} of {_size(disk.total)} free")
    return Status(asked, signed, size, quorum_age, expires, waiting, disk.free, disk.total, problems)


def lines(status: Status) -> list[str]:
    """The same for people."""
    said = []
    for part in status.parts:
        how = "answers" if part.why is None else "not well" if part.url else "not here"
        said.append(f"{part.name:<12} {how:<9} {part.url or ''}".rstrip())
    seen = "" if status.quorum_age is None else f", seen by the witness quorum {_span(status.quorum_age)} ago"
    said.append(f"{'head':<12} {counted(status.signed, 'entry')} signed, {status.public} public{seen}")
    if status.expires:
        told = (f"{role} {version} for {_span(left)}" for role, (version, left) in status.expires.items())
        said.append(f"{'tuf':<12} {', '.join(told)}")
    queues = [
        f"{counted(each.count, 'entry' if each.room == 'log' else 'file')} at {each.room}"
        f" (the oldest for {_span(each.seconds)})"
        for each in status.waiting
    ]
    said.append(f"{'waiting':<12} {', '.join(queues) or 'nothing'}")
    return [*said, f"{'disk':<12} {_size(status.disk_free)} of {_size(status.disk_total)} free"]


# --- what is looked at ------------------------------------------------------------------------------------
def _ask(settings: Settings, fetcher: Fetcher, name: str) -> Part:
    url = _address(settings, name)
    if url is None:
        return Part(name, None, f"it left no run/{name}.json, so it does not run on this machine")
    try:
        return Part(name, url, None if fetcher.get(url) is not None else f"{url} has nothing to say")
    except CountermarkError as error:
        return Part(name, url, str(error))


def _address(settings: Settings, name: str) -> str | None:
    """Where a part answers: where it said that it does, or, of those that have a fixed place, where that is."""
    try:
        said = json.loads((settings.data / "run" / f"{name}.json").read_bytes())
    except (OSError, ValueError):
        said = {}
    door = "healthz" if name in ("web", "timestamper") else "metrics"
    if url := said.get("url"):
        return f"{url}/{door}"
    if url := said.get("metrics"):
        return str(url)
    listens = {"web": settings.web.listen, "timestamper": settings.timestamper.listen}.get(name)
    if listens is None:
        return None
    host, _, port = listens.rpartition(":")
    here = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104  (compared, not bound)
    return f"http://{here}:{port}/{door}"


def _entries_waiting(connection: Connection, *, now: int) -> list[Waiting]:
    table = db.proposal
    query = select(func.count(), func.min(table.c.created)).where(table.c.state == "pending")
    count, since = connection.execute(query).one()
    return [Waiting("log", count, max(0, now - since))] if count else []


def _files_waiting(connection: Connection, *, now: int) -> list[Waiting]:
    """By the state they are in; those that wait for the log are counted as entries."""
    table, states = db.submission, [state for state in STATIONS if state is not State.RECEIVED]
    query = (
        select(table.c.state, func.count(), func.min(table.c.state_since))
        .where(table.c.state.in_(states))
        .group_by(table.c.state)
    )
    found = {State(state): (count, since) for state, count, since in connection.execute(query)}
    return [
        Waiting(_room(state), found[state][0], max(0, now - found[state][1]))
        for state in states
        if state in found
    ]


def _room(state: State) -> str:
    return "verdict" if state is State.SCANNED else STATIONS[state].room


def _expiries(public: Public, *, now: int) -> dict[str, tuple[int, int]]:
    """Version and seconds left of the TUF roles that clients ask for first."""
    timestamp, root = public.read(TIMESTAMP), adopted.newest_root(public)
    found = {"timestamp": None if timestamp is None else tufjson.load(timestamp, "timestamp")}
    if timestamp is not None:
        version = json.loads(timestamp)["signed"]["meta"]["snapshot.json"]["version"]
        snapshot = public.read(f"tuf/{version}.snapshot.json")
        found["snapshot"] = None if snapshot is None else tufjson.load(snapshot, "snapshot")
    found["root"] = None if root is None else tufjson.load(root, "root")
    missing = [role for role, signed in found.items() if signed is None]
    if missing:
        raise LookupError(f"there is no {missing[0]}")
    return {
        role: (signed["version"], tufjson.parse_time(signed["expires"]) - now)
        for role, signed in found.items()
        if signed is not None
    }


# --- what is judged ---------------------------------------------------------------------------------------
def _late(waiting: Sequence[Waiting]) -> list[str]:
    """What has waited longer than a part that works lets it; what waits for people is no fault of a part's."""
    most = {"log": LATE_SECONDS, **{_room(state): seconds for state, seconds in _LATE.items()}}
    return [
        f"{each.room}: {counted(each.count, 'entry' if each.room == 'log' else 'file')}"
        f" waiting, the oldest for {_span(each.seconds)}"
        for each in waiting
        if each.seconds > most.get(each.room, each.seconds)
    ]


def _ending(expires: Mapping[str, tuple[int, int]]) -> list[str]:
    said = [f"tuf: the {role} has expired" for role, (_, left) in expires.items() if left <= 0]
    if 0 < (left := expires.get("root", (0, 0))[1]) < ROOT_SECONDS:
        said.append(f"tuf: the root expires in {_span(left)}: hold the next ceremony")
    return said


def _span(seconds: int) -> str:
    """Seconds, minutes, hours or days, whichever reads best."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
