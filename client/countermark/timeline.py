"""The timeline: what this machine has seen of a log, so that nobody can show it the past, or another past.

    {"fetched_at":1763800012,
     "largest":"example.com/registry\\n812\\n...",          the largest checkpoint seen, verbatim
     "newest_time":1763800010,                             the newest quorum time seen
     "timestamp":{"sha256":"9f86...","size":812,"version":44},
     "trust_version":1,                                    the trust file's
     "v":1}

One timeline of heads, whatever door they came by. `check` refuses, before anything is written:

* *rollback*: a timestamp version below the last one, its checkpoint smaller than the last timestamp's, or
  smaller than the floor the trust file sets; a trust file older than the last one, whose log keys and
  witnesses may have been replaced for a reason;
* *equivocation*: the last timestamp's version with other bytes;
* *fork*: a checkpoint that is neither a prefix nor an extension of the largest one seen.

Each of these comes with evidence. `Timeline.save` is a compare-and-swap: it writes only over the very bytes
it was loaded from. The file is trusted: who can delete it makes this machine forget, and then the floor in
the trust file and the witnesses are what is left.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from countermark.disk import read_file, replace_file
from countermark.errors import EvidenceError, MalformedError, NetworkError, ProofError, UsageError
from countermark.evidence import Evidence, EvidenceClass
from countermark.limits import LOCAL_FILE_MAX_BYTES
from countermark.logreader import LogReader
from countermark.tlog.checkpoint import Checkpoint
from countermark.tlog.note import Note, format_base64


class InconsistentError(EvidenceError):
    """The registry contradicts what it showed this machine before; `evidence` holds both sides."""

    def __init__(self, message: str, evidence: Evidence) -> None:
        super().__init__(message)
        self.evidence = evidence


@dataclass(frozen=True)
class SeenTimestamp:
    """The last TUF timestamp: its version, the digest of its file, the size of the checkpoint in it."""

    version: int
    sha256: str
    size: int


@dataclass(frozen=True)
class Timeline:
    """What was seen, as of the bytes it was loaded from."""

    largest: bytes = b""
    timestamp: SeenTimestamp | None = None
    newest_time: int = 0
    fetched_at: int = 0
    trust_version: int = 0
    loaded: bytes | None = None

    @classmethod
    def load(cls, path: Path) -> Timeline:
        """The timeline in `path`; an empty one when there is none; UsageError when it is damaged."""
        raw = read_file(path, max_bytes=LOCAL_FILE_MAX_BYTES)
        if raw is None:
            return cls()
        try:
            document = json.loads(raw)
            if document["v"] != 1:
                raise ValueError("version")
            seen = document["timestamp"]
            largest = str(document["largest"]).encode()
            if largest:
                Checkpoint.parse(Note.parse(largest).text)
            return cls(
                largest=largest,
                timestamp=SeenTimestamp(int(seen["version"]), str(seen["sha256"]), int(seen["size"]))
                if seen
                else None,
                newest_time=int(document["newest_time"]),
                fetched_at=int(document["fetched_at"]),
                trust_version=int(document.get("trust_version", 0)),
                loaded=raw,
            )
        except (ValueError, KeyError, TypeError, MalformedError) as error:
            raise UsageError(
                f'the timeline "{path}" is damaged: {error}',
                hint="restore it from a backup; deleting it makes this machine forget what it has seen",
            ) from None

    def save(self, path: Path) -> None:
        """Write this timeline over exactly the bytes it was loaded from; NetworkError when somebody was faster."""
        if read_file(path, max_bytes=LOCAL_FILE_MAX_BYTES) != self.loaded:
            raise NetworkError(f'"{path}" was changed by another process', hint="try again")
        seen = self.timestamp
        document = {
            "fetched_at": self.fetched_at,
            "largest": self.largest.decode(),
            "newest_time": self.newest_time,
            "timestamp": {"sha256": seen.sha256, "size": seen.size, "version": seen.version}
            if seen
            else None,
            "trust_version": self.trust_version,
            "v": 1,
        }
        replace_file(path, json.dumps(document, sort_keys=True).encode())

    def check_timestamp(self, offered: SeenTimestamp, raw: bytes, cached: bytes, *, floor: int) -> None:
        """Refuse a timestamp that goes back, or that is another one under the last one's version."""
        last = self.timestamp
        if offered.size < floor:
            raise InconsistentError(
                f"rollback: the checkpoint's size {offered.size} is below {floor}, the floor the trust file sets",
                Evidence(EvidenceClass.OBSERVATION, ["size below the signed floor"], {"timestamp": raw}),
            )
        if last is None:
            return
        objects = {"timestamp-last": cached, "timestamp-offered": raw}
        if offered.version < last.version or offered.size < last.size:
            sentence = (
                f"rollback: timestamp {offered.version} with a log of size {offered.size}, "
                f"seen before: timestamp {last.version} with size {last.size}"
            )
            raise InconsistentError(sentence, Evidence(EvidenceClass.OBSERVATION, [sentence], objects))
        if offered.version == last.version and offered.sha256 != last.sha256:
            sentence = f"two timestamps of version {offered.version}: {last.sha256} and {offered.sha256}"
            raise InconsistentError(sentence, Evidence(EvidenceClass.SELF_PROVING, [sentence], objects))

    def check_trust_file(self, version: int, raw: bytes) -> None:
        """Refuse a trust file older than the last one, though the root may still list it."""
        if version < self.trust_version:
            sentence = f"rollback: trust file version {version}, seen before: version {self.trust_version}"
            raise InconsistentError(
                sentence, Evidence(EvidenceClass.OBSERVATION, [sentence], {"trust-file": raw})
            )

    def check_head(self, log: LogReader) -> str:
        """Check the reader's checkpoint against the largest head seen; returns how they relate, in words."""
        if not self.largest:
            return "first head seen of this log"
        seen = Checkpoint.parse(Note.parse(self.largest).text)
        offered = log.checkpoint
        if seen.origin != offered.origin:
            sentence = f"the log's origin changed from {seen.origin} to {offered.origin}"
            raise InconsistentError(sentence, self._fork(sentence, offered.raw, ()))
        if seen.size > offered.size:
            return self._check_smaller(seen, log)
        if seen.size == offered.size:
            if seen.root_hash != offered.root_hash:
                sentence = _fork_words(seen.size, seen.root_hash, offered.root_hash)
                raise InconsistentError(sentence, self._fork(sentence, offered.raw, ()))
            return f"the head of size {seen.size} seen before"
        actual = log.root_at(seen.size)  # a tile that was altered is a ProofError of its own, not a fork
        try:
            proof = log.check_prefix(seen)
        except ProofError:
            sentence = _fork_words(seen.size, seen.root_hash, actual)
            raise InconsistentError(sentence, self._fork(sentence, offered.raw, ())) from None
        return f"extends the head of size {seen.size} seen before ({len(proof)} hashes)"

    def _check_smaller(self, seen: Checkpoint, log: LogReader) -> str:
        """A smaller head is fine when it is a prefix of the largest; the tiles are read against the largest."""
        larger = log.against(seen)
        try:
            larger.check_prefix(log.checkpoint)
        except ProofError:
            sentence = _fork_words(
                log.checkpoint.size, larger.root_at(log.checkpoint.size), log.checkpoint.root_hash
            )
            raise InconsistentError(sentence, self._fork(sentence, log.checkpoint.raw, ())) from None
        return f"a prefix of the head of size {seen.size} seen before"

    def _fork(self, sentence: str, offered: bytes, proof: tuple[bytes, ...]) -> Evidence:
        objects = {"checkpoint-seen": self.largest, "checkpoint-offered": offered}
        objects |= {f"proof-{number}": hash for number, hash in enumerate(proof)}
        return Evidence(EvidenceClass.SELF_PROVING, [sentence], objects)

    def advanced(self, log: LogReader, timestamp: SeenTimestamp, *, trust_version: int, now: int) -> Timeline:
        """This timeline after one more successful look."""
        checkpoint = log.checkpoint
        size = Checkpoint.parse(Note.parse(self.largest).text).size if self.largest else -1
        return replace(
            self,
            largest=checkpoint.raw if checkpoint.size > size else self.largest,
            timestamp=timestamp,
            newest_time=max(self.newest_time, checkpoint.quorum_time),
            fetched_at=now,
            trust_version=trust_version,
        )


def _fork_words(size: int, seen: bytes, offered: bytes) -> str:
    return (
        f"fork: at size {size} the log's root was {format_base64(seen)}, "
        f"it is now said to be {format_base64(offered)}"
    )
