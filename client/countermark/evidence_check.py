"""Is a saved evidence file true? Checked anew from a trusted root, without network, and explained.

    found = check(*parse(raw), root)
    found.kind, found.proved        # the class it has, which is not always the class it claims
    found.sentences                 # three: what contradicts what, who signed it, whom it can convince

    the log demo.test/registry signed two histories: at size 9 its root hash is hP3w... in one checkpoint, and ...
    both are signed by all 2 keys of the log, and cosigned by w1: only who holds the log's keys and that of w1 ...
    it is self-proving: whoever trusts the root 'abandon ...' can repeat this check from this file alone, ...

Nothing in the file is believed because it is there. The keys come from the caller's pinned root: newer roots in
the file must follow from it, and the trust file must be one they accept. A file that claims to prove itself and
does not is refused with the reason. What a class means is in evidence.py; only a self-proving file is `proved`
here. A replayable one needs the log beside it (evidence_replay.py), an observation our word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from countermark.bundle import newest_root
from countermark.errors import CountermarkError, EvidenceError, MalformedError, PolicyError, ProofError
from countermark.evidence import Evidence, EvidenceClass
from countermark.limits import PROOF_MAX_HASHES
from countermark.tlog import merkle
from countermark.tlog.checkpoint import Checkpoint, LogCheckpoint, open_checkpoint, open_log_checkpoint
from countermark.tlog.merkle import HASH_SIZE
from countermark.tlog.note import format_base64
from countermark.tlog.policy import Policy
from countermark.trustfile import TrustFile
from countermark.tufjson import Root, canonical
from countermark.values import dataclass
from countermark.words import root_words

CHECKPOINTS = ("checkpoint-seen", "checkpoint-offered")
TIMESTAMPS = ("timestamp-last", "timestamp-offered")


@dataclass(frozen=True)
class Checked:
    """What a file shows to whoever trusts the root it was checked from."""

    kind: EvidenceClass
    claimed: EvidenceClass
    sentences: tuple[str, str, str]
    registry: str
    time: int
    replayed: int | None = None  # entries of the log that were read for it

    @property
    def proved(self) -> bool:
        """Whether the contradiction was proved here: from signatures alone, or with the log beside them."""
        return self.kind is EvidenceClass.SELF_PROVING or self.replayed is not None

    def to_json(self) -> dict[str, Any]:
        return {
            "claimed": self.claimed.value,
            "class": self.kind.value,
            "exit_code": 0,
            "proved": self.proved,
            "registry": self.registry,
            "replayed": self.replayed,
            "sentences": list(self.sentences),
            "time": self.time,
        }


def check(evidence: Evidence, time: int, pinned: Root) -> Checked:
    """Check a file from a pinned root; EvidenceError when it claims to prove itself and does not."""
    objects = evidence.objects
    root = newest_root(pinned, (), roots_of(objects))
    shown, kind = _contradiction(evidence, root), evidence.kind
    told = "; ".join(evidence.sentences) or "it says nothing"
    if shown is not None:
        third = (
            f"it is self-proving: whoever trusts the root {root_words(root.signed)!r} can repeat this check from "
            "this file alone, and nobody has to believe whoever saved it"
        )
        return Checked(EvidenceClass.SELF_PROVING, evidence.kind, (*shown, third), evidence.registry, time)
    signed = _signed_objects(objects, root)
    second = (
        f"of its {len(objects)} objects these are signed by the registry: {', '.join(signed) or 'none'}; "
        "that they contradict something is not in their signatures"
    )
    third = (
        "it is replayable: it convinces whoever also reads the log, which `--replay` does"
        if kind is EvidenceClass.REPLAYABLE
        else "it is an observation: it says what this machine was shown, which the server may deny, and convinces "
        "nobody else"
    )
    return Checked(kind, evidence.kind, (told, second, third), evidence.registry, time)


def _contradiction(evidence: Evidence, root: Root) -> tuple[str, str] | None:
    """The two signed objects that contradict each other, in two sentences; None when there are none."""
    objects = evidence.objects
    try:
        if set(CHECKPOINTS) <= objects.keys():
            return _fork(objects, root)
        if set(TIMESTAMPS) <= objects.keys():
            return _two_timestamps(objects, root)
        raise MalformedError("it claims to prove itself, and holds no two signed objects that could")
    except CountermarkError:
        if evidence.kind is EvidenceClass.SELF_PROVING:
            raise
        return None  # it never claimed to be more


def _fork(objects: Mapping[str, bytes], root: Root) -> tuple[str, str]:
    """Two checkpoints of one log that no single history has: signed by all its keys, and not consistent."""
    trust_file = trust_file_of(objects, root)
    checkpoints = [open_log_checkpoint(objects[name], trust_file.log_keys) for name in CHECKPOINTS]
    smaller, larger = sorted(checkpoints, key=lambda checkpoint: checkpoint.size)
    other = larger.root_hash if smaller.size == larger.size else _prefix_root(objects, smaller, larger)
    if smaller.root_hash == other:
        raise ProofError(f"both checkpoints have one history up to size {smaller.size}: this is no fork")
    where = "in the other" if smaller.size == larger.size else f"by the one of size {larger.size}"
    signed, holds = _whose_keys(checkpoints, trust_file)
    return (
        f"the log {smaller.origin} signed two histories: at size {smaller.size} its root hash is "
        f"{format_base64(smaller.root_hash)} in one checkpoint, and {format_base64(other)} {where}",
        f"{signed}: only who holds {holds} can make such a pair, its operator or a thief",
    )


def _whose_keys(checkpoints: Sequence[LogCheckpoint], trust_file: TrustFile) -> tuple[str, str]:
    """Who signed and cosigned two checkpoints; and whose keys that takes.

    A witness that follows its rules cosigns one history only. The keys of those who cosigned both were used against
    the rules, like the log's: the sentence accuses them, too, and nobody else.
    """
    signed = f"both are signed by all {len(trust_file.log_keys)} keys of the log"
    seen, offered = (_witnesses(checkpoint.raw, trust_file.policy) for checkpoint in checkpoints)
    both = ", ".join(sorted(seen & offered))
    whose = "those" if len(seen & offered) > 1 else "that"
    holds = f"the log's keys and {whose} of {both}" if both else "the log's keys"
    if seen == offered:
        return f"{signed}, and cosigned by {both or 'no quorum'}", holds
    one, other = (", ".join(sorted(names)) or "no quorum" for names in (seen, offered))
    return f"{signed}; the one seen first is cosigned by {one}, the one offered later by {other}", holds


def _prefix_root(objects: Mapping[str, bytes], smaller: Checkpoint, larger: Checkpoint) -> bytes:
    """The root the larger checkpoint's tree had at the smaller one's size, proved by the file."""
    raw, prefix_root = objects.get("consistency-proof"), objects.get("prefix-root")
    if raw is None or prefix_root is None:
        raise MalformedError(
            "two checkpoints of different sizes, and no proof of what the larger one's prefix is"
        )
    if len(raw) % HASH_SIZE or len(raw) > PROOF_MAX_HASHES * HASH_SIZE or len(prefix_root) != HASH_SIZE:
        raise MalformedError(f"a consistency proof of {len(raw)} bytes")
    merkle.check_consistency(
        tuple(raw[at : at + HASH_SIZE] for at in range(0, len(raw), HASH_SIZE)),
        old_size=smaller.size,
        old_root=prefix_root,
        new_size=larger.size,
        new_root=larger.root_hash,
    )
    return prefix_root


def _two_timestamps(objects: Mapping[str, bytes], root: Root) -> tuple[str, str]:
    """Two timestamps of one version with different content, both signed."""
    one, other = (root.open("timestamp", objects[name]) for name in TIMESTAMPS)
    if one["version"] != other["version"]:
        raise EvidenceError(
            f"timestamps of versions {one['version']} and {other['version']}: one may follow the other"
        )
    if canonical(one) == canonical(other):
        raise EvidenceError(f"both are timestamp {one['version']}, with the same content")
    different = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    return (
        f"two timestamps of version {one['version']} say different things of {', '.join(different)}",
        f"both are signed by the timestamp key that root version {root.version} names: whoever holds it showed one "
        "to some and the other to others",
    )


def _signed_objects(objects: Mapping[str, bytes], root: Root) -> list[str]:
    """The names of the objects that the registry or its log signed."""
    found = []
    for name, raw in sorted(objects.items()):
        try:
            if name.startswith("timestamp"):
                root.open("timestamp", raw)
            elif name.startswith("checkpoint"):
                open_log_checkpoint(raw, trust_file_of(objects, root).log_keys)
            else:
                continue
        except CountermarkError:
            continue
        found.append(name)
    return found


def trust_file_of(objects: Mapping[str, bytes], root: Root) -> TrustFile:
    """The trust file in the evidence, once the root accepts it."""
    if "trust-file" not in objects:
        raise MalformedError("it holds no trust file, which would name the log's keys")
    trust_file = TrustFile.parse(objects["trust-file"])
    if trust_file.digest not in root.trust_files:
        raise PolicyError(f"the trust file in it is not one that root version {root.version} accepts")
    return trust_file


def roots_of(objects: Mapping[str, bytes]) -> dict[int, bytes]:
    """Roots newer than the first, by version."""
    named = {name.removeprefix("root-"): raw for name, raw in objects.items() if name.startswith("root-")}
    return {int(version): raw for version, raw in named.items() if version.isascii() and version.isdecimal()}


def _witnesses(raw: bytes, policy: Policy) -> frozenset[str]:
    """Who cosigned, as far as it makes the quorum; nobody where it does not."""
    try:
        return frozenset(open_checkpoint(raw, policy, now=None).cosignatures)
    except CountermarkError:
        return frozenset()
