"""demands.py: cool-down, ages, quorum, flags, yanks, names and pins, at their borders and in verifications."""

from __future__ import annotations

from pathlib import Path

import pytest

from countermark.clientpolicy import ClientPolicy, Mode, Policies
from countermark.demands import Demands, Facts, read_demands
from countermark.policyfile import load_policy
from countermark.tlog.cosignature import Ed25519CosignatureSigner
from countermark.trust import opened
from countermark.trustfile import CentralPolicy, TrustFile
from countermark.values import replace
from countermark.verified import Refused, Verified
from countermark.verify import verify, verify_with
from tests.machine import Machine, artifact
from tests.simulator import HOUR, Published, World, signing_key

DAY = 24 * HOUR
GOOD = Facts("acme", age=60, expired_for=0, operators=2, clock=100 * DAY, logged_at=50 * DAY, tier="none")
EVERYTHING = {
    "max-age": "12h", "grace": "1h", "quorum": 2, "cool-down": "3d", "not-flagged": True, "yanked": "refuse",
    "allow": ["acme-*"], "deny": ["evil-*"], "require-pins": True,
}  # fmt: skip


def reasons(demands: Demands, facts: Facts) -> list[str]:
    found = [*demands.of_name(facts.project), *demands.of_view(facts), *demands.of_file(facts)]
    return [objection.reason for objection in found]


@pytest.mark.parametrize(
    ("name", "value", "good", "bad", "reason"),
    [
        ("max-age", "12h", {"age": 12 * HOUR}, {"age": 12 * HOUR + 1}, "max-age"),
        ("grace", "0h", {"expired_for": 0}, {"expired_for": 1}, "grace"),
        ("quorum", 3, {"operators": 3}, {"operators": 2}, "quorum"),
        ("cool-down", "3d", {"logged_at": 97 * DAY}, {"logged_at": 97 * DAY + 1}, "cool-down"),
        ("not-flagged", True, {"tier": "none"}, {"tier": "note"}, "flagged"),
        ("not-flagged", True, {"tier": "none"}, {"tier": "clear"}, "flagged"),
        ("yanked", "refuse", {"yank": None}, {"yank": 7}, "yanked"),
        ("allow", ["acme", "x-*"], {"project": "x-y"}, {"project": "y"}, "not-allowed"),
        ("deny", ["evil-*"], {"project": "evil"}, {"project": "evil-1"}, "denied"),
        ("require-pins", True, {"is_pinned": True}, {"is_pinned": False}, "no-pin"),
    ],
)
def test_each_demand_at_its_border(name: str, value: object, good: dict, bad: dict, reason: str) -> None:
    """The last value that is good, and the first that is not, with its word for programs."""
    demands = read_demands({name: value})
    assert reasons(demands, replace(GOOD, **good)) == []
    assert reasons(demands, replace(GOOD, **bad)) == [reason]


@pytest.mark.parametrize(
    ("left", "said"),
    [(3 * DAY - 120, "in 3 d "), (2 * DAY, "in 2 d "), (2 * HOUR + 1, "in 3 h "), (61, "in 61 s ")],
)
def test_who_waits_as_long_as_the_hint_says_has_waited_long_enough(left: int, said: str) -> None:
    """The span is rounded up; how old the file is, down, since the slower of two clocks counts."""
    facts = replace(GOOD, logged_at=97 * DAY + left)
    (objection,) = read_demands({"cool-down": "3d"}).of_file(facts)
    assert (objection.hint or "").startswith(said)
    assert "old or more, and releases wait 3 d here" in str(objection)


def test_demands_travel_in_the_trust_file() -> None:
    """Written by people, kept canonically, read back the same; without any the file is what it was before."""
    demands, trust = read_demands(EVERYTHING), World().trust_file
    assert Demands.from_dict(demands.to_dict()) == demands == read_demands(demands.as_written())
    assert b"demands" not in trust.format()
    policy = CentralPolicy(0, "warn", demands=demands)
    carried = replace(trust, client_policy=policy)
    assert TrustFile.parse(carried.format()).client_policy == policy


@pytest.fixture
def world() -> World:
    return World()


def judged(machine: Machine, file: Published, **policies: object) -> Refused | Verified:
    """The one outcome for a file under these policies."""
    given = Policies(**{"local": ClientPolicy(mode=Mode.OBSERVE), **policies})  # type: ignore[arg-type]
    (outcome,) = verify(
        [artifact(file)], machine.registry, machine.world, now=machine.world.now, policies=given
    ).outcomes
    assert isinstance(outcome, Refused | Verified)
    return outcome


def asking(**demands: object) -> ClientPolicy:
    """A countermark.toml with these demands."""
    words = {name.replace("_", "-"): value for name, value in demands.items()}
    return ClientPolicy(mode=Mode.OBSERVE, demands=read_demands(words), source="countermark.toml")


