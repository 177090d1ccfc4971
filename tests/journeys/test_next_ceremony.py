"""A later ceremony reaches a running registry: clients, auditor and timestamper go on without a gap."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from countermark import keyfile
from countermark.errors import EvidenceError, UsageError
from countermark.fetch import HttpFetcher
from countermark.pins import Home, Registry
from countermark.trust import opened
from countermark_ceremony import history
from countermark_ceremony.files import read_folder, write_folder
from countermark_ceremony.previous import Previous
from countermark_server import db
from countermark_server.operate import renewal
from countermark_server.settings import load
from countermark_server.tufrepo import store
from tests import ceremony_world as world
from tests.server.cli.test_up import Up

SWAP = ("ada", "ben", "eve")


def holders_of(ceremony: Path) -> world.Holders:
    """The trial's key files, opened."""
    passphrase = (ceremony / "trial/keys/passphrase").read_bytes().rstrip()
    holders = world.Holders()
    holders.keys = {
        path.name.removesuffix(".key.json"): keyfile.decrypt(path.read_bytes(), passphrase)
        for path in (ceremony / "trial/keys").glob("*.key.json")
    }
    return holders


class Ceremonies:
    """One ceremony after another, each from the folder before."""

    def __init__(self, first: Path, folder: Path) -> None:
        self.folder, self.holders = folder, holders_of(first)
        world.newcomer(self.holders, "eve")
        self.files = read_folder(first)

    @property
    def base(self) -> Previous:
        return history.verify(self.files)[-1]

    def hold(
        self,
        names: tuple[str, ...],
        old: tuple[str, ...],
        online: Mapping[str, object] | None = None,
        *,
        policy: str = "",
    ) -> Path:
        """A ceremony after which these names hold the keys, and this is so of online roles, witnesses and the log."""
        now = datetime.now(UTC).replace(microsecond=0)
        document = world.next_document(self.base, self.holders, names, date=now)
        document["changes"] = [] if names == old else ["holders"]
        if online:
            document["online"] = dict(online)
            document["changes"] += ["bins"] if "bit_length" in online else []
            document["changes"] += ["online-keys"] if set(online) - {"bit_length"} else []
        if policy:
            document["trust_file"] = {"witness_policy": policy, "withdraw": False}
            document["changes"] += ["trust-file", "log-keys"]
        wanted = {f"{name}-root" for name in old} | {k for r in document["roles"].values() for k in r["keys"]}
        document["keys"] = {
            key: {"holder": key.partition("-")[0], "public_key": self.holders.public(key)} for key in wanted
        }
        prepared = world.next_prepared(self.base, document, now=now)
        self.files = world.next_finished(self.files, prepared, self.holders, now=now)
        out = self.folder / f"root-{self.base.root.version}"
        write_folder(out, self.files)
        return out


def adopt(up: Up, out: Path, expect: int = 0) -> str:
    argv = [sys.executable, "-m", "countermark_server.cli", "adopt", "--data", str(up.data), str(out)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == expect, done.stderr
    return done.stderr


def client(up: Up, folder: Path, version: int) -> Registry:
    """Somebody who pinned this root."""
    root = HttpFetcher().get(f"{up.url}/tuf/{version}.root.json", max_bytes=100_000)
    assert root is not None
    return Home(folder).add(up.url, root)


def versions(registry: Registry) -> dict[str, int]:
    """What a client believes now, by its own whole verification."""
    with opened(registry, HttpFetcher(), now=int(time.time())) as view:
        assert view.target("files/acme/acme-1.0.tar.gz") is None  # the walk through index to an (empty) bin
        names = ("root", "targets", "trust", "index")
        return {
            name: json.loads((view.cache / f"{name}.json").read_bytes())["signed"]["version"]
            for name in names
        }


def walk(up: Up, clients: list[Registry], wanted: int) -> int:
    """Every client looks again and again until all have arrived; each look must succeed. How many looks."""
    looks, deadline = 0, time.monotonic() + 60
    while time.monotonic() < deadline:
        found = [versions(registry) for registry in clients]
        looks += len(found)
        if all(set(each.values()) == {wanted} for each in found):
            return looks
    raise AssertionError(f"not all of version {wanted}: {found}\n{up.said()}")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("next")
    running = Up(folder, "--trial", "--origin", "next.test/registry", "--bit-length", "3")
    running.wait_ready()
    yield running
    running.stop()


def test_two_later_ceremonies_reach_clients_of_every_age(up: Up, tmp_path: Path) -> None:
    """A re-sign, then another holder: no look fails, the log holds every root, and the audit is clean."""
    ceremonies = Ceremonies(up.data / "ceremony", tmp_path)
    old = client(up, tmp_path / "old", 1)
    assert set(versions(old).values()) == {1}

    second = ceremonies.hold(("ada", "ben", "cleo"), ("ada", "ben", "cleo"))
    adopt(up, second)
    assert walk(up, [old], 2)
    assert "in force already" in adopt(up, second, expect=2)

    third = ceremonies.hold(SWAP, ("ada", "ben", "cleo"))
    adopt(up, third)
    newer = client(up, tmp_path / "newer", 2)
    assert walk(up, [old, newer, client(up, tmp_path / "late", 1)], 3)
    assert set(versions(client(up, tmp_path / "newest", 3)).values()) == {3}
    kept = up.data / "public/tuf/ceremony/3/transcript.jsonl"
    assert kept.read_bytes() == (third / "transcript.jsonl").read_bytes()

    argv = [sys.executable, "-m", "countermark", "audit", "--allow-trial", up.url]
    env = {**os.environ, "COUNTERMARK_HOME": str(tmp_path / "old")}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_ceremony_that_does_not_follow_ours_is_refused_and_nothing_is_written(
    up: Up, tmp_path: Path
) -> None:
    """Skipped, forged, of another registry, torn: the refusal names it, public tree and row stay."""
    settings = load(up.data, {})
    ceremonies = Ceremonies(up.data / "ceremony", tmp_path)
    in_force = max(int(path.name.split(".")[0]) for path in (up.data / "public/tuf").glob("*.root.json"))
    while (
        ceremonies.base.root.version <= in_force
    ):  # other ceremonies than those adopted, from the same first
        out = ceremonies.hold(("ada", "ben", "cleo"), ("ada", "ben", "cleo"))
    before = {path: path.stat().st_mtime_ns for path in (up.data / "public/tuf").glob("*.json")}

    def refused(folder: Path) -> str:
        with pytest.raises((EvidenceError, UsageError)) as caught:
            renewal.renew(settings, folder, now=int(time.time()))
        engine = db.open_engine(settings.database_url)
        with db.read(engine) as connection:
            assert store.renewal(connection) is None
        engine.dispose()
        after = (up.data / "public/tuf").glob("*.root.json")
        assert {path for path in before if path.name.endswith(".root.json")} == set(after)
        return str(caught.value)

    if in_force > 1:  # signed by enough holders of our root, who also signed what we never adopted
        assert "the ceremony follows a root with SHA-256" in refused(out)
    skipped = ceremonies.hold(("ada", "ben", "cleo"), ("ada", "ben", "cleo"))
    assert f"from version {in_force} to {in_force + 2}" in refused(skipped)
    torn = tmp_path / "torn"
    shutil.copytree(out, torn)
    next(torn.glob("*.index.json")).unlink()
    assert "0 files of the role index" in refused(torn)
