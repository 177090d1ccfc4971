"""The timeline: what this machine has seen of a log, so that nobody can show it the past, or another past.

    {"fetched_at":1763800012,
     "largest":"example.com/registry\\n812\\n...",          the largest checkpoint seen, verbatim
     "newest_time":1763800010,                             the newest quorum time seen
     "timestamp":{"keys":["5c2f..."],"sha256":"9f86...","size":812,"version":44},
     "trust_sha256":"4d1a...","trust_since":1763800012,    the trust file that is in force here, and since when
     "trust_version":1,
     "v":1}

One timeline of heads, whatever door they came by. `check` refuses, before anything is written:

* *rollback*: a timestamp version below the last one, its checkpoint smaller than the last timestamp's, or
  smaller than the floor the trust file sets; a trust file older than the last one, whose log keys and
  witnesses may have been replaced for a reason;
* *equivocation*: the last timestamp's version with other bytes;
* *fork*: a checkpoint that is neither a prefix nor an extension of the largest one seen.

Each of these comes with evidence. That of a fork proves itself: two heads of one size, or a smaller one and the
proof that the larger one's prefix has another root. (Anybody can check both: evidence_check.py.)

`Timeline.save` is a compare-and-swap: it writes only over the very bytes it was loaded from. The file is trusted:
who can delete it makes this machine forget, and then the floor in the trust file and the witnesses are what is
left.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from countermark.digest import sha256
from countermark.disk import read_own, replace_file
from countermark.errors import EvidenceError, MalformedError, NetworkError, UsageError
from countermark.evidence import Evidence, EvidenceClass
from countermark.limits import LOCAL_FILE_MAX_BYTES, TRUST_OVERLAP
from countermark.tlog.checkpoint import Checkpoint, VerifiedCheckpoint
from countermark.tlog.note import Note, format_base64
from countermark.tufjson import canonical, load
from countermark.values import dataclass, replace

if TYPE_CHECKING:
    from countermark.logreader import LogReader, TreeReader


class InconsistentError(EvidenceError):
    """The registry contradicts what it showed this machine before; `evidence` holds both sides."""

    def __init__(self, message: str, evidence: Evidence) -> None:
        super().__init__(message)
        self.evidence = evidence


@dataclass(frozen=True)
class SeenTimestamp:
    """The last TUF timestamp: its version, the digest of its file, the size of the checkpoint in it.

    `keys` are the key IDs by which the root lets it be signed. After a root has replaced them, versions start anew:
    who stole the old key may have signed the largest version there is (fast-forward), and nobody could go on.
    """

    version: int
    sha256: str
    size: int
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Timeline:
    """What was seen, as of the bytes it was loaded from."""

    largest: bytes = b""
    timestamp: SeenTimestamp | None = None
    newest_time: int = 0
    fetched_at: int = 0
    trust_version: int = 0
    trust_sha256: str = ""
    trust_since: int = 0
    loaded: bytes | None = None

    @classmethod
    def load(cls, path: Path) -> Timeline:
        """The timeline in `path`; an empty one when there is none; UsageError when it is damaged."""
        raw = read_own(path, max_bytes=LOCAL_FILE_MAX_BYTES)
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
                timestamp=SeenTimestamp(
                    int(seen["version"]),
                    str(seen["sha256"]),
                    int(seen["size"]),
                    tuple(map(str, seen.get("keys", []))),
                )
                if seen
                else None,
                newest_time=int(document["newest_time"]),
                fetched_at=int(document["fetched_at"]),
                trust_version=int(document.get("trust_version", 0)),
                trust_sha256=str(document.get("trust_sha256", "")),
                trust_since=int(document.get("trust_since", 0)),
                loaded=raw,
            )
        except (ValueError, KeyError, TypeError, MalformedError) as error:
            raise UsageError(
                f'the timeline "{path}" is damaged: {error}',
                hint="restore it from a backup; deleting it makes this machine forget what it has seen",
            ) from None

    def save(self, path: Path) -> None:
        """Write this timeline over exactly the bytes it was loaded from; NetworkError when somebody was faster."""
        if read_own(path, max_bytes=LOCAL_FILE_MAX_BYTES) != self.loaded:
            raise NetworkError(f'"{path}" was changed by another process', hint="try again")
        seen = self.timestamp
        document = {
            "fetched_at": self.fetched_at,
            "largest": self.largest.decode(),
            "newest_time": self.newest_time,
            "timestamp": {
                "keys": list(seen.keys),
                "sha256": seen.sha256,
                "size": seen.size,
                "version": seen.version,
            }
            if seen
            else None,
            "trust_sha256": self.trust_sha256,
            "trust_since": self.trust_since,
            "trust_version": self.trust_version,
            "v": 1,
        }
        replace_file(path, json.dumps(document, sort_keys=True).encode())

    def check_timestamp(self, offered: SeenTimestamp, raw: bytes, cached: bytes, *, floor: int) -> None:
        """Refuse a timestamp that goes back, or that is another one under the last one's version."""
        last = self.timestamp
        self.check_floor(offered.size, raw, floor=floor)
        if last is None:
            return
        objects = {"timestamp-last": cached, "timestamp-offered": raw}
        renewed = bool(last.keys) and not set(last.keys) & set(offered.keys)
        if (offered.version < last.version and not renewed) or offered.size < last.size:
            sentence = (
                f"rollback: timestamp {offered.version} with a log of size {offered.size}, "
                f"seen before: timestamp {last.version} with size {last.size}"
            )
            raise InconsistentError(sentence, Evidence(EvidenceClass.OBSERVATION, [sentence], objects))
        if offered.version == last.version and not renewed and offered.sha256 != last.sha256:
            sentence = f"two timestamps of version {offered.version}: {last.sha256} and {offered.sha256}"
            # Signed twice by the timestamp key, it proves itself; the same content signed anew does not.
            whole = sha256(cached).hexdigest() == last.sha256 and _signed(cached) != _signed(raw)
            kind = EvidenceClass.SELF_PROVING if whole else EvidenceClass.OBSERVATION
            raise InconsistentError(sentence, Evidence(kind, [sentence], objects))

    def check_floor(self, size: int, raw: bytes, *, floor: int) -> None:
        """Refuse a checkpoint smaller than what the trust file says the log had already."""
        if size < floor:
            raise InconsistentError(
                f"rollback: the checkpoint's size {size} is below {floor}, the floor the trust file sets",
                Evidence(EvidenceClass.OBSERVATION, ["size below the signed floor"], {"timestamp": raw}),
            )

    def check_trust_file(self, version: int, raw: bytes, *, seen_at: int | None = None) -> None:
        """Refuse a trust file older than the last one, though the root may still list it.

        What is judged in its own time (a bundle, of which the quorum saw the head at `seen_at`) may carry the one
        that was in force then: before its successor came here, or in the overlap after that.
        """
        overlap = self.trust_since + int(TRUST_OVERLAP.total_seconds()) if self.trust_since else 0
        if version < self.trust_version and (seen_at is None or seen_at > overlap):
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
        if seen.origin != offered.origin or seen.size == offered.size:
            return self._check_equal(seen, offered)
        if seen.size > offered.size:
            # A smaller head is fine when it is a prefix of the largest; the tiles are read against the largest.
            self._check_prefix(log.against(seen), offered, offered.raw)
            return f"a prefix of the head of size {seen.size} seen before"
        proof = self._check_prefix(log, seen, offered.raw)
        return f"extends the head of size {seen.size} seen before ({len(proof)} hashes)"

    def check_same(self, carried: VerifiedCheckpoint, log: LogReader) -> None:
        """The checkpoint that a timestamp carries is a prefix of the log under this newer head, or it is a fork."""
        seen = replace(self, largest=carried.raw)
        seen.check_head(log)

    @property
    def size(self) -> int:
        """The size of the largest head seen; 0 where none was."""
        return Checkpoint.parse(Note.parse(self.largest).text).size if self.largest else 0

    def check_head_offline(self, offered: VerifiedCheckpoint) -> str:
        """The same where no tile can be read: a head of the size seen before must be that head."""
        if not self.largest:
            return "no head of this log was seen here before"
        seen = Checkpoint.parse(Note.parse(self.largest).text)
        if seen.origin != offered.origin or seen.size == offered.size:
            return self._check_equal(seen, offered)
        return f"not compared with the head of size {seen.size} seen before: offline"

    def _check_equal(self, seen: Checkpoint, offered: VerifiedCheckpoint) -> str:
        if seen.origin != offered.origin:
            sentence = f"the log's origin changed from {seen.origin} to {offered.origin}"
            raise InconsistentError(sentence, self._both(EvidenceClass.OBSERVATION, sentence, offered.raw))
        if seen.root_hash != offered.root_hash:
            sentence = _fork_words(seen.size, seen.root_hash, offered.root_hash)
            raise InconsistentError(sentence, self._both(EvidenceClass.SELF_PROVING, sentence, offered.raw))
        return f"the head of size {seen.size} seen before"

    def _check_prefix(self, larger: TreeReader, smaller: Checkpoint, offered: bytes) -> tuple[bytes, ...]:
        """Check that the smaller head is a prefix of the larger one's tree; returns the consistency proof.

        Tiles that were altered are a ProofError of their own, not a fork: here every hash led to the larger head.
        """
        actual = larger.root_at(smaller.size)
        proof = larger.prove_prefix(smaller.size)
        if actual != smaller.root_hash:
            seen_smaller = smaller.text() in self.largest.decode()
            roots = (smaller.root_hash, actual) if seen_smaller else (actual, smaller.root_hash)
            sentence = _fork_words(smaller.size, *roots)
            # The larger head, with a proof that its prefix has another root than the smaller head says.
            whole = {"consistency_proof": b"".join(proof), "prefix_root": actual}
            raise InconsistentError(
                sentence, self._both(EvidenceClass.SELF_PROVING, sentence, offered, **whole)
            )
        larger.check_prefix(smaller)
        return proof

    def _both(self, kind: EvidenceClass, sentence: str, offered: bytes, **objects: bytes) -> Evidence:
        objects = {"checkpoint-seen": self.largest, "checkpoint-offered": offered, **objects}
        return Evidence(kind, [sentence], {name.replace("_", "-"): raw for name, raw in objects.items()})

    def advanced(
        self, log: LogReader, timestamp: SeenTimestamp, *, trust_version: int, trust_sha256: str, now: int
    ) -> Timeline:
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
            trust_sha256=trust_sha256,
            trust_since=self.trust_since if trust_version == self.trust_version else now,
        )


def _signed(timestamp: bytes) -> bytes:
    """What its signature covers."""
    return canonical(load(timestamp, "timestamp"))


def _fork_words(size: int, seen: bytes, offered: bytes) -> str:
    return (
        f"fork: at size {size} the log's root was {format_base64(seen)}, "
        f"it is now said to be {format_base64(offered)}"
    )
