"""The acts of the demo. Each drives real programs and ends by checking what it claims."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sqlite3
import sys
import time
import zipfile
from base64 import urlsafe_b64encode
from pathlib import Path

from tests.world.stage import Act, Stage, must
from tests.world.world import World

PROJECT = "hello-countermark"
WHEEL = "hello_countermark-1.0.0-py3-none-any.whl"
THIRD_PARTY = "iniconfig"
TAMPERED = "this line was not written by the author"


def ceremony(stage: Stage) -> None:
    """1: offline keys, 2 of 3; then the registry starts as six processes."""
    world = stage.world
    stage.command(world.init(), shown=f"countermark-server init --data registry --origin {world.origin}")
    out = world.ceremony()
    stage.props["ceremony"] = out
    stage.props["words"] = words = world.words(out)
    transcript = [
        line for path in out.glob("transcript*.jsonl") for line in path.read_text("utf-8").splitlines()
    ]
    stage.ok(f"root, targets, trust, index: 3 custodians, 2 signed; {len(transcript)} lines of transcript")
    stage.ok(f"root words: {words}")
    started = time.perf_counter()
    world.up("--ceremony", out)
    stage.say(f"$ countermark-server up --data registry --ceremony out --listen 127.0.0.1:{world.port}")
    checkpoint = world.get("/log/checkpoint").decode().splitlines()
    timestamp = json.loads(world.get("/tuf/timestamp.json"))["signed"]
    lines = sum(line.startswith("\u2014") for line in checkpoint)
    must(lines == 3, f"the checkpoint carries {lines} lines, not Ed25519, ML-DSA-44 and a witness")
    stage.ok(
        f"web, log, scan, tufrepo, timestamper, witness in {time.perf_counter() - started:.1f} s; "
        f"log of {checkpoint[1]} entries, TUF timestamp {timestamp['version']}"
    )


def publisher(stage: Stage) -> None:
    """2: two commands for a first signed release; then the same with unmodified twine."""
    world, words = stage.world, str(stage.props["words"])
    dist = world.project(PROJECT)
    stage.command(
        world.login("alice", words), shown=f"countermark login {world.url} --root-words '{words[:24]}...'"
    )
    done = world.run("countermark", "publish", "--yes", *sorted(dist.iterdir()))
    stage.command(done, shown="countermark publish dist/*")
    for line in done.out.splitlines():
        stage.ok(line)
    must(WHEEL in done.out, "publish did not name the wheel", done.said)

    third = stage.root / "third-party"
    world.run(
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "-d",
        third,
        THIRD_PARTY,
        home="network",
    )
    (wheel,) = third.glob("*.whl")
    done = world.run("countermark", "sign", "--yes", wheel)
    stage.command(done, shown=f"countermark sign {wheel.name}")
    attestation = wheel.with_name(wheel.name + ".publish.attestation")
    done = world.run(
        "twine", "upload", "--non-interactive", "--disable-progress-bar", "--attestations",
        "--repository-url", f"{world.url}/legacy/", "-u", "__token__", "-p", world.token(), wheel, attestation,
    )  # fmt: skip
    stage.say(f"$ twine upload --attestations --repository-url {world.url}/legacy/ dist/*      (unmodified)")
    done = world.run("countermark", "status", "--wait", wheel)
    stage.command(done, shown="countermark status dist/*")
    for line in done.out.splitlines():
        stage.ok(line)
    must("listed" in done.out, "the third-party wheel is not listed", done.said)

    python = world.machine("pip-alice")
    done = world.run(python, "-m", "pip", "install", "--no-input", "-i", f"{world.url}/simple/", PROJECT)
    must("Successfully installed" in done.out, "pip did not install", done.said)
    stage.ok(f"plain pip installs {PROJECT}; it says: {_import(world, python)}")
    done = world.run("countermark", "verify", "--json", dist / WHEEL)
    result = json.loads(done.out)
    must(result["exit_code"] == 0 and result["verified"], "the own wheel does not verify", done.said)
    stage.ok(f"countermark verify {WHEEL}: verified in {done.seconds * 1000:.0f} ms, process start included")


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
    said = _import(world, python)
    must(TAMPERED in said, "plain pip did not install the swapped wheel", said)
    stage.fooled(f"plain pip install {PROJECT}: {said}")

    app = _application(world)
    world.run("uv", "lock", "--default-index", f"{world.url}/simple/", cwd=app, home="bob")
    lock = (app / "uv.lock").read_bytes()
    must(new.encode() in lock, "the lock made after the swap does not pin the swapped wheel")
    world.run("uv", "sync", "--frozen", cwd=app, home="bob")
    said = _import(world, app / ".venv" / "bin" / "python")
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
    stage.ok("the installer never started; the lock is unchanged")


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
        said = _import(world, python)
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


ACTS = (
    Act("The ceremony: offline keys, 2 of 3, and a registry of six processes", ceremony),
    Act("A publisher: two commands, or the tools they already use", publisher),
    Act("The insider: stored wheel, index and database are swapped", insider),
    Act("A fake registry at the same address, fully consistent", fake_registry),
)


def swap(world: World, wheel: Path, scratch: Path) -> tuple[str, str]:
    """What an insider with every key of the machine's doors does: bytes, index and database; no log, no TUF.

    Returns the old and the new SHA-256. The swapped wheel is inert: it prints a line on import.
    """
    scratch.mkdir()
    forged = scratch / wheel.name
    line = f'print("{TAMPERED}")\n'.encode()
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(forged, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            body = old.read(name)
            if name.endswith("/__init__.py"):
                body = line
            if name.endswith("/RECORD"):  # it comes last, and a careful insider keeps it true
                digest = urlsafe_b64encode(hashlib.sha256(line).digest()).rstrip(b"=")
                row = b"\\1,sha256=" + digest + b",%d" % len(line)
                body = re.sub(rb"(__init__\.py),sha256=[^,]*,\d*", row, body)
            new.writestr(name, body)
    before = hashlib.sha256(wheel.read_bytes()).hexdigest()
    after = hashlib.sha256(forged.read_bytes()).hexdigest()
    from countermark_server.stores.blobs import Blobs

    Blobs(world.data / "blobs").put(forged.read_bytes())
    with sqlite3.connect(world.data / "registry.sqlite", timeout=30) as database:
        changed = database.execute(
            "UPDATE submission SET sha256 = ?, length = ? WHERE sha256 = ?",
            (after, forged.stat().st_size, before),
        ).rowcount
    must(changed == 1, f"the database held {changed} rows of the wheel")
    page = world.get(f"/simple/{wheel.name.split('-', maxsplit=1)[0].replace('_', '-')}/").decode()
    must(after in page and before not in page, "the simple index does not show the swapped hash")
    return before, after


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


def _import(world: World, python: Path) -> str:
    return world.run(python, "-c", f"import {PROJECT.replace('-', '_')}").out.strip()
