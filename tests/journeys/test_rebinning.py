"""More bins reach a running registry: clients look all the while, the audit is green, and a rebuild knows of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from countermark.bins import role_name
from tests.journeys.test_next_ceremony import Ceremonies, adopt
from tests.journeys.test_online_rotation import THREE, Looks, again, command
from tests.server.cli.test_up import Up


def timestamp(up: Up) -> Any:
    signed: Any = json.loads(up.get("/tuf/timestamp.json"))["signed"]
    return signed


def audit(up: Up, home: Path) -> None:
    argv = [sys.executable, "-m", "countermark", "audit", "--allow-trial", up.url]
    env = {**os.environ, "COUNTERMARK_HOME": str(home)}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.exhaustive  # tests/server/tuf/test_rebinning.py has the same, step by step, in one process
def test_a_running_registry_gets_more_bins(tmp_path: Path) -> None:
    """From 2^3 to 2^6: no look fails, an auditor of before goes on, and what is rebuilt from public files starts."""
    up = Up(tmp_path, "--trial", "--origin", "bins.test/registry", "--bit-length", "3")
    up.wait_ready()
    try:
        out = Ceremonies(up.data / "ceremony", tmp_path).hold(THREE, THREE, {"bit_length": 6})
        with Looks(up, tmp_path) as looks:
            while looks.done < 2:
                time.sleep(0.05)
            audit(up, tmp_path / "ours")
            adopt(up, out)
            deadline = time.monotonic() + 60
            while timestamp(up)["x-countermark-bins"]["bit_length"] != 6:
                assert time.monotonic() < deadline, up.said()
                time.sleep(0.05)
            arrived = looks.done
            while looks.done < arrived + 3:
                time.sleep(0.05)
        assert looks.failed == []
        version = timestamp(up)["meta"]["snapshot.json"]["version"]
        meta = json.loads(up.get(f"/tuf/{version}.snapshot.json"))["signed"]["meta"]
        assert meta.keys() >= {f"{role_name(n, bits)}.json" for bits in (3, 6) for n in range(1 << bits)}
        audit(up, tmp_path / "ours")

        assert up.stop() == 0
        for path in up.data.glob("registry.sqlite*"):
            path.unlink()
        assert "5 entries and 0 submissions were missing" in command(up, "rebuild")
        up = again(up)
        audit(up, tmp_path / "ours")
    finally:
        up.stop()
