"""TUF's half of an audit: both bindings to the log, and every bin.

    (6) every `tuf` entry's digests are those of the files served under the names it gives them
    (7) the timestamp names the snapshot, `applied` and bins root of the newest `tuf` entry in its checkpoint,
        and every timestamp seen before is logged
    (8) the snapshot lists exactly the roles there are, none older than at the last audit
    (9) every bin is signed, and is exactly the listing after `applied` entries; the bins root is theirs

(9) recomputes each target from the replayed state and never looks at a bin to learn what it should hold. A
registry begins with thousands of empty bins, whose files are the same bytes: bytes that were verified once
are not fetched again where the logged list of changed bins names their digest for another role. What the
digests say ends in the bins root like everything else; the report counts both ways apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from countermark.audit_report import Finding, Notes, finding, view_finding
from countermark.audit_state import AuditState, Target
from countermark.bins import TILE_MAX_BYTES, BinLeaf, BinsTree, former, parse_changes, targets_root
from countermark.errors import CountermarkError, EvidenceError, MalformedError, SignatureError
from countermark.fetch import Fetcher
from countermark.limits import (
    BIN_MAX_BYTES,
    CHANGES_MAX_BYTES,
    ROOT_MAX_BYTES,
    SNAPSHOT_MAX_BYTES,
    TRUST_FILE_MAX_BYTES,
)
from countermark.listing import bin_index
from countermark.pins import Registry
from countermark.schema import TUF_ROLES
from countermark.timestamp import Timestamp
from countermark.values import dataclass

if TYPE_CHECKING:
    from tuf.api.metadata import Root, Snapshot, Targets

OFFLINE = ("targets", "trust", "index")
_MAX_BYTES = {"root": ROOT_MAX_BYTES, "snapshot": SNAPSHOT_MAX_BYTES}


@dataclass(frozen=True)
class Seen:
    """What TUF's client verified, from the pinned root to the timestamp."""

    root: bytes
    timestamp: Timestamp
    snapshot: Mapping[str, Any]  # {"length", "sha256", "version"} as the timestamp says


