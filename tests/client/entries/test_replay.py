"""Replay: whatever the sequencer accepts audits clean, in every view; whatever it should not have is found."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from countermark import rules
from countermark.canonical import encode_canonical
from countermark.entry import SCHEMAS, Entry
from countermark.imported import PASSED
from countermark.names import parse_filename
from countermark.replay import DictView, Finding, judge, replay
from countermark.schema import OWNER_ACTIONS
from tests.cimaker import enroll_run, identity, publisher, run_index, trust
from tests.client.entries.test_rules_log import Watched
from tests.entrymaker import (
    ALICE,
    AUTHORITY_KEY,
    BOB,
    CAROL,
    MODERATION_KEY,
    MODERATOR,
    ORIGIN,
    OTHER_MODERATOR,
    REGISTRY_KEY,
    SCANNER_KEY,
    START,
    VECTORS,
    WEEK,
    World,
    ed25519_signer,
    metadata,
    p256_signer,
)

ACCOUNTS = [ALICE, BOB, CAROL]
SIGNERS = [ed25519_signer("alice"), p256_signer("bob"), ed25519_signer("carol"), REGISTRY_KEY, AUTHORITY_KEY]
RUNS = [p256_signer("run 0"), *(ed25519_signer(f"run {number}") for number in range(1, 8))]
OWNERS = {signer.keyid: account for signer, account in zip(SIGNERS, ACCOUNTS, strict=False)}
HOLDERS = [("", "acme"), ("", "plain"), ("corp", "tool"), ("corp", "")]
FILES = [
    (namespace, f"{project}-{version}{ending}")
    for namespace, project in HOLDERS[:3]
    for version in ("1.0", "2.0")
    for ending in (".tar.gz", "-py3-none-any.whl")
]


class SqlView:
    """The smallest view over a database: one table, keys and values as JSON."""

    def __init__(self) -> None:
        self.database = sqlite3.connect(":memory:")
        self.database.execute("create table state (key text primary key, value text not null)")

    def get(self, key: rules.Key) -> rules.State | None:
        row = self.database.execute("select value from state where key = ?", [json.dumps(key)]).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, key: rules.Key, value: rules.State | None) -> None:
        if value is None:
            self.database.execute("delete from state where key = ?", [json.dumps(key)])
        else:
            row = [json.dumps(key), json.dumps(value)]
            self.database.execute("insert or replace into state values (?, ?)", row)

    def items(self) -> list[tuple[rules.Key, rules.State]]:
        rows = self.database.execute("select key, value from state").fetchall()
        return sorted((tuple(json.loads(key)), json.loads(value)) for key, value in rows)


def started(view: Any, **genesis: Any) -> Any:
    changes = rules.genesis(origin=ORIGIN, authority_key=AUTHORITY_KEY.public_key, **genesis)
    for key, value in changes.writes.items():
        view.put(key, value)
    return view


# --- random interleavings -------------------------------------------------------------------------------
def busy_world() -> World:
    """A registry some people use already: a signed project, an unsigned one, a namespace with approvals."""
    world = World()
    world.accept(world.enroll("acme", SIGNERS[0], ALICE))
    world.accept(world.publish("acme-0.1.tar.gz", by=SIGNERS[0]))
    world.accept(world.publish("plain-0.1.tar.gz"))
    world.accept(world.enroll("", SIGNERS[1], BOB, namespace="corp"))
    world.accept(world.require("", 1, SIGNERS[1], actor=BOB, namespace="corp"))
    world.accept(world.publish("tool-0.1.tar.gz", by=SIGNERS[1], uploader=BOB, namespace="corp"))
    return world


class Dice:
    """A fixed roll that is asked several times: hypothesis shrinks the roll, the test stays readable."""

    def __init__(self, roll: int) -> None:
        self.roll = roll

    def pick(self, options: Any) -> Any:
        self.roll, rest = divmod(self.roll, len(options))
        return options[rest]


def make(world: World, dice: Dice) -> Entry:
    """Some entry of some type, by somebody, about something: often allowed, often not."""
    if (jobs := living_jobs(world)) and dice.pick(range(3)) == 0:  # they live a quarter of an hour
        return publish_by_job(world, dice, *dice.pick(jobs))
    kind = dice.pick(KINDS)
    published = [(key[1], file["filename"]) for key, file in world.view.items() if key[0] == "file"]
    if kind in ("key-enroll", "key-revoke", "owner", "require-approvals", "trusted-publisher", "job"):
        namespace, project = dice.pick(HOLDERS)
    else:
        namespace, filename = dice.pick(FILES if kind == "publish" or not published else published)
        project = parse_filename(filename).project
    # A mistake now and then: usually an enrolled key signs, for its account, and prev is right.
    by = dice.pick([*SIGNERS, *enrolled(world, namespace, project) * 4])
    account = dice.pick(ACCOUNTS) if dice.pick(range(4)) == 0 else OWNERS.get(by.keyid, ALICE)
    wrong = {"prev": "00" * 32} if dice.pick(range(12)) == 0 else {}
    trusted = publisher(world, project, namespace)
    trusts = project and trusted["index"]  # 0: nobody
    if kind == "job":
        kind = "key-enroll" if trusts else "trusted-publisher"
    if kind == "trusted-publisher" or (kind == "key-enroll" and trusts and dice.pick([True, False])):
        about = (namespace, project)
        return make_machine(world, dice, kind, about, by=by, actor=account, wrong=wrong)
    if kind == "tuf":
        publish = world.view.get(rules.LOG)["tuf"] is None or dice.pick([True, False])
        extra = {"applied": dice.pick(range(8))} if dice.pick(range(6)) == 0 else {}
        return world.tuf(by=dice.pick([REGISTRY_KEY, REGISTRY_KEY, by]), publish=publish, **extra, **wrong)
    if kind in ("key-enroll", "key-revoke", "owner"):
        about = {"namespace": namespace, **({} if kind == "key-enroll" else wrong)}
        if kind == "key-enroll":
            return make_enroll(world, dice, project, by, account, predicate=wrong, **about)
        if kind == "key-revoke":
            since = dice.pick([None, 0, world.size // 2, world.size])
            return world.revoke(project, dice.pick(SIGNERS[:3]), by, since=since, actor=account, **about)
        return make_owner(world, dice, project, by, actor=account, **about)
    if kind == "require-approvals":
        both = dice.pick([[by], [by], SIGNERS[:2]])
        return world.require(
            project, dice.pick([0, 1, 1, 2]), *both, actor=account, namespace=namespace, **wrong
        )
    if kind == "approve":
        version = parse_filename(filename).version
        files = dice.pick([None, None, None, {}])
        decision = dice.pick(["approve", "approve", "reject"])
        return world.approve(
            project, version, by, account, namespace=namespace, files=files, decision=decision, **wrong
        )
    if kind == "log-freeze":  # rarely right: it ends everything
        return world.freeze(**(dice.pick([{}] + [{"prev": "00" * 32}] * 15)))
    if kind == "predecessor":
        return world.predecessor(**wrong)
    if kind == "import":
        files = [name for _, name in FILES if parse_filename(name).project != "tool"]
        return world.import_(*dice.pick([files, files[::-1], files[:3]]), **wrong)
    if kind == "line":
        opened = world.view.get(rules.LOG).get("import")
        if opened is None or not opened["left"]:
            return world.import_(*[name for _, name in FILES][:4])
        return world.line(**dice.pick([{}, {}, {}, {}, {"passed": None}, {"number": 2}]))
    if kind == "publish":
        return world.publish(filename, by=by, uploader=account, namespace=namespace)
    more: dict[str, Any] = {"namespace": namespace, "predicate": wrong}
    if kind == "verdict":
        return world.verdict(filename, dice.pick(["none", "note", "queue", "block"]), **more)
    if kind == "attest":
        return world.attest(filename, by=by, **more)
    if kind in ("yank", "unyank", "remove"):
        return world.owner_act(kind, filename, by=by, actor=account, **more)
    by = dice.pick([MODERATION_KEY, MODERATION_KEY, REGISTRY_KEY, SCANNER_KEY])
    moderator = None if by is REGISTRY_KEY else dice.pick([MODERATOR, MODERATOR, account])
    return world.decision(kind, filename, by=by, moderator=moderator, **more)


def enrolled(world: World, namespace: str, project: str) -> list[Any]:
    """The signers whose keys the project or its namespace lists; the registry where there is none."""
    keyids = {
        keyid
        for level in (project, "")
        if level or namespace
        for keyid in (world.project(level, namespace) or {"keys": ()})["keys"]
    }
    return [signer for signer in SIGNERS if signer.keyid in keyids] or [REGISTRY_KEY]


def living_jobs(world: World) -> list[tuple[str, str, Any]]:
    """The one-run keys whose time is not over, each with the project it is for."""
    found = []
    for namespace, project in HOLDERS[:3]:
        for run in RUNS:
            enrolment = world.view.get(("enrolment", namespace, project, run.keyid))
            found += [(namespace, project, run)] if enrolment and world.time < enrolment["until"] else []
    return found


def publish_by_job(world: World, dice: Dice, namespace: str, project: str, run: Any) -> Entry:
    """A file of a job's, by the identity that the project trusts newest or by another."""
    trusted = publisher(world, project, namespace)
    job = identity(workflow=trusted["workflow"], ref=dice.pick(["refs/tags/v1", "refs/heads/main"]))
    added = {"identity": job, "key_index": run_index(world, project, run, namespace)}
    uploader = dice.pick([trusted["account"], trusted["account"], ALICE])
    name = dice.pick([name for _, name in FILES if parse_filename(name).project == project])
    return world.publish(name, by=run, uploader=uploader, namespace=namespace, registry=added)


