"""Bin files of a view that lie in the cache already: held to all that TUF asks, without ngclient's objects.

    files = BinFiles(updater, cache, now)
    files.place("files/acme/acme-1.0-py3-none-any.whl")     # ("bins-0a7", 167, 12): role, number, bit length
    files.held(role, expected)                              # its targets and leaf, or None: let ngclient look

A lock of 200 packages lies in 200 bins, and ngclient takes a millisecond for each to make objects of it and to spell
it twice. Nearly always the file of the last run is still the current one. Then this reads it once: version as the
snapshot names it, not expired, signed by the keys that the index role names, as many as it asks for, and the very
bytes that the bins root in the timestamp commits to, which TUF alone does not ask.

Nothing is refused here. Whatever is not exactly that (another version, a damaged file, a delegation, a length or
hash in the snapshot) is None, and ngclient fetches, judges and says what is wrong, as for a file that is not here.
So the cache gains no trust: a file read back is verified like one from the network.

Tiles of the bins tree are kept beside them, in a folder. They are named by their hash, so each proves itself.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from countermark.bins import BinLeaf, open_tile, targets_root
from countermark.disk import read_file
from countermark.errors import CountermarkError, EvidenceError
from countermark.limits import BIN_MAX_BYTES, BINS_TILES_KEPT
from countermark.tlog.merkle import HASH_SIZE
from countermark.tufjson import LEAK, canonical, parse_time, parts, verifies

if TYPE_CHECKING:
    from tuf.ngclient import Updater

TILES = "tiles"  # the folder within the cache


class BinFiles:
    """The bins of one view. ngclient has brought the `index` role and one bin before this is made."""

    def __init__(self, updater: Updater, cache: Path, now: int) -> None:
        from tuf.api.metadata import Metadata, Targets  # noqa: PLC0415

        raw = read_file(cache / "index.json", max_bytes=BIN_MAX_BYTES) or b""
        delegations = Metadata[Targets].from_bytes(raw).signed.delegations
        if delegations is None or delegations.succinct_roles is None:
            raise EvidenceError("the index role delegates to no bins")
        self._roles = delegations.succinct_roles
        self._keys: dict[str, Any] = json.loads(raw)["signed"]["delegations"]["keys"]
        self._updater, self._cache, self._now = updater, cache, now

    def place(self, path: str) -> tuple[str, int, int]:
        """The bin a path belongs to: role, number and bit length, as the `index` role delegates."""
        role = self._roles.get_role_for_target(path)
        return role, int(role.rpartition("-")[2], 16), self._roles.bit_length

    def held(self, role: str, expected: bytes) -> tuple[BinLeaf, dict[str, Any]] | None:
        """The bin as the cache holds it, if it is the current one. `expected`: its leaf hash in the bins tree."""
        try:
            raw = read_file(self._cache / f"{role}.json", max_bytes=BIN_MAX_BYTES)
            return None if raw is None else self._read(role, raw, expected)
        except (CountermarkError, *LEAK):
            return None

    def _read(self, role: str, raw: bytes, expected: bytes) -> tuple[BinLeaf, dict[str, Any]] | None:
        # `parts`: it says that it is targets metadata of a specification we know.
        signed, signatures = parts(raw, "targets")
        listed = snapshot_of(self._updater).meta[f"{role}.json"]
        if signed["version"] != listed.version or listed.length is not None or listed.hashes is not None:
            return None
        if self._now >= parse_time(signed["expires"]) or "delegations" in signed:
            return None
        targets: dict[str, Any] = signed["targets"]
        leaf = BinLeaf(role, signed["version"], hashlib.sha256(raw).hexdigest(), targets_root(targets))
        if leaf.leaf_hash != expected or not self._is_signed(signed, signatures):
            return None
        return leaf, targets

    def _is_signed(self, signed: dict[str, Any], listed: Any) -> bool:
        """Whether as many of the bins' keys as the index role asks for signed it, each counted once."""
        signatures = {each["keyid"]: each["sig"] for each in listed}
        message = canonical(signed)
        good = [
            keyid
            for keyid in dict.fromkeys(self._roles.keyids)
            if keyid in signatures and verifies(self._keys.get(keyid), signatures[keyid], message)
        ]
        return len(good) >= max(1, self._roles.threshold)


def snapshot_of(updater: Updater) -> Any:
    """The snapshot that ngclient has verified: there is no public way, and a test fails when this one moves."""
    found = getattr(updater._trusted_set, "snapshot", None)
    if not isinstance(getattr(found, "meta", None), dict):
        raise RuntimeError("this version of tuf keeps its snapshot elsewhere")
    return found


def is_checked_when_read(name: str) -> bool:
    """Whether it is a file of the cache that nobody believes before they checked its hash: a bin, a tile."""
    return name.startswith("bins-") or len(name) == 2 * HASH_SIZE


def kept_tile(cache: Path, name: str) -> bytes | None:
    """A tile of the bins tree from an earlier view; None where it is not here, or is not what its name says."""
    try:
        raw = read_file(cache / TILES / name, max_bytes=256 * HASH_SIZE)
        if raw is not None:
            open_tile(raw, bytes.fromhex(name))
        return raw
    except CountermarkError:
        return None


def keep_tile(cache: Path, name: str, raw: bytes) -> None:
    """Keep a tile for the next view, in a working copy of the cache. The oldest go when there are too many."""
    folder = cache / TILES
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / name).unlink(missing_ok=True)  # never through a name that somebody else has for it
        (folder / name).write_bytes(raw)
        kept = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)
        for path in kept[: max(0, len(kept) - BINS_TILES_KEPT)]:
            path.unlink()
    except OSError:
        return  # it is asked for again