def test_a_release_waits_out_its_cool_down(tmp_path: Path, world: World) -> None:
    """Refused with the time that is left, and good when that is over."""
    machine, file = Machine(tmp_path, world), world.publish("acme")
    refused = judged(machine, file, project=asking(cool_down="3d"))
    assert (
        isinstance(refused, Refused)
        and refused.exit_code == 5
        and "releases wait 3 d here" in str(refused.error)
    )
    assert (
        refused.error.hint and refused.error.hint.startswith("in ") and "countermark.toml" in refused.because
    )
    assert refused.to_json()["reason"] == "cool-down"
    assert judged(machine, file).exit_code == 0
    world.now += 3 * DAY
    world.heartbeat()
    assert judged(machine, file, project=asking(cool_down="3d")).exit_code == 0


def test_a_quorum_counts_operators(tmp_path: Path) -> None:
    """Two witnesses of one operator are one; a second operator's makes two."""
    spare = Ed25519CosignatureSigner("witness.test/w1b", signing_key("spare"))
    other = Ed25519CosignatureSigner("witness.test/w2", signing_key("another operator's"))
    lines = f"witness w1b {spare.vkey.format()}\nwitness w2 {other.vkey.format()}\n"
    world = World(witnesses=f"{lines}group x any w1 w1b\ngroup q any x w2\n", quorum="q")
    machine, file = Machine(tmp_path, world), world.publish("acme")
    for signers, code in (([spare], 5), ([spare, other], 0)):
        world.also = list(signers)
        world.now += 60
        world.heartbeat()
        outcome = judged(machine, file, project=asking(quorum=2))
        assert outcome.exit_code == code
        if isinstance(outcome, Refused):
            assert outcome.error.reason == "quorum" and "witnesses of 1 operator cosigned" in str(
                outcome.error
            )
    assert judged(machine, file, project=asking(quorum=3)).exit_code == 5


def test_flags_yanks_and_names(tmp_path: Path, world: World) -> None:
    """A note is a flag; a yank is refused where that is demanded; denied names are refused whatever is proved."""
    machine = Machine(tmp_path, world)
    clean, noted, yanked = world.publish("acme"), world.publish("noted", list_it=False), world.publish("y")
    world.verdict(noted, "note")
    world.yank(yanked)
    world.release()
    strict = asking(not_flagged=True, yanked="refuse", deny=["evil-*"])
    assert judged(machine, clean, project=strict).exit_code == 0
    flagged = judged(machine, noted, project=strict)
    assert isinstance(flagged, Refused) and 'listed by "note"' in str(flagged.error)
    assert judged(machine, yanked, project=strict).to_json()["reason"] == "yanked"
    stranger = Published("evil-x", "1.0", "evil_x-1.0-py3-none-any.whl", b"x", 0)
    denied = judged(machine, stranger, project=strict, central=CentralPolicy(0, "observe"))
    assert denied.exit_code == 5


@pytest.mark.parametrize("is_ci", [True, False])
def test_an_absent_pin_is_refused_under_ci_with_the_line_to_commit(
    tmp_path: Path, world: World, is_ci: bool
) -> None:
    """On a developer's machine it is a finding that passes; the line it shows is one that pins."""
    machine, file = Machine(tmp_path, world), world.publish("acme")
    outcome = judged(machine, file, project=asking(require_pins=True), is_ci=is_ci)
    finding = outcome.error if isinstance(outcome, Refused) else outcome.findings[0]
    assert outcome.exit_code == (5 if is_ci else 0) and finding.reason == "no-pin"
    assert finding.hint is not None
    (tmp_path / "countermark.toml").write_text(
        "require-pins = true\n[pins]\n" + finding.hint.partition(": ")[2] + "\n"
    )
    pinned = load_policy(tmp_path / "countermark.toml")
    assert judged(machine, file, project=pinned, is_ci=True).exit_code == 0
    other = replace(pinned, rules=(replace(pinned.rules[0], keys=frozenset({"00" * 32})),))
    assert judged(machine, file, project=other, is_ci=True).to_json()["reason"] == "other-signer"


def test_the_registrys_own_demands_count(tmp_path: Path) -> None:
    """The trust file asks for a cool-down in mode enforce; in mode warn it is a remark in the result."""
    for mode, code in (("enforce", 5), ("warn", 0)):
        world = World(mode=mode)
        machine, file = Machine(tmp_path / mode, world), world.publish("acme")
        local = Policies(central=CentralPolicy(0, mode, demands=read_demands({"cool-down": "3d"})))
        with opened(machine.registry, world, now=world.now) as view:
            trust = replace(view.trust_file, client_policy=local.central)
            report = verify_with(replace(view, trust_file=trust), [artifact(file)], local)
        assert report.exit_code == code
        assert ("cool-down" in str(report.to_json())) and "verified" in report.to_json()


def test_offline_what_cannot_be_read_is_not_assumed(tmp_path: Path, world: World) -> None:
    """A file that was verified before, the registry away, and a demand about its entry: cannot tell, so refused."""
    machine, file = Machine(tmp_path, world), world.publish("acme")
    assert judged(machine, file).exit_code == 0
    world.down = lambda path: True
    assert judged(machine, file).exit_code == 0
    outcome = judged(machine, file, project=asking(cool_down="1m"))
    assert outcome.exit_code == 3 and judged(machine, file, project=asking(max_age="1d")).exit_code == 0
