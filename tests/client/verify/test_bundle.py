"""bundle.py and offline.py: what a bundle proves without network, and that it and verify judge alike."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from countermark import bins
from countermark.bundle import Bundle, Logged, Moments, open_bundle
from countermark.bundling import make
from countermark.canonical import encode_canonical
from countermark.clientpolicy import ClientPolicy, Exemption, Mode, Policies
from countermark.errors import CountermarkError, MalformedError, PolicyError
from countermark.offline import OfflineReport, verify_bundles
from countermark.pins import Registry
from countermark.timestamp import Timestamp
from countermark.tlog import merkle
from countermark.trustfile import CentralPolicy
from countermark.tufjson import Root
from countermark.verified import Artifact
from tests.machine import Machine, artifact
from tests.simulator import BIT_LENGTH, HOUR, NOW, Keys, Published, World

DAY = 24 * HOUR
POLICIES = Policies(local=ClientPolicy(mode=Mode.OBSERVE))


@pytest.fixture(scope="module")
def world() -> World:
    """A registry with some history, published once for all tests; none of them changes it."""
    world = World()
    for number in range(5):
        world.publish("acme-demo", f"1.{number}")
    world.publish("other")
    world.check()
    return world


@pytest.fixture
def wheel(world: World) -> Published:
    data = b"wheel of acme-demo 1.2"
    index = world.view.get(("file", "", "acme-demo", "acme_demo-1.2-py3-none-any.whl"))["index"]  # type: ignore[index]
    return Published("acme-demo", "1.2", "acme_demo-1.2-py3-none-any.whl", data, index)


def made(world: World, file: Published, folder: Path) -> bytes:
    """A bundle as `bundle make` makes it."""
    registry = Machine(folder, world).registry
    return make([artifact(file)], registry, world, now=world.now, policies=POLICIES)[file.filename]


def forced(world: World, file: Published, *, enrolment: int | None) -> bytes:
    """A bundle of whatever the world serves, checked by nobody: what an attacker would hand out."""
    timestamp = Timestamp.parse(world.tuf["timestamp.json"])
    number = bins.bin_number(file.target, BIT_LENGTH)
    targets = world._held(number)
    size = min(timestamp.size, len(world.leaves))
    read = merkle.reader(world.leaves[:size])
    wanted = {file.index} | (set() if enrolment is None else {enrolment})
    logged = [
        Logged(i, world.entries[i], merkle.prove_inclusion(i, size, read)) for i in sorted(wanted) if i < size
    ]
    tree = bins.BinsTree.build([leaf.leaf_hash for leaf in world.bin_leaves])
    return Bundle(
        path=file.target,
        target=targets[file.target],
        target_proof=bins.prove_target(targets, file.target),
        bin=world.bin_leaves[number],
        bin_proof=tree.prove(number),
        timestamp=world.tuf["timestamp.json"],
        trust_file=world.trust_file.format(),
        entries=tuple(logged),
    ).format()


def judge(
    raw: bytes,
    file: Published | Artifact,
    registry: Registry,
    *,
    now: int = NOW,
    max_age: int = DAY,
    policies: Policies = POLICIES,
) -> OfflineReport:
    held = file if isinstance(file, Artifact) else artifact(file)
    return verify_bundles([(held, raw)], registry, now=now, max_age=max_age, policies=policies)


def test_a_bundle_verifies_from_the_pinned_root_alone(tmp_path: Path, world: World, wheel: Published) -> None:
    """Another machine with nothing but the root: three claims by three parties, and every step named."""
    raw = made(world, wheel, tmp_path / "maker")
    other = Machine(tmp_path / "other", world)
    before = other.snapshot()
    report = judge(raw, wheel, other.registry, now=world.now + HOUR)
    assert report.exit_code == 0, report.to_json()
    document = report.to_json()
    assert document["verified"]
    (found,) = document["artifacts"]
    assert [step["step"] for step in found["steps"]] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert found["claims"]["logged"] | {"witnesses": ["w1"], "by": NOW} == found["claims"]["logged"]
    assert found["claims"]["unknown_since"] == NOW
    assert "unchained, first seen at" in found["signed_by"]["sentence"]
    claims = report.results[0].claims
    assert claims is not None and claims.sentences[2].endswith("60 min ago")
    assert other.snapshot() == before, "verifying a bundle wrote something"
    assert 5_000 < len(raw) < 20_000, len(raw)


def test_the_result_shows_the_exceptions_in_force(tmp_path: Path, world: World, wheel: Published) -> None:
    """Those of this machine, without network as with it."""
    excused = Exemption("acme-old", "moves", "ops", world.now + DAY)
    lenient = Policies(local=ClientPolicy(mode=Mode.OBSERVE, exceptions=(excused,)))
    raw, registry = made(world, wheel, tmp_path / "maker"), Machine(tmp_path / "other", world).registry
    report = judge(raw, wheel, registry, now=world.now + HOUR, policies=lenient)
    assert report.to_json()["remarks"] == [excused.sentence()]


def test_the_bytes_of_a_bundle_are_canonical(tmp_path: Path, world: World, wheel: Published) -> None:
    """Parse and format give the same bytes; another spelling, or one member more, is refused."""
    raw = made(world, wheel, tmp_path)
    assert Bundle.parse(raw).format() == raw
    document = json.loads(raw)
    for other in (json.dumps(document).encode(), raw + b"\n", encode_canonical(document | {"more": 1})):
        with pytest.raises(MalformedError):
            Bundle.parse(other)


def test_a_bundle_too_old_is_refused_and_nothing_else_expires(
    tmp_path: Path, world: World, wheel: Published
) -> None:
    """Age is judged by --max-age only: a day by default; with a longer one a bundle is good for years."""
    raw = made(world, wheel, tmp_path / "maker")
    registry = Machine(tmp_path / "other", world).registry
    late = judge(raw, wheel, registry, now=NOW + DAY + 1)
    assert late.exit_code == 4 and "bundle is 24 h old" in str(late.to_json())
    assert judge(raw, wheel, registry, now=NOW + DAY).exit_code == 0
    assert judge(raw, wheel, registry, now=NOW + 3 * 365 * DAY, max_age=4 * 365 * DAY).exit_code == 0


def test_a_bundle_from_the_future_is_refused(tmp_path: Path, world: World, wheel: Published) -> None:
    """A quorum time ahead of the clock: one of the two clocks is wrong, and nothing is judged by it."""
    raw = made(world, wheel, tmp_path / "maker")
    registry = Machine(tmp_path / "other", world).registry
    assert judge(raw, wheel, registry, now=NOW - HOUR).exit_code == 4


def test_other_bytes_and_other_names_are_refused(tmp_path: Path, world: World, wheel: Published) -> None:
    """A swapped file, and a bundle put beside another file: exit 7, with evidence."""
    raw = made(world, wheel, tmp_path / "maker")
    other = Machine(tmp_path / "other", world)
    swapped = judge(raw, artifact(wheel, data=b"swapped"), other.registry)
    assert swapped.exit_code == 7 and f"entry #{wheel.index}" in str(swapped.results[0].outcome.to_json())
    assert len(other.evidence()) == 1
    renamed = replace(artifact(wheel), filename="acme_demo-1.3-py3-none-any.whl", version="1.3")
    assert judge(raw, renamed, other.registry).exit_code == 7


def test_another_registry_s_pin_refuses_the_bundle(tmp_path: Path, world: World, wheel: Published) -> None:
    """The bundle brings no trust: under another root its timestamp is signed by nobody."""
    raw = made(world, wheel, tmp_path / "maker")
    stranger = Machine(tmp_path / "other", World(keys="stranger"))
    report = judge(raw, wheel, stranger.registry)
    assert report.exit_code == 7 and "not from the registry whose root is pinned" in str(report.to_json())


@pytest.mark.parametrize("warm", [False, True])
def test_every_field_of_a_bundle_matters(
    tmp_path: Path, world: World, wheel: Published, *, warm: bool
) -> None:
    """Each value removed, emptied, or altered by one character: refused every time, after the true one as well."""
    raw = made(world, wheel, tmp_path / "maker")
    root = Root.parse(world.root)
    entries = {each.index for each in Bundle.parse(raw).entries}
    document = json.loads(raw)
    moments = _moments(raw, root) if warm else None
    seen = 0

    def refused(what: object) -> None:
        nonlocal seen
        seen += 1
        with pytest.raises(CountermarkError):
            opened = open_bundle(Bundle.parse(encode_canonical(document)), root, now=NOW, moments=moments)
            for index in entries:
                opened.entry(index)
        assert what is not None

    def visit(parent: Any, name: Any) -> None:
        value = parent[name]
        if name == "roots":
            return  # empty here; see test_roots_that_come_along
        for other in _others(value):
            parent[name] = other
            refused((name, other))
        parent[name] = value
        children = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        for child in list(children):
            visit(value, child)
        if isinstance(parent, dict):
            del parent[name]
            refused(name)
            parent[name] = value

    for name in list(document):
        visit(document, name)
    assert seen > 150
    open_bundle(Bundle.parse(encode_canonical(document)), root, now=NOW)


def _others(value: Any) -> list[Any]:
    if isinstance(value, str):
        at = len(value) // 2
        return ["", value[:-1], value + "A", value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :]]
    if isinstance(value, int):
        return [value + 1, str(value)]
    if isinstance(value, list):
        return [[*value, "A" * 43 + "="], value[:-1] if value else None]
    return [None, []] if value is not None else [0, ""]


@pytest.mark.parametrize("warm", [False, True])
def test_every_byte_of_a_bundle_matters(
    tmp_path: Path, world: World, wheel: Published, *, warm: bool
) -> None:
    """One bit of every byte flipped: never accepted, after the true one as well."""
    raw = made(world, wheel, tmp_path / "maker")
    root = Root.parse(world.root)
    moments = _moments(raw, root) if warm else None
    for at in range(len(raw)):
        mutant = raw[:at] + bytes([raw[at] ^ (1 << at % 7)]) + raw[at + 1 :]
        with pytest.raises(CountermarkError):
            open_bundle(Bundle.parse(mutant), root, now=NOW, moments=moments)


def _moments(raw: bytes, root: Root) -> Moments:
    """What a run remembers that has verified this bundle."""
    moments: Moments = {}
    open_bundle(Bundle.parse(raw), root, now=NOW, moments=moments)
    assert len(moments) == 1
    return moments


# --- the same judgement as online ---------------------------------------------------------------------------


def _members(**members: Any) -> Callable[[World, Published], None]:
    def attack(world: World, file: Published) -> None:
        world.sign_timestamp(applied=world._applied(), **members)

    return attack


def _log(world: World, **changed: Any) -> dict[str, Any]:
    log = json.loads(world.tuf["timestamp.json"])["signed"]["x-countermark-log"]
    return {"x-countermark-log": log | changed}


def _said(**changed: Any) -> Callable[[World, Published], None]:
    def attack(world: World, file: Published) -> None:
        world.sign_timestamp(applied=world._applied(), **_log(world, **changed))

    return attack


def _listed(change: Callable[[dict[str, Any]], object]) -> Callable[[World, Published], None]:
    """The bins key and the timestamp key list something else."""

    def attack(world: World, file: Published) -> None:
        change(world.targets[file.target])
        world.write_bins()
        world.sign_timestamp(applied=world._applied())

    return attack


def _unwitnessed(world: World, file: Published) -> None:
    world.sign_checkpoint(witnessed=False)
    world.sign_timestamp(applied=world._applied())


def _one_log_key(number: int) -> Callable[[World, Published], None]:
    def attack(world: World, file: Published) -> None:
        world.sign_checkpoint(log_keys=(world.keys.log[number],))
        world.sign_timestamp(applied=world._applied())

    return attack


def _other_log_keys(world: World, file: Published) -> None:
    world.sign_checkpoint(log_keys=Keys("thief", world.origin).log)
    world.sign_timestamp(applied=world._applied())


def _other_timestamp_key(world: World, file: Published) -> None:
    world.keys.tuf = world.keys.tuf | {"timestamp": world.keys.tuf["snapshot"]}
    world.sign_timestamp(applied=world._applied())


def _other_trust_file(world: World, file: Published) -> None:
    world.trust_file = replace(world.trust_file, version=2, client_policy=CentralPolicy(0, "observe"))
    world.sign_trust(world.trust_file.format())
    world.sign_timestamp(applied=world._applied())


def _signed_too_long(world: World, file: Published) -> None:
    world.timestamp_expires_in = 72 * HOUR
    world.sign_timestamp(applied=world._applied())


def _heartbeat(world: World, file: Published) -> None:
    world.now += 2 * HOUR
    world.heartbeat()


def _yanked(world: World, file: Published) -> None:
    world.yank(file)
    world.release()


Attack = Callable[[World, Published], None]
HONEST: dict[str, Attack] = {"nothing": lambda world, file: None, "heartbeat": _heartbeat, "yanked": _yanked}
ATTACKS: dict[str, Attack] = {
    "applied beyond the log": lambda world, file: void(world.sign_timestamp(applied=1000)),
    "applied is text": _members(**{"x-countermark-applied": "3"}),
    "no log member": _members(**{"x-countermark-log": None}),
    "no bins member": _members(**{"x-countermark-bins": None}),
    "bins root of nothing": _members(**{"x-countermark-bins": {"bit_length": BIT_LENGTH, "root": "00" * 32}}),
    "another origin": _said(origin="elsewhere.test/log"),
    "another size": _said(size=1),
    "another root hash": _said(root_hash="00" * 32),
    "no checkpoint": _said(checkpoint=""),
    "no witness": _unwitnessed,
    "without ML-DSA": _one_log_key(0),
    "without Ed25519": _one_log_key(1),
    "the log keys of a thief": _other_log_keys,
    "another timestamp key": _other_timestamp_key,
    "a trust file the root does not list": _other_trust_file,
    "a timestamp good for three days": _signed_too_long,
    "another hash": _listed(lambda target: target["hashes"].update(sha256="00" * 32)),
    "another length": _listed(lambda target: target.update(length=1)),
    "another leaf hash": _listed(lambda target: target["custom"].update(lh="00" * 32)),
    "another entry": _listed(lambda target: target["custom"].update(i=0)),
    "no entry": _listed(lambda target: target["custom"].pop("i")),
    "no custom": _listed(lambda target: target.pop("custom")),
    "an index that is text": _listed(lambda target: target["custom"].update(i="5")),
}


def void(_: object) -> None:
    """For a lambda that returns nothing."""


@pytest.mark.parametrize("name", [*HONEST, *ATTACKS])
def test_a_bundle_and_verify_judge_alike(tmp_path: Path, world: World, wheel: Published, name: str) -> None:
    """Whatever whoever holds the online keys signs: the bundle of it is accepted where verify accepts, only."""
    attacked = world.copy()
    attacked.keys = Keys("honest", attacked.origin)
    attacked.bin_leaves = list(world.bin_leaves)
    (HONEST | ATTACKS)[name](attacked, wheel)
    machine = Machine(tmp_path, attacked)
    online: int
    try:
        online = machine.verify(wheel).exit_code
    except CountermarkError as error:
        online = error.exit_code
    try:
        raw = forced(attacked, wheel, enrolment=attacked.key_index("acme-demo"))
    except CountermarkError:  # what cannot even be written down
        raw = b""
    fresh = Machine(tmp_path / "fresh", attacked)
    offline = judge(raw, wheel, fresh.registry, now=attacked.now).exit_code
    assert (online == 0) == (offline == 0) == (name in HONEST), (online, offline)
    assert offline in (0, 4, 5, 7)


def test_unsigned_files_are_judged_by_the_same_policy(tmp_path: Path) -> None:
    """Signed by the registry only: refused in enforce, let pass with a finding in observe, online and offline."""
    for mode, expected in (("enforce", 5), ("observe", 0)):
        world = World(mode=mode)
        file = world.publish("acme-demo", signed=False)
        online = Machine(tmp_path / mode, world)
        assert online.verify(file).exit_code == expected
        raw = forced(world, file, enrolment=0)
        report = judge(raw, file, online.registry)
        assert report.exit_code == expected, report.to_json()
        assert not report.to_json()["verified"]


def test_a_pin_on_another_key_refuses_offline_too(tmp_path: Path, world: World, wheel: Published) -> None:
    """A pinned key that did not sign: refused by policy, as online."""
    raw = made(world, wheel, tmp_path / "maker")
    registry = Machine(tmp_path / "other", world).registry
    policy = tmp_path / "policy.toml"
    policy.write_text(
        'mode = "enforce"\n[[pattern]]\nproject = "acme-demo"\nmode = "enforce"\nkeys = ["'
        + "0" * 64
        + '"]\n'
    )
    from countermark.policyfile import load_policy

    report = judge(raw, wheel, registry, policies=Policies(local=load_policy(policy)))
    assert report.exit_code == 5 and "not pinned" in str(report.to_json())


def test_an_enrolment_left_out_is_refused(tmp_path: Path, world: World, wheel: Published) -> None:
    """Who strips the key's enrolment from a bundle cannot hide who signed."""
    raw = forced(world, wheel, enrolment=None)
    report = judge(raw, wheel, Machine(tmp_path, world).registry)
    assert report.exit_code == 7 and "lacks entry" in str(report.to_json())


