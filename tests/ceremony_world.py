"""What a ceremony needs, made small: a registry's public halves, holders with key files, and their plan."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from securesystemslib.signer import CryptoSigner

from countermark import keyfile
from countermark.statement import KeySigner, Statement, sign
from countermark.tlog.cosignature import Ed25519CosignatureSigner, MlDsaSigner
from countermark.tlog.note import Ed25519NoteSigner
from countermark.words import root_words
from countermark_ceremony import exchange
from countermark_ceremony.assemble import Prepared, assemble
from countermark_ceremony.nextplan import parse_next
from countermark_ceremony.plan import parse_plan
from countermark_ceremony.previous import Previous, join, split

ORIGIN = "registry.example"
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
N = 2**10  # the cheapest scrypt: these tests are not about guessing passphrases
PASSPHRASE = b"correct horse battery staple"
ROLES = ("root", "targets", "index", "trust")
_salts = itertools.count()


def p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass
class Registry:
    """What `init` makes: online keys, log keys, a witness; `input_raw` is what it hands over."""

    origin: str = ORIGIN
    bit_length: int = 2
    tuf: dict[str, CryptoSigner] = field(
        default_factory=lambda: {
            role: CryptoSigner.generate_ed25519() for role in ("bins", "snapshot", "timestamp")
        }
    )
    roles: dict[str, KeySigner] = field(
        default_factory=lambda: {
            role: KeySigner(ed25519.Ed25519PrivateKey.generate())
            for role in ("registry", "scanner", "moderation")
        }
    )

    def __post_init__(self) -> None:
        self.log = Ed25519NoteSigner(self.origin, ed25519.Ed25519PrivateKey.generate())
        self.log_pq = MlDsaSigner(self.origin, mldsa.MLDSA44PrivateKey.generate())
        self.witness = Ed25519CosignatureSigner("w.example/w1", ed25519.Ed25519PrivateKey.generate())

    @property
    def witness_policy(self) -> str:
        return (
            f"log {self.log.vkey.format()}\nlog {self.log_pq.vkey.format()}\n"
            f"witness w1 {self.witness.vkey.format()}\nquorum w1\n"
        )

    def enrolment(self, role: str, **changes: object) -> dict[str, object]:
        signer = self.roles[role]
        predicate = {
            "key": base64.b64encode(signer.public_key).decode(),
            "namespace": "",
            "origin": self.origin,
            "prev": None,
            "project": "",
            "scope": role,
            "threshold": 1,
            "valid_for": None,
        }
        statement = Statement.about(f"key:{signer.keyid}", "key-enroll", predicate | changes)
        return sign(statement, signer).to_dict()

    def document(self) -> dict[str, object]:
        return {
            "bit_length": self.bit_length,
            "log_vkeys": [self.log.vkey.format(), self.log_pq.vkey.format()],
            "origin": self.origin,
            "role_keys": {role: self.enrolment(role) for role in self.roles},
            "tuf_keys": {role: signer.public_key.to_dict() for role, signer in self.tuf.items()},
            "witness_policy": self.witness_policy,
        }

    def input_raw(self) -> bytes:
        return json.dumps(self.document(), indent=1).encode()


@dataclass
class Holders:
    """Three holders with a key each for root, targets (and index) and trust; a fourth has the authority key."""

    names: tuple[str, ...] = ("ada", "ben", "cleo")

    def __post_init__(self) -> None:
        self.keys = {f"{name}-{role}": p256() for role in ("root", "targets", "trust") for name in self.names}
        self.keys["dora-authority"] = p256()

    def public(self, name: str) -> str:
        return base64.b64encode(keyfile.public_bytes(self.keys[name])).decode()

    def key_file(self, name: str) -> bytes:
        salt = b"%016d" % next(_salts)
        return keyfile.encrypt(self.keys[name], PASSPHRASE, name=name, salt=salt, n=N)

    def signers(self, holder: str) -> list[KeySigner]:
        return [KeySigner(key) for name, key in self.keys.items() if name.startswith(f"{holder}-")]


def plan_document(registry: Registry, holders: Holders, input_raw: bytes) -> dict[str, object]:
    """The plan as a tree of tables, for tests to change."""
    return {
        "format": "countermark-ceremony-plan/v1",
        "title": f"first root of {registry.origin}",
        "operator": "dora",
        "origin": registry.origin,
        "trial": False,
        "date": NOW,
        "input": {"file": "ceremony-input.json", "sha256": hashlib.sha256(input_raw).hexdigest()},
        "keys": {
            name: {"holder": name.partition("-")[0], "public_key": holders.public(name)}
            for name in holders.keys
            if name.partition("-")[0] in (*holders.names, "dora")
        },
        "roles": {
            role: {
                "keys": [f"{name}-{'targets' if role == 'index' else role}" for name in holders.names],
                "threshold": 2,
                "days": 180 if role == "trust" else 365,
            }
            for role in ROLES
        },
        "authority": {"key": "dora-authority"},
        "client_policy": {"mode": "enforce", "min_tree_size": 0, "patterns": []},
    }


def to_toml(table: dict[str, object]) -> bytes:
    """A tree of tables as TOML, with inline tables: enough for a plan."""
    return "".join(f"{_key(name)} = {_value(value)}\n" for name, value in table.items()).encode()


def _key(name: str) -> str:
    return json.dumps(name)


def _value(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(name)} = {_value(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, datetime):
        return value.isoformat()
    return json.dumps(value)


def prepared(registry: Registry, holders: Holders, *, trial: bool = False) -> Prepared:
    input_raw = registry.input_raw()
    return first_prepared(plan_document(registry, holders, input_raw) | {"trial": trial}, input_raw)


def first_prepared(document: dict[str, object], input_raw: bytes) -> Prepared:
    """A first plan's ceremony, frozen."""
    return Prepared.create(parse_plan(to_toml(document), input_raw, now=NOW), now=NOW)


