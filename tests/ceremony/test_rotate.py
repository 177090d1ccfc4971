"""The rotation planner: whatever happens, a plan that `prepare` takes, or a refusal with a way out."""

import json
import re
from datetime import timedelta

import pytest

from countermark import keyfile
from countermark.errors import UsageError
from countermark_ceremony import assemble as a
from countermark_ceremony import cli_rotate, history, rotation, rotationtext
from countermark_ceremony.files import write_folder
from countermark_ceremony.nextplan import parse_next
from countermark_ceremony.previous import join, split
from countermark_ceremony.rotation import Event
from countermark_ceremony.tables import PlanError, PlanKey
from tests import ceremony_world as world
from tests.ceremony.test_commands import run, tree

SOON = world.NOW + timedelta(days=30)
FIVE = ("ada", "ben", "cleo", "dan", "eve")


class Room:
    """A registry's ceremonies so far, and the keys of everybody who may come."""

    def __init__(self, names=("ada", "ben", "cleo"), threshold=2):
        self.holders = world.Holders(names=names)
        registry = world.Registry()
        handed = registry.input_raw()
        plan = world.plan_document(registry, self.holders, handed)
        for role in plan["roles"].values():
            role["threshold"] = threshold
        self.files = world.assembled(world.first_prepared(plan, handed), self.holders)
        self.now = SOON

    @property
    def chain(self):
        return history.verify(self.files)

    def key(self, name):
        key = self.holders.keys.setdefault(name, world.p256())
        return PlanKey(name, name.partition("-")[0], keyfile.public_bytes(key))

    def come(self, holder):
        return tuple(self.key(f"{holder}-{role}") for role in ("root", "targets", "trust"))

    def plan(self, *, lost=(), removed=(), added=(), thresholds=None):
        event = Event(tuple(lost), tuple(removed), tuple(added), thresholds)
        return rotation.plan_rotation(self.chain, event, now=self.now)

    def hold(self, step):
        """The step's ceremony, signed by no more people than the planner calls enough."""
        base = self.chain[-1]
        raw = rotationtext.plan_text(
            base, step, folder="root", title=rotationtext.title_of(step), operator="dora", date=self.now
        )
        prepared = a.Prepared.create(parse_next(raw, base, now=self.now), now=self.now)
        responses = world.responses(prepared, self.holders, *step.enough())
        done = a.assemble(prepared, responses, now=self.now)
        self.files = join([*split(self.files), done])
        self.now += timedelta(days=2)
        return {key.name for key in step.roles["root"].keys}


def refused(room, said, **event):
    before = dict(room.files)
    with pytest.raises(UsageError, match=said) as caught:
        room.plan(**event)
    assert room.files == before
    return caught.value


def test_a_holder_is_replaced_in_one_ceremony_and_need_not_come():
    """Cleo leaves, eve comes: all roles but no more people than two; cleo is not asked."""
    room = Room()
    found = room.plan(removed=["cleo"], added=room.come("eve"))
    (step,) = found.steps
    assert set(step.roles) == {"root", "targets", "index", "trust"}
    assert step.enough() == ("ada", "ben") and "cleo-root" not in step.keys
    assert room.hold(step) == {"ada-root", "ben-root", "eve-root"}
    assert "eve-targets" in "\n".join(rotationtext.lines(room.chain[-1], found))


def test_a_lost_root_key_renews_the_root_alone():
    """Only what changes, and who delegates to it, is signed."""
    room = Room()
    (step,) = room.plan(lost=["ben-root"], added=[room.key("ben-root-2")]).steps
    assert set(step.roles) == {"root"} and step.changes == ["holders"]
    assert step.enough() == ("ada", "cleo")
    room.hold(step)


def test_a_lost_trust_key_renews_its_delegators_and_nothing_else():
    """Trust by targets by root; index stays."""
    room = Room()
    (step,) = room.plan(lost=["ben-trust"], added=[room.key("ben-trust-2")]).steps
    assert set(step.roles) == {"root", "targets", "trust"}
    room.hold(step)


def test_what_is_due_is_renewed_on_the_same_day():
    """People meet anyway: the trust role, due in sixty days, is taken along."""
    room = Room()
    room.now = world.NOW + timedelta(days=130)
    (step,) = room.plan(lost=["ben-root"], added=[room.key("ben-root-2")]).steps
    assert set(step.roles) == {"root", "trust"}
    room.hold(step)


