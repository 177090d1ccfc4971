"""The soak's short form: a registry under load, its processes killed and stopped, keeps every promise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("arguments", "acknowledged"),
    [
        (("--seconds", "25"), {"uploads 200", "statements 200", "batches 200"}),
        pytest.param(
            ("--seconds", "12", "--raw", "--backend", "postgresql s3"),
            {"bodies 200"},
            marks=pytest.mark.exhaustive,
        ),
    ],
    ids=["registry", "raw log"],
)
def test_a_short_soak(arguments: tuple[str, ...], acknowledged: set[str]) -> None:
    """A short `make soak`: something was hit, something of each kind acknowledged, and everything is there."""
    command = [sys.executable, "bench/soak.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert acknowledged <= set(said["answers"]) and said["misfortunes"], said