def make_machine(
    world: World,
    dice: Dice,
    kind: str,
    about: tuple[str, str],
    *,
    by: Any,
    actor: str,
    wrong: dict[str, Any],
) -> Entry:
    """A trusted publisher that comes or goes, or a one-run key under the newest one."""
    namespace, project = about
    if kind == "key-enroll":
        says = dice.pick([{}, {}, {"ref": "refs/heads/main"}])
        return enroll_run(
            world, project, dice.pick(RUNS), namespace=namespace, predicate=dice.pick([{}, wrong]), **says
        )
    said = {"workflow": dice.pick(["release.yml", "nightly.yml"]), **wrong}
    action = dice.pick(["add", "add", "remove"])
    return trust(world, project, by, action=action, namespace=namespace, actor=actor, **said)


def make_enroll(world: World, dice: Dice, project: str, by: Any, account: str, **more: Any) -> Entry:
    """First, rotated or recovered, by one or two keys."""
    new = dice.pick(SIGNERS[:3])
    others = {by.keyid: by, **dice.pick([{}, {s.keyid: s for s in SIGNERS[:3]}])}
    others.pop(new.keyid, None)
    return world.enroll(
        project,
        new,
        dice.pick([OWNERS[new.keyid], OWNERS[new.keyid], account]),
        *dice.pick([[], list(others.values())]),
        threshold=dice.pick([1, 1, 1, 2]),
        valid_for=dice.pick([None, None, 3 * 24 * 3600]),
        **more,
    )


