"""Rules about the log itself: tuf, time, origin, versions, opaque logs, what isn't understood, and honest keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from countermark import rules
from countermark.canonical import encode_canonical
from countermark.entry import RESERVED, SCHEMAS, Entry
from countermark.errors import MalformedError, UsageError
from countermark.rules_state import CODES
from tests.entrymaker import (
    ALICE,
    AUTHORITY_KEY,
    ORIGIN,
    SCANNER_KEY,
    START,
    World,
    digest,
    ed25519_signer,
    metadata,
)

ROOT = Path(__file__).resolve().parents[3]
alice = ed25519_signer("alice")


@pytest.fixture
def world() -> World:
    return World()


# --- tuf ------------------------------------------------------------------------------------------------
def test_genesis_publish_is_entry_three(world: World) -> None:
    """The first tuf entry has every role, no old bins, and has applied the three enrolments."""
    world.accept(world.tuf())
    log = world.view.get(rules.LOG)
    assert (log["applied"], log["size"]) == (3, 4)
    assert log["tuf"]["versions"] == dict.fromkeys(("index", "root", "snapshot", "targets", "trust"), 1)
    assert log["tuf"]["snapshot"] == {"index": 3, "sha256": digest("snapshot 1")}


def test_the_first_tuf_entry_is_complete(world: World) -> None:
    """Nothing can be unchanged before there is something."""
    for role in ("root", "trust", "index", "targets"):
        world.refuse("tuf-incomplete", world.tuf(**{role: None}))
    world.refuse("tuf-incomplete", world.tuf(snapshot=None, subject="tuf:1"))


def test_only_the_registry_publishes_tuf(world: World) -> None:
    """A tuf entry is signed by the registry role."""
    world.refuse("key-unknown", world.tuf(by=SCANNER_KEY))
    world.refuse("key-unknown", world.tuf(by=alice))
    world.refuse("key-unknown", world.tuf(by=AUTHORITY_KEY))


def test_tuf_versions_rise(world: World) -> None:
    """A changed role has a higher version; the same one with other content would be equivocation."""
    world.accept(world.tuf())
    world.accept(world.tuf())
    for role in ("root", "trust", "index", "targets"):
        world.refuse("tuf-version", world.tuf(**{role: metadata(role, 1)}))
    world.refuse("tuf-version", world.tuf(snapshot=metadata("snapshot", 2)))
    world.refuse("tuf-version", world.tuf(snapshot=metadata("snapshot", 1)))
    world.accept(world.tuf(snapshot=metadata("snapshot", 5), root=metadata("root", 2)))


def test_tuf_entries_form_one_chain(world: World) -> None:
    """prev is the newest tuf entry, bins_old its bins."""
    world.refuse("prev-stale", world.tuf(prev="00" * 32))
    world.refuse("bins", world.tuf(bins_old="00" * 32))
    world.accept(world.tuf())
    world.refuse("prev-stale", world.tuf(prev=None))
    world.refuse("bins", world.tuf(bins_old=None))
    world.refuse("bins", world.tuf(bins_old=digest("other bins")))
    world.accept(world.tuf())


def test_applied_never_falls_and_never_leads(world: World) -> None:
    """applied counts entries before this one, and only rises."""
    world.refuse("applied", world.tuf(applied=4))
    world.accept(world.tuf(applied=2))
    world.refuse("applied", world.tuf(applied=1))
    world.refuse("applied", world.tuf(applied=world.size + 1))
    world.accept(world.tuf(applied=2))
    world.accept(world.tuf(applied=world.size))


def test_a_heartbeat_changes_no_metadata(world: World) -> None:
    """It logs timestamps, is about the snapshot in force, and leaves the bins as they are."""
    world.accept(world.tuf())
    world.refuse("bins", world.tuf(publish=False, bins_new=digest("new bins")))
    world.refuse("tuf-version", world.tuf(publish=False, subject="tuf:2"))
    before = world.view.get(rules.LOG)["tuf"]
    world.accept(world.tuf(publish=False))
    after = world.view.get(rules.LOG)["tuf"]
    assert {**after, "head": None} == {**before, "head": None}
    assert after["head"] == world.entries[-1].leaf_hash.hex()


def test_changed_bins_come_with_a_list(world: World) -> None:
    """A new bins root takes a snapshot and the digest of the list of changed bins."""
    world.accept(world.tuf())
    world.refuse("bins", world.tuf(changed_sha256=None))


# --- the log --------------------------------------------------------------------------------------------
def test_every_entry_takes_one_index_and_its_time(world: World) -> None:
    """Changes always advance the log."""
    world.later(5)
    changes = world.accept(world.publish("plain-1.0.tar.gz"))
    assert changes.writes[rules.LOG] == world.view.get(rules.LOG)
    assert (world.size, world.view.get(rules.LOG)["time"]) == (4, START + 5)


def test_time_never_falls(world: World) -> None:
    """A leaf's time is never below its predecessor's; equal is fine."""
    world.accept(world.publish("plain-1.0.tar.gz"))
    world.refuse("time-fell", world.publish("plain-2.0.tar.gz").at(START - 1), "log")
    world.accept(world.publish("plain-2.0.tar.gz"))


def test_a_statement_is_bound_to_its_registry(world: World) -> None:
    """What was signed for another origin is nothing here."""
    world.refuse("wrong-origin", world.publish("plain-1.0.tar.gz", predicate={"origin": "other.example/log"}))


@pytest.mark.parametrize("kind", [*sorted(RESERVED), "opinion"])
def test_reserved_and_unknown_types_are_not_understood(world: World, kind: str) -> None:
    """They parse, so that an auditor can pass them, and are refused with a code of their own."""
    leaf = {"envelope": None, "registry": {"x": [1]}, "time": START, "type": kind, "v": 1}
    entry = Entry.parse(encode_canonical(leaf))
    assert rules.keys(entry) == {rules.LOG}
    world.refuse("not-understood", entry, "log")


def test_skip_takes_an_index_and_nothing_else(world: World) -> None:
    """A broken entry in the log has a place in it."""
    before = dict(world.view.items())
    world.put(rules.skip(world.view))
    after = dict(world.view.items())
    assert after.pop(rules.LOG) == {**before.pop(rules.LOG), "size": 4}
    assert after == before


def test_a_newer_rule_version_stops_the_program(world: World) -> None:
    """Nobody guesses by older rules."""
    world.put(rules.genesis(origin=ORIGIN, authority_key=AUTHORITY_KEY.public_key, rule_version=2))
    with pytest.raises(rules.RuleVersionError, match="version 2") as caught:
        rules.apply(world.view, world.publish("plain-1.0.tar.gz"))
    assert caught.value.exit_code == 4
    assert caught.value.hint == "update countermark"


def test_rules_start_from_genesis() -> None:
    """An empty view is a mistake of the caller."""
    from countermark.replay import DictView, replay

    entry = World().entries[0]
    for call in (
        lambda: rules.apply(DictView(), entry),
        lambda: rules.skip(DictView()),
        lambda: replay([], DictView(), on_finding=print),
    ):
        with pytest.raises(UsageError):
            call()


@pytest.mark.parametrize("origin", ["", "two words", "a+b", "x" * 256, "näme", "line\n"])
def test_genesis_refuses_what_is_no_origin(origin: str) -> None:
    """An origin is a signed note's key name."""
    with pytest.raises(MalformedError):
        rules.genesis(origin=origin, authority_key=AUTHORITY_KEY.public_key)


