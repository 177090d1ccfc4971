"""Who signed a publish, and why that key counts: the enrolment chain, read out of the log.

A publish entry names its key's `key-enroll` entry. That entry is fetched, proved to be in the log, and must
have been signed by the new key itself and, unless it was the project's first, by an enrolled key, whose own
enrolment is read in turn. Some ends are possible for one that was signed, and every result says which:

    chained to #12           older keys of the project vouch back to entry 12, where the first was enrolled
    by a job, trusted by #14           the key of one run of a CI job. Which job, the registry has checked and nobody
                                       else can; its trusted publisher's entry chains to older keys
    unchained, first seen at #12       this key is the project's first: the registry's word that it is theirs
    signed by the registry only        no publisher's key at all; a finding, and policy decides

A file that an import brought in was signed by nobody (`imported by entry #9, not signed`): a finding, too. Its entry
says when this log first saw the file, which is not when anybody uploaded it.

A pin on a key is met by keys that it vouched for, and not by a job's: the registry's word stands between them.

A registry-authorised key protects against stolen tokens and outsiders. Against the registry itself it
protects only who holds a pin on a key in the chain; otherwise the promise is detection.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Protocol

from countermark import machine
from countermark.entry import Entry
from countermark.errors import PolicyError, SignatureError
from countermark.identities import meets
from countermark.imported import Imported
from countermark.limits import ENROLMENT_CHAIN_MAX, GENESIS_SEARCH, RECOVERY_WAIT
from countermark.statement import Envelope, check_signatures, keyid_of
from countermark.tlog.checkpoint import VerifiedCheckpoint
from countermark.trustfile import TrustFile
from countermark.values import dataclass


class Entries(Protocol):
    """Reads entries, each proved to be in the log."""

    def entry(self, index: int) -> bytes: ...


class Proved(Protocol):
    """What is known of a log at one moment: a View online (trust.py), or an opened bundle."""

    @property
    def trust_file(self) -> TrustFile: ...
    @property
    def checkpoint(self) -> VerifiedCheckpoint: ...
    @property
    def log(self) -> Entries: ...


@dataclass(frozen=True)
class SignedBy:
    """Who signed. `keyids` are the key and all keys that vouch for it; `first` is where the chain ends.

    Of an imported file nobody did: no key, and `enrolled` and `first` are the import entry.
    """

    party: str
    keyid: str
    keyids: frozenset[str]
    sentence: str
    enrolled: int
    first: int
    finding: PolicyError | None = None
    identity: Mapping[str, Any] | None = None  # the job's, as checked by the registry
    chain: tuple[tuple[int, str], ...] = ()  # enrolments as index and key ID, the signing key's first

    def meets(self, pins: Collection[str]) -> bool:
        """Whether one of these identities signed, or vouches for the key that did.

        A publisher's alone: the registry's own key signs for everybody, so a pin on it would pin nobody.
        """
        return self.party == "publisher" and meets(pins, self.keyids, self.identity)

    def to_json(self) -> dict[str, Any]:
        return {
            "enrolled": self.enrolled,
            "first": self.first,
            "identity": None if self.identity is None else dict(self.identity),
            "keyid": self.keyid,
            "party": self.party,
            "sentence": self.sentence,
        }


@dataclass(frozen=True)
class _Enrolment:
    index: int
    keyid: str
    spki: bytes
    entry: Entry
    authorised_by: object

    @property
    def identity(self) -> Mapping[str, Any] | None:
        """The job whose key this is; None: a person's."""
        found: Mapping[str, Any] | None = self.entry.registry["identity"]
        return found


def check_publisher(view: Proved, entry: Entry, index: int) -> SignedBy:
    """Check the signature of a publish entry and walk its key's enrolments to the first."""
    if entry.imported is not None:
        return _imported(entry.imported, entry.time, index)
    envelope, statement = entry.envelope, entry.statement
    assert envelope is not None and statement is not None
    if len(envelope.keyids) != 1:
        raise SignatureError(f"entry #{index} has {len(envelope.keyids)} signatures, a publish has one")
    keyid = envelope.keyids[0]
    key_index = entry.registry["key_index"]
    if key_index is None:
        return _by_registry(view, entry, envelope, index)
    holder = (statement.predicate["namespace"], statement.predicate["project"])
    chain = _chain(view, key_index, keyid, holder, before=index)
    _check_not_expired(chain[0], entry, index)
    check_signatures(envelope, {keyid: chain[0].spki})
    first, identity = chain[-1], chain[0].identity
    if identity is not None:
        words = (
            f"by a job of {machine.sentence(identity)}, identity as checked by the registry; "
            f"trusted by #{chain[0].authorised_by}, chained to #{first.index}"
        )
    elif len(chain) == 1:
        words = f"unchained, first seen at #{first.index}"
    else:
        words = f"chained to #{first.index} through {len(chain) - 1} older key{'s'[: len(chain) - 2]}"
    return SignedBy(
        party="publisher",
        keyid=keyid,
        keyids=frozenset({keyid} if identity is not None else (link.keyid for link in chain)),
        sentence=f"signed by key {keyid[:16]}, enrolled at #{key_index}; {words}",
        enrolled=chain[0].index,
        first=first.index,
        identity=identity,
        chain=tuple((link.index, link.keyid) for link in chain),
    )


