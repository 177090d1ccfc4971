"""The timestamper's process: what it serves, what it says when it refuses, and how little a timestamp carries."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from prometheus_client import REGISTRY

from countermark.errors import UsageError
from countermark.serving import Request
from countermark.tlog.checkpoint import Checkpoint, open_checkpoint
from countermark.tlog.cosignature import Ed25519CosignatureSigner, MlDsaSigner
from countermark.tlog.merkle import EMPTY_ROOT
from countermark.tlog.note import Note
from countermark.tlog.policy import Policy
from countermark_server.timestamper import carry
from countermark_server.timestamper.errors import RefusalError
from tests.failing_commit import FailingCommit
from tests.simulator import HOUR, Keys, signing_key
from tests.timestamped import TimestampedWorld


@pytest.fixture
def world(tmp_path):
    """A registry with one listed file and a service over its timestamper."""
    world = TimestampedWorld(tmp_path)
    world.file = world.publish("acme", "1.0")
    world.tuf["candidate.json"] = b'{"entry": 7}\n'
    return world


def get(service, path):
    return service.engine(Request("GET", path))


def metric(name, **labels):
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_it_serves_the_newest_timestamp_and_what_is_not_logged_yet(world):
    """Exactly the bytes signed, never cached; the digests tufrepo has to log."""
    service = world.service()
    answer = get(service, "/timestamp.json")
    assert (answer.status, answer.body) == (200, world.tuf["timestamp.json"])
    assert answer.headers["Cache-Control"] == "no-store"
    assert json.loads(get(service, "/unlogged.json").body) == {"unlogged": world.store.unlogged()}
    assert get(service, "/healthz").status == 200
    assert b"countermark_timestamp_version" in get(service, "/metrics").body
    assert get(service, "/other").status == 404
    assert service.engine(Request("POST", "/timestamp.json")).status == 405


def test_before_the_first_signature_there_is_nothing_to_serve(world, tmp_path):
    """A fresh timestamper is not healthy, and says so."""
    from countermark_server.timestamper.service import Service
    from countermark_server.timestamper.store import Store

    store = Store(tmp_path / "fresh.sqlite")
    judge = world.new_judge(store)
    service = Service(store, judge, world, world.base, clock=lambda: world.now, retry_interval=2.0)
    assert get(service, "/timestamp.json").status == 404
    assert get(service, "/healthz").status == 503


def test_a_new_candidate_is_signed_once(world):
    """A step signs for a changed hint; the next step finds nothing to do."""
    service = world.service()
    world.yank(world.file)
    world.sign_timestamp = lambda **_: b""  # the service signs, not the world
    world.release()
    before = get(service, "/timestamp.json").body
    assert service.step() is True
    assert get(service, "/timestamp.json").body == world.store.newest().raw != before
    assert service.step() is False


@pytest.mark.parametrize(("passing", "version"), [(0, 3), (1, 4)], ids=["adoption", "signature"])
def test_a_commit_that_failed_delays_the_signature_and_nothing_else(world, passing, version):
    """Nothing of it is served; the next attempt signs, and skips a number that was won for what is lost."""
    service = world.service()
    old = get(service, "/timestamp.json").body
    world.yank(world.file)
    world.sign_timestamp = lambda **_: b""
    world.release()
    world.store._connection = FailingCommit(world.store._connection, passing=passing)
    memory = world.memory()
    assert service.step() is False
    assert get(service, "/timestamp.json").body == old and world.memory() == memory
    world.now += 3
    assert service.step() is True
    assert json.loads(get(service, "/timestamp.json").body)["signed"]["version"] == version


@pytest.mark.parametrize("seconds", [1, 30])
def test_after_a_failure_it_waits_as_long_as_is_set(world, seconds):
    """`timestamper.retry_interval`: not a second less, and no longer."""
    service = world.service(retry_interval=seconds)
    world.yank(world.file)
    world.sign_timestamp = lambda **_: b""
    world.release()
    world.store._connection = FailingCommit(world.store._connection)
    assert service.step() is False
    world.now += seconds - 1
    assert service.step() is False
    world.now += 1
    assert service.step() is True


def test_after_a_refusal_it_goes_on_serving_the_old_one_and_alarms(world):
    """The reason is counted by code, the alarm is up until an attempt passes."""
    service = world.service()
    old = get(service, "/timestamp.json").body
    refusals = metric("countermark_timestamper_refusals_total", code="listing")
    world.decide("takedown", world.file, "malware")
    honest = world.listing
    world.listing = lambda: dict(world.targets)
    world.sign_timestamp = lambda **_: b""
    world.release()
    world.tuf["candidate.json"] = b'{"entry": 9}\n'
    memory = world.memory()
    assert service.step() is False
    assert get(service, "/timestamp.json").body == old and world.memory() == memory
    assert metric("countermark_timestamper_refusals_total", code="listing") == refusals + 1
    assert metric("countermark_timestamper_alarm") == 1
    world.listing = honest
    world.release()
    assert service.step() is False  # it waits a little after a refusal
    world.now += 3
    world.sign_checkpoint()
    assert service.step() is True
    assert metric("countermark_timestamper_alarm") == 0
    assert get(service, "/timestamp.json").body != old


def test_a_withheld_takedown_raises_the_alarm_without_any_candidate(world):
    """Once a minute it looks for itself."""
    service = world.service()
    assert service.step() is False
    world.decide("takedown", world.file, "malware")
    world.now += 16 * 60
    world.sign_checkpoint()
    before = metric("countermark_timestamper_refusals_total", code="applied-stale")
    assert service.step() is False
    assert metric("countermark_timestamper_refusals_total", code="applied-stale") == before + 1


def test_without_tufrepos_heartbeat_the_same_metadata_is_carried_again(world):
    """An hour and five minutes after the last signature, with the newest checkpoint."""
    service = world.service()
    service.step()
    world.now += 64 * 60
    world.sign_checkpoint()
    assert service.step() is False
    world.now += 60
    world.sign_checkpoint()
    assert service.step() is True
    assert len(json.loads(get(service, "/unlogged.json").body)["unlogged"]) == 2


def test_a_registry_out_of_reach_is_counted_and_tried_again(world):
    """No refusal, no alarm."""
    service = world.service()
    before = metric("countermark_timestamper_unreachable_total")
    world.down = lambda path: True
    assert service.step() is False
    assert metric("countermark_timestamper_unreachable_total") == before + 1
    assert get(service, "/timestamp.json").status == 200


def test_a_restart_serves_what_was_signed_before(world):
    """The signature that was remembered but perhaps never handed out."""
    raw = get(world.service(), "/timestamp.json").body
    world.open()
    assert get(world.service(), "/timestamp.json").body == raw


def test_health_ends_two_hours_after_the_last_signature(world):
    """Old is not healthy."""
    service = world.service()
    world.now += 2 * HOUR
    assert get(service, "/healthz").status == 503


ORIGIN = "registry.test/log"
KEYS = Keys("slim", ORIGIN)


def cosigned(witnesses, quorum, times):
    """A checkpoint with these witnesses' lines at these times, and its policy."""
    lines = "".join(f"log {signer.vkey.format()}\n" for signer in KEYS.log)
    lines += "".join(f"witness {name} {signer.vkey.format()}\n" for name, signer in witnesses.items())
    policy = Policy.parse(lines + quorum)
    text = Checkpoint(ORIGIN, 0, EMPTY_ROOT).text()
    signatures = [signer.sign(text, time=5) for signer in KEYS.log]
    signatures += [signer.sign(text, time=times[name]) for name, signer in witnesses.items()]
    raw = Note(text, tuple(signatures)).format()
    return open_checkpoint(raw, policy, now=None), policy


