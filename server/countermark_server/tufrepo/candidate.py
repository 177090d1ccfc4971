"""A candidate: everything of one TUF publish that tufrepo can sign, computed before anything is written.

    tuf/13.snapshot.json  tuf/4.bins-0a7.json  tuf/bins/<root of tile>  tuf/changes/<sha256>

and the predicate of the `tuf` entry that binds them to the log: digests, old and new bins root, the number of
entries applied, the timestamps signed since. No I/O and no clock here: what it needs comes in, so the same
candidate can be computed in a test, a drill and a recovery. All its files are immutable and named by version
or digest; until a timestamp names the snapshot, no client ever looks at them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, TargetFile, Targets
from tuf.api.serialization.json import JSONSerializer

from countermark.bins import BinLeaf, BinsTree, format_changes, role_name, targets_root
from countermark_server.listing import Target
from countermark_server.tufbytes import sign_bin
from countermark_server.tufrepo.snapshot import Fragments, sign_snapshot

BINS_LIFETIME = timedelta(days=30)
SNAPSHOT_LIFETIME = timedelta(days=7)
OFFLINE = ("targets", "trust", "index")  # roles of the ceremony that the snapshot lists
_SERIALIZER = JSONSerializer(compact=True)


@dataclass(frozen=True)
class BinRecord:
    """One bin as last signed."""

    version: int
    sha256: str
    targets_root: bytes
    expires: int  # UTC seconds

    def leaf(self, role: str) -> BinLeaf:
        """Its leaf under the bins root."""
        return BinLeaf(role, self.version, self.sha256, self.targets_root)


@dataclass(frozen=True)
class Current:
    """What was last published: the ground a candidate stands on. `tree` is None before the first."""

    bit_length: int
    offline: Mapping[str, int]  # versions of targets, trust, index
    bins: tuple[BinRecord, ...]
    tree: BinsTree | None
    snapshot: Mapping[str, Any] | None  # {"length", "sha256", "version"}
    snapshot_expires: int
    applied: int
    head: str | None  # leaf hash of the newest `tuf` entry
    left: Mapping[str, int] = field(
        default_factory=dict
    )  # roles of fewer bins: listed for ever (rebinning.py)

    def role(self, index: int) -> str:
        """The role of a bin."""
        return role_name(index, self.bit_length)

    @property
    def bins_root(self) -> str | None:
        """Hex, or None before the first publish."""
        return None if self.tree is None else self.tree.root.hex()


@dataclass(frozen=True)
class Candidate:
    """Files to write, and what to say about them in the log."""

    files: Mapping[str, bytes]
    predicate: Mapping[str, Any]
    after: Current  # what will be current once this is published; its head is not known yet
    changed: tuple[int, ...]

    @property
    def subject(self) -> str:
        """Whom the `tuf` statement is about."""
        assert self.after.snapshot is not None
        return f"tuf:{self.after.snapshot['version']}"


@dataclass(frozen=True)
class Online:
    """What signs a candidate (keys.py)."""

    bins: Signer
    snapshot: Sequence[Signer]


def build(
    current: Current,
    contents: Mapping[int, Mapping[str, Target]],
    *,
    claimed: Mapping[str, int],
    fragments: Fragments,
    online: Online,
    binding: Mapping[str, Any],
    applied: int,
    timestamps: Sequence[str] = (),
    now: int,
    expires: datetime | None = None,
) -> Candidate:
    """Sign the changed bins and the snapshot over all of them.

    `contents` holds the new targets of every bin that changes; `claimed` a version, never used before, for
    each of their roles and for `snapshot`. Without changed bins and without a claimed snapshot this is a
    heartbeat: nothing is signed, the entry only moves `applied` and logs timestamps. `expires`, where the usual
    lifetimes are not meant.
    """
    until = expires or _time(now) + BINS_LIFETIME
    files, records = _sign_bins(current, contents, claimed, online.bins, until)
    tree, tiles = _tree(current, records, contents)
    files |= {f"bins/{name}": raw for name, raw in tiles.items()}
    after = replace(current, bins=tuple(records), tree=tree, applied=applied)
    changes = format_changes(records[index].leaf(current.role(index)) for index in contents)
    if changes:
        files[f"changes/{hashlib.sha256(changes).hexdigest()}"] = changes
    snapshot: dict[str, Any] | None = None
    if "snapshot" in claimed:
        expires = expires or _time(now) + SNAPSHOT_LIFETIME
        fragments.update({f"{role}.json": version for role, version in current.offline.items()})
        fragments.update({f"{current.role(i)}.json": records[i].version for i in contents})
        raw = sign_snapshot(fragments, claimed["snapshot"], expires, *online.snapshot)
        files[f"{claimed['snapshot']}.snapshot.json"] = raw
        snapshot = metadata_file(raw, claimed["snapshot"])
        after = replace(after, snapshot=snapshot, snapshot_expires=int(expires.timestamp()))
    predicate = {
        **binding,
        "prev": current.head,
        "snapshot": snapshot,
        "timestamps": list(timestamps),
        "bins_old": current.bins_root,
        "bins_new": tree.root.hex(),
        "changed_sha256": hashlib.sha256(changes).hexdigest() if changes else None,
        "applied": applied,
    }
    return Candidate(files, predicate, after, tuple(sorted(contents)))


def _sign_bins(
    current: Current,
    contents: Mapping[int, Mapping[str, Target]],
    claimed: Mapping[str, int],
    signer: Signer,
    expires: datetime,
) -> tuple[dict[str, bytes], list[BinRecord]]:
    """The files of the bins that change, and what is known of every bin afterwards."""
    files: dict[str, bytes] = {}
    records = list(current.bins)
    empty: dict[
        int, tuple[bytes, BinRecord]
    ] = {}  # empty bins of one version are the same bytes: signed once
    for index, targets in contents.items():
        role = current.role(index)
        version = claimed[role]
        if not targets and version in empty:
            raw, record = empty[version]
        else:
            raw, record = _bin(version, targets, signer, expires)
            if not targets:
                empty[version] = raw, record
        files[f"{record.version}.{role}.json"] = raw
        if index < len(records):
            records[index] = record
        else:
            records.append(record)
    return files, records


def binding(origin: str, offline: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """The members of a `tuf` predicate that no bin changes: where it belongs, and offline roles if new."""
    roles = {role: (offline or {}).get(role) for role in ("root", *OFFLINE)}
    return {"origin": origin, "namespace": "", "project": "", **roles}


def metadata_file(raw: bytes, version: int) -> dict[str, Any]:
    """A metadata file as a `tuf` entry names it."""
    return {"length": len(raw), "sha256": hashlib.sha256(raw).hexdigest(), "version": version}


def _bin(
    version: int, targets: Mapping[str, Target], signer: Signer, expires: datetime
) -> tuple[bytes, BinRecord]:
    raw = sign_bin(version, targets, signer, expires)
    if raw is None:  # a string in it is spelled otherwise by JSON than by TUF
        files = {path: TargetFile.from_dict(_copy(target), path) for path, target in targets.items()}
        metadata = Metadata(Targets(version, expires=expires, targets=files))
        metadata.sign(signer)
        raw = metadata.to_bytes(_SERIALIZER)
    digest = hashlib.sha256(raw).hexdigest()
    return raw, BinRecord(version, digest, targets_root(targets), int(expires.timestamp()))


def _tree(
    current: Current, records: Sequence[BinRecord], changed: Mapping[int, object]
) -> tuple[BinsTree, dict[str, bytes]]:
    hashes = {index: records[index].leaf(current.role(index)).leaf_hash for index in changed}
    if current.tree is not None and current.tree.count == 1 << current.bit_length:
        return current.tree.replace(hashes) if hashes else (current.tree, {})
    tree = BinsTree.build([hashes[index] for index in range(1 << current.bit_length)])
    return tree, tree.tiles()


def _copy(target: Target) -> dict[str, Any]:
    """tuf takes apart what it reads."""
    return {**target, "hashes": dict(target["hashes"]), "custom": dict(target["custom"])}


def _time(now: int) -> datetime:
    return datetime.fromtimestamp(now, UTC)