def test_nothing_that_happened_is_a_re_sign_of_everything():
    """No name given: the same keys, later expiries."""
    room = Room()
    (step,) = room.plan().steps
    assert set(step.roles) == {"root", "targets", "index", "trust"} and step.changes == []
    assert rotationtext.title_of(step) == "the same keys, later expiries"
    room.hold(step)


def test_two_who_leave_a_root_of_two_take_two_ceremonies():
    """One lost, one removed: the lost key goes first, and the removed one signs a last time."""
    room = Room()
    added = (*room.come("eve"), *room.come("fay"))
    found = room.plan(lost=["ben"], removed=["cleo"], added=added)
    first, second = found.steps
    assert "cleo-root" in {key.name for key in first.roles["root"].keys}
    assert first.enough() == ("ada", "cleo", "eve") and set(second.roles) == {"root"}
    said = "\n".join(rotationtext.lines(room.chain[-1], found))
    assert said.startswith("2 ceremonies are needed: 2 keys could sign")
    assert rotationtext.following("root-2", found) == [
        "when that one is in force: countermark-ceremony rotate root-2 --remove cleo-root --out PLAN"
    ]
    room.hold(first)
    assert room.hold(room.plan(removed=["cleo-root"]).steps[0]) == {"ada-root", "eve-root", "fay-root"}


def test_everybody_s_new_token_takes_a_ceremony_a_key():
    """Three holders, two of whom sign, each with another key: nobody ever has two keys in a root."""
    room = Room()
    names = [f"{holder}-root" for holder in ("ada", "ben", "cleo")]
    found = room.plan(removed=names, added=[room.key(f"{name}-2") for name in names])
    assert len(found.steps) == 3
    for number in range(3):
        left = [
            name for name in names if name in {key.name for key in room.plan().steps[0].roles["root"].keys}
        ]
        assert len(left) == 3 - number
        again = room.plan(removed=left, added=[room.key(f"{name}-2") for name in left])
        assert len(again.steps) == 3 - number
        room.hold(again.steps[0])


def test_two_of_five_are_lost_in_one_ceremony():
    """Three of five: the three who are left sign, with two newcomers or with a smaller root."""
    room = Room(FIVE, threshold=3)
    (step,) = room.plan(lost=["dan", "eve"], thresholds=dict.fromkeys(world.ROLES, 2)).steps
    assert step.changes == ["holders", "threshold"] and step.enough() == ("ada", "ben", "cleo")
    room.hold(step)
    assert room.chain[-1].root.roles["root"].threshold == 2
    room = Room(FIVE, threshold=3)
    (step,) = room.plan(lost=["dan", "eve"], added=(*room.come("fay"), *room.come("gil"))).steps
    room.hold(step)


def test_a_threshold_rises_and_its_signers_are_named():
    """Three of five from two of five: the old root's two, and three for the new one."""
    room = Room(FIVE, threshold=2)
    (step,) = room.plan(thresholds={"root": 3}).steps
    assert set(step.roles) == {"root"} and step.changes == ["threshold"] and len(step.enough()) == 3
    room.hold(step)


def test_below_the_threshold_no_plan_is_made_and_the_way_out_is_said():
    """One of two keys is left: nothing can renew this root; the hint names the day and the successor."""
    error = refused(
        Room(), "needs 2 of its keys to sign its successor, and ada-root is left", lost=["ben", "cleo-root"]
    )
    assert "2027-11-22" in error.hint and "succeed-a-log.md" in error.hint
    refused(Room(FIVE, threshold=3), "and ada-root and ben-root are left", lost=["cleo", "dan", "eve"])


def test_targets_keys_below_their_threshold_are_no_end():
    """The root names new ones: whoever lost all targets and trust keys is helped by the root's holders."""
    room = Room()
    lost = [f"{holder}-{role}" for holder in ("ben", "cleo") for role in ("targets", "trust")]
    found = room.plan(lost=lost, added=[room.key(f"{name}-2") for name in lost])
    said = "\n".join(rotationtext.lines(room.chain[-1], found))
    assert "! targets: 1 of its old keys are left; its delegator names the new ones" in said
    room.hold(found.steps[0])


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"lost": ["zoe"]}, "'zoe' is no holder of a role in force"),
        ({"lost": ["dora"]}, "'dora' is no holder of a role in force"),
        ({"removed": ["cleo"]}, "3 are needed to survive the loss of one"),
        ({"thresholds": {"root": 1}}, "lets one person act alone"),
        ({"thresholds": {"root": 3}}, "survive the loss of one"),
    ],
)
def test_what_no_plan_may_say_is_refused_by_the_planner(event, said):
    """The planner's refusals are the plan's own."""
    refused(Room(), said, **event)


