"""The timestamper signs what the log demands and nothing else; each refusal changes nothing."""

import contextlib
import hashlib
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Snapshot, Targets

from countermark import bins
from countermark.entry import Entry
from countermark.errors import CountermarkError, NetworkError, ProofError, SignatureError
from countermark.limits import TIMESTAMP_MAX_BYTES
from countermark.timestamp import Timestamp
from countermark.tlog import merkle
from countermark_server.listing import bin_index
from countermark_server.timestamper.errors import RefusalError
from countermark_server.timestamper.store import Store
from tests import staged
from tests.simulator import BIT_LENGTH, COMPACT, HOUR, signing_key
from tests.timestamped import TimestampedWorld


@pytest.fixture
def world(tmp_path):
    """A registry with one listed file, timestamped by the real timestamper."""
    world = TimestampedWorld(tmp_path)
    world.file = world.publish("acme", "1.0")
    world.check()
    return world


def refused(world, code=None, error=RefusalError, **options):
    """Let the judge decide: it must refuse, and remember and publish nothing."""
    before, public = world.memory(), world.tuf["timestamp.json"]
    with pytest.raises(error) as caught:
        world.attempt(**options)
    assert code is None or caught.value.code == code, caught.value
    assert world.memory() == before
    assert world.tuf["timestamp.json"] == public
    return caught.value


def release_without_judge(world, applied=None):
    """One TUF publish up to the cosigned checkpoint; the caller lets the judge decide."""
    applied = len(world.entries) if applied is None else applied
    changed = world.write_bins()
    world.log_tuf(applied, changed)
    world.sign_checkpoint()


def test_an_honest_registry_is_timestamped_again_and_again(world):
    """Publish, yank, hold, takedown: each publish gets the next version, and the world stays whole."""
    other = world.publish("acme", "2.0")
    world.yank(other)
    world.release()
    world.check()
    world.decide("hold", world.file, "malware")
    world.release()
    world.check()
    world.decide("takedown", other, "malware")
    world.release()
    world.check()
    assert json.loads(world.tuf["timestamp.json"])["signed"]["version"] == 6
    assert world.targets == {}


def test_a_timestamp_carries_applied_bins_root_and_a_small_checkpoint(world):
    """All that ties TUF to the log is in it, it fits stock clients, and it lives 24 hours."""
    raw = world.tuf["timestamp.json"]
    parsed = Timestamp.parse(raw)
    assert parsed.applied == world.entries.index(world.entries[-1])
    assert parsed.bins_root == world.bins_root and parsed.bit_length == BIT_LENGTH
    assert parsed.size == len(world.entries) and parsed.expires == world.now + 24 * HOUR
    assert len(raw) < TIMESTAMP_MAX_BYTES


def test_nothing_new_is_not_signed_again(world):
    """The log growing alone is no reason."""
    world.publish("beta", "1.0", list_it=False)
    world.sign_checkpoint()
    assert world.attempt() is None


def test_a_takedown_left_out_of_the_bins_is_refused(world):
    """An entry says takedown, `applied` covers it, the bin was not changed."""
    world.decide("takedown", world.file, "malware")
    release_without_judge(world)
    error = refused(world, "listing")
    assert "was not changed" in str(error)


def test_a_takedown_left_out_of_a_rewritten_bin_is_refused(world):
    """The bin got a new version and still lists what was taken down."""
    world.decide("takedown", world.file, "malware")
    rewrite(world, bin_index(world.file.target, BIT_LENGTH), world.targets)
    release_after_rewrite(world)
    assert "may not be listed" in str(refused(world, "listing"))


def rewrite(world, number, targets, *, signer=None, version=None, delegations=None):
    """Sign another version of one bin with these targets, by whatever key."""
    from tuf.api.metadata import TargetFile

    role = bins.role_name(number, BIT_LENGTH)
    held = {p: t for p, t in targets.items() if bin_index(p, BIT_LENGTH) == number}
    version = version or world.bin_versions[number] + 1
    files = {path: TargetFile.from_dict(json.loads(json.dumps(t)), path) for path, t in held.items()}
    expires = datetime.fromtimestamp(world.now + 30 * 24 * HOUR, UTC)
    metadata = Metadata(Targets(version, expires=expires, targets=files, delegations=delegations))
    metadata.sign(signer or world.keys.tuf["bins"])
    raw = metadata.to_bytes(COMPACT)
    world.tuf[f"{version}.{role}.json"] = raw
    world.bin_versions[number] = version
    leaf = bins.BinLeaf(role, version, hashlib.sha256(raw).hexdigest(), bins.targets_root(held))
    world.bin_leaves[number] = leaf
    return leaf


