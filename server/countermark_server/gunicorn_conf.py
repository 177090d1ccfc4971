"""gunicorn's configuration for the web process, from the data directory's settings.

    COUNTERMARK_DATA=DIR gunicorn --config python:countermark_server.gunicorn_conf countermark_server.wsgi:app

Threads, not events: an upload that waits for its proof holds one (`web.threads`), and everything else is short.
A thread keeps a connection on which one request follows the other (gunicorn_worker.py).
Metrics of all workers are gathered in PROMETHEUS_MULTIPROC_DIR.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from countermark_server.settings import load

_settings = load(Path(os.environ["COUNTERMARK_DATA"]))

bind = [_settings.web.listen]
worker_class = "countermark_server.gunicorn_worker.LingeringWorker"
workers = _settings.web.workers
threads = _settings.web.threads
timeout = 120  # seconds without a sign of life from a worker: longer than any upload may wait
graceful_timeout = 5  # seconds for requests in hand at a stop
keepalive = 15
limit_request_line = 4094
limit_request_fields = 64
limit_request_field_size = 8190
accesslog = None  # metrics count requests; a line for each would name who asked for what
errorlog = "-"
loglevel = "warning"
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  (heartbeats, no data)
control_socket_disable = True


def post_fork(_server: Any, _worker: Any) -> None:
    """Let a thread that is back from the disk go on within half a millisecond, not Python's five."""
    sys.setswitchinterval(0.0005)


def child_exit(_server: Any, worker: Any) -> None:
    """A worker that ended leaves its counters, not its gauges."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        from prometheus_client import multiprocess  # noqa: PLC0415  (reads the variable when imported)

        multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
