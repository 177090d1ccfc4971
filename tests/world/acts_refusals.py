"""Act 5: what is refused, and why, in words."""

from __future__ import annotations

import re

from tests.world import refusals
from tests.world.insider import PROJECT, WHEEL
from tests.world.stage import Stage

LIES = {
    "omits": "tufrepo leaves a takedown out of its bin",
    "resurrects": "tufrepo lists a removed file again",
    "two-bins": "tufrepo shows two bins of one version",
}


def refused(stage: Stage) -> None:
    """5: unlogged, not enrolled, a stolen token, too old, and a publisher process that lies in three ways."""
    world = stage.world
    (wheel,) = world.project("never-logged").glob("*.whl")
    done = refusals.unlogged(world, wheel, home="bob")
    stage.refused(f"a file that is listed and was never logged: countermark verify   (exit {done.code})")
    stage.quote(next(line for line in done.err.splitlines() if "refused: " in line))

    (wheel,) = world.project(PROJECT, "1.1.0").glob("*.whl")
    done = refusals.unenrolled(world, wheel)
    stage.refused("a stolen upload token and a key that is not enrolled: twine upload --attestations")
    said = re.search(r"[^:]*not enrolled[^:]*", " ".join(done.said.split()))  # twine wraps its lines
    stage.quote(said[0] if said else done.said)

    status, why = refusals.stolen_token(world)
    stage.refused(f"the same token asks for an enrolment of that key   ({status})")
    stage.quote(why)

    kept = stage.root / f"{PROJECT}-1.0.0" / "dist" / WHEEL
    done = refusals.expired(world, kept)
    stage.refused(f"three days without a new timestamp: countermark verify --at ...   (exit {done.code})")
    stage.quote(done.err)

    early, late = (
        next((stage.root / f"{name}-1.0.0" / "dist").glob("*.whl")) for name in ("by-uv", "by-any-tool")
    )
    refusals.takedown(world, early)
    for lie in refusals.lying_publisher(world, omitted=late, resurrected=early, doubled=kept):
        stage.refused(f"{LIES[lie['kind']]}: the timestamper does not sign ({lie['code']})")
        stage.quote(lie["said"])
    stage.ok("clients saw none of it: the next timestamp is the one after the repair")