def test_a_key_whose_name_says_nothing_is_refused():
    """Holder and role are read from the name."""
    for name in ("eve", "eve-timestamp", "-root", "eve-root-two", "eve root"):
        with pytest.raises(UsageError, match="does not say whose key it is"):
            rotation.role_of(name)
    assert rotation.role_of("mary-ann-root-2") == ("mary-ann", "root")


def test_a_second_key_of_a_holder_who_keeps_the_first_is_refused():
    """A threshold counts people."""
    room = Room()
    with pytest.raises(PlanError, match="one holder has two of its keys"):
        room.plan(added=[room.key("ben-root-2")])


def test_a_folder_without_its_plan_is_refused_with_what_to_copy():
    """Names of people are believed only from the plan that the transcript names."""
    room = Room()
    plan = room.files.pop("plan.toml")
    error = refused(room, "no plan in this folder names the root key")
    assert "copy the plan.toml" in error.hint
    room.files["plan.toml"] = plan
    room.plan()


def test_the_command_writes_a_plan_that_prepare_takes(tmp_path):
    """rotate, prepare: in words and as JSON, no socket, nothing overwritten."""
    room = Room()
    write_folder(tmp_path / "root-1", room.files)
    for key in room.come("eve"):
        (tmp_path / f"{key.name}.key.json").write_bytes(room.holders.key_file(key.name))
    added = [word for key in room.come("eve") for word in ("--add", f"{key.name}={key.name}.key.json")]
    date = ["--date", f"{SOON:%Y-%m-%d}"]
    done = run("rotate", "root-1", "--remove", "cleo", *added, *date, "--out", "plan-2.toml", cwd=tmp_path)
    assert "- cleo-root of cleo leaves; not asked to sign" in done.stdout
    assert re.search(r"^  enough     ada and ben$", done.stdout, re.MULTILINE)
    again = ["rotate", "root-1", "--remove", "cleo", *added, *date, "--json", "--out"]
    before = tree(tmp_path)
    assert "already exists" in run(*again, "plan-2.toml", cwd=tmp_path, expect=2).stderr
    assert tree(tmp_path) == before
    document = json.loads(run(*again, "plan-3.toml", cwd=tmp_path).stdout)
    assert document["ceremonies"][0]["enough"] == ["ada", "ben"]
    assert (tmp_path / "plan-3.toml").read_bytes() == (tmp_path / "plan-2.toml").read_bytes()
    parse_next((tmp_path / "plan-2.toml").read_bytes(), room.chain[-1], now=SOON)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--lost", "ben", "--lost", "cleo"], "no ceremony can renew it"),
        (["--add", "eve-root"], "is not NAME=KEY"),
        (["--add", "eve-root=nowhere.json"], "cannot read"),
        (["--add", "eve=plan.toml"], "does not say whose key it is"),
        (["--threshold", "timestamp=2"], "neither N nor ROLE=N"),
        (["--threshold", "two"], "neither N nor ROLE=N"),
        (["--remove", "cleo"], "survive the loss of one"),
        (["--date", "soon"], "soon"),
        (["--withdraw"], "goes with --witness-policy"),
        (["--witness-policy", "nowhere.txt"], "cannot read"),
        (["--witness-policy", "root-1/root-words.txt"], "the new trust file"),
    ],
)
def test_a_refused_rotation_writes_nothing(tmp_path, arguments, said):
    """A sentence, exit code 2, and no file more."""
    write_folder(tmp_path / "root-1", Room().files)
    before = tree(tmp_path)
    done = run("rotate", "root-1", *arguments, "--out", "plan-2.toml", cwd=tmp_path, expect=2)
    assert said in done.stderr and tree(tmp_path) == before
    if arguments[0] == "--lost":
        assert "hint: it stays good until 2027-11-22" in done.stderr


def test_a_plan_elsewhere_than_beside_its_folder_is_refused(tmp_path):
    """`prepare` looks for the folder beside the plan."""
    write_folder(tmp_path / "root-1", Room().files)
    (tmp_path / "else").mkdir()
    done = run("rotate", "root-1", "--out", "else/plan-2.toml", cwd=tmp_path, expect=2)
    assert "goes beside" in done.stderr and not list((tmp_path / "else").iterdir())


def test_thresholds_are_of_one_role_or_of_all():
    """N for every role, ROLE=N for one; the later word wins."""
    assert cli_rotate._thresholds(("2", "root=3")) == dict.fromkeys(world.ROLES, 2) | {"root": 3}
