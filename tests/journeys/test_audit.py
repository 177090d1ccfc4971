"""An audit over real processes, typed from the auditor's tutorial."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.world.typist import Page, Typist
from tests.world.world import World, as_json, fresh


@dataclass
class Story:
    """A registry with one published project, and an auditor with the tutorial and a machine of their own."""

    world: World
    wheel: Path
    typist: Typist

    def blob(self) -> Path:
        """Where the registry keeps the wheel."""
        name = hashlib.sha256(self.wheel.read_bytes()).hexdigest()
        return next(path for path in (self.world.data / "blobs").rglob(f"*{name[2:]}*") if path.is_file())


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with fresh(tmp_path_factory.mktemp("audit"), settings={"COUNTERMARK_TUF_MIN_INTERVAL": "0.2"}) as world:
        world.init()
        ceremony = world.ceremony()
        world.up("--ceremony", ceremony)
        words = world.words(ceremony)
        world.login("alice", words)
        dist = world.project("hello-countermark")
        world.run("countermark", "publish", "--yes", *sorted(dist.iterdir()))
        typist = Typist(world, Page.read("auditor"), words, "auditor", world.root)
        yield Story(world, next(dist.glob("*.whl")), typist)


def test_the_tutorial_finds_nothing_in_an_honest_registry(story: Story) -> None:
    """Pinned by its words, audited from entry 0, then only what is new, with every artifact, as JSON too."""
    assert "no findings" in story.typist.type("1.", "2.")
    assert "covered: artifacts: 2" in story.typist.type("3.")
    report = as_json(story.world.run("countermark", "audit", "--json", home="auditor"))
    assert report["findings"] == [] and report["verified"] is True
    assert report["position"] == report["tree_size"] and report["applied"]
    assert '"findings"' in story.typist.type("4.")


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
    assert "at fault: the index" in story.typist.type("5.")
    evidence = story.world.root / "auditor" / "countermark" / "registries"
    assert list(evidence.glob("*/evidence/observation-*.json"))
    story.blob().write_bytes(story.wheel.read_bytes())
    assert "no findings" in story.typist.type("3.")
