"""One namespace, replayed without the rest of the log: the same state as the whole replay has for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from countermark import rules
from countermark.logreader import LogReader
from countermark.namespaces import CHUNK, Namespace, read_namespace
from countermark.rules import file_key
from countermark.tlog.checkpoint import open_checkpoint
from tests.elsewhere import Elsewhere
from tests.simulator import World


def busy(world: World) -> Elsewhere:
    """Corp's and evil's entries, and those of a project, in turns."""
    corp, evil = Elsewhere(world, "corp"), Elsewhere(world, "evil")
    files = []
    for number in range(4):
        world.publish("acme-demo", f"{number}.0", list_it=number == 0)
        files.append(corp.publish(version=f"{number}.0"))
        evil.publish(version=f"{number}.0")
    corp.act("yank", files[0], "broken")
    corp.decide("hold", files[1], "malware")
    corp.act("remove", files[2], "other")
    corp.revoke(since=files[3].index)
    world.heartbeat()
    world.check()
    return corp


def read(world: World, folder: Path, name: str = "corp") -> Namespace:
    head = open_checkpoint(world.checkpoint, world.policy, now=world.now)

    def reader() -> LogReader:
        return LogReader(f"{world.base}/log", head, world)

    return read_namespace(name, reader, world.trust_file, head=head, memory=folder / f"{name}.json")


@pytest.mark.parametrize("name", ["corp", "evil", "nobody"])
def test_a_namespace_has_the_state_of_the_whole_replay(tmp_path: Path, name: str) -> None:
    """Every key of the namespace and every role, to the letter; nothing of others."""
    world = World()
    busy(world)
    found = read(world, tmp_path, name)
    assert found.size == world.log_size and not found.broken
    mine = {key: state for key, state in found.view.items() if key[0] not in ("log", "key")}
    whole = {
        key: state
        for key, state in world.view.items()
        if key[0] == "role" or (key[0] in ("file", "project", "namespace", "enrolment") and key[1] == name)
    }
    assert mine == whole
    assert (len(whole) > 4) == (name != "nobody")


def test_going_on_is_the_same_as_reading_anew(tmp_path: Path) -> None:
    """Kept at every size on the way; in the end nothing differs, and what was read is not read again."""
    world = World()
    corp = Elsewhere(world, "corp")
    world.sign_checkpoint()
    for number in range(3):
        corp.publish(version=f"{number}.0")
        head = world.sign_checkpoint()
        root = open_checkpoint(head, world.policy, now=world.now).root_hash
        read(world, tmp_path).save(tmp_path / "corp.json", root)
    corp.publish(version="9.0", raw=True, data=b"x")  # past the rules' state, not against them
    corp.publish(version="0.0", raw=True, data=b"other")
    world.sign_checkpoint()
    on, anew = read(world, tmp_path), read(world, tmp_path / "nowhere")
    assert on.view.items() == anew.view.items() and on.size == anew.size
    assert on.broken.keys() == anew.broken.keys() == {world.log_size - 1}
    assert (
        "file-exists" in on.broken[world.log_size - 1]
        and "at fault: the signer" in on.broken[world.log_size - 1]
    )
    assert on.view.get(file_key("corp", "acme-demo", "acme_demo-9.0-py3-none-any.whl")) is not None
    assert on.view.get(rules.LOG) is not None and on.size < CHUNK


def test_junk_in_the_log_concerns_nobody(tmp_path: Path) -> None:
    """Bytes that are no entry take their place, whatever they look like."""
    world = World()
    corp = Elsewhere(world, "corp")
    for raw in (
        b"",
        b'{"envelope":{"payload":"',
        b'{"envelope":{"payload":"*"',
        b'x"namespace":"corp"',
        b"\xff" * 9,
    ):
        world.append_raw(raw)
    world.sign_checkpoint()
    found = read(world, tmp_path)
    assert (found.size, found.broken) == (world.log_size, {})
    assert found.view.get(("namespace", "corp")) is not None and corp.index < found.size