def witnesses(*names):
    found = {}
    for name in names:
        if name.startswith("ml"):
            seed = name.encode().ljust(32, b"_")
            found[name] = MlDsaSigner(f"{name}.test", MLDSA44PrivateKey.from_seed_bytes(seed))
        else:
            found[name] = Ed25519CosignatureSigner(f"{name}.test", signing_key(name))
    return found


def test_a_slim_checkpoint_keeps_just_enough_witnesses_the_newest_ed25519_first(world):
    """Two of four: the ML-DSA line and the oldest Ed25519 line go; both log lines stay."""
    group = "group g 2 a b c ml\nquorum g\n"
    checkpoint, policy = cosigned(
        witnesses("a", "b", "c", "ml"), group, {"a": 10, "b": 30, "c": 20, "ml": 40}
    )
    slim = carry.slim(checkpoint, policy)
    assert dict(slim.cosignatures) == {"b": 30, "c": 20}
    assert len(slim.log_signatures) == 2 and len(Note.parse(slim.raw).signatures) == 4


def test_a_slim_checkpoint_keeps_a_large_line_where_the_quorum_needs_it(world):
    """Small is nice; the quorum is necessary."""
    checkpoint, policy = cosigned(witnesses("a", "ml"), "group g all a ml\nquorum g\n", {"a": 10, "ml": 40})
    assert set(carry.slim(checkpoint, policy).cosignatures) == {"a", "ml"}


def test_a_timestamp_too_large_for_stock_clients_is_refused(world):
    """Four ML-DSA witnesses that are all needed do not fit."""
    names = ("ml1", "ml2", "ml3", "ml4")
    quorum = f"group g all {' '.join(names)}\nquorum g\n"
    checkpoint, policy = cosigned(witnesses(*names), quorum, dict.fromkeys(names, 9))
    snapshot = {"length": 1, "sha256": "00" * 32, "version": 1}
    contents = carry.Contents(snapshot, carry.slim(checkpoint, policy), "00" * 32, 2, 0)
    with pytest.raises(RefusalError) as caught:
        carry.unsigned(contents, 1, [KEYS.tuf["timestamp"]], now=10)
    assert caught.value.code == "timestamp-too-large"


def test_the_command_says_what_it_lacks(tmp_path):
    """No root, no key: a sentence, not a traceback; nothing was made but its own folder."""
    from countermark_server.timestamper.__main__ import _root
    from countermark_server.timestamper.store import Store

    store = Store(tmp_path / "t.sqlite")
    with pytest.raises(UsageError, match="no root to start from"):
        _root(tmp_path / "root.json", store)
