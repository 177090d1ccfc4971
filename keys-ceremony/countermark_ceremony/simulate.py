"""Clients of every age walk the new chain, before anything can be published.

    a client that trusts root 1 reaches root 3, targets 3, trust 4, index 3
    ... still on 2028-05-24, 30 days before the first expiry; refused on 2028-06-23

Each client starts from one root that was ever made and follows TUF's rules with tuf's own verification: the next
root is one version on and signed by the threshold of the one it trusts and of its own; targets by that root;
trust and index by targets; the trust file is one the root accepts. A walk that fails is an EvidenceError, and
nothing is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata

from countermark.errors import EvidenceError
from countermark_ceremony.previous import Previous

WINDOW = timedelta(days=30)  # as long before the first expiry everything must still be accepted


def walk(chain: Sequence[Previous]) -> list[str]:
    """What clients of every age reach, in sentences. EvidenceError: one of them is left behind."""
    roots: dict[int, Metadata[Any]] = {each.root.version: each.metadata["root"] for each in chain}
    newest = chain[-1]
    expires = min(metadata.signed.expires for metadata in newest.metadata.values())
    lines = []
    for version in sorted(roots):
        _client(roots, version, newest, newest.held_at)
        reached = ", ".join(f"{role} {newest.metadata[role].signed.version}" for role in newest.metadata)
        lines.append(f"a client that trusts root {version} reaches {reached}")
        _client(roots, version, newest, max(newest.held_at, expires - WINDOW))
        try:
            _client(roots, version, newest, expires + timedelta(seconds=1))
        except EvidenceError:
            continue
        raise EvidenceError(f"a client that trusts root {version} accepts what expired at {expires}")
    lines.append(f"all of them until {expires:%Y-%m-%dT%H:%M:%SZ}, and none afterwards")
    return lines + _between(chain)


def _between(chain: Sequence[Previous]) -> list[str]:
    """While the new root is public and the new snapshot not yet, clients read the old targets under the new root."""
    if len(chain) < 2:
        return []
    old, new = chain[-2].metadata["targets"], chain[-1]
    if new.root.get_verification_result("targets", old.signed_bytes, old.signatures):
        return []
    return [
        f"! {chain[-2].names['targets']} is not signed as {new.names['root']} demands: a client that looks in the "
        "seconds between the new root and the new timestamp is refused, and succeeds when it tries again"
    ]


def _client(roots: dict[int, Metadata[Any]], version: int, newest: Previous, at: datetime) -> None:
    """One client's walk from a root it trusts, as of a time."""
    try:
        trusted = roots[version]
        while (following := roots.get(trusted.signed.version + 1)) is not None:
            for delegator in (trusted.signed, following.signed):
                delegator.verify_delegate("root", following.signed_bytes, following.signatures)
            trusted = following
        if trusted.signed.version != newest.root.version:
            raise EvidenceError(f"the walk from root {version} ends at root {trusted.signed.version}")
        targets, root = newest.metadata["targets"], trusted.signed
        root.verify_delegate("targets", targets.signed_bytes, targets.signatures)
        for role in ("trust", "index"):
            metadata = newest.metadata[role]
            targets.signed.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        for role, metadata in {**newest.metadata, "root": trusted}.items():
            if metadata.signed.is_expired(at):
                raise EvidenceError(f"{role} {metadata.signed.version} has expired at {at}")
        if newest.trust_file.digest not in root.unrecognized_fields["x-countermark-trust"]:
            raise EvidenceError(f"root {root.version} does not accept the trust file in force")
    except (RepositoryError, ValueError) as error:
        raise EvidenceError(f"a client that trusts root {version} is left behind: {error}") from error
