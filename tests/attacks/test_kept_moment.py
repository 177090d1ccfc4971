"""A moment found again in the cache: never believed for lying there, and never judged otherwise than by ngclient.

What is said of the files, and what the registry is asked, is compared with what is said and asked where nothing is
ever found again (`_both_ways`): there ngclient looks at everything, as at a first view.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata, Root

from countermark import moment
from countermark.errors import CountermarkError, NetworkError
from countermark.fetch import Answer, StatusError
from countermark.moment import Kept, Refreshed
from countermark.trust import opened
from countermark.tufjson import canonical
from tests.machine import Machine, artifact
from tests.simulator import HOUR, Published, World, when
from tests.trust_chain import TrustChain

WITHOUT = (
    "tuf",
    "tuf.api",
    "tuf.api.metadata",
    "tuf.ngclient",
    "securesystemslib",
    "securesystemslib.signer",
)
UNREAD = {
    "root.json",
    "1.root.json",
}  # ngclient's names for the pinned root, which is read where it was pinned
ROOTS = ("/tuf/1.root.json", "/tuf/2.root.json", "/tuf/3.root.json", "/tuf/timestamp.json")


def _said(machine: Machine, *files: Published) -> Any:
    """What a verification ends with, in full."""
    try:
        return machine.verify(*files).to_json()
    except CountermarkError as error:
        return error.exit_code, str(error), error.hint


def _both_ways(machine: Machine, patch: pytest.MonkeyPatch, *files: Published) -> Any:
    """What is said of the files with a moment found again, and without: the same, for the same questions."""
    folder, aside = machine.registry.folder, machine.home.path / "aside"
    found = []
    for quick in (False, True):
        shutil.copytree(folder, aside, symlinks=True)
        machine.world.asked.clear()
        with patch.context() as patched:
            if not quick:
                patched.setattr(moment, "_kept", lambda *_: None)
            found.append((_said(machine, *files), sorted(machine.world.asked)))
        if not quick:
            shutil.rmtree(folder)
            aside.rename(folder)
    shutil.rmtree(aside)
    assert found[1] == found[0]
    return found[1][0]


def _kind(machine: Machine) -> type:
    with opened(machine.registry, machine.world, now=machine.world.now) as view:
        return type(view.moment)


def test_a_look_that_finds_nothing_new_loads_no_ngclient(
    machine: Machine, wheel: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two questions about the moment, the rest about the log; no module of tuf is needed, no cached file written."""
    world, before = machine.world, machine.snapshot()
    inodes = {path: path.lstat().st_ino for path in machine.cache.rglob("*")}
    world.asked.clear()
    for name in WITHOUT:
        monkeypatch.setitem(sys.modules, name, None)
    machine.accept(wheel)
    asked = [path for path in world.asked if path.startswith("/tuf/")]
    assert asked == ["/tuf/2.root.json", "/tuf/timestamp.json"]
    assert len(world.asked) < 8, world.asked
    assert machine.snapshot() == before
    assert {path: path.lstat().st_ino for path in machine.cache.rglob("*")} == inodes


def test_who_never_asked_for_a_bin_needs_no_list_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`trust show` and an audit look at the moment alone; the bins are ngclient's when somebody asks."""
    world = World()
    wheel, machine = world.publish("acme-demo"), Machine(tmp_path, world)
    assert _kind(machine) is Refreshed
    assert not list(machine.cache.rglob("index.json"))
    assert _kind(machine) is Kept
    assert _both_ways(machine, monkeypatch, wheel)["verified"]
    assert list(machine.cache.rglob("index.json"))


def test_every_kept_file_changed(machine: Machine, wheel: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte of it, anywhere; cut; gone; another one's: all is as if ngclient had looked, and it is mended."""
    names = sorted(path.relative_to(machine.cache) for path in machine.cache.rglob("*") if path.is_file())
    good = {name: (machine.cache / name).read_bytes() for name in names}
    assert {str(name) for name in names} > {"timestamp.json", "snapshot.json", "index.json", "trust.file"}
    for number, name in enumerate(names):
        whole = good[name]
        places = (0, len(whole) // 3, len(whole) // 2, len(whole) - 2)
        spoilt = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in places]
        for raw in (*spoilt, b"", b"{}", whole[:-1], good[names[number - 1]], None):
            path = machine.cache / name
            path.unlink()
            if raw is not None:
                path.write_bytes(raw)
            said = _both_ways(machine, monkeypatch, wheel)
            assert said["exit_code"] == 0 and said["verified"], (name, said)
            assert _kind(machine) is Kept
            if name.name not in UNREAD:
                assert (machine.cache / name).read_bytes() == whole, name
            (machine.cache / name).write_bytes(whole)


def _resigned(machine: Machine, name: str, role: str, change: Callable[[dict[str, Any]], object]) -> None:
    """A kept file with something else in it, signed again by the role's own key."""
    path = machine.cache / name
    signed = json.loads(path.read_bytes())["signed"]
    change(signed)
    signature = machine.world.keys.tuf[role].sign(canonical(signed))
    document = {"signatures": [{"keyid": signature.keyid, "sig": signature.signature}], "signed": signed}
    path.unlink()
    path.write_bytes(json.dumps(document, sort_keys=True, separators=(",", ":")).encode())


KEYS = {"targets": "targets", "trust": "trust", "index": "index", "snapshot": "snapshot"}
CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "expired": lambda signed: signed.update(expires="2020-01-01T00:00:00Z"),
    "newer": lambda signed: signed.update(version=signed["version"] + 1),
    "another type": lambda signed: signed.update(_type="timestamp"),
    "another specification": lambda signed: signed.update(spec_version="2.0.0"),
}


