"""What `adopt` refuses of a later ceremony on a registry that has published: each refusal, and that nothing changed.

Every case is signed by enough of the right people, so that only the thing it is about is wrong.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata
from tuf.api.serialization.json import JSONSerializer

from countermark.errors import CountermarkError, EvidenceError, MalformedError, SignatureError, UsageError
from countermark.tlog.policy import Policy
from countermark.trustfile import TARGET_PATH, TrustFile
from countermark_ceremony import history
from countermark_ceremony.files import write_folder
from countermark_server import db
from countermark_server.operate import adoption, renewal
from countermark_server.operate.initialise import initialise
from countermark_server.settings import Settings, load
from countermark_server.tufrepo import store
from countermark_server.tufrepo.candidate import BinRecord, Current
from tests import ceremony_world as world

NOW, LATER = int(world.NOW.timestamp()), world.LATER
ROLES = ("root", "targets", "trust", "index")
Files = dict[str, bytes]


@dataclasses.dataclass
class Published:
    """A registry that adopted its first ceremony and has published, and the holders of its keys."""

    settings: Settings
    holders: world.Holders
    first: Files
    second: Files  # what may follow

    def state(self) -> tuple[object, ...]:
        """Everything a refusal must leave as it was: every file, and what tufrepo is told."""
        files = {
            path: path.read_bytes() for path in sorted(self.settings.public.rglob("*")) if path.is_file()
        }
        engine = db.open_engine(self.settings.database_url)
        with db.read(engine) as connection:
            told = store.renewal(connection)
        engine.dispose()
        return files, told

    def refuse(self, files: Files, folder: Path, kind: type[CountermarkError], said: str) -> None:
        """The refusal, in these words, with nothing changed."""
        write_folder(folder, files)
        before = self.state()
        with pytest.raises(kind, match=said):
            renewal.renew(self.settings, folder, now=int(LATER.timestamp()))
        assert self.state() == before

    def changed(self, *changes: Callable[[dict[str, Any]], None]) -> Files:
        """The second ceremony with these changes to its signed parts, signed anew by everybody."""
        signed = {role: Metadata.from_bytes(self.second[f"2.{role}.json"]).signed for role in ROLES}
        for change in changes:
            change(signed)
        files = dict(self.second)
        for role, each in signed.items():
            del files[f"2.{role}.json"]
            files[f"{each.version}.{role}.json"] = self.sign(role, each)
        return files

    def sign(self, role: str, signed: Any, *who: str) -> bytes:
        metadata: Metadata[Any] = Metadata(signed)
        suffix = "targets" if role == "index" else role
        for name, key in self.holders.keys.items():
            if name.endswith(f"-{suffix}") and (not who or name.partition("-")[0] in who):
                metadata.sign(CryptoSigner(key), append=True)
        return metadata.to_bytes(JSONSerializer(compact=True))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    room = tmp_path_factory.mktemp("renewal")
    data = room / "registry"
    initialise(data, world.ORIGIN, bit_length=2, environ={})
    handed = (data / "ceremony-input.json").read_bytes()
    holders = world.Holders()
    plan = world.plan_document(world.Registry(), holders, handed)
    prepared = world.first_prepared(plan, handed)
    first = world.assembled(prepared, holders)
    write_folder(room / "root-1", first)
    settings = load(data, {})
    adoption.adopt(settings, room / "root-1", now=NOW)
    base = history.verify(first)[-1]
    following = world.next_prepared(base, world.next_document(base, holders))
    second = world.next_finished(first, following, holders)
    return Published(settings, holders, first, second)


@pytest.fixture
def running(published: Published) -> Published:
    """The same after tufrepo's first publish, as its rows say."""
    tell(published, published_once=True)
    return published