# --- what this machine has seen -----------------------------------------------------------------------------


def test_a_fork_is_seen_offline_and_its_evidence_proves_itself(tmp_path: Path, world: World) -> None:
    """Two heads of one size, one seen online and one in a bundle."""
    honest, fork = world.copy(), world.copy()
    honest.publish("acme-demo", "2.0")
    file = fork.publish("acme-demo", "2.0", data=b"another wheel")
    machine = Machine(tmp_path, honest)
    machine.accept(Published("other", "1.0", "other-1.0-py3-none-any.whl", b"wheel of other 1.0", 0))
    before = machine.snapshot()
    report = judge(forced(fork, file, enrolment=fork.key_index("acme-demo")), file, machine.registry)
    assert report.exit_code == 7 and "fork" in str(report.to_json())
    (path,) = machine.evidence()
    assert path.name.startswith("self-proving") and machine.snapshot() == before


def test_a_bundle_below_the_floor_is_refused(tmp_path: Path) -> None:
    """The trust file says the log was larger already: a rollback, whatever the keys say."""
    world = World()
    file = world.publish("acme-demo")
    low = World(floor=1000)
    low_file = low.publish("acme-demo")
    assert judge(
        forced(world, file, enrolment=3), file, Machine(tmp_path / "a", world).registry
    ).exit_code in (0, 7)
    report = judge(
        forced(low, low_file, enrolment=low.key_index("acme-demo")),
        low_file,
        Machine(tmp_path / "b", low).registry,
    )
    assert report.exit_code == 7 and "floor" in str(report.to_json())


