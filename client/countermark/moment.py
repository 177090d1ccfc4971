"""Moments: what TUF says of a registry now, from whoever need be asked for it.

    moment = look(registry, recorder, folder, now)      # root chain, timestamp, snapshot and targets, verified
    moment.root                                         # the newest one
    moment.trust_sha256()                               # of the trust file that the `trust` role lists
    moment.bin_files(path)                              # the bins, as the `index` role delegates to them
    moment.bring(path)                                  # fetch the bin of this path into the cache, verified

Most looks find nothing new: no root after the last one, and the very timestamp that was verified last time. Then all
that this moment consists of lies in the cache, and `Kept` verifies it there, from the pinned root, with what verifies
bundles and bins (tufjson.py): the chain of roots, the timestamp's signature and expiry, the snapshot that it names,
and of `targets`, `trust` and `index` version, expiry and signatures. To load ngclient takes longer than that.

Nothing is refused here, as in binfiles.py. Whatever is not exactly that (a newer root, another timestamp, one that
has expired, a file that is not here or was changed, a delegation that no ceremony of ours makes) is left to ngclient,
which is given the answers that came already, and fetches, judges and says what is wrong. So the cache gains no trust.

A bin that is not here is ngclient's, too: it is started then, over the same moment, and verifies all of it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from countermark.binfiles import BinFiles
from countermark.bundle import newest_root
from countermark.digest import sha256
from countermark.disk import read_file
from countermark.errors import CountermarkError, EvidenceError
from countermark.fetch import StatusError
from countermark.folder import Folder
from countermark.limits import (
    BIN_MAX_BYTES,
    ROOT_MAX_BYTES,
    SNAPSHOT_MAX_BYTES,
    STOCK_TIMESTAMP_MAX_BYTES,
    TIMESTAMP_MAX_BYTES,
)
from countermark.pins import Registry, newer_roots
from countermark.snapshotfile import split
from countermark.trustfile import TARGET_PATH
from countermark.tufclient import Asked, Recorder, Settled, refresh, snapshot_of, tuf_errors
from countermark.tufjson import LEAK, Delegator, Root, load, parse_time, parts
from countermark.values import cached, dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tuf.ngclient import Updater

DELEGATED = (("trust", ["trust/*"]), ("index", ["files/*/*"]))  # by `targets`, as ceremonies make it


class Moment(Protocol):
    """TUF's metadata of one moment, verified."""

    @property
    def root(self) -> Root:
        """The newest root."""

    def trust_sha256(self) -> str:
        """The SHA-256 of the trust file that the `trust` role lists."""

    def version_of(self, role: str) -> int | None:
        """The version of a role in the snapshot; None where that says more of it, or does not know it."""

    def bin_files(self, path: str) -> BinFiles:
        """The bins, of which this path's may have been brought meanwhile."""

    def bring(self, path: str) -> None:
        """Let the cache hold the bin of this path: fetched where need be, and verified."""


def look(registry: Registry, recorder: Recorder, folder: Folder, now: int) -> Moment:
    """The registry's moment, as of `now`."""
    asked = Asked(recorder)
    try:
        found = _kept(registry, asked, folder, now)
    except (CountermarkError, *LEAK):
        found = None
    if found is not None:
        return Kept(registry, recorder, folder, now, found)
    return Refreshed(registry, refresh(registry, asked, folder.own(), now), folder, now)


class Refreshed:
    """A moment that ngclient has brought."""

    def __init__(self, registry: Registry, updater: Updater, folder: Folder, now: int) -> None:
        self._registry, self._updater, self._folder, self._now = registry, updater, folder, now
        self._bin_files: BinFiles | None = None

    @cached
    def root(self) -> Root:
        return Root.parse(read_file(self._folder.own() / "root.json", max_bytes=ROOT_MAX_BYTES) or b"")

    def trust_sha256(self) -> str:
        with tuf_errors(self._registry.url):
            info = self._updater.get_targetinfo(TARGET_PATH)
        if info is None:
            raise EvidenceError(f"{self._registry.url}: its TUF metadata lists no {TARGET_PATH}")
        return str(info.hashes.get("sha256", ""))

    def version_of(self, role: str) -> int | None:
        listed = snapshot_of(self._updater).meta.get(f"{role}.json")
        if listed is None or listed.length is not None or listed.hashes is not None:
            return None
        return int(listed.version)

    def bin_files(self, path: str) -> BinFiles:
        if self._bin_files is None:
            self.bring(path)  # the index role, too
            raw = self._folder.read("index.json", max_bytes=BIN_MAX_BYTES) or b""
            self._bin_files = BinFiles(load(raw, "targets"), self.version_of, self._folder, self._now)
        return self._bin_files

    def bring(self, path: str) -> None:
        with tuf_errors(self._registry.url):
            self._updater.get_targetinfo(path)


@dataclass(frozen=True)
class _Found:
    """What of a moment lies in the cache, verified. Made by `_kept` alone."""

    root: Root
    timestamp: bytes
    versions: Mapping[str, str]
    trust: Mapping[str, Any]
    index: Mapping[str, Any] | None  # None: nobody has asked for a bin yet, or it is not what it must be


