"""Matching: do a file, the target that lists it and the entry that logs it say the same?

    check_target(proved, artifact, target)          # bytes and length are the target's
    entry = entry_of(proved, artifact, target)      # the publish the target names says the same of the file

Steps 3 and 4 of verify.py, and of offline.py for bundles: one function each, so that online and offline a file
is held to the same. Where two sides disagree the error carries both, with the index that names the entry.
"""

from __future__ import annotations

from typing import Protocol

from countermark.entry import Entry
from countermark.names import normalise_filename, normalise_version
from countermark.signature import Proved
from countermark.timestamp import Timestamp
from countermark.tlog import merkle
from countermark.tufjson import ListedTarget
from countermark.verified import Artifact, TamperedError


class Listing(Proved, Protocol):
    """And of its index, by the word of the timestamp key."""

    @property
    def timestamp(self) -> Timestamp: ...


def check_target(view: Listing, artifact: Artifact, target: ListedTarget) -> None:
    """The file is the target: length and hash."""
    if target.sha256 != artifact.sha256:
        raise TamperedError(
            f"{artifact.filename} is sha256:{artifact.sha256}, "
            f"entry #{target.index} of {view.checkpoint.origin} says sha256:{target.sha256}",
            timestamp=view.timestamp.raw,
            claimed=artifact.sha256.encode(),
            listed=target.sha256.encode(),
        )
    if artifact.length is not None and artifact.length != target.length:
        raise TamperedError(
            f"{artifact.filename} has {artifact.length} bytes, its target says {target.length}"
        )


def entry_of(view: Listing, artifact: Artifact, target: ListedTarget) -> Entry:
    """The publish entry a target names; it must say what the target and the artifact say."""
    raw = view.log.entry(target.index)
    found = merkle.leaf_hash(raw).hex()
    if found != target.leaf_hash:
        raise TamperedError(
            f"{artifact.filename}: its target names leaf {target.leaf_hash}, entry #{target.index} is {found}",
            entry=raw,
            timestamp=view.timestamp.raw,
        )
    entry = Entry.parse(raw)
    if entry.imported is not None:
        return _imported_entry(view, entry, artifact, target)
    statement = entry.statement
    if entry.type != "publish" or statement is None:
        raise TamperedError(
            f"{artifact.filename}: entry #{target.index} is a {entry.type}, not its publish", entry=raw
        )
    predicate = statement.predicate
    said = (
        predicate["origin"],
        predicate["namespace"],
        predicate["project"],
        normalise_filename(statement.subject_name),
        statement.subject_sha256,
        predicate["length"],
    )
    listed = (
        view.checkpoint.origin,
        artifact.namespace,  # what is asked for by its bare name is in the default one
        artifact.project,
        normalise_filename(artifact.filename),
        target.sha256,
        target.length,
    )
    if said != listed:
        raise TamperedError(
            f"{artifact.filename}: entry #{target.index} says {said}, the index {listed}", entry=raw
        )
    if not _same_version(predicate["version"], artifact.version):
        raise TamperedError(
            f"{artifact.filename}: entry #{target.index} is version {predicate['version']}, "
            f"{artifact.version} was asked for",
            entry=raw,
        )
    return entry


def _imported_entry(view: Proved, entry: Entry, artifact: Artifact, target: ListedTarget) -> Entry:
    """The same of a file that an import brought in: its entry's own words, in place of a statement's."""
    imported = entry.imported
    assert imported is not None
    line = imported.line
    if imported.passed is not None:
        raise TamperedError(
            f"{artifact.filename}: entry #{target.index} is a line that published nothing ({imported.passed})",
            entry=entry.raw,
        )
    said = ("", line.project, line.name.normalised, line.sha256, line.length)
    name = normalise_filename(artifact.filename)
    listed = (artifact.namespace, artifact.project, name, target.sha256, target.length)
    if said != listed or not _same_version(line.version, artifact.version):
        raise TamperedError(
            f"{artifact.filename}: entry #{target.index} says {said}, the index {listed}", entry=entry.raw
        )
    return entry


def _same_version(one: str, other: str) -> bool:
    return normalise_version(one, strip_zeros=True) == normalise_version(other, strip_zeros=True)
