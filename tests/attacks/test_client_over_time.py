"""What a client believes as time goes by: its age and who says so, a key stolen and replaced, a spoilt cache."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata, Root, Timestamp

from countermark.errors import CountermarkError, NetworkError
from countermark.fetch import Answer
from countermark.limits import (
    BIN_MAX_BYTES,
    BUNDLE_MAX_BYTES,
    ROOT_MAX_BYTES,
    SNAPSHOT_MAX_BYTES,
    TIMESTAMP_MAX_BYTES,
    TRUST_FILE_MAX_BYTES,
    TRUST_STEP_MAX_BYTES,
)
from countermark.timeline import Timeline
from countermark.tlog.cosignature import MlDsaSigner
from countermark.tufclient import set_reference_time, tuf_fetcher
from countermark.verify import verify
from tests.machine import Machine, artifact
from tests.simulator import HOUR, Published, World, signing_key
from tests.timestamped import TimestampedWorld
from tests.trust_chain import TrustChain


def test_every_result_says_how_old_it_is_and_who_says_so(machine: Machine, wheel: Published) -> None:
    """Age counts from the quorum's time and never from our fetch, also when nothing can be fetched."""
    world = machine.world
    for minutes, words in ((0, "0 s ago, fresh"), (10, "10 min ago, fresh"), (180, "3 h ago, ok")):
        world.now += minutes * 60 - machine.verify(wheel).age
        report = machine.accept(wheel)
        assert report.believed == f"seen by w1 {words}"
        said = report.to_json()
        assert (said["age"], said["seen_by"]) == (minutes * 60, ["w1"])
    world.down = lambda path: True
    assert machine.accept(wheel).age == 3 * HOUR
    world.now -= 5 * HOUR  # our clock went back: never below what the witnesses signed
    assert machine.accept(wheel).age == 0


def _fast_forward(world: World) -> None:
    """The timestamp key, stolen, signs the largest version that a client can remember."""
    world.sign_timestamp(applied=world._applied(), version=2**31)


def _renew(world: World, *renewed: str, version: int = 2) -> None:
    """A ceremony: a root names other keys for these roles, and the registry counts on from its own versions."""
    root = Metadata[Root].from_bytes(world.tuf[f"{version - 1}.root.json"])
    root.signed.version = version
    for role in renewed:
        root.signed.revoke_key(world.keys.tuf[role].public_key.keyid, role)
        world.keys.tuf[role] = type(world.keys.tuf[role])(signing_key(f"renewed {role} {version}"))
        root.signed.add_key(world.keys.tuf[role].public_key, role)
    root.signatures.clear()
    for role in ("root-a", "root-b"):
        root.sign(world.keys.tuf[role], append=True)
    world.tuf[f"{version}.root.json"] = root.to_bytes()
    if "snapshot" in renewed:
        world.log_tuf_of_snapshot()
    world.heartbeat()


def _renew_timestamp_key(world: World) -> None:
    _renew(world, "timestamp")


def test_a_fast_forward_ends_with_a_renewed_key(machine: Machine, wheel: Published) -> None:
    """Nobody can go on from the last version there is; a root that replaces the key lets versions start anew."""
    world = machine.world
    _fast_forward(world)
    machine.accept(wheel)
    world.now += 60
    world.heartbeat()
    machine.refuse(7, "rollback", wheel)
    _renew_timestamp_key(world)
    machine.accept(wheel)
    seen = Timeline.load(machine.registry.folder / "timeline.json").timestamp
    assert seen is not None and seen.version < 2**31


def test_a_fast_forward_of_all_online_roles_ends_with_both_keys_renewed(
    machine: Machine, wheel: Published
) -> None:
    """Timestamp, snapshot and every bin at the largest version: a ceremony that renews two keys, no fewer.

    The snapshot remembers the versions of the bins, the timestamp that of the snapshot; each goes with its key.
    """
    world = machine.world
    thief = world.copy()
    thief.keys.tuf = dict(world.keys.tuf)
    thief.bin_versions = [2**31 - 1] * len(thief.bin_versions)
    thief.versions = {**world.versions, "snapshot": 2**31 - 1, "timestamp": 2**31 - 1}
    thief._held = lambda number: {}  # type: ignore[method-assign]  # every bin that holds something is new
    thief.write_bins()
    thief.sign_timestamp(applied=thief._applied())
    machine.accept(wheel, world=thief)
    assert [name for name in thief.tuf if name.startswith(f"{2**31}.bins-")]
    world.now += 60
    world.heartbeat()
    machine.refuse(7, "rollback", wheel)
    _renew(world, "timestamp")
    machine.refuse(7, "rollback", wheel)  # the thief's snapshot is still signed by the key in force
    _renew(world, "timestamp", "snapshot", version=3)
    machine.accept(wheel)
    thief.now = world.now
    machine.refuse(7, "", wheel, world=thief)  # and the thief's keys open nothing any more


def test_a_renewed_key_shows_no_smaller_log(machine: Machine, wheel: Published) -> None:
    """Versions start anew, the log does not: whoever holds the new key cannot go back behind what was seen."""
    world = machine.world
    older = world.copy()
    world.publish("acme-demo", "2.0")
    machine.accept(wheel)
    older.now = world.now
    _renew_timestamp_key(older)
    machine.refuse(7, "rollback", wheel, world=older)


