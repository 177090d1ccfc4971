"""Attacks that end in a refusal with a reason, and after which nothing else has changed.

Used by act 5 of the demo and by the stories under tests/attacks. Each function makes one attack on a running
registry, checks that it was refused and that the public files are what they were, and returns what was said.
"""

from __future__ import annotations

import base64
import json
import sqlite3
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.world.insider import PROJECT, quiet, unchanged
from tests.world.world import Done, World, must

DAY = 24 * 3600


def unlogged(world: World, wheel: Path, *, home: str) -> Done:
    """The operator adds a file to store, index and database, and leaves the log out: no client installs it."""
    project = wheel.name.split("-", maxsplit=1)[0].replace("_", "-")
    with unchanged(world):
        listed = _list_unlogged(world, wheel, project)
        must(wheel.name in world.get(f"/simple/{project}/").decode(), "the simple index does not list it")
        try:
            done = world.run("countermark", "verify", wheel, home=home, expect=None)
        finally:
            with closing(sqlite3.connect(world.data / "registry.sqlite", timeout=30)) as database, database:
                database.execute("DELETE FROM submission WHERE id = ?", (listed,))
    must(done.code == 7, f"a file that was never logged ended with exit {done.code}", done.said)
    return done


def unenrolled(world: World, wheel: Path) -> Done:
    """A thief has the upload token and a key of his own: the project's files are signed by others."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from countermark.distribution import read_distribution
    from countermark.statement import KeySigner

    attested = read_distribution(wheel)
    attested.attest(world.origin, KeySigner(Ed25519PrivateKey.generate()))
    with unchanged(world):
        done = world.run(
            "twine", "upload", "--non-interactive", "--disable-progress-bar", "--verbose", "--attestations",
            "--repository-url", f"{world.url}/legacy/", "-u", "__token__", "-p", world.token(),
            wheel, attested.attestation_path, home="thief", expect=None,
        )  # fmt: skip
    must(done.code != 0, "a key that is not enrolled signed a release", done.said)
    return done


def stolen_token(world: World) -> tuple[int, str]:
    """The same thief asks for an enrolment of his key, with an envelope that is signed as it must be."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from countermark.statement import KeySigner, Statement, sign

    thief = KeySigner(Ed25519PrivateKey.generate())
    predicate = {
        "key": base64.b64encode(thief.public_key).decode(), "namespace": "", "origin": world.origin,
        "prev": json.loads(world.get(f"/api/v1/projects/{PROJECT}"))["prev"], "project": PROJECT,
        "scope": "project", "threshold": 1, "valid_for": None,
    }  # fmt: skip
    envelope = sign(Statement.about(f"key:{thief.keyid}", "key-enroll", predicate), thief)
    with unchanged(world):
        keys = world.get(f"/api/v1/projects/{PROJECT}")
        status, said = _post(world, "/api/v1/keys", {"envelope": envelope.to_dict()}, world.token())
        must(world.get(f"/api/v1/projects/{PROJECT}") == keys, "the project's keys have changed")
    must(status == 403, f"the door for enrolments answered {status}", said)
    return status, str(json.loads(said)["detail"])


def expired(world: World, wheel: Path) -> Done:
    """Three days later with nothing new: too old to judge, which is neither yes nor no."""
    with unchanged(world):
        done = world.run("countermark", "verify", "--at", str(int(time.time()) + 3 * DAY), wheel, expect=4)
        world.run("countermark", "verify", wheel)
    return done


def lying_publisher(world: World, *, omitted: Path, resurrected: Path, doubled: Path) -> list[dict[str, Any]]:
    """tufrepo lies in three ways with the true keys: the timestamper signs none of it, and clients see nothing.

    `resurrected` was taken down and published so; `omitted` is taken down here; `doubled` stays as it is.
    """
    quiet(world)
    world.pause("tufrepo")
    takedown(world, omitted)
    before = world.get("/tuf/timestamp.json")
    lies = [f"omits={target(omitted)}", f"resurrects={target(resurrected)}", f"two-bins={target(doubled)}"]
    done = world.run(
        sys.executable, "-m", "tests.world.rogue", "--data", world.data, *lies,
        home="operator", PYTHONPATH=str(Path(__file__).resolve().parents[2]), **world.settings,
    )  # fmt: skip
    *said, repaired = [json.loads(line) for line in done.out.splitlines() if line.startswith("{")]
    must([lie["kind"] for lie in said] == ["omits", "resurrects", "two-bins"], "a lie is missing", done.said)
    version = json.loads(before)["signed"]["version"]
    must(repaired == {"timestamp": version + 1}, "the timestamper signed something in between", done.said)
    world.kill("tufrepo")
    world.up()
    world.run("countermark", "verify", doubled)
    for gone in (omitted, resurrected):  # one by one: of several files, an exit status tells only the worst
        world.run("countermark", "verify", gone, expect=6)
    world.run("countermark-server", "fsck", "--data", world.data)
    return said


def takedown(world: World, wheel: Path) -> None:
    """A moderator withdraws a file."""
    project = target(wheel).split("/")[1]
    world.run(
        "countermark-server", "takedown", "--data", world.data, project, wheel.name, "--reason", "malware",
        home="operator",
    )  # fmt: skip


def target(wheel: Path) -> str:
    """A file's path in TUF."""
    return f"files/{wheel.name.split('-', maxsplit=1)[0].replace('_', '-')}/{wheel.name}"


def _list_unlogged(world: World, wheel: Path, project: str) -> int:
    """A row of a listed file under another name, with these bytes; returns its id."""
    from countermark_server.stores.blobs import Blobs

    sha256 = Blobs(world.data / "blobs").put(wheel.read_bytes())
    changes: dict[str, Sequence[object] | object] = {
        "project": project, "filename": wheel.name, "served_name": wheel.name, "display_name": project,
        "sha256": sha256, "length": wheel.stat().st_size, "metadata_sha256": None, "attestations": None,
    }  # fmt: skip
    with closing(sqlite3.connect(world.data / "registry.sqlite", timeout=30)) as database, database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(submission)") if row[1] != "id"]
        chosen = ", ".join("?" if name in changes else name for name in columns)
        row = database.execute(
            f"INSERT INTO submission ({', '.join(columns)}) SELECT {chosen} FROM submission "
            "WHERE project = ? AND state = 'listed' LIMIT 1",
            (*(changes[name] for name in columns if name in changes), PROJECT),
        )
        must(row.rowcount == 1, "the row was not written")
        return int(row.lastrowid or 0)


def _post(world: World, path: str, body: object, token: str) -> tuple[int, str]:
    request = urllib.request.Request(
        world.url + path,
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
