"""Bin files of a view that lie in the cache already: held to all that TUF asks, without ngclient's objects.

    files = BinFiles(index, version_of, folder, now)
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

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from countermark.bins import BinLeaf, bin_number, open_tile, role_name, targets_root
from countermark.digest import sha256
from countermark.errors import CountermarkError, EvidenceError
from countermark.folder import Folder
from countermark.limits import BIN_MAX_BYTES, BINS_TILES_KEPT
from countermark.tlog.merkle import HASH_SIZE
from countermark.tufjson import LEAK, Delegator

Place = tuple[str, int, int]  # of a bin: role, number, bit length
TILES = "tiles"  # the folder within the cache


class BinFiles:
    """The bins of one view, below an `index` role that somebody has verified."""

    def __init__(
        self, index: Mapping[str, Any], version_of: Callable[[str], int | None], folder: Folder, now: int
    ) -> None:
        """`index` is the signed part of that role; `version_of` says which version of a role is the current one."""
        try:
            delegations = index["delegations"]
            succinct = delegations["succinct_roles"]
            self._delegator = Delegator(delegations["keys"], succinct)
            self._bit_length, self._prefix = succinct["bit_length"], succinct["name_prefix"]
            if type(self._bit_length) is not int or not isinstance(self._prefix, str):
                raise TypeError("of another type")
        except LEAK:
            raise EvidenceError("the index role delegates to no bins") from None
        self._version_of, self._folder, self._now = version_of, folder, now

    def place(self, path: str) -> Place:
        """The bin a path belongs to: role, number and bit length, as the `index` role delegates."""
        number = bin_number(path, self._bit_length)
        return role_name(number, self._bit_length, self._prefix), number, self._bit_length

    def held(self, role: str, expected: bytes) -> tuple[BinLeaf, dict[str, Any]] | None:
        """The bin as the cache holds it, if it is the current one. `expected`: its leaf hash in the bins tree."""
        try:
            raw = self._folder.read(f"{role}.json", max_bytes=BIN_MAX_BYTES)
            return None if raw is None else self._read(role, raw, expected)
        except (CountermarkError, *LEAK):
            return None

    def _read(self, role: str, raw: bytes, expected: bytes) -> tuple[BinLeaf, dict[str, Any]] | None:
        signed = self._delegator.current(raw, "targets", version=self._version_of(role), now=self._now)
        if signed is None or "delegations" in signed:
            return None
        targets: dict[str, Any] = signed["targets"]
        leaf = BinLeaf(role, signed["version"], sha256(raw).hexdigest(), targets_root(targets))
        return (leaf, targets) if leaf.leaf_hash == expected else None


def is_checked_when_read(name: str) -> bool:
    """Whether it is a file of the cache that nobody believes before they checked its hash: a bin, a tile."""
    return name.startswith("bins-") or len(name) == 2 * HASH_SIZE


def kept_tile(folder: Folder, name: str) -> bytes | None:
    """A tile of the bins tree from an earlier view; None where it is not here, or is not what its name says."""
    try:
        raw = folder.read(f"{TILES}/{name}", max_bytes=256 * HASH_SIZE)
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
