"""Acts 3 and 4: an insider with every key of the machine's doors, and a fake registry with keys of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.world import fake, installers
from tests.world.insider import PROJECT, WHEEL, swap
from tests.world.stage import Stage
from tests.world.world import must


def insider(stage: Stage) -> None:
    """3: the operator swaps the stored wheel, its hash on the index and in the database."""
    world, words = stage.world, str(stage.props["words"])
    old, new = swap(world, stage.root / f"{PROJECT}-1.0.0" / "dist" / WHEEL, stage.root / "swapped")
    stage.props["swapped"] = (old, new)
    stage.say(
        f"the operator writes {new[:12]}... over {old[:12]}... in the store, on the index, in the database"
    )

    python = world.machine("pip-bob")
    stage.fooled(f"plain pip install {PROJECT}: {installers.fooled_pip(world, python)}")

    app = installers.application(world)
    said = installers.fooled_uv(world, app, new)
    lock = (app / "uv.lock").read_bytes()
    stage.fooled(f"plain uv sync --frozen, lock made after the swap: {said}")
    shutil.rmtree(app / ".venv")

    world.run("countermark", "trust", "add", world.url, "--root-words", words, home="bob")
    for shown, command in installers.locked_routes(python, installers.pinned(app, new)).items():
        done = installers.refused(world, (old, new), "run", "--", *command, cwd=app)
        must(not (app / ".venv").exists(), "the installer ran")
        stage.refused(f"countermark run -- {shown}   (exit {done.code})")
        stage.quote(done.err)
    must((app / "uv.lock").read_bytes() == lock, "the lock was changed")
    by_name(stage)
    stage.ok("the installer never started; the lock is unchanged")


def by_name(stage: Stage) -> None:
    """The unpinned route: nothing says which bytes, so every file passes the verifying proxy first."""
    world, (old, new) = stage.world, stage.props["swapped"]  # type: ignore[misc]
    python = world.machine("pip-by-name")
    command = (python, "-m", "pip", "install", "--no-input", PROJECT)
    done = installers.refused(world, (old, new), "run", "--", *command)
    must(not installers.installed(world, python), "pip installed the swapped wheel by name", done.said)
    stage.refused(
        f"countermark run -- pip install {PROJECT}   (by name, through the proxy; exit {done.code})"
    )
    stage.quote("\n".join(line for line in done.err.splitlines() if line.startswith("countermark: refused")))


def fake_registry(stage: Stage) -> None:
    """4: a fully consistent fake at the same address, met by a fresh machine."""
    world, words = stage.world, str(stage.props["words"])
    forged = stage.root / "swapped" / WHEEL
    with fake.standing(world, forged):
        stage.say(
            f"a fake {world.origin} answers at {world.url}: own keys, log, witness and TUF, all consistent"
        )
        said = installers.fooled_pip(world, world.machine("pip-carol"))
        stage.fooled(f"plain pip on a fresh machine: {said}")

        done = fake.refused_by_words(world, words, home="carol")
        stage.refused(
            f"countermark trust add {world.url} --root-words '{words[:24]}...'   (exit {done.code})"
        )
        stage.quote(done.err)

        root = Path(str(stage.props["ceremony"])) / "1.root.json"
        world.run("countermark", "trust", "add", world.url, "--root", root, home="carol")
        done = fake.refused_by_root(world, forged, home="carol")
        stage.refused(f"countermark verify {WHEEL}, with the real root from a file   (exit {done.code})")
        stage.quote(done.err)
    world.run("countermark", "verify", stage.root / f"{PROJECT}-1.0.0" / "dist" / WHEEL)
    stage.ok("the real registry is back, and its real wheel verifies as before")
