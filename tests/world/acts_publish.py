"""Acts 1 and 2: the ceremony, and publishers with the tools they have."""

from __future__ import annotations

import json
import sys
import time

from tests.world.insider import PROJECT, WHEEL, imported
from tests.world.stage import Stage
from tests.world.world import must

THIRD_PARTY = "iniconfig"


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

    by_uv(stage)
    by_any_tool(stage)

    python = world.machine("pip-alice")
    done = world.run(python, "-m", "pip", "install", "--no-input", "-i", f"{world.url}/simple/", PROJECT)
    must("Successfully installed" in done.out, "pip did not install", done.said)
    stage.ok(f"plain pip installs {PROJECT}; it says: {imported(world, python)}")
    done = world.run("countermark", "verify", "--json", dist / WHEEL)
    result = json.loads(done.out)
    must(result["exit_code"] == 0 and result["verified"], "the own wheel does not verify", done.said)
    stage.ok(f"countermark verify {WHEEL}: verified in {done.seconds * 1000:.0f} ms, process start included")


def by_uv(stage: Stage) -> None:
    """The same with unmodified uv, which sends the attestations that lie in dist/."""
    world = stage.world
    dist = world.project("by-uv")
    world.run("countermark", "sign", "--yes", *sorted(dist.iterdir()))
    done = world.run(
        "uv", "publish", "--publish-url", f"{world.url}/legacy/", "--token", world.token(), *sorted(dist.iterdir())
    )  # fmt: skip
    stage.say(f"$ uv publish --publish-url {world.url}/legacy/ dist/*      (unmodified)")
    done = world.run("countermark", "status", "--wait", *sorted(dist.glob("*[lz]")))
    for line in done.out.splitlines():
        stage.ok(line)
    must(done.out.count("listed, ok") == 2, "what uv published is not listed", done.said)


def by_any_tool(stage: Stage) -> None:
    """The statement goes ahead, and a tool that sends none uploads the bytes: matched by their hash."""
    world = stage.world
    (wheel,) = world.project("by-any-tool").glob("*.whl")
    done = world.run("countermark", "sign", "--yes", "--submit", wheel)
    stage.command(done, shown="countermark sign --submit dist/*")
    wheel.with_name(wheel.name + ".publish.attestation").unlink(missing_ok=True)
    world.run(
        "twine", "upload", "--non-interactive", "--disable-progress-bar",
        "--repository-url", f"{world.url}/legacy/", "-u", "__token__", "-p", world.token(), wheel,
    )  # fmt: skip
    stage.say(f"$ twine upload --repository-url {world.url}/legacy/ dist/*      (sends no attestation)")
    done = world.run("countermark", "status", "--wait", wheel)
    must("listed, ok" in done.out, "the wheel is not listed", done.said)
    done = world.run("countermark", "verify", wheel)
    must("signed by key" in done.out, "the statement that went ahead was not matched", done.said)
    stage.ok(done.out.strip())
