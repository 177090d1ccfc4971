"""gunicorn's threaded worker, whose threads keep a busy connection instead of handing it back after every answer.

In gunicorn's own `gthread` one thread watches all connections: it hands each request to the pool and takes the
connection back after the answer. Under load it takes a third of the process's time for that, and every request waits
for it twice. Here the thread that answered looks whether the next request follows within `LINGER_SECONDS`, and
answers it itself. It lingers only while nobody else waits for a thread; a connection that is quiet goes back to the
watching thread and costs none.
"""

from __future__ import annotations

import select
from typing import Any

from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

LINGER_SECONDS = 0.02  # a client that sends one request after the other answers within this


class LingeringWorker(ThreadWorker):  # type: ignore[misc]
    """`worker_class` of the web process."""

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
        return bool(poll.poll(1000 * LINGER_SECONDS))
