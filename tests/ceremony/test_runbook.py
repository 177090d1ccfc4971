"""The runbook: every command of every page, typed in order as custodians do, through the real entry point."""

import base64
import contextlib
import functools
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from datetime import datetime
from pathlib import Path

import pytest

from countermark import keyfile
from countermark_ceremony import cli, cli_keys
from tests import ceremony_world as world
from tests.softhsm import COMPONENTS
from tests.world.typist import Page, Typist
from tests.world.world import StoryError

RUNBOOK = Path(__file__).parents[2] / "keys-ceremony" / "runbook"
FIRST = "first-root"
LATER = (
    "yearly-re-sign",
    "rotate-a-holder",
    "lose-one-key",
    "lose-below-threshold",
    "suspected-compromise",
    "all-witnesses-lost",
    "more-bins",
)
REHEARSAL = "rehearsal"
DAY = re.compile(r"--date (\d{4}-\d\d-\d\d)")
PLAN = re.compile(r"^`(?P<name>plan-\d\.toml)`.*?^```toml\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


class Custodians(Typist):
    """People in the room: they type in this process, answer yes, and write the plan from their papers."""

    def _ours(self, text):
        return text

    def _type(self, step):
        if " prepare " in step.command:
            self.write_plan()
        super()._type(step)

    def _terminal(self, command):
        said = ""
        for line in command.replace("\\\n", " ").splitlines():
            code, more = self._line(line)
            said += more
            if code != 0:
                return code, said
        return 0, said

    def _line(self, line):
        first, *arguments = shlex.split(line)
        if first != "countermark-ceremony":
            return self._process(["bash", "-euc", line])
        if arguments[0] == "rehearse":  # it opens a PKCS#11 library, which a process does only once
            return self._process([sys.executable, "-m", "countermark_ceremony.cli", *arguments])
        screen = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(screen):
            patch.chdir(self.cwd)
            patch.setattr("sys.argv", [first, *arguments])
            with contextlib.redirect_stderr(screen), pytest.raises(SystemExit) as ended:
                cli.main()
        return ended.value.code, screen.getvalue()

    def _process(self, command):
        done = subprocess.run(
            command,
            cwd=self.cwd,
            env=os.environ | {"PATH": f"{COMPONENTS / 'bin'}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def write_plan(self):
        """The plan that the page shows, if it is not the planner's, with <...> from the files of the room."""
        found = PLAN.search(self.words)
        if found is None:
            assert (self.cwd / "plan-2.toml").exists(), f"{self.page.name} shows no plan and makes none"
            return
        (self.cwd / found["name"]).write_text(re.sub(r"<([^<>]+)>", self._paper, found["text"]), "utf-8")

    def _paper(self, found):
        if found[1] == "sha256":
            return hashlib.sha256((self.cwd / "ceremony-input.json").read_bytes()).hexdigest()
        if found[1] == "root words":
            return (self.cwd / "root-1" / "root-words.txt").read_text("utf-8").strip()
        key = keyfile.KeyFile.parse((self.cwd / f"{found[1]}.key.json").read_bytes())
        return base64.b64encode(key.public_key).decode()


def noon(day):
    return datetime.fromisoformat(f"{day}T12:00:00+00:00")


def play(name, room, change=lambda text: text):
    """Type a page in a room, on the day of its plan; `words` of the typist is the page's own text."""
    text = change((RUNBOOK / f"{name}.md").read_text("utf-8"))
    plan = PLAN.search(text)
    now = tomllib.loads(plan["text"])["date"] if plan else noon(DAY.search(text)[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "utc_now", lambda: now)
        patch.setattr(cli_keys, "secret", lambda *_, **__: world.PASSPHRASE)
        patch.setattr(cli.click, "confirm", lambda *_, **__: True)
        patch.setattr(keyfile, "encrypt", functools.partial(keyfile.encrypt, n=world.N))
        Custodians(None, Page.parse(name, text), text, "room", room).type()


@pytest.fixture(scope="module")
def after_first(tmp_path_factory):
    """The room after the page of the first root was played."""
    room = tmp_path_factory.mktemp("room")
    (room / "ceremony-input.json").write_bytes(world.Registry().input_raw())
    play(FIRST, room)
    return room


@pytest.fixture
def room(after_first, tmp_path):
    """A copy of that room, for one later page."""
    return Path(shutil.copytree(after_first, tmp_path / "room"))


def test_every_page_of_the_runbook_is_played():
    """A page that nobody plays is a page that may be wrong."""
    assert {page.stem for page in RUNBOOK.iterdir()} == {FIRST, *LATER, REHEARSAL}


def test_the_first_root_is_made_as_its_page_says(after_first):
    """Ten keys, a plan, four signatures: a verified root whose words are on paper."""
    assert len((after_first / "root-1" / "root-words.txt").read_text("utf-8").split()) == 12


@pytest.mark.parametrize("name", LATER)
def test_a_later_ceremony_goes_as_its_page_says(room, name):
    """Each page ends in root 2, with the history of root 1, which clients reach."""
    if name == "lose-one-key":
        (room / "ben-root.key.json").unlink()
    if name == "rotate-a-holder":
        for key in room.glob("cleo-*.key.json"):
            key.unlink()
    if name == "suspected-compromise":
        for key in room.glob("ben-*.key.json"):
            key.unlink()
    if name == "lose-below-threshold":
        for holder in ("ben", "cleo"):
            (room / f"{holder}-trust.key.json").unlink()
    if name == "all-witnesses-lost":
        (room / "policy.txt").write_text(other_witness(room), "utf-8")
    play(name, room)
    assert (room / "root-2" / "2.root.json").exists() and (room / "root-2" / "history" / "1").is_dir()


def other_witness(room):
    """The policy in force, with a witness that is not lost."""
    old = json.loads((room / "ceremony-input.json").read_text("utf-8"))["witness_policy"]
    logs = [line for line in old.splitlines() if line.startswith("log ")]
    return "\n".join([*logs, f"witness w2 {world.Registry().witness.vkey.format()}", "quorum w2", ""])


def test_a_rehearsal_goes_as_its_page_says_and_leaves_the_plan_alone(room, monkeypatch):
    """Both rehearsals are played; of all that, only the real plan is there afterwards."""
    (room.parent / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(room.parent / "scratch"))
    before = set(room.rglob("*"))
    play(REHEARSAL, room)
    assert set(room.rglob("*")) - before == {room / "plan-2.toml"}
    assert list((room.parent / "scratch").iterdir()) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("--key cleo-trust.key.json", "--key nobody.key.json"),
        ("verify root-2", "verify root-3"),
        ("a client that trusts root 1 reaches root 2", "a client that trusts root 1 reaches root 9"),
        ("ceremony-2 ada-2.response.json cleo-2.response.json", "ceremony-2 ada-2.response.json"),
    ],
)
def test_a_wrong_page_is_noticed(room, right, wrong):
    """A wrong key, folder or line on the page, or a signature too few, stops the custodians."""
    page = (RUNBOOK / "yearly-re-sign.md").read_text("utf-8")
    assert right in page
    with pytest.raises(StoryError):
        play("yearly-re-sign", room, lambda text: text.replace(right, wrong))