@pytest.mark.parametrize("role", KEYS)
@pytest.mark.parametrize("what", CHANGES)
def test_what_its_own_key_signed_otherwise(
    machine: Machine, wheel: Published, monkeypatch: pytest.MonkeyPatch, role: str, what: str
) -> None:
    """A thief of one key writes into this cache: the file is not the one that the registry's moment names."""
    before = (machine.cache / f"{role}.json").read_bytes()
    _resigned(machine, f"{role}.json", role, CHANGES[what])
    said = _both_ways(machine, monkeypatch, wheel)
    assert said["exit_code"] == 0 and said["verified"]
    if role != "snapshot":  # ngclient keeps one that its key signed with the right version
        assert (machine.cache / f"{role}.json").read_bytes() == before


def test_a_kept_delegation_that_names_other_keys(
    machine: Machine, wheel: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`targets` of this version, signed by a key that the root does not name, delegates to a thief's index."""
    thief = World(keys="thief")

    def delegate(signed: dict[str, Any]) -> None:
        signed["delegations"] = json.loads(thief.tuf["1.targets.json"])["signed"]["delegations"]

    monkeypatch.setitem(machine.world.keys.tuf, "targets", thief.keys.tuf["targets"])
    _resigned(machine, "targets.json", "targets", delegate)
    assert _both_ways(machine, monkeypatch, wheel)["verified"]


def test_a_newer_root_waits(machine: Machine, wheel: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else is new, the timestamp is the same to the byte: the root is followed all the same."""
    chain = TrustChain(machine.world)
    stamp = machine.world.tuf["timestamp.json"]
    chain.root_accepts()
    machine.world.tuf["timestamp.json"] = stamp
    assert "2.root.json" in machine.world.tuf
    assert _both_ways(machine, monkeypatch, wheel)["verified"]
    assert (machine.cache / "root_history" / "2.root.json").exists()
    machine.world.asked.clear()
    assert _kind(machine) is Kept
    assert "/tuf/3.root.json" in machine.world.asked


def test_a_newer_root_that_is_not_signed(
    machine: Machine, wheel: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kept moment is no way around a root that does not follow."""
    other = World(keys="thief")
    machine.world.tuf["2.root.json"] = other.root
    assert _both_ways(machine, monkeypatch, wheel)[0] == 7


@pytest.mark.parametrize("hours", [1, 2, 25, 60, 72, 80, 24 * 365, 24 * 366 * 3])
def test_the_same_timestamp_for_ever(
    machine: Machine, wheel: Published, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """Frozen: who is late is named, then what is new is refused, then everything."""
    other = machine.world.publish("acme-other", list_it=False)
    machine.world.now += hours * HOUR
    _both_ways(machine, monkeypatch, other)
    said = _both_ways(machine, monkeypatch, wheel)
    if hours >= 72:
        assert said[0] == 4
    else:
        assert said["exit_code"] == 0
        assert said["freshness"] == {1: "fresh", 2: "ok"}.get(hours, "grace")


@pytest.mark.parametrize("path", ROOTS)
@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
def test_the_registry_says_no(
    machine: Machine, wheel: Published, monkeypatch: pytest.MonkeyPatch, path: str, status: int
) -> None:
    """An answer that is none hides no newer root; only what means "there is none" to ngclient means it here."""

    def answer() -> bytes | None:
        raise StatusError(path, Answer(status, "no"))

    machine.world.override[path] = answer
    said = _both_ways(machine, monkeypatch, wheel)
    assert said["exit_code"] == 0
    is_new = path in ("/tuf/1.root.json", "/tuf/3.root.json") or (path.endswith("root.json") and status < 500)
    if is_new and status != 401:
        assert _kind(machine) is Kept


def test_the_past_beside_a_rolled_back_cache(
    tmp_path: Path, machine: Machine, wheel: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who holds disk and line shows the very moment that lies here again: the timeline remembers the next one."""
    past, older = machine.world.copy(), tmp_path / "older"
    shutil.copytree(machine.cache, older, symlinks=True)
    machine.world.now += 600
    machine.world.publish("acme-demo", "2.0")
    machine.accept(wheel)
    shutil.rmtree(machine.cache)
    shutil.copytree(older, machine.cache, symlinks=True)
    past.now = machine.world.now
    machine.world = past
    said = _both_ways(machine, monkeypatch, wheel)
    assert said[0] == 7 and "rollback" in said[1]


def test_a_bin_of_another_version(
    machine: Machine, wheel: Published, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The bin as it was before a takedown, put back: fetched again over the same moment, by ngclient."""
    older = {path.name: path.read_bytes() for path in machine.cache.glob("bins-*.json")}
    machine.world.decide("takedown", wheel, "malware")
    machine.world.release()
    machine.refuse(6, "is removed (malware)", wheel)
    kept = {path.name: path.read_bytes() for path in machine.cache.glob("bins-*.json")}
    changed = [name for name in older if kept[name] != older[name]]
    assert changed
    for name in changed:
        (machine.cache / name).unlink()
        (machine.cache / name).write_bytes(older[name])
    assert _both_ways(machine, monkeypatch, wheel)["exit_code"] == 6
    assert {path.name: path.read_bytes() for path in machine.cache.glob("bins-*.json")} == kept


def test_a_file_in_a_bin_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The moment is found again, and its other bins are asked for: of this moment, though a newer one is out."""
    world = World(bit_length=8)
    files = [world.publish(f"acme-{number}") for number in range(4)]
    machine = Machine(tmp_path, world)
    machine.accept(files[0])
    assert _both_ways(machine, monkeypatch, *files)["verified"]
    shutil.rmtree(machine.registry.folder / "tuf")
    machine.accept(files[0])
    later = world.copy()
    later.now += 60
    later.publish("acme-9")
    with opened(machine.registry, world, now=world.now) as view:
        assert type(view.moment) is Kept
        world.tuf |= later.tuf  # while this view is open
        for file in files:
            target = view.target(file.target)
            assert target is not None and target.sha256 == file.sha256
    machine.accept(*files, world=later)


def test_away_in_the_middle(machine: Machine, wheel: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever cannot be had of what is asked, the same is said as by ngclient alone."""
    machine.world.asked.clear()
    machine.accept(wheel)
    for path in dict.fromkeys(machine.world.asked):
        machine.world.down = lambda asked, path=path: asked == path  # type: ignore[misc]
        _both_ways(machine, monkeypatch, wheel)
    machine.world.down = lambda asked: True
    assert _both_ways(machine, monkeypatch, wheel)["exit_code"] == 0


def test_a_mirror_with_the_same_moment(machine: Machine, wheel: Published) -> None:
    """Another source may show it; one that shows the past is passed over as ever."""
    from countermark.mirrors import Mirrored, Source
    from countermark.verify import verify

    world = machine.world

    class Copy:
        def get(self, url: str, **options: Any) -> bytes | None:
            return world.get(url.replace("https://mirror.test", world.base), **options)

    class Away:
        def get(self, url: str, **options: Any) -> bytes | None:
            raise NetworkError(f"cannot reach {url}")

    fetcher: Any = Mirrored([Source(world.base, Away()), Source("https://mirror.test", Copy())])  # type: ignore[arg-type]
    report = verify([artifact(wheel)], machine.registry, fetcher, now=world.now)
    assert report.exit_code == 0 and any("was passed over" in each for each in report.remarks)


def test_ngclient_looks_where_something_is_new(machine: Machine) -> None:
    """A heartbeat is another timestamp."""
    assert _kind(machine) is Kept
    machine.world.now += 60
    machine.world.heartbeat()
    assert _kind(machine) is Refreshed
    assert _kind(machine) is Kept


def test_a_root_that_has_expired(machine: Machine, wheel: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    """All else is good for months: a kept moment does not outlive its root."""
    world = machine.world
    root = Metadata[Root].from_bytes(world.root)
    root.signed.version, root.signed.expires = 2, when(world.now + 2 * HOUR)
    root.signatures.clear()
    for role in ("root-a", "root-b"):
        root.sign(world.keys.tuf[role], append=True)
    world.tuf["2.root.json"] = root.to_bytes()
    machine.accept(wheel)
    world.now += HOUR
    assert _both_ways(machine, monkeypatch, wheel)["verified"] and _kind(machine) is Kept
    world.now += HOUR
    said = _both_ways(machine, monkeypatch, wheel)
    assert said[0] == 4 and "root" in said[1]
