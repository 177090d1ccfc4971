"""Log-only bundles: what each lie in one is refused with; and no reader takes one for the bundle of a listed file."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from countermark.bundle import Bundle
from countermark.bundling import make_log_only
from countermark.clientpolicy import ClientPolicy, LogOnly, Policies
from countermark.errors import CountermarkError, MalformedError, PolicyError, WithdrawnError
from countermark.limits import BUNDLE_ENTRIES_MAX
from countermark.logbundle import LogBundle
from countermark.logged import Logged
from countermark.logoffline import LogOfflineReport, verify_log_bundles
from countermark.offline import verify_bundles
from countermark.tlog.note import Note
from countermark.verified import Artifact
from tests.elsewhere import Elsewhere, LogOnlyMachine, held
from tests.mutations import sampled
from tests.simulator import HOUR, Published, World

DAY = 86400
SAMPLE = 300


class Desk:
    """A registry with a file of corp's, a machine that made its bundle, and one that only has the root."""

    def __init__(self, folder: Path) -> None:
        self.world = World()
        self.corp = Elsewhere(self.world, "corp")
        self.file = self.corp.publish()
        self.world.sign_checkpoint()
        self.maker, self.reader = (LogOnlyMachine(folder / name, self.world) for name in ("maker", "reader"))
        self.raw = self.make(self.file)

    def make(self, file: Published, *, world: World | None = None) -> bytes:
        world = world or self.world
        (raw,) = make_log_only(
            [held(file, "corp")],
            "corp",
            self.maker.registry,
            world,
            now=world.now,
            policies=self.maker.policies,
        ).values()
        return raw

    def open(
        self,
        raw: bytes,
        artifact: Artifact | None = None,
        *,
        age: int = 0,
        max_age: int = DAY,
        **changes: object,
    ) -> LogOfflineReport:
        artifact = artifact or held(self.file, "corp")
        policies = changes.get("policies", self.reader.policies)
        assert isinstance(policies, Policies)
        return verify_log_bundles(
            [(artifact, raw)],
            artifact.namespace,
            self.reader.registry,
            now=self.world.now + age,
            max_age=max_age,
            policies=policies,
        )

    def refuse(
        self, code: int, words: str, raw: bytes, artifact: Artifact | None = None, **changes: object
    ) -> None:
        """This refusal in these words, and nothing but evidence is written."""
        before = self.reader.snapshot()
        report = self.open(raw, artifact, **changes)  # type: ignore[arg-type]
        (result,) = report.results
        error = result.outcome.finding if isinstance(result.outcome, Logged) else result.outcome.error
        assert error is not None and report.exit_code == code and words in str(error), (
            f"{report.exit_code}: {error}"
        )
        assert self.reader.snapshot() == before
        assert report.to_json()["verified"] is False


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_bundle_says_what_it_does_not_know(desk: Desk) -> None:
    """Accepted by policy, never verified; standing is claimed by nobody, offline."""
    desk.world.down = lambda path: True
    report = desk.open(desk.raw, age=HOUR)
    assert report.exit_code == 0
    (item,) = report.to_json()["artifacts"]
    assert (item["logged"], item["verified"]) == (True, False)
    assert item["claims"][1] == "nothing is said of its standing: no TUF, no verdict, no later entry was read"
    assert item["claims"][2].endswith("60 min ago")
    assert 6 not in [step["step"] for step in item["steps"]]


def test_neither_kind_is_taken_for_the_other(desk: Desk) -> None:
    """Another format: the reader of listed files refuses it, and the other way round."""
    with pytest.raises(MalformedError, match="this is not a bundle"):
        Bundle.parse(desk.raw)
    listed = desk.world.publish("acme-demo", "9.0")
    artifact = replace(held(listed, ""), filename=listed.filename)
    report = verify_bundles(
        [(artifact, desk.raw)], desk.reader.registry, now=desk.world.now, max_age=DAY, policies=Policies()
    )
    assert report.exit_code == 7
    with pytest.raises(MalformedError, match="not a log-only bundle"):
        LogBundle.parse(b"{}")


def test_what_is_refused_online_gets_no_bundle(desk: Desk) -> None:
    """A withdrawn file, other bytes, a machine whose policy is silent."""
    with pytest.raises(CountermarkError, match="says sha256"):
        desk.make(replace(desk.file, data=b"worm"))
    desk.maker.policies = Policies()
    with pytest.raises(PolicyError, match="nothing on this machine"):
        desk.make(desk.file)
    desk.maker.policies = desk.reader.policies
    desk.corp.revoke(since=0)
    desk.world.sign_checkpoint()
    with pytest.raises(WithdrawnError):
        desk.make(desk.file)


