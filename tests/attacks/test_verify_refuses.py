"""Every refusal of verify, one attack each; after each the machine is as it was."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from countermark.binfiles import TILES
from countermark.clientpolicy import Mode
from countermark.statement import KeySigner, Statement, sign
from countermark.tlog.note import Note
from tests.machine import Machine, artifact
from tests.simulator import ACCOUNT, HOUR, Published, World, signing_key

THIEF = "ee" * 16


@pytest.fixture
def wheel(world: World) -> Published:
    file = world.publish("acme-demo")
    world.check()
    return file


@pytest.fixture
def machine(tmp_path: Path, world: World, wheel: Published) -> Machine:
    """A machine that has verified the wheel once."""
    machine = Machine(tmp_path, world)
    machine.accept(wheel)
    return machine


def tick(world: World, seconds: int = 60) -> None:
    world.now += seconds


# --- the log ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1])
def test_a_stripped_log_line_is_refused(machine: Machine, world: World, wheel: Published, which: int) -> None:
    """One of the log's two signatures is missing under the carried checkpoint."""
    tick(world)
    note = Note.parse(world.sign_checkpoint())
    lines = tuple(line for i, line in enumerate(note.signatures) if i != which)
    world.sign_timestamp(applied=len(world.entries), checkpoint=Note(note.text, lines).format())
    machine.refuse(7, "is not signed by its key", wheel)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_corrupted_line_is_refused(machine: Machine, world: World, wheel: Published, which: int) -> None:
    """A known key's line, the log's or the witness's, with one bit flipped."""
    tick(world)
    note = Note.parse(world.sign_checkpoint())
    lines = list(note.signatures)
    lines[which] = replace(lines[which], sig=lines[which].sig[:-1] + bytes([lines[which].sig[-1] ^ 1]))
    world.sign_timestamp(applied=len(world.entries), checkpoint=Note(note.text, tuple(lines)).format())
    machine.refuse(7, "false", wheel)


def test_a_missing_quorum_is_refused(machine: Machine, world: World, wheel: Published) -> None:
    """Both log signatures, no witness: fail closed."""
    tick(world)
    world.sign_timestamp(applied=len(world.entries), checkpoint=world.sign_checkpoint(witnessed=False))
    machine.refuse(7, "lacks the quorum", wheel)


def test_a_fork_is_refused_and_both_heads_are_kept(machine: Machine, world: World, wheel: Published) -> None:
    """Log key, witness and TUF collude in a second history: this machine has seen the first."""
    other = world.copy()
    world.publish("acme-demo", "2.0")
    machine.accept(wheel)
    tick(other)
    for version in ("6.6", "6.7", "6.8"):
        other.publish("acme-demo", version)
    other.check()
    error = machine.refuse(7, "fork: at size", wheel, world=other)
    (evidence,) = [json.loads(path.read_text()) for path in machine.evidence()]
    assert evidence["class"] == "self-proving" and str(error) in evidence["sentences"]
    assert {"checkpoint-seen", "checkpoint-offered"} <= set(evidence["objects"])
    machine.accept(wheel)


def test_a_fork_at_the_same_size_is_refused(machine: Machine, world: World, wheel: Published) -> None:
    """Two roots for one size."""
    other = world.copy()
    world.publish("acme-demo", "2.0")
    machine.accept(wheel)
    other.publish("acme-demo", "6.6")
    assert len(other.entries) == len(world.entries)
    tick(other)
    other.heartbeat()
    machine.refuse(7, "fork: at size", wheel, world=other)


def test_an_altered_tile_is_refused(machine: Machine, world: World, wheel: Published) -> None:
    """A tile with a flipped bit does not lead to the root hash."""
    world.publish("acme-demo", "2.0")
    size = len(world.entries)
    path = f"/log/tile/0/000.p/{size}"
    raw = bytearray(world.get(world.base + path) or b"")
    raw[40] ^= 1
    world.override[path] = bytes(raw)
    machine.refuse(7, "lead to", wheel)


