"""A registry under load whose processes are killed and stopped at random, and an audit of all that it promised.

    python bench/soak.py --seconds 600 --seed 1
    python bench/soak.py --seconds 600 --backend "postgresql s3"
    python bench/soak.py --seconds 600 --raw            a raw log, and a load of bytes

Real processes (`up`). Clients upload signed wheels, hand in signed statements one by one and in batches, each again
until it is answered with an index; others read the checkpoint, tiles and the simple page. Every few seconds one of
web, log, tufrepo, timestamper, scan and witness gets SIGKILL (then `up` ends and is started again) or SIGSTOP for a
moment. At the end `fsck`, and from the public files alone: every acknowledged entry at its index, under its leaf
hash, with a proof that verifies. No index is ever answered for two entries, no checkpoint is ever smaller than one
that was seen. Exit status 1 for the first thing not so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tests' world

import bench_doors
import registry
import soak_clients
from countermark_server import adopted
from countermark_server.settings import load as load_settings
from countermark_server.stores import places
from soak_clients import Load
from tests.faults.recovery import check_proofs
from tests.world.backends import settings_of
from tests.world.world import StoryError, World

PROCESSES = ("web", "log", "tufrepo", "timestamper", "scan", "witness")
RAW_PROCESSES = ("web", "log", "witness")
WAIT = (1.0, 4.0)  # seconds between two misfortunes
STOPPED = (0.3, 2.5)  # seconds that a stopped process stays so
READY = 180  # seconds for `up` on a busy machine
LINGERING = ("cannot listen on", "is up already", "another sequencer works on")


def restart(world: World) -> None:
    """`up` again. What is left of the killed process may hold its address or its lock for a moment, and no longer."""
    for _ in range(5):
        try:
            return world.up(seconds=READY)
        except StoryError as error:
            if not any(sentence in error.output for sentence in LINGERING):
                raise
        time.sleep(1)
    return world.up(seconds=READY)


def trouble(
    world: World, dice: random.Random, processes: tuple[str, ...], until: float, load: Load
) -> Counter[str]:
    """Kill and stop, one after the other; returns how often each was hit."""
    done: Counter[str] = Counter()
    while time.monotonic() < until and not load.wrong:
        time.sleep(dice.uniform(*WAIT))
        name = dice.choice(processes)
        while not (world.data / "run" / f"{name}.json").exists():
            time.sleep(0.05)  # it has not said yet that it is ready
        if dice.random() < 0.5:
            world.kill(name)
            restart(world)
            done[f"killed {name}"] += 1
        else:
            pid = world.pid(name)
            os.kill(pid, signal.SIGSTOP)
            time.sleep(dice.uniform(*STOPPED))
            os.kill(pid, signal.SIGCONT)
            done[f"stopped {name}"] += 1
    return done


@contextlib.contextmanager
def loaded(backend: str, seconds: float, *, raw: bool) -> Iterator[tuple[World, Load]]:
    """A registry, or a raw log, on this backend, with its clients at work."""
    settings = settings_of(backend)
    if raw:
        with registry.raw_log(settings) as world:
            load = Load(world.url)
            offers = soak_clients.raw(count())
            load.start("bodies", offers, clients=soak_clients.ADDERS, pause=0.01)
            load.read()
            yield world, load
        return
    with registry.running(settings) as world:
        wheels = registry.signed_wheels(world, max(60, int(seconds * 1.5)))
        publisher, numbers, load = bench_doors.enrolled(world), count(), Load(world.url)
        load.start("uploads", soak_clients.uploads(wheels, world.token()), clients=soak_clients.UPLOADERS)
        load.start("statements", soak_clients.statements(publisher, numbers), clients=soak_clients.STATERS)
        load.start("batches", soak_clients.batches(publisher, count(1 << 30)), clients=soak_clients.BATCHERS)
        load.read(f"/simple/{registry.PROJECT}/", "/log/tile/0/000")
        yield world, load


def run(seconds: float, seed: int, backend: str, *, raw: bool) -> dict[str, object]:
    """The whole run; AssertionError or StoryError for the first thing that is wrong."""
    with loaded(backend, seconds, raw=raw) as (world, load):
        started = time.monotonic()
        processes = RAW_PROCESSES if raw else PROCESSES
        try:
            hits = trouble(world, random.Random(seed), processes, started + seconds, load)
        finally:
            load.join()
        elapsed = time.monotonic() - started
        assert load.wrong == [], load.wrong
        indexes = Counter(index for index, _ in load.promised.values())
        twice = [index for index, times in indexes.items() if times > 1]
        assert twice == [], f"given for two entries: {twice}"
        world.down()
        fsck = world.operator("fsck")
        public = places.public(load_settings(world.data, world.settings))
        check_proofs(public, adopted.trust_file(public).policy, load.promised.values())
        return {
            "backend": backend,
            "seconds": round(elapsed),
            "seed": seed,
            "acknowledged and proved": len(load.promised),
            "public checkpoint": load.seen,
            "misfortunes": dict(sorted(hits.items())),
            "answers": dict(sorted(load.counts.items())),
            "fsck": fsck.out.strip(),
        }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--backend", default="sqlite files", help='or "postgresql s3"')
    parser.add_argument("--raw", action="store_true", help="a raw log (testing.raw_add)")
    asked = parser.parse_args()
    try:
        print(json.dumps(run(asked.seconds, asked.seed, asked.backend, raw=asked.raw), indent=1))
    except (AssertionError, StoryError) as error:
        sys.exit(f"soak: error: {error}\n{getattr(error, 'output', '')}")