def release_after_rewrite(world, leaves=(), applied=None):
    """Snapshot, bins root, `tuf` entry and checkpoint over whatever the bins are now."""
    tree = bins.BinsTree.build([leaf.leaf_hash for leaf in world.bin_leaves])
    world.bins_root = tree.root
    world._write_snapshot()
    world.log_tuf(len(world.entries) if applied is None else applied, list(leaves) or [world.bin_leaves[0]])
    world.sign_checkpoint()


def test_a_resurrected_file_is_refused(world):
    """Taken down and published so; later tufrepo lists it again without any entry."""
    listed = dict(world.targets)
    world.decide("takedown", world.file, "malware")
    world.release()
    world.check()
    rewrite(world, bin_index(world.file.target, BIT_LENGTH), listed)
    release_after_rewrite(world)
    assert "may not be listed" in str(refused(world, "listing"))


def test_a_file_that_was_never_logged_is_refused(world):
    """A bin lists a file no entry speaks of."""
    path = "files/evil/evil-1.0.tar.gz"
    target = next(iter(world.targets.values()))
    rewrite(world, bin_index(path, BIT_LENGTH), {**world.targets, path: target})
    release_after_rewrite(world)
    assert f"{path} may not be listed" in str(refused(world, "listing"))


@pytest.mark.parametrize(
    "change",
    [
        {"length": 1},
        {"hashes": {"sha256": "00" * 32}},
        {"custom": {"i": 0, "lh": "00" * 32, "verdict": None, "yank": None}},
    ],
)
def test_a_listed_file_with_other_bytes_or_another_entry_is_refused(world, change):
    """Length, hash and the entry a target points to are all the log's to say."""
    path = world.file.target
    swapped = {**world.targets, path: world.targets[path] | change}
    rewrite(world, bin_index(path, BIT_LENGTH), swapped)
    release_after_rewrite(world)
    assert path in str(refused(world, "listing"))


def test_a_hidden_file_is_refused(world):
    """What the log lists can't be withheld by leaving it out of its bin."""
    rewrite(world, bin_index(world.file.target, BIT_LENGTH), {})
    release_after_rewrite(world)
    assert "is missing" in str(refused(world, "listing"))


def test_a_file_without_a_clear_verdict_may_not_be_listed(world):
    """Logged is not listed."""
    world.publish("beta", "1.0", list_it=False)
    beta = world.view.get(("file", "", "beta", "beta-1-py3-none-any.whl"))
    path = "files/beta/beta-1.0-py3-none-any.whl"
    target = {
        "custom": {"i": beta["index"], "lh": beta["lh"], "verdict": None, "yank": None},
        "hashes": {"sha256": beta["sha256"]},
        "length": beta["length"],
    }
    rewrite(world, bin_index(path, BIT_LENGTH), {**world.targets, path: target})
    release_after_rewrite(world)
    refused(world, "listing")


def test_a_release_that_too_few_approved_may_not_be_listed(world):
    """Scanned and clean, and its project asked for approvals: it is listed with them, and not before."""
    staged.require(world, "acme", 1)
    file = world.publish("acme", "2.0")
    world.check()
    wanted = {**world.targets, file.target: staged.target(world, file)}
    rewrite(world, bin_index(file.target, BIT_LENGTH), wanted)
    release_after_rewrite(world)
    assert "may not be listed" in str(refused(world, "listing"))


def test_an_approved_release_is_listed(world):
    """The approval alone makes a publish due, of exactly its files."""
    staged.require(world, "acme", 1)
    file = world.publish("acme", "2.0")
    assert file.target not in world.targets
    staged.approve(world, "acme", "2.0")
    world.release()
    world.check()
    assert file.target in world.targets


def test_two_bins_of_one_version_are_refused(world):
    """The bins root commits to another file under a version that was accepted before."""
    number = bin_index(world.file.target, BIT_LENGTH)
    version = world.bin_versions[number]
    rewrite(world, number, {}, version=version)
    release_after_rewrite(world)
    refused(world, "bins-root")


