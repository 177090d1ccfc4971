"""The steps of docs/operations/online-keys.md over a running registry: a key follows another, without a gap."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tuf.ngclient import Updater

from tests.journeys.test_next_ceremony import Ceremonies, adopt, client, versions
from tests.journeys.test_online_keys import make
from tests.server.cli.test_up import Up
from tests.softhsm import PIN, SoftHsm

THREE = ("ada", "ben", "cleo")
TOKEN = "hsm:1?label=clock"


class Looks:
    """Our client and stock ngclient, who look as fast as they can, from a cache and from nothing."""

    def __init__(self, up: Up, folder: Path) -> None:
        self.up, self.folder = up, folder
        self.ours, self.root = client(up, folder / "ours", 1), up.get("/tuf/1.root.json")
        self.done, self.failed = 0, list[str]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Looks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                versions(self.ours)
                for cache in ("stock", f"stock-{self.done}"):
                    (self.folder / cache).mkdir(exist_ok=True)
                    updater = Updater(str(self.folder / cache), f"{self.up.url}/tuf/", bootstrap=self.root)
                    updater.refresh()
                    assert updater.get_targetinfo("files/acme/acme-1.0.tar.gz") is None
            except Exception as error:
                self.failed.append(repr(error))
            self.done += 1


def command(up: Up, *arguments: str) -> str:
    argv = [
        sys.executable,
        "-m",
        "countermark_server.cli",
        arguments[0],
        "--data",
        str(up.data),
        *arguments[1:],
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def keys(up: Up) -> dict[str, dict[str, str]]:
    """By URI: what `online-keys` says."""
    return {row["uri"]: row for row in json.loads(command(up, "online-keys", "--json"))}


@pytest.fixture
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patched:
        yield patched


@pytest.mark.exhaustive  # tests/server/tuf/test_online_rotation.py has the same, step by step, in one process
def test_online_keys_follow_others_while_clients_look(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    """New keys in files and on a token, both named, a ceremony, adopted: no look fails, and then the old ones go."""
    up = Up(tmp_path, "--trial", "--origin", "rotate.test/registry", "--bit-length", "3")
    up.wait_ready()
    try:
        hsm = SoftHsm(tmp_path / "hsm")
        hsm.token("clock")
        make(hsm, TOKEN)
        for name in ("SOFTHSM2_CONF", "PYKCS11LIB"):
            patch.setenv(name, hsm.environment[name])
        (up.data / "timestamper/pin").write_text(f"{PIN}\n")
        assert "made keyfile:keys/bins-2.json" in command(up, "online-keys", "--new", "bins")
        assert "made keyfile:keys/snapshot-2.json" in command(up, "online-keys", "--new", "snapshot")
        new = {
            "bins": "keyfile:keys/bins-2.json",
            "snapshot": "keyfile:keys/snapshot-2.json",
            "timestamp": TOKEN,
        }
        variables = {"bins": "TUF_BINS_KEY", "snapshot": "TUF_SNAPSHOT_KEY", "timestamp": "TIMESTAMPER_KEY"}
        for role, variable in variables.items():
            old = "timestamper" if role == "timestamp" else "keys"
            patch.setenv(f"COUNTERMARK_{variable}", f"keyfile:{old}/{role}.json {new[role]}")
        up = again(up)
        assert {keys(up)[uri]["standing"] for uri in new.values()} == {"waits"}

        public = {role: keys(up)[uri]["public_key"] for role, uri in new.items()}
        out = Ceremonies(up.data / "ceremony", tmp_path).hold(THREE, THREE, public)
        with Looks(up, tmp_path) as looks:
            while looks.done < 2:
                time.sleep(0.05)
            adopt(up, out)
            deadline = time.monotonic() + 60
            while keys(up)[new["timestamp"]]["standing"] != "in force":
                assert time.monotonic() < deadline, up.said()
            arrived = looks.done
            while looks.done < arrived + 3:
                time.sleep(0.05)
        assert looks.failed == [] and versions(looks.ours)["root"] == 2

        for role, variable in variables.items():
            patch.setenv(f"COUNTERMARK_{variable}", new[role])
        up = again(up)
        assert {row["standing"] for row in keys(up).values()} == {"in force"} and set(keys(up)) == set(
            new.values()
        )
        up.wait_ready()
        argv = [sys.executable, "-m", "countermark", "audit", "--allow-trial", up.url]
        env = {**os.environ, "COUNTERMARK_HOME": str(tmp_path / "ours")}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        up.stop()


def again(up: Up) -> Up:
    """Every process stopped and started, with what the settings say now, at the same address."""
    assert up.stop() == 0
    running = Up(up.data.parent, url=up.url)
    running.wait_ready()
    return running