def test_an_altered_entry_is_refused(machine: Machine, world: World, wheel: Published) -> None:
    """An entry bundle with other bytes does not hash to its slot."""
    size = len(world.entries)
    path = f"/log/tile/entries/000.p/{size}"
    raw = world.get(world.base + path) or b""
    world.override[path] = raw.replace(b'"publish"', b'"publisH"')
    machine.refuse(7, "leaf hash", wheel)


# --- TUF ------------------------------------------------------------------------------------------------


def test_a_rollback_of_everything_is_refused(machine: Machine, world: World, wheel: Published) -> None:
    """The registry of an hour ago, true in itself."""
    then = world.copy()
    tick(world)
    world.publish("acme-demo", "2.0")
    machine.accept(wheel)
    then.now = world.now
    machine.refuse(7, "rollback", wheel, world=then)


def test_a_rollback_with_a_deleted_cache_is_refused(machine: Machine, world: World, wheel: Published) -> None:
    """The TUF client has forgotten; the timeline has not."""
    import shutil

    then = world.copy()
    tick(world)
    world.publish("acme-demo", "2.0")
    machine.accept(wheel)
    shutil.rmtree(machine.cache)
    then.now = world.now
    machine.refuse(7, "rollback", wheel, world=then)


def test_two_timestamps_of_one_version_are_refused(machine: Machine, world: World, wheel: Published) -> None:
    """Equal version, other content: TUF's own client would pass over it silently."""
    tick(world)
    world.sign_checkpoint()
    world.sign_timestamp(applied=len(world.entries), version=world.versions["timestamp"])
    machine.refuse(7, "two timestamps of version", wheel)
    (evidence,) = [json.loads(path.read_text()) for path in machine.evidence()]
    assert evidence["class"] == "self-proving"


def test_a_checkpoint_that_shrinks_is_refused(machine: Machine, world: World, wheel: Published) -> None:
    """A newer timestamp that carries an older, smaller checkpoint."""
    old = world.checkpoint
    tick(world)
    world.publish("acme-demo", "2.0")
    machine.accept(wheel)
    world.sign_timestamp(applied=0, checkpoint=old)
    machine.refuse(7, "rollback", wheel)


def test_a_false_bin_is_refused(machine: Machine, world: World, wheel: Published) -> None:
    """A bin signed for this client alone: the timestamp's bins root does not commit to it."""
    root = world.bins_root
    assert root is not None
    tick(world)
    world.targets[wheel.target]["custom"]["yank"] = 3
    world.write_bins()
    bins = {"bit_length": 2, "root": root.hex()}
    world.sign_timestamp(applied=len(world.entries), **{"x-countermark-bins": bins})
    machine.refuse(7, "the bins root", wheel)


def test_an_altered_bins_tile_is_refused(machine: Machine, world: World, wheel: Published) -> None:
    """A tile of the bins tree that does not hash to its name."""
    assert world.bins_root is not None
    path = f"/tuf/bins/{world.bins_root.hex()}"
    world.override[path] = bytes(128)
    for kept in (machine.cache / TILES).iterdir():  # a machine that holds it asks nobody
        kept.unlink()
    machine.refuse(7, "bins tile", wheel)


def test_an_unlogged_target_is_refused(machine: Machine, world: World) -> None:
    """The index lists a file nobody logged, under somebody else's entry."""
    ghost = Published("acme-demo", "6.6", "acme_demo-6.6-py3-none-any.whl", b"ghost", 5)
    custom = {"i": 5, "lh": "00" * 32, "verdict": 6, "yank": None}
    world.targets[ghost.target] = {
        "custom": custom,
        "hashes": {"sha256": ghost.sha256},
        "length": len(ghost.data),
    }
    world.write_bins()
    world.sign_timestamp(applied=len(world.entries))
    machine.refuse(7, "its target names leaf", ghost)
    custom["lh"] = world.leaves[5].hex()
    world.write_bins()
    world.sign_timestamp(applied=len(world.entries))
    machine.refuse(7, "entry #5 says", ghost)
    custom["i"] = 9_999
    world.write_bins()
    world.sign_timestamp(applied=len(world.entries))
    machine.refuse(7, "not in the tree", ghost)


