"""What a later ceremony brings to this room, between its adoption and its being in force.

    adopted     targets, trust, index, trust file and transcript under their names; the root out of sight
    bridged     where the root names other online keys: what is public is signed for either root
    proposed    the next `tuf` entry names all of them, in one transaction with the candidate
    shown       the log holds the entry: the root appears where clients look, then the timestamper is told
    in force    the timestamp over the snapshot that lists them

In the seconds between `shown` and `in force` clients read the old timestamp, snapshot and targets under the new root.
So a root with another snapshot or timestamp key waits until a publish, signed by both keys each, is public: no client
meets a moment without metadata it accepts. About targets, a ceremony's `simulate-client` says when that does
not hold. Bins change their key with the snapshot that lists the new index: all of them, in that one publish.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuf.api.metadata import Metadata, Root, Snapshot, Timestamp

from countermark.errors import EvidenceError
from countermark.trustfile import TrustFile
from countermark_server import adopted, telemetry
from countermark_server.stores.public import TIMESTAMP, Public
from countermark_server.tufrepo import store
from countermark_server.tufrepo.candidate import Current, Online, metadata_file
from countermark_server.tufrepo.keys import Keys, read_index

BRIDGED = ("timestamp", "snapshot")  # read under a root before the publish that names it is in force


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


def ready(public: Public, keys: Keys, versions: Mapping[str, int], root: Root) -> bool:
    """Whether we hold the keys that these roles name, and clients of their root accept what is public now."""
    waiting = _waiting(public, versions["root"])
    try:
        keys.under(waiting, read_index(public, versions["index"]))
    except EvidenceError as error:
        telemetry.logger().error("a ceremony's keys are not here", error=str(error), hint=error.hint)
        return False
    if all(waiting.roles[role] == root.roles[role] for role in BRIDGED):
        return True
    raw = public.read(TIMESTAMP)
    if raw is None:
        return False
    timestamp = Metadata[Timestamp].from_bytes(raw)
    named = f"tuf/{timestamp.signed.snapshot_meta.version}.snapshot.json"
    snapshot = Metadata[Snapshot].from_bytes(public.read(named) or b"{}")
    found: dict[str, Metadata[Any]] = {"timestamp": timestamp, "snapshot": snapshot}
    return all(
        waiting.get_verification_result(role, metadata.signed_bytes, metadata.signatures).verified
        for role, metadata in found.items()
    )


def online(public: Public, keys: Keys, root: Root, current: Current, said: Mapping[str, Any]) -> Online:
    """What signs a candidate that names these files of a ceremony."""
    if said["root"] is not None:
        root = _waiting(public, said["root"]["version"])
    version = current.offline["index"] if said["index"] is None else said["index"]["version"]
    return keys.under(root, read_index(public, version))


def trust_file(public: Public, root: Root, started: TrustFile) -> TrustFile:
    """The newest trust file that this root accepts, by which the timestamper goes; it may be newer than our start."""
    digests = root.unrecognized_fields.get("x-countermark-trust", [])
    raws = [public.read(f"tuf/targets/trust/{digest}.trust.json") for digest in digests]
    found = [TrustFile.parse(raw) for raw in raws if raw is not None]
    return max(found, key=lambda each: each.version, default=started)


def _waiting(public: Public, version: int) -> Root:
    name = store.waiting_root(version)
    raw = public.read(name) or public.read(f"tuf/{version}.root.json")
    if raw is None:
        raise TufrepoError(f"{name}, adopted from a ceremony, is missing from the public tree")
    return Metadata[Root].from_bytes(raw).signed


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
