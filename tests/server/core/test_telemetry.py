"""Telemetry: lines name their process, metrics are where run/ says they are."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from countermark.errors import UsageError
from countermark_server import telemetry
from countermark_server.settings import SettingsError, Telemetry


@pytest.fixture(autouse=True)
def _unconfigured() -> Iterator[None]:
    """Whoever comes next must not write to this test's captured stderr."""
    yield
    structlog.reset_defaults()


def test_every_line_names_its_process_also_from_a_thread(capfd) -> None:
    """Lines are JSON on stderr; stdout stays free for data."""
    telemetry.configure(Telemetry(), "log")
    worker = threading.Thread(target=lambda: telemetry.logger().info("hello", size=3))
    worker.start()
    worker.join()
    out, err = capfd.readouterr()
    line = json.loads(err)
    assert (line["event"], line["process"], line["size"], line["level"]) == ("hello", "log", 3, "info")
    assert out == ""


@pytest.mark.parametrize("bad", [Telemetry(level="loud"), Telemetry(format="xml")])
def test_unknown_level_or_format_is_refused(bad: Telemetry) -> None:
    """The message names the setting."""
    with pytest.raises(SettingsError, match="telemetry"):
        telemetry.configure(bad, "log")


def test_metrics_are_served_where_run_says(tmp_path: Path) -> None:
    """Port 0 picks a free port and records it."""
    server = telemetry.serve_metrics("127.0.0.1:0", tmp_path, "log")
    try:
        telemetry.LOG_SIZE.labels("signed").set(12)
        url = json.loads((tmp_path / "log.json").read_text())["metrics"]
        with urllib.request.urlopen(url) as answer:
            assert b'countermark_log_size{stage="signed"} 12.0' in answer.read()
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("listen", ["9090", "127.0.0.1:x", ":1"])
def test_a_bad_metrics_address_is_refused(tmp_path: Path, listen: str) -> None:
    """Nothing is recorded for an address nobody can be at."""
    with pytest.raises(UsageError):
        telemetry.serve_metrics(listen, tmp_path, "log")
    assert list(tmp_path.iterdir()) == []
