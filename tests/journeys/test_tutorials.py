"""Tutorials, each typed from its page into a real world, as a new user types it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.world.typist import Page, Typist
from tests.world.world import StoryError, World, fresh

PROJECT = "hello-countermark"
WHEEL = "hello_countermark-1.0.0-py3-none-any.whl"
DOCS = Path(__file__).parents[2] / "docs"
QUICK = {"COUNTERMARK_TUF_MIN_INTERVAL": "0.2"}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A trial registry, and nobody who has an account yet."""
    with fresh(tmp_path / "world", settings=QUICK) as world:
        world.up("--trial")
        yield world


def trial_words(world: World) -> str:
    """The words that `up --trial` printed."""
    return world.words(world.data / "ceremony")


def build(world: World, folder: Path, version: str) -> Callable[[], object]:
    """Puts a new build of the project into `folder/dist`, in the place of the last one."""

    def built() -> None:
        shutil.rmtree(folder / "dist", ignore_errors=True)
        folder.mkdir(exist_ok=True)
        world.project(PROJECT, version).rename(folder / "dist")

    return built


def test_a_publisher_from_the_first_release_to_a_lost_key(world: World) -> None:
    """Two commands, twine, uv, yank and remove, rotate and revoke; at the end the log is clean."""
    work = world.root / "work"
    builds = {f"build 1.{n}.0": build(world, work, f"1.{n}.0") for n in range(5)}
    builds["build 1.0.0"]()
    typist = Typist(world, Page.read("publisher"), trial_words(world), "alice", work, builds)
    assert "was revoked by entry" in typist.type()
    world.run("countermark-server", "fsck", "--data", world.data)


def test_an_installer_from_the_pin_to_a_refusal(world: World) -> None:
    """Lock, by name, one file, offline; then swapped bytes and a held file, refused with their reasons."""
    work = world.root / "bob"
    build(world, work, "1.0.0")()
    world.login("alice", trial_words(world))
    world.run("countermark", "publish", "--yes", *sorted((work / "dist").iterdir()))

    def hold() -> None:
        world.run("countermark-server", "hold", "--data", world.data, PROJECT, WHEEL, "--reason", "malware")
        # What a timestamp carries, every client reads: it follows the entry within a moment.
        held, deadline = world.size(), time.monotonic() + 30
        while json.loads(world.get("/tuf/timestamp.json"))["signed"]["x-countermark-log"]["size"] < held:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    elsewhere = {
        "the registry is out of reach": world.down,
        "the registry is back": world.up,
        "a moderator holds the file": hold,
    }
    typist = Typist(world, Page.read("installer"), trial_words(world), "bob-home", work, elsewhere)
    typist.type()


@pytest.mark.exhaustive  # twenty seconds of programs; what it tells is tested piece by piece elsewhere
def test_a_team_shares_a_project_and_one_leaves(world: World) -> None:
    """An operator and three people, each at their own terminal: names, a shared project, a refusal, an end."""
    page, words, typists = Page.read("teams"), trial_words(world), dict[str, Typist]()
    (world.root / "registry").exists() or (world.root / "registry").symlink_to(world.data)

    def builds(who: str, project: str, version: str) -> None:
        work = world.root / who
        shutil.rmtree(work / "dist", ignore_errors=True)
        work.mkdir(exist_ok=True)
        world.project(project, version).rename(work / "dist")
        typists[who] = Typist(world, page, words, who, work, login=who)

    steps = [step.meanwhile.split() for step in page.steps if step.meanwhile]
    meanwhile = {" ".join(said): partial(builds, said[0], said[2], said[3]) for said in steps}
    operator = Typist(world, page, words, "operator", world.root, meanwhile)
    for section, who in (("1.", operator), ("2.", "grace"), ("3.", "linus"), ("4.", "eve"), ("5.", operator)):
        typist = who if isinstance(who, Typist) else typists[who]
        typist.meanwhile = meanwhile
        typist.type(section)
    typists["linus"].type("6.")
    world.run("countermark-server", "fsck", "--data", world.data)


def test_a_registry_that_keeps_serving_its_own_files(world: World) -> None:
    """Namespace, batch, one that is partly wrong, look-up; then an installer's machine, which calls none verified."""
    work = world.root / "corp"
    work.mkdir()

    def serve(version: str, says: str = "hello") -> None:
        served = work / "served"
        served.mkdir(exist_ok=True)
        for path in world.project("acme-tool", version, says=says).iterdir():
            if path.suffix in (".whl", ".gz"):
                path.replace(served / path.name)

    def first() -> None:
        serve("1.0.0")
        serve("1.1.0")

    def anew() -> None:
        shutil.rmtree(world.root / "acme-tool-1.1.0")
        serve("1.1.0", "other bytes")
        serve("1.2.0")

    elsewhere = {"build acme-tool 1.0.0 and 1.1.0": first, "build acme-tool 1.1.0 anew, and 1.2.0": anew}
    Typist(world, Page.read("registry"), trial_words(world), "corp-home", work, elsewhere).type()
    world.run("countermark-server", "fsck", "--data", world.data)
    world.run("countermark", "trust", "add", world.url, "--root-words", trial_words(world), home="auditor")
    world.run("countermark", "audit", world.url, home="auditor")


