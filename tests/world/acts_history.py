"""Act 6: history is rewritten by somebody who holds every online key."""

from __future__ import annotations

from pathlib import Path

from tests.world import history
from tests.world.insider import PROJECT, WHEEL
from tests.world.stage import Stage


def rewritten(stage: Stage) -> None:
    """6: the witness refuses, a client that remembers keeps both heads, a stranger checks them without network."""
    world = stage.world
    wheel = stage.root / f"{PROJECT}-1.0.0" / "dist" / WHEEL
    stage.say("the log's own keys sign another history of the same size, and ask the witness to cosign it")
    said, done, evidence = history.rewrite(world, wheel)
    stage.refused("the witness   (422)")
    stage.quote(said)
    stage.say("its key is taken from the disk, and the timestamper's: clients are shown the other history")
    stage.refused(f"countermark verify {WHEEL}, on a machine that has seen the first   (exit {done.code})")
    stage.quote(done.err)
    explained = history.explain(world, evidence, Path(str(stage.props["ceremony"])) / "1.root.json")
    stage.command(explained, shown="cd elsewhere; countermark evidence check --root root.json evidence.json")
    stage.quote(explained.out)
    stage.ok("no byte of log and TUF has changed, and the true history verifies as before")
