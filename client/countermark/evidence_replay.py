"""Replayable evidence, checked: the log is read up to the evidence's checkpoint and every entry is judged anew.

    found = check_by_replay(evidence, time, root, fetcher=HttpFetcher(), log="https://registry.example/log")
    found.replayed, found.sentences

    entry 14 of the log demo.test/registry breaks a rule: signature-false: ...
    the log's keys and its quorum signed the checkpoint of size 15 in this file, and the 15 entries read lead to it
    it is replayable: whoever trusts the root 'abandon ...' and reads the same log comes to the same end

What such a file can hold, and what the replay holds against it:

    entry-<index>, checkpoint         the entry breaks a rule, or is stamped ahead of the quorum that saw it
    timestamp                         what it says of snapshot, `applied`, bins root is not what its `tuf` entry says;
                                      or a withdrawal was older than 15 minutes in the very checkpoint it carries, and
                                      not applied
    timestamp, bin, bin-leaf,         the bin under the signed bins root is not the listing after `applied` entries
    bin-proof

Every object is judged by keys that the pinned root names, every entry led to a checkpoint that the quorum signed,
so it does not matter who serves the log: the registry, a mirror, or a folder with a copy of it (`FolderFetcher`). A
log that no longer leads to the signed checkpoint is a finding of its own.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from countermark import rules
from countermark.bins import BinLeaf, check_bin, targets_root
from countermark.bundle import newest_root
from countermark.entry import Entry
from countermark.errors import EvidenceError, MalformedError, NetworkError
from countermark.evidence import Evidence, EvidenceClass
from countermark.evidence_check import Checked, roots_of, trust_file_of
from countermark.fetch import Fetcher
from countermark.limits import FETCH_MAX_BYTES, LEAF_TIME_MAX_LEAD, PROOF_MAX_HASHES, STATUS_APPLIED_WITHIN
from countermark.listing import STATUS_TYPES, Target, bin_index, target_of
from countermark.logreader import LogReader
from countermark.replay import DictView, Finding, replay
from countermark.timestamp import Timestamp, check_spelling, open_carried
from countermark.tlog.checkpoint import VerifiedCheckpoint, open_checkpoint
from countermark.tlog.merkle import HASH_SIZE
from countermark.tlog.tile import WIDTH
from countermark.trustfile import TrustFile
from countermark.tufjson import Root, load
from countermark.values import dataclass, field
from countermark.words import root_words

CHUNK = WIDTH * WIDTH  # entries read by one reader: it remembers every tile it has read
_ENTRY = re.compile(r"entry-(0|[1-9][0-9]{0,15})")


class FolderFetcher:
    """A copy of a log in a folder, read the way a server's is."""

    def get(
        self,
        url: str,
        *,
        max_bytes: int = FETCH_MAX_BYTES,
        missing_ok: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> bytes | None:
        try:
            with Path(url).open("rb") as file:
                raw = file.read(max_bytes + 1)
        except FileNotFoundError:
            if missing_ok:
                return None
            raise NetworkError(f'the copy of the log has no "{url}"') from None
        except OSError as error:
            raise NetworkError(f'cannot read "{url}": {error.strerror}') from None
        if len(raw) > max_bytes:
            raise NetworkError(f'"{url}" is longer than the {max_bytes} bytes allowed for it')
        return raw

    def post(self, url: str, body: bytes, **_: Any) -> Any:
        raise NetworkError(f'"{url}" is a folder')


@dataclass(frozen=True)
class _Claim:
    """What a file holds, once its signatures are checked; nothing of it is held against the log yet."""

    checkpoint: VerifiedCheckpoint
    timestamp: Timestamp | None
    snapshot: Mapping[str, Any]
    bin: tuple[int, dict[str, Any]] | None  # number, and targets
    entry: tuple[int, bytes] | None


@dataclass
class _Log:
    """What the log says that a claim can contradict."""

    entry: bytes | None = None
    broken: str | None = None
    statuses: list[tuple[int, str, int]] = field(default_factory=list)
    tuf: tuple[int, Mapping[str, Any]] | None = None
    snapshot: Mapping[str, Any] = field(default_factory=dict)
    listing: dict[str, Target] = field(default_factory=dict)


def check_by_replay(evidence: Evidence, time: int, pinned: Root, *, fetcher: Fetcher, log: str) -> Checked:
    """Replay the log that the file is about; EvidenceError when nothing in the file contradicts it."""
    root = newest_root(pinned, (), roots_of(evidence.objects))
    trust_file = trust_file_of(evidence.objects, root)
    claim = _claim(evidence.objects, root, trust_file)
    said = _replayed(claim, trust_file, fetcher, log)
    shown = _contradiction(claim, said)
    checkpoint = claim.checkpoint
    if shown is None:
        raise EvidenceError(
            f"{checkpoint.size} entries of {checkpoint.origin} were replayed, and none of them contradicts this file"
        )
    witnesses = ", ".join(sorted(checkpoint.cosignatures)) or "nobody"
    second = (
        f"the log's keys and its quorum ({witnesses}) signed the checkpoint of size {checkpoint.size} in this file, "
        f"and the {checkpoint.size} entries read lead to it"
    )
    third = (
        f"it is replayable: whoever trusts the root {root_words(root.signed)!r} and reads the same log comes to the "
        "same end, and nobody has to believe whoever saved it"
    )
    return Checked(
        EvidenceClass.REPLAYABLE,
        evidence.kind,
        (shown, second, third),
        evidence.registry,
        time,
        replayed=checkpoint.size,
    )


def _claim(objects: Mapping[str, bytes], root: Root, trust_file: TrustFile) -> _Claim:
    """The signed objects of a file; a claim without any is none."""
    entries = [(int(match[1]), raw) for name, raw in objects.items() if (match := _ENTRY.fullmatch(name))]
    if entries:
        if "checkpoint" not in objects:
            raise MalformedError("it holds an entry, and no checkpoint of a log that holds it")
        checkpoint = open_checkpoint(objects["checkpoint"], trust_file.policy, now=None)
        if not 0 <= entries[0][0] < checkpoint.size:
            raise MalformedError(f"entry {entries[0][0]} is not in a log of size {checkpoint.size}")
        return _Claim(checkpoint, None, {}, None, entries[0])
    if "timestamp" not in objects:
        raise MalformedError("it holds no signed object that a log could contradict")
    raw = objects["timestamp"]
    signed = root.open("timestamp", raw)
    check_spelling(raw, root)
    timestamp = Timestamp.parse(raw)
    try:
        meta = signed["meta"]["snapshot.json"]
        snapshot = {"length": meta["length"], "sha256": meta["hashes"]["sha256"], "version": meta["version"]}
    except (KeyError, TypeError):
        snapshot = {}
    checkpoint = open_carried(timestamp, trust_file, now=2**53)
    return _Claim(checkpoint, timestamp, snapshot, _bin(objects, timestamp), None)


def _bin(objects: Mapping[str, bytes], timestamp: Timestamp) -> tuple[int, dict[str, Any]] | None:
    """The number and targets of the bin in the file, once the signed bins root commits to it."""
    if not {"bin", "bin-leaf", "bin-proof"} <= objects.keys():
        return None
    raw, proof = objects["bin"], objects["bin-proof"]
    if len(proof) % HASH_SIZE or len(proof) > PROOF_MAX_HASHES * HASH_SIZE:
        raise MalformedError(f"a proof of {len(proof)} bytes")
    leaf = BinLeaf.parse(objects["bin-leaf"])
    try:
        targets = dict(load(raw, "targets")["targets"])
        number = int(leaf.role.rpartition("-")[2], 16)
        found = (hashlib.sha256(raw).hexdigest(), targets_root(targets))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MalformedError(f"the bin in it is malformed: {error!r}") from None
    if found != (leaf.sha256, leaf.targets_root):
        raise EvidenceError("the bin in it is not the one that its line in the bins tree names")
    hashes = tuple(proof[at : at + HASH_SIZE] for at in range(0, len(proof), HASH_SIZE))
    check_bin(leaf, index=number, bit_length=timestamp.bit_length, proof=hashes, root=timestamp.bins_root)
    return number, targets


def _replayed(claim: _Claim, trust_file: TrustFile, fetcher: Fetcher, url: str) -> _Log:
    """The whole log up to the claim's checkpoint, through the rules."""
    said, view = _Log(), DictView()
    view.apply(rules.genesis(origin=trust_file.origin, authority_key=trust_file.authority_key))
    index_of_entry = -1 if claim.entry is None else claim.entry[0]
    applied = 0 if claim.timestamp is None else claim.timestamp.applied
    limit = claim.checkpoint.quorum_time + int(LEAF_TIME_MAX_LEAD.total_seconds())

    def on_finding(found: Finding) -> None:
        if found.index == index_of_entry:
            broken = found.broken
            said.broken = f"breaks a rule: {broken.code}: {broken.message} (at fault: the {broken.party})"

    def on_changes(index: int, entry: Entry, changes: rules.Changes) -> None:
        if index == index_of_entry and entry.time > limit:
            seen = claim.checkpoint.quorum_time
            said.broken = f"is stamped {entry.time}, and the quorum saw the log at {seen}"
        if index < applied:
            for path, target in (target_of(view, key) for key in rules.touched_files(view, changes)):
                if target is None:
                    said.listing.pop(path, None)
                else:
                    said.listing[path] = target
        elif entry.type in STATUS_TYPES:
            said.statuses.append((index, entry.type, entry.time))
        if entry.type == "tuf" and entry.statement is not None:
            said.tuf = (index, entry.statement.predicate)
            said.snapshot = entry.statement.predicate["snapshot"] or said.snapshot

    def leaves() -> Iterator[bytes]:
        for index, raw in _entries(claim.checkpoint, fetcher, url):
            if index == index_of_entry:
                said.entry = raw
            yield raw

    replay(leaves(), view, on_finding=on_finding, on_changes=on_changes)
    return said


def _entries(checkpoint: VerifiedCheckpoint, fetcher: Fetcher, url: str) -> Iterator[tuple[int, bytes]]:
    """Every entry of the tree, each led to its root hash, with the tiles of one stretch in memory."""
    for start in range(0, checkpoint.size, CHUNK):
        reader = LogReader(url, checkpoint, fetcher)
        yield from reader.entries(start, min(checkpoint.size, start + CHUNK))


def _contradiction(claim: _Claim, said: _Log) -> str | None:
    """What in the file the log contradicts, in a sentence."""
    origin = claim.checkpoint.origin
    if claim.entry is not None:
        index, raw = claim.entry
        if said.entry != raw:
            raise EvidenceError(f"entry {index} of {origin} is not the entry in this file")
        return None if said.broken is None else f"entry {index} of the log {origin} {said.broken}"
    timestamp = claim.timestamp
    assert timestamp is not None
    name = f"timestamp {timestamp.version} of {origin}"
    if said.tuf is not None:
        index, predicate = said.tuf
        pairs = {
            "the snapshot": (dict(claim.snapshot), dict(said.snapshot)),
            "applied": (timestamp.applied, predicate["applied"]),
            "the bins root": (timestamp.bins_root.hex(), predicate["bins_new"]),
        }
        for what, (signed, logged) in pairs.items():
            if signed != logged:
                return f"{name} says that {what} is {signed}, entry {index} says {logged}"
    if claim.bin is not None:
        number, held = claim.bin
        wanted = {p: t for p, t in said.listing.items() if bin_index(p, timestamp.bit_length) == number}
        for path in sorted({*held, *wanted}):
            if held.get(path) != wanted.get(path):
                return (
                    f"{name} signs a bin that says {_told(held.get(path))} of {path}, the log's first "
                    f"{timestamp.applied} entries demand {_told(wanted.get(path))}"
                )
    patience, quorum_time = int(STATUS_APPLIED_WITHIN.total_seconds()), claim.checkpoint.quorum_time
    for index, kind, at in said.statuses:
        if quorum_time - at > patience:
            return (
                f"{name} applies {timestamp.applied} entries of the checkpoint it carries, in which entry {index} "
                f"({kind}) was {quorum_time - at} s old: {patience} s are allowed"
            )
    return None


def _told(target: Target | None) -> str:
    return "that it is not listed" if target is None else json.dumps(target, sort_keys=True)
