"""Asking witnesses: tolerant of how they refuse, strict about what is a yes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from countermark.errors import UsageError
from countermark.fetch import Answer
from countermark.tlog.checkpoint import open_checkpoint
from countermark.tlog.cosignature import Ed25519CosignatureSigner
from countermark.tlog.note import Note, Signature, format_base64
from countermark.tlog.policy import Policy
from countermark_server.log.publish import NoQuorumError
from countermark_server.log.tree import public_tree
from countermark_server.log.witnesses import (
    Quorum,
    Witness,
    WitnessAheadError,
    WitnessDisagreesError,
    WitnessError,
    check_quorum_allowed,
    witness_urls,
)
from tests.log_world import NOW, LogWorld, WitnessFetcher, drain, key

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def world(tmp_path: Path):
    world = LogWorld(tmp_path)
    world.begin()
    station = world.station()
    station.check_start()
    drain(station)
    for number in range(3):
        world.upload(number)
    drain(station)
    yield world
    world.close()


def ask(world: LogWorld, *answers: Answer) -> Callable[[], Signature]:
    """One question by a client that has not talked yet, to be answered so (then by the real witness)."""
    witness = new_witness(world)
    world.fetcher.answers = list(answers)
    checkpoint = head(world)
    return lambda: witness.cosign(checkpoint, reader(world))


def new_witness(world: LogWorld) -> Witness:
    (known,) = world.trust.policy.witnesses
    return Witness(
        known.name, known.key, "http://w", world.fetcher, timeout=1, clock=world.clock, sleep=lambda _: None
    )


def head(world: LogWorld):
    return world.station().sequencer.load()


def reader(world: LogWorld):
    checkpoint = head(world)
    return public_tree(world.public).reader(checkpoint.size, checkpoint.root_hash)


def line(world: LogWorld, *, name: str = "witness.test/w1", seed: str = "witness", at: int = NOW) -> bytes:
    signer = Ed25519CosignatureSigner(name, key(seed))
    return signer.sign(head(world).text(), time=at).format().encode()


def conflict(body: bytes) -> Answer:
    return Answer(409, "", {}, body)


def test_the_size_is_learnt_from_a_conflict(world: LogWorld) -> None:
    """A client without memory asks with old 0, is told 7, and proves from there."""
    cosign = ask(world)
    world.fetcher.seen.clear()
    assert cosign().name == "witness.test/w1"
    assert len(world.fetcher.seen) == 2
    world.fetcher.seen.clear()
    cosign()
    assert len(world.fetcher.seen) == 1  # remembered


def test_only_the_logs_own_lines_are_sent(world: LogWorld) -> None:
    """However many cosignatures were collected, a witness sees two lines."""
    assert {note.count("\N{EM DASH}".encode()) for note in world.fetcher.seen} == {2}


@pytest.mark.parametrize("status", [429, 500, 503])
def test_overload_is_tried_again(world: LogWorld, status: int) -> None:
    """429 and 5xx are neither yes nor contradiction."""
    cosign = ask(world, Answer(status, "", {}, b""), Answer(status, "", {}, b""))
    assert cosign().name == "witness.test/w1"
    cosign = ask(world, *[Answer(status, "", {}, b"")] * 9)
    with pytest.raises(WitnessError, match=str(status)):
        cosign()


def test_a_store_that_cannot_be_read_is_not_the_witnesss_fault(world: LogWorld) -> None:
    """No proof can be made: the store's own error passes, nothing is asked, and the next question is answered."""
    witness, checkpoint = new_witness(world), head(world)
    witness.cosign(checkpoint, reader(world))  # it remembers the size, so the next question needs a proof
    station = world.station()
    station.check_start()
    world.upload(9)
    drain(station)
    grown, seen = head(world), len(world.fetcher.seen)

    def away(_places: object) -> list[bytes]:
        raise OSError("the store is away")

    with pytest.raises(OSError, match="the store is away"):
        witness.cosign(grown, away)
    assert len(world.fetcher.seen) == seen
    assert witness.cosign(grown, reader(world)).name == "witness.test/w1"


@pytest.mark.parametrize("status", [301, 400, 403, 404, 418])
def test_other_refusals_are_not_repeated(world: LogWorld, status: int) -> None:
    """An unknown log (404, or 403 of older witnesses) won't know us in ten milliseconds either."""
    world.fetcher.seen.clear()
    cosign = ask(world, Answer(status, "", {}, b"no"))
    with pytest.raises(WitnessError, match=str(status)):
        cosign()
    assert len(world.fetcher.seen) == 1


@pytest.mark.parametrize("body", [b"", b"seven\n", b"-1\n", b"007\n", b"\xff\xfe"])
def test_a_conflict_without_a_size_is_asked_again_and_never_a_yes(world: LogWorld, body: bytes) -> None:
    """409 with an unreadable body: old 0 again, then give up for now."""
    cosign = ask(world, conflict(body))
    assert cosign().name == "witness.test/w1"
    cosign = ask(world, *[conflict(body)] * 9)
    with pytest.raises(WitnessError, match="409"):
        cosign()


