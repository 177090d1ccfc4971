"""Log only: a lying look-up, a log that holds what it should not, a withdrawn file; each refused, its author named.

Nobody listed these files, no timestamp key looked at them: the log's proofs and its history are all there is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from countermark.clientpolicy import LogOnly
from countermark.errors import UsageError
from countermark.limits import HEAD_MAX_AGE
from countermark.statement import KeySigner
from countermark.tlog.note import Note
from tests import staged
from tests.elsewhere import Elsewhere, LogOnlyMachine, held
from tests.simulator import HOUR, Published, World, signing_key


@pytest.fixture
def corp(world: World) -> Elsewhere:
    return Elsewhere(world, "corp")


@pytest.fixture
def wheel(world: World, corp: Elsewhere) -> Published:
    """A file of corp's, in the log and under its public checkpoint; the timestamp carries an older one."""
    file = corp.publish()
    world.sign_checkpoint()
    world.check()
    return file


@pytest.fixture
def machine(tmp_path: Path, world: World, wheel: Published) -> LogOnlyMachine:
    """A machine that has checked the wheel once."""
    machine = LogOnlyMachine(tmp_path, world)
    machine.log_only(wheel)
    return machine


def lie(corp: Elsewhere, file: Published, index: object) -> None:
    """The look-up names this entry for the file."""
    corp.world.override[corp.look_up(file)] = json.dumps({"index": index}).encode()


# --- what holds ------------------------------------------------------------------------------------------


def test_a_logged_file_is_never_called_verified(
    machine: LogOnlyMachine, wheel: Published, corp: Elsewhere
) -> None:
    """All steps hold, exit 0 by this machine's own policy; `verified` is false and the words say what is missing."""
    said = machine.log_only(wheel).to_json()
    (item,) = said["artifacts"]
    assert (said["log_only"], said["verified"], item["verified"], item["logged"]) == (
        True,
        False,
        False,
        True,
    )
    assert [step["step"] for step in item["steps"]] == [1, 2, 3, 4, 5, 6, 7]
    assert (
        f"enrolled at #{corp.index}; unchained, first seen at #{corp.index}" in item["signed_by"]["sentence"]
    )


def test_without_a_policy_for_the_namespace_it_is_refused(
    tmp_path: Path, world: World, wheel: Published
) -> None:
    """All is proved, and nobody on this machine said that it is enough: exit 5, with the line that would say so."""
    machine = LogOnlyMachine(tmp_path, world, enough=(LogOnly("other"),))
    error = machine.refuse_log_only(5, "nothing on this machine says that the log is enough", wheel)
    assert 'namespace = "corp"' in (error.hint or "")
    assert machine.check(wheel).to_json()["artifacts"][0]["logged"] is True


def test_verify_never_falls_back_to_the_log(machine: LogOnlyMachine, wheel: Published, world: World) -> None:
    """The same file, asked for as anybody asks: no entry, whatever the machine's policy says of namespaces."""
    world.heartbeat()
    machine.refuse(5, "no entry for", wheel)
    for namespace in ("", "a/b", "Corp"):
        with pytest.raises(UsageError, match="is no namespace"):
            machine.check(wheel, namespace=namespace)


def test_a_pinned_key_must_have_signed(
    tmp_path: Path, world: World, wheel: Published, corp: Elsewhere
) -> None:
    """Against the registry itself only a pin protects."""
    LogOnlyMachine(tmp_path / "a", world, enough=(LogOnly("corp", frozenset({corp.key.keyid})),)).log_only(
        wheel
    )
    other = LogOnlyMachine(tmp_path / "b", world, enough=(LogOnly("corp", frozenset({"00" * 32})),))
    other.refuse_log_only(5, "is not pinned for corp/acme-demo", wheel)


def test_history_is_read_once_and_goes_on(
    machine: LogOnlyMachine, wheel: Published, world: World, corp: Elsewhere
) -> None:
    """What was read is kept; damaged or of another history, it is read anew; the answer is the same."""
    (memory,) = (machine.registry.folder / "namespaces").iterdir()
    kept = json.loads(memory.read_bytes())
    assert kept["size"] == world.log_size
    second = corp.publish(version="2.0")
    world.sign_checkpoint()
    machine.log_only(wheel, second)
    assert json.loads(memory.read_bytes())["size"] == world.log_size
    for damaged in (
        b"",
        b"{",
        json.dumps({**kept, "root": "00" * 32, "state": []}).encode(),
        json.dumps({**kept, "size": 99}).encode(),
    ):
        memory.write_bytes(damaged)
        machine.log_only(wheel, second)


# --- a look-up that lies ----------------------------------------------------------------------------------


