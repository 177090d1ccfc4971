"""The relay takes the timestamper's newest timestamp to the public tree, and never an old one over a newer one."""

import pytest

from countermark.errors import EvidenceError
from countermark.timestamp import Timestamp
from countermark_server.stores.public import TIMESTAMP, Public
from tests.tuf_registry import TufRegistry


def test_a_relay_that_slept_puts_no_old_timestamp_over_a_newer_one(tmp_path, either_backend, monkeypatch):
    """What it looked at before it slept is not what lies there when it wakes: on a folder and on a bucket."""
    world = TufRegistry(tmp_path)
    world.settle()
    first = world.public.read(TIMESTAMP)
    world.list_file(1)
    for _ in range(20):  # until the timestamper has signed what nobody has published yet
        if world.service.step():
            break
        world.repository.step()
        world.work_log()
    sleeper, wanted = world.repository._relay, world.repository.current.snapshot
    signed = world.service.served.timestamp
    world.settle()
    world.list_file(2)
    world.settle()
    newest = world.public.read(TIMESTAMP)
    carried = Timestamp.parse(signed)
    world.service.served.timestamp = signed
    real = Public.read
    monkeypatch.setattr(Public, "read", lambda self, name: first if name == TIMESTAMP else real(self, name))
    with pytest.raises(EvidenceError, match="not newer than the public one"):
        sleeper.take(
            wanted, bins_root=carried.bins_root.hex(), applied=carried.applied, entry=carried.size - 1
        )
    monkeypatch.undo()
    assert world.public.read(TIMESTAMP) == newest
