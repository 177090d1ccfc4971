"""Payloads: the exact bytes each key signs, made from the plan, and the sentences that describe them.

    1.trust.json    the trust role lists the trust file (log keys, witnesses, authority key, client policy)
    1.index.json    the index role delegates every bin to the online bins key
    1.targets.json  the targets role delegates `trust/*` to trust and `files/*/*` to index
    1.root.json     the root names every top-level key, the trust file's digest and the transcript's
    role-keys/...   the authority key admits a role key of the log (one DSSE statement each)
    predecessor     the authority key names the frozen log that this one goes on from, if there is one

`build` is a pure function of plan and transcript digest, so anybody who has both can make the same bytes and
compare. `describe` reads the payload and nothing else: a holder sees what the bytes say, not what the
sender of a request says about them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from securesystemslib.signer import SSlibKey
from tuf.api.metadata import (
    TOP_LEVEL_ROLE_NAMES,
    DelegatedRole,
    Delegations,
    Role,
    Root,
    SuccinctRoles,
    TargetFile,
    Targets,
)
from tuf.api.serialization.json import CanonicalJSONSerializer

from countermark.errors import MalformedError
from countermark.predecessor import TYPE as PREDECESSOR
from countermark.statement import pae
from countermark.tlog.note import ED25519, ED25519_COSIGNATURE, ML_DSA_44, VerifierKey
from countermark.trustfile import TARGET_PATH, TrustFile
from countermark_ceremony.difference import difference, warnings
from countermark_ceremony.handover import ROLE_KEYS, fingerprint, key_spki, tuf_key
from countermark_ceremony.plan import Plan
from countermark_ceremony.tables import PlanKey

BINS_PREFIX = "bins"
REHEARSAL_ORIGIN = "rehearsal.invalid"  # nobody can own it
REHEARSAL = "x-countermark-rehearsal"
TRUST_PATHS, INDEX_PATHS = ["trust/*"], ["files/*/*"]


@dataclass(frozen=True)
class Quorum:
    """So many of these keys must sign; `of` says in whose name, such as `root 2`."""

    of: str
    keys: tuple[PlanKey, ...]
    threshold: int

    def needs(self) -> str:
        """`2 of the 3 keys of root 2`."""
        return f"{self.threshold} of the {len(self.keys)} keys of {self.of}"


@dataclass(frozen=True)
class Document:
    """Something to sign: its name, the exact bytes, who may sign and how many must, in whose names."""

    name: str
    payload: bytes
    quorums: tuple[Quorum, ...]

    @property
    def keys(self) -> tuple[PlanKey, ...]:
        """Every key that may sign, once."""
        return tuple({key.fingerprint: key for quorum in self.quorums for key in quorum.keys}.values())

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the payload."""
        return hashlib.sha256(self.payload).hexdigest()


@dataclass(frozen=True)
class Payloads:
    """Everything that will be signed, and the trust file they lead to."""

    documents: tuple[Document, ...]
    trust_file: TrustFile

    def of(self, holder: str) -> tuple[Document, ...]:
        """What one holder is asked to sign."""
        return tuple(
            document for document in self.documents if any(key.holder == holder for key in document.keys)
        )

    def named(self, name: str) -> Document:
        """The document of that name."""
        return next(document for document in self.documents if document.name == name)


def build_inner(plan: Plan) -> Payloads:
    """Everything but the root, which needs the digest of the transcript that lists these."""
    trust_file = TrustFile(
        version=1,
        origin=plan.origin,
        authority_key=plan.authority.public_key,
        witness_policy=plan.handover.witness_policy,
        client_policy=plan.client_policy,
        valid_from=int(plan.date.timestamp()),
    )
    trust = Targets(
        1, expires=plan.expires("trust"), targets={TARGET_PATH: trust_target(trust_file.format())}
    )
    documents = [
        _metadata(plan, "targets", _targets(plan)),
        _metadata(plan, "trust", trust),
        _metadata(plan, "index", _index(plan)),
    ]
    authority = Quorum("the authority", (plan.authority,), 1)
    if plan.handover.predecessor is not None:
        said = plan.handover.predecessor.statement(plan.origin)
        documents.append(Document(PREDECESSOR, pae(said.payload()), (authority,)))
    for role in ROLE_KEYS:
        payload = pae(plan.handover.role_keys[role].envelope.payload)
        documents.append(Document(f"role-keys/{role}", payload, (authority,)))
    return Payloads(tuple(documents), trust_file)