def tell(registry: Published, *, published_once: bool, waiting: dict[str, int] | None = None) -> None:
    engine = db.open_engine(registry.settings.database_url)
    bins = tuple(BinRecord(1, "00" * 32, bytes(32), 0) for _ in range(4))
    current = Current(2, {"targets": 1, "trust": 1, "index": 1}, bins, None, None, 0, 0, None)
    with db.write(engine) as connection:
        connection.execute(db.tufrepo_state.delete())
        if published_once:
            store.save(connection, current, range(4))
        if waiting:
            store.renew(connection, waiting)
    engine.dispose()


def test_what_is_sound_is_taken(running: Published, tmp_path: Path) -> None:
    """The ground of all cases below: unchanged, and signed anew without a change, it is taken."""
    write_folder(tmp_path / "a", running.changed())
    try:
        renewal.renew(running.settings, tmp_path / "a", now=int(LATER.timestamp()))
        assert running.state()[1] == dict.fromkeys(ROLES, 2)
    finally:  # the next cases begin where this one did
        tell(running, published_once=True)
        written = [f"{store.waiting_root(2)}", *(f"tuf/2.{role}.json" for role in ROLES[1:])]
        for name in [*written, *(f"tuf/ceremony/2/{each}" for each in adoption.COMPANIONS)]:
            (running.settings.public / name).unlink()


def test_a_registry_that_has_not_published_yet(published: Published, tmp_path: Path) -> None:
    """Before its first timestamp there is nothing that a later ceremony could follow."""
    tell(published, published_once=False)
    published.refuse(published.second, tmp_path / "a", UsageError, "has not published its first TUF metadata")


def test_two_ceremonies_at_once(running: Published, tmp_path: Path) -> None:
    """One that waits for its publish is not replaced by another."""
    tell(running, published_once=True, waiting={**dict.fromkeys(ROLES, 1), "trust": 2})
    running.refuse(running.second, tmp_path / "a", UsageError, "adopted before this one is not published yet")


def test_a_file_in_force_that_is_missing(running: Published, tmp_path: Path) -> None:
    """A public tree with a hole is not built on."""
    hole = running.settings.public / "tuf/1.index.json"
    raw = hole.read_bytes()
    hole.unlink()
    try:
        running.refuse(running.second, tmp_path / "a", EvidenceError, "1.index.json is missing")
    finally:
        hole.write_bytes(raw)


def test_a_ceremony_of_another_registry(running: Published, tmp_path: Path) -> None:
    """Whole and sound, and not ours."""
    holders = world.Holders()
    other = world.finished(world.Registry(origin="other.example"), holders)
    base = history.verify(other)[-1]
    other = world.next_finished(other, world.next_prepared(base, world.next_document(base, holders)), holders)
    running.refuse(
        other, tmp_path / "a", EvidenceError, "the ceremony is for other.example, this registry is"
    )


def _expires(role: str) -> Callable[[dict[str, Any]], None]:
    def change(signed: dict[str, Any]) -> None:
        signed[role].expires = LATER - timedelta(seconds=1)

    return change


def _transcript(signed: dict[str, Any]) -> None:
    signed["root"].unrecognized_fields["x-countermark-ceremony"] = {"transcript_sha256": "00" * 32}


def _no_bins(signed: dict[str, Any]) -> None:
    signed["index"].delegations = None


def _other_bins(signed: dict[str, Any]) -> None:
    key = CryptoSigner.generate_ed25519().public_key
    delegations = signed["index"].delegations
    delegations.keys = {key.keyid: key}
    delegations.succinct_roles.keyids = [key.keyid]


def _other_timestamp(signed: dict[str, Any]) -> None:
    key = CryptoSigner.generate_ed25519().public_key
    signed["root"].add_key(key, "timestamp")
    signed["root"].roles["timestamp"].threshold = 2


def _trial(signed: dict[str, Any]) -> None:
    signed["root"].unrecognized_fields["x-countermark-trial"] = True


def _not_accepted(signed: dict[str, Any]) -> None:
    signed["root"].unrecognized_fields["x-countermark-trust"] = ["00" * 32]


