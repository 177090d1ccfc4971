"""A log on a full disk: `unshare --user --map-root-user --mount python -m tests.full_disk FOLDER`.

Mounts a small file system at FOLDER (in the mount namespace of this process alone), fills it to the last byte in
front of a working log, and gives the room back. Says what happened: `full FAILURES sound again sound`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from countermark_server.log.station import FAILURES
from tests.log_world import LogWorld, drain

SIZE = "16m"
UPLOADS = 30  # enough for SQLite to outgrow what pages it has


def main(folder: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)], check=True)
    world = LogWorld(folder)
    world.begin()
    station = world.station()
    station.check_start()
    drain(station)
    ids = [world.upload(number) for number in range(UPLOADS)]  # proposed while there was room
    station.sequencer._batch = 1
    fill(folder / "filler")
    failures = 0
    for _ in range(UPLOADS):
        try:
            if not station.sequencer.round():
                break
            station.publisher.publish(station.sequencer.checkpoint)
        except FAILURES:
            failures += 1
            reload(station)
    waiting = [number for number in ids if world.outcome(number).state == "pending"]
    assert waiting, "the disk was never full"
    print("full", failures)
    world.check()
    print("sound")
    (folder / "filler").unlink()
    station.sequencer.load()
    drain(station)
    assert {world.outcome(number).state for number in ids} == {"published"}
    print("again")
    world.check()
    print("sound")


def reload(station) -> None:
    """What the station does after a failure; on a full disk it may fail, too."""
    try:
        station.sequencer.load()
    except FAILURES:
        return


def fill(path: Path) -> None:
    """Take all the room there is."""
    with path.open("wb", buffering=0) as filler:
        for block in (b"\0" * 4096, b"\0"):
            try:
                while True:
                    filler.write(block)
            except OSError:
                continue


if __name__ == "__main__":
    main(Path(sys.argv[1]))
