"""What a first start refuses, in words and before anything is made."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from countermark.errors import UsageError
from countermark_server.operate import up
from countermark_server.operate.initialise import initialise


def test_a_taken_port_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    """No trial ceremony for a registry that could not listen."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        request = up.Request(tmp_path / "data", listen, trial=True)
        with pytest.raises(UsageError, match=f"cannot listen on {listen}: Address already in use"):
            up.run(request, threading.Event(), print)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("listen", ["8080", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:http"])
def test_what_is_no_address_is_refused_before_anything_is_made(tmp_path: Path, listen: str) -> None:
    """A port is a number from 1 to 65535."""
    with pytest.raises(UsageError, match="must be HOST:PORT"):
        up.run(up.Request(tmp_path / "data", listen, trial=True), threading.Event(), print)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_usage_error(tmp_path: Path) -> None:
    """A file where a folder should be is the caller's mistake, not a bug of ours."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="Not a directory"):
        initialise(tmp_path / "file" / "data", "cli.test/registry")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