def make_owner(world: World, dice: Dice, project: str, by: Any, **more: Any) -> Entry:
    """Every action, with the members it needs."""
    holder = world.project(project, more["namespace"]) or {"frozen": None, "recovery": None, "owners": {}}
    fitting = "decide" if holder["frozen"] else "veto" if holder["recovery"] else "remove"
    action = dice.pick(
        [fitting, fitting, fitting, fitting, "add", "remove", "transfer", "signing-off", "veto", "decide"]
    )
    if action in ("add", "remove", "transfer"):
        more["account"] = dice.pick([*ACCOUNTS, *holder["owners"]])
    if action == "add":
        more["role"] = dice.pick(["owner", "maintainer"])
    if action == "decide":
        more["account"] = holder["recovery"]["account"] if holder["recovery"] else ALICE
        more |= {"role": dice.pick(["confirm", "reject"]), "actor": MODERATOR, "second": OTHER_MODERATOR}
        by = MODERATION_KEY
    return world.owner(project, action, by, **more)


KINDS = [
    *SCHEMAS,
    "line",
    "line",
    "line",
    "publish",
    "publish",
    "publish",
    "key-enroll",
    "key-enroll",
    "verdict",
    "owner",
    "owner",
    "owner",
    "approve",
    "job",
    "job",
]
rolls = st.integers(0, 2**64)
waits = st.sampled_from([0, 0, 0, 1, 3600, 2 * 24 * 3600, WEEK])


