"""TUF metadata as the timestamper reads it: from the root it was given, every signature checked.

    chain = Chain(root_raw, reader)         # walks N+1.root.json by TUF's rules
    chain.trust_file()                      # one whose digest the root lists
    offline = chain.offline(snapshot)       # targets, trust, index as the snapshot names them
    chain.bin_of(offline, "bins-0a7", 4, demanded)      # 4.bins-0a7.json, by the key that index delegates to

tuf's own client can't be used here: it starts from a timestamp, and that is what we are about to sign. The
steps are the same. Nothing here decides whether metadata may be published; `judge.py` does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Any, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.signer import SSlibKey
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Signature, Snapshot, SuccinctRoles, Targets, Timestamp

from countermark import snapshotfile
from countermark.bins import role_name
from countermark.errors import CountermarkError
from countermark.limits import (
    BIN_MAX_BYTES,
    ROOT_MAX_BYTES,
    ROOT_MAX_VERSIONS,
    TRUST_FILE_MAX_BYTES,
)
from countermark.trustfile import TARGET_PATH, TrustFile
from countermark_server.timestamper.errors import RefusalError
from countermark_server.tufbytes import expected_bin

SNAPSHOT_MAX_BYTES = 4_000_000  # 65,536 bins take 2.2 MB
OFFLINE = ("targets", "trust", "index")

Read = Callable[
    [str, int], bytes
]  # a file under tuf/, at most so many bytes; NetworkError when it is not there
ReadMaybe = Callable[[str, int], bytes | None]
Signed = TypeVar("Signed", Root, Timestamp, Snapshot, Targets)


@dataclass(frozen=True)
class Offline:
    """The ceremony's roles below the root, verified, with the digest of each file."""

    targets: Targets
    trust: Targets
    index: Targets
    digests: Mapping[str, str]

    @property
    def bins(self) -> SuccinctRoles:
        """The delegation to all bins."""
        delegations = self.index.delegations
        if delegations is None or delegations.succinct_roles is None:
            raise RefusalError("index", "the index role delegates to no bins")
        return delegations.succinct_roles

    @property
    def bin_files(self) -> tuple[tuple[str, str], ...]:
        """Every bin in order: its role, and the name of its file in a snapshot."""
        return _bin_files(self.bins.name_prefix, self.bins.bit_length)

    @property
    def bin_names(self) -> frozenset[str]:
        """The names of these files."""
        return _bin_names(self.bins.name_prefix, self.bins.bit_length)

    @cached_property
    def bins_key(self) -> tuple[str, Ed25519PublicKey] | None:
        """The key that signs bins, with its id, opened once for all of them; None where it is not one of Ed25519."""
        bins, keys = self.bins, self.index.delegations and self.index.delegations.keys
        if (
            (len(bins.keyids), bins.threshold) != (1, 1)
            or not keys
            or (key := keys.get(bins.keyids[0])) is None
        ):
            return None
        if not isinstance(key, SSlibKey) or (key.keytype, key.scheme) != ("ed25519", "ed25519"):
            return None
        try:
            return key.keyid, Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.keyval["public"]))
        except ValueError:
            return None

    def has_signed_bin(self, message: bytes, signatures: Mapping[str, Signature]) -> bool:
        """Whether that key signed these bytes. False says nothing: then tuf is to look."""
        if self.bins_key is None or (found := signatures.get(self.bins_key[0])) is None:
            return False
        try:
            self.bins_key[1].verify(bytes.fromhex(found.signature), message)
        except (InvalidSignature, ValueError):
            return False
        return True


@lru_cache(maxsize=2)
def _bin_names(prefix: str, bit_length: int) -> frozenset[str]:
    return frozenset(name for _, name in _bin_files(prefix, bit_length))


