"""Online keys follow others while a registry goes on publishing: after every step, clients of every age succeed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import DownloadHTTPError, UnsignedMetadataError
from tuf.api.metadata import Metadata, SuccinctRoles
from tuf.api.serialization.json import JSONSerializer
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from countermark.errors import EvidenceError
from countermark_server import db
from countermark_server.stores.public import TIMESTAMP, Public
from countermark_server.timestamper.errors import RefusalError
from countermark_server.tufrepo import renewing, store
from tests.log_world import key
from tests.server.tuf.test_renewal import SIGNERS
from tests.tuf_registry import TufRegistry

Change = Callable[[dict[str, Any]], None]
ONLINE = ("bins", "snapshot", "timestamp")


class FromPublic(FetcherInterface):
    """What stock ngclient fetches with, over our public folder."""

    def __init__(self, public: Public) -> None:
        self._public = public

    def _fetch(self, url: str) -> Any:
        raw = self._public.read(url.removeprefix("http://registry.test/"))
        if raw is None:
            raise DownloadHTTPError("not there", 404)
        yield raw


class Clients:
    """Stock clients: one that comes anew with root 1 each time, and one that has kept its cache."""

    def __init__(self, world: TufRegistry, folder: Path) -> None:
        self.world, self.folder = world, folder
        (folder / "old").mkdir(parents=True)
        self.looks = 0

    def look(self) -> None:
        """Both find file 1, whatever is public just now."""
        self.looks += 1
        new = self.folder / f"new-{self.looks}"
        new.mkdir()
        for cache in (self.folder / "old", new):
            updater = Updater(
                str(cache),
                "http://registry.test/tuf/",
                fetcher=FromPublic(self.world.public),
                bootstrap=self.world.public.read("tuf/1.root.json"),
            )
            updater._trusted_set.reference_time = datetime.fromtimestamp(self.world.clock(), UTC)
            updater.refresh()
            assert updater.get_targetinfo("files/acme/acme-1.tar.gz") is not None
        shutil.rmtree(new)


def adopted(
    world: TufRegistry, new: dict[str, CryptoSigner], *, version: int = 2, bits: int | None = None
) -> None:
    """A ceremony whose root and index name these online keys, as `adopt` leaves it."""
    files = {}
    for role, signers in SIGNERS.items():
        raw = world.public.read(f"tuf/{version - 1}.{role}.json")
        metadata: Metadata[Any] = Metadata.from_bytes(raw or b"")
        signed = metadata.signed
        signed.version = version
        if role == "root":
            for online in {"snapshot", "timestamp"} & set(new):
                for keyid in list(signed.roles[online].keyids):
                    signed.revoke_key(keyid, online)
                signed.add_key(new[online].public_key, online)
        if role == "index":
            old = signed.delegations.succinct_roles
            keyids = old.keyids
            if "bins" in new:
                keyids = [new["bins"].public_key.keyid]
                signed.delegations.keys = {keyids[0]: new["bins"].public_key}
            signed.delegations.succinct_roles = SuccinctRoles(keyids, 1, bits or old.bit_length, "bins")
        metadata.signatures.clear()
        for signer in signers:
            metadata.sign(world.tuf_keys[signer], append=True)
        name = store.waiting_root(version) if role == "root" else f"tuf/{version}.{role}.json"
        files[name] = metadata.to_bytes(JSONSerializer(compact=True))
    world.public.put_all(files)
    with db.write(world.engine) as connection:
        store.renew(connection, dict.fromkeys(SIGNERS, version))


def started(tmp_path: Path) -> tuple[TufRegistry, Clients, dict[str, CryptoSigner]]:
    """A registry that lists a file; its clients; and a new key for each online role."""
    world = TufRegistry(tmp_path / "registry")
    world.settle()
    world.list_file(1)
    world.settle()
    clients = Clients(world, tmp_path / "clients")
    clients.look()
    return world, clients, {role: CryptoSigner(key(f"new tuf {role}")) for role in ONLINE}


def step(world: TufRegistry, clients: Clients) -> bool:
    """Every room once, each killed before and after, and a look after each."""
    busy = False
    for room in ("repository", "log", "service"):
        world.restart()
        clients.look()
        done = world.work_log() if room == "log" else getattr(world, room).step()
        busy = bool(done) or busy
        clients.look()
    world.clock.now += 1
    return busy


def run(world: TufRegistry, clients: Clients, until: Callable[[], bool], limit: int = 40) -> None:
    for _ in range(limit):
        step(world, clients)
        if until():
            return
    raise AssertionError("it never came to this")


def finished(world: TufRegistry) -> bool:
    """Whether a timestamp over the new root's metadata is public."""
    shown = world.public.read("tuf/2.root.json") is not None
    return shown and world.repository._candidate is None


