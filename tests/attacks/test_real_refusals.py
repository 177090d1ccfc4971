"""Refusals over real processes: each with a reason that a person understands, and nothing else has changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.client.cli.test_commands import wheel
from tests.world import refusals
from tests.world.insider import PROJECT
from tests.world.stage import QUICK
from tests.world.world import World, fresh


@dataclass
class Story:
    """A trial registry with three published wheels."""

    world: World
    kept: Path
    omitted: Path
    resurrected: Path


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with fresh(tmp_path_factory.mktemp("world"), settings=QUICK) as world:
        world.up("--trial", "--origin", world.origin)
        words = world.words(world.data / "ceremony")
        world.login("alice", words)
        world.run("countermark", "trust", "add", world.url, "--root-words", words, home="bob")
        kept, *others = (wheel(world.root, project) for project in (PROJECT, "gone-late", "gone-early"))
        world.run("countermark", "publish", "--yes", kept, *others)
        yield Story(world, kept, *others)


def test_a_file_that_was_listed_but_never_logged_is_refused(story: Story) -> None:
    """On the index, in the store and in the database, and in no entry: it is not verified."""
    done = refusals.unlogged(story.world, wheel(story.world.root, "never-logged"), home="bob")
    assert "is on the simple index, and the log has no entry for it" in done.err


def test_a_key_that_is_not_enrolled_signs_nothing(story: Story) -> None:
    """A thief with the upload token and a key of his own: unmodified twine shows the reason."""
    done = refusals.unenrolled(story.world, wheel(story.world.root, PROJECT, "1.1"))
    assert "not enrolled" in done.said


def test_a_stolen_upload_token_enrols_no_key(story: Story) -> None:
    """The statement is signed as it must be; the token may only upload."""
    assert "an upload token may only upload" in refusals.stolen_token(story.world)[1]


def test_an_expired_timestamp_is_too_old_to_judge(story: Story) -> None:
    """Neither yes nor no: exit 4, with the age."""
    assert "expired" in refusals.expired(story.world, story.kept).err


def test_the_timestamper_signs_for_no_lie_of_the_publisher(story: Story) -> None:
    """A takedown left out, a removed file listed again, two bins of one version: three reasons, no timestamp."""
    refusals.takedown(story.world, story.resurrected)
    said = refusals.lying_publisher(
        story.world, omitted=story.omitted, resurrected=story.resurrected, doubled=story.kept
    )
    omits, resurrects, two_bins = said
    assert (
        omits["code"] == "listing" and f"{refusals.target(story.omitted)} may not be listed" in omits["said"]
    )
    assert resurrects["code"] == "listing"
    assert f"{refusals.target(story.resurrected)} may not be listed" in resurrects["said"]
    assert two_bins["code"] == "bins-root"
    story.world.run("countermark", "audit", "--allow-trial", story.world.url)
