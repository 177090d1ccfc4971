"""gunicorn for units and containers: the package's own configuration, and what several workers need beside it.

    COUNTERMARK_DATA=/var/lib/countermark/registry PROMETHEUS_MULTIPROC_DIR=/run/countermark-web \\
        gunicorn --config deploy/gunicorn.conf.py countermark_server.wsgi:app

Every value comes from countermark_server.gunicorn_conf, that is from settings.toml and COUNTERMARK_WEB_*. Here is
what `countermark-server up` does itself: the folder in which workers count together is there, and empty at the
start. Without it each worker would answer /metrics for itself, and counters would jump back and forth.
"""

import os
from pathlib import Path

from countermark_server.gunicorn_conf import *  # noqa: F403  (gunicorn takes names it knows, and skips the rest)
from countermark_server.gunicorn_conf import workers

counted = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
if counted is None and workers > 1:
    raise SystemExit(
        f"web.workers is {workers} and PROMETHEUS_MULTIPROC_DIR names no folder: metrics would be one worker's"
    )
if counted is not None:
    Path(counted).mkdir(mode=0o700, parents=True, exist_ok=True)


def on_starting(_server: object) -> None:
    """Forget what the workers of an earlier start counted: their process ids may come again."""
    if counted is not None:
        for file in Path(counted).glob("*.db"):
            file.unlink()
