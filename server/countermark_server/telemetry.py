"""Telemetry: what a process says about itself. Lines on stderr for people and collectors, metrics over HTTP.

    {"event": "published", "process": "log", "size": 12, "milliseconds": 7.4, "level": "info", ...}
    countermark_log_size{stage="published"} 12

Every process exports Prometheus metrics on its own loopback address; the web process, which has several
workers, gathers theirs through PROMETHEUS_MULTIPROC_DIR and answers at /metrics. The first dashboard is one
chain, and each gap in it is an alarm:

    next index >= integrated >= signed >= witnessed >= published >= applied

Never in a line or a label: tokens, passphrases, private keys, signatures that are not public yet, e-mail
addresses. The metrics are trusted by nobody but the operator.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIServer

import structlog
from prometheus_client import Counter, Gauge, Histogram, start_http_server

from countermark.errors import UsageError
from countermark_server.settings import SettingsError, Telemetry

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

# --- the log -----------------------------------------------------------------------------------------------
LOG_SIZE = Gauge(
    "countermark_log_size",
    "tree size by stage: next, integrated, signed, witnessed, published",
    ["stage"],
    multiprocess_mode="max",
)
LOG_ROUND = Histogram("countermark_log_round_seconds", "one sequencing round", buckets=SECONDS)
LOG_ROUND_ENTRIES = Counter("countermark_log_entries_total", "entries by outcome", ["outcome"])
LOG_RELOADS = Counter("countermark_log_reloads_total", "reloads from storage after a failed round")
LOG_PUBLICATION = Histogram(
    "countermark_log_publication_seconds", "from signed to published, cosignatures included", buckets=SECONDS
)
LOG_CLEANUP_FAILURES = Counter(
    "countermark_log_cleanup_failures_total",
    "staging bundles or partial tiles not removed",
)
WITNESS_REQUESTS = Counter(
    "countermark_witness_requests_total", "add-checkpoint requests by outcome", ["witness", "outcome"]
)
QUORUM_SINCE = Gauge(
    "countermark_quorum_time_seconds", "quorum time of the published checkpoint", multiprocess_mode="max"
)
QUORUM_MISSING = Gauge(
    "countermark_quorum_missing_seconds",
    "how long publications have failed for want of a quorum; 0 while there is one",
    multiprocess_mode="max",
)
CLOCK_LEAPT = Gauge(
    "countermark_clock_leapt_seconds",
    "how long the log's clock has been ahead of what a quorum vouched for; 0 while it is not",
    multiprocess_mode="max",
)


def configure(settings: Telemetry, process: str) -> None:
    """Set up structlog for this process. SettingsError: an unknown level or format."""
    if settings.level not in LEVELS:
        raise SettingsError(f"telemetry.level is {settings.level!r}, must be one of {', '.join(LEVELS)}")
    if settings.format not in ("json", "text"):
        raise SettingsError(f"telemetry.format is {settings.format!r}, must be json or text")
    renderer: Any = (
        structlog.processors.JSONRenderer(sort_keys=True)
        if settings.format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            _named(process),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[settings.level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def logger() -> Any:
    """Where this process says what it does."""
    return structlog.get_logger()


def serve_metrics(listen: str, run: Path, process: str) -> WSGIServer:
    """Answer `/metrics` on HOST:PORT (port 0: any free one) and record the address in run/<process>.json."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"{process}.metrics is {listen!r}, must be HOST:PORT")
    server, _thread = start_http_server(int(port), addr=host.strip("[]"))
    record(run, process, {"metrics": f"http://{host}:{server.server_port}/metrics"})
    return server


def record(run: Path, process: str, facts: dict[str, Any]) -> None:
    """Leave what others on this machine look for (pid, addresses) in run/<process>.json, as a whole."""
    run.mkdir(parents=True, exist_ok=True)
    temporary = run / f".{process}.{os.getpid()}"
    temporary.write_text(json.dumps({"pid": os.getpid(), **facts}, sort_keys=True), encoding="utf-8")
    temporary.replace(run / f"{process}.json")


def ready(run: Path, process: str, **facts: Any) -> None:
    """Say that this process does its work now, in run/<process>.ready.json: `up` waits for it."""
    record(run, f"{process}.ready", facts)


def _named(process: str) -> Any:
    def name(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
        event.setdefault("process", process)
        return event

    return name