def test_a_wrong_index_is_refused(
    machine: LogOnlyMachine, wheel: Published, corp: Elsewhere, world: World
) -> None:
    """The entry of another file, one that is no publish, one that does not exist, none at all."""
    second = corp.publish(version="2.0")
    world.sign_checkpoint()
    for index, words in (
        (second.index, f"names entry #{second.index}, which is the publish of corp/acme-demo/acme_demo-2.0"),
        (corp.index, "which is a key-enroll"),
        (9_999, f"names entry #9999, {world.origin} has {world.log_size}"),
    ):
        lie(corp, wheel, index)
        error = machine.refuse_log_only(7, words, wheel)
        assert "the look-up" in str(error)
    for index in (-1, True, None, "5", 1.5):
        lie(corp, wheel, index)
        machine.refuse_log_only(7, "names no entry", wheel)
    for answer in (b"", b"[]", b"{}", b"[" * 100_000):
        world.override[corp.look_up(wheel)] = answer
        machine.refuse_log_only(7, "names no entry", wheel)


def test_the_entry_of_another_project_is_refused(
    machine: LogOnlyMachine, wheel: Published, corp: Elsewhere, world: World
) -> None:
    """The same bytes, signed by the same key, under another project of the namespace."""
    other = corp.publish("acme-tool", data=wheel.data)
    world.sign_checkpoint()
    lie(corp, wheel, other.index)
    machine.refuse_log_only(7, "which is the publish of corp/acme-tool/", wheel)


def test_the_same_name_in_another_namespace_is_refused(
    machine: LogOnlyMachine, wheel: Published, corp: Elsewhere, world: World
) -> None:
    """Anybody may open one, and log the very same bytes or others under the very same name."""
    evil = Elsewhere(world, "evil")
    for version, data in (("1.0", wheel.data), ("3.0", b"worm")):
        file = evil.publish(version=version, data=data)
        world.sign_checkpoint()
        lie(corp, file, file.index)
        machine.refuse_log_only(7, "which is the publish of evil/acme-demo/", file)


def test_a_file_of_the_default_namespace_is_refused(
    machine: LogOnlyMachine, corp: Elsewhere, world: World
) -> None:
    """Listed files are verified by TUF; the log alone is no way around a withdrawal."""
    listed = world.publish("acme-demo", "9.0")
    lie(corp, listed, listed.index)
    machine.refuse_log_only(7, "which is the publish of /acme-demo/", listed)


def test_a_withheld_entry_is_refused(
    machine: LogOnlyMachine, wheel: Published, corp: Elsewhere, world: World
) -> None:
    """The look-up knows no such file, and the log has it: who asks has read all of it."""
    world.override[corp.look_up(wheel)] = None
    machine.refuse_log_only(7, f"knows no such file, entry #{wheel.index} of", wheel)
    ghost = replace(held(wheel, "corp"), version="6.6", filename="acme_demo-6.6-py3-none-any.whl")
    machine.refuse_log_only(
        5, f"no entry for corp/acme-demo/acme_demo-6.6-py3-none-any.whl among the {world.log_size}", ghost
    )


def test_other_bytes_are_refused(machine: LogOnlyMachine, wheel: Published) -> None:
    """The file, not the log, is at fault; both hashes are named."""
    error = machine.refuse_log_only(7, f"entry #{wheel.index} of", replace(wheel, data=b"worm"))
    assert wheel.sha256 in str(error) and replace(wheel, data=b"worm").sha256 in str(error)
    machine.refuse_log_only(7, "with 3 bytes", replace(held(wheel, "corp"), length=3))


# --- the head ----------------------------------------------------------------------------------------------


def test_a_stale_checkpoint_is_refused(
    machine: LogOnlyMachine, wheel: Published, corp: Elsewhere, world: World
) -> None:
    """The checkpoint of yesterday hides today's revocation: smaller than one seen here, or than the timestamp's."""
    old = world.checkpoint
    corp.revoke(since=wheel.index)
    world.sign_checkpoint()
    machine.refuse_log_only(6, "is held", wheel)  # this machine has seen the newer head
    world.override["/log/checkpoint"] = old
    machine.refuse_log_only(7, "rollback", wheel)


def test_a_checkpoint_behind_the_timestamps_is_refused(
    tmp_path: Path, wheel: Published, corp: Elsewhere, world: World
) -> None:
    """A machine that has seen nothing yet is told by what the timestamp carries."""
    old = world.checkpoint
    corp.revoke(since=wheel.index)
    world.heartbeat()
    world.override["/log/checkpoint"] = old
    LogOnlyMachine(tmp_path, world).refuse_log_only(7, "its timestamp carries of size", wheel)


