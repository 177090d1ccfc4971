"""Prefetch: ask side by side for what is about to be asked for one after the other.

    fetcher = Prefetcher(fetcher)
    fetcher.bring([Wanted(url, max_bytes), ...])    # at most PREFETCH_THREADS at a time, into memory
    fetcher.get(url, max_bytes=max_bytes)           # from there, once; everything else from the network

Verification is a sequence, and where a registry is 30 ms away a lock of 200 packages waited for hundreds of answers.
What was brought ahead is handed to whoever asks for it, and verified there like any answer: here nothing is looked
at. What did not come is asked for again in its turn, and the error is told there.

Threads are started only where the first answer took some milliseconds: on the same machine they cost more than they
save. The answers held are bounded (PREFETCH_MAX_BYTES), and who is away ends it for all that were still to be asked.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from countermark.fetch import Answer, Fetcher, StatusError
from countermark.limits import (
    FETCH_MAX_BYTES,
    PREFETCH_LOOK,
    PREFETCH_MAX_BYTES,
    PREFETCH_THREADS,
    PREFETCH_WORTH,
)
from countermark.values import dataclass, field

Tick = Callable[[str, int, int], None]  # of "answers" or "files": so many of so many


def quiet(_what: str, _done: int, _of: int) -> None:
    """Tells nobody how far it is."""


@dataclass(frozen=True)
class Wanted:
    """One question that will be asked; `headers` are part of it."""

    url: str
    max_bytes: int
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        return self.url, tuple(sorted(self.headers.items()))


class Prefetcher:
    """A Fetcher that may be told what it will be asked. For one verification; not shared between threads."""

    def __init__(self, fetcher: Fetcher, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetcher, self._clock = fetcher, clock
        self._held: dict[Any, bytes] = {}

    def get(
        self,
        url: str,
        *,
        max_bytes: int = FETCH_MAX_BYTES,
        missing_ok: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> bytes | None:
        held = self._held.pop(Wanted(url, 0, headers or {}).key, None)
        if held is not None and len(held) <= max_bytes:
            return held
        return self._fetcher.get(url, max_bytes=max_bytes, missing_ok=missing_ok, headers=headers)

    def post(self, url: str, body: bytes, **options: Any) -> Answer:
        return self._fetcher.post(url, body, **options)

    def bring(self, wanted: Iterable[Wanted], tick: Tick = quiet) -> None:
        """Fetch these now, side by side where that is worth it; whatever fails is left to who asks for it."""
        asked = deque({each.key: each for each in wanted if each.key not in self._held}.values())
        if len(asked) < 2:
            return
        count, began, work = len(asked), self._clock(), _Work(self._fetcher, asked, self._held)
        work.one()
        if self._clock() - began < PREFETCH_WORTH.total_seconds() or work.stop.is_set():
            return  # it is near, or away
        threads = [threading.Thread(target=work.rest, daemon=True) for _ in range(PREFETCH_THREADS)]
        try:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                threads[0].join(PREFETCH_LOOK)
                tick("answers", count - len(asked), count)
                threads = [thread for thread in threads if thread.is_alive()] or threads[:1]
        finally:
            work.stop.set()  # also where somebody presses Ctrl-C


class _Work:
    """Questions on their way into memory, for several threads: what they do with these collections is atomic."""

    def __init__(self, fetcher: Fetcher, todo: deque[Wanted], held: dict[Any, bytes]) -> None:
        self._fetcher, self._todo, self._held = fetcher, todo, held
        self._room = PREFETCH_MAX_BYTES - sum(map(len, held.values()))
        self.stop = threading.Event()

    def rest(self) -> None:
        while not self.stop.is_set() and self._todo:
            self.one()

    def one(self) -> None:
        try:
            each = self._todo.popleft()
            raw = self._fetcher.get(
                each.url, max_bytes=each.max_bytes, missing_ok=True, headers=each.headers or None
            )
        except (IndexError, StatusError):
            return  # another took the last one; or this one file is not to be had
        except Exception:  # nobody can be reached, or a bug: whoever asks in turn meets it, too
            self.stop.set()
            return
        if raw is not None:
            self._held[each.key] = raw
            self._room -= len(raw)  # two at once may count one of them: a bound, not an account
            if self._room < 0:
                self.stop.set()
