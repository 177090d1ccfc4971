"""A fake registry, consistent in itself, answers at the real one's address: over real processes."""

from __future__ import annotations

from pathlib import Path

from tests.client.cli.test_commands import wheel
from tests.world import fake, installers
from tests.world.insider import PROJECT, WHEEL, evidence, remembered, tampered
from tests.world.world import fresh


def test_a_fake_registry_fools_who_pins_no_root(tmp_path: Path) -> None:
    """Plain pip takes it; by words nothing is kept; a pinned root refuses, and forgets nothing of the real one."""
    with fresh(tmp_path / "world", settings={"COUNTERMARK_TUF_MIN_INTERVAL": "0.2"}) as world:
        world.up("--trial", "--origin", world.origin)
        ceremony = world.data / "ceremony"
        words, root = world.words(ceremony), ceremony / "1.root.json"
        world.login("alice", words)
        honest = wheel(world.root, PROJECT, "1.0.0")
        world.run("countermark", "publish", "--yes", honest)
        for home in ("bob", "dora"):
            world.run("countermark", "trust", "add", world.url, "--root-words", words, home=home)
        world.run("countermark", "verify", honest, home="bob")
        forged = tampered(honest, world.root / "forged")
        assert forged.name == WHEEL

        with fake.standing(world, forged) as other:
            assert other.words(other.data / "ceremony") != words
            installers.fooled_pip(world, world.machine("pip-carol"))

            done = fake.refused_by_words(world, words, home="carol")
            assert "words" in done.err and remembered(world, "carol") == {}
            # Words and a root file, pinned long ago or only now: the fake's signatures count for none of them.
            world.run("countermark", "trust", "add", world.url, "--root", root, home="carol")
            for home in ("bob", "carol", "dora"):
                done = fake.refused_by_root(world, forged, home=home)
                assert (
                    "is not the registry whose root is pinned here: timestamp was signed by 0/1" in done.err
                )
                assert [path for path in evidence(world, home) if path.name in done.err]
            # Nor does the fake spoil what it did not make: with the true wheel it is the same.
            fake.refused_by_root(world, honest, home="bob")

        for home in ("bob", "carol", "dora"):
            world.run("countermark", "verify", honest, home=home)
            world.run("countermark", "verify", forged, home=home, expect=7)
