"""What both kinds of bundle need to be spoken of: times and ages in words, and evidence kept without network."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

from countermark.errors import EvidenceError
from countermark.evidence import Evidence, EvidenceClass, kept_at, save
from countermark.pins import Registry, newer_roots
from countermark.tufjson import Root


def keep_bundle_evidence(
    registry: Registry, raw: bytes, error: EvidenceError, *, trust_file: bytes | None, now: int
) -> None:
    """Keep what contradicts itself; a folder that cannot be written does not change the verdict."""
    own = getattr(error, "evidence", None)
    evidence = own or Evidence(EvidenceClass.OBSERVATION, [str(error)], {"bundle": raw})
    with contextlib.suppress(OSError):
        newer = newer_roots(registry.folder / "tuf", Root.parse(registry.root).version)
        evidence = evidence.about(registry.url, registry.root, newer, trust_file)
        path = save(evidence, registry.folder / "evidence", time=now)
        error.hint = error.hint or kept_at(path, evidence.kind)


def utc(seconds: int) -> str:
    """A moment, as people write it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
