"""A PostgreSQL server of our own: one for all tests of a process, durable settings, gone when the process is.

    url = server().database()        # a fresh, empty database, under a name that nobody had before

It listens on a Unix socket in its own folder and nowhere else. PostgreSQL refuses to run as root, so root runs
it as `postgres`. `kill` and `start` are what a power switch is to a machine.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import pwd
import signal
import subprocess
import time
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from tests import scratch

USER = "countermark"
START_SECONDS = 240  # after `kill` it syncs every file of every database first, and others use the disk
# Worlds that a test left hold their connections until the collector comes by, and it comes by when it likes.
CONFIG = """
listen_addresses = ''
fsync = on
synchronous_commit = on
full_page_writes = on
shared_buffers = 32MB
max_wal_size = 128MB
max_connections = 400
autovacuum = off
log_min_messages = warning
"""
STILL_IN_USE = "pre-existing shared memory block"
_DISCONNECT = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s"


def programs() -> Path:
    """The newest PostgreSQL in Debian's versioned folders."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    assert found, "PostgreSQL is missing; scripts/components.sh installs it"
    return found[-1].parent


class Server:
    """One cluster in a temporary folder, in memory where there is room: it syncs all the same."""

    def __init__(self) -> None:
        self.folder = scratch.folder("postgresql")
        self._as: list[str] = []
        if os.geteuid() == 0:
            person = pwd.getpwnam("postgres")
            os.chown(self.folder, person.pw_uid, person.pw_gid)
            self._as = ["setpriv", f"--reuid={person.pw_uid}", f"--regid={person.pw_gid}", "--clear-groups"]
        self._data = self.folder / "data"
        self._run(
            "initdb", "-D", str(self._data), "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"
        )
        with (self._data / "postgresql.conf").open("a") as config:
            config.write(f"{CONFIG}unix_socket_directories = '{self.folder}'\n")
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._numbers = itertools.count(1)
        self._made: set[str] = set()
        atexit.register(self.close)
        self.start()

    def start(self) -> None:
        """Start it, or start it again after `kill`: then it recovers what was committed."""
        deadline = time.monotonic() + START_SECONDS
        while not self._started(deadline):
            time.sleep(0.02)

    def _started(self, deadline: float) -> bool:
        """Whether it answers now; False: children of the one that was killed are still going away."""
        command = [*self._as, str(programs() / "postgres"), "-D", str(self._data)]
        if self._as:
            command.insert(1, "--pdeathsig=INT")
        with (self.folder / "log").open("ab") as log:
            before = log.tell()
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        while True:
            try:
                psycopg.connect(self._conninfo("postgres")).close()
                return True
            except psycopg.OperationalError:
                ended = self._process.poll() is not None  # before its last words are read
                said = (self.folder / "log").read_bytes()[before:].decode()
                assert time.monotonic() < deadline, said
                if ended and STILL_IN_USE in said:
                    return False
                assert not ended, said
                time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL to the server and all its children at once: nothing is flushed, nobody says goodbye."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for child in self._data.glob("postmaster.pid"):
            child.unlink()

    def database(self) -> str:
        """The URL of a fresh database."""
        url = f"postgresql+psycopg://{USER}@/world_{os.getpid()}_{next(self._numbers)}?host={self.folder}"
        self.create(url)
        return url

    def create(self, url: str, *, template: str = "template1") -> None:
        """An empty database in the place of what there may be."""
        name = str(make_url(url).database)
        self._made.add(name)
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
            for busy in (name, template):
                connection.execute(_DISCONNECT, (busy,))
            connection.execute(f"DROP DATABASE IF EXISTS {name}".encode())
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())

    def copy(self, source: str, target: str) -> None:
        """One database in the place of another."""
        self.create(target, template=str(make_url(source).database))

    def forget(self) -> None:
        """Drop every database made so far: hundreds of them, at ten megabytes each, are gigabytes of memory."""
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
            while self._made:
                connection.execute(f"DROP DATABASE IF EXISTS {self._made.pop()} WITH (FORCE)".encode())

    def close(self) -> None:
        """Stop it and remove everything; only in the process that started it."""
        if os.getpid() != self._owner or self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        scratch.remove(self.folder)

    def _conninfo(self, database: str) -> str:
        return f"host={self.folder} user={USER} dbname={database} connect_timeout=5"

    def _run(self, program: str, *words: str) -> None:
        command = [*self._as, str(programs() / program), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
        assert done.returncode == 0, done.stdout + done.stderr


def backup_of(url: str) -> str:
    """The URL of the backup of a database."""
    whole = make_url(url)
    return whole.set(database=f"{whole.database}_backup").render_as_string(hide_password=False)


@functools.cache
def server() -> Server:
    """The server of this test process, started when first asked for."""
    return Server()