def status(view: Any) -> dict[rules.Key, Any]:
    """What consumers keep per file."""
    found = {}
    for key, file in view.items():
        if key[0] == "file":
            kept = (rules.standing_of(view, key), rules.is_listed(view, key), rules.target_custom(file))
            found[key] = kept
    return found


@settings(max_examples=150, deadline=None)
@given(st.booleans(), st.lists(st.tuples(rolls, waits, st.booleans()), min_size=1, max_size=60))
def test_random_interleavings_audit_clean(busy: bool, steps: list[tuple[int, int, bool]]) -> None:
    """What the driver accepts has no finding, what it logs against the rules is found, in both views alike."""
    world, log, broken = busy_world() if busy else World(), [], []
    log += [entry.raw for entry in world.entries]
    known = status(world.view)
    for roll, wait, dishonest in steps:
        world.later(wait)
        entry = make(world, Dice(roll))
        before, watch = world.view.digest(), Watched(world.view)
        result = rules.apply(watch, entry)
        assert watch.read <= rules.keys(entry)
        assert world.view.digest() == before
        if isinstance(result, rules.Changes):
            assert result.writes.keys() <= rules.keys(entry)
            world.put(result)
            now = status(world.view)
            changed = {key for key in now if now[key] != known.get(key)}
            assert changed <= set(rules.touched_files(world.view, result)), entry.type
            known = now
        elif dishonest:
            broken.append((len(log), result))
            world.put(rules.skip(world.view))
        else:
            continue
        log.append(entry.raw)
        assert world.size == len(log)
    findings: list[Finding] = []
    view, sql = started(DictView()), started(SqlView())
    for raw in log:
        replay([raw], view, on_finding=findings.append)
        replay([raw], sql, on_finding=lambda finding: None)
        assert view.items() == sql.items()
    assert view.digest() == world.view.digest()
    assert [(finding.index, finding.broken) for finding in findings] == broken


def test_interleavings_reach_every_type_allowed_and_refused() -> None:
    """The generator above is worth its name: over fixed rolls each type is allowed and refused."""
    import random

    allowed: set[str] = set()
    refused: set[str] = set()
    actions: set[str] = set()
    jobs: list[str] = []
    passed: set[str | None] = set()
    for seed in range(150):
        rng, world = random.Random(seed), busy_world() if seed % 2 else World(roles=bool(seed % 4))
        if not world.size:
            world.accept(world.predecessor())
            allowed.add("predecessor")
            for signer, scope in (
                (REGISTRY_KEY, "registry"),
                (SCANNER_KEY, "scanner"),
                (MODERATION_KEY, "moderation"),
            ):
                world.accept(world.enroll_role(scope, signer))
        for _ in range(80):
            world.later(rng.choice([0, 0, 1, 3600, 2 * 24 * 3600]))
            entry = make(world, Dice(rng.getrandbits(64)))
            result = rules.apply(world.view, entry)
            if isinstance(result, rules.Changes):
                world.put(result)
                allowed.add(entry.type)
                if entry.imported is not None:
                    passed.add(entry.imported.passed)
                    continue
                actions.add(entry.statement.predicate.get("action", "add"))
                jobs += [entry.type] if entry.registry.get("identity") else []
            else:
                refused.add(entry.type)
    assert passed >= {None, *PASSED} - {"project-frozen"}  # rare; test_rules_import.py has it
    assert allowed == set(SCHEMAS)
    assert refused == set(SCHEMAS)
    assert actions == OWNER_ACTIONS
    assert set(jobs) == {"key-enroll", "publish"}