def _imported(imported: Imported, time: int, index: int) -> SignedBy:
    """Nobody signed it. What the log vouches for is the hash, from the moment at which it first saw the file."""
    seen = datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M UTC")
    sentence = f"imported by entry #{imported.index}, not signed; first seen by the log at {seen}"
    return SignedBy(
        party="nobody",
        keyid="",
        keyids=frozenset(),
        sentence=sentence,
        enrolled=imported.index,
        first=imported.index,
        finding=PolicyError(
            f"entry #{index} is {sentence}: no publisher's key vouches for it", reason="unsigned"
        ),
    )


def check_role(view: Proved, entry: Entry, scope: str) -> None:
    """Check that an entry is signed by a role key, one that the offline authority enrolled for this scope."""
    envelope = entry.envelope
    if envelope is None or len(envelope.keyids) != 1:
        raise SignatureError(f"a {entry.type} has one signature")
    keyid = envelope.keyids[0]
    check_signatures(envelope, {keyid: _role_key(view, keyid, scope).spki})


def _check_not_expired(enrolment: _Enrolment, entry: Entry, index: int) -> None:
    """A key's validity is judged at the publish entry's time; a recovered key's begins a waiting time later."""
    statement = enrolment.entry.statement
    assert statement is not None
    valid_for = statement.predicate["valid_for"]
    wait = 0 if enrolment.identity is not None else int(RECOVERY_WAIT.total_seconds())
    last = enrolment.entry.time + (valid_for or 0) + wait
    if valid_for is not None and entry.time >= last:
        raise SignatureError(
            f"entry #{index} was published at {entry.time}, and its key's enrolment at #{enrolment.index} "
            f"was for {valid_for} s from {enrolment.entry.time}"
        )


Holder = tuple[str, str]  # namespace and project of what was published


def _chain(view: Proved, index: int, keyid: str, holder: Holder, *, before: int) -> list[_Enrolment]:
    """The enrolment of a key, then that of the key that authorised it, back to the first."""
    chain: list[_Enrolment] = []
    while True:
        if len(chain) == ENROLMENT_CHAIN_MAX:
            raise SignatureError(
                f"the enrolments of {holder[1]} go back more than {ENROLMENT_CHAIN_MAX} keys"
            )
        link = _enrolment(view, index, keyid, holder, before)
        chain.append(link)
        if link.authorised_by == "registry":
            _check_enrolment(link.entry.raw, keyid, link.spki)
            return chain
        if type(link.authorised_by) is not int:
            raise SignatureError(
                f"entry #{index} enrols {keyid[:16]} by {link.authorised_by}, not for a project"
            )
        if link.identity is not None:
            _check_enrolment(link.entry.raw, keyid, link.spki)
            before, index, keyid = _trusted(view, link, holder)
            continue
        older = _keyid_of(view, link.authorised_by, before=index)
        _check_enrolment(link.entry.raw, keyid, link.spki, older.spki)
        before, index, keyid = index, link.authorised_by, older.keyid


def _trusted(view: Proved, link: _Enrolment, holder: Holder) -> tuple[int, int, str]:
    """The trusted-publisher entry behind a one-run key: where it is, and which enrolment and keyid signed it."""
    at, identity = link.authorised_by, link.identity
    assert type(at) is int and identity is not None
    if at >= link.index:
        raise SignatureError(f"entry #{at} cannot trust a job whose key came at #{link.index}")
    entry = Entry.parse(view.log.entry(at))
    statement = entry.statement
    if entry.type != "trusted-publisher" or statement is None or statement.predicate["action"] != "add":
        raise SignatureError(f"entry #{at} is a {entry.type}, it trusts no publisher")
    said = statement.predicate
    if (reason := machine.why_not(said, identity)) is not None:
        raise SignatureError(f"entry #{link.index} enrols a job that entry #{at} does not trust: {reason}")
    if not _covers(said, holder) or said["origin"] != view.checkpoint.origin:
        raise SignatureError(f"entry #{at} trusts a publisher for {said['project'] or said['namespace']}")
    by = entry.registry["authorised_by"]
    if type(by) is not int:
        raise SignatureError(f"entry #{at} trusts a publisher by {by}, by no enrolled key")
    older = _keyid_of(view, by, before=at)
    check_signatures(_only(entry, {older.keyid}), {older.keyid: older.spki})
    return at, by, older.keyid