def test_a_conflict_without_a_size_at_our_own_size_is_a_contradiction(world: LogWorld) -> None:
    """Some witnesses answer another root of the same size with a bare 409."""
    cosign = ask(world, conflict(b"7\n"), conflict(b""))
    with pytest.raises(WitnessDisagreesError, match="does not accept our root"):
        cosign()


def test_a_larger_size_is_a_contradiction(world: LogWorld) -> None:
    """A witness that cosigned more than we have knows that we lost history."""
    cosign = ask(world, conflict(b"8\n"))
    with pytest.raises(WitnessAheadError, match="cosigned size 8, our log is at 7"):
        cosign()


def test_a_refused_proof_is_a_contradiction(world: LogWorld) -> None:
    """422: our proof leads from our tree, so the witness holds another."""
    cosign = ask(world, conflict(b"5\n"), Answer(422, "", {}, b"inconsistent\n"))
    with pytest.raises(WitnessDisagreesError, match="inconsistent"):
        cosign()


def test_a_witness_that_keeps_changing_its_mind_is_left(world: LogWorld) -> None:
    """Endless conflicts end."""
    cosign = ask(world, *[conflict(b"%d\n" % (i % 3)) for i in range(20)])
    with pytest.raises(WitnessError):
        cosign()
    assert world.fetcher.answers


def test_a_yes_must_hold_its_own_true_line(world: LogWorld) -> None:
    """200 with nothing, junk, another key's line, a false line or no time is not a cosignature."""
    other = line(world, name="other.test/w", seed="other")
    stolen = line(world, seed="other")  # its own name, another key: another key ID
    false = bytearray(line(world))
    false[-20] ^= 1
    signer = Ed25519CosignatureSigner("witness.test/w1", key("witness"))
    wrong_text = signer.sign(f"x.test\n7\n{format_base64(bytes(32))}\n", time=NOW).format().encode()
    for body in (b"", b"junk\n", b"\xff\n", other, stolen, bytes(false), wrong_text, line(world, at=0)):
        cosign = ask(world, Answer(200, "", {}, body))
        with pytest.raises(WitnessError):
            cosign()
    cosign = ask(world, Answer(200, "", {}, other + line(world)))
    assert cosign().name == "witness.test/w1"


def test_a_cosignature_from_the_future_is_not_published(world: LogWorld) -> None:
    """Beyond the skew the checkpoint would be refused by everybody; it is not published."""
    station = world.station()
    station.check_start()
    world.fetcher.answers = [Answer(200, "", {}, line(world, at=NOW + 301))] * 9
    before = world.files()
    with pytest.raises(NoQuorumError, match=f"signed at {NOW + 301}, which is ahead of our clock, {NOW}"):
        station.publisher.publish(station.sequencer.checkpoint)
    assert world.files() == before


# --- a quorum of several ----------------------------------------------------------------------------------


def quorum(world: LogWorld, *fetchers: WitnessFetcher, threshold: int) -> tuple[Policy, Quorum]:
    keys = [Ed25519CosignatureSigner(f"w.test/{i}", key(f"w{i}")) for i in range(len(fetchers))]
    lines = [f"log {signer.vkey.format()}" for signer in world.signers]
    lines += [f"witness w{i} {signer.vkey.format()}" for i, signer in enumerate(keys)]
    names = " ".join(f"w{i}" for i in range(len(keys)))
    policy = Policy.parse("\n".join([*lines, f"group g {threshold} {names}", "quorum g", ""]))
    asked = [
        Witness(w.name, w.key, "http://w", fetcher, timeout=1, clock=world.clock, sleep=lambda _: None)
        for w, fetcher in zip(policy.witnesses, fetchers, strict=True)
    ]
    return policy, Quorum(policy, asked)


