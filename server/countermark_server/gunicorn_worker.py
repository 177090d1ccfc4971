"""gunicorn's threaded worker, whose threads keep a busy connection instead of handing it back after every answer.

In gunicorn's own `gthread` one thread watches all connections: it hands each request to the pool and takes the
connection back after the answer. Under load it takes a third of the process's time for that, and every request waits
for it twice. Here the thread that answered looks whether the next request follows, and answers it itself. It lingers
only while nobody else waits for a thread: for `LINGER_SECONDS`, and while no more than half of the threads linger, up
to `LONG_SECONDS`, looking up every `LOOK_SECONDS` whether somebody waits meanwhile. A connection that is quiet for
longer goes back to the watching thread and costs none.
"""

from __future__ import annotations

import select
import time
from collections import deque
from typing import Any, ClassVar

from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

LINGER_SECONDS = 0.02  # a client that sends one request after the other answers within this
LONG_SECONDS = (
    0.25  # one that sends some a second does not: its thread is as good at waiting as the watching one
)
LOOK_SECONDS = 0.05  # how long somebody who came meanwhile may wait for a thread that only lingers


class LingeringWorker(ThreadWorker):  # type: ignore[misc]
    """`worker_class` of the web process."""

    lingering: ClassVar[deque[None]] = deque()  # one for each thread that does; a list counts without a lock

    def handle(self, conn: Any) -> Any:
        """Answer requests of this connection for as long as they follow each other; what gthread's `handle` says."""
        said = super().handle(conn)
        while said is True and self.alive and not conn.is_http2 and self._follows(conn):
            said = super().handle(conn)
        return said

    def _follows(self, conn: Any) -> bool:
        """Whether this thread should answer the connection's next request, which is there."""
        if not self.tpool._work_queue.empty():
            return False  # somebody waits for a thread; the watching thread puts this one behind them
        if conn.parser.unreader.buf.getvalue():
            return True
        poll = select.poll()
        poll.register(conn.sock, select.POLLIN)
        self.lingering.append(None)
        try:
            return bool(poll.poll(1000 * LINGER_SECONDS)) or self._lingers(poll)
        finally:
            self.lingering.pop()

    def _lingers(self, poll: Any) -> bool:
        """The same, for as long as there are enough threads without this one."""
        end = time.monotonic() + LONG_SECONDS
        while self.alive and self.tpool._work_queue.empty() and 2 * len(self.lingering) <= self.cfg.threads:
            if poll.poll(1000 * LOOK_SECONDS):
                return True
            if time.monotonic() >= end:
                break
        return False
