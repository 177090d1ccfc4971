"""Freeze: doors close, what was taken is finished, one last entry; readers, cosignatures and timestamps go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask
from tuf.api.metadata import Metadata

from countermark.errors import NetworkError, UsageError
from countermark.limits import TIMESTAMPS_MAX
from countermark.tlog.checkpoint import open_checkpoint
from countermark_server import adopted, closing, db, errors, signing
from countermark_server.operate import freeze as freezing
from countermark_server.stores.public import CHECKPOINT, TIMESTAMP
from countermark_server.tufrepo import publish as publishing
from countermark_server.upload import closed
from tests.log_world import ORIGIN
from tests.tuf_registry import TufRegistry


class Killed(BaseException):
    """The command is gone."""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TufRegistry]:
    world = TufRegistry(tmp_path)
    monkeypatch.setattr(signing, "role_signer", lambda settings, role: world.roles[role])
    monkeypatch.setattr(adopted, "trust_file", lambda public: world.trust)
    world.settle()
    world.list_file(1)
    world.settle()
    yield world
    world.close()


def freeze(world: TufRegistry, *, patience: float = 100) -> freezing.FrozenLog:
    """The command, while the rooms work whenever it waits."""
    said: list[str] = []

    def wait(seconds: float) -> None:
        world.clock.now += seconds
        world.settle()

    done = freezing.freeze(
        world.settings, "successor", patience=patience, say=said.append, clock=world.clock, wait=wait
    )
    assert all(line.startswith("waiting for") for line in said)
    return done


def client(world: TufRegistry) -> tuple[Flask, list[float]]:
    """An application with the bar and two doors, and its clock."""
    app, now = Flask(__name__), [0.0]
    app.register_blueprint(closed.blueprint(world.engine, origin=ORIGIN, clock=lambda: now[0]))
    app.add_url_rule("/door", "door", lambda: "taken", methods=["POST", "GET", "DELETE"])
    errors.install(app, "https://registry.test", None)
    return app, now


def test_a_frozen_log_ends_with_its_last_entry(world: TufRegistry) -> None:
    """What was taken before is listed; the entry is the last, its checkpoint final; a second call says the same."""
    waiting = world.list_file(2)
    done = freeze(world)
    assert world.state_of(waiting) == "listed"
    kinds = [json.loads(raw)["type"] for raw in world.entries()]
    assert kinds[-2:] == ["tuf", "log-freeze"] and len(kinds) == done.tree_size == done.entry + 1
    public = open_checkpoint(world.public.read(CHECKPOINT) or b"", world.trust.policy, now=None)
    assert (public.size, public.root_hash.hex()) == (done.tree_size, done.root_hash)
    before = world.rows()
    assert freeze(world) == done
    assert world.rows() == before
    world.check()


def test_nothing_is_taken_any_more(world: TufRegistry) -> None:
    """Doors answer 409 from the first second; what passes a door is refused by the rules, and gets no index."""
    app, now = client(world)
    http = app.test_client()
    assert http.post("/door").data == b"taken"
    done = freeze(world)
    now[0] += closed.LOOK_SECONDS
    for method in (http.post, http.delete):
        answer = method("/door")
        assert answer.status_code == 409 and answer.get_json()["code"] == "log-frozen"
        assert ORIGIN in answer.get_json()["detail"]
    assert http.get("/door").data == b"taken"
    world.restart()
    late, decided = world.upload(9), world.decide("takedown", 1)
    world.settle()
    for asked in (late, decided):
        assert world.outcome(asked).refusal_code == "log-frozen" and world.outcome(asked).index is None
    assert (
        errors.from_rule("log-frozen", "x").code == "log-frozen" and errors.CODES["log-frozen"].status == 409
    )
    assert world.head().tree_size == done.tree_size
    world.check()


def test_installers_have_fresh_metadata_for_as_long_as_the_offline_roles_live(world: TufRegistry) -> None:
    """Timestamps go on beyond the most that may wait unlogged, over metadata that no longer expires in a week."""
    freeze(world)
    size, listed = world.head().tree_size, world.targets()
    first = world.timestamp().version
    for _ in range(TIMESTAMPS_MAX + 3):
        world.clock.now += 66 * 60
        world.logs.publisher.publish(world.logs.sequencer.checkpoint)  # cosigned again, hourly
        world.settle()
    assert world.timestamp().version >= first + TIMESTAMPS_MAX + 2  # the public one is a look behind
    assert world.timestamp().expires > world.clock.now
    assert (world.head().tree_size, world.targets()) == (size, listed)
    month = datetime.fromtimestamp(world.clock.now, UTC) + timedelta(days=300)
    snapshot = json.loads(world.public.read(TIMESTAMP) or b"")["signed"]["meta"]["snapshot.json"]["version"]
    named = json.loads(world.public.read(f"tuf/{snapshot}.snapshot.json") or b"")["signed"]["meta"]
    for name in [f"{snapshot}.snapshot.json", *(f"{meta['version']}.{role}" for role, meta in named.items())]:
        assert Metadata.from_bytes(world.public.read(f"tuf/{name}") or b"").signed.expires > month, name
    world.check()


def test_a_decision_behind_the_last_publish_is_published_first(world: TufRegistry, monkeypatch) -> None:
    """A takedown between the last publish and the entry: another last publish takes it along."""
    real, late = freezing._step, [True]

    def step(*args, **kwargs):
        with db.read(world.engine) as connection:
            found = closing.find(connection, ORIGIN)
        if late and found is not None and found.last_candidate is not None:
            late.pop()
            world.decide("takedown", 1)
            world.work_log()
        return real(*args, **kwargs)

    monkeypatch.setattr(freezing, "_step", step)
    freeze(world)
    assert not late and world.targets() == {}
    world.check()


def test_it_waits_for_what_cannot_end_and_can_be_taken_back(world: TufRegistry) -> None:
    """A file whose scan does not come: no entry, a sentence; cancelled, the doors open; frozen, nothing helps."""
    world.upload(5)  # logged, and nobody scans it
    size = world.head().tree_size
    with pytest.raises(NetworkError, match="not frozen yet: waiting for what was taken before"):
        freeze(world, patience=1)
    app, now = client(world)
    assert app.test_client().post("/door").status_code == 409
    freezing.cancel(world.settings)
    now[0] += closed.LOOK_SECONDS
    assert app.test_client().post("/door").data == b"taken"
    assert world.head().tree_size == size + 1
    with db.write(world.engine) as connection:
        connection.execute(
            db.submission.update().where(db.submission.c.state == "logged").values(state="rejected")
        )
    freeze(world)
    with pytest.raises(UsageError, match="nothing takes that back"):
        freezing.cancel(world.settings)
    world.check()


STEPS: dict[str, tuple[object, str]] = {
    "closing the doors": (closing, "begin"),
    "the last publish": (publishing.Repository, "_publish_last"),
    "noting it": (closing, "publish_last"),
    "the entry": (freezing, "_propose"),
    "the look behind it": (freezing, "_final"),
}


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_death_at_every_step(world: TufRegistry, monkeypatch, step: str, late: bool) -> None:
    """Everything dies at the step and is started anew: one last entry, one final checkpoint, nothing lost."""
    waiting = world.list_file(2)
    where, name = STEPS[step]
    real: Callable[..., object] = getattr(where, name)
    hits: list[int] = []

    def dying(*args, **kwargs):
        if hits:
            return real(*args, **kwargs)
        hits.append(1)
        if late:
            real(*args, **kwargs)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(where, name, dying)
        with pytest.raises(Killed):
            freeze(world)
    assert hits
    world.restart()
    done = freeze(world)
    kinds = [json.loads(raw)["type"] for raw in world.entries()]
    assert kinds.count("log-freeze") == 1 and kinds[-1] == "log-freeze" and len(kinds) == done.tree_size
    assert world.state_of(waiting) == "listed"
    world.check()
