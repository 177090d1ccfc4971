"""An audit over real processes, typed from the auditor's tutorial."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shlex
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.world.world import World, as_json, fresh

PAGE = Path(__file__).resolve().parents[2] / "docs/tutorials/auditor.md"


@dataclass
class Story:
    """A registry with one published project, and the commands and outputs that the tutorial shows."""

    world: World
    words: str
    wheel: Path
    commands: list[str]
    shown: list[list[str]]

    def type(self, number: int, *, expect: int = 0) -> str:
        """Type one of the tutorial's commands as an auditor with a machine of their own; its stdout."""
        line = self.commands[number].replace("http://127.0.0.1:8080", self.world.url)
        words = shlex.split(line.replace("<the twelve words>", self.words))
        return self.world.run(*words, home="auditor", expect=expect).out


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    text = PAGE.read_text("utf-8")
    commands = re.findall(r"^    (countermark .*)$", text, re.MULTILINE)
    shown = re.findall(r"<!-- typed -->\n```text\n(.*?)```", text, re.DOTALL)
    with fresh(tmp_path_factory.mktemp("audit"), settings={"COUNTERMARK_TUF_MIN_INTERVAL": "0.2"}) as world:
        world.init()
        ceremony = world.ceremony()
        world.up("--ceremony", ceremony)
        words = world.words(ceremony)
        world.login("alice", words)
        dist = world.project("hello-countermark")
        world.run("countermark", "publish", "--yes", *sorted(dist.iterdir()))
        wheel = next(dist.glob("*.whl"))
        yield Story(world, words, wheel, commands, [block.splitlines() for block in shown])


def test_the_tutorial_finds_nothing_in_an_honest_registry(story: Story) -> None:
    """Pinned by its words, audited from entry 0, then only what is new, with every artifact, as JSON too."""
    story.type(0)
    once = story.type(1)
    for line in story.shown[0]:
        assert any(said.startswith(line) for said in once.splitlines()), (line, once)
    assert "covered: artifacts: 2" in story.type(2)
    report = as_json(story.world.run("countermark", "audit", "--json", home="auditor"))
    assert report["findings"] == [] and report["verified"] is True
    assert report["position"] == report["tree_size"] and report["applied"]
    assert story.type(3).startswith("{")


def test_evidence_that_entries_name_is_open(story: Story) -> None:
    """Every blob that the auditor read of in the log is served, and is the one named."""
    (state,) = (story.world.root / "auditor" / "countermark" / "registries").glob("*/audit/*.sqlite")
    with contextlib.closing(sqlite3.connect(state)) as connection:
        named = [sha256 for (sha256,) in connection.execute("SELECT sha256 FROM blob")]
    assert named
    for sha256 in named:
        assert hashlib.sha256(story.world.get(f"/blobs/{sha256}")).hexdigest() == sha256


def test_a_swapped_artifact_is_found(story: Story) -> None:
    """The insider's swap: exit 7, the index at fault, evidence kept, and the log's position is not lost."""
    blob = next(
        path
        for path in (story.world.data / "blobs").rglob("*")
        if path.is_file() and path.read_bytes() == story.wheel.read_bytes()
    )
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    said = story.type(4, expect=7)
    for line in story.shown[1]:
        assert line in said
    assert "at fault: the index" in said
    evidence = story.world.root / "auditor" / "countermark" / "registries"
    assert list(evidence.glob("*/evidence/observation-*.json"))
    blob.write_bytes(story.wheel.read_bytes())
    assert "no findings" in story.type(4)
