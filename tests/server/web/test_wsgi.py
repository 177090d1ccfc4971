"""The web process starts from COUNTERMARK_DATA, or says in one line why not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("given", [None, "empty", "broken"])
def test_without_a_usable_data_directory_it_says_why(tmp_path: Path, given: str | None) -> None:
    """Exit code 2 and one line on stderr, no traceback."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("COUNTERMARK_")}
    if given:
        environ["COUNTERMARK_DATA"] = str(tmp_path)
    if given == "broken":
        (tmp_path / "settings.toml").write_text("[upload]\nmax_bytes = 'many'\n")
    done = subprocess.run(
        [sys.executable, "-c", "import countermark_server.wsgi"],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("countermark-server: error: ") and "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