def test_a_head_that_no_quorum_saw_today_is_too_old(
    machine: LogOnlyMachine, wheel: Published, world: World
) -> None:
    """A fresh timestamp does not make an old head young: what came since is unknown, exit 4."""
    world.now += int(HEAD_MAX_AGE.total_seconds()) - HOUR
    old = world.checkpoint
    world.sign_timestamp(applied=0, checkpoint=old)
    machine.log_only(wheel)
    world.now += 2 * HOUR
    world.sign_timestamp(applied=0, checkpoint=old)
    machine.refuse_log_only(4, "was seen by its quorum 25 h ago", wheel)
    world.sign_checkpoint()
    machine.log_only(wheel)


@pytest.mark.parametrize("change", ["witness", "log key"])
def test_an_unwitnessed_head_is_refused(
    machine: LogOnlyMachine, wheel: Published, world: World, change: str
) -> None:
    """The public checkpoint is held to the trust file like the carried one: every log key, and the quorum."""
    note = Note.parse(world.checkpoint)
    lines = note.signatures[:-1] if change == "witness" else note.signatures[1:]
    world.override["/log/checkpoint"] = Note(note.text, lines).format()
    machine.refuse_log_only(
        7, "lacks the quorum" if change == "witness" else "is not signed by its key", wheel
    )


@pytest.mark.parametrize("grow", [0, 2])
def test_a_forked_log_is_refused_and_both_heads_are_kept(
    machine: LogOnlyMachine, wheel: Published, corp: Elsewhere, world: World, grow: int
) -> None:
    """Log keys and witness collude in a second history, without the revocation."""
    other = world.copy()
    corp.revoke(since=wheel.index)
    world.sign_checkpoint()
    machine.refuse_log_only(6, "is held", wheel)
    double = Elsewhere.__new__(Elsewhere)
    double.__dict__.update({**vars(corp), "world": other})
    for number in range(1 + grow):
        double.publish(version=f"7.{number}")
    other.now += 60
    other.heartbeat()
    machine.refuse_log_only(7, "fork: at size", wheel, world=other)
    (evidence,) = [json.loads(path.read_text()) for path in machine.evidence()]
    assert evidence["class"] == "self-proving"


def test_tiles_of_another_history_are_refused(
    machine: LogOnlyMachine, wheel: Published, corp: Elsewhere, world: World
) -> None:
    """The same under the timestamp of before, which both histories have: the tiles lead to no head seen here."""
    other = world.copy()
    corp.revoke(since=wheel.index)
    world.sign_checkpoint()
    machine.refuse_log_only(6, "is held", wheel)
    other.publish("acme-demo", "7.0", list_it=False)
    other.sign_checkpoint()
    machine.refuse_log_only(7, "the checkpoint has", wheel, world=other)


def test_a_fork_behind_the_timestamp_is_refused(
    machine: LogOnlyMachine, wheel: Published, corp: Elsewhere, world: World
) -> None:
    """Timestamp and tiles of the head seen here are the honest ones; only what comes after is another log."""
    other = world.copy()
    corp.revoke(since=wheel.index)
    world.sign_checkpoint()
    machine.refuse_log_only(6, "is held", wheel)
    path = f"/log/tile/0/000.p/{world.log_size}"
    other.override[path] = world.get(world.base + path)
    for number in range(3):
        other.publish("acme-demo", f"7.{number}", list_it=False)
    other.sign_checkpoint()
    machine.refuse_log_only(7, "fork: at size", wheel, world=other)


def test_a_fork_beside_the_timestamp_is_refused_at_first_contact(
    tmp_path: Path, wheel: Published, corp: Elsewhere, world: World
) -> None:
    """The public log and the one the timestamp carries are two: no head seen before is needed to notice."""
    other = world.copy()
    corp.publish(version="2.0")
    world.heartbeat()
    for number in range(2):
        other.publish("acme-demo", f"5.{number}", list_it=False)
    other.sign_checkpoint()
    other.tuf = dict(world.tuf)
    LogOnlyMachine(tmp_path, world).refuse_log_only(7, "fork: at size", wheel, world=other)


# --- the log, and what it says -----------------------------------------------------------------------------


Act = Callable[[Elsewhere, Published], int]


@pytest.mark.parametrize(
    "withdrawal",
    [
        (lambda corp, file: corp.decide("hold", file, "malware"), "is held: hold by entry #{0} (malware)"),
        (lambda corp, file: corp.decide("takedown", file, "malware"), "is removed: takedown by entry #{0}"),
        (lambda corp, file: corp.act("remove", file, "secret"), "is removed: remove by entry #{0} (secret)"),
        (
            lambda corp, file: corp.revoke(since=file.index),
            "is held: its key revoked by entry #{0} (compromised)",
        ),
    ],
    ids=["hold", "takedown", "remove", "revoked"],
)
def test_a_withdrawn_file_is_refused(
    machine: LogOnlyMachine, wheel: Published, corp: Elsewhere, withdrawal: tuple[Act, str]
) -> None:
    """The look-up says nothing of it, and no TUF does: the entry itself is read."""
    act, words = withdrawal
    index = act(corp, wheel)
    corp.world.sign_checkpoint()
    machine.refuse_log_only(6, words.format(index), wheel)