# --- replay itself --------------------------------------------------------------------------------------
def test_findings_name_entry_and_party_and_replay_goes_on() -> None:
    """Malformed, broken and unknown leaves are findings; the entry behind them counts."""
    world = World()
    unknown = {"envelope": None, "registry": {}, "time": START, "type": "opinion", "v": 1}
    first = world.publish("plain-1.0.tar.gz")
    log = [*(entry.raw for entry in world.entries), b"\xff", encode_canonical(unknown), first.raw, first.raw]
    findings: list[Finding] = []
    told: list[tuple[int, str]] = []
    view = started(DictView())
    size = replay(
        log,
        view,
        on_finding=findings.append,
        on_changes=lambda index, entry, _: told.append((index, entry.type)),
    )
    assert size == 7
    assert [(finding.index, finding.broken.code, finding.broken.party) for finding in findings] == [
        (3, "malformed", "log"),
        (4, "not-understood", "log"),
        (6, "file-exists", "signer"),
    ]
    assert told == [(0, "key-enroll"), (1, "key-enroll"), (2, "key-enroll"), (5, "publish")]
    assert view.get(world.key("plain-1.0.tar.gz"))["index"] == 5
    assert str(findings[1]).startswith("entry 4: not-understood: ")


def test_a_malformed_leaf_has_its_own_code() -> None:
    """judge reads as replay does."""
    entry, result = judge(started(DictView()), b"{}")
    assert entry is None
    assert isinstance(result, rules.Broken)
    assert result.code == "malformed"


def test_replay_goes_on_where_the_view_is() -> None:
    """Leaves in one go or one by one: the same state."""
    world = World()
    world.accept(world.publish("plain-1.0.tar.gz"))
    log = [entry.raw for entry in world.entries]
    whole, parts = started(DictView()), started(DictView())
    assert replay(log, whole, on_finding=print) == 4
    for number, raw in enumerate(log, start=1):
        assert replay([raw], parts, on_finding=print) == number
    assert whole.digest() == parts.digest() == world.view.digest()


def test_what_comes_is_said_before_it_is_asked_for(monkeypatch) -> None:
    """Batch by batch, in order; a malformed leaf asks for nothing, and nobody is judged otherwise for it."""
    monkeypatch.setattr("countermark.replay.AHEAD", 2)
    world = World()
    world.accept(world.publish("plain-1.0.tar.gz"))
    log = [*(entry.raw for entry in world.entries), b"\xff", b"{}", world.entries[-1].raw]
    plain, ahead = started(DictView()), started(DictView())
    expected: list[Finding] = []
    replay(log, plain, on_finding=expected.append)
    findings: list[Finding] = []
    asked: list[set[rules.Key]] = []
    replay(log, ahead, on_finding=findings.append, fetch=lambda keys: asked.append(set(keys)))
    assert findings == expected
    assert [finding.broken.code for finding in findings] == ["malformed", "malformed", "file-exists"]
    assert [world.key("plain-1.0.tar.gz") in each for each in asked] == [False, True, False, True]
    assert asked[2] == set()


def test_a_raw_log_replays() -> None:
    """Any bytes are entries where the log's first state says so."""
    view = started(DictView(), raw_add=True)
    findings: list[Finding] = []
    assert replay([b"", b"\xff", World().entries[0].raw], view, on_finding=findings.append) == 3
    assert findings == []