def _covers(predicate: Mapping[str, Any], holder: Holder) -> bool:
    """Whether what was said is about this project, or about its namespace."""
    namespace, project = holder
    return predicate["namespace"] == namespace and predicate["project"] in (
        {project, ""} if namespace else {project}
    )


def _enrolment(view: Proved, index: int, keyid: str, holder: Holder, before: int) -> _Enrolment:
    """The key-enroll entry at `index`; it must enrol this key for this project or its namespace, before its use."""
    link = _keyid_of(view, index, before=before)
    statement = link.entry.statement
    assert statement is not None
    predicate = statement.predicate
    if link.keyid != keyid or not _covers(predicate, holder) or predicate["origin"] != view.checkpoint.origin:
        raise SignatureError(
            f"key {keyid} is not the one entry #{index} enrols: "
            f"{link.keyid} for {predicate['project'] or predicate['namespace'] or predicate['scope']}"
        )
    return link


def _keyid_of(view: Proved, index: int, *, before: int) -> _Enrolment:
    if index >= before:
        raise SignatureError(f"entry #{index} cannot enrol a key that was used at #{before}")
    entry = _parsed(view.log.entry(index))
    if entry.type != "key-enroll" or entry.statement is None or entry.envelope is None:
        raise SignatureError(f"entry #{index} is a {entry.type}, it enrols no key")
    spki = base64.b64decode(entry.statement.predicate["key"])
    return _Enrolment(index, keyid_of(spki), spki, entry, entry.registry["authorised_by"])


@lru_cache(maxsize=64)  # of enrolments: many files of a run have the same
def _parsed(raw: bytes) -> Entry:
    return Entry.parse(raw)


@lru_cache(maxsize=64)  # which bytes are signed by which key does not change
def _check_enrolment(raw: bytes, keyid: str, spki: bytes, vouching: bytes | None = None) -> None:
    """The new key has signed its enrolment, and so has the one that vouches for it."""
    known = {keyid: spki} | ({} if vouching is None else {keyid_of(vouching): vouching})
    check_signatures(_only(_parsed(raw), set(known)), known)


def _only(entry: Entry, keyids: set[str]) -> Envelope:
    """The envelope with the signatures of these keys alone; all of them must be there."""
    envelope = entry.envelope
    assert envelope is not None
    found = tuple(signature for signature in envelope.signatures if signature.keyid in keyids)
    missing = keyids - {signature.keyid for signature in found}
    if missing:
        raise SignatureError(f"an enrolment lacks the signature of {', '.join(sorted(missing))}")
    return Envelope(envelope.payload, found)


def _by_registry(view: Proved, entry: Entry, envelope: Envelope, index: int) -> SignedBy:
    """The registry signed in the owner's place; its role key must be one the offline authority enrolled."""
    keyid = envelope.keyids[0]
    role = _role_key(view, keyid, "registry")
    check_signatures(envelope, {keyid: role.spki})
    sentence = f"signed by the registry only, by its role key {keyid[:16]} enrolled at #{role.index}"
    if (job := entry.registry["identity"]) is not None:
        sentence += f", brought by a job of {machine.sentence(job)}, identity as checked by the registry"
    return SignedBy(
        party="registry",
        keyid=keyid,
        keyids=frozenset({keyid}),
        sentence=sentence,
        enrolled=role.index,
        first=role.index,
        finding=PolicyError(
            f"entry #{index} is {sentence}: no publisher's key vouches for it", reason="unsigned"
        ),
    )


def _role_key(view: Proved, keyid: str, scope: str) -> _Enrolment:
    """The enrolment of a role key of this log, among its first entries, signed by the authority key."""
    authority = view.trust_file.authority_key
    for index in range(min(GENESIS_SEARCH, view.checkpoint.size)):
        entry = _parsed(view.log.entry(index))
        if entry.type != "key-enroll" or entry.statement is None:
            continue
        predicate = entry.statement.predicate
        spki = base64.b64decode(predicate["key"])
        said = (keyid_of(spki), predicate["scope"], predicate["origin"])
        if said == (keyid, scope, view.checkpoint.origin):
            _check_enrolment(entry.raw, keyid, spki, authority)
            return _Enrolment(index, keyid, spki, entry, "authority")
    raise SignatureError(
        f"no enrolment of the registry's key {keyid} for {scope} among the first {GENESIS_SEARCH} entries"
    )
