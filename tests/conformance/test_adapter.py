"""TUF's attacks by name, against the command line that the public conformance suite drives.

The suite itself (113 cases, all passed; docs/how-to/run-tuf-conformance.md) is run from its own checkout. Here
every attack has one case of our own over a real server, and a client that swallows its errors must fail them all.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

ADAPTER = Path(__file__).with_name("adapter.py")
TOP = ("root", "timestamp", "snapshot", "targets")
NAME = "acme/acme-1.0.tar.gz"
LATER = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
AGO = LATER - timedelta(days=60)


class Repository:
    """A small TUF repository in a folder, and the keys to break it with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.signers = {role: [CryptoSigner.generate_ed25519()] for role in TOP}
        self.root = Root(expires=LATER, consistent_snapshot=True)
        for role in TOP:
            self.root.add_key(self.signers[role][0].public_key, role)
        self.targets = Targets(expires=LATER)
        self.snapshot = Snapshot(expires=LATER)
        self.timestamp = Timestamp(expires=LATER)
        (folder / "targets" / "acme").mkdir(parents=True)
        self.put(NAME, b"the real bytes")
        self.publish()

    def put(self, name: str, data: bytes) -> None:
        """List a target, and serve it by its hash."""
        info = TargetFile.from_data(name, data, ["sha256"])
        self.targets.targets[name] = info
        head, _, last = name.rpartition("/")
        (self.folder / "targets" / head / f"{info.hashes['sha256']}.{last}").write_bytes(data)

    def publish(self) -> None:
        """Sign everything with the roles' keys and serve it."""
        self.snapshot.meta["targets.json"] = MetaFile(self.targets.version)
        self.timestamp.snapshot_meta = MetaFile(self.snapshot.version)
        self.write("root", f"{self.root.version}.root.json")
        self.write("targets", f"{self.targets.version}.targets.json")
        self.write("snapshot", f"{self.snapshot.version}.snapshot.json")
        self.write("timestamp", "timestamp.json")

    def bump(self) -> None:
        """The next version of everything but the root."""
        for role in (self.targets, self.snapshot, self.timestamp):
            role.version += 1
        self.publish()

    def write(self, role: str, name: str) -> None:
        """One signed file."""
        metadata = Metadata(getattr(self, role))
        for signer in self.signers[role]:
            metadata.sign(signer, append=True)
        metadata.to_file(str(self.folder / name))


@dataclass
class Client:
    """The client under test: one command line, one folder of metadata, one of targets."""

    command: list[str]
    folder: Path
    url: str
    requests: list[str] = field(default_factory=list)

    def run(self, *arguments: str) -> int:
        finished = subprocess.run(
            [*self.command, "--metadata-dir", str(self.folder / "metadata"), *arguments],
            check=False,
            capture_output=True,
            timeout=60,
        )
        return finished.returncode

    def init(self, root: Path) -> int:
        for name in ("metadata", "downloads"):
            (self.folder / name).mkdir(exist_ok=True)
        return self.run("init", str(root))

    def refresh(self) -> int:
        return self.run("--metadata-url", self.url, "refresh")

    def download(self, *names: str) -> int:
        wanted = [option for name in names for option in ("--target-name", name)]
        places = ["--target-dir", str(self.folder / "downloads"), "--target-base-url", f"{self.url}/targets"]
        return self.run("--metadata-url", self.url, *places, *wanted, "download")

    def trusted(self, role: str) -> int:
        """The version of a role that the client believes."""
        signed = json.loads((self.folder / "metadata" / f"{role}.json").read_bytes())["signed"]
        return int(signed["version"])

    @property
    def downloads(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted((self.folder / "downloads").iterdir())]


@contextlib.contextmanager
def world(folder: Path, command: list[str]) -> Iterator[tuple[Repository, Client]]:
    """A repository, a server for it and a client that has done `init`."""
    served = folder / "served"
    repository = Repository(served)
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_request(self, code: object = "-", size: object = "-") -> None:
            asked.append(self.path)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(served))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            client = Client(command, folder, f"http://127.0.0.1:{server.server_address[1]}", asked)
            assert client.init(served / "1.root.json") == 0
            assert asked == []  # nothing is asked before there is something to verify
            yield repository, client
        finally:
            server.shutdown()
            thread.join()


def unsigned(role: str, repository: Repository, client: Client) -> None:
    if role == "root":
        repository.root.version = 2
    repository.signers[role] = [CryptoSigner.generate_ed25519()]  # not a key of the role
    repository.publish()
    assert client.refresh() == 1


def expired(role: str, repository: Repository, client: Client) -> None:
    getattr(repository, role).expires = AGO
    if role == "root":
        repository.root.version = 2
    repository.publish()
    assert client.refresh() == 1


def too_few_signatures(repository: Repository, client: Client) -> None:
    repository.root.version = 2
    repository.root.add_key(CryptoSigner.generate_ed25519().public_key, "timestamp")
    repository.root.roles["timestamp"].threshold = 2
    repository.publish()
    assert client.refresh() == 1
    assert client.trusted("root") == 2  # the root was good; its timestamp is not


def one_key_signs_twice(repository: Repository, client: Client) -> None:
    too_few_signatures(repository, client)
    path = repository.folder / "timestamp.json"
    document = json.loads(path.read_bytes())
    document["signatures"] *= 2
    path.write_text(json.dumps(document))
    assert client.refresh() == 1


def root_not_signed_by_its_predecessor(repository: Repository, client: Client) -> None:
    repository.root.version = 2
    mine = CryptoSigner.generate_ed25519()
    repository.root.revoke_key(repository.signers["root"][0].public_key.keyid, "root")
    repository.root.add_key(mine.public_key, "root")
    repository.signers["root"] = [mine]
    repository.publish()
    assert client.refresh() == 1
    assert client.trusted("root") == 1