def build(plan: Plan, transcript_sha256: str) -> Payloads:
    """Everything that is signed in this ceremony, root first."""
    inner = build_inner(plan)
    keys: dict[str, SSlibKey] = {}
    roles = {}
    for name in sorted(TOP_LEVEL_ROLE_NAMES):
        if name in plan.roles:
            named = [tuf_key(key.public_key) for key in plan.roles[name].keys]
            threshold = plan.roles[name].threshold
        else:
            named, threshold = [plan.handover.tuf_keys[name]], 1
        keys |= {key.keyid: key for key in named}
        roles[name] = Role([key.keyid for key in named], threshold)
    extra: dict[str, Any] = {
        "x-countermark-ceremony": {"transcript_sha256": transcript_sha256},
        "x-countermark-trust": [inner.trust_file.digest],
    }
    if plan.trial:
        extra["x-countermark-trial"] = True
    if plan.origin == REHEARSAL_ORIGIN:
        extra[REHEARSAL] = True
    root = Root(
        1,
        expires=plan.expires("root"),
        keys=dict(keys),
        roles=roles,
        consistent_snapshot=True,
        unrecognized_fields=extra,
    )
    return Payloads((_metadata(plan, "root", root), *inner.documents), inner.trust_file)


def _targets(plan: Plan) -> Targets:
    keys: dict[str, SSlibKey] = {}
    roles = {}
    for name, paths in (("trust", TRUST_PATHS), ("index", INDEX_PATHS)):
        named = [tuf_key(key.public_key) for key in plan.roles[name].keys]
        keys |= {key.keyid: key for key in named}
        # Terminating: what these do not list, nobody else may list.
        roles[name] = DelegatedRole(
            name, [key.keyid for key in named], plan.roles[name].threshold, True, paths=list(paths)
        )
    return Targets(1, expires=plan.expires("targets"), delegations=Delegations(dict(keys), roles=roles))


def _index(plan: Plan) -> Targets:
    key = plan.handover.tuf_keys["bins"]
    succinct = SuccinctRoles([key.keyid], 1, plan.handover.bit_length, BINS_PREFIX)
    return Targets(
        1, expires=plan.expires("index"), delegations=Delegations({key.keyid: key}, succinct_roles=succinct)
    )


def trust_target(content: bytes) -> TargetFile:
    """The trust file as the role trust lists it."""
    return TargetFile(len(content), {"sha256": hashlib.sha256(content).hexdigest()}, TARGET_PATH)


def _metadata(plan: Plan, role: str, signed: Root | Targets) -> Document:
    chosen = plan.roles[role]
    payload = CanonicalJSONSerializer().serialize(signed)
    return Document(f"1.{role}.json", payload, (Quorum(role, chosen.keys, chosen.threshold),))


def describe(document: str, payload: bytes, previous: bytes | None = None) -> list[str]:
    """What these bytes say, one sentence a line; `+` marks what was not there in the signed part before it."""
    try:
        if document.startswith("role-keys/"):
            return _describe_statement(payload)
        if document == PREDECESSOR:
            return _describe_predecessor(payload)
        signed = read_signed(payload)
        if previous is not None:
            old = read_signed(previous)
            return difference(_describe_signed(old), _describe_signed(signed)) + warnings(old, signed)
        return _describe_signed(signed)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MalformedError(f"{document}: the payload is not TUF metadata we can show: {error}") from error


def _describe_signed(signed: Root | Targets) -> list[str]:
    head = f"+ {signed.type} version {signed.version}, expires {signed.expires:%Y-%m-%dT%H:%M:%SZ}"
    return [head, *(_describe_root(signed) if isinstance(signed, Root) else _describe_targets(signed))]


def read_signed(payload: bytes) -> Root | Targets:
    """The signed part these canonical bytes spell (canonical JSON of TUF leaves line breaks of PEM raw)."""
    fields = json.loads(payload, strict=False)
    signed: Root | Targets = (
        Root.from_dict(fields) if fields["_type"] == "root" else Targets.from_dict(fields)
    )
    if CanonicalJSONSerializer().serialize(signed) != payload:
        raise ValueError("it is not canonical")
    return signed