def test_a_bins_root_that_is_not_of_these_bins_is_refused(world):
    """The entry's root must be the one computed."""
    world.bin_leaves[0] = bins.BinLeaf(world.bin_leaves[0].role, 9, "00" * 32, b"x" * 32)
    tree = bins.BinsTree.build([leaf.leaf_hash for leaf in world.bin_leaves])
    versions = list(world.bin_versions)
    world.bins_root = tree.root
    world.bin_leaves[0] = bins.BinLeaf(world.bin_leaves[0].role, versions[0], "00" * 32, b"x" * 32)
    world._write_snapshot()
    world.log_tuf(len(world.entries), [world.bin_leaves[0]])
    world.sign_checkpoint()
    refused(world, "bins-root")


def test_a_bin_version_that_goes_back_is_refused(world):
    """A snapshot may not name an older bin."""
    number = bin_index(world.file.target, BIT_LENGTH)
    assert world.bin_versions[number] == 2
    leaf = world.bin_leaves[number]
    world.bin_leaves[number] = bins.BinLeaf(leaf.role, 1, leaf.sha256, leaf.targets_root)
    release_after_rewrite(world)
    refused(world, "version-back")


def snapshot_with(world, change):
    """Write and log a snapshot whose `meta` was changed."""
    world._write_snapshot()
    name = f"{world.versions['snapshot']}.snapshot.json"
    metadata = Metadata[Snapshot].from_bytes(world.tuf[name])
    change(metadata.signed.meta)
    metadata.sign(world.keys.tuf["snapshot"])
    world.tuf[name] = metadata.to_bytes(COMPACT)
    world.log_tuf(len(world.entries), [])
    world.sign_checkpoint()


def test_a_dropped_role_is_refused(world):
    """A role once listed stays listed."""
    snapshot_with(world, lambda meta: meta.pop("bins-0.json"))
    refused(world, "role-dropped")


def test_an_unexpected_role_is_refused(world):
    """Nobody delegates to it, so nobody could say what it lists."""
    snapshot_with(world, lambda meta: meta.update({"extra.json": meta["bins-0.json"]}))
    refused(world, "role-unexpected")


def test_a_snapshot_that_is_not_the_logged_one_is_refused(world):
    """The `tuf` entry names its SHA-256; another file of that version is not it."""
    release_without_judge(world)
    name = f"{world.versions['snapshot']}.snapshot.json"
    world.tuf[name] = world.tuf[name].replace(b'"version":1}', b'"version":1 }', 1)
    refused(world, "snapshot-digest")


def test_metadata_without_a_tuf_entry_is_not_signed(world):
    """A snapshot nobody logged does not exist for the timestamper."""
    world.yank(world.file)
    world.targets = world.listing()
    world.write_bins()
    world.sign_checkpoint()
    before = world.memory()
    assert world.attempt() is None
    assert world.memory() == before


def test_a_tuf_entry_beyond_the_cosigned_checkpoint_is_not_signed_for(world):
    """Logged is not enough: the witnesses must have seen it."""
    changed = world.write_bins()
    world.log_tuf(len(world.entries), changed)
    assert world.attempt() is None
    world.sign_checkpoint()
    assert world.attempt() is not None


def test_a_snapshot_by_another_key_is_refused(world):
    """Only the snapshot key signs snapshots."""
    world.keys.tuf["snapshot"] = CryptoSigner(signing_key("thief"))
    release_without_judge(world)
    refused(world, "signature")


def test_a_bin_by_another_key_is_refused(world):
    """Only the key that index delegates to signs bins."""
    rewrite(world, 0, world.targets, signer=CryptoSigner(signing_key("thief")))
    release_after_rewrite(world)
    refused(world, "signature")


def test_a_bin_that_delegates_is_refused(world):
    """A bin could hand its paths to somebody else."""
    key = world.keys.tuf["bins"].public_key
    roles = {"evil": DelegatedRole("evil", [key.keyid], 1, True, ["files/*/*"])}
    rewrite(world, 0, world.targets, delegations=Delegations({key.keyid: key}, roles))
    release_after_rewrite(world)
    assert "delegates" in str(refused(world, "listing"))


def test_offline_metadata_that_was_not_logged_is_refused(world):
    """Even with the targets key: what the log does not name is not signed for."""
    metadata = Metadata[Targets].from_bytes(world.tuf["1.targets.json"])
    metadata.signed.unrecognized_fields["note"] = "second copy"
    metadata.sign(world.keys.tuf["targets"])
    world.tuf["1.targets.json"] = metadata.to_bytes(COMPACT)
    release_without_judge(world)
    refused(world, "unlogged-metadata")