def test_every_file_of_the_cache_spoilt_in_every_way(machine: Machine, wheel: Published) -> None:
    """Emptied, cut, flipped, or another cached file's bytes: never believed, and mended by the next view."""
    swapped = artifact(wheel, data=b"swapped")
    names = sorted(path.relative_to(machine.cache) for path in machine.cache.rglob("*") if path.is_file())
    assert len(names) >= 7
    for name in names:
        path = machine.cache / name
        whole = path.read_bytes()
        other = (machine.cache / names[names.index(name) - 1]).read_bytes()
        flipped = (
            whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :]
        )
        for spoilt in (b"", whole[:-1], flipped, other):
            path.write_bytes(spoilt)
            report = machine.verify(swapped)
            assert report.exit_code == 7, (name, report.to_json())
            machine.accept(wheel)
            path = machine.cache / name


def _verify_in_process(machine: Machine, wheel: Published, codes: multiprocessing.Queue[int]) -> None:
    codes.put(machine.verify(wheel).exit_code)


def test_processes_take_turns_on_one_cache(tmp_path: Path, world: World, wheel: Published) -> None:
    """Four processes on a cold cache: all verify, and what is kept is whole."""
    machine = Machine(tmp_path / "cold", world)
    context = multiprocessing.get_context("fork")
    codes = context.Queue()
    processes = [context.Process(target=_verify_in_process, args=(machine, wheel, codes)) for _ in range(4)]
    for process in processes:
        process.start()
    found = [codes.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    assert found == [0] * 4
    assert not [path for path in machine.registry.folder.iterdir() if path.name.startswith(".tuf")]
    world.down = lambda path: True
    machine.accept(wheel)


def test_four_post_quantum_witnesses_leave_room_for_stock_clients(tmp_path: Path) -> None:
    """Their lines stay with the log's checkpoint; the timestamp carries what the quorum needs, under 12 KiB."""
    from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
    from tuf.ngclient import Updater

    (tmp_path / "world").mkdir()
    world = TimestampedWorld(tmp_path / "world")
    world.also = [
        MlDsaSigner(f"witness.test/pq{number}", MLDSA44PrivateKey.from_seed_bytes(bytes([number] * 32)))
        for number in range(4)
    ]
    wheel = world.publish("acme-demo")
    raw = world.tuf["timestamp.json"]
    assert len(world.checkpoint) > 16_384 > TIMESTAMP_MAX_BYTES > len(raw)
    assert Metadata[Timestamp].from_bytes(raw).signed.version > 1
    folder = tmp_path / "stock"
    folder.mkdir()
    updater = Updater(
        metadata_dir=str(folder), metadata_base_url=f"{world.base}/tuf", fetcher=tuf_fetcher(world),
        bootstrap=world.root,
    )  # fmt: skip
    set_reference_time(updater, world.now)
    info = updater.get_targetinfo(wheel.target)
    assert info is not None and info.hashes["sha256"] == wheel.sha256
    Machine(tmp_path / "ours", world).accept(wheel)


class _Endless:
    """The registry, but one file that never ends: read up to the bound that the client named, and no further."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name, self.bounds = world, name, set[int]()

    def get(
        self, url: str, *, max_bytes: int = 1 << 62, missing_ok: bool = False, **options: Any
    ) -> bytes | None:
        if self.name not in url:
            return self.world.get(url, max_bytes=max_bytes, missing_ok=missing_ok, **options)
        self.bounds.add(max_bytes)
        raise NetworkError(f"{url} is longer than the {max_bytes} bytes allowed for it")

    def post(self, url: str, body: bytes, **options: Any) -> Answer:
        return self.world.post(url, body, **options)


ENDLESS = {  # a part of the URL, and the most bytes a client may take for it
    "/tuf/2.root.json": ROOT_MAX_BYTES,
    "/tuf/timestamp.json": 16_384,
    ".snapshot.json": SNAPSHOT_MAX_BYTES,
    ".targets.json": BIN_MAX_BYTES,
    "/tuf/1.trust.json": BIN_MAX_BYTES,
    ".index.json": BIN_MAX_BYTES,
    ".bins-": BIN_MAX_BYTES,
    "/tuf/bins/": 256 * 32,
    "/tuf/targets/trust/": TRUST_FILE_MAX_BYTES,
    "/log/tile/0/": 256 * 32,
    "/log/tile/entries/": BUNDLE_MAX_BYTES,
}


@pytest.mark.parametrize("name", ENDLESS)
def test_endless_data_is_read_up_to_its_own_bound(
    tmp_path: Path, wheel: Published, world: World, name: str
) -> None:
    """Every kind of file has a bound of its own; past it nothing is verified and nothing kept."""
    machine = Machine(tmp_path / "cold", world)
    endless = _Endless(world, name)
    before = machine.snapshot()
    try:
        report = verify([artifact(wheel)], machine.registry, endless, now=world.now)
    except CountermarkError as error:
        assert error.exit_code == 3, error
        assert machine.snapshot() == before
    else:
        assert report.exit_code == 3, report.to_json()
    assert endless.bounds and max(endless.bounds) <= ENDLESS[name]
    assert not (machine.registry.folder / "verified.txt").exists()


def test_a_step_to_a_trust_file_has_a_bound_too(machine: Machine, wheel: Published) -> None:
    """The walk reads what a registry shows, no further than a step can be long."""
    chain = TrustChain(machine.world)
    chain.announce(chain.with_witness("w2"), "w2")
    endless, before = _Endless(machine.world, ".step.json"), machine.snapshot()
    with pytest.raises(NetworkError, match="longer than"):
        verify([artifact(wheel)], machine.registry, endless, now=machine.world.now)
    assert endless.bounds == {TRUST_STEP_MAX_BYTES} and machine.snapshot() == before
