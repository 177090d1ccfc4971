"""Every bin against what the log demands; the bins root over all of them.

A bin that changed is fetched, its signature checked, and its targets compared file by file with those that the
replay left in our own database. A bin that did not change is the one we accepted before, and must still be right:
if an entry touched one of its files, its targets root must be what it was.

Registries begin with thousands of empty bins whose files are the same bytes. The list of changed bins (named by
digest in the `tuf` entry) says each file's SHA-256, so bytes verified once are not fetched again for another
role of the same version and key. The list is only a way to know that in advance: whatever it says ends in the
leaf, and the leaves in the bins root, which must be the one in the entry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from tuf.api.metadata import Snapshot

from countermark.bins import BinLeaf, BinsTree, parse_changes, targets_root
from countermark.errors import MalformedError
from countermark_server.listing import Target
from countermark_server.timestamper.chain import Chain, Offline
from countermark_server.timestamper.errors import RefusalError
from countermark_server.timestamper.store import Store

CHANGES_MAX_BYTES = 16_000_000  # 65,536 lines of up to 160 bytes
READ_AT_ONCE = 1024  # bins whose targets are read in one question
Found = Mapping[str, Any]


class Accepted:
    """The bins as last signed for, in memory: what `store.bins()` holds, and the tree over it."""

    def __init__(self, store: Store) -> None:
        self.leaves = store.bins()
        count = len(self.leaves)
        self.tree = BinsTree.build([self.leaves[n].leaf_hash for n in range(count)]) if count else None
        self.versions = _versions(self.leaves.values())

    def change(self, leaves: Mapping[int, BinLeaf]) -> None:
        """These are signed for now. (The caller's database knows it already.)"""
        self.leaves |= leaves
        self.versions |= _versions(leaves.values())
        hashes = {number: leaf.leaf_hash for number, leaf in leaves.items()}
        if self.tree is None:
            self.tree = BinsTree.build([hashes[number] for number in sorted(hashes)])
        elif leaves:
            self.tree, _ = self.tree.replace(hashes)

    def forget(self) -> None:
        """There are more bins from now on: each is looked at anew."""
        self.leaves, self.tree, self.versions = {}, None, {}


class BinCheck:
    """One attempt's look at the bins."""

    def __init__(
        self, store: Store, chain: Chain, offline: Offline, read_maybe: Callable[[str, int], bytes | None]
    ) -> None:
        self._store = store
        self._chain = chain
        self._offline = offline
        self._read_maybe = read_maybe
        self._verified: dict[tuple[int, str], Found] = {}  # by version and SHA-256
        self._changes_named: str | None = None
        self._said: dict[tuple[str, int], str] | None = None  # by role and version: SHA-256

    def tree(
        self,
        accepted: Accepted,
        snapshot: Snapshot,
        touched: Mapping[int, Mapping[str, Target | None]],
        changed_sha256: str | None,
        *,
        again: bool = False,
    ) -> BinsTree:
        """The tree over all bins, each checked; `accepted` is brought up to date.

        `again`: another key signs bins from now on, so that no bin is right because it was right before.
        """
        self._store.put_targets(touched)
        self._changes_named = changed_sha256
        changed = {}
        for number, role, version, old, demanded in self._due(accepted, snapshot, touched, again=again):
            leaf = self._check(role, version, demanded, old)
            if leaf != accepted.leaves.get(number):
                changed[number] = leaf
        self._store.put_bins(changed)
        accepted.change(changed)
        assert accepted.tree is not None  # where there was none, each bin has changed
        return accepted.tree

    def _due(
        self, accepted: Accepted, snapshot: Snapshot, touched: Collection[int], *, again: bool
    ) -> Iterator[tuple[int, str, int, BinLeaf | None, Mapping[str, Target]]]:
        """The bins to look at: number, role, version, the leaf as it was accepted, and what the log demands."""
        due = []
        for number, (role, name) in enumerate(self._offline.bin_files):
            version = snapshot.meta[name].version
            old = None if again else accepted.leaves.get(number)
            if old is None or old.version != version or number in touched:
                due.append((number, role, version, old))
        for first in range(0, len(due), READ_AT_ONCE):
            some = due[first : first + READ_AT_ONCE]
            demanded = self._store.targets([number for number, *_ in some])
            yield from ((*each, demanded.get(each[0], {})) for each in some)

    def _check(self, role: str, version: int, demanded: Mapping[str, Target], old: BinLeaf | None) -> BinLeaf:
        """The bin of this role and version, once it holds exactly what the log demands."""
        root = targets_root(demanded)
        if old is not None and old.version == version:
            if old.targets_root != root:
                raise _differs(role, version, f"the log demands {_names(demanded)}, the bin was not changed")
            return old
        found, digest = self._found(role, version, demanded)
        if found != demanded:
            raise _differs(role, version, _difference(found, demanded))
        return BinLeaf(role, version, digest, root)

    def _found(self, role: str, version: int, demanded: Mapping[str, Target]) -> tuple[Found, str]:
        """The targets a bin lists, and its file's digest."""
        said = None if demanded else self._changes().get((role, version))  # only empty bins are equal
        if said is not None and (version, said) in self._verified:
            return self._verified[version, said], said
        found, digest = self._chain.bin_of(self._offline, role, version, demanded)
        self._verified[version, digest] = found
        return found, digest

    def _changes(self) -> dict[tuple[str, int], str]:
        """The list of changed bins, read when it is first of use."""
        if self._said is None:
            self._said = self._read_changes(self._changes_named)
        return self._said

    def _read_changes(self, sha256: str | None) -> dict[tuple[str, int], str]:
        raw = None if sha256 is None else self._read_maybe(f"changes/{sha256}", CHANGES_MAX_BYTES)
        if raw is None or hashlib.sha256(raw).hexdigest() != sha256:
            return {}  # then each bin is fetched
        try:
            return {(leaf.role, leaf.version): leaf.sha256 for leaf in parse_changes(raw)}
        except MalformedError:
            return {}


def _versions(leaves: Iterable[BinLeaf]) -> dict[str, int]:
    """Version of each, by the name of its file in a snapshot."""
    return {f"{leaf.role}.json": leaf.version for leaf in leaves}


def _differs(role: str, version: int, how: str) -> RefusalError:
    return RefusalError("listing", f"{role} version {version} is not what the log demands: {how}")


def _difference(found: Mapping[str, Any], demanded: Mapping[str, Any]) -> str:
    for path in sorted(set(found) | set(demanded)):
        if path not in demanded:
            return f"{path} may not be listed"
        if path not in found:
            return f"{path} is missing"
        if found[path] != demanded[path]:
            return f"{path} says {found[path]}, the log {demanded[path]}"
    return "nothing"


def _names(targets: Mapping[str, Any]) -> str:
    return ", ".join(list(targets)[:3]) or "no targets"