def test_an_earlier_timestamp_that_is_not_logged_is_refused(world):
    """A timestamp shown to one client only would leave no trace otherwise."""
    world.logged_timestamps = []
    release_without_judge(world)
    assert world.store.unlogged()[0] in str(refused(world, "timestamp-unlogged"))
    world.logged_timestamps = world.store.unlogged()
    world.release()
    world.check()


def test_the_same_metadata_may_be_carried_again_before_its_timestamp_is_logged(world):
    """A heartbeat without tufrepo: a newer checkpoint under the same snapshot."""
    old = Timestamp.parse(world.tuf["timestamp.json"])
    world.publish("beta", "1.0", list_it=False)
    world.now += HOUR
    world.sign_checkpoint()
    world.attempt(recarry=True)
    new = Timestamp.parse(world.tuf["timestamp.json"])
    assert (new.version, new.applied, new.size) == (old.version + 1, old.applied, len(world.entries))
    assert len(world.store.unlogged()) == 2
    world.release()
    world.check()
    assert len(world.store.unlogged()) == 1


def test_a_status_entry_left_waiting_for_15_minutes_stops_all_signing(world):
    """tufrepo goes on publishing without applying the takedown."""
    applied = len(world.entries)
    world.decide("takedown", world.file, "malware")
    world.sign_checkpoint()
    world.judge.watch(now=world.now)
    world.now += 15 * 60 + 1
    world.sign_checkpoint()
    with pytest.raises(RefusalError) as caught:
        world.judge.watch(now=world.now)
    assert caught.value.code == "applied-stale"
    refused(world, "applied-stale", recarry=True)
    release_without_judge(world, applied=applied)
    refused(world, "applied-stale")
    world.release()
    world.check()


def test_a_waiting_status_entry_does_not_count_while_the_quorum_is_down(world):
    """Nobody can apply what no quorum has seen lately: that is another alarm."""
    world.decide("hold", world.file, "malware")
    world.sign_checkpoint()
    world.now += 3 * HOUR
    world.judge.watch(now=world.now)


def test_a_leaf_stamped_ahead_of_the_quorum_is_refused(world):
    """A log that runs ahead of its witnesses could make waiting periods pass."""
    world.now += 301
    world.publish("beta", "1.0", list_it=False)
    world.now -= 301
    world.sign_checkpoint()
    refused(world, "leaf-time", recarry=True)


def test_a_checkpoint_that_went_back_is_refused(world):
    """A smaller tree than the one carried last."""
    old = world.checkpoint
    world.release()
    world.checkpoint = old
    refused(world, "checkpoint-back", recarry=True)


def test_a_forked_log_is_refused(world):
    """Another history of a larger size: signed, cosigned, and not an extension."""
    world.entries[4] = world.entries[5]
    world.leaves = [merkle.leaf_hash(raw) for raw in world.entries]
    release_without_judge(world)
    refused(world, error=ProofError)


def test_a_checkpoint_without_a_log_line_or_without_quorum_is_refused(world):
    """Both log keys and the witnesses, always."""
    release_without_judge(world)
    world.sign_checkpoint(log_keys=world.keys.log[:1])
    refused(world, error=SignatureError)
    world.sign_checkpoint(witnessed=False)
    refused(world, error=SignatureError)
    world.sign_checkpoint()
    assert world.attempt() is not None


def test_an_entry_that_breaks_a_rule_changes_nothing_and_is_a_finding(world):
    """The log holds a takedown nobody was allowed to make: TUF must not show it."""
    forged = json.loads(world.entries[world.file.index])
    forged["type"], forged["registry"] = "publish", forged["registry"]
    world.append_raw(Entry.parse(json.dumps(forged, separators=(",", ":"), sort_keys=True).encode()).raw)
    world.sign_checkpoint()
    world.attempt(recarry=True)
    assert [finding.broken.code for finding in world.judge.findings] == ["file-exists"]


