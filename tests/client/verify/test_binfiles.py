"""Bins that lie in the cache already: judged as ngclient judges them, or left to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tuf.ngclient import Updater
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet

from countermark.binfiles import TILES, BinFiles
from countermark.bins import BinLeaf, targets_root
from countermark.trust import View, opened
from countermark.tufclient import snapshot_of
from countermark.tufjson import canonical
from tests.machine import Machine
from tests.simulator import Published, World

Change = Callable[[dict[str, Any]], object]


class Scene:
    """A machine that has verified some files, and a view of its next run."""

    def __init__(self, folder: Path) -> None:
        self.world = World(bit_length=8)
        self.files = [self.world.publish(f"acme-{number}") for number in range(6)]
        self.machine = Machine(folder, self.world)
        self.machine.accept(*self.files)

    def bin(self, view: View, file: Published) -> tuple[str, Path]:
        role, _, _ = self.bin_files(view).place(file.target)
        return role, view.cache / f"{role}.json"

    def bin_files(self, view: View) -> BinFiles:
        return view.moment.bin_files(self.files[0].target)

    def sign(self, signed: dict[str, Any]) -> bytes:
        """The bin again, signed by the bins key."""
        signature = self.world.keys.tuf["bins"].sign(canonical(signed))
        listed = {"keyid": signature.keyid, "sig": signature.signature}
        return json.dumps({"signatures": [listed], "signed": signed}).encode()


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture
def view(scene: Scene) -> Iterator[View]:
    with opened(scene.machine.registry, scene.world, now=scene.world.now) as found:
        yield found


def leaf_hash(role: str, raw: bytes) -> bytes:
    """As a bins root would commit to these bytes: what else is wrong with them must be found by itself."""
    signed = json.loads(raw)["signed"]
    root = targets_root(signed["targets"])
    return BinLeaf(role, signed["version"], hashlib.sha256(raw).hexdigest(), root).leaf_hash


@pytest.mark.parametrize("heartbeat", [False, True])
def test_a_warm_lock_gives_ngclient_one_bin_at_most(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, heartbeat: bool
) -> None:
    """What has not changed since is read once and asks for nothing, neither bins nor tiles."""
    if heartbeat:
        scene.world.heartbeat()
    judged: list[str] = []
    real = TrustedMetadataSet.update_delegated_targets

    def count(self: TrustedMetadataSet, data: bytes, role: str, by: str) -> Any:
        judged.append(role)
        return real(self, data, role, by)

    monkeypatch.setattr(TrustedMetadataSet, "update_delegated_targets", count)
    scene.world.asked.clear()
    scene.machine.accept(*scene.files)
    assert len([role for role in judged if role.startswith("bins-")]) == int(heartbeat)
    assert not [path for path in scene.world.asked if "bins" in path]


CHANGES: dict[str, Change] = {
    "expired": lambda signed: signed.update(expires="2020-01-01T00:00:00Z"),
    "no time": lambda signed: signed.update(expires="soon"),
    "older": lambda signed: signed.update(version=signed["version"] - 1 or 9),
    "delegates": lambda signed: signed.update(delegations={"keys": {}, "roles": []}),
    "another role's": lambda signed: signed.update(_type="snapshot"),
    "of another specification": lambda signed: signed.update(spec_version="2.0.0"),
    "without targets": lambda signed: signed.pop("targets"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_the_bins_key_signed_wrongly_is_left_to_ngclient(scene: Scene, view: View, what: str) -> None:
    """Signed by the right key and under a bins root: even then no other rule of TUF is forgotten."""
    role, path = scene.bin(view, scene.files[1])
    signed = json.loads(path.read_bytes())["signed"]
    raw = scene.sign(signed)
    path.unlink()
    path.write_bytes(raw)
    assert scene.bin_files(view).held(role, leaf_hash(role, raw)) is not None
    CHANGES[what](signed)
    raw = scene.sign(signed)
    path.write_bytes(raw)
    expected = leaf_hash(role, raw) if "targets" in signed else bytes(32)
    assert scene.bin_files(view).held(role, expected) is None


def test_what_the_bins_key_did_not_sign_is_left_to_ngclient(scene: Scene, view: View) -> None:
    """A timestamp key alone lists nothing: the bins root commits to the bytes, and a signature is still missing."""
    role, path = scene.bin(view, scene.files[1])
    document = json.loads(path.read_bytes())
    files = scene.bin_files(view)
    (listed,) = document["signatures"]
    other = scene.world.keys.tuf["snapshot"].sign(canonical(document["signed"]))
    for signatures in (
        [],
        [listed | {"sig": "00" * 64}],
        [listed | {"keyid": other.keyid}],
        [{"keyid": other.keyid, "sig": other.signature}],
        [{"keyid": listed["keyid"], "sig": other.signature}],
    ):
        raw = json.dumps(document | {"signatures": signatures}).encode()
        path.unlink()
        path.write_bytes(raw)
        assert files.held(role, leaf_hash(role, raw)) is None
    raw = json.dumps(document | {"signatures": [listed, listed]}).encode()
    path.write_bytes(raw)
    files._delegator.role["threshold"] = 2
    assert files.held(role, leaf_hash(role, raw)) is None, "one key counts once"


def test_what_the_bins_root_does_not_commit_to_is_left_to_ngclient(scene: Scene, view: View) -> None:
    """The bin of one client only; a file that is not there; and one that is nonsense."""
    role, path = scene.bin(view, scene.files[1])
    files, right = scene.bin_files(view), leaf_hash(role, path.read_bytes())
    assert files.held(role, right) is not None
    assert files.held(role, bytes(32)) is None
    path.unlink()
    assert files.held(role, right) is None
    for raw in (b"", b"{", b"[]", b'{"signed":{}}', b"\xff"):
        path.write_bytes(raw)
        assert files.held(role, right) is None


def test_a_spoiled_cache_is_mended(scene: Scene) -> None:
    """Bins and tiles that somebody changed on this disk are fetched anew, and nothing is refused."""
    cache = scene.machine.cache
    spoiled = [*cache.glob("bins-*.json"), *(cache / TILES).iterdir()]
    assert len(spoiled) > 4
    before = {path: path.read_bytes() for path in spoiled}
    for path, raw in before.items():
        path.write_bytes(raw[:-4] + b"oops")
    scene.machine.accept(*scene.files)
    assert {path: path.read_bytes() for path in spoiled} == before


def test_a_changed_bin_is_fetched(scene: Scene) -> None:
    """Whose bin has another version now is asked for again, and the takedown in it counts."""
    scene.world.decide("takedown", scene.files[2], "malware")
    scene.world.release()
    scene.machine.accept(scene.files[3])
    scene.machine.refuse(6, "is removed (malware)", scene.files[2])


def test_a_tuf_that_keeps_its_snapshot_elsewhere_is_an_error() -> None:
    """Fails when tuf moves it."""
    updater = Updater.__new__(Updater)
    updater._trusted_set = object()  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="keeps its snapshot"):
        snapshot_of(updater)