def assembled(ceremony: Prepared, holders: Holders) -> dict[str, bytes]:
    """Everybody signs; all files of the finished ceremony."""
    return assemble(ceremony, responses(ceremony, holders), now=NOW)


def responses(prepared: Prepared, holders: Holders, *who: str) -> list[exchange.Response]:
    found = []
    for holder in who or prepared.plan.holders:
        request = prepared.request(holder)
        wanted = {print_ for document in request.documents for _, print_ in document.keys}
        signers = [signer for signer in holders.signers(holder) if signer.keyid in wanted]
        found.append(exchange.sign(request, signers))
    return found


def finished(registry: Registry, holders: Holders, *, trial: bool = False) -> dict[str, bytes]:
    """All files of a finished ceremony."""
    return assembled(prepared(registry, holders, trial=trial), holders)


# --- later ceremonies -----------------------------------------------------------------------------------------

LATER = NOW + timedelta(days=300)


def next_document(
    previous: Previous, holders: Holders, names: tuple[str, ...] | None = None, **changes: object
) -> dict[str, object]:
    """A plan that renews every role with these holders' keys; tests change it."""
    chosen = names or holders.names
    roles = {
        role: {
            "keys": [f"{name}-{'targets' if role == 'index' else role}" for name in chosen],
            "threshold": 2,
            "days": 180 if role == "trust" else 365,
        }
        for role in ROLES
    }
    used = {key for role in roles.values() for key in role["keys"]}
    used |= {f"{name}-root" for name in holders.names}
    return {
        "format": "countermark-ceremony-next/v1",
        "title": "the next root",
        "operator": "dora",
        "origin": previous.trust_file.origin,
        "date": LATER,
        "changes": [] if chosen == holders.names else ["holders"],
        "previous": {"folder": "root-1", "root_words": root_words(previous.metadata["root"].signed_bytes)},
        "keys": {
            name: {"holder": name.partition("-")[0], "public_key": holders.public(name)}
            for name in sorted(used)
        },
        "roles": roles,
        **changes,
    }


def next_prepared(previous: Previous, document: dict[str, object], *, now: datetime = LATER) -> Prepared:
    return Prepared.create(parse_next(to_toml(document), previous, now=now), now=now)


def next_finished(
    files: dict[str, bytes], prepared: Prepared, holders: Holders, *who: str, now: datetime = LATER
) -> dict[str, bytes]:
    """All files of the later ceremony, with its history."""
    done = assemble(prepared, responses(prepared, holders, *who), now=now)
    return join([*split(files), done])


def newcomer(holders: Holders, name: str) -> None:
    """Keys for somebody who is not a holder yet."""
    holders.keys |= {f"{name}-{role}": p256() for role in ("root", "targets", "trust")}


def key_print(holders: Holders, name: str) -> str:
    """Fingerprint of a holder's key."""
    return hashlib.sha256(keyfile.public_bytes(holders.keys[name])).hexdigest()