def test_roots_that_come_along(tmp_path: Path, world: World, wheel: Published) -> None:
    """A newer root in the bundle is followed when its predecessor signed it, and refused otherwise."""
    from tuf.api.metadata import Metadata
    from tuf.api.metadata import Root as TufRoot

    from tests.simulator import COMPACT

    def signed(version: int, *roles: str, timestamp: str) -> bytes:
        root = Metadata[TufRoot].from_bytes(world.root).signed
        root.version = version
        (old,) = root.roles["timestamp"].keyids
        root.revoke_key(old, "timestamp")
        root.add_key(world.keys.tuf[timestamp].public_key, "timestamp")
        metadata = Metadata(root)
        for role in roles:
            metadata.sign(world.keys.tuf[role], append=True)
        return metadata.to_bytes(COMPACT)

    raw = forced(world, wheel, enrolment=world.key_index("acme-demo"))
    registry = Machine(tmp_path, world).registry
    second = signed(2, "root-a", "root-b", timestamp="timestamp")
    retired = signed(2, "root-a", "root-b", timestamp="snapshot")
    assert judge(replace(Bundle.parse(raw), roots=(second,)).format(), wheel, registry).exit_code == 0
    for bad in (
        (signed(2, "root-a", timestamp="timestamp"),),  # below its threshold
        (signed(3, "root-a", "root-b", timestamp="timestamp"),),  # leads nowhere
        (retired,),  # the key that signed the timestamp is retired by it
        (b"{}",),
    ):
        report = judge(replace(Bundle.parse(raw), roots=bad).format(), wheel, registry)
        assert report.exit_code in (5, 7), (bad, report.to_json())
    # A root this machine has learnt online retires the key, though the bundle does not mention it.
    history = registry.folder / "tuf" / "root_history"
    history.mkdir(parents=True)
    (history / "2.root.json").write_bytes(retired)
    assert judge(raw, wheel, registry).exit_code == 7
    (history / "2.root.json").write_bytes(b"damaged")
    assert judge(raw, wheel, registry).exit_code == 0


def test_nothing_is_bundled_that_verify_refuses(tmp_path: Path) -> None:
    """A held file gets no bundle, and a file the registry does not know neither."""
    world = World()
    file = world.publish("acme-demo")
    world.decide("hold", file, "malware")
    world.release()
    registry = Machine(tmp_path, world).registry
    with pytest.raises(CountermarkError) as held:
        make([artifact(file)], registry, world, now=world.now, policies=POLICIES)
    assert held.value.exit_code == 6
    unknown = Artifact("nobody", "1.0", "nobody-1.0-py3-none-any.whl", hashlib.sha256(b"").hexdigest(), 0)
    with pytest.raises(PolicyError):
        make([unknown], registry, world, now=world.now, policies=POLICIES)


def test_the_size_does_not_depend_on_the_registry_s(tmp_path: Path) -> None:
    """Eighty more files in the same registry add a few hashes."""
    world = World()
    file = world.publish("acme-demo")
    small = len(made(world, file, tmp_path / "small"))
    for number in range(80):
        world.verdict(world.publish("other", f"1.{number}", list_it=False))
    world.release()
    large = len(made(world, file, tmp_path / "large"))
    assert large - small < 1500, (small, large)
