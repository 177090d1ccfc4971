"""Mutants: what a liar, a broken disk or a cut line makes of bytes; each with a name that tells what was done.

    for mutant in mutants(raw, others): ...     # every byte, every cut, every JSON member, every swap
    for mutant in sampled(raw, others, 40, seed="verify /tuf/timestamp.json"): ...

The whole list is for `make test-full`. A sample takes some of every sort, so that no sort is ever left out, and
the same ones in every run.
"""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

RUN = re.compile(rb"[A-Za-z0-9+/]{40,}={0,2}")  # a hash, a key or a signature, written in hex or base64
RUN_ENDS = 4
BITS = (0x01, 0x20, 0x80)  # the neighbour, the other case, no ASCII any more
WRONG = (
    None,
    True,
    -1,
    10**30,
    1.5,
    "",
    "0",
    [],
    {},
    "\x00\ud800",
)  # values of every type, some of them absurd


@dataclass(frozen=True)
class Mutant:
    """Other bytes, and how they came about."""

    sort: str
    what: str
    raw: bytes

    def __str__(self) -> str:
        return f"{self.sort}: {self.what}"


def mutants(raw: bytes, others: Iterable[tuple[str, bytes]] = ()) -> Iterator[Mutant]:
    """All of them; `others` are resources of the same kind, by name."""
    for made in (_bytes(raw), _lengths(raw), _members(raw), _swaps(others)):
        yield from (mutant for mutant in made if mutant.raw != raw)


def sampled(raw: bytes, others: Iterable[tuple[str, bytes]] = (), *, count: int, seed: str) -> list[Mutant]:
    """Some of every sort: all of a sort that has few, about `count` in all."""
    chance = random.Random(seed)
    sorts: dict[str, list[Mutant]] = {}
    for mutant in mutants(raw, others):
        sorts.setdefault(mutant.sort, []).append(mutant)
    each = max(1, count // max(1, len(sorts)))
    return [mutant for found in sorts.values() for mutant in chance.sample(found, min(each, len(found)))]


def _bytes(raw: bytes) -> Iterator[Mutant]:
    """Every byte that means something by its place: in three ways up to 256 bytes, in one way else.

    Within a hash, a key or a signature one byte means what its neighbours do. Of a written one its ends (where base64
    has spare bits) and every eighth letter are changed; of a binary file every byte, in one way. Beyond 8 KiB it is
    every eighth byte of all.
    """
    within = {at for run in RUN.finditer(raw) for at in range(run.start() + RUN_ENDS, run.end() - RUN_ENDS)}
    plain = len(raw) <= 256 and raw.isascii()
    for at in range(0, len(raw), 1 if len(raw) <= 8192 else 8):
        if at in within and at % 8 and len(raw) <= 8192:
            continue
        for bit in BITS if plain and at not in within else BITS[at % 3 :][:1]:
            yield Mutant("byte", f"{at} ^ {bit:#x}", raw[:at] + bytes([raw[at] ^ bit]) + raw[at + 1 :])


def _lengths(raw: bytes) -> Iterator[Mutant]:
    yield Mutant("empty", "nothing", b"")
    yield Mutant("twice", "the whole of it twice", raw + raw)
    yield Mutant("zero", "as many zero bytes", bytes(len(raw)))
    for more in (b"\x00", b"\n", b" ", b"{}", bytes(300)):
        yield Mutant("longer", repr(more[:2]), raw + more)
    for cut in sorted({1, 2, len(raw) // 3, len(raw) // 2, len(raw) - 32, len(raw) - 2, len(raw) - 1}):
        if 0 < cut < len(raw):
            yield Mutant("shorter", f"{cut} bytes", raw[:cut])
            yield Mutant("headless", f"from {cut}", raw[cut:])
    lines = raw.split(b"\n")
    for number in range(len(lines) if b"\x00" not in raw else 0):
        yield Mutant("line-dropped", str(number), b"\n".join(lines[:number] + lines[number + 1 :]))
        yield Mutant("line-twice", str(number), b"\n".join([*lines[: number + 1], *lines[number:]]))


def _members(raw: bytes) -> Iterator[Mutant]:
    """Of a JSON document: each member dropped, changed, of another type, and one too many beside it."""
    try:
        document = json.loads(raw)
    except ValueError:
        return
    for mutant in changed_members(document):
        yield Mutant(mutant.sort, mutant.what, json.dumps(mutant.document).encode())
    yield Mutant("member-twice", "the first one", _doubled(raw))
    yield Mutant("deep", "nested without end", b'{"signed":' + b"[" * 30_000)


@dataclass(frozen=True)
class Changed:
    """A JSON document that is not what it was."""

    sort: str
    what: str
    document: Any


def changed_members(document: Any) -> Iterator[Changed]:
    """Every place of a document: dropped, changed, of another type; every object with a member too many."""
    for way in _places(document):
        where = "/".join(map(str, way)) or "the whole"
        if way:
            changed, parent = _copy(document, way)
            del parent[way[-1]]
            yield Changed("member-dropped", where, changed)
        old = _at(document, way)
        for other in (*_near(old), *WRONG):
            if type(other) is type(old) and other == old:
                continue
            sort = "member-changed" if type(other) is type(old) else "member-retyped"
            yield Changed(sort, f"{where} = {other!r}"[:120], _replaced(document, way, other))
        if isinstance(old, dict):
            yield Changed("member-added", where, _replaced(document, way, {**old, "surplus": 1}))
        if isinstance(old, list) and old:
            yield Changed("item-twice", where, _replaced(document, way, [*old, old[0]]))
        if isinstance(old, list) and old[::-1] != old:
            yield Changed("items-reversed", where, _replaced(document, way, old[::-1]))


def _near(value: Any) -> tuple[Any, ...]:
    """Values of the same type that a careless reader may take for it."""
    if isinstance(value, bool):
        return (not value,)
    if isinstance(value, int):
        return (value + 1, value - 1, 0)
    if isinstance(value, str) and value:
        at = len(value) // 2
        return (
            value + "0",
            value[:-1],
            value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :],
            value.upper(),
        )
    return ()


def _places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield way
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for name, inner in items:
        yield from _places(inner, (*way, name))


def _at(document: Any, way: tuple[Any, ...]) -> Any:
    for name in way:
        document = document[name]
    return document


def _copy(document: Any, way: tuple[Any, ...]) -> tuple[Any, Any]:
    changed = copy.deepcopy(document)
    return changed, _at(changed, way[:-1])


def _replaced(document: Any, way: tuple[Any, ...], value: Any) -> Any:
    if not way:
        return value
    changed, parent = _copy(document, way)
    parent[way[-1]] = value
    return changed


def _doubled(raw: bytes) -> bytes:
    """The first member of an object given twice: readers differ in which one they take."""
    start = raw.find(b"{")
    colon = raw.find(b":", start)
    return (
        raw[: start + 1] + raw[start + 1 : colon] + b":null," + raw[start + 1 :] if colon > 0 else raw + raw
    )


def _swaps(others: Iterable[tuple[str, bytes]]) -> Iterator[Mutant]:
    for name, raw in others:
        yield Mutant("swap", f"with {name}", raw)