def _third(signed: dict[str, Any]) -> None:
    signed["index"].version = 3


SIGNED_WRONG = {
    "an expired root": (_expires("root"), "2.root.json has version 2 and expires"),
    "an expired trust role": (_expires("trust"), "2.trust.json has version 2 and expires"),
    "a transcript that is another": (_transcript, "root names transcript"),
    "an index without bins": (_no_bins, "index delegates to no bins"),
    "bins of a key that is not here": (_other_bins, "role bins has keys"),
    "a timestamp key that is not here": (_other_timestamp, "role timestamp has keys"),
    "a registry that becomes a trial": (_trial, "a registry that was none does not become one"),
    "a root that accepts another trust file": (_not_accepted, "does not accept the trust file"),
    "a role that skips a version": (_third, "index would go from version 1 to 3"),
}


@pytest.mark.parametrize("why", SIGNED_WRONG)
def test_what_all_holders_signed_and_may_not_be(running: Published, tmp_path: Path, why: str) -> None:
    """Signed by everybody, and refused for what it says."""
    change, said = SIGNED_WRONG[why]
    running.refuse(running.changed(change), tmp_path / "a", EvidenceError, said)


@pytest.mark.parametrize("role", ROLES)
def test_too_few_signatures_on_any_role(running: Published, tmp_path: Path, role: str) -> None:
    """One of two: whichever role it is, nothing is taken."""
    signed = Metadata.from_bytes(running.second[f"2.{role}.json"]).signed
    files = running.second | {f"2.{role}.json": running.sign(role, signed, "ada")}
    running.refuse(files, tmp_path / "a", SignatureError, f"{role} 2 is not signed as .* demands")


def test_a_root_that_only_newcomers_signed(running: Published, tmp_path: Path) -> None:
    """A root may name whom it likes; ours must have agreed."""
    strangers = world.Holders()
    root = Metadata.from_bytes(running.second["2.root.json"]).signed
    for keyid in list(root.roles["root"].keyids):
        root.revoke_key(keyid, "root")
    for name in ("ada", "ben", "cleo"):
        root.add_key(CryptoSigner(strangers.keys[f"{name}-root"]).public_key, "root")
    theirs = dataclasses.replace(running, holders=strangers)
    files = running.second | {"2.root.json": theirs.sign("root", root)}
    running.refuse(files, tmp_path / "a", SignatureError, "root 2 is not signed as root 1 demands")


def _trust_file(**changes: Any) -> Callable[[Published], Files]:
    """The second ceremony with a changed trust file, listed by trust and accepted by the root."""

    def files(registry: Published) -> Files:
        digest = next(name for name in registry.second if name.startswith("targets/trust/"))
        old = TrustFile.parse(registry.second[digest])
        said = changes | (
            {"witness_policy": changes["witness_policy"](old)} if "witness_policy" in changes else {}
        )
        new = dataclasses.replace(old, **said)

        def change(signed: dict[str, Any]) -> None:
            target = signed["trust"].targets[TARGET_PATH]
            target.length, target.hashes = len(new.format()), {"sha256": new.digest}
            signed["root"].unrecognized_fields["x-countermark-trust"].append(new.digest)

        return registry.changed(change) | {f"targets/trust/{new.digest}.trust.json": new.format()}

    return files


def _other_log(old: TrustFile) -> str:
    other = world.Registry(origin=old.origin)
    policy = old.witness_policy
    for ours, theirs in zip(
        Policy.parse(policy).log_keys(old.origin), (other.log, other.log_pq), strict=True
    ):
        policy = policy.replace(ours.format(), theirs.vkey.format())
    return policy