def open_namespace(world: World) -> tuple[KeySigner, int]:
    """Somebody opens the namespace evil, as anybody may: his key, and the index of its enrolment."""
    thief = KeySigner(signing_key("thief"))
    enrolment = {
        "key": base64.b64encode(thief.public_key).decode(),
        "namespace": "evil",
        "origin": world.origin,
        "prev": None,
        "project": "",
        "scope": "namespace",
        "threshold": 1,
        "valid_for": None,
    }
    statement = Statement.about(f"key:{thief.keyid}", "key-enroll", enrolment)
    registry = {"account": THIEF, "authorised_by": "registry", "identity": None}
    return thief, world.append("key-enroll", sign(statement, thief), registry)


def publish_there(world: World, thief: KeySigner, key_index: int, version: str, data: bytes) -> Published:
    """A file of his, named like acme-demo's, allowed by the rules."""
    filename = f"acme_demo-{version}-py3-none-any.whl"
    said = {
        "length": len(data),
        "metadata_sha256": "00" * 32,
        "namespace": "evil",
        "origin": world.origin,
        "prev": None,
        "project": "acme-demo",
        "record_sha256": "11" * 32,
        "version": version,
    }
    statement = Statement(filename, hashlib.sha256(data).hexdigest(), "publish", said)
    registry = {"identity": None, "key_index": key_index, "uploader": THIEF}
    index = world.append("publish", sign(statement, thief), registry)
    return Published("acme-demo", version, filename, data, index)


def test_an_entry_of_another_namespace_under_the_projects_name_is_refused(
    machine: Machine, world: World
) -> None:
    """The registry opens a namespace, publishes there by its rules, and lists it as the project's own file."""
    file = publish_there(world, *open_namespace(world), "9.0", b"other bytes")
    honest = world.listing
    target = {
        "custom": {"i": file.index, "lh": world.leaves[file.index].hex(), "verdict": None, "yank": None},
        "hashes": {"sha256": file.sha256},
        "length": len(file.data),
    }
    path = f"files/acme-demo/{file.filename}"
    world.listing = lambda: honest() | {path: target}  # type: ignore[method-assign]
    tick(world)
    world.release()
    machine.refuse(7, "evil", file)


def test_entries_of_another_namespace_withdraw_nothing(
    machine: Machine, world: World, wheel: Published
) -> None:
    """He removes his copy of the same bytes and revokes his key since #0: the project's own file stays good."""
    thief, key_index = open_namespace(world)
    copy = publish_there(world, thief, key_index, wheel.version, wheel.data)
    binding = {"namespace": "evil", "origin": world.origin}
    prev = world.leaves[copy.index].hex()
    said = binding | {"prev": prev, "project": "acme-demo", "reason": "other"}
    statement = Statement(copy.filename, copy.sha256, "remove", said)
    world.append("remove", sign(statement, thief), {"actor": THIEF})
    said = binding | {
        "compromised_since": 0,
        "keyid": thief.keyid,
        "prev": world.leaves[key_index].hex(),
        "project": "",
        "reason": "compromised",
    }
    statement = Statement.about(f"key:{thief.keyid}", "key-revoke", said)
    world.append("key-revoke", sign(statement, thief), {"actor": THIEF})
    tick(world)
    world.heartbeat()
    machine.accept(wheel)


def test_a_file_listed_without_entry_is_refused(machine: Machine, world: World) -> None:
    """The simple page shows a file neither TUF nor the log knows."""
    ghost = Published("acme-demo", "6.6", "acme_demo-6.6-py3-none-any.whl", b"ghost", 0)
    world.pages["acme-demo"][ghost.filename] = ghost.sha256
    machine.refuse(7, "the log has no entry", ghost)


@pytest.mark.parametrize("page", [b"", b"[" * 100_000, b"{}", b'{"files":3}', b'{"files":[{"filename":3}]}'])
def test_a_broken_simple_page_is_no_way_around(machine: Machine, world: World, page: bytes) -> None:
    """What a page says is only asked where the index lists nothing; junk is malformed, never a traceback."""
    ghost = Published("acme-demo", "6.6", "acme_demo-6.6-py3-none-any.whl", b"ghost", 0)
    world.override["/simple/acme-demo/"] = page
    world.override[f"/api/v1/files/acme-demo/{ghost.filename}"] = page
    report = machine.verify(ghost)
    assert report.exit_code in (5, 7)


