"""The bar before doors that write: who comes while it asks the database waits for that answer."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask

from countermark_server import closing
from countermark_server.upload import closed


def test_one_question_for_all_who_come_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen requests at once are one connection, not sixteen."""
    asked: list[int] = []

    @contextlib.contextmanager
    def read(engine: Any) -> Iterator[None]:
        asked.append(threading.get_ident())
        time.sleep(0.05)
        yield

    monkeypatch.setattr(closed.db, "read", read)
    monkeypatch.setattr(closing, "find", lambda connection, origin: None)
    monkeypatch.setattr(closing, "frozen", lambda connection: None)
    app, now = Flask(__name__), [100.0]
    app.register_blueprint(closed.blueprint(None, origin="log.example.com/registry", clock=lambda: now[0]))
    app.add_url_rule("/door", view_func=lambda: "in", methods=["POST"])
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: app.test_client().post("/door").status_code, range(16)))
    assert answers == [200] * 16
    assert len(asked) == 1
    now[0] += closed.LOOK_SECONDS
    assert app.test_client().post("/door").status_code == 200
    assert len(asked) == 2