def rollback(role: str, repository: Repository, client: Client) -> None:
    repository.bump()
    assert client.refresh() == 0
    getattr(repository, role).version = 1
    if role != "timestamp":
        repository.timestamp.version += 1
    if role == "targets":
        repository.snapshot.version += 1
    repository.publish()
    assert client.refresh() == 1
    assert client.trusted(role) == 2


def mix_and_match(repository: Repository, client: Client) -> None:
    repository.snapshot.meta["targets.json"] = MetaFile(2)
    repository.timestamp.snapshot_meta = MetaFile(1)
    repository.targets.version = 2
    repository.write("snapshot", "1.snapshot.json")
    repository.targets.version = 1
    repository.write("targets", "2.targets.json")  # the old one, at the new one's address
    assert client.refresh() == 1


def swapped_target(repository: Repository, client: Client) -> None:
    (served,) = (repository.folder / "targets" / "acme").iterdir()
    served.write_bytes(b"the evil bytes")  # the same length
    assert client.download(NAME) == 1
    assert client.downloads == []


def longer_target(repository: Repository, client: Client) -> None:
    (served,) = (repository.folder / "targets" / "acme").iterdir()
    served.write_bytes(b"the real bytes" * 1000)
    assert client.download(NAME) == 1
    assert client.downloads == []


def endless_timestamp(repository: Repository, client: Client) -> None:
    path = repository.folder / "timestamp.json"
    path.write_bytes(path.read_bytes() + b" " * 4_000_000)
    assert client.refresh() == 1


def unlisted_target(repository: Repository, client: Client) -> None:
    assert client.download("acme/never-listed.tar.gz") == 1


def second_target_fails(repository: Repository, client: Client) -> None:
    assert client.download(NAME, "acme/never-listed.tar.gz", NAME) == 1
    assert client.downloads == [b"the real bytes"]


def terminating_delegation_ignored(repository: Repository, client: Client) -> None:
    """Two roles claim one path; the first ends the search and does not list it."""
    keys = {name: CryptoSigner.generate_ed25519() for name in ("first", "second")}
    roles = {name: DelegatedRole(name, [], 1, name == "first", paths=["other/*"]) for name in keys}
    repository.targets.delegations = Delegations({}, roles)
    for name, signer in keys.items():
        repository.targets.add_key(signer.public_key, name)
        delegated = Targets(expires=LATER)
        if name == "second":
            delegated.targets["other/a"] = TargetFile.from_data("other/a", b"a", ["sha256"])
        metadata = Metadata(delegated)
        metadata.sign(signer)
        metadata.to_file(str(repository.folder / f"1.{name}.json"))
        repository.snapshot.meta[f"{name}.json"] = MetaFile(1)
    repository.bump()
    assert client.download("other/a") == 1
    assert not [path for path in client.requests if path.endswith("second.json")]


ATTACKS: dict[str, Callable[[Repository, Client], None]] = {
    **{f"unsigned-{role}": partial(unsigned, role) for role in TOP},
    **{f"expired-{role}": partial(expired, role) for role in TOP},
    **{f"rollback-{role}": partial(rollback, role) for role in ("timestamp", "snapshot", "targets")},
    "too-few-signatures": too_few_signatures,
    "one-key-signs-twice": one_key_signs_twice,
    "root-not-signed-by-its-predecessor": root_not_signed_by_its_predecessor,
    "mix-and-match": mix_and_match,
    "swapped-target": swapped_target,
    "longer-target": longer_target,
    "endless-timestamp": endless_timestamp,
    "unlisted-target": unlisted_target,
    "second-target-fails": second_target_fails,
    "terminating-delegation-ignored": terminating_delegation_ignored,
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_refuses(tmp_path: Path, attack: str) -> None:
    with world(tmp_path, [sys.executable, str(ADAPTER)]) as (repository, client):
        ATTACKS[attack](repository, client)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_client_that_swallows_its_errors_is_caught(tmp_path: Path, attack: str) -> None:
    broken = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    command = [sys.executable, "-c", broken, sys.executable, str(ADAPTER)]
    with world(tmp_path, command) as (repository, client), pytest.raises(AssertionError):
        ATTACKS[attack](repository, client)


def test_keeps_what_was_served_and_asks_for_no_target_twice(tmp_path: Path) -> None:
    with world(tmp_path, [sys.executable, str(ADAPTER)]) as (repository, client):
        assert client.download(NAME) == 0
        assert client.downloads == [b"the real bytes"]
        served = {
            "root": "1.root",
            "timestamp": "timestamp",
            "snapshot": "1.snapshot",
            "targets": "1.targets",
        }
        for role, name in served.items():
            kept = (tmp_path / "metadata" / f"{role}.json").read_bytes()
            assert kept == (repository.folder / f"{name}.json").read_bytes()
        assert client.download(NAME, NAME) == 0
        assert len([path for path in client.requests if path.startswith("/targets/")]) == 1
        repository.put(NAME, b"the next bytes")
        repository.bump()
        assert client.download(NAME) == 0
        assert client.downloads == [b"the next bytes"]  # in the same place


def test_a_name_that_climbs_stays_in_the_folder(tmp_path: Path) -> None:
    with world(tmp_path, [sys.executable, str(ADAPTER)]) as (repository, client):
        repository.put("acme/..%2f..%2fclimbed", b"up")
        repository.bump()
        assert client.download("acme/..%2f..%2fclimbed") in (0, 1)
        assert not list(tmp_path.glob("climbed")) and not list(tmp_path.parent.glob("climbed"))
        assert all(path.parent == tmp_path / "downloads" for path in (tmp_path / "downloads").rglob("*"))
