"""Kept: answers that stay true while nobody commits, or while no commit was about them.

    kept = Kept(engine)
    page = kept.get(("demo", JSON_TYPE), make, serial)   # `make` runs only when the page's serial is another

A simple page is a pure function of what is in the database, and installers ask for the same pages again and again;
whether anybody has committed is a question of microseconds (news.py). After a commit the page's serial is asked
for, which is one row (serials.py): every transaction that changes what a page shows gives its project a new one. The
serial is read before the page is made, so a page may be newer than its serial and never older.

Many may ask for a page at the moment it changes. One of them makes it and the others wait, each for its own page:
an index of 5,000 files would else be made by every thread at once, on one interpreter.

A page is made anew after KEPT_SECONDS whatever its serial says: should one of our transactions ever forget to count,
that bounds for how long a withdrawn file is still offered. Without `serial`, any commit of anybody makes it anew.

A database in memory cannot say whether there is news; its pages are then asked about each time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy import Engine

from countermark_server.news import News

KEPT_MAX_BYTES = (
    64 * 1024 * 1024
)  # of one process: the list of 100,000 projects has 6 MB; beyond, all are dropped
KEPT_SECONDS = (
    10.0  # an eighth of what a withdrawal may take to be seen (design: 120 s, a minute of it in caches)
)


@dataclass(frozen=True)
class Page:
    """A body, its entity tag, and the serial it was made at, where it has one."""

    body: bytes
    etag: str
    serial: int = 0


@dataclass
class _Kept:
    page: Page
    serial: int
    made: float
    commits: int  # how often there had been news when it was last known to be true


@dataclass
class _Turn:
    lock: threading.Lock = field(default_factory=threading.Lock)
    waiting: int = 0  # who has it included


class Kept:
    """Pages by name. For any number of threads."""

    def __init__(
        self,
        engine: Engine,
        *,
        most: int = KEPT_MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._news = News(engine)
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._pages: dict[Hashable, _Kept] = {}
        self._turns: dict[Hashable, _Turn] = {}
        self._bytes = 0
        self._commits = 0  # how often there was news

    def get(self, name: Hashable, make: Callable[[], Page], serial: Callable[[], int] | None = None) -> Page:
        """The page of this name as the database has it now; what `make` raises passes, and is not kept."""
        with self._lock:
            self._commits += self._news.any()
            found, commits = self._pages.get(name), self._commits
        if found is not None and found.commits == commits:
            return found.page
        with self._turn(name):
            return self._looked_up(name, commits, make, serial)

    def _looked_up(
        self, name: Hashable, commits: int, make: Callable[[], Page], serial: Callable[[], int] | None
    ) -> Page:
        """The page as it is after that many commits, or later: somebody may have looked while we waited."""
        found = self._pages.get(name)
        if found is not None and found.commits >= commits:
            return found.page
        now, is_at = self._clock(), -1 if serial is None else serial()
        is_same = found is not None and serial is not None and found.serial == is_at
        if found is not None and is_same and now - found.made < KEPT_SECONDS:
            found.commits = commits
            return found.page
        page = make()
        self._keep(name, _Kept(page, is_at, now, commits))
        return page

    @contextmanager
    def _turn(self, name: Hashable) -> Iterator[None]:
        """One at a time for each name. A turn that nobody waits for is forgotten."""
        with self._lock:
            turn = self._turns.setdefault(name, _Turn())
            turn.waiting += 1
        try:
            with turn.lock:
                yield
        finally:
            with self._lock:
                turn.waiting -= 1
                if not turn.waiting:
                    del self._turns[name]

    def _keep(self, name: Hashable, kept: _Kept) -> None:
        """Unless there was news meanwhile: of which the page may know nothing."""
        with self._lock:
            if kept.commits != self._commits and kept.serial < 0:
                return
            before = self._pages.pop(name, None)
            self._bytes += len(kept.page.body) - (len(before.page.body) if before else 0)
            if self._bytes > self._most:
                self._pages, self._bytes = {}, len(kept.page.body)
            self._pages[name] = kept
