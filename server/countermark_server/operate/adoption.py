"""Adoption: bring a ceremony's result home, and begin the log with it.

    adopt(settings, Path("ceremony/out"))

Everything is checked before anything is written: the root signs itself with its threshold, targets is signed
as the root says, trust and index as targets says; the trust file is the one that the root accepts; the online
keys in all of it are the ones on this machine, and the log's keys and its origin are ours. A ceremony for
another registry, or one that somebody altered on its way, is refused with the part that disagrees.

Then the files are copied, immutable, into public/tuf, the root is given to the timestamper, and the log is
created with its genesis entries (`log/create.py`), in one transaction. Adopting twice is refused; a crash in
between is repeated harmlessly, since the same files are written again and the log did not exist yet.

The operator's trust in the root comes from the words they compare, never from here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets

from countermark.errors import CountermarkError, EvidenceError, MalformedError, SignatureError, UsageError
from countermark.limits import BIN_MAX_BYTES
from countermark.statement import Envelope, Statement, keyid_of, open_envelope
from countermark.trustfile import TARGET_PATH, TrustFile
from countermark.words import root_words
from countermark_server import db, migrations, onlinekeys, signing
from countermark_server.log.create import create
from countermark_server.operate.initialise import INPUT_FILE
from countermark_server.operate.reading import read_bounded
from countermark_server.operate.succession import check_predecessor, signed_predecessor
from countermark_server.settings import Settings
from countermark_server.stores import heads, places
from countermark_server.stores.immutable import write_files

ROLES = ("root", "targets", "trust", "index")
COMPANIONS = ("transcript.jsonl", "transcript-signatures.jsonl", "root-words.txt")  # public, for auditors
ROLE_KEYS_FILE = "role-keys.json"


@dataclass(frozen=True)
class Adopted:
    """What was adopted, for people."""

    trust: TrustFile
    trial: bool
    words: str


@dataclass(frozen=True)
class _Ceremony:
    files: Mapping[str, bytes]  # by their name in public/tuf
    root: Metadata[Root]
    index: Metadata[Targets]
    trust: TrustFile
    role_keys: Mapping[str, dict[str, Any]]
    predecessor: Mapping[str, Any] | None


def adopt(settings: Settings, output: Path, *, now: int) -> Adopted:
    """Verify a finished ceremony, publish its files, create the log. Refuses before anything is written."""
    engine = db.open_engine(settings.database_url)
    try:
        migrations.upgrade(engine)
        with db.read(engine) as connection:
            if heads.load(connection, settings.registry.origin) is not None:
                raise UsageError(f"{settings.registry.origin} has adopted a ceremony already")
        ceremony = read_ceremony(output, now=now)
        signers = signing.log_signers(settings)
        check_ours(settings, ceremony, [signer.vkey.format() for signer in signers])
        places.public(settings).put_all({f"tuf/{name}": raw for name, raw in ceremony.files.items()})
        write_files(settings.data / "timestamper", {"root.json": ceremony.files["1.root.json"]})
        # Published, and served by nobody yet. If we stop here the same ceremony can be adopted again.
        with db.write(engine) as connection:
            create(
                connection,
                ceremony.trust,
                signers,
                ceremony.role_keys,
                now=now,
                raw_add=settings.testing.raw_add,
                predecessor=ceremony.predecessor,
            )
        # Created: from here on this origin has a history.
    finally:
        engine.dispose()
    return Adopted(ceremony.trust, is_trial(ceremony.root), root_words(ceremony.root.signed_bytes))


def is_adopted(settings: Settings) -> bool:
    """Whether this registry's log was created."""
    engine = db.open_engine(settings.database_url)
    try:
        migrations.upgrade(engine)
        with db.read(engine) as connection:
            return heads.load(connection, settings.registry.origin) is not None
    finally:
        engine.dispose()


def check_same(settings: Settings, output: Path) -> None:
    """Refuse a ceremony's output that is not the one adopted already."""
    if places.public(settings).read("tuf/1.root.json") != read_file(output, "1.root.json"):
        raise UsageError(
            f"{settings.registry.origin} has adopted another ceremony than the one in {output}",
            hint="a registry begins once; start without --ceremony",
        )


def check_real(root: Metadata[Root]) -> None:
    """UsageError: this root was made in a rehearsal, which is refused everywhere."""
    if root.signed.unrecognized_fields.get("x-countermark-rehearsal", False) is not False:
        raise UsageError(
            "this root was made in a rehearsal: it is no registry's",
            hint="hold the ceremony that was rehearsed",
        )


def is_trial(root: Metadata[Root]) -> bool:
    """Whether this root says that its registry is only tried out."""
    return root.signed.unrecognized_fields.get("x-countermark-trial") is True


def read_ceremony(output: Path, *, now: int) -> _Ceremony:
    """The ceremony in this folder, once it verifies from nothing but itself."""
    try:
        return _read(output, datetime.fromtimestamp(now, UTC))
    except CountermarkError:
        raise
    except RepositoryError as error:
        raise SignatureError(f"the ceremony in {output} is not signed as it must be: {error}") from error
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise MalformedError(f"the ceremony in {output} is malformed: {error!r}") from error


