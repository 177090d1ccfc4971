"""The servers of tests leave nothing behind, in memory or on the disk, however a run ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from tests import postgres, scratch

OWNER = """
import sys
from pathlib import Path
from tests import scratch
scratch.MEMORY = Path(sys.argv[1])
made = scratch.folder("owner")
(made / "file").write_bytes(b"x")
print(made, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In the place of the memory and of the folder for temporary files."""
    monkeypatch.setattr(scratch, "MEMORY", tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_goes_when_it_is_removed(here: Path) -> None:
    made = scratch.folder("mine")
    (made / "file").write_bytes(b"x")
    scratch.remove(made)
    assert list(here.iterdir()) == []


def test_what_a_killed_run_left_is_removed_by_the_next(here: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(here)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(here), "PYTHONPATH": str(Path.cwd())},
    )
    with owner:
        assert owner.stdout
        made = Path(owner.stdout.readline().strip())
        assert scratch.sweep(here) == [] and (made / "file").exists(), "its owner lives"
        owner.send_signal(signal.SIGKILL)
    mine = scratch.folder("mine")
    assert sorted(here.iterdir()) == [mine, Path(f"{mine}.lock")]
    scratch.remove(mine)


def test_no_memory_is_taken_from_a_machine_that_has_little(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "memory").mkdir()
    monkeypatch.setattr(scratch, "MEMORY", here / "memory")
    for room, place in ((scratch.ROOM, here / "memory"), (scratch.ROOM - 1, here)):
        monkeypatch.setattr(scratch, "_room", lambda room=room: room)
        made = scratch.folder("mine")
        assert made.parent == place
        scratch.remove(made)


def test_databases_are_dropped_though_somebody_still_holds_a_connection() -> None:
    server = postgres.Server()
    try:
        url = server.database()
        with psycopg.connect(f"host={server.folder} user={postgres.USER} dbname={make_url(url).database}"):
            server.forget()
        with psycopg.connect(f"host={server.folder} user={postgres.USER} dbname=postgres") as connection:
            names = connection.execute("SELECT datname FROM pg_database WHERE NOT datistemplate").fetchall()
        assert names == [("postgres",)]
    finally:
        server.close()