def test_an_operator_from_a_trial_to_a_real_registry(tmp_path: Path) -> None:
    """One command, a person, decisions, fsck, metrics, a restore that is refused; then a ceremony."""
    trial, real = World(tmp_path / "trial", settings=QUICK), World(tmp_path / "real", settings=QUICK)

    def publish(version: str) -> Callable[[], object]:
        def published() -> None:
            dist = trial.project(PROJECT, version)
            trial.login("alice", trial_words(trial))
            trial.run("countermark", "publish", "--yes", *sorted(dist.iterdir()))

        return published

    with trial, real:
        typist = Typist(trial, Page.read("operator"), "", "operator", trial.root)
        typist.meanwhile = {
            "ctrl-c": trial.down,
            "alice publishes hello-countermark": publish("1.0.0"),
            "alice publishes another release": publish("1.1.0"),
        }
        typist.type("1.", "2.", "3.", "4.", "5.", "6.")
        real.origin = "registry.example.com/main"

        def ceremony() -> None:
            real.ceremony(trial=False).rename(real.root / "root-1")

        typist = Typist(real, typist.page, "", "operator", real.root, {"the ceremony": ceremony})
        assert any(line.count("-") == 3 for line in typist.type("7.").splitlines()), "a one-time code"
        said = real.login("alice", (real.root / "root-1" / "root-words.txt").read_text("utf-8").strip())
        assert "trial registry" not in said.err


def test_an_operator_goes_on_in_a_new_log(tmp_path: Path) -> None:
    """Freeze, a ceremony that names the old log, a first file in the new one, an audit of both together."""
    text = (DOCS / "how-to" / "succeed-a-log.md").read_text("utf-8")
    old, new = World(tmp_path / "old", settings=QUICK), World(tmp_path / "new", settings=QUICK)

    def carry() -> None:
        old.down()
        for name in ("final-checkpoint", "old-trust.json"):
            shutil.copy(old.root / name, new.root / name)
        shutil.copytree(old.root / "old-public", new.root / "old-public")

    def ceremony() -> None:
        new.ceremony(trial=False).rename(new.root / "root-1")

    def published() -> None:
        words = (new.root / "root-1" / "root-words.txt").read_text("utf-8").strip()
        new.login("alice", words)
        new.run("countermark", "publish", "--yes", *sorted(new.project(PROJECT, "1.0.0").iterdir()))
        new.run("countermark", "trust", "add", new.url, "--root-words", words, home="operator")

    with old, new:
        old.up("--trial", "--origin", "old.example.com/main")
        page = Page.parse("succeed-a-log", text)
        Typist(old, page, "", "operator", old.root, {"to the new machine": carry}).type("1.")
        new.origin = "new.example.com/main"
        meanwhile = {
            "the ceremony": ceremony,
            "alice publishes, and the auditor pins the new root": published,
        }
        said = Typist(new, page, "", "operator", new.root, meanwhile).type("2.", "3.")
        assert "covered: predecessor named by entry 0: 1" in said and "no findings" in said


def test_somebody_becomes_a_witness_of_a_log(tmp_path: Path) -> None:
    """A key, the log's keys from the operator, and a witness that stands at size 0."""
    text = (DOCS / "how-to" / "witness.md").read_text("utf-8")
    world = World(tmp_path / "world", settings=QUICK)
    world.origin = "registry.example.com/main"
    steps = Page.parse("witness", text)
    Typist(world, steps, "", "witness", world.root, {"the registry is initialised": world.init}).type("1.")
    assert (world.root / "witness" / "witness.sqlite").exists()


def page(text: str) -> Page:
    """A page of one section."""
    return Page.parse("test", f"# A page\n\n## 1. One\n\n{text}\n")


def test_a_typist_reads_what_a_person_would_type() -> None:
    """Blocks, what they show, exit codes, what happens meanwhile; no prose, no fences, no tables."""
    steps = page(
        "Prose.\n\n    first \\\n        and on\n    second\n\n"
        "<!-- typed -->\n```text\nshown …\n```\n<!-- /typed -->\n"
        "```text\n    not typed\n```\n\n<!-- exit 7 -->\n\n    third\n\n<!-- meanwhile: rain -->\n\n    fourth\n"
    ).steps
    assert [(s.command, s.expect, s.shown, s.meanwhile) for s in steps] == [
        ("first \\\n    and on\nsecond\n", 0, (), ""),
        ("", 0, ("shown …",), ""),
        ("third\n", 7, (), ""),
        ("", 0, (), "rain"),
        ("fourth\n", 0, (), ""),
    ]
    assert {step.section for step in steps} == {"1. One"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("    false\n", "exit 1, not 0"),
        ("<!-- exit 3 -->\n\n    true\n", "exit 0, not 3"),
        ("    echo yes\n\n<!-- typed -->\n```text\nno\n```\n<!-- /typed -->\n", "the page shows 'no'"),
        ("    false\n    true\n", "exit 1, not 0"),
    ],
)
def test_a_typist_notices_a_page_that_is_not_true(tmp_path: Path, text: str, why: str) -> None:
    """The test of the test: another exit code, other words, or a line that fails in the middle."""
    typist = Typist(World(tmp_path), page(text), "", "somebody", tmp_path)
    with pytest.raises(StoryError, match=why):
        typist.type()


def test_a_typist_stays_in_the_folder_it_went_to(tmp_path: Path) -> None:
    """What a block leaves as its folder is where the next one begins; questions are answered."""
    text = (
        "    mkdir there && cd there\n\n    pwd\n\n<!-- typed -->\n```text\n…/there\n```\n<!-- /typed -->\n"
    )
    text += '\n    read -r -p "really? [y/N] " said; echo "said $said"\n'
    typist = Typist(World(tmp_path), page(text), "", "somebody", tmp_path)
    assert "said y" in typist.type()
