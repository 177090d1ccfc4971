"""Acts 7 and 8: the plug is pulled in the middle of an upload, and an auditor reads everything."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from pathlib import Path

from tests.world.insider import PROJECT, WHEEL, public, unswap
from tests.world.stage import Stage
from tests.world.world import World, as_json, must

KILLED = ("log", "tufrepo", "timestamper")
REPLACED = {"log/checkpoint", "tuf/timestamp.json", "tuf/candidate.json"}


def power(stage: Stage) -> None:
    """7: SIGKILL in the middle of an upload; meanwhile a bundle proves its file; then nothing was lost."""
    world, wheel = stage.world, stage.root / f"{PROJECT}-1.0.0" / "dist" / WHEEL
    stage.command(world.run("countermark", "bundle", "make", wheel), shown=f"countermark bundle make {WHEEL}")
    dist = world.project("interrupted")
    seen = interrupt(world, dist)
    stage.say(
        f"SIGKILL of {', '.join(KILLED)}, {seen} entries into the log; `up` stops, and says whose death it was"
    )

    done = world.run("countermark", "bundle", "verify", wheel)
    must("unknown since" in done.out, "the bundle does not say since when nothing is known", done.said)
    stage.ok("with the registry gone: countermark bundle verify")
    stage.quote(done.out)

    started = time.perf_counter()
    lost = restart(world)
    stage.ok(
        f"up again in {time.perf_counter() - started:.1f} s; {lost} files of log and TUF are byte for byte as before"
    )
    done = world.run("countermark", "publish", "--yes", *sorted(dist.iterdir()))
    must("interrupted-1.0.0-py3-none-any.whl" in done.out, "the upload did not go on", done.said)
    stage.ok("the publisher types the same command again, and every file is listed once")
    world.run("countermark-server", "fsck", "--data", world.data)
    world.run("countermark", "verify", wheel)
    stage.command(done, shown="countermark-server fsck --data registry")
    stage.ok("no findings; every timestamp, snapshot and bin has one version and one content")


def audit(stage: Stage) -> None:
    """8: the auditor finds what act 3 left behind; once it is undone the registry audits clean."""
    world, (_, swapped) = stage.world, stage.props["swapped"]  # type: ignore[misc]
    words = str(stage.props["words"])
    world.run("countermark", "trust", "add", world.url, "--root-words", words, home="auditor")
    done = world.run("countermark", "audit", world.url, home="auditor", expect=7)
    must("at fault: the index" in done.said, "the audit does not name the index", done.said)
    stage.refused(
        f"countermark audit {world.url}   (exit {done.code}): the swap of act 3 is still on the index"
    )
    stage.quote("\n".join(line for line in done.out.splitlines() if "covered: " not in line))
    unswap(world, stage.root / f"{PROJECT}-1.0.0" / "dist" / WHEEL, str(swapped))
    stage.say("the operator restores the index from what the log says")
    done = world.run("countermark", "audit", "--from-start", world.url, home="auditor")
    stage.command(done, shown=f"countermark audit --from-start {world.url}")
    lines = done.out.splitlines()
    covered = [line.removeprefix("covered: ") for line in lines if line.startswith("covered: ")]
    stage.quote("covered: " + "; ".join(covered))
    stage.quote("\n".join(line for line in lines if not line.startswith("covered: ")))
    must("no findings" in done.said, "the restored registry does not audit clean", done.said)
    report = as_json(world.run("countermark", "audit", "--json", world.url, home="auditor"))
    must(
        report["findings"] == [] and report["verified"] is True, "the JSON report says otherwise", str(report)
    )


def interrupt(world: World, dist: Path) -> int:
    """Kill log, tufrepo and timestamper once an upload has reached the log; returns the size seen then."""
    before = world.size()
    upload = subprocess.Popen(
        ("countermark", "publish", "--yes", *map(str, sorted(dist.iterdir()))),
        cwd=world.root, env=world.env(), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while (size := world.size()) < before + 2:  # the key's enrolment, and a first file
            must(upload.poll() is None and time.monotonic() < deadline, "the upload ended too early")
            time.sleep(0.01)
        must(upload.poll() is None, "the upload was over before the plug was pulled")
        world.kill(*KILLED)
        said, _ = upload.communicate(timeout=60)
        must(upload.returncode, "the publisher was told that all is well", said)
    finally:
        upload.kill()
        upload.wait()
    return size


def restart(world: World) -> int:
    """Start what was killed: whatever was public, or signed by the timestamper, is so still. How much that was."""
    before, signed = public(world), timestamps(world)
    world.up()
    after, again = public(world), timestamps(world)
    changed = [name for name in before if name not in REPLACED and after.get(name) != before[name]]
    must(not changed, f"after the restart these had changed: {', '.join(changed[:5])}")
    must(signed.items() <= again.items(), "the timestamper forgot or changed a timestamp it had signed")
    world.run("countermark-server", "fsck", "--data", world.data)
    return len(before)


def timestamps(world: World) -> dict[int, str]:
    """The digest of every timestamp that was signed, by version."""
    (path,) = (world.data / "timestamper").glob("*.sqlite")
    with sqlite3.connect(path, timeout=30) as database:
        return dict(database.execute("SELECT version, sha256 FROM signed"))
