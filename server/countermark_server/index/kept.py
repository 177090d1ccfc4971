"""Kept: answers that stay true while nobody commits.

    kept = Kept(engine)
    page = kept.get(("demo", JSON_TYPE), make)       # `make` runs only when something was committed since

A simple page is a pure function of what is in the database, and installers ask for the same pages again and again;
whether anybody has committed is a question of microseconds (`db.News`). What is kept was read after the newest
commit that was known then, so as long as there is no newer one it is what would be read now. The first commit of
anybody, about whatever, drops everything: nothing here can outlive the decision that withdraws a file.

A database in memory cannot say whether there is news, and nothing is kept.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from sqlalchemy import Engine

from countermark_server import db

KEPT_MAX_BYTES = 32 * 1024 * 1024  # of one process: some thousand pages; beyond, all are dropped


@dataclass(frozen=True)
class Page:
    """A body and its entity tag."""

    body: bytes
    etag: str


class Kept:
    """Pages by name. For any number of threads."""

    def __init__(self, engine: Engine, *, most: int = KEPT_MAX_BYTES) -> None:
        self._news = db.News(engine)
        self._most = most
        self._lock = threading.Lock()
        self._pages: dict[Hashable, Page] = {}
        self._bytes = 0
        self._commits = 0  # how often there was news

    def get(self, name: Hashable, make: Callable[[], Page]) -> Page:
        """The page of this name as the database has it now; what `make` raises passes, and is not kept."""
        with self._lock:
            if self._news.any():
                self._drop()
                self._commits += 1
            found, commits = self._pages.get(name), self._commits
        if found is not None:
            return found
        page = make()
        with self._lock:
            # Made of what was committed after `commits`: it may be newer, in which case the next look says news.
            if commits == self._commits and name not in self._pages:
                if self._bytes + len(page.body) > self._most:
                    self._drop()
                self._pages[name] = page
                self._bytes += len(page.body)
        return page

    def _drop(self) -> None:
        self._pages, self._bytes = {}, 0
