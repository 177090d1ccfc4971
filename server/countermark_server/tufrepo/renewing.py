"""What a later ceremony brings to this room, between its adoption and its being in force.

    adopted     targets, trust, index, trust file and transcript under their names; the root out of sight
    proposed    the next `tuf` entry names all of them, in one transaction with the candidate
    shown       the log holds the entry: the root appears where clients look, then the timestamper is told
    in force    the timestamp over the snapshot that lists them

In the seconds between `shown` and `in force` clients read the old targets under the new root; a ceremony's
`simulate-client` says when that does not hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuf.api.metadata import Metadata, Root

from countermark_server import adopted
from countermark_server.stores.public import Public
from countermark_server.tufrepo import store
from countermark_server.tufrepo.candidate import metadata_file


class TufrepoError(Exception):
    """This room can't go on: what it finds is not what it wrote, or the log refused its entry."""


def newest_root(public: Public) -> Metadata[Root]:
    """The newest root that clients find, parsed."""
    newest = adopted.newest_root(public)
    if newest is None:
        raise TufrepoError("there is no root in the public tree: `countermark-server adopt` comes first")
    return Metadata[Root].from_bytes(newest)


def files(
    public: Public, versions: Mapping[str, int], before: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """The ceremony's files that change, as a `tuf` entry names them."""
    found = {}
    for role, version in versions.items():
        if version == before[role]:
            continue
        name = store.waiting_root(version) if role == "root" else f"tuf/{version}.{role}.json"
        raw = public.read(name)
        if raw is None:
            raise TufrepoError(f"{name}, adopted from a ceremony, is missing from the public tree")
        found[role] = metadata_file(raw, version)
    return found


def show_root(public: Public, said: Mapping[str, Any] | None, shown: int) -> bool:
    """Show the root that a logged `tuf` entry names, if clients do not see it yet."""
    if said is None or said["version"] <= shown:
        return False
    raw = public.read(store.waiting_root(said["version"]))
    if raw is None or metadata_file(raw, said["version"]) != said:
        raise TufrepoError(f"root {said['version']} is not the one that our tuf entry names")
    public.put(f"tuf/{said['version']}.root.json", raw)
    # In the log and in sight. If we stop here the same bytes are written again.
    return True
