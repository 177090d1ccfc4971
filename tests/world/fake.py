"""A fake registry at the real one's address: keys, log, witness and TUF of its own, and all of it consistent.

Used by act 4 of the demo and by the story under tests/attacks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.world.insider import remembered
from tests.world.world import Done, World, must


@contextmanager
def standing(world: World, forged: Path) -> Iterator[World]:
    """The fake answers in the real one's place, and has published the forged wheel; then the real one is back."""
    world.down()
    fake = World(world.root / "fake", origin=world.origin, port=world.port, settings=world.settings)
    try:
        fake.up("--trial", "--origin", fake.origin)
        fake.login("mallory", fake.words(fake.data / "ceremony"))
        fake.run("countermark", "publish", "--yes", forged)
        yield fake
    finally:
        fake.down()
    world.up()


def refused_by_words(world: World, words: str, *, home: str) -> Done:
    """A fresh machine has heard the true words: the root that the fake shows is another one, and is not kept."""
    done = world.run("countermark", "trust", "add", world.url, "--root-words", words, home=home, expect=None)
    must(done.code in (5, 7), f"the fake root was accepted with exit {done.code}", done.said)
    must(not list((world.root / home).rglob("*root.json")), "something of the fake root was kept")
    return done


def refused_by_root(world: World, forged: Path, *, home: str) -> Done:
    """A machine that has the true root: nothing the fake signed counts, and what the machine knew stays."""
    before = remembered(world, home)
    done = world.run("countermark", "verify", forged, home=home, expect=None)
    must(done.code == 7, f"the fake's wheel ended with exit {done.code}", done.said)
    must(remembered(world, home) == before, "the fake changed what the machine remembers", done.said)
    return done
