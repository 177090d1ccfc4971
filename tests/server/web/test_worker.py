"""The web process's worker: a thread keeps a connection while requests follow each other and nobody waits."""

from __future__ import annotations

import io
import queue
import socket
import threading
from collections import deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.workers.gthread import ThreadWorker

from countermark_server import gunicorn_worker
from countermark_server.gunicorn_worker import LingeringWorker


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, ends: tuple[socket.socket, socket.socket]) -> Any:
    """A worker without a process; `answered` counts the requests that gunicorn's own code was given."""
    made = LingeringWorker.__new__(LingeringWorker)
    made.alive, made.tpool, made.answered = True, SimpleNamespace(_work_queue=queue.SimpleQueue()), 0
    made.says = True
    made.cfg = SimpleNamespace(threads=4)

    def answer(self: Any, conn: Any) -> Any:
        self.answered += 1
        conn.sock.recv(1)
        return self.says

    monkeypatch.setattr(ThreadWorker, "handle", answer)
    monkeypatch.setattr(gunicorn_worker, "LINGER_SECONDS", 0.01)
    monkeypatch.setattr(gunicorn_worker, "LONG_SECONDS", 0.05)
    monkeypatch.setattr(gunicorn_worker, "LOOK_SECONDS", 0.01)
    return made


def connection(sock: socket.socket, *, ahead: bytes = b"", is_http2: bool = False) -> Any:
    unreader = SimpleNamespace(buf=io.BytesIO(ahead))
    return SimpleNamespace(sock=sock, is_http2=is_http2, parser=SimpleNamespace(unreader=unreader))


def test_requests_that_follow_each_other_are_answered_by_one_thread(worker: Any, ends: Any) -> None:
    """Three requests are there, the fourth does not come: three answers, and the connection goes back."""
    ends[1].send(b"123")
    assert worker.handle(connection(ends[0])) is True
    assert worker.answered == 3


def test_who_waits_for_a_thread_gets_it(worker: Any, ends: Any) -> None:
    """With a request in the queue the connection is handed back after one answer."""
    worker.tpool._work_queue.put("somebody")
    ends[1].send(b"123")
    assert worker.handle(connection(ends[0])) is True
    assert worker.answered == 1


def later(sock: socket.socket, seconds: float) -> threading.Timer:
    """A byte, after this time."""
    timer = threading.Timer(seconds, sock.send, [b"2"])
    timer.start()
    return timer


@pytest.mark.parametrize(("others", "answers"), [(1, 2), (2, 1)])
def test_half_of_the_threads_linger_longer(
    worker: Any, ends: Any, monkeypatch: pytest.MonkeyPatch, others: int, answers: int
) -> None:
    """A request that comes late is answered by the same thread, unless as many as half of the four linger already."""
    monkeypatch.setattr(gunicorn_worker, "LONG_SECONDS", 20)
    monkeypatch.setattr(LingeringWorker, "lingering", deque([None] * others))
    ends[1].send(b"1")
    timer = later(ends[1], 0.2)
    if others == 1:  # then it ends as soon as somebody waits
        threading.Timer(0.5, worker.tpool._work_queue.put, ["somebody"]).start()
    assert worker.handle(connection(ends[0])) is True
    assert worker.answered == answers
    assert len(worker.lingering) == others
    timer.join()


@pytest.mark.parametrize("says", [False, object()])
def test_a_connection_that_is_done_is_not_kept(worker: Any, ends: Any, says: object) -> None:
    """Closed, or deferred: what gunicorn's code said is what the watching thread is told."""
    worker.says = says
    ends[1].send(b"123")
    assert worker.handle(connection(ends[0])) is says
    assert worker.answered == 1


def test_a_stopping_worker_and_http_2_keep_nothing(worker: Any, ends: Any) -> None:
    """Both are the watching thread's business."""
    ends[1].send(b"1234")
    assert worker.handle(connection(ends[0], is_http2=True)) is True
    worker.alive = False
    assert worker.handle(connection(ends[0])) is True
    assert worker.answered == 2
