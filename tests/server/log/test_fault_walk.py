"""The fault walk: kill -9, EIO, ENOSPC and lost connections at the system calls of the publish path.

`make test` breaks every distinct call site, and thirty occurrences more; `make test-full` every occurrence, and
writes what became of each to bench/faults.json. After each: restart, fsck, every acknowledged entry at its index
with a proof, no size signed twice (tests/faults/recovery.py).
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.faults.mutants import MUTANTS
from tests.faults.strace import EIO, KILL, NETWORK, Call, unsynced
from tests.faults.walk import BEFORE, Walk

RESULTS = Path(__file__).resolve().parents[3] / "bench/faults.json"
KINDS = ("sqlite files", "postgresql s3")
SEED = 4  # of the thirty
SAMPLE = 30
FEW = 4  # entries of the small log, whose worlds are checked sooner
WORK = ("round", "publish")  # phases in which one fault must not end the process

Counts = Counter[tuple[str, str, str, str, str]]  # phase, call, what about, fault, outcome


def broken(walk: Walk, call: Call, fault: str) -> tuple[str, str, str, str, str]:
    """Break it; hold the outcome to what is expected."""
    try:
        result = walk.run(call, fault)
    except AssertionError as error:
        raise AssertionError(f"{fault} at {call}: {error}") from error
    where = f"{fault} at {call} ended as {result}"
    if result.about is None:  # an answer came in fewer pieces, or threads took turns, otherwise than recorded
        assert result.outcome == "progress" and (call.name in NETWORK or "s3" in walk.kind), where
        return call.phase, call.name, call.about, fault, "not reached"
    phase = result.phase or call.phase
    if fault == KILL:
        assert result.outcome == "killed", where
    elif phase in WORK:
        assert result.outcome == "progress", where
    else:
        assert result.outcome in ("progress", "refused"), where
    return phase, call.name, call.about, fault, result.outcome


def walked(trace: Iterable[Call], *phases: str) -> list[Call]:
    return [call for call in trace if call.phase in phases and call.about != "other"]


def sites(calls: list[Call]) -> list[Call]:
    """One call of each site: the last."""
    return list({call.site: call for call in calls}.values())


@pytest.mark.timeout(1200)  # each broken call is a restart: minutes on a busy machine
@pytest.mark.parametrize("kind", KINDS)
def test_every_call_site(kind: str, tmp_path: Path) -> None:
    """Each distinct call of sequencing and publishing, broken in each way: one log, nothing lost."""
    with Walk(kind, tmp_path, before=FEW) as walk:
        trace = walk.record()
        assert unsynced(trace) == []
        some = sites(walked(trace, *WORK))
        assert {call.about for call in some} >= {"database", "witness"}
        done = Counter(broken(walk, call, fault) for call in some for fault in call.faults)
    assert sum(done.values()) >= len(some)


def test_thirty_occurrences(tmp_path: Path) -> None:
    """Anywhere between the start and the end, in a round that fills a tile and cleans up."""
    with Walk(KINDS[0], tmp_path) as walk:
        calls = walked(walk.record(), "start", *WORK)
        for call in random.Random(SEED).sample(calls, SAMPLE):
            broken(walk, call, random.Random(f"{SEED} {call.name} {call.nth}").choice(call.faults))


def test_a_database_that_could_not_be_opened_for_writing_once(tmp_path: Path) -> None:
    """SQLite then opens it for reading and says nothing; the connection is thrown away, and the log goes on."""
    with Walk(KINDS[0], tmp_path, before=FEW) as walk:
        opened = [
            c for c in walk.record() if (c.name, c.about) == ("openat", "database") and "RDWR" in c.text
        ]
        assert opened
        for call in opened:
            broken(walk, call, EIO)


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("before", (FEW, BEFORE))
@pytest.mark.parametrize("kind", KINDS)
def test_every_occurrence(kind: str, before: int, tmp_path: Path) -> None:
    """All of them; the table is written anew."""
    done: Counts = Counter()
    failures: list[str] = []
    with Walk(kind, tmp_path, before=before) as walk:
        trace = walk.record()
        assert unsynced(trace) == []
        for call in walked(trace, "start", *WORK):
            for fault in call.faults:
                try:
                    done[broken(walk, call, fault)] += 1
                except Exception as error:  # all of them are told, at the end
                    failures.append(f"{error!r}"[:1000])
    names = ("phase", "call", "about", "fault", "outcome")
    rows = [dict(zip(names, key, strict=True)) | {"count": count} for key, count in sorted(done.items())]
    table = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    table[f"{kind}, {before} entries"] = {"occurrences": sum(done.values()), "rows": rows}
    lines = json.dumps(table, indent=1, sort_keys=True) + "\n"
    RESULTS.write_text(lines, encoding="utf-8")
    assert failures == []


# --- the test of the test: a broken sequencer is seen ------------------------------------------------------


@pytest.mark.parametrize("mutant", ["no sync", "no folder sync"])
def test_a_store_that_does_not_sync_is_seen(mutant: str, tmp_path: Path) -> None:
    """No kill shows it, since the kernel keeps what it was given; the order of the calls does."""
    with Walk(KINDS[0], tmp_path, before=FEW) as walk:
        found = unsynced(walk.record(mutant))
    assert found, f"{mutant} was not seen"


KILLED_AT = {
    "publish before commit": ("round", "fdatasync", "database log"),
    "acknowledge before public": ("publish", "rename", "checkpoint"),
    "replace in place": ("publish", "write", "checkpoint"),
}


@pytest.mark.parametrize("mutant", KILLED_AT)
def test_a_broken_order_is_seen(mutant: str, tmp_path: Path) -> None:
    """Killed between the two steps that it exchanged, the log cannot keep its word, and the walk says so."""
    phase, name, about = KILLED_AT[mutant]
    with Walk(KINDS[0], tmp_path, before=FEW) as walk:
        calls = [
            call
            for call in walk.record(mutant)
            if (call.phase, call.name, call.about) == (phase, name, about)
        ]
        assert calls, f"{mutant} makes no {name} of the {about}"
        with pytest.raises(Exception, match=r".") as caught:
            for call in calls:
                walk.run(call, KILL, mutant)
    assert not isinstance(caught.value, OSError), caught.value


def test_every_planted_fault_is_walked() -> None:
    """No mutant without its test."""
    assert set(MUTANTS) == {"no sync", "no folder sync", *KILLED_AT}
