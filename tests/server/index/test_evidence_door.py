"""The door for evidence: open blobs are served, embargoed ones and artifacts are not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from countermark_server.scan.findings import findings_blob
from countermark_server.stores.blobs import Blobs
from tests.archives import wheel
from tests.doors import DoorWorld

WHEEL = "demo-1.0-py3-none-any.whl"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DoorWorld]:
    made = DoorWorld(tmp_path)
    with made.run():
        assert made.person("grace").upload(WHEEL, wheel()).status_code == 200
        made.set_state(WHEEL, state="listed")
        yield made
    made.close()


def test_findings_are_open_to_everybody_from_the_start(world: DoorWorld) -> None:
    """A blob with a nonce of zeros, under the digest that the verdict names, for ever."""
    sha256 = Blobs(world.settings.data / "blobs").put(findings_blob([]))
    answer = world.client.get(f"/blobs/{sha256}")
    assert answer.status_code == 200 and hashlib.sha256(answer.get_data()).hexdigest() == sha256
    assert "immutable" in answer.headers["Cache-Control"]


def test_what_is_not_open_evidence_is_not_there(world: DoorWorld) -> None:
    """Embargoed blobs, changed ones, artifacts, their metadata, and names that are none: 404, never cacheable."""
    blobs = Blobs(world.settings.data / "blobs")
    embargoed = blobs.put(b"\x01" * 32 + b"what a reporter sent")
    changed = blobs.put(findings_blob([]) + b" ")
    with blobs.local(changed) as path:
        path.chmod(0o600)
        path.write_bytes(findings_blob([]) + b"!")
    zeros = blobs.put(bytes(32) + b"a file that begins like evidence")
    artifact = hashlib.sha256(wheel()).hexdigest()
    world.set_state(WHEEL, metadata_sha256=zeros)
    for name in (embargoed, changed, zeros, artifact, "0" * 64, "nothing", "A" * 64):
        answer = world.client.get(f"/blobs/{name}")
        assert answer.status_code == 404, name
        assert answer.headers["Cache-Control"] == "no-store"