class Kept:
    """The moment of the last look, found again."""

    def __init__(
        self, registry: Registry, recorder: Recorder, folder: Folder, now: int, found: _Found
    ) -> None:
        self._registry, self._recorder, self._folder, self._now = registry, recorder, folder, now
        self._found, self.root = found, found.root
        self._bin_files = None if found.index is None else BinFiles(found.index, self.version_of, folder, now)

    def trust_sha256(self) -> str:
        return str(self._found.trust["targets"][TARGET_PATH]["hashes"]["sha256"])

    def version_of(self, role: str) -> int | None:
        return _version(self._found.versions, role)

    def bin_files(self, path: str) -> BinFiles:
        return self._bin_files or self._refreshed.bin_files(path)

    def bring(self, path: str) -> None:
        self._refreshed.bring(path)

    @cached
    def _refreshed(self) -> Refreshed:
        """The same moment by ngclient: it is told of no other."""
        settled = Settled(self._recorder, self._found.timestamp)
        updater = refresh(self._registry, settled, self._folder.own(), self._now)
        return Refreshed(self._registry, updater, self._folder, self._now)


def _kept(registry: Registry, asked: Asked, folder: Folder, now: int) -> _Found | None:
    """The moment that the cache holds, if it is still the registry's."""
    timestamp = folder.read("timestamp.json", max_bytes=TIMESTAMP_MAX_BYTES)
    if timestamp is None:
        return None  # the first look
    pinned = Root.parse(registry.root)
    # (1) The newest root that the cache leads to has no successor. Against a retired key.
    root = newest_root(pinned, (), newer_roots(folder.path, pinned.version))
    url = registry.metadata_url
    if _is_there(asked, f"{url}/{root.version + 1}.root.json"):
        return None
    # (2) The registry's timestamp is the one that lies here. Against the past, and for what is new.
    offered = asked.ahead(f"{url}/timestamp.json", max_bytes=STOCK_TIMESTAMP_MAX_BYTES)
    if offered != timestamp or now >= root.expires:
        return None
    # (3) It is signed, has not expired, and names the snapshot that lies here. Against freeze, mix and match.
    versions = _snapshot(root, timestamp, folder, now)
    if versions is None:
        return None
    # (4) So do `targets`, and the two roles it delegates to.
    held = _Roles(folder, versions, now)
    targets = held.read("targets", Delegator(root.keys, root.roles["targets"]))
    if targets is None or targets["targets"]:
        return None
    delegations = targets["delegations"]
    roles = delegations["roles"]
    if tuple((each["name"], each["paths"]) for each in roles) != DELEGATED:
        return None
    trust, index = (held.read(each["name"], Delegator(delegations["keys"], each)) for each in roles)
    if trust is None or (index is not None and index["targets"]):
        return None
    str(trust["targets"][TARGET_PATH]["hashes"]["sha256"])  # or a KeyError: no trust file is listed
    return _Found(root, timestamp, versions, trust, index)


def _is_there(asked: Asked, url: str) -> bool:
    """Whether there is a root of this name. As for ngclient, a store that answers 403 for what it lacks has none."""
    try:
        return asked.ahead(url, max_bytes=ROOT_MAX_BYTES) is not None
    except StatusError as error:
        if error.answer.status in (403, 404):
            return False
        raise


def _snapshot(root: Root, timestamp: bytes, folder: Folder, now: int) -> Mapping[str, str] | None:
    """The versions that the timestamp's snapshot lists, if it is the one that lies here."""
    signed = root.open("timestamp", timestamp)
    if now >= parse_time(signed["expires"]) or signed["meta"].keys() != {"snapshot.json"}:
        return None
    named, raw = (
        signed["meta"]["snapshot.json"],
        folder.read("snapshot.json", max_bytes=SNAPSHOT_MAX_BYTES) or b"",
    )
    found = split(raw)
    if found is None or named.get("length", len(raw)) != len(raw):
        return None
    if "hashes" in named and named["hashes"] != {"sha256": sha256(raw).hexdigest()}:
        return None
    rest, listed = parts(found.rest, "snapshot")
    keys = Delegator(root.keys, root.roles["snapshot"])
    if not keys.takes(rest, listed, found.signed, version=named["version"], now=now):
        return None
    return found.versions


@dataclass(frozen=True)
class _Roles:
    """Targets metadata in the cache."""

    folder: Folder
    versions: Mapping[str, str]
    now: int

    def read(self, role: str, delegator: Delegator) -> dict[str, Any] | None:
        """The signed part of a role's file, if it is the current one."""
        raw = self.folder.read(f"{role}.json", max_bytes=BIN_MAX_BYTES)
        version = _version(self.versions, role)
        return None if raw is None else delegator.current(raw, "targets", version=version, now=self.now)


def _version(versions: Mapping[str, str], role: str) -> int | None:
    found = versions.get(f"{role}.json")
    return None if found is None else int(found)
