"""Programs of others, where scripts/components.sh puts them."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


@cache
def program(name: str) -> Path:
    """The program of this name; put there first when it is missing, and a failure when that cannot be."""
    found = ROOT / ".work" / "components" / "bin" / name
    if not found.exists():
        done = subprocess.run(
            [ROOT / "scripts" / "components.sh", name],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    return found