def test_a_timestamp_that_lies_about_its_checkpoint_is_refused(
    machine: Machine, world: World, wheel: Published
) -> None:
    """TUF's view of the log and the note in it must agree."""
    note = Note.parse(world.checkpoint)
    lie = {"checkpoint": note.format().decode(), "origin": world.origin, "root_hash": "00" * 32, "size": 3}
    world.sign_timestamp(applied=0, **{"x-countermark-log": lie})
    machine.refuse(7, "the checkpoint it carries", wheel)


@pytest.mark.parametrize("member", ["x-countermark-log", "x-countermark-bins", "x-countermark-applied"])
@pytest.mark.parametrize("value", [None, {}, [], "x", -1, True])
def test_a_timestamp_without_our_members_is_refused(
    machine: Machine, world: World, wheel: Published, member: str, value: object
) -> None:
    """A missing or malformed binding is a refusal, never a leaked KeyError."""
    world.sign_timestamp(applied=0, **{member: value})
    machine.refuse(7, "timestamp", wheel)


# --- signatures -----------------------------------------------------------------------------------------


def test_a_key_that_is_not_enrolled_is_refused(machine: Machine, world: World, wheel: Published) -> None:
    """The log takes a publish by a stranger's key that names the owner's enrolment: rules would not, nor do we."""
    stranger = KeySigner(signing_key("mallory"))
    ghost = forge_publish(world, stranger, key_index=world.key_index("acme-demo"))
    machine.refuse(7, "is not the one entry", ghost)


def test_a_signature_by_nobodys_key_index_is_refused(
    machine: Machine, world: World, wheel: Published
) -> None:
    """The named enrolment is no enrolment at all, or comes after the publish."""
    for key_index, words in ((wheel.index, "enrols no key"), (9_000, "cannot enrol")):
        ghost = forge_publish(world, world.publisher, key_index=key_index, version=f"7.{key_index}")
        machine.refuse(7, words, ghost)


def test_an_enrolment_for_another_project_does_not_count(machine: Machine, world: World) -> None:
    """A key of one project signs for another."""
    other = world.publish("other-demo")
    assert other.index
    ghost = forge_publish(world, world.publisher, key_index=world.key_index("other-demo"))
    machine.refuse(7, "is not the one entry", ghost)


def test_a_registry_signature_by_a_stranger_is_refused(machine: Machine, world: World) -> None:
    """`key_index` null claims the registry's role key; the authority never enrolled this one."""
    ghost = forge_publish(world, KeySigner(signing_key("mallory")), key_index=None)
    machine.refuse(7, "no enrolment of the registry's key", ghost)


def test_signed_by_the_registry_only_is_refused_where_policy_enforces(tmp_path: Path) -> None:
    """True but not good enough: 5 under enforce, let pass and marked under warn."""
    for mode, code in (("enforce", 5), ("warn", 0)):
        world = World(mode=mode)
        file = world.publish("plain-demo", signed=False)
        world.check()
        machine = Machine(tmp_path / mode, world)
        report = machine.verify(file)
        assert report.exit_code == code
        assert not report.to_json()["verified"]
        assert "signed by the registry only" in json.dumps(report.to_json())


def test_the_local_policy_can_tighten_and_never_loosen(tmp_path: Path) -> None:
    """Central warn and local enforce: enforce. Central enforce and local observe: enforce."""
    world = World(mode="warn")
    file = world.publish("plain-demo", signed=False)
    assert Machine(tmp_path / "a", world).verify(file, local=Mode.ENFORCE).exit_code == 5
    strict = World(mode="enforce")
    file = strict.publish("plain-demo", signed=False)
    assert Machine(tmp_path / "b", strict).verify(file, local=Mode.OBSERVE).exit_code == 5


