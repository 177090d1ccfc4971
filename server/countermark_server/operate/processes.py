"""Processes: children of `up`, started, watched and stopped by name.

    children = Children(log_folder)
    children.start("log", argv, env)
    children.wait_until("log", lambda: (run / "log.ready.json").exists(), seconds=30)
    dead = children.dead()            # the first that ended, or None

A child's output goes to its own file, so that a terminal shows what `up` says and nothing else. Nothing is
restarted: a child that dies ends `up`, with its name, its exit code and the end of its output.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from countermark.errors import CountermarkError

STOP_SECONDS = 15.0  # for a child to end after SIGTERM; a round or a request in hand takes far less
TAIL_LINES = 15
LOOK = 0.02  # seconds between two looks


class ChildDiedError(CountermarkError):
    """A process that belongs to the registry ended by itself."""

    exit_code = 1


@dataclass(frozen=True)
class Child:
    """One running process."""

    name: str
    process: subprocess.Popen[bytes]
    output: Path


class Children:
    """The processes of one registry."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._children: dict[str, Child] = {}

    def start(self, name: str, argv: Sequence[str], env: Mapping[str, str], *, nice: int = 0) -> None:
        """Start a process; it reads nothing, and writes to `<name>.log`. A `nice` one yields to the others."""
        output = self._folder / f"{name}.log"
        with output.open("wb") as stream:
            process = subprocess.Popen(
                argv, env=dict(env), stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
            )
        if nice:
            os.setpriority(os.PRIO_PROCESS, process.pid, nice)
        self._children[name] = Child(name, process, output)

    def wait_until(
        self, what: str, ready: Callable[[], bool], *, seconds: float, stop: threading.Event
    ) -> bool:
        """Wait until `ready()`; False when `stop` came first. ChildDiedError: a child ended meanwhile."""
        deadline = time.monotonic() + seconds
        while not ready():
            self.check()
            if stop.is_set():
                return False
            if time.monotonic() > deadline:
                raise ChildDiedError(f"{what} was not ready within {seconds:.0f} s{self._said(what)}")
            stop.wait(LOOK)
        return True

    def check(self) -> None:
        """ChildDiedError when any child has ended."""
        for child in self._children.values():
            code = child.process.poll()
            if code is not None:
                how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
                raise ChildDiedError(f"{child.name} ended with {how}{self._said(child.name)}")

    def ended(self, name: str) -> bool:
        """Whether this one has ended."""
        return self._children[name].process.poll() is not None

    def stop(self, names: Iterable[str]) -> list[str]:
        """Ask these to end, together, and wait; returns those that had to be killed."""
        asked = [self._children[name] for name in names if name in self._children]
        for child in asked:
            if child.process.poll() is None:
                child.process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        killed = []
        for child in asked:
            try:
                child.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
                killed.append(child.name)
            self._children.pop(child.name, None)
        return killed

    def pids(self) -> dict[str, int]:
        """Who runs as which process."""
        return {name: child.process.pid for name, child in self._children.items()}

    def _said(self, name: str) -> str:
        """The end of what a child wrote, as lines below an error."""
        child = self._children.get(name)
        if child is None:
            return ""
        lines = child.output.read_text("utf-8", "replace").splitlines()[-TAIL_LINES:]
        return "".join(f"\n    {line}" for line in lines)


def free_port(host: str = "127.0.0.1") -> int:
    """A port nobody listens on now; the child that gets it binds it a moment later."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
