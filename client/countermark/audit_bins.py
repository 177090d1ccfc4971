"""The bins, which hold every file that may be installed: each is exactly what the log demands of it.

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

from countermark.audit_report import Finding, Notes, finding
from countermark.audit_state import AuditState, Target
from countermark.bins import TILE_MAX_BYTES, BinLeaf, BinsTree, former, targets_root
from countermark.errors import EvidenceError, SignatureError
from countermark.fetch import Fetcher
from countermark.limits import BIN_MAX_BYTES, SNAPSHOT_MAX_BYTES, TRUST_FILE_MAX_BYTES
from countermark.listing import bin_index
from countermark.pins import Registry
from countermark.timestamp import Timestamp
from countermark.values import dataclass

if TYPE_CHECKING:
    from tuf.api.metadata import Root, Snapshot, Targets

OFFLINE = ("targets", "trust", "index")


@dataclass(frozen=True)
class Seen:
    """What TUF's client verified, from the pinned root to the timestamp."""

    root: bytes
    timestamp: Timestamp
    snapshot: Mapping[str, Any]  # {"length", "sha256", "version"} as the timestamp says


class Served:
    """The registry's metadata files, by their names."""

    def __init__(self, registry: Registry, fetcher: Fetcher) -> None:
        self._registry, self._fetcher = registry, fetcher

    def find(self, name: str, max_bytes: int) -> bytes | None:
        """The file; None where it is not served."""
        return self._fetcher.get(
            f"{self._registry.metadata_url}/{name}", max_bytes=max_bytes, missing_ok=True
        )

    def get(self, name: str, max_bytes: int) -> bytes:
        """The file, which must be there."""
        raw = self._fetcher.get(f"{self._registry.metadata_url}/{name}", max_bytes=max_bytes)
        assert raw is not None  # missing is an error
        return raw


class BinsAudit:
    """One pass over the snapshot and the bins. `said`: by role and version, a digest that the log names."""

    def __init__(
        self, state: AuditState, served: Served, seen: Seen, notes: Notes, said: Mapping[tuple[str, int], str]
    ) -> None:
        self._state, self._served, self._seen, self._notes = state, served, seen, notes
        self._said = said
        self._unlike: dict[str, Finding] = {}  # by role: its bin is not the listing
        self._verified: dict[tuple[int, str], dict[str, Any]] = {}  # by version and SHA-256: targets

    def run(self) -> None:
        """(8), (9). EvidenceError, SignatureError: the metadata on the way to the bins is not what it must be."""
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
        raw = self._served.find(name, max_bytes)
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
        found, digest = self._targets_of(index, role, version)
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
            "bin": self._served.get(f"{leaf.version}.{leaf.role}.json", BIN_MAX_BYTES),
            "bin-leaf": leaf.format(),
        }
        if tree.root == self._seen.timestamp.bins_root:
            shown["bin-proof"] = b"".join(tree.prove(number))
        self._notes.add(self._unlike[leaf.role], shown)

    def _targets_of(self, index: Targets, role: str, version: int) -> tuple[dict[str, Any], str]:
        from tuf.api.metadata import Targets  # noqa: PLC0415

        said = self._said.get((role, version))
        if said is not None and (version, said) in self._verified:
            self._notes.cover("bins of equal bytes, by their logged digest")
            return self._verified[version, said], said
        raw = self._served.get(f"{version}.{role}.json", BIN_MAX_BYTES)
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
        signed = _verified(
            kind, delegator, role, self._served.get(f"{version}.{role}.json", max_bytes), version
        )
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