class TufAudit:
    """One pass over TUF, against the state at the head of the log."""

    def __init__(
        self, state: AuditState, registry: Registry, fetcher: Fetcher, seen: Seen, notes: Notes
    ) -> None:
        self._state, self._registry, self._fetcher = state, registry, fetcher
        self._seen, self._notes = seen, notes
        self._said: dict[
            tuple[str, int], str
        ] = {}  # by role and version: SHA-256, from lists of changed bins
        self._unlike: dict[str, Finding] = {}  # by role: its bin is not the listing
        self._verified: dict[tuple[int, str], dict[str, Any]] = {}  # by version and SHA-256: targets

    def run(self) -> None:
        """(6) to (9)."""
        try:
            self._entries()
        except CountermarkError as error:
            self._notes.add(view_finding(error, "files that tuf entries name"))
            self._notes.leave("files that tuf entries name: not all of them could be read")
        in_force = self._in_force()
        if in_force is None:
            self._notes.leave("TUF against the log: the timestamp's checkpoint holds no tuf entry")
            return
        index, predicate, files = in_force
        self._timestamp(index, predicate, files)
        try:
            self._bins()
        except SignatureError as error:
            self._notes.add(finding("tuf-signature", str(error)))
        except EvidenceError as error:
            self._notes.add(finding("tuf-form", str(error)))
        except CountermarkError as error:
            self._notes.add(view_finding(error, "the bins"))
            self._notes.leave("bins, their listing and the bins root: not everything could be read")

    # --- (6) from the log to TUF --------------------------------------------------------------------------
    def _entries(self) -> None:
        """Digests in entries since the last audit, and those in force, against the served files."""
        state, size = self._state, self._seen.timestamp.size
        checked = state.fact("tuf_checked") or 0
        entries = state.tuf_entries(0, size)
        in_force: dict[str, tuple[int, Any]] = {}
        wanted: dict[tuple[str, int], tuple[int, Any]] = {}
        for index, predicate in entries:
            for role in TUF_ROLES:
                if predicate[role] is None:
                    continue
                in_force[role] = (index, predicate[role])
                if index >= checked:
                    wanted[role, predicate[role]["version"]] = (index, predicate[role])
            if index >= checked and predicate["changed_sha256"] is not None:
                self._changes(index, predicate["changed_sha256"])
        wanted |= {(role, said["version"]): (index, said) for role, (index, said) in in_force.items()}
        for (role, version), (index, said) in sorted(wanted.items()):
            old = role == "snapshot" and in_force[role][0] != index
            self._file(index, role, version, said, may_be_gone=old)  # registries keep old snapshots for days
        self._notes.cover("tuf entries", len([index for index, _ in entries if index >= checked]))
        with state.transaction():
            state.set_fact("tuf_checked", size)

    def _file(
        self, index: int, role: str, version: int, said: Mapping[str, Any], *, may_be_gone: bool
    ) -> None:
        name = f"{version}.{role}.json"
        raw = self._maybe(name, _MAX_BYTES.get(role, BIN_MAX_BYTES))
        if raw is None and may_be_gone:
            return
        if raw is None:
            self._notes.add(finding("tuf-file-missing", f"{name}, which entry {index} names, is not served"))
            return
        found = (len(raw), hashlib.sha256(raw).hexdigest())
        if found != (said["length"], said["sha256"]):
            message = f"{name} has SHA-256 {found[1]}, entry {index} says {said['sha256']}"
            values = {"entry": said["sha256"], "served": found[1]}
            self._notes.add(finding("tuf-file", message, **values), {name: raw})
        self._notes.cover("metadata files named by tuf entries")

    def _changes(self, index: int, sha256: str) -> None:
        raw = self._maybe(f"changes/{sha256}", CHANGES_MAX_BYTES)
        if raw is None:
            self._notes.add(
                finding("changes-missing", f"changes/{sha256}, which entry {index} names, is not served")
            )
            return
        found = hashlib.sha256(raw).hexdigest()
        if found != sha256:
            message = (
                f"the list of changed bins of entry {index} has SHA-256 {found}, the entry says {sha256}"
            )
            self._notes.add(finding("changes", message, entry=sha256, served=found), {"changes": raw})
            return
        try:
            self._said |= {(leaf.role, leaf.version): leaf.sha256 for leaf in parse_changes(raw)}
        except MalformedError as error:
            self._notes.add(finding("changes", f"entry {index}: {error}"), {"changes": raw})
        self._notes.cover("lists of changed bins")

    # --- (7) from TUF to the log --------------------------------------------------------------------------
    def _in_force(self) -> tuple[int, dict[str, Any], dict[str, Any]] | None:
        """The newest `tuf` entry in the timestamp's checkpoint, and the newest file of each role up to it."""
        files: dict[str, Any] = {}
        newest = None
        for index, predicate in self._state.tuf_entries(0, self._seen.timestamp.size):
            files |= {role: predicate[role] for role in TUF_ROLES if predicate[role] is not None}
            newest = (index, predicate)
        return None if newest is None else (*newest, files)

    def _timestamp(self, index: int, predicate: Mapping[str, Any], files: Mapping[str, Any]) -> None:
        timestamp, notes = self._seen.timestamp, self._notes
        name, raw = f"timestamp {timestamp.version}", {"timestamp": timestamp.raw}
        pairs = {
            "timestamp-snapshot": (dict(self._seen.snapshot), files["snapshot"], "snapshot"),
            "timestamp-applied": (timestamp.applied, predicate["applied"], "applied"),
            "timestamp-bins": (timestamp.bins_root.hex(), predicate["bins_new"], "bins root"),
        }
        for code, (said, logged, what) in pairs.items():
            if said != logged:
                message = f"{name} says {what} {said}, entry {index} says {logged}"
                notes.add(finding(code, message, timestamp=said, entry=logged), raw)
        for version, sha256 in self._state.unlogged(index, timestamp.size):
            message = f"timestamp {version} ({sha256}) was served and is in no tuf entry up to entry {index}"
            notes.add(finding("timestamp-unlogged", message, timestamp=sha256), raw)
        with self._state.transaction():
            self._state.see_timestamp(timestamp.version, hashlib.sha256(timestamp.raw).hexdigest(), index)
        notes.cover("timestamps seen here that must be logged")

    # --- (8), (9) snapshot and bins -----------------------------------------------------------------------
    def _bins(self) -> None:
        from tuf.api.metadata import Root, Snapshot  # noqa: PLC0415

        state, timestamp = self._state, self._seen.timestamp
        root = _parse(Root, "root", self._seen.root)
        self._trust_files(root)
        snapshot = self._role(Snapshot, root, "snapshot", self._seen.snapshot["version"], SNAPSHOT_MAX_BYTES)
        index = self._offline(root, snapshot)
        delegations = index.delegations
        if delegations is None or delegations.succinct_roles is None:
            raise EvidenceError("the index role delegates to no bins")
        roles = list(delegations.succinct_roles.get_roles())
        self._roles(snapshot, roles)
        with state.transaction():
            reached = state.list_at(timestamp.applied)
        if not reached:
            self._notes.leave(
                f"bins against the log: TUF applied {timestamp.applied} entries, "
                f"the last audit saw {state.fact('listed_at')} applied"
            )
            return
        demanded: dict[int, dict[str, Target]] = {}
        for path, target in state.targets():
            number = bin_index(path, delegations.succinct_roles.bit_length)
            demanded.setdefault(number, {})[path] = target
        self._root_of_bins(index, snapshot, roles, demanded)

    def _trust_files(self, root: Root) -> None:
        """Every client walks from one of these: each is served, and has the digest the root lists."""
        for sha256 in root.unrecognized_fields.get("x-countermark-trust", []):
            self._exactly(f"targets/trust/{sha256}.trust.json", "trust-file", sha256, TRUST_FILE_MAX_BYTES)

    def _exactly(self, name: str, code: str, sha256: str, max_bytes: int) -> None:
        """A file whose bytes are known beforehand."""
        raw = self._maybe(name, max_bytes)
        found = None if raw is None else hashlib.sha256(raw).hexdigest()
        if raw is None:
            self._notes.add(finding("tuf-file-missing", f"{name} is not served"))
        elif found != sha256:
            message = f"{name} has SHA-256 {found}, it must be {sha256}"
            self._notes.add(finding(code, message, served=found, expected=sha256), {"served": raw})
        self._notes.cover(f"{code}s".replace("-", " "))

    def _root_of_bins(
        self,
        index: Targets,
        snapshot: Snapshot,
        roles: list[str],
        demanded: Mapping[int, dict[str, Target]],
    ) -> None:
        state, timestamp = self._state, self._seen.timestamp
        # Of fewer bins, before there were more of them, nothing is known that could be compared.
        known = {n: leaf for n, leaf in state.bins().items() if n < len(roles) and leaf.role == roles[n]}
        leaves = self._leaves(index, snapshot, roles, demanded, known)
        tree = BinsTree.build([leaf.leaf_hash for leaf in leaves])
        if tree.root != timestamp.bins_root and known:
            # A bin that did not seem to change was not fetched again; now each is looked at.
            leaves = self._leaves(index, snapshot, roles, demanded, known, again=True)
            tree = BinsTree.build([leaf.leaf_hash for leaf in leaves])
        if (found := tree.root) == timestamp.bins_root:
            for name, raw in tree.tiles().items():
                self._exactly(f"bins/{name}", "bins-tile", hashlib.sha256(raw).hexdigest(), TILE_MAX_BYTES)
        else:
            message = (
                f"the bins as served have the root {found.hex()}, timestamp {timestamp.version} signs "
                f"{timestamp.bins_root.hex()}"
            )
            values = {"bins": found.hex(), "timestamp": timestamp.bins_root.hex()}
            self._notes.add(finding("bins-root", message, **values), {"timestamp": timestamp.raw})
        for number, leaf in enumerate(leaves):
            if leaf.role in self._unlike:
                self._tell_unlike(number, leaf, tree)
        self._notes.cover("bins equal to the listing", len(roles))
        self._notes.cover("targets", sum(map(len, demanded.values())))
        with state.transaction():
            for number, leaf in enumerate(leaves):
                if leaf != known.get(number):
                    state.put_bin(number, leaf)

    def _leaves(
        self,
        index: Targets,
        snapshot: Snapshot,
        roles: list[str],
        demanded: Mapping[int, dict[str, Target]],
        known: Mapping[int, BinLeaf],
        *,
        again: bool = False,
    ) -> list[BinLeaf]:
        leaves = []
        for number, role in enumerate(roles):
            listed = snapshot.meta.get(f"{role}.json")
            if listed is None:
                raise EvidenceError(f"the snapshot does not list {role}.json")
            wanted, old = demanded.get(number, {}), known.get(number)
            unchanged = old is not None and (listed.version, targets_root(wanted)) == (
                old.version,
                old.targets_root,
            )
            said = self._said.get((role, listed.version))
            if old is not None and unchanged and not again and said in (None, old.sha256):
                leaves.append(old)
            else:
                leaves.append(self._bin(index, role, listed.version, wanted, old))
        return leaves

    def _bin(
        self, index: Targets, role: str, version: int, demanded: dict[str, Target], old: BinLeaf | None
    ) -> BinLeaf:
        """One bin's leaf, as it is served; where it is not the listing, a finding."""
        found, digest = self._served(index, role, version)
        if old is not None and version == old.version and digest != old.sha256:
            message = f"{role} version {version} has SHA-256 {digest}, at the last audit it had {old.sha256}"
            self._notes.add(finding("two-versions", message, served=digest, before=old.sha256))
        if found != demanded:
            path, in_bin, in_log = _difference(found, demanded)
            message = f"{role} version {version}, {path}: the bin says {in_bin}, the log demands {in_log}"
            self._unlike[role] = finding("bin-listing", message, bin=in_bin, log=in_log)
        return BinLeaf(role, version, digest, targets_root(found))

    def _tell_unlike(self, number: int, leaf: BinLeaf, tree: BinsTree) -> None:
        """A bin that is not the listing, with its way to the bins root where the timestamp signs it."""
        shown = {
            "bin": self._must(f"{leaf.version}.{leaf.role}.json", BIN_MAX_BYTES),
            "bin-leaf": leaf.format(),
        }
        if tree.root == self._seen.timestamp.bins_root:
            shown["bin-proof"] = b"".join(tree.prove(number))
        self._notes.add(self._unlike[leaf.role], shown)

    def _served(self, index: Targets, role: str, version: int) -> tuple[dict[str, Any], str]:
        from tuf.api.metadata import Targets  # noqa: PLC0415

        said = self._said.get((role, version))
        if said is not None and (version, said) in self._verified:
            self._notes.cover("bins of equal bytes, by their logged digest")
            return self._verified[version, said], said
        raw = self._must(f"{version}.{role}.json", BIN_MAX_BYTES)
        signed = _verified(Targets, index, role, raw, version)
        if signed.delegations is not None:
            raise EvidenceError(f"{role} version {version} delegates to others")
        found = {path: target.to_dict() for path, target in signed.targets.items()}
        digest = hashlib.sha256(raw).hexdigest()
        self._verified[version, digest] = found
        self._notes.cover("bins fetched")
        return found, digest

    def _offline(self, root: Root, snapshot: Snapshot) -> Targets:
        """targets by the root, then trust and index by targets: each signed by whom it is delegated to."""
        from tuf.api.metadata import Targets  # noqa: PLC0415

        versions = {}
        for role in OFFLINE:
            listed = snapshot.meta.get(f"{role}.json")
            if listed is None:
                raise EvidenceError(f"the snapshot does not list {role}.json")
            versions[role] = listed.version
        targets = self._role(Targets, root, "targets", versions["targets"], BIN_MAX_BYTES)
        self._role(Targets, targets, "trust", versions["trust"], BIN_MAX_BYTES)
        index: Targets = self._role(Targets, targets, "index", versions["index"], BIN_MAX_BYTES)
        return index

    def _role(self, kind: Any, delegator: Any, role: str, version: int, max_bytes: int) -> Any:
        signed = _verified(kind, delegator, role, self._must(f"{version}.{role}.json", max_bytes), version)
        self._notes.cover("metadata signatures")
        return signed

    def _roles(self, snapshot: Snapshot, bins: list[str]) -> None:
        """(8) No role is missing, none is there too many, and none went back."""
        versions = {name: meta.version for name, meta in snapshot.meta.items()}
        expected = {f"{role}.json" for role in (*OFFLINE, *bins)}
        strange_roles = {name.removesuffix(".json") for name in versions.keys() - expected}
        expected |= {f"{role}.json" for role in former(strange_roles, (len(bins) - 1).bit_length())}
        if strange := sorted(versions.keys() ^ expected):
            message = f"snapshot {snapshot.version} and the delegations differ in {', '.join(strange[:3])}"
            self._notes.add(finding("snapshot-roles", message, roles=len(versions), expected=len(expected)))
        last: dict[str, int] = self._state.fact("versions") or {}
        now = {**versions, "snapshot": snapshot.version}
        for name, version in last.items():
            if now.get(name, version) < version:
                message = f"{name} went from version {version} to {now[name]}"
                self._notes.add(finding("version-back", message, before=version, now=now[name]))
        self._notes.cover("roles in the snapshot", len(versions))
        with self._state.transaction():
            self._state.set_fact("versions", {name: max(last.get(name, 0), v) for name, v in now.items()})

    def _must(self, name: str, max_bytes: int) -> bytes:
        raw = self._fetcher.get(f"{self._registry.metadata_url}/{name}", max_bytes=max_bytes)
        assert raw is not None  # missing is an error
        return raw

    def _maybe(self, name: str, max_bytes: int) -> bytes | None:
        return self._fetcher.get(
            f"{self._registry.metadata_url}/{name}", max_bytes=max_bytes, missing_ok=True
        )