def test_a_version_signed_twice_is_an_alarm(world):
    """The public timestamp has our version and other bytes: somebody else has the key."""
    honest = world.tuf["timestamp.json"]
    metadata = Metadata.from_bytes(honest)
    metadata.signed.unrecognized_fields["x"] = 1
    metadata.sign(world.keys.tuf["timestamp"])
    world.tuf["timestamp.json"] = metadata.to_bytes(COMPACT)
    refused(world, "two-timestamps", recarry=True)


def test_a_public_timestamp_by_another_key_is_refused(world):
    """It can't be adopted, and it can't be ignored."""
    metadata = Metadata.from_bytes(world.tuf["timestamp.json"])
    metadata.sign(CryptoSigner(signing_key("thief")))
    world.tuf["timestamp.json"] = metadata.to_bytes(COMPACT)
    refused(world, "signature", recarry=True)


def test_a_restored_timestamper_adopts_the_newest_public_timestamp_first(world, tmp_path):
    """Its database is gone: it replays everything, and signs behind what the world has seen."""
    seen = Timestamp.parse(world.tuf["timestamp.json"]).version
    digest = hashlib.sha256(world.tuf["timestamp.json"]).hexdigest()
    world.store.close()
    world.store = Store(tmp_path / "restored.sqlite")
    world.judge = world.new_judge(world.store)
    world.judge.adopt_root(world.root)
    with pytest.raises(RefusalError, match=digest):  # what it adopts must be logged, too
        world.attempt()
    assert world.store.newest().version == seen
    world.logged_timestamps = world.store.unlogged()  # so it is kept, and asks for it
    assert world.logged_timestamps == [digest]
    world.release()
    world.check()
    assert Timestamp.parse(world.tuf["timestamp.json"]).version == seen + 1


def test_a_restart_goes_on_where_it_was(world):
    """Everything needed is in the database."""
    world.open()
    assert world.attempt() is None
    world.publish("beta", "1.0")
    world.check()


def test_a_crash_before_the_signature_is_remembered_signs_nothing(world, monkeypatch):
    """The transaction is the moment: before it, no version is spent."""
    before = world.memory()
    release_without_judge(world)
    monkeypatch.setattr(Store, "set_fact", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        world.attempt()
    monkeypatch.undo()
    assert world.memory() == before
    assert world.attempt() is not None


def test_an_expired_root_is_refused(world):
    """A year without a ceremony."""
    world.now += 366 * 24 * HOUR
    release_without_judge(world)
    refused(world, "root-expired")


def test_a_trust_file_the_root_does_not_list_is_refused(world):
    """Its bytes are named by the root's own digest."""
    name = next(name for name in world.tuf if name.startswith("targets/trust/"))
    world.tuf[name] = world.tuf[name] + b" "
    refused(world, "trust-file", recarry=True)


def test_a_registry_that_does_not_answer_changes_nothing(world):
    """Unreachable is not a refusal: it is tried again."""
    world.down = lambda path: path.startswith("/log")
    refused(world, error=NetworkError, recarry=True)


def test_every_truncated_metadata_file_is_refused_by_one_of_our_errors(world):
    """Torn files never leak a foreign exception."""
    release_without_judge(world)
    version = world.versions["snapshot"]
    for name in (f"{version}.snapshot.json", "1.targets.json", "1.trust.json", "1.index.json"):
        whole = world.tuf[name]
        for end in (0, 1, len(whole) // 2, len(whole) - 1):
            world.tuf[name] = whole[:end]
            refused(world, error=CountermarkError)
        world.tuf[name] = whole
    assert world.attempt() is not None


KEYS = st.lists(st.text(max_size=5), min_size=1, max_size=4).map(tuple)
PLAIN = st.none() | st.booleans() | st.integers(0, 2**53 - 1) | st.text(st.characters(), max_size=5)


@given(st.dictionaries(KEYS, st.dictionaries(st.text(max_size=3), PLAIN, max_size=3), max_size=4))
def test_its_store_reads_what_the_library_spelled(values) -> None:
    """Rows of earlier versions, which the standard library wrote, and its own: in one spelling of keys."""
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(Store(Path(folder, "old"))) as store:
        rows = [(json.dumps(list(key)), json.dumps(value)) for key, value in values.items()]
        store._connection.executemany("INSERT INTO state VALUES (?, ?)", rows)
        assert store.get_all(values) == values
        store.put_all(values)
        assert [store.get(key) for key in values] == list(values.values())
        names = {name for (name,) in store._connection.execute("SELECT key FROM state")}
        assert names == {name for name, _ in rows}