def _describe_root(root: Root) -> list[str]:
    lines = []
    if root.unrecognized_fields.get(REHEARSAL):
        lines.append("+ REHEARSAL: every program of a registry refuses this root")
    if root.unrecognized_fields.get("x-countermark-trial"):
        lines.append("+ TRIAL: every client will call this a trial registry, and CI will refuse it")
    for name in sorted(root.roles):
        lines += _describe_role(name, root.roles[name], root.keys)
    ceremony = root.unrecognized_fields["x-countermark-ceremony"]["transcript_sha256"]
    lines += [f"+ accepts trust file {digest}" for digest in root.unrecognized_fields["x-countermark-trust"]]
    return [*lines, f"+ transcript of this ceremony {ceremony}"]


def _describe_targets(targets: Targets) -> list[str]:
    lines = []
    if ceremony := targets.unrecognized_fields.get("x-countermark-ceremony"):
        lines.append(f"+ transcript of this ceremony {ceremony['transcript_sha256']}")
    for path, target in sorted(targets.targets.items()):
        lines.append(f"+ target {path}: {target.length} bytes, sha256 {target.hashes['sha256']}")
    delegations = targets.delegations
    if delegations and delegations.roles:
        for name, role in delegations.roles.items():
            stop = ", terminating" if role.terminating else ""
            lines.append(f"+ delegates {' '.join(role.paths or [])} to {name}{stop}")
            lines += _describe_role(name, role, delegations.keys)
    if delegations and delegations.succinct_roles:
        bins = delegations.succinct_roles
        lines.append(f"+ delegates everything to {bins.number_of_bins} bins {bins.name_prefix}-*")
        lines += _describe_role(bins.name_prefix, bins, delegations.keys)
    return lines


def _describe_role(name: str, role: Role, keys: Mapping[str, Any]) -> list[str]:
    lines = [f"+ {name}: {role.threshold} of {len(role.keyids)} keys"]
    for keyid in role.keyids:
        key = cast(SSlibKey, keys[keyid])
        lines.append(f"+   {name} key {key.scheme} {fingerprint(key_spki(key))}")
    return lines


def _describe_predecessor(pae: bytes) -> list[str]:
    """In plain words first: this can't be said again, or taken back."""
    lines = _describe_statement(pae)
    said = json.loads(pae[pae.index(b"{") :])["predicate"]
    return [
        f"+ {said['origin']} goes on from the log {said['log']}, which ended with {said['tree_size']} entries",
        f"+   final root hash {said['root_hash']}: compare it with what `freeze` printed there",
        "+   entry 0 of the new log says so for ever; nothing of the old log's state goes over",
        *lines,
    ]


def _describe_statement(pae: bytes) -> list[str]:
    """DSSEv1 <len> <type> <len> <payload>: the payload is the statement."""
    version, length, rest = pae.split(b" ", 2)
    payload_type, rest = rest[: int(length)], rest[int(length) + 1 :]
    size, payload = rest.split(b" ", 1)
    if version != b"DSSEv1" or len(payload) != int(size):
        raise ValueError("not a DSSE pre-authentication encoding")
    statement = json.loads(payload)
    predicate = statement["predicate"]
    lines = [
        f"+ statement {statement['predicateType']} ({payload_type.decode()})",
        f"+ subject {statement['subject'][0]['name']}",
    ]
    return lines + [f"+   {name}: {json.dumps(predicate[name])}" for name in sorted(predicate)]


def describe_trust_file(trust_file: TrustFile) -> list[str]:
    """What the trust file says, one sentence a line."""
    policy, witnesses = trust_file.client_policy, trust_file.policy
    return [
        f"+ trust file version {trust_file.version} for {trust_file.origin}, sha256 {trust_file.digest}",
        f"+ authority key {fingerprint(trust_file.authority_key)}",
        f"+ client policy: {policy.mode}, at least {policy.min_tree_size} entries",
        *(f"+   {pattern.project}: {pattern.mode}" for pattern in policy.patterns),
        *(f"+   demands {name}: {json.dumps(value)}" for name, value in policy.demands.to_dict().items()),
        *(f"+ log {_describe_note_key(log.key)}" for log in witnesses.logs),
        *(f"+ witness {w.name}: {_describe_note_key(w.key)}" for w in witnesses.witnesses),
        *(f"+ group {g.name}: {g.threshold} of {' '.join(g.members)}" for g in witnesses.groups),
        f"+ quorum {witnesses.quorum}",
    ]


def _describe_note_key(key: VerifierKey) -> str:
    kind = {ED25519: "Ed25519", ED25519_COSIGNATURE: "Ed25519 cosignature", ML_DSA_44: "ML-DSA-44"}
    return f"{key.name} {kind.get(key.type, hex(key.type))} key ID {key.key_id.hex()}"