def test_genesis_refuses_what_is_no_key() -> None:
    """The authority key is Ed25519 or P-256 in SPKI."""
    with pytest.raises(MalformedError):
        rules.genesis(origin=ORIGIN, authority_key=b"\x30\x00")


def test_a_raw_log_takes_opaque_entries_and_nothing_else() -> None:
    """Load tests have their own kind of log, from its first state on."""
    world = World()
    world.refuse("opaque", Entry.opaque(b"anything"), "log")
    raw = World(roles=False)
    raw.put(rules.genesis(origin=ORIGIN, authority_key=AUTHORITY_KEY.public_key, raw_add=True))
    raw.refuse("opaque", world.entries[0], "log")
    raw.accept(Entry.opaque(b"anything"))
    raw.accept(Entry.opaque(b""))
    assert raw.size == 2
    with pytest.raises(MalformedError):
        Entry.opaque(bytes(65_536))


# --- honest keys and closed codes -----------------------------------------------------------------------
class Watched:
    """A view that tells which keys were read, and fails when state read is changed in place."""

    def __init__(self, view: Any) -> None:
        self.view, self.read = view, set()

    def get(self, key: rules.Key) -> rules.State | None:
        self.read.add(key)
        return self.view.get(key)


def test_keys_name_all_state_an_entry_touches(monkeypatch: pytest.MonkeyPatch) -> None:
    """In every test of this folder, allowed or refused: apply reads and writes within keys(entry) only."""
    from tests.client.entries import test_rules_approve as approvals
    from tests.client.entries import test_rules_ci as machines
    from tests.client.entries import test_rules_files as files
    from tests.client.entries import test_rules_import as imports
    from tests.client.entries import test_rules_keys as owners

    seen: set[str] = set()
    judge = rules.apply

    def watched(view: Any, entry: Entry) -> Any:
        before = view.digest()
        watch = Watched(view)
        result = judge(watch, entry)
        allowed = rules.keys(entry)
        assert watch.read <= allowed, (entry.type, watch.read - allowed)
        if isinstance(result, rules.Changes):
            assert result.writes.keys() <= allowed, (entry.type, result.writes.keys() - allowed)
            assert rules.LOG in result.writes
        assert view.digest() == before
        seen.add(entry.type)
        return result

    monkeypatch.setattr(rules, "apply", watched)
    for module in (approvals, files, imports, machines, owners):
        for name, test in vars(module).items():
            if name.startswith("test_") and test.__code__.co_varnames[: test.__code__.co_argcount] == (
                "world",
            ):
                test(module.world.__wrapped__())
    world = World()
    for publish in (True, True, False):
        world.accept(world.tuf(publish=publish))
    for kind in ("verdict", "hold", "clear", "takedown"):
        _one_decision(kind)
    for kind in ("attest", "yank", "remove"):
        _one_owner_act(kind)
    world.accept(world.freeze())
    World(roles=False).accept(World(roles=False).predecessor())
    assert seen >= SCHEMAS.keys()


