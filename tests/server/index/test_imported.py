"""What the registry shows of an imported file: recorded, not signed, first seen by the log; never an upload time."""

from __future__ import annotations

from pathlib import Path

import pytest

from countermark.manifest import ZERO_NONCE, Line, format_manifest, predicate
from countermark.statement import Statement, sign
from countermark_server.errors import ServerError
from countermark_server.index.files import Files
from countermark_server.published import Published
from countermark_server.stores import places
from tests.log_world import NOW, ORIGIN, LogWorld, drain

LINE = Line("old", "1.0", "old-1.0.tar.gz", "5e" * 32, 10)
TAKEN = Line("acme", "7", "acme-7.tar.gz", "6e" * 32, 10)


@pytest.fixture
def files(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    world = LogWorld(tmp_path)
    monkeypatch.setattr("countermark_server.adopted.trust_file", lambda public: world.trust)
    world.begin()
    station = world.station()
    station.sequencer.load()
    drain(station)
    world.upload(7)
    drain(station)
    places.blobs(world.settings).put(ZERO_NONCE + format_manifest([LINE, TAKEN]))
    said = predicate([LINE, TAKEN], origin=ORIGIN, prev=None, source="old.example")
    statement = Statement.about(f"import:{said['manifest_sha256']}", "import", said)
    world.propose("import", sign(statement, world.roles["registry"]).to_dict())
    drain(station)
    station.engine.dispose()
    yield Files(world.engine, places.blobs(world.settings), Published(world.public, lambda: NOW))
    world.close()


def test_the_status_of_an_imported_file(files: Files) -> None:
    """Which import, since when it is known here, its proof; and that nobody signed it."""
    said = files.status("OLD", "old-1.0.0.tar.gz")
    assert (said["state"], said["standing"], said["import"]) == ("imported", "ok", 5)
    assert (said["index"], said["sha256"], said["first_seen"]) == (6, "5e" * 32, NOW)
    assert said["message"] == (
        "imported by entry 5, not signed; first seen by the log at 2026-09-21T14:13:20Z; not listed"
    )
    assert str(said["proof"]).startswith("c2sp.org/tlog-proof@v1")
    assert not [name for name in said if "upload" in name]


def test_it_is_not_served_and_not_taken_for_an_upload(files: Files) -> None:
    """No bytes, no page; a name that was taken before the import is its uploader's."""
    with pytest.raises(ServerError) as caught:
        files.artifact("old", "old-1.0.tar.gz")
    assert caught.value.code == "not-listed"
    live = files.status("acme", "acme-7.tar.gz")
    assert live["state"] == "logged"
    assert "import" not in live
    for project, filename in (("old", "old-2.0.tar.gz"), ("other", "old-1.0.tar.gz"), ("old", "no name")):
        with pytest.raises(ServerError) as caught:
            files.status(project, filename)
        assert caught.value.code == "not-found"