# --- pinned replay --------------------------------------------------------------------------------------
def story() -> World:
    """A small log with every complete type; ECDSA is random, so its signatures are only in the vector."""
    world = World()
    alice, bob, carol = (ed25519_signer(name) for name in ("alice", "second", "carol"))
    wheel, sdist = "acme-1.0-py3-none-any.whl", "acme-1.0.tar.gz"
    world.accept(world.tuf())
    world.accept(world.publish("plain-0.1.tar.gz", uploader=CAROL))
    world.accept(world.enroll("acme", alice, ALICE))
    world.later(60)
    world.accept(world.enroll("acme", bob, ALICE, alice, threshold=2, valid_for=30 * 24 * 3600))
    world.accept(world.publish(wheel, by=bob))
    world.accept(world.publish(sdist, by=alice))
    world.accept(world.verdict(wheel))
    world.accept(world.verdict(sdist, "queue"))
    world.accept(world.decision("hold", sdist, by=REGISTRY_KEY, moderator=None))
    world.later(3600)
    world.accept(world.tuf(timestamps=["ab" * 32]))
    world.accept(world.decision("clear", sdist))
    world.accept(world.attest(wheel, by=alice))
    world.accept(world.owner_act("yank", wheel, by=bob, reason="broken"))
    world.accept(world.owner_act("unyank", wheel, reason="fixed"))
    world.accept(world.owner("acme", "add", alice, bob, account=BOB, role="maintainer"))
    world.accept(world.revoke("acme", bob, alice, since=6))
    world.accept(world.decision("takedown", "plain-0.1.tar.gz"))
    world.accept(world.owner_act("remove", sdist, by=alice, reason="mistake"))
    world.accept(world.enroll("acme", carol, ALICE))
    world.accept(world.tuf(trust=metadata("trust", 2)))
    world.later(3 * 24 * 3600)
    world.accept(world.owner("acme", "veto", alice))
    world.accept(world.tuf(publish=False))
    world.accept(world.enroll("", bob_two := p256_signer("bob"), BOB, namespace="corp"))
    world.accept(world.publish("tool-1.0.tar.gz", by=bob_two, namespace="corp", uploader=BOB))
    return world


def test_the_pinned_log_replays_to_the_pinned_state() -> None:
    """Rule version 1 for ever: the same leaves, the same findings, the same state."""
    expected = json.loads((VECTORS / "v1.json").read_text("utf-8"))
    log = (VECTORS / "v1.leaves").read_bytes().splitlines()
    findings: list[Finding] = []
    view = started(DictView())
    replay(log, view, on_finding=findings.append)
    assert len(log) == expected["size"]
    assert [[finding.index, finding.broken.code, finding.broken.party] for finding in findings] == expected[
        "findings"
    ]
    assert view.digest() == expected["state_sha256"]
    listing = {"/".join(key[1:]): list(kept[:2]) for key, kept in status(view).items()}
    assert listing == expected["files"]
    log += (VECTORS / "v1-import.leaves").read_bytes().splitlines()  # pinned in test_rules_import.py
    log += (VECTORS / "v1-freeze.leaves").read_bytes().splitlines()  # pinned in test_rules_freeze.py
    log += (VECTORS / "v1-approve.leaves").read_bytes().splitlines()  # pinned in test_rules_approve.py
    log += (VECTORS / "v1-ci.leaves").read_bytes().splitlines()  # pinned in test_rules_ci.py
    assert {Entry.parse(raw).type for raw in log if raw.startswith(b"{")} >= set(SCHEMAS)


def test_the_pinned_log_is_the_story_told_here() -> None:
    """The vector was made by `story`, so that its keys and order can be read; deterministic leaves are equal."""
    log = (VECTORS / "v1.leaves").read_bytes().splitlines()
    told = [entry.raw for entry in story().entries]
    assert log[: len(told) - 2] == told[:-2]
