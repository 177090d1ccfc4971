"""Acts 3 and 4: an insider with every key of the machine's doors, and a fake registry with keys of its own."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tests.world.insider import PROJECT, TAMPERED, WHEEL, imported, swap
from tests.world.stage import Stage
from tests.world.world import World, must


def insider(stage: Stage) -> None:
    """3: the operator swaps the stored wheel, its hash on the index and in the database."""
    world, words = stage.world, str(stage.props["words"])
    old, new = swap(world, stage.root / f"{PROJECT}-1.0.0" / "dist" / WHEEL, stage.root / "swapped")
    stage.props["swapped"] = (old, new)
    stage.say(
        f"the operator writes {new[:12]}... over {old[:12]}... in the store, on the index, in the database"
    )

    python = world.machine("pip-bob")
    world.run(python, "-m", "pip", "install", "--no-input", "-i", f"{world.url}/simple/", PROJECT)
    said = imported(world, python)
    must(TAMPERED in said, "plain pip did not install the swapped wheel", said)
    stage.fooled(f"plain pip install {PROJECT}: {said}")

    app = _application(world)
    world.run("uv", "lock", "--default-index", f"{world.url}/simple/", cwd=app, home="bob")
    lock = (app / "uv.lock").read_bytes()
    must(new.encode() in lock, "the lock made after the swap does not pin the swapped wheel")
    world.run("uv", "sync", "--frozen", cwd=app, home="bob")
    said = imported(world, app / ".venv" / "bin" / "python")
    must(TAMPERED in said, "plain uv sync did not install the swapped wheel", said)
    stage.fooled(f"plain uv sync --frozen, lock made after the swap: {said}")
    shutil.rmtree(app / ".venv")

    world.run("countermark", "trust", "add", world.url, "--root-words", words, home="bob")
    requirements = app / "requirements.txt"
    requirements.write_text(f"{PROJECT}==1.0.0 --hash=sha256:{new}\n", encoding="utf-8")
    for shown, command in (
        ("uv sync --frozen", ("uv", "sync", "--frozen")),
        (
            "pip install --require-hashes -r requirements.txt",
            (
                str(python),
                "-m",
                "pip",
                "install",
                "--force-reinstall",
                "--require-hashes",
                "-r",
                str(requirements),
            ),
        ),
    ):
        done = world.run("countermark", "run", "--", *command, cwd=app, home="bob", expect=7)
        must(old in done.said and new in done.said, "the refusal does not name both hashes", done.said)
        must(re.search(r"entry (#)?\d+", done.said), "the refusal does not name the entry", done.said)
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
    done = world.run("countermark", "run", "--", *command, home="bob", expect=7)
    must(old in done.said and new in done.said, "the refusal does not name both hashes", done.said)
    listed = world.run(python, "-m", "pip", "list", "--format=freeze").out
    must(PROJECT not in listed.replace("_", "-"), "pip installed the swapped wheel by name", listed)
    stage.refused(
        f"countermark run -- pip install {PROJECT}   (by name, through the proxy; exit {done.code})"
    )
    stage.quote("\n".join(line for line in done.err.splitlines() if line.startswith("countermark: refused")))


def fake_registry(stage: Stage) -> None:
    """4: a fully consistent fake at the same address, met by a fresh machine."""
    world, words = stage.world, str(stage.props["words"])
    world.down()
    fake = World(stage.root / "fake", origin=world.origin, port=world.port, settings=world.settings)
    forged = stage.root / "swapped" / WHEEL
    try:
        fake.up("--trial", "--origin", fake.origin)
        fake.login("mallory", fake.words(fake.data / "ceremony"))
        fake.run("countermark", "publish", "--yes", forged)
        stage.say(
            f"a fake {world.origin} answers at {world.url}: own keys, log, witness and TUF, all consistent"
        )
        python = world.machine("pip-carol")
        world.run(python, "-m", "pip", "install", "--no-input", "-i", f"{world.url}/simple/", PROJECT)
        said = imported(world, python)
        must(TAMPERED in said, "plain pip did not install from the fake", said)
        stage.fooled(f"plain pip on a fresh machine: {said}")

        done = world.run(
            "countermark", "trust", "add", world.url, "--root-words", words, home="carol", expect=None
        )
        must(done.code in (5, 7), f"the fake root was accepted with exit {done.code}", done.said)
        stage.refused(
            f"countermark trust add {world.url} --root-words '{words[:24]}...'   (exit {done.code})"
        )
        stage.quote(done.err)
        must(not list((stage.root / "carol").rglob("*root.json")), "something of the fake root was kept")

        root = Path(str(stage.props["ceremony"])) / "1.root.json"
        world.run("countermark", "trust", "add", world.url, "--root", root, home="carol")
        done = world.run("countermark", "verify", forged, home="carol", expect=None)
        must(done.code == 7, f"the fake's wheel ended with exit {done.code}", done.said)
        stage.refused(f"countermark verify {WHEEL}, with the real root from a file   (exit {done.code})")
        stage.quote(done.err)
    finally:
        fake.down()
    world.up()
    world.run("countermark", "verify", stage.root / f"{PROJECT}-1.0.0" / "dist" / WHEEL)
    stage.ok("the real registry is back, and its real wheel verifies as before")


def _application(world: World) -> Path:
    app = world.root / "app"
    app.mkdir()
    (app / "pyproject.toml").write_text(
        f'[project]\nname = "app"\nversion = "0"\nrequires-python = ">=3.11"\ndependencies = ["{PROJECT}==1.0.0"]\n'
        f'[[tool.uv.index]]\nname = "demo"\nurl = "{world.url}/simple/"\ndefault = true\n'
        "[tool.uv]\npackage = false\n",
        encoding="utf-8",
    )
    return app