def _one_decision(kind: str) -> None:
    world = World()
    world.accept(world.publish("plain-1.0.tar.gz"))
    if kind == "clear":
        world.accept(world.decision("hold", "plain-1.0.tar.gz"))
    make = world.verdict if kind == "verdict" else lambda name: world.decision(kind, name)
    world.accept(make("plain-1.0.tar.gz"))


def _one_owner_act(kind: str) -> None:
    world = World()
    world.accept(world.enroll("acme", alice, ALICE))
    world.accept(world.publish("acme-1.0.tar.gz", by=alice))
    make = world.attest if kind == "attest" else lambda name, **more: world.owner_act(kind, name, **more)
    world.accept(make("acme-1.0.tar.gz", by=alice))


def test_codes_are_closed_and_each_has_a_test() -> None:
    """Every code a rule can give is in CODES, every one of CODES is given, and a test here expects it."""
    sources = [*(ROOT / "client/countermark").glob("rules*.py"), ROOT / "client/countermark/replay.py"]
    text = "\n".join(path.read_text("utf-8") for path in sources)
    given = set(re.findall(r'(?:refuse|Broken)\(\s*"([a-z-]+)"', text))
    assert given == CODES
    tests = "\n".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    tested = set(re.findall(r'refuse\(\s*"([a-z-]+)"', tests)) | set(
        re.findall(r'code == "([a-z-]+)"', tests)
    )
    assert CODES - tested == set()
