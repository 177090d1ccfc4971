"""The nursery: a warm process that forks a child for each artifact. `python -m countermark_server.scan.nursery 7 60`

Starting Python and importing the analyzers costs more than most examinations; a fork costs 2 ms. The arguments are
the socket to the worker and the seconds a child may live. What is said there, one thing after the other:

    worker  -> nursery   b"g" and three descriptors: the task, the answer's pipe, the artifact
    worker  -> nursery   b"k": heard enough, kill it
    nursery -> worker    how the child ended (ENDING), once it is gone

Law: nothing but this passes through this process. Task and answer go between worker and child by the child's own
pipes, so the nursery never holds a name, a byte or a finding of any artifact, and a child finds nothing of earlier
ones in the memory it is forked with. It is started by exec, without environment, and holds no key, no connection and
no thread. A child that lives too long is killed by its process id, which stays its own until it is waited for. The
nursery ends with its worker, and a child with its nursery.

A child has four descriptors: 0 the task, 1 the answer, 2 nowhere, 3 the artifact.
"""

from __future__ import annotations

import gc
import os
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from countermark_server.scan import child

GO, KILL = b"g", b"k"
DESCRIPTORS = 3
ENDING = struct.Struct(
    "<i?"
)  # its status as subprocess tells it (a signal is negative); whether its time was over
ARTIFACT = 3
NICE = 10  # an examination takes what uploads and the log leave: nobody waits for it in a request


def main(
    arguments: list[str],
    examine: Callable[[], int] = child.main,
    warm: Callable[[], None] = child.warm,
) -> int:
    """Fork a child for each request until the worker is gone."""
    descriptor, wall_seconds = int(arguments[0]), float(arguments[1])
    # A service manager or a terminal signals every process of the service. The worker decides when these two end:
    # an honest artifact must not be a failure because its examination fell into a stop.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICE)
    warm()
    gc.collect()
    gc.freeze()  # what is here stays shared with the children
    with socket.socket(fileno=descriptor) as worker:
        serve(worker, wall_seconds, examine)
    return 0


def serve(worker: socket.socket, wall_seconds: float, examine: Callable[[], int]) -> None:
    """Answer requests one after the other; returns when the worker has closed its side."""
    ended, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda _signal, _frame: None)  # a handler, so that `wake` is written to
    signal.set_wakeup_fd(wake)
    with selectors.DefaultSelector() as selector:
        selector.register(worker, selectors.EVENT_READ)
        selector.register(ended, selectors.EVENT_READ)
        while True:
            said, descriptors, _, _ = socket.recv_fds(worker, 1, DESCRIPTORS)
            if not said:
                return
            if said != GO or len(descriptors) != DESCRIPTORS:
                continue  # b"k" for a child that had just ended
            pid = os.fork()
            if pid == 0:
                _be_born(descriptors, examine)
            for descriptor in descriptors:
                os.close(descriptor)
            try:
                late = _guard(selector, worker, ended, pid, time.monotonic() + wall_seconds)
            except BaseException:
                os.kill(pid, signal.SIGKILL)
                raise
            _, status = os.waitpid(pid, 0)
            with suppress(OSError):  # the worker is gone: the next request says so
                worker.send(ENDING.pack(os.waitstatus_to_exitcode(status), late))


def _guard(
    selector: selectors.BaseSelector, worker: socket.socket, ended: int, pid: int, deadline: float
) -> bool:
    """Return when the child has ended, by itself or killed; whether its time was over."""
    while True:
        left = deadline - time.monotonic()
        ready = {key.fd for key, _ in selector.select(max(0.0, left))}
        if ended in ready:
            os.read(ended, 4096)
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return False
        if left <= 0 or worker.fileno() in ready:  # the worker says b"k", or is gone
            if left > 0:
                worker.recv(1)
            os.kill(pid, signal.SIGKILL)
            return left <= 0


def _be_born(descriptors: list[int], examine: Callable[[], int]) -> NoReturn:
    """In the child: keep what is its own, examine, end without looking back."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor, number in zip(descriptors, (0, 1, ARTIFACT), strict=True):
            os.dup2(descriptor, number)
        os.closerange(ARTIFACT + 1, os.sysconf("SC_OPEN_MAX"))
        status = examine()
        sys.stdout.flush()
    finally:
        os._exit(status)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