def test_age_policy_and_pins_are_the_readers(desk: Desk) -> None:
    """Exit 4 beyond --max-age; 5 without the policy's line, or for another key than the pinned one."""
    desk.refuse(4, "25 h old", desk.raw, age=25 * HOUR)
    assert desk.open(desk.raw, age=25 * HOUR, max_age=2 * DAY).exit_code == 0
    desk.refuse(5, "nothing on this machine", desk.raw, policies=Policies())
    pinned = ClientPolicy(log_only=(LogOnly("corp", frozenset({"00" * 32})),))
    desk.refuse(5, "not pinned", desk.raw, policies=Policies(local=pinned))


def test_other_files_are_refused(desk: Desk) -> None:
    """Other bytes, another version, another project, another namespace: the bundle is about one file."""
    mine = held(desk.file, "corp")
    desk.refuse(7, "says sha256", desk.raw, replace(mine, sha256="00" * 32))
    other = replace(mine, filename="acme_demo-2.0-py3-none-any.whl")
    desk.refuse(7, "its log-only bundle names entry", desk.raw, other)
    desk.refuse(7, "which is the publish of corp/acme-demo", desk.raw, replace(mine, project="acme-tool"))
    evil = Policies(local=ClientPolicy(log_only=(LogOnly("evil"),)))
    desk.refuse(
        7, "is about namespace corp, not evil", desk.raw, replace(mine, namespace="evil"), policies=evil
    )
    claims = replace(LogBundle.parse(desk.raw), namespace="evil").format()
    desk.refuse(7, "which is the publish of corp/", claims, replace(mine, namespace="evil"), policies=evil)


Lie = Callable[[Desk, LogBundle], LogBundle]


def _checkpoint(desk: Desk, keep: Callable[[int], bool]) -> bytes:
    note = Note.parse(desk.world.checkpoint)
    return Note(note.text, tuple(s for i, s in enumerate(note.signatures) if keep(i))).format()


LIES: dict[str, tuple[str, Lie]] = {
    "no witness": ("lacks the quorum", lambda d, b: replace(b, checkpoint=_checkpoint(d, lambda i: i != 2))),
    "one log key": (
        "is not signed by its key",
        lambda d, b: replace(b, checkpoint=_checkpoint(d, lambda i: i != 1)),
    ),
    "another entry": ("which is a key-enroll", lambda d, b: replace(b, index=d.corp.index)),
    "no such entry": ("lacks entry #99", lambda _, b: replace(b, index=99)),
    "no enrolment": ("lacks entry", lambda _, b: replace(b, entries=b.entries[-1:])),
    "a proof of another": (
        "lead",
        lambda _, b: replace(b, entries=(replace(b.entries[0], proof=b.entries[1].proof), b.entries[1])),
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_in_a_bundle_is_refused(desk: Desk, name: str) -> None:
    """Each part of it is led back to the pinned root, the log's keys or the tree."""
    words, lie = LIES[name]
    desk.refuse(7, words, lie(desk, LogBundle.parse(desk.raw)).format())


def test_another_registrys_bundle_is_refused(desk: Desk, tmp_path: Path) -> None:
    """Its trust file is not one that the pinned root accepts."""
    stranger = Desk.__new__(Desk)
    stranger.world = World(keys="mallory")
    stranger.corp = Elsewhere(stranger.world, "corp")
    stranger.file = stranger.corp.publish()
    stranger.world.sign_checkpoint()
    stranger.maker = LogOnlyMachine(tmp_path / "stranger", stranger.world)
    desk.refuse(5, "is not one root 1 accepts", stranger.make(stranger.file))


def test_a_fork_of_the_size_seen_is_refused(desk: Desk) -> None:
    """This machine has seen another head of that size: both are kept."""
    other = desk.world.copy()
    desk.corp.publish(version="2.0")
    desk.world.sign_checkpoint()
    desk.reader.log_only(desk.file)
    other.publish("acme-demo", "7.0", list_it=False)
    del other.entries[desk.world.log_size :], other.leaves[desk.world.log_size :]
    other.sign_checkpoint()
    other.tuf = dict(desk.world.tuf)
    forged = desk.make(desk.file, world=other)
    desk.refuse(7, "fork: at size", forged)
    assert any(json.loads(path.read_text())["class"] == "self-proving" for path in desk.reader.evidence())


def test_too_many_entries_are_not_read(desk: Desk) -> None:
    """A bound on what is parsed before anything is believed."""
    bundle = LogBundle.parse(desk.raw)
    many = tuple(replace(bundle.entries[0], index=n) for n in range(BUNDLE_ENTRIES_MAX + 1))
    desk.refuse(7, "up to", replace(bundle, entries=many).format())


def test_a_sample_of_altered_bundles_is_refused(desk: Desk) -> None:
    """Bytes, members, cuts, swaps: refused with our own errors, never accepted."""
    found = sampled(desk.raw, [], count=SAMPLE, seed="log bundle")
    for mutant in random.Random("log bundle").sample(found, min(len(found), SAMPLE)):
        report = desk.open(mutant.raw)
        assert report.exit_code in (5, 7), f"{mutant}: {report.to_json()}"
