"""`gunicorn countermark_server.wsgi:app`: the web process of the registry in COUNTERMARK_DATA."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

from flask import Flask

from countermark import replay
from countermark.errors import UsageError
from countermark_server import telemetry
from countermark_server.app import create_app
from countermark_server.settings import load


def _from_environment() -> Flask:
    data = os.environ.get("COUNTERMARK_DATA")
    if not data:
        raise UsageError("COUNTERMARK_DATA names no data directory")
    settings = load(Path(data))
    telemetry.configure(settings.telemetry, "web")
    app = create_app(settings)
    # What is here now stays: no search for garbage need look at it, nor as often as after every 700 objects. (A batch
    # makes a hundred thousand, and such searches took a tenth of its time.)
    gc.freeze()
    replay.quicken()
    return app


try:
    app = _from_environment()
except UsageError as error:
    print(f"countermark-server: error: {error}", file=sys.stderr)
    raise SystemExit(error.exit_code) from None