@lru_cache(maxsize=2)  # thousands of names, the same at each publish
def _bin_files(prefix: str, bit_length: int) -> tuple[tuple[str, str], ...]:
    roles = (role_name(number, bit_length, prefix) for number in range(1 << bit_length))
    return tuple((role, f"{role}.json") for role in roles)


class Chain:
    """One walk from a trusted root."""

    def __init__(self, root_raw: bytes, read: Read, read_maybe: ReadMaybe) -> None:
        self._read = read
        self.root_raw = root_raw
        self.root = _parse(Root, "root", root_raw)
        for _ in range(ROOT_MAX_VERSIONS):
            version = self.root.signed.version + 1
            raw = read_maybe(f"{version}.root.json", ROOT_MAX_BYTES)
            if raw is None:
                return
            newer = _parse(Root, "root", raw)
            for by in (self.root.signed, newer.signed):
                _verify(by, "root", newer)
            if newer.signed.version != version:
                raise RefusalError(
                    "root-version", f"{version}.root.json is of version {newer.signed.version}"
                )
            self.root, self.root_raw = newer, raw

    @property
    def root_digest(self) -> str:
        """Hex SHA-256 of the newest root's file."""
        return hashlib.sha256(self.root_raw).hexdigest()

    def check_unexpired(self, now: int) -> None:
        """Refuse a root that is past its expiry."""
        if self.root.signed.is_expired(datetime.fromtimestamp(now, UTC)):
            raise RefusalError("root-expired", f"the root expired at {self.root.signed.expires}")

    def trust_file(self) -> TrustFile:
        """The newest trust file that the root accepts without delay."""
        return self.trust_files()[-1]

    def trust_files(self) -> list[TrustFile]:
        """Every trust file that the root accepts without delay, the newest last."""
        digests = self.root.signed.unrecognized_fields.get("x-countermark-trust")
        if not isinstance(digests, list) or not digests:
            raise RefusalError("trust-file", "the root lists no trust file in x-countermark-trust")
        found = []
        for digest in digests:
            raw = self._read(f"targets/trust/{digest}.trust.json", TRUST_FILE_MAX_BYTES)
            if hashlib.sha256(raw).hexdigest() != digest:
                raise RefusalError("trust-file", f"trust file {digest} has other bytes")
            found.append(TrustFile.parse(raw))
        return sorted(found, key=lambda trust_file: trust_file.version)

    def snapshot(self, wanted: Mapping[str, Any]) -> Snapshot:
        """The snapshot that a `tuf` entry names: {"length", "sha256", "version"}."""
        raw = self._read(f"{wanted['version']}.snapshot.json", SNAPSHOT_MAX_BYTES)
        found = (len(raw), hashlib.sha256(raw).hexdigest())
        if found != (wanted["length"], wanted["sha256"]):
            raise RefusalError(
                "snapshot-digest",
                f"snapshot {wanted['version']} has {found[0]} bytes and SHA-256 {found[1]}, its entry says "
                f"{wanted['length']} and {wanted['sha256']}",
            )
        snapshot = _snapshot(self.root.signed, raw)
        if snapshot.signed.version != wanted["version"]:
            raise RefusalError(
                "snapshot-version",
                f"{wanted['version']}.snapshot.json is of version {snapshot.signed.version}",
            )
        return snapshot.signed

    def offline(self, snapshot: Snapshot) -> Offline:
        """targets by the root; trust and index by targets; each at the version the snapshot names."""
        digests: dict[str, str] = {}
        targets = self._role(self.root.signed, "targets", snapshot, digests)
        trust = self._role(targets, "trust", snapshot, digests)
        index = self._role(targets, "index", snapshot, digests)
        return Offline(targets, trust, index, digests)

    def bin_of(
        self, offline: Offline, role: str, version: int, demanded: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], str]:
        """The targets of one bin, by the key that index delegates to, and its file's digest.

        Where it holds what is demanded, in the registry's spelling, its bytes are as they must be, and only the
        signature is left to verify. Any other file is read by tuf, which says what it is.
        """
        raw = self._read(f"{version}.{role}.json", BIN_MAX_BYTES)
        found = expected_bin(raw, version, demanded)
        if found is not None:
            if not offline.has_signed_bin(*found):
                _check(offline.index, role, version, *found)
            return demanded, hashlib.sha256(raw).hexdigest()
        metadata = _parse(Targets, role, raw)
        _verify(offline.index, role, metadata)
        signed = metadata.signed
        if signed.version != version:
            raise RefusalError("bin-version", f"{version}.{role}.json is of version {signed.version}")
        if signed.delegations is not None:
            raise RefusalError(
                "listing", f"{role} version {version} is not what the log demands: it delegates to others"
            )
        targets = {path: target.to_dict() for path, target in signed.targets.items()}
        return targets, hashlib.sha256(raw).hexdigest()

    def timestamp(self, raw: bytes) -> Metadata[Timestamp]:
        """A timestamp by the timestamp key."""
        metadata = _parse(Timestamp, "timestamp", raw)
        _verify(self.root.signed, "timestamp", metadata)
        return metadata

    def _role(
        self, delegator: Root | Targets, role: str, snapshot: Snapshot, digests: dict[str, str]
    ) -> Targets:
        listed = snapshot.meta.get(f"{role}.json")
        if listed is None:
            raise RefusalError("role-dropped", f"the snapshot does not list {role}.json")
        raw = self._read(f"{listed.version}.{role}.json", BIN_MAX_BYTES)
        metadata = _parse(Targets, role, raw)
        _verify(delegator, role, metadata)
        if metadata.signed.version != listed.version:
            raise RefusalError(
                "role-version", f"{listed.version}.{role}.json is of version {metadata.signed.version}"
            )
        digests[role] = hashlib.sha256(raw).hexdigest()
        return metadata.signed