def forge_publish(
    world: World, signer: KeySigner, *, key_index: int | None, version: str = "6.6"
) -> Published:
    """A publish entry the rules would refuse, logged and listed all the same."""
    data = f"forged {version}".encode()
    name = f"acme_demo-{version}-py3-none-any.whl"
    file = Published("acme-demo", version, name, data, len(world.entries))
    predicate = {
        "length": len(data),
        "metadata_sha256": "00" * 32,
        "namespace": "",
        "origin": world.origin,
        "prev": None,
        "project": "acme-demo",
        "record_sha256": "11" * 32,
        "version": version,
    }
    from countermark.entry import make_entry

    envelope = sign(Statement(name, file.sha256, "publish", predicate), signer)
    registry = {"identity": None, "key_index": key_index, "uploader": ACCOUNT}
    entry = make_entry(type="publish", envelope=envelope, registry=registry, time=world.now)
    world.append_raw(entry.raw)
    world.targets[file.target] = {
        "custom": {"i": file.index, "lh": world.leaves[-1].hex(), "verdict": None, "yank": None},
        "hashes": {"sha256": file.sha256},
        "length": len(data),
    }
    world.write_bins()
    world.sign_checkpoint()
    world.sign_timestamp(applied=len(world.entries))
    return file


# --- standing and freshness -----------------------------------------------------------------------------


@pytest.mark.parametrize(("type", "reason"), [("hold", "malware"), ("takedown", "malware")])
def test_an_unapplied_withdrawal_is_refused(
    machine: Machine, world: World, wheel: Published, type: str, reason: str
) -> None:
    """The log holds it already, TUF does not yet: whoever reads the next entries is not fooled."""
    tick(world)
    index = world.decide(type, wheel, reason)
    world.heartbeat()
    error = machine.refuse(6, f"{type} by entry #{index}", wheel)
    assert "not applied" in str(error)
    world.decide("clear", wheel, "false-positive")
    world.heartbeat()
    machine.accept(wheel)


def test_a_withdrawn_file_is_refused_with_its_reason(
    machine: Machine, world: World, wheel: Published
) -> None:
    """Applied: the target is gone, the entry is still there, the words are the registry's."""
    tick(world)
    world.decide("takedown", wheel, "malware")
    world.release()
    world.check()
    machine.refuse(6, f"entry #{wheel.index}, is removed (malware)", wheel)


def test_a_file_not_listed_yet_is_refused(machine: Machine, world: World) -> None:
    """Logged and not scanned: told apart from a stranger's file."""
    early = world.publish("acme-demo", "3.0", list_it=False)
    tick(world)
    world.heartbeat()
    machine.refuse(5, "not listed yet", early)


def test_a_yanked_file_is_verified_with_a_remark(machine: Machine, world: World, wheel: Published) -> None:
    """Exactly pinned and yanked: as installers do, a warning."""
    tick(world)
    index = world.yank(wheel)
    world.release()
    world.check()
    report = machine.accept(wheel)
    assert report.to_json()["artifacts"][0]["remarks"] == [
        f"yanked by entry #{index} (broken): installers choose it only where it is pinned exactly"
    ]


def test_no_entry_for_a_name_is_refused(machine: Machine, wheel: Published) -> None:
    """A file this registry has never seen."""
    stranger = replace(artifact(wheel), project="nobody", filename="nobody-1.0-py3-none-any.whl")
    machine.refuse(5, "no entry for nobody-1.0", stranger)


def test_the_right_hash_under_another_version_is_refused(machine: Machine, wheel: Published) -> None:
    """A hash must be logged for the pinned version, not just somewhere."""
    machine.refuse(7, "was asked for", replace(artifact(wheel), version="2.0"))


def test_expired_metadata_is_too_old_to_judge_a_new_file(
    tmp_path: Path, world: World, wheel: Published
) -> None:
    """First contact with an expired timestamp: exit 4, and the operator is named."""
    machine = Machine(tmp_path, world)
    world.now += 25 * HOUR
    error = machine.refuse(4, "expired", wheel)
    assert "operator" in (error.hint or "")


