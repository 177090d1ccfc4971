"""Workers: `countermark-server work <station>` runs one station until it is told to stop.

    countermark-server work log        sequences, integrates, publishes        (exactly one)
    countermark-server work scan       examines artifacts                      (any number)
    countermark-server work tufrepo    TUF roles bins and snapshot             (exactly one)

A station is a function `run(settings, stop)`: it works, and returns soon after `stop` is set. SIGTERM and
SIGINT set it, so a stop waits for the round in hand and never cuts a write in two; a kill is survived too,
but then the next start has something to recover. When `run` is ready to work it leaves run/<station>.json,
which is what `up` waits for. A room that has too little to do for a process of its own works in a thread beside
a station (`BESIDE`): rows of decided files follow the log beside the scan.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from countermark.errors import UsageError
from countermark_server import telemetry
from countermark_server.settings import Settings
from countermark_server.stopping import stop_on_signals

Run = Callable[..., None]  # run(settings, stop, **options)
STATIONS = ("log", "scan", "tufrepo")
BESIDE = {"scan": "moderation"}


def station(name: str) -> Run:
    """The `run` of a station. UsageError: there is no such station."""
    if name not in STATIONS:
        raise UsageError(f"no station {name!r}; there are {', '.join(STATIONS)}")
    run: Run = import_module(f"countermark_server.{name}.station").run
    return run


def work(name: str, settings: Settings, **options: Any) -> None:
    """Run one station in this process until SIGTERM or SIGINT."""
    run = station(name)
    telemetry.configure(settings.telemetry, name)
    stop = stop_on_signals()
    run_folder = settings.data / "run"
    forget(run_folder, name)  # what a killed process left behind says nothing about this one
    metrics = telemetry.serve_metrics(getattr(settings, _section(name)).metrics, run_folder, name)
    telemetry.logger().info("started", pid=os.getpid(), port=metrics.server_port)
    beside = _start_beside(name, settings, stop)
    try:
        run(settings, stop, **options)
    finally:
        stop.set()
        for thread in beside:
            thread.join()
        metrics.shutdown()
        forget(run_folder, name)
    telemetry.logger().info("stopped")


def _start_beside(name: str, settings: Settings, stop: threading.Event) -> list[threading.Thread]:
    room = BESIDE.get(name)
    if room is None:
        return []
    run = import_module(f"countermark_server.{room}.station").run
    thread = threading.Thread(target=run, args=(settings, stop), name=room)
    thread.start()
    return [thread]


def forget(run_folder: Path, name: str) -> None:
    """Remove what a process said about itself."""
    for file in (f"{name}.json", f"{name}.ready.json"):
        (run_folder / file).unlink(missing_ok=True)


def _section(name: str) -> str:
    return {"tufrepo": "tuf"}.get(name, name)
