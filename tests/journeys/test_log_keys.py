"""A key set of the log follows another over a running registry: both sign, a trust file names one, the old goes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from countermark.fetch import HttpFetcher
from countermark.timestamp import Timestamp as Carried
from countermark.tlog.checkpoint import open_log_checkpoint
from countermark.trust import opened
from countermark_server import adopted, db, logkeys, signing
from countermark_server.settings import load
from countermark_server.stores.public import CHECKPOINT, Public
from tests.journeys.test_next_ceremony import Ceremonies, adopt
from tests.journeys.test_online_rotation import THREE, Looks, again, command
from tests.server.cli.test_up import Up


def signed_by(up: Up, keys: Any) -> bool:
    """Whether the public checkpoint carries all these lines."""
    try:
        open_log_checkpoint((up.data / "public" / CHECKPOINT).read_bytes(), keys)
    except Exception:
        return False
    return True


def until(what: Any, up: Up) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline, up.said()
        time.sleep(0.05)


@pytest.mark.exhaustive
def test_the_logs_keys_follow_others_while_clients_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No look fails; a log that drops the old set too early does not start; then it signs with the new alone."""
    up = Up(tmp_path, "--trial", "--origin", "logkeys.test/registry", "--bit-length", "3")
    up.wait_ready()
    try:
        assert "made key set 2" in command(up, "log-keys", "--new")
        settings = load(up.data, {})
        old, new = ([signer.vkey for signer in signing.key_set(settings, n, {})] for n in (1, 2))
        policy = command(up, "log-keys", "--policy", "2")
        ceremonies = Ceremonies(up.data / "ceremony", tmp_path)
        out = ceremonies.hold(THREE, THREE, policy=policy)
        assert "not signed by the log keys of both" in adopt(up, out, expect=7)

        monkeypatch.setenv("COUNTERMARK_LOG_KEYS", "1 2")
        up = again(up)
        until(lambda: signed_by(up, [*old, *new]), up)
        with Looks(up, tmp_path) as looks:
            until(lambda: looks.done >= 2, up)
            adopt(up, out)
            until(lambda: trusted(looks) == 2, up)
            arrived = looks.done
            until(lambda: looks.done >= arrived + 3, up)
        assert looks.failed == []
        note = Carried.parse(up.get("/tuf/timestamp.json")).checkpoint
        for keys in (old, new):  # whoever goes by either trust file
            open_log_checkpoint(note, keys)

        assert up.stop() == 0
        monkeypatch.setenv("COUNTERMARK_LOG_KEYS", "2")
        argv = [sys.executable, "-m", "countermark_server.cli", "work", "log", "--data", str(up.data)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 2 and "older keys must sign for 16" in done.stderr, done.stderr

        engine = db.open_engine(settings.database_url)
        with db.write(engine) as connection:  # seven days later
            logkeys.follow(connection, old, now=int(time.time()) - 8 * 86_400)
        engine.dispose()
        vkeys = [word for key in new for word in ("--vkey", key.format())]
        argv = [sys.executable, "-m", "countermark", "witness", "add-log", "--dir", str(up.data / "witness")]
        subprocess.run([*argv, *vkeys], check=True, capture_output=True, timeout=60)
        up = again(up)
        until(lambda: signed_by(up, new) and not signed_by(up, old), up)
        assert trusted(looks) == 2
        argv = [sys.executable, "-m", "countermark", "audit", "--allow-trial", up.url]
        env = {**os.environ, "COUNTERMARK_HOME": str(tmp_path / "ours")}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        assert adopted.trust_file(Public(up.data / "public")).version == 2
    finally:
        up.stop()


def trusted(looks: Looks) -> int:
    """Version of the trust file that our client goes by."""
    with opened(looks.ours, HttpFetcher(), now=int(time.time())) as view:
        return view.trust_file.version
