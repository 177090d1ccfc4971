"""The real ssh-agent, with keys made for a test, in a folder of its own (scripts/components.sh ssh)."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

BIN = Path(__file__).resolve().parent.parent / ".work/components/bin"


class Session:
    """A machine on which an ssh-agent runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "SSH_AUTH_SOCK": str(folder / "socket")}

    def key(self, name: str, *kind: str) -> str:
        """Make a key and give it to the agent; its fingerprint."""
        path = self.folder / name
        self._run("ssh-keygen", "-q", *kind, "-N", "", "-C", f"{name}@workstation", "-f", str(path))
        self._run("ssh-add", "-q", str(path))
        return self._run("ssh-keygen", "-l", "-f", str(path)).split()[1]

    def forget(self, name: str) -> None:
        self._run("ssh-add", "-q", "-d", str(self.folder / name))

    def _run(self, program: str, *arguments: str) -> str:
        command = [str(BIN / program), *arguments]
        return subprocess.run(
            command, env=self.environment, check=True, capture_output=True, text=True, timeout=60
        ).stdout


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Session]:
    """An agent without keys, until the block ends."""
    session = Session(folder)
    socket = session.environment["SSH_AUTH_SOCK"]
    command = [str(BIN / "ssh-agent"), "-D", "-a", socket]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as agent:
        try:
            while not Path(socket).exists():
                assert agent.poll() is None
            yield session
        finally:
            agent.terminate()