def _read(output: Path, now: datetime) -> _Ceremony:
    # (1) The root signs itself, targets by the root, trust and index by targets.
    raw = {role: read_file(output, f"1.{role}.json") for role in ROLES}
    root = Metadata[Root].from_bytes(raw["root"])
    targets, trust, index = (Metadata[Targets].from_bytes(raw[role]) for role in ROLES[1:])
    root.verify_delegate("root", root)
    root.verify_delegate("targets", targets)
    targets.verify_delegate("trust", trust)
    targets.verify_delegate("index", index)
    metadata: dict[str, Metadata[Any]] = {"root": root, "targets": targets, "trust": trust, "index": index}
    for role, each in metadata.items():
        if each.signed.version != 1 or each.signed.is_expired(now):
            raise EvidenceError(
                f"1.{role}.json has version {each.signed.version} and expires {each.signed.expires}: "
                "a first ceremony has version 1, unexpired"
            )
    check_real(root)
    # (2) The trust file is the one that trust lists and that the root accepts without delay.
    target = trust.signed.targets[TARGET_PATH]
    name = f"targets/trust/{target.hashes['sha256']}.trust.json"
    trust_raw = read_file(output, name)
    target.verify_length_and_hashes(trust_raw)
    trust_file = TrustFile.parse(trust_raw)
    accepted = root.signed.unrecognized_fields["x-countermark-trust"]
    if accepted != [trust_file.digest]:
        raise EvidenceError(f"the root accepts trust files {accepted}, this one is {trust_file.digest}")
    files = {f"1.{role}.json": content for role, content in raw.items()} | {name: trust_raw}
    files |= {f"ceremony/1/{each}": read_file(output, each) for each in COMPANIONS}
    role_keys = json.loads(read_file(output, ROLE_KEYS_FILE))
    if not isinstance(role_keys, dict) or not all(isinstance(each, dict) for each in role_keys.values()):
        raise MalformedError(f"{ROLE_KEYS_FILE} is not an object of envelopes")
    return _Ceremony(files, root, index, trust_file, role_keys, signed_predecessor(output))


def check_ours(settings: Settings, ceremony: _Ceremony, vkeys: list[str]) -> None:
    """Every online key in the ceremony's result is on this machine, and the log is ours."""
    trust, data = ceremony.trust, settings.data
    if trust.origin != settings.registry.origin:
        raise EvidenceError(
            f"the ceremony is for {trust.origin}, this registry is {settings.registry.origin}"
        )
    if [key.format() for key in trust.log_keys] != vkeys:
        raise EvidenceError("the log keys in the ceremony's trust file are not the ones on this machine")
    asked = json.loads(read_file(data, INPUT_FILE))
    if trust.witness_policy != asked["witness_policy"]:
        raise EvidenceError(f"the ceremony's witness policy is not the one in {INPUT_FILE}")
    roles = ceremony.root.signed.roles
    succinct = ceremony.index.signed.delegations and ceremony.index.signed.delegations.succinct_roles
    if not succinct or succinct.name_prefix != "bins" or succinct.bit_length != asked["bit_length"]:
        raise EvidenceError(f"the ceremony's index does not delegate to 2^{asked['bit_length']} bins")
    online = {"bins": succinct, "snapshot": roles["snapshot"], "timestamp": roles["timestamp"]}
    for role, keys in online.items():
        ours = onlinekeys.public_keys(settings, role)[0].keyid
        if keys.keyids != [ours] or keys.threshold != 1:
            raise EvidenceError(f"role {role} has keys {keys.keyids} in the ceremony, ours is {ours}")
    _check_role_keys(data, ceremony)
    check_predecessor(asked, ceremony.predecessor, trust)
    if ceremony.predecessor is not None and settings.testing.raw_add:
        raise UsageError("a log for raw bytes (testing.raw_add) has no entry that could name a predecessor")


def _check_role_keys(data: Path, ceremony: _Ceremony) -> None:
    """Each role key on this machine is enrolled by a statement that it and the authority key signed."""
    if set(ceremony.role_keys) != set(signing.ROLES):
        raise EvidenceError(f"{ROLE_KEYS_FILE} enrols {sorted(ceremony.role_keys)}")
    authority = keyid_of(ceremony.trust.authority_key)
    for role in signing.ROLES:
        spki = signing.public_key(data, role)
        ours = keyid_of(spki)
        envelope = Envelope.parse(ceremony.role_keys[role])
        statement = Statement.parse(envelope.payload)
        said = (statement.type, statement.predicate.get("scope"), statement.subject_name)
        if said != ("key-enroll", role, f"key:{ours}"):
            raise EvidenceError(f"the {role} key enrolled by the ceremony is not the one on this machine")
        opened = open_envelope(envelope, {ours: spki, authority: ceremony.trust.authority_key})
        if set(opened.keyids) != {ours, authority}:
            raise SignatureError(f"the enrolment of the {role} key lacks a signature of its two keys")


def read_file(folder: Path, name: str) -> bytes:
    """A file of a ceremony's output, with a bound."""
    return read_bounded(folder / name, BIN_MAX_BYTES)
