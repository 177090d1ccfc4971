"""All ceremonies of a registry, verified from one output folder alone, as a stranger would.

    chain = verify(files)        # every ceremony since the first, each against the one before it
    chain[-1]                    # what is in force: the base of the next plan

For each later ceremony: (1) the root is the old one, or one version on, signed by the threshold of the old *and* of
its own; (2) targets, trust and index are the old files, or one version on, signed as their delegators say; (3) the
trust file is for the same origin and authority, never an older one, and the root accepts it; (4) the transcript goes
on where the last one ended, and the metadata names its digest; (5) the words are the root's; (6) a trial stays one.
Of every ceremony, a plan that lies in its folder is the one that the transcript names.
No signature that does not verify is carried along. Expiry is judged at the time each ceremony was held.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tuf.api.metadata import Metadata

from countermark.errors import EvidenceError, SignatureError
from countermark.words import root_words
from countermark_ceremony import simulate
from countermark_ceremony.assemble import WORDS_FILE, verify_first
from countermark_ceremony.nextpayloads import CEREMONY
from countermark_ceremony.previous import Previous, check_plan, read, split
from countermark_ceremony.tables import OFFLINE_ROLES


def verify(files: Mapping[str, bytes]) -> list[Previous]:
    """Every ceremony of this folder, the first one first; the newest one's clients were simulated."""
    chain: list[Previous] = []
    for number, level in enumerate(split(files), start=1):
        before = chain[-1] if chain else None
        found = read(number, level, before)
        if before is None:
            verify_first(level, now=found.held_at)
        else:
            _verify_next(found, before)
        chain.append(found)
    simulate.walk(chain)
    return chain


def check_unexpired(newest: Previous, now: datetime) -> None:
    """EvidenceError when a role in force has expired."""
    for role, metadata in newest.metadata.items():
        if metadata.signed.is_expired(now):
            raise EvidenceError(
                f"{newest.names[role]} expired at {metadata.signed.expires}", hint="hold the next ceremony"
            )


def _verify_next(new: Previous, old: Previous) -> None:
    renewed = [role for role in OFFLINE_ROLES if new.files[new.names[role]] != old.files[old.names[role]]]
    if not renewed:
        raise EvidenceError(f"ceremony {new.number} renews nothing")
    # (1), (2)
    for role in OFFLINE_ROLES:
        version, before = new.metadata[role].signed.version, old.metadata[role].signed.version
        if version != before + (role in renewed):
            raise EvidenceError(f"ceremony {new.number}: {role} goes from version {before} to {version}")
        _verify_role(new, old, role)
        if role in renewed and new.metadata[role].signed.is_expired(new.held_at):
            raise EvidenceError(f"{new.names[role]} had expired when ceremony {new.number} was held")
    _verify_trust_file(new, old)  # (3)
    check_plan(new.files, new.transcript)
    # (4) The chain of lines was checked when the folder was read.
    top = "root" if "root" in renewed else "trust"
    stated = new.metadata[top].signed.unrecognized_fields.get(CEREMONY)
    if stated != {"transcript_sha256": new.transcript.digest}:
        raise EvidenceError(
            f"{new.names[top]} names transcript {stated}, this one is {new.transcript.digest}"
        )
    words = root_words(new.metadata["root"].signed_bytes)
    if new.files[WORDS_FILE] != words.encode() + b"\n":  # (5)
        raise EvidenceError(f"{WORDS_FILE} is not of {new.names['root']}, whose words are {words}")
    if new.trial != old.trial:  # (6)
        raise EvidenceError("a trial stays a trial, and a registry that was none does not become one")


def _verify_role(new: Previous, old: Previous, role: str) -> None:
    metadata: Metadata[Any] = new.metadata[role]
    delegators: list[Any] = [new.root if role in ("root", "targets") else new.targets]
    if role == "root" and new.root.version != old.root.version:
        delegators.append(old.root)
    payload, valid = metadata.signed_bytes, set()
    for delegator in delegators:
        result = delegator.get_verification_result(role, payload, metadata.signatures)
        valid |= set(result.signed)
        if not result:
            raise SignatureError(
                f"{new.names[role]}: {len(result.signed)} signatures by the keys of {delegator.type} "
                f"{delegator.version}, {result.threshold} are needed"
            )
    if strange := sorted(set(metadata.signatures) - valid):
        raise SignatureError(f"{new.names[role]}: the signature by key {strange[0]} is false or nobody's")


def _verify_trust_file(new: Previous, old: Previous) -> None:
    after, before = new.trust_file, old.trust_file
    if (after.origin, after.authority_key) != (before.origin, before.authority_key):
        raise EvidenceError(f"the trust file of ceremony {new.number} is for another origin or authority key")
    same = after.digest == before.digest
    if after.version != before.version + (not same):
        raise EvidenceError(f"the trust file goes from version {before.version} to {after.version}")
    if after.digest not in new.accepted:
        raise EvidenceError(f"{new.names['root']} does not accept the trust file {after.digest}")
    if after.client_policy.min_tree_size < before.client_policy.min_tree_size:
        raise EvidenceError("the trust file's min_tree_size falls")