def _difference(found: Mapping[str, Any], demanded: Mapping[str, Any]) -> tuple[str, str, str]:
    """The first path at odds, and what both sides say of it."""
    path = min(path for path in {*found, *demanded} if found.get(path) != demanded.get(path))
    return path, str(found.get(path, "absent")), str(demanded.get(path, "absent"))


def _verified(kind: Any, delegator: Any, role: str, raw: bytes, version: int) -> Any:
    """The signed part, once `delegator`'s keys for the role reached the threshold."""
    from tuf.api.metadata import Metadata  # noqa: PLC0415

    signed = _parse(kind, role, raw)
    metadata: Any = Metadata.from_bytes(raw)
    result = delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
    if not result:
        raise SignatureError(
            f"{role} version {version} has {len(result.signed)} of {result.threshold} signatures"
        )
    if signed.version != version:
        raise EvidenceError(f"{version}.{role}.json is of version {signed.version}")
    return signed


def _parse(kind: Any, role: str, raw: bytes) -> Any:
    from tuf.api.exceptions import RepositoryError  # noqa: PLC0415
    from tuf.api.metadata import Metadata  # noqa: PLC0415

    try:
        signed = Metadata.from_bytes(raw).signed
    except RepositoryError as error:
        raise EvidenceError(f"{role} metadata is malformed: {error}") from None
    if not isinstance(signed, kind):
        raise EvidenceError(f"{role} metadata is of type {signed.type}")
    return signed