def test_in_the_grace_period_only_known_files_pass(machine: Machine, world: World, wheel: Published) -> None:
    """24 to 72 h: verified before, a warning; first seen, refused; beyond 72 h everything is."""
    second = world.publish("acme-demo", "2.0")
    machine.accept(wheel)
    world.now += 25 * HOUR
    report = machine.verify(wheel)
    assert report.exit_code == 0 and report.freshness == "grace"
    assert "grace period" in " ".join(report.to_json()["artifacts"][0]["remarks"])
    machine.refuse(4, "new here", second)
    world.now += 48 * HOUR
    machine.refuse(4, "beyond the grace period", wheel)


def test_offline_a_known_file_passes_and_names_who_is_late(
    machine: Machine, world: World, wheel: Published
) -> None:
    """The registry is down: the cache is verified, not read raw, and a new file is a network error."""
    second = world.publish("acme-demo", "2.0", list_it=True)
    machine.accept(wheel)
    world.down = lambda path: True
    tick(world, 600)
    report = machine.verify(wheel)
    assert report.exit_code == 0 and report.freshness == "ok" and "network" in (report.late or "")
    machine.refuse(3, "not in the cache", second)


def test_a_clock_behind_the_witnesses_is_corrected(machine: Machine, world: World, wheel: Published) -> None:
    """Time never goes below what witnesses signed and this machine saw."""
    tick(world, 10 * HOUR)
    world.heartbeat()
    machine.accept(wheel)
    world.now -= 9 * HOUR
    machine.accept(wheel)


def test_a_quorum_time_ahead_of_the_clock_is_refused(
    machine: Machine, world: World, wheel: Published
) -> None:
    """A cosignature from the future: our clock or theirs, nothing is judged by it."""
    world.now += HOUR
    world.heartbeat()
    world.now -= HOUR
    machine.refuse(4, "ahead of our clock", wheel)


# --- the cache ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["timestamp.json", "snapshot.json", "targets.json", "index.json", "trust.json", "trust.file", "bin"],
)
def test_a_tampered_cache_is_never_believed(
    machine: Machine, world: World, wheel: Published, name: str
) -> None:
    """Every cached file altered: what is wrong is fetched again, and the swapped hash stays refused."""
    swapped = artifact(wheel, data=b"swapped")
    if name == "bin":
        (path,) = [p for p in machine.cache.glob("bins-*.json") if wheel.sha256.encode() in p.read_bytes()]
        path.write_bytes(path.read_bytes().replace(wheel.sha256.encode(), swapped.sha256.encode()))
    else:
        path = machine.cache / name
        path.write_bytes(path.read_bytes()[:-20] + b"x" * 20)
    with pytest.raises(AssertionError):
        machine.accept(swapped)
    machine.accept(wheel)


def test_a_tampered_cache_offline_is_refused(machine: Machine, world: World, wheel: Published) -> None:
    """Offline is the same verification over cached bytes, never a raw read."""
    (path,) = [p for p in machine.cache.glob("bins-*.json") if wheel.sha256.encode() in p.read_bytes()]
    swapped = artifact(wheel, data=b"swapped")
    path.write_bytes(path.read_bytes().replace(wheel.sha256.encode(), swapped.sha256.encode()))
    world.down = lambda path: True
    for claimed in (swapped, artifact(wheel)):
        report = machine.verify(claimed)
        assert report.exit_code == 3, report.to_json()


def test_a_damaged_timeline_stops_everything(machine: Machine, world: World, wheel: Published) -> None:
    """Memory that cannot be read is not taken for an empty one."""
    timeline = machine.registry.folder / "timeline.json"
    for damage in (b"", b"{}", b"null", b"\xff", timeline.read_bytes()[:-9]):
        timeline.write_bytes(damage)
        machine.refuse(2, "timeline", wheel)
        assert timeline.read_bytes() == damage


def test_evidence_files_are_not_multiplied(machine: Machine, wheel: Published) -> None:
    """The same contradiction seen twice is one file."""
    swapped = artifact(wheel, data=b"swapped")
    machine.refuse(7, "says", swapped)
    assert machine.verify(swapped).exit_code == 7
    assert len(machine.evidence()) == 1
