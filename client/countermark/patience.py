"""Patience: connections that hang up when a request has lasted to its deadline. For fetch.py alone.

    current.patience = Patience(deadline)          # for the request this thread is about to make
    pool.pool_classes_by_scheme = impatient_pools()
    current.patience.check(url)                    # NetworkError, if it was this side that ended the answer
    current.patience.end()

urllib3 knows how long one read may take, not how long all of them together may. So its connections are given a timer
that shuts the socket down.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from functools import cache
from typing import TYPE_CHECKING, Any

from countermark.errors import NetworkError

if TYPE_CHECKING:
    import urllib3
    from urllib3.connection import HTTPConnection


class Patience:
    """Hangs up when a request has lasted to its deadline.

    A read timeout starts anew with every byte, and one read may wait for many: for a line of headers, or for the line
    between two chunks. Only closing the socket ends such a wait.
    """

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._over = self._ended = False
        self._timer: threading.Timer | None = None
        self.is_reused = False  # whether the connection had been used before this request

    @property
    def left(self) -> float:
        """Seconds until the deadline; a moment where there are none."""
        return max(self._deadline - time.monotonic(), 0.001)

    def watch(self, connection: HTTPConnection) -> None:
        """From now on, this is what to hang up on."""
        self.is_reused = connection.sock is not None
        if self._timer is not None:
            self._timer.cancel()
        self._start(connection, max(self._deadline - time.monotonic(), 0))

    def check(self, url: str) -> None:
        """NetworkError when it was this side that ended the answer."""
        if self._over:
            raise NetworkError(f"{url} is too slow: no whole answer before the deadline") from None

    def end(self) -> None:
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()

    def _start(self, connection: HTTPConnection, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._hang_up, [connection])
        self._timer.daemon = True
        self._timer.start()

    def _hang_up(self, connection: HTTPConnection) -> None:
        self._over = True
        with contextlib.suppress(OSError):
            if connection.sock is not None:
                connection.sock.shutdown(socket.SHUT_RDWR)
            elif not self._ended:  # still connecting, perhaps to the next of many addresses
                self._start(connection, 0.1)


class _Current(threading.local):
    """The patience for the request this thread is making."""

    patience: Patience


current = _Current()


@cache
def impatient_pools() -> dict[str, type[urllib3.HTTPConnectionPool]]:
    """urllib3's pools with connections that hang up at the deadline of the request they are used for."""
    import urllib3  # noqa: PLC0415
    from urllib3.connection import HTTPConnection, HTTPSConnection  # noqa: PLC0415

    class Plain(HTTPConnection):
        def request(self, *args: Any, **options: Any) -> None:
            current.patience.watch(self)
            super().request(*args, **options)

    class Secure(HTTPSConnection):
        def request(self, *args: Any, **options: Any) -> None:
            current.patience.watch(self)
            super().request(*args, **options)

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}
