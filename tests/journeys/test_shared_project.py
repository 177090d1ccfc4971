"""A project of two people, typed from its page: nobody publishes, and nobody changes keys or owners, alone."""

from __future__ import annotations

from pathlib import Path

from tests.journeys.test_tutorials import DOCS, PROJECT, QUICK, build, trial_words
from tests.world.typist import Page, Typist
from tests.world.world import fresh


def test_two_people_share_a_project(tmp_path: Path) -> None:
    """Let in, staged, approved by both, a key replaced and the number lowered by both; then the log is clean."""
    page = Page.parse("share-a-project", (DOCS / "how-to" / "share-a-project.md").read_text("utf-8"))
    with fresh(tmp_path / "world", settings=QUICK) as world:
        world.up("--trial")
        words, work = trial_words(world), world.root / "work"
        build(world, work, "1.0.0")()
        world.login("alice", words, home="alice")
        world.run("countermark", "publish", "--yes", *sorted((work / "dist").iterdir()), home="alice")
        meanwhile = {"build 1.1.0": build(world, work, "1.1.0")}
        alice = Typist(world, page, words, "alice", work, meanwhile)
        bob = Typist(world, page, words, "bob", work, login="bob")
        for section in dict.fromkeys(step.section for step in page.steps):
            (bob if section.partition(". ")[2].startswith("Bob") else alice).type(section)
        assert PROJECT in world.get("/simple/").decode()
        world.run("countermark-server", "fsck", "--data", world.data)
        world.run("countermark", "audit", world.url, home="alice")
