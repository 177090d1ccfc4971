"""Bells: "look now", rung between the log and the web processes of one machine.

    desk = Desk(data)                  # in the log's process
    desk.wait(0.005)                   # -> whether somebody rang; at most so many seconds
    desk.ring()                        # everybody who rang lately: something was settled

    bell = Bell(data)                  # in a web process
    bell.ring()                        # the log: something was proposed
    bell.wait(0.02)                    # -> whether the log rang

A ring is a datagram of one byte and says nothing but "look": what was proposed and what became of it is in the
database, where everybody looks who is rung for, and looks from time to time who is not. So a ring that is lost,
forged or doubled changes no answer. It only decides how soon somebody looks, and whoever listens has a pace
of their own (`log/station.py`, `asking.py`), which a flood of rings cannot hurry.

Both ends are sockets in Linux's abstract namespace: no files that a crash leaves behind, no paths that are too long.
The desk has a name made of the data directory's, a bell one that the kernel picks; the desk answers whoever rang.
Any process of this network namespace may ring, and may take the name before the desk does. Then, on another machine,
in another container, and where there is no such namespace, nobody rings: everybody looks at their own pace.
"""

from __future__ import annotations

import contextlib
import hashlib
import select
import socket
import time
from pathlib import Path
from typing import Any

RUNG_MAX = 64  # bells that a desk answers: those that rang last
AT_ONCE = 64  # rings taken at one time; what is left of a flood waits
_RING = b"\1"


class Desk:
    """The log's end. Without a socket (`heard` is False) it waits as long as it is told, and rings nobody."""

    def __init__(self, data: Path) -> None:
        self._rung: dict[bytes, None] = {}  # addresses, the newest last
        self._socket = _bound(_name(data))

    @property
    def heard(self) -> bool:
        """Whether anybody can ring here."""
        return self._socket is not None

    def wait(self, seconds: float) -> bool:
        """Wait until somebody rings, or so long; True: somebody did."""
        if self._socket is None:
            time.sleep(seconds)
            return False
        if not _readable(self._socket, seconds):
            return False
        for _ in range(AT_ONCE):
            try:
                _, address = self._socket.recvfrom(1)
            except OSError:
                break
            self._remember(address)
        return True

    def ring(self) -> None:
        """Ring everybody who rang lately; who is gone is forgotten."""
        if self._socket is None:
            return
        for address in list(self._rung):
            if not _sent(self._socket, address):
                self._rung.pop(address, None)

    def close(self) -> None:
        """Nobody can ring any more."""
        if self._socket is not None:
            self._socket.close()

    def _remember(self, address: Any) -> None:
        # Only names that the kernel drops with their owner: nobody makes the log write to a path.
        if not isinstance(address, bytes) or not address.startswith(b"\0"):
            return
        self._rung.pop(address, None)
        self._rung[address] = None
        while len(self._rung) > RUNG_MAX:
            self._rung.pop(next(iter(self._rung)), None)


class Bell:
    """A web process's end. Any thread may `ring`; one waits."""

    def __init__(self, data: Path) -> None:
        self._desk = _name(data)
        self._socket = _bound(b"")  # the kernel picks a name

    def ring(self) -> None:
        """Tell the log to look. Nothing happens where nobody hears."""
        if self._socket is not None:
            _sent(self._socket, self._desk)

    def wait(self, seconds: float) -> bool:
        """Wait until the log rings, or so long; True: it did."""
        if self._socket is None:
            time.sleep(seconds)
            return False
        if not _readable(self._socket, seconds):
            return False
        with contextlib.suppress(OSError):
            for _ in range(AT_ONCE):
                self._socket.recv(1)
        return True

    def close(self) -> None:
        """Wait and ring no more."""
        if self._socket is not None:
            self._socket.close()


def _name(data: Path) -> bytes:
    """The desk's address. One for each data directory, however it is spelled."""
    return b"\0countermark-log-" + hashlib.sha256(str(data.resolve()).encode()).hexdigest()[:32].encode()


def _bound(name: bytes) -> socket.socket | None:
    """A socket of this name, or None where there is no abstract namespace or somebody has the name."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        made.setblocking(False)
        made.bind(name)
        if not bytes(made.getsockname()).startswith(b"\0"):
            raise OSError("no abstract namespace")
    except (OSError, TypeError):
        made.close()
        return None
    return made


def _readable(listening: socket.socket, seconds: float) -> bool:
    poll = select.poll()
    poll.register(listening, select.POLLIN)
    return bool(poll.poll(1000 * seconds))


def _sent(sending: socket.socket, address: bytes) -> bool:
    """Send a ring; False: nobody has this address any more."""
    try:
        sending.sendto(_RING, address)
    except BlockingIOError:
        pass  # it has rings that it did not hear yet
    except OSError:
        return False
    return True
