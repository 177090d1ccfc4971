"""The plug is pulled, over real processes: nothing is lost, and no version is signed twice."""

from __future__ import annotations

import json
from pathlib import Path

from tests.world.acts_afterwards import KILLED, interrupt, restart
from tests.world.insider import public
from tests.world.world import as_json, fresh


def test_a_kill_in_the_middle_of_an_upload_loses_nothing(tmp_path: Path) -> None:
    """What was public stays, byte for byte; the same command again lists every file, once; fsck and audit agree."""
    with fresh(tmp_path / "world", settings={"COUNTERMARK_TUF_MIN_INTERVAL": "0.2"}) as world:
        world.up("--trial", "--origin", world.origin)
        words = world.words(world.data / "ceremony")
        world.login("alice", words)
        dist = world.project("interrupted")
        seen = interrupt(world, dist)
        assert any(f"{name} ended with signal SIGKILL" in world.log_tail() for name in KILLED)
        assert restart(world) <= len(public(world))
        assert world.size() >= seen

        files = sorted(dist.glob("*[lz]"))
        world.run("countermark", "publish", "--yes", *files)
        before = as_json(world.run("countermark", "status", "--json", *files))
        world.run("countermark", "publish", "--yes", *files)
        assert as_json(world.run("countermark", "status", "--json", *files)) == before, (
            "an entry was made twice"
        )
        page = json.loads(world.get("/simple/interrupted/"))["files"]
        assert [file["filename"] for file in page] == [path.name for path in files]
        world.run("countermark", "verify", *files)
        world.run("countermark-server", "fsck", "--data", world.data)
        world.run("countermark", "audit", "--allow-trial", world.url)
