"""The offline bundle: all that proves one file, in one file of 10 to 20 kB, for a machine without network.

    {"bin":{"leaf":"bins-0a7 12 5ba1...c3 47DEQ...FuU=\\n","proof":["...","..."]},
     "entries":[{"entry":"{\\"envelope\\":...","index":5,"proof":["...","..."]},...],
     "format":"countermark-bundle/v1",
     "roots":[],
     "target":{"index":0,"path":"files/acme/acme-1.0.tar.gz","proof":[],"size":1,"target":{...}},
     "timestamp":"{\\"signatures\\":[...",
     "trust_file":"{\\"authority_key\\":..."}

(shown on several lines; the file is canonical JSON.) It holds the publish entry and the enrolments of the key
that signed it, each with its inclusion proof; the TUF timestamp, which carries the cosigned checkpoint those
proofs lead to; the target with its path in its bin, and the bin's path to the bins root in the timestamp; the
trust file, which names the log's keys and witnesses; and roots newer than the one its maker had pinned. Its
size grows with logarithms only: 4,096 bins add 12 hashes, a log of a million entries 20 for each entry.

`open_bundle` starts at a pinned root and nothing else. T is the quorum time of the checkpoint: the newest time
by which enough witnesses had seen it. Whether root, timestamp and trust file had expired is judged at T, so
that a bundle does not go bad in a drawer; how old T may be is for the verifier to say (offline.py).

Not in a bundle: the signatures of snapshot and bin. That a target is listed is the word of the timestamp key,
which signs only after it replayed the log; online, the bins key must agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from countermark.bins import BinLeaf, Target, TargetProof, bin_number, check_bin, check_target
from countermark.canonical import encode_canonical, parse_canonical
from countermark.errors import EvidenceError, MalformedError, PolicyError, StaleError
from countermark.limits import (
    BUNDLE_ENTRIES_MAX,
    COSIGNATURE_MAX_SKEW,
    OFFLINE_BUNDLE_MAX_BYTES,
    TIMESTAMP_LIFETIME,
    TIMESTAMP_MAX_BYTES,
)
from countermark.timestamp import Timestamp, check_spelling, open_carried
from countermark.tlog import proof
from countermark.tlog.checkpoint import VerifiedCheckpoint
from countermark.tlog.note import format_base64, parse_hash
from countermark.trustfile import TrustFile
from countermark.tufjson import ListedTarget, Root, load
from countermark.values import dataclass

FORMAT = "countermark-bundle/v1"
SUFFIX = ".countermark"


@dataclass(frozen=True)
class Logged:
    """An entry's bytes, and its inclusion proof in the tree of the timestamp's checkpoint."""

    index: int
    entry: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True)
class Bundle:
    """A bundle as somebody offers it: parsing proves nothing, `open_bundle` does."""

    path: str
    target: Target
    target_proof: TargetProof
    bin: BinLeaf
    bin_proof: tuple[bytes, ...]
    timestamp: bytes
    trust_file: bytes
    entries: tuple[Logged, ...]
    roots: tuple[bytes, ...] = ()

    def format(self) -> bytes:
        """The file's bytes."""
        return encode_canonical(self._document())

    def _document(self) -> dict[str, Any]:
        return {
            "bin": {"leaf": self.bin.format().decode(), "proof": _format_hashes(self.bin_proof)},
            "entries": format_entries(self.entries),
            "format": FORMAT,
            "roots": [root.decode() for root in self.roots],
            "target": {
                "index": self.target_proof.index,
                "path": self.path,
                "proof": _format_hashes(self.target_proof.hashes),
                "size": self.target_proof.size,
                "target": self.target,
            },
            "timestamp": self.timestamp.decode(),
            "trust_file": self.trust_file.decode(),
        }

    @classmethod
    def parse(cls, raw: bytes) -> Bundle:
        """The bundle in these bytes, in its one spelling."""
        document: Any = parse_canonical(raw, max_bytes=OFFLINE_BUNDLE_MAX_BYTES)
        try:
            target = document["target"]
            found = cls(
                path=_text(target["path"]),
                target=dict(target["target"]),
                target_proof=TargetProof(
                    _count(target["index"]), _count(target["size"]), _hashes(target["proof"])
                ),
                bin=BinLeaf.parse(document["bin"]["leaf"].encode()),
                bin_proof=_hashes(document["bin"]["proof"]),
                timestamp=document["timestamp"].encode(),
                trust_file=document["trust_file"].encode(),
                entries=parse_entries(document["entries"]),
                roots=tuple(root.encode() for root in document["roots"]),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise MalformedError(f"this is not a bundle: {error!r}") from None
        # `raw` is the one spelling of `document`, and its numbers are whole: equal is as good as spelled alike.
        if found._document() != document:
            raise MalformedError(
                "the bundle is of another version, or has members this program does not know"
            )
        return found


@dataclass(frozen=True)
class OpenedBundle:
    """What a bundle proved, from a pinned root. Made by `open_bundle` alone."""

    root: Root
    timestamp: Timestamp
    trust_file: TrustFile
    checkpoint: VerifiedCheckpoint
    target: ListedTarget
    entries: Mapping[int, bytes]

    @property
    def time(self) -> int:
        """T: the newest time by which the quorum had seen the checkpoint."""
        return self.checkpoint.quorum_time

    @property
    def log(self) -> OpenedBundle:
        """Itself, as the reader of the entries that came along."""
        return self

    def entry(self, index: int) -> bytes:
        """The bytes of one entry, proved to be in the checkpoint's tree."""
        if index not in self.entries:
            raise MalformedError(f"the bundle lacks entry #{index}, which its other entries rely on")
        return self.entries[index]


@dataclass(frozen=True)
class Moment:
    """What all bundles of one moment share, proved from a pinned root. Made by `open_moment` alone."""

    root: Root
    timestamp: Timestamp
    trust_file: TrustFile
    checkpoint: VerifiedCheckpoint


Moments = dict[
    tuple[bytes, bytes, tuple[bytes, ...]], Moment
]  # by the bytes of timestamp, trust file and roots


def open_bundle(
    bundle: Bundle,
    root: Root,
    *,
    now: int,
    known_roots: Mapping[int, bytes] | None = None,
    followed: str = "",
    moments: Moments | None = None,
) -> OpenedBundle:
    """Verify a bundle from a pinned root; `known_roots` are newer ones this machine has seen, by version;
    `followed` is the SHA-256 of the trust file that its own walk led to (trustwalk.py).

    `now` only bounds times that lie in the future; how old the bundle may be is not judged here. Whoever opens many
    at once gives `moments`, empty at first and never used with another root or time: what bundles share to the byte
    is verified once.
    """
    shared = (bundle.timestamp, bundle.trust_file, bundle.roots)
    moment = None if moments is None else moments.get(shared)
    if moment is None:
        moment = open_moment(bundle, root, now=now, known_roots=known_roots, followed=followed)
        if moments is not None:
            moments[shared] = moment
    timestamp = moment.timestamp
    # (4) The target is in its bin, and the bin under the timestamp's bins root. Against an unlisted file.
    number = bin_number(bundle.path, timestamp.bit_length)
    check_bin(
        bundle.bin,
        index=number,
        bit_length=timestamp.bit_length,
        proof=bundle.bin_proof,
        root=timestamp.bins_root,
    )
    check_target(bundle.path, bundle.target, bundle.target_proof, bundle.bin)
    target = ListedTarget.parse(bundle.path, bundle.bin.role, bundle.target)
    # (5) Every entry is in the checkpoint's tree. Against a file, or a key, that nobody logged.
    entries = check_entries(bundle.entries, moment.checkpoint)
    return OpenedBundle(moment.root, timestamp, moment.trust_file, moment.checkpoint, target, entries)


def open_moment(
    bundle: Bundle,
    root: Root,
    *,
    now: int,
    known_roots: Mapping[int, bytes] | None = None,
    followed: str = "",
) -> Moment:
    """The first three steps of `open_bundle`: nothing in them is about the file."""
    # (1) The newest root that this machine or the bundle knows signed the timestamp. Against a retired key.
    root = newest_root(root, bundle.roots, known_roots or {})
    if len(bundle.timestamp) > TIMESTAMP_MAX_BYTES:
        raise MalformedError(f"a timestamp of {len(bundle.timestamp)} bytes")
    _check_meta(root.open("timestamp", bundle.timestamp))
    check_spelling(bundle.timestamp, root)
    timestamp = Timestamp.parse(bundle.timestamp)
    # (2) The root accepts the trust file. Against another log, or other witnesses.
    trust_file = accepted_trust_file(bundle.trust_file, root, followed)
    # (3) Every log key and the quorum signed the checkpoint that the timestamp carries. Against a private log.
    checkpoint = open_carried(timestamp, trust_file, now=now)
    _check_times(root, timestamp, trust_file, checkpoint.quorum_time, now)
    return Moment(root, timestamp, trust_file, checkpoint)


def format_entries(entries: Sequence[Logged]) -> list[dict[str, Any]]:
    """Entries and their proofs, as a bundle holds them."""
    return [
        {"entry": each.entry.decode(), "index": each.index, "proof": _format_hashes(each.proof)}
        for each in entries
    ]


def parse_entries(values: Any) -> tuple[Logged, ...]:
    """The same read back; what is not of that form leaks KeyError, TypeError, AttributeError or ValueError."""
    entries = tuple(
        Logged(_count(each["index"]), each["entry"].encode(), _hashes(each["proof"])) for each in values
    )
    indices = [each.index for each in entries]
    if indices != sorted(set(indices)) or len(indices) > BUNDLE_ENTRIES_MAX:
        raise MalformedError(f"a bundle holds up to {BUNDLE_ENTRIES_MAX} entries, in order, each once")
    return entries


def check_entries(entries: Sequence[Logged], checkpoint: VerifiedCheckpoint) -> dict[int, bytes]:
    """Every entry is in the checkpoint's tree; their bytes, by index."""
    for each in entries:
        proof.check(each.entry, proof.TlogProof(each.index, each.proof, checkpoint.raw), checkpoint)
    return {each.index: each.entry for each in entries}


def accepted_trust_file(raw: bytes, root: Root, followed: str = "") -> TrustFile:
    """The trust file in these bytes, if the root accepts it or this machine's own walk led to it."""
    trust_file = TrustFile.parse(raw)
    if trust_file.digest not in (*root.trust_files, followed):
        raise PolicyError(
            f"the trust file {trust_file.digest[:16]} is not one root {root.version} accepts",
            hint="verify online once, so that this machine follows the newer trust file",
        )
    return trust_file


def newest_root(pinned: Root, offered: Sequence[bytes], known: Mapping[int, bytes]) -> Root:
    """Follow roots from the pinned one, each signed by its predecessor, as far as they lead.

    An offered root that does not follow is refused. `known` is this machine's cache, which anybody could have
    damaged: what does not follow there is not there.
    """
    by_version = {load(raw, "root")["version"]: raw for raw in offered}
    root = pinned
    while True:
        version = root.version + 1
        if version in by_version:
            root = root.next(by_version[version])
        elif version in known:
            try:
                root = root.next(known[version])
            except EvidenceError:
                break
        else:
            break
    if by_version and max(by_version) > root.version:
        raise PolicyError(
            f"the bundle's roots go to version {max(by_version)}, and none leads there from version {root.version}",
            hint="verify online once, so that this machine learns the newer root",
        )
    return root


def check_trust_times(root: Root, trust_file: TrustFile, time: int) -> None:
    """Root and trust file were good at T."""
    if time >= root.expires:
        raise StaleError(f"root version {root.version} had expired when the quorum saw the checkpoint")
    if not trust_file.valid_at(time):
        raise StaleError(f"the trust file of version {trust_file.version} was not in force at {time}")


def _check_times(root: Root, timestamp: Timestamp, trust_file: TrustFile, time: int, now: int) -> None:
    """What expires must have been good at T; and no timestamp is good for longer than they are signed for."""
    check_trust_times(root, trust_file, time)
    if time >= timestamp.expires:
        raise StaleError(f"timestamp {timestamp.version} had expired when the quorum saw the checkpoint")
    if timestamp.expires - TIMESTAMP_LIFETIME.total_seconds() > now + COSIGNATURE_MAX_SKEW.total_seconds():
        raise StaleError(
            f"the timestamp expires in {timestamp.expires - now} s, and none is signed for so long",
            hint="its key signed it too long, or this machine's clock is behind: compare it with another one",
        )


def _check_meta(signed: Mapping[str, Any]) -> None:
    """A timestamp names one snapshot, as TUF's own client demands."""
    try:
        version = signed["meta"]["snapshot.json"]["version"]
    except (KeyError, TypeError) as error:
        raise MalformedError(f"the timestamp names no snapshot: {error!r}") from None
    if type(version) is not int or version < 1:
        raise MalformedError(f"the timestamp names snapshot version {version!r}")


def _format_hashes(hashes: Sequence[bytes]) -> list[str]:
    return [format_base64(hash) for hash in hashes]


def _hashes(values: Sequence[str]) -> tuple[bytes, ...]:
    return tuple(parse_hash(value) for value in values)


def _count(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is no number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
