"""A registry under load whose processes are killed and stopped at random, and an audit of all that it promised.

    python bench/soak.py --seconds 600 --seed 1

Real processes (`up`). Clients upload signed wheels, each again until it is answered with a proof; others read the
checkpoint, tiles and the simple page. Every few seconds one of web, log, tufrepo, timestamper, scan and witness gets
SIGKILL (then `up` ends and is started again) or SIGSTOP for a moment. At the end `fsck`, and from the public files
alone: every acknowledged entry at its index, under its leaf hash, with a proof that verifies. No index is ever
answered twice, no checkpoint is ever smaller than one that was seen. Exit status 1 for the first thing not so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import urllib3

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tests' world

import registry
from countermark_server import adopted
from countermark_server.stores.public import Public
from tests.faults.recovery import check_proofs
from tests.world.world import StoryError, World

PROCESSES = ("web", "log", "tufrepo", "timestamper", "scan", "witness")
UPLOADERS, READERS = 3, 2
PAUSE = 0.3  # seconds between two uploads of a client
WAIT = (1.0, 4.0)  # seconds between two misfortunes
STOPPED = (0.3, 2.5)  # seconds that a stopped process stays so
READY = 180  # seconds for `up` on a busy machine
LINGERING = ("cannot listen on", "is up already", "another sequencer works on")
GRACE = 180  # seconds for what is under way at the end


class Load:
    """Uploads and reads until told to stop; what was promised, and the first thing that was wrong."""

    def __init__(self, world: World, wheels: list[registry.Wheel]) -> None:
        self.url, self.token = world.url, world.token()
        self.pool = urllib3.PoolManager(maxsize=UPLOADERS + READERS, retries=False)
        self.headers = urllib3.make_headers(basic_auth=f"__token__:{self.token}")
        self.wheels = iter(wheels)
        self.stop, self.turn = threading.Event(), threading.Lock()
        self.promised: dict[str, tuple[int, str]] = {}
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.seen = 0

    def upload(self) -> None:
        """One client: the next wheel, again and again until its proof is there."""
        while not self.stop.is_set():
            with self.turn:
                wheel = next(self.wheels, None)
            if wheel is None:
                return
            deadline = None
            while not self._uploaded(wheel):
                if self.stop.is_set():
                    deadline = deadline or time.monotonic() + GRACE
                    if time.monotonic() > deadline:
                        self.wrong.append(f"{wheel.path.name} was never acknowledged")
                        return
                time.sleep(PAUSE)
            time.sleep(PAUSE)

    def _uploaded(self, wheel: registry.Wheel) -> bool:
        fields = {
            ":action": "file_upload", "protocol_version": "1", "filetype": "bdist_wheel", "pyversion": "py3",
            "name": registry.PROJECT, "version": wheel.path.name.split("-")[1], "metadata_version": "2.1",
            "attestations": f"[{wheel.attestation.decode()}]",
            "content": (wheel.path.name, wheel.body, "application/octet-stream"),
        }  # fmt: skip
        try:
            answer = self.pool.request(
                "POST", f"{self.url}/legacy/", fields=fields, headers=self.headers, timeout=20
            )
        except urllib3.exceptions.HTTPError:
            self.counts["uploads cut"] += 1
            return False
        self.counts[f"uploads {answer.status}"] += 1
        if answer.status != 200:
            if 400 <= answer.status < 500 and answer.status not in (408, 429):
                self.wrong.append(f"{wheel.path.name}: {answer.status} {answer.data[:300]!r}")
            return False
        said = json.loads(answer.data)
        promise = (said["index"], said["leaf_hash"])
        with self.turn:
            if promise in self.promised.values():
                self.wrong.append(f"index {promise[0]} was given twice")
            self.promised[wheel.path.name] = promise
        return True

    def read(self) -> None:
        """One reader: what is public never goes back."""
        while not self.stop.is_set():
            before = self.seen
            for path in ("/log/checkpoint", f"/simple/{registry.PROJECT}/", "/log/tile/0/000"):
                with contextlib.suppress(urllib3.exceptions.HTTPError):
                    answer = self.pool.request("GET", self.url + path, timeout=10)
                    self.counts[f"reads {answer.status}"] += 1
                    if path == "/log/checkpoint" and answer.status == 200:
                        size = int(answer.data.split(b"\n")[1])
                        if size < before:
                            self.wrong.append(f"the public checkpoint went back from {before} to {size}")
                        self.seen = max(self.seen, size)
            time.sleep(0.05)


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


def trouble(world: World, dice: random.Random, until: float, load: Load) -> Counter[str]:
    """Kill and stop, one after the other; returns how often each was hit."""
    done: Counter[str] = Counter()
    while time.monotonic() < until and not load.wrong:
        time.sleep(dice.uniform(*WAIT))
        name = dice.choice(PROCESSES)
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


def run(seconds: float, seed: int) -> dict[str, object]:
    """The whole run; AssertionError or StoryError for the first thing that is wrong."""
    with registry.running() as world:
        wheels = registry.signed_wheels(world, max(60, int(seconds * 1.5)))
        load = Load(world, wheels)
        threads = [threading.Thread(target=load.upload) for _ in range(UPLOADERS)]
        threads += [threading.Thread(target=load.read) for _ in range(READERS)]
        for thread in threads:
            thread.start()
        started = time.monotonic()
        try:
            hits = trouble(world, random.Random(seed), started + seconds, load)
        finally:
            load.stop.set()
            for thread in threads:
                thread.join()
        elapsed = time.monotonic() - started
        assert load.wrong == [], load.wrong
        world.down()
        fsck = world.operator("fsck")
        public = Public(world.data / "public")
        check_proofs(public, adopted.trust_file(public).policy, load.promised.values())
        return {
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
    arguments = parser.parse_args()
    try:
        print(json.dumps(run(arguments.seconds, arguments.seed), indent=1))
    except (AssertionError, StoryError) as error:
        sys.exit(f"soak: error: {error}\n{getattr(error, 'output', '')}")