def test_a_clear_gives_back_and_a_yank_is_a_remark(
    machine: LogOnlyMachine, wheel: Published, corp: Elsewhere, world: World
) -> None:
    """By the same rules as everywhere."""
    corp.decide("hold", wheel, "malware")
    corp.decide("clear", wheel, "false-positive")
    yank = corp.act("yank", wheel, "broken")
    world.sign_checkpoint()
    (outcome,) = machine.log_only(wheel).outcomes
    assert outcome.to_json()["remarks"] == [f"yanked by entry #{yank} (broken)"]


def test_a_publish_by_a_revoked_key_is_refused(
    machine: LogOnlyMachine, wheel: Published, corp: Elsewhere, world: World
) -> None:
    """The sequencer takes what its rules forbid; signature and proofs hold: the log is at fault, by name."""
    corp.revoke(since=None, reason="retired")
    late = corp.publish(version="4.0", raw=True)
    lie(corp, late, late.index)
    world.sign_checkpoint()
    machine.refuse_log_only(7, f"entry #{late.index} should not be in {world.origin}: key-revoked", late)
    machine.log_only(wheel)  # what it signed while it was enrolled stays good


def test_a_publish_by_an_expired_key_is_refused(tmp_path: Path, world: World) -> None:
    """Judged at the entry's own time."""
    corp = Elsewhere(world, "corp", valid_for=HOUR)
    good = corp.publish()
    world.now += 2 * HOUR
    late = corp.publish(version="4.0", raw=True)
    lie(corp, late, late.index)
    world.heartbeat()
    machine = LogOnlyMachine(tmp_path, world)
    machine.log_only(good)
    machine.refuse_log_only(7, "should not be in registry.test/log: key-expired", late)


def test_other_bytes_under_a_name_that_is_taken_are_refused(
    machine: LogOnlyMachine, wheel: Published, corp: Elsewhere, world: World
) -> None:
    """The owner of the key and the sequencer collude: the first bytes have the name for ever."""
    second = corp.publish(data=b"worm", raw=True)
    lie(corp, wheel, second.index)
    world.sign_checkpoint()
    machine.refuse_log_only(7, "file-exists", second)


def test_a_second_first_key_is_refused(
    machine: LogOnlyMachine, wheel: Published, corp: Elsewhere, world: World
) -> None:
    """The sequencer enrols a key of its own as if the namespace were new; alone, that chain looks whole."""
    mine = KeySigner(signing_key("the sequencer's"))
    index = corp.enrol(mine, prev=None, raw=True)
    file = corp.publish(version="6.0", key=mine, key_index=index, raw=True)
    lie(corp, file, file.index)
    world.sign_checkpoint()
    machine.refuse_log_only(7, f"entry #{file.index} should not be in", file)


def test_a_release_that_waits_for_approvals_is_refused(
    machine: LogOnlyMachine, corp: Elsewhere, world: World
) -> None:
    """No TUF lists it, so the machine counts approvals itself; once they are in the log it is accepted."""
    staged.require(world, "", 1, namespace="corp", key=corp.key, account=corp.account)
    file = corp.publish(version="7.0")
    world.sign_checkpoint()
    machine.refuse_log_only(5, "waiting for approval 1 of 1", file)
    staged.approve(world, "acme-demo", "7.0", namespace="corp", key=corp.key, account=corp.account)
    world.sign_checkpoint()
    machine.log_only(file)


def test_an_altered_entry_is_refused(machine: LogOnlyMachine, wheel: Published, world: World) -> None:
    """An entry bundle with other bytes does not hash to its slot."""
    path = f"/log/tile/entries/000.p/{world.log_size}"
    world.override[path] = (world.get(world.base + path) or b"").replace(b'"publish"', b'"publisH"')
    machine.refuse_log_only(7, "leaf hash", wheel)


def test_others_withdraw_nothing(machine: LogOnlyMachine, wheel: Published, world: World) -> None:
    """Somebody else's namespace: his copy of the bytes removed, his key revoked since #0."""
    evil = Elsewhere(world, "evil")
    copy = evil.publish(data=wheel.data)
    evil.act("remove", copy, "other")
    evil.revoke(since=0)
    world.sign_checkpoint()
    machine.log_only(wheel)


def test_out_of_reach_nothing_is_said(machine: LogOnlyMachine, wheel: Published, world: World) -> None:
    """No cache stands in for the newest head: exit 3."""
    world.down = lambda path: True
    machine.refuse_log_only(3, "cannot be read offline", wheel)
    world.down = lambda path: path.startswith("/api/")
    machine.refuse_log_only(3, "503", wheel)
