"""Acts that several people sign, each on a machine of their own: a file that travels between them.

    {"act":"countermark-act/v1","envelope":{"payload":"eyJ...","payloadType":"application/vnd.in-toto+json",
     "signatures":[{"keyid":"40c3...","sig":"ObDy..."}]},"registry":"https://registry.example"}

Canonical JSON. The file needs no protection: it holds a statement that will be public, and signatures of it. Whoever
gets one sees in words what the statement does (`describe`), made from the bytes that are signed and from nothing else
in the file. It goes stale with the next entry about the same project, since `prev` is in the statement.

An approval of a release is one, too: its only signature was made where nobody is signed in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from countermark.canonical import encode_canonical, parse_canonical
from countermark.errors import MalformedError
from countermark.limits import ENTRY_MAX_BYTES
from countermark.place import Place
from countermark.schema import check_statement
from countermark.statement import Envelope, Signer, Statement, sign
from countermark.values import dataclass

FORMAT = "countermark-act/v1"
TYPES = ("key-enroll", "owner", "require-approvals", "trusted-publisher")  # what k of n keys may have to sign
APPROVE = "approve"  # one signature: it travels from where the key is to where somebody is signed in


@dataclass(frozen=True)
class Act:
    """A statement, who has signed it so far, and the registry it is for. Signatures are unverified."""

    registry: str
    envelope: Envelope
    statement: Statement

    @classmethod
    def begin(cls, registry: str, statement: Statement, *signers: Signer) -> Act:
        """A new act, signed by these. MalformedError: the statement has not its type's form."""
        check_statement(statement)
        return cls(registry, sign(statement, *signers), statement)

    @classmethod
    def parse(cls, raw: bytes) -> Act:
        """Read a file; MalformedError unless it is an act of a type that several sign."""
        value = parse_canonical(raw, max_bytes=2 * ENTRY_MAX_BYTES)
        if type(value) is not dict or value.keys() != {"act", "envelope", "registry"}:
            raise MalformedError("an act has exactly act, envelope and registry")
        if value["act"] != FORMAT or type(value["registry"]) is not str:
            raise MalformedError(f"this is no {FORMAT}: {str(value['act'])[:80]!r}")
        envelope = Envelope.parse(value["envelope"])
        statement = Statement.parse(envelope.payload)
        if statement.type not in (*TYPES, APPROVE):
            raise MalformedError(f"a {statement.type} takes one signature and no act file")
        check_statement(statement)
        return cls(value["registry"], envelope, statement)

    def format(self) -> bytes:
        """The file."""
        members = {"act": FORMAT, "envelope": self.envelope.to_dict(), "registry": self.registry}
        return encode_canonical(members)

    def signed_by(self, signer: Signer) -> Act:
        """The same act with one signature more, or with this one anew."""
        (ours,) = sign(self.statement, signer).signatures
        others = [each for each in self.envelope.signatures if each.keyid != signer.keyid]
        signatures = tuple(sorted([*others, ours], key=lambda each: each.keyid))
        return Act(self.registry, Envelope(self.envelope.payload, signatures), self.statement)

    @property
    def project(self) -> str:
        """What it is about, as commands name it: acme, corp/widget, corp/*."""
        return str(Place.of(self.statement.predicate))

    @property
    def new_keyid(self) -> str | None:
        """The key that an enrolment lets in, which signs as well and counts for nobody."""
        enrols = self.statement.type == "key-enroll"
        return self.statement.subject_name.removeprefix("key:") if enrols else None


def describe(statement: Statement) -> list[str]:
    """What a statement does, in words for who is about to sign it."""
    said = statement.predicate
    lines = [
        f"{statement.type} for {str(Place.of(said))!r} in {said['origin']}",
        *_WORDS[statement.type](statement),
    ]
    return [*lines, f"it follows entry {said['prev'] or 'none'}"]


def _owner(statement: Statement) -> list[str]:
    said = statement.predicate
    return {
        "add": [f"account {said['account']} becomes {said['role']}"],
        "remove": [f"account {said['account']} owns it no longer"],
        "transfer": [f"account {said['account']} alone owns it from now on"],
        "signing-off": ["it takes unsigned files again, by whoever has an upload token of an owner"],
    }.get(said["action"], [f"action {said['action']}, account {said['account']}"])


def _enrolment(statement: Statement) -> list[str]:
    said = statement.predicate
    lasts = "until it is revoked" if said["valid_for"] is None else f"for {said['valid_for']} seconds"
    return [
        f"key {statement.subject_name.removeprefix('key:')} may sign, {lasts}",
        f"from then on {said['threshold']} keys sign a change of keys or owners",
    ]


def _requirement(statement: Statement) -> list[str]:
    needed = statement.predicate["needed"]
    if not needed:
        return ["releases need no approval any more, and one person may change keys and owners again"]
    return [f"a release is listed once {needed} people approved it; {needed} people sign each change"]


def _approval(statement: Statement) -> list[str]:
    said = statement.predicate
    return [f"{said['decision']} version {said['version']}, its files {said['files_sha256']}"]


def _publisher(statement: Statement) -> list[str]:
    said = statement.predicate
    names = ("action", "issuer", "repository", "repository_id", "workflow", "ref")
    return [", ".join(f"{name} {said[name]}" for name in names if name in said)]


_WORDS: dict[str, Callable[[Statement], list[str]]] = {
    "owner": _owner,
    "key-enroll": _enrolment,
    "require-approvals": _requirement,
    "trusted-publisher": _publisher,
    APPROVE: _approval,
}


def members_of(act: Act) -> dict[str, Any]:
    """The same for programs."""
    return {
        "predicate": dict(act.statement.predicate),
        "signed_by": list(act.envelope.keyids),
        "type": act.statement.type,
    }