def check_trust_target(offline: Offline, trust_file: TrustFile) -> None:
    """The trust role lists the trust file we use."""
    target = offline.trust.targets.get(TARGET_PATH)
    if target is None or target.hashes.get("sha256") != trust_file.digest:
        listed = target and target.hashes.get("sha256")
        raise RefusalError("trust-file", f"the trust role lists {listed}, the root {trust_file.digest}")


def _parse(kind: type[Signed], role: str, raw: bytes) -> Metadata[Signed]:
    try:
        metadata: Metadata[Signed] = Metadata.from_bytes(raw)
    except (RepositoryError, CountermarkError) as error:
        raise RefusalError("malformed", f"{role} metadata is malformed: {error}") from error
    if not isinstance(metadata.signed, kind):
        raise RefusalError("malformed", f"{role} metadata is of type {metadata.signed.type!r}")
    return metadata


def _snapshot(root: Root, raw: bytes) -> Metadata[Snapshot]:
    """A snapshot by the snapshot key, without walking its thousands of bins where its spelling allows it."""
    quick = snapshotfile.parse(raw)
    if quick is None:
        metadata = _parse(Snapshot, "snapshot", raw)
        _verify(root, "snapshot", metadata)
        return metadata
    metadata, signed = quick
    _check(root, "snapshot", metadata.signed.version, signed, metadata.signatures)
    return metadata


def _verify(delegator: Root | Targets, role: str, metadata: Metadata[Any]) -> None:
    _check(delegator, role, metadata.signed.version, metadata.signed_bytes, metadata.signatures)


def _check(
    delegator: Root | Targets, role: str, version: int, message: bytes, signatures: dict[str, Signature]
) -> None:
    """Refuse unless the delegator's keys for this role signed these bytes."""
    try:
        result = delegator.get_verification_result(role, message, signatures)
    except ValueError as error:
        raise RefusalError("signature", f"nobody delegates to {role}") from error
    if not result:
        raise RefusalError(
            "signature",
            f"{role} version {version} has {len(result.signed)} of {result.threshold} signatures",
        )
