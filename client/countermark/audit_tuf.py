"""TUF's half of an audit: both bindings to the log, then every bin.

    (6) every `tuf` entry's digests are those of the files served under the names it gives them
    (7) the timestamp names the snapshot, `applied` and bins root of the newest `tuf` entry in its checkpoint,
        and every timestamp seen before is logged
    (8), (9) snapshot and bins are what the log demands: audit_bins.py

Where files of (6) cannot be read, the rest is looked at all the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from countermark.audit_bins import BinsAudit, Seen, Served
from countermark.audit_report import Notes, finding, view_finding
from countermark.audit_state import AuditState
from countermark.bins import parse_changes
from countermark.errors import CountermarkError, EvidenceError, MalformedError, SignatureError
from countermark.fetch import Fetcher
from countermark.limits import BIN_MAX_BYTES, CHANGES_MAX_BYTES, ROOT_MAX_BYTES, SNAPSHOT_MAX_BYTES
from countermark.pins import Registry
from countermark.schema import TUF_ROLES

_MAX_BYTES = {"root": ROOT_MAX_BYTES, "snapshot": SNAPSHOT_MAX_BYTES}


class TufAudit:
    """One pass over TUF, against the state at the head of the log."""

    def __init__(
        self, state: AuditState, registry: Registry, fetcher: Fetcher, seen: Seen, notes: Notes
    ) -> None:
        self._state, self._served = state, Served(registry, fetcher)
        self._seen, self._notes = seen, notes
        self._said: dict[
            tuple[str, int], str
        ] = {}  # by role and version: SHA-256, from lists of changed bins

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
            BinsAudit(self._state, self._served, self._seen, self._notes, self._said).run()
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
        raw = self._served.find(name, _MAX_BYTES.get(role, BIN_MAX_BYTES))
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
        raw = self._served.find(f"changes/{sha256}", CHANGES_MAX_BYTES)
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