@pytest.mark.parametrize("roles", [("bins",), ("snapshot",), ("timestamp",), ONLINE])
def test_a_key_follows_another_without_a_moment_that_clients_refuse(
    tmp_path: Path, roles: tuple[str, ...]
) -> None:
    """Both keys there, the ceremony adopted, every process killed around every step: each look succeeds."""
    world, clients, new = started(tmp_path)
    for role in roles:
        world.online[role].append(new[role])
    adopted(world, {role: new[role] for role in roles})
    run(world, clients, lambda: finished(world))
    world.list_file(2)
    world.settle()
    for role in roles:  # the old key is taken away: from now on the new one signs alone
        world.online[role] = [new[role]]
    world.restart()
    world.list_file(3)
    world.settle()
    clients.look()
    world.check()
    assert set(world.targets()) == {f"files/acme/acme-{number}.tar.gz" for number in (1, 2, 3)}


@pytest.mark.parametrize("role", ["snapshot", "timestamp"])
def test_without_the_bridge_there_is_such_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    """The test of the test: a root shown before both keys signed what is public is seen by a look."""
    world, clients, new = started(tmp_path)
    world.online[role].append(new[role])
    monkeypatch.setattr(renewing, "ready", lambda *_: True)
    adopted(world, {role: new[role]})
    with pytest.raises(UnsignedMetadataError, match=f"{role} was signed by 0/1 keys"):
        run(world, clients, lambda: finished(world))
    assert world.public.read("tuf/2.root.json") is not None


@pytest.mark.parametrize("role", ONLINE)
def test_a_root_whose_key_is_not_here_waits_and_the_registry_goes_on(tmp_path: Path, role: str) -> None:
    """No process has the new key: the root is not shown, files are listed, the log gets no heap of entries."""
    world, clients, new = started(tmp_path)
    adopted(world, {role: new[role]})
    for _ in range(12):
        step(world, clients)
    assert world.public.read("tuf/2.root.json") is None
    entries = sum(b'"type":"tuf"' in raw for raw in world.entries())
    world.list_file(2)
    for _ in range(8):
        world.repository.step(), world.work_log(), world.service.step()
        world.clock.now += 6
    assert "files/acme/acme-2.tar.gz" in world.targets()
    assert sum(b'"type":"tuf"' in raw for raw in world.entries()) <= entries + 3
    assert world.public.read("tuf/2.root.json") is None
    world.online[role].append(new[role])  # and then it comes
    world.restart()
    run(world, clients, lambda: finished(world))
    world.check()


def test_a_bin_left_under_the_old_key_is_refused_by_the_timestamper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publisher that changes the bins key and signs only what changed otherwise gets no timestamp."""
    world, _, new = started(tmp_path)
    world.online["bins"].append(new["bins"])
    adopted(world, {"bins": new["bins"]})
    world.restart()
    before = world.public.read(TIMESTAMP)
    monkeypatch.setattr(
        type(world.repository),
        "_after_index",
        lambda self, _version, contents: (self._current, dict(contents)),
    )
    world.repository.step()
    world.work_log()
    world.repository.step()
    with pytest.raises(RefusalError, match="has 0 of 1 signatures") as refused:
        world.judge.attempt(now=int(world.clock()))
    assert refused.value.code == "signature"
    assert world.public.read(TIMESTAMP) == before


def test_a_process_with_neither_key_does_not_start(tmp_path: Path) -> None:
    """tufrepo and timestamper say both key ids."""
    world, _, new = started(tmp_path)
    for role in ("bins", "snapshot"):
        kept, world.online[role] = world.online[role], [new[role]]
        with pytest.raises(
            EvidenceError, match=f"delegates {role} to key {kept[0].public_key.keyid}"
        ) as refused:
            world.restart()
        assert new[role].public_key.keyid in str(refused.value)
        world.online[role] = kept
    world.online["timestamp"] = [new["timestamp"]]
    world.restart()
    with pytest.raises(EvidenceError, match="root 1 delegates timestamp to key"):
        world.judge.check_keys()