class Answers:
    """A fetcher that always says the same."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def get(self, url: str, **_: object) -> bytes | None:
        return None

    def post(self, url: str, body: bytes, **_: object) -> Answer:
        return self.answer


def yes(world: LogWorld, number: int, at: int = NOW) -> Answers:
    return Answers(Answer(200, "", {}, line(world, name=f"w.test/{number}", seed=f"w{number}", at=at)))


def test_two_of_three_suffice(world: LogWorld) -> None:
    """One silent witness does not stop the log."""
    _, asked = quorum(world, yes(world, 0), Answers(Answer(503, "", {}, b"")), yes(world, 2), threshold=2)
    lines, _ = asked.cosign(head(world), reader(world))
    assert {found.name for found in lines} == {"w.test/0", "w.test/2"}
    asked.close()


def test_a_witness_whose_clock_has_leapt_does_not_stop_the_log(world: LogWorld) -> None:
    """Its cosignature would have everybody refuse the checkpoint; the quorum is made of the others."""
    witnesses = yes(world, 0, at=NOW + 301), yes(world, 1, at=NOW + 300), yes(world, 2)
    policy, asked = quorum(world, *witnesses, threshold=2)
    checkpoint = head(world)
    lines, problems = asked.cosign(checkpoint, reader(world), everybody=True)
    raw = Note(checkpoint.text(), (*checkpoint.log_signatures, *lines)).format()
    assert open_checkpoint(raw, policy, now=NOW).cosignatures == {"w1": NOW + 300, "w2": NOW}
    assert problems == [f"w0 signed at {NOW + 301}, which is ahead of our clock, {NOW}"]
    asked.close()


def test_one_of_three_does_not_suffice(world: LogWorld) -> None:
    """Fail-closed: what is there is returned, and is no quorum."""
    no = Answers(Answer(503, "", {}, b""))
    policy, asked = quorum(world, yes(world, 0), no, no, threshold=2)
    lines, problems = asked.cosign(head(world), reader(world))
    assert len(lines) == 1 and len(problems) == 2
    assert policy.quorum_time({"w0": NOW}) is None
    asked.close()


def test_one_contradiction_outweighs_a_quorum(world: LogWorld) -> None:
    """Two cosign, the third has seen more: stop. (All three must have answered for that.)"""
    ahead = Answers(conflict(b"900\n"))
    _, asked = quorum(world, ahead, yes(world, 1), yes(world, 2), threshold=3)
    with pytest.raises(WitnessAheadError):
        asked.cosign(head(world), reader(world))
    asked.close()


class Slow(Answers):
    """Says its sentence when it is let."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.let, self.entered, self.asked = threading.Event(), threading.Event(), 0

    def post(self, url: str, body: bytes, **_: object) -> Answer:
        self.asked += 1
        answer = self.answer
        self.entered.set()
        assert self.let.wait(10)
        return answer


def test_a_start_hears_every_witness_out(world: LogWorld) -> None:
    """One of two suffices, but the slower one has seen more: a quorum does not outvote what was lost."""
    slow = Slow(conflict(b"900\n"))
    _, asked = quorum(world, yes(world, 0), slow, threshold=1)
    threading.Timer(0.2, slow.let.set).start()
    with pytest.raises(WitnessAheadError):
        asked.cosign(head(world), reader(world), everybody=True)
    asked.close()


def test_a_contradiction_that_comes_after_the_quorum_stops_the_next_publication(world: LogWorld) -> None:
    """The round it belongs to went out with others' lines; it is not forgotten."""
    slow = Slow(conflict(b"900\n"))
    _, asked = quorum(world, yes(world, 0), slow, threshold=1)
    assert len(asked.cosign(head(world), reader(world))[0]) == 1
    assert slow.entered.wait(10)  # it was asked, and what it will say is settled
    slow.answer = Answer(503, "", {}, b"")
    slow.let.set()
    with pytest.raises(WitnessAheadError):
        for _ in range(200):
            asked.cosign(head(world), reader(world))
            time.sleep(0.01)
    asked.close()


def test_a_hanging_witness_is_asked_one_question_and_delays_nobody(world: LogWorld) -> None:
    """Ten publications while the third is silent: no queue behind it, and no older question after a newer one."""
    slow = Slow(Answer(503, "", {}, b""))
    _, asked = quorum(world, yes(world, 0), yes(world, 1), slow, threshold=2)
    checkpoint, read = head(world), reader(world)
    began = time.monotonic()
    for _ in range(10):
        lines, _problems = asked.cosign(checkpoint, read)
        assert {found.name for found in lines} == {"w.test/0", "w.test/1"}
    assert time.monotonic() - began < 1
    assert slow.entered.wait(10) and slow.asked == 1
    slow.let.set()
    asked.close()


# --- settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("log.test", True), ("log.test/x", True), ("a.example/x", True), ("b.invalid", True),
        ("registry.example.com", False), ("test", False), ("example.com/x.test", False), ("xtest/x", False),
    ],
)  # fmt: skip
def test_quorum_none_is_for_names_nobody_can_own(world: LogWorld, origin: str, allowed: bool) -> None:
    """The ending of the host counts, not of the path."""
    policy = Policy.parse(f"log {world.signers[0].vkey.format()}\nquorum none\n")
    if allowed:
        check_quorum_allowed(policy, origin)
    else:
        with pytest.raises(UsageError, match="no witness"):
            check_quorum_allowed(policy, origin)


@pytest.mark.parametrize("given", ["", "w2=http://x", "w1", "http://x", "w1="])
def test_every_witness_needs_a_url(world: LogWorld, given: str) -> None:
    """A name the policy does not know, or a witness nobody can find, is refused at the start."""
    with pytest.raises(UsageError):
        witness_urls(world.trust.policy, given)