TRUST_FILES = {
    "another authority key": (
        {"version": 2, "authority_key": world.KeySigner(world.p256()).public_key},
        "another authority key than ours",
    ),
    "other log keys": ({"version": 2, "witness_policy": _other_log}, "not signed by the log keys of both"),
    "a version that is skipped": ({"version": 3}, "the trust file would go from version 1 to 3"),
    "another trust file of the same version": (
        {"valid_from": NOW + 1},
        "the trust file would go from version 1 to 1",
    ),
}


@pytest.mark.parametrize("why", TRUST_FILES)
def test_a_trust_file_that_may_not_follow_ours(running: Published, tmp_path: Path, why: str) -> None:
    """All holders signed for it, and the log would not know whom to obey."""
    changes, said = TRUST_FILES[why]
    running.refuse(_trust_file(**changes)(running), tmp_path / "a", EvidenceError, said)


def test_a_floor_that_falls(running: Published, tmp_path: Path) -> None:
    """`min_tree_size` is a floor against rollback: what is in force here has the higher one."""
    name = next(name for name in running.second if name.startswith("targets/trust/"))
    ours = running.settings.public / "tuf" / name
    raw = ours.read_bytes()
    trust = running.settings.public / "tuf/1.trust.json"
    listed = trust.read_bytes()
    old = TrustFile.parse(raw)
    policy = dataclasses.replace(old.client_policy, min_tree_size=9)
    higher = dataclasses.replace(old, client_policy=policy)
    signed = Metadata.from_bytes(listed).signed
    target = signed.targets[TARGET_PATH]
    target.length, target.hashes = len(higher.format()), {"sha256": higher.digest}
    put = running.settings.public / f"tuf/targets/trust/{higher.digest}.trust.json"
    put.write_bytes(higher.format())
    trust.write_bytes(running.sign("trust", signed))
    try:
        files = _trust_file(version=2)(running)
        running.refuse(files, tmp_path / "a", EvidenceError, "min_tree_size falls")
    finally:
        trust.write_bytes(listed)
        put.unlink()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{}\n", "does not say what it follows"),
        (b"not JSON\n", "does not say what it follows"),
        (b'{"previous_root_sha256":"00"}\n', "the ceremony follows a root with SHA-256 00"),
    ],
)
def test_a_transcript_that_follows_nothing_of_ours(
    running: Published, tmp_path: Path, line: bytes, said: str
) -> None:
    """The root names it, and what it says is no ground, or another one."""

    def change(signed: dict[str, Any]) -> None:
        digest = hashlib.sha256(line).hexdigest()
        signed["root"].unrecognized_fields["x-countermark-ceremony"] = {"transcript_sha256": digest}

    files = running.changed(change) | {"transcript.jsonl": line}
    running.refuse(files, tmp_path / "a", EvidenceError if b"00" in line else MalformedError, said)


@pytest.mark.parametrize("raw", [b"", b"{", b'{"signed": {}, "signatures": []}', b"[]"])
@pytest.mark.parametrize("role", ROLES)
def test_a_file_that_is_no_metadata(running: Published, tmp_path: Path, role: str, raw: bytes) -> None:
    """Torn on the stick: named as malformed, not as a programming error."""
    running.refuse(running.second | {f"2.{role}.json": raw}, tmp_path / "a", MalformedError, "is malformed")


def test_a_file_under_another_version_s_name(running: Published, tmp_path: Path) -> None:
    """2.index.json that holds version 1."""
    files = running.second | {"2.index.json": running.first["1.index.json"]}
    running.refuse(files, tmp_path / "a", EvidenceError, "2.index.json has version 1")


def test_a_companion_that_is_missing(running: Published, tmp_path: Path) -> None:
    """Without its words, transcript or trust file a ceremony is not whole, and nothing of it is written."""
    trust = next(name for name in running.second if name.startswith("targets/trust/"))
    for number, name in enumerate([*adoption.COMPANIONS, trust]):
        files = {each: raw for each, raw in running.second.items() if each != name}
        running.refuse(files, tmp_path / str(number), CountermarkError, Path(name).name[:8])
