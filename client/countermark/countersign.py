"""Countersigning: one more signature on an act that somebody else began, after looking at all of it.

    (1) it is for the registry that is pinned here, and its form is what the log takes
    (2) it follows the newest entry about the project: a stale one could not be logged any more
    (3) every signature on it is by a key whose enrolment is in the log, or by the key it enrols
    (4) a person saw what it does, in words made from the signed bytes (commands_shared.py), and signs
    (5) once k have signed, anybody of them hands it in; the log's rules count again

What the API says in (2) is a hint: a wrong one costs a refusal, never a signature of something else than was shown.
"""

from __future__ import annotations

import base64

from countermark.actfile import Act
from countermark.afterwards import Owner
from countermark.entry import Entry
from countermark.errors import EvidenceError, PolicyError
from countermark.limits import NOTE_MAX_BYTES
from countermark.logreader import LogReader
from countermark.place import Place
from countermark.projectstate import ProjectState
from countermark.statement import check_signatures
from countermark.tlog.checkpoint import open_checkpoint
from countermark.values import dataclass


@dataclass(frozen=True)
class Examined:
    """An act whose signatures verify, and what it still lacks (None: it can be handed in)."""

    act: Act
    state: ProjectState
    lacking: str | None


def newest(owner: Owner) -> LogReader:
    """The log up to its public, cosigned checkpoint, which extends the one that TUF's timestamp carries."""
    view = owner.view
    raw = owner.fetcher.get(f"{view.registry.log_url}/checkpoint", max_bytes=NOTE_MAX_BYTES) or b""
    checkpoint = open_checkpoint(raw, view.trust_file.policy, now=owner.now)
    if checkpoint.origin != view.trust_file.origin:
        raise EvidenceError(f"the checkpoint is of {checkpoint.origin}, not of {view.trust_file.origin}")
    reader = LogReader(view.registry.log_url, checkpoint, owner.fetcher)
    if checkpoint.size >= view.checkpoint.size:
        reader.check_prefix(view.checkpoint)
    return reader


def examine(owner: Owner, act: Act) -> Examined:
    """(1) to (3). PolicyError: it is for elsewhere, or stale; SignatureError: somebody did not sign it."""
    origin = act.statement.predicate["origin"]
    if origin != owner.view.trust_file.origin:
        raise PolicyError(f"the act is for {origin!r}, the registry here is {owner.view.trust_file.origin!r}")
    state = ProjectState.fetch(owner.fetcher, owner.view.registry, act.project)
    if (prev := act.statement.predicate["prev"]) != state.prev:
        raise PolicyError(
            f"the act follows {prev}, the newest entry about {act.project} is {state.prev}",
            hint="something else was logged meanwhile: begin the act anew",
        )
    check_signatures(act.envelope, _keys(owner, act, state))
    return Examined(act, state, state.lacking(act.envelope.keyids))


def _keys(owner: Owner, act: Act, state: ProjectState) -> dict[str, bytes]:
    """The public keys of who has signed: from their enrolments in the log, and the new one from the act."""
    keys, log = dict[str, bytes](), newest(owner)
    for keyid in act.envelope.keyids:
        if keyid == act.new_keyid:
            keys[keyid] = base64.b64decode(act.statement.predicate["key"])
            continue
        index = state.keys.get(keyid)
        if index is None:
            raise PolicyError(f"key {keyid} has signed, and is not enrolled for {act.project}")
        statement = Entry.parse(log.entry(index)).statement
        said = None if statement is None else (statement.type, statement.subject_name)
        where = None if statement is None else Place.of(statement.predicate)
        ours = where is not None and where.covers(Place.parse(act.project))
        if statement is None or said != ("key-enroll", f"key:{keyid}") or not ours:
            raise EvidenceError(
                f"{owner.view.registry.url} says that entry #{index} enrols key {keyid} for {act.project}; "
                f"it is {said} of {where}"
            )
        keys[keyid] = base64.b64decode(statement.predicate["key"])
    return keys


def countersign(owner: Owner, examined: Examined) -> Examined:
    """(4) Add this person's signature. PolicyError: their key is not one of the project's."""
    assert owner.signer is not None
    act, state, keyid = examined.act, examined.state, owner.signer.keyid
    if keyid not in state.keys and keyid != act.new_keyid:
        raise PolicyError(f"key {keyid[:16]} is not enrolled for {act.project}, so it signs nothing for it")
    act = act.signed_by(owner.signer)
    return Examined(act, state, state.lacking(act.envelope.keyids))
