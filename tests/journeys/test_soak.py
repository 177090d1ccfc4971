"""The soak's short form: a registry under load, its processes killed and stopped, keeps every promise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_short_soak() -> None:
    """Half a minute of `make soak`: something was hit, something was acknowledged, everything is there."""
    command = [sys.executable, "bench/soak.py", "--seconds", "25"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert said["acknowledged and proved"] > 0 and said["misfortunes"], said
