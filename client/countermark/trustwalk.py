"""The trust-file walk: from a trust file this machine believes to the one the registry lists now.

    followed = Walk(registry.metadata_url, fetcher, timestamp, now).follow(listed, start, delegator)
    followed.trust_file                 # version N, or N + 1 and so on, as far as the proofs lead
    followed.waiting                    # "trust file 3 is announced, and counts here from ..."

A root lists the first trust file and emergencies; those count at once. Any other is followed one version at a
time, each step by a file under `tuf/trust/<version>.step.json`:

    {"entry":"{\\"envelope\\":...","format":"countermark-trust-step/v1","metadata":"{\\"signatures\\":...",
     "proof":"c2sp.org/tlog-proof@v1\\nindex 812\\n..."}

(one line of canonical JSON): the `trust` role's metadata that first listed the version, the `tuf` entry of the log
that names this metadata, and the tlog-proof of that entry. Step N to N + 1 holds when

    (1) the trust role's threshold signed the metadata      against one thief of a key
    (2) it lists a trust file of version N + 1, same origin against a skipped version, another registry
    (3) the entry names the metadata's SHA-256              against a change that nobody could have seen
    (4) the entry is under a checkpoint that version N's log keys and quorum signed
    (5) and did so 24 h ago or more, by the quorum's time and by ours: time in which monitors cry out
    (6) nothing shrinks: not the quorum, not the kinds of log keys, not the floor. That takes a root

Before (5) is true the predecessor stays in force, which the overlap of 7 days is for. Who sleeps through all of it
can't know that the day is over, since only the successor's quorum says so: then a root must list the trust file. A
step that is false is an error; a registry that shows none for an unlisted trust file is refused, as a root would have
to list it.

Not proved: that the step shown is the first of its version. Trust keys that sign two are seen in the log.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from countermark.canonical import encode_canonical, parse_canonical
from countermark.entry import Entry
from countermark.errors import EvidenceError, MalformedError, PolicyError
from countermark.fetch import Fetcher
from countermark.limits import (
    TRUST_DELAY,
    TRUST_FILE_MAX_BYTES,
    TRUST_STEP_MAX_BYTES,
    TRUST_STEPS_MAX,
)
from countermark.timestamp import Timestamp, open_carried, open_head
from countermark.tlog import proof
from countermark.tlog.policy import NONE, Policy
from countermark.trustfile import TARGET_PATH, TrustFile
from countermark.tufclient import tuf_errors
from countermark.values import dataclass

if TYPE_CHECKING:
    from tuf.api.metadata import Targets

FORMAT = "countermark-trust-step/v1"


@dataclass(frozen=True)
class TrustStep:
    """What a registry shows for one version, as parsed; it proves nothing yet."""

    metadata: bytes  # the trust role's file, verbatim
    entry: bytes  # the log's leaf that names it
    proof: bytes  # tlog-proof of that leaf

    def format(self) -> bytes:
        """The canonical bytes."""
        parts = {"entry": self.entry, "metadata": self.metadata, "proof": self.proof}
        return encode_canonical({"format": FORMAT} | {name: raw.decode() for name, raw in parts.items()})

    @classmethod
    def parse(cls, raw: bytes) -> TrustStep:
        """The step in these bytes, in its one spelling."""
        document: Any = parse_canonical(raw, max_bytes=TRUST_STEP_MAX_BYTES)
        try:
            found = cls(*(document[name].encode() for name in ("metadata", "entry", "proof")))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise MalformedError(f"this is not a step to a trust file: {error!r}") from None
        if found.format() != raw:
            raise MalformedError("the step to a trust file has members this program does not know")
        return found


@dataclass(frozen=True)
class Followed:
    """Where the walk ended: the trust file that is in force here, and what is announced beyond it, in words."""

    trust_file: TrustFile
    waiting: str | None = None


@dataclass(frozen=True)
class Walk:
    """One walk in one view: `timestamp` is the registry's newest, whose checkpoint says how late it is."""

    metadata_url: str
    fetcher: Fetcher
    timestamp: Timestamp
    now: int

    def follow(self, listed: str, start: TrustFile, delegator: Targets) -> Followed:
        """From `start` to the trust file whose SHA-256 the trust role lists, as far as steps are old enough.

        `delegator` is the verified targets metadata, which says who may sign for the trust role.
        """
        current = start
        for _ in range(TRUST_STEPS_MAX):
            if current.digest == listed:
                return Followed(current)
            following, seen_at = self._step(current, listed, delegator)
            ready = seen_at + int(TRUST_DELAY.total_seconds())
            # Both clocks must be past it: ours alone could be wrong, the quorum's alone could be hurried.
            if min(self.now, self._quorum_time(current, following)) < ready:
                since = datetime.fromtimestamp(ready, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                words = f"trust file {following.version} is announced, and counts here from {since} on"
                return Followed(current, f"{words}; until then version {current.version} does")
            current = following
        raise EvidenceError(f"more than {TRUST_STEPS_MAX} steps do not lead to the trust file {listed[:16]}")

    def _quorum_time(self, current: TrustFile, following: TrustFile) -> int:
        """What time the predecessor's quorum says it is. After the overlap it says nothing any more."""
        try:
            return open_carried(self.timestamp, current, now=self.now).quorum_time
        except EvidenceError:
            with suppress(EvidenceError):
                open_carried(self.timestamp, following, now=self.now)
                # The successor's own quorum could claim any time: whoever stole the trust keys named it.
                raise PolicyError(
                    f"trust file {following.version} has replaced version {current.version}, and this machine did "
                    f"not follow while both signed",
                    hint="only a root that lists the newer one can help: its operator must hold a ceremony",
                ) from None
            raise

    def _step(self, current: TrustFile, listed: str, delegator: Targets) -> tuple[TrustFile, int]:
        """The next version, and the quorum's time under which the log shows it."""
        version = current.version + 1
        url = f"{self.metadata_url}/trust/{version}.step.json"
        raw = self.fetcher.get(url, max_bytes=TRUST_STEP_MAX_BYTES, missing_ok=True)
        if raw is None:
            raise PolicyError(
                f"the trust file {listed[:16]} is not one the root of {self.metadata_url.removesuffix('/tuf')} "
                f"accepts without delay, and no step from version {current.version} to {version} is shown",
                hint="its operator must show the step, or hold a ceremony whose root lists the trust file",
            )
        step = TrustStep.parse(raw)
        # (1) The trust role's threshold signed what lists it.
        digest = self._listed_by(step.metadata, delegator)
        # (2) The next version of the same registry's.
        following = read_trust_file(self.fetcher, self.metadata_url, digest)
        if (following.version, following.origin) != (version, current.origin):
            raise EvidenceError(
                f"{url} leads to trust file {following.version} of {following.origin}, "
                f"not to version {version} of {current.origin}"
            )
        # (3) to (5) The log said so, under the predecessor's keys and quorum.
        seen_at = self._seen_at(step, current, url)
        # (6) Nothing shrinks.
        check_not_weaker(current, following)
        return following, seen_at

    def _listed_by(self, metadata: bytes, delegator: Targets) -> str:
        """The SHA-256 of the trust file that this metadata of the trust role lists."""
        from tuf.api.metadata import Metadata, Targets  # noqa: PLC0415

        with tuf_errors(self.metadata_url):
            role = Metadata[Targets].from_bytes(metadata)
            if not isinstance(role.signed, Targets):
                raise EvidenceError("the step to a trust file shows metadata of another type")
            delegator.verify_delegate("trust", role.signed_bytes, role.signatures)
        target = role.signed.targets.get(TARGET_PATH)
        if target is None or "sha256" not in target.hashes:
            raise EvidenceError(f"the step's trust metadata lists no {TARGET_PATH} by SHA-256")
        return str(target.hashes["sha256"])

    def _seen_at(self, step: TrustStep, current: TrustFile, url: str) -> int:
        """The quorum's time of the checkpoint under which the log shows the step."""
        entry = Entry.parse(step.entry)
        logged = None if entry.statement is None else entry.statement.predicate.get("trust")
        sha256 = hashlib.sha256(step.metadata).hexdigest()
        if entry.type != "tuf" or not isinstance(logged, dict) or logged["sha256"] != sha256:
            raise EvidenceError(f"{url}: its entry does not name the trust metadata {sha256[:16]}")
        shown = proof.TlogProof.parse(step.proof)
        checkpoint = open_head(shown.checkpoint, current, now=self.now)
        proof.check(step.entry, shown, checkpoint)
        if not current.valid_at(checkpoint.quorum_time):
            raise PolicyError(
                f"trust file {current.version} was not in force at {checkpoint.quorum_time}, when its quorum "
                f"saw its successor",
                hint="only a root that lists the successor can help: its operator must hold a ceremony",
            )
        return checkpoint.quorum_time


def read_trust_file(fetcher: Fetcher, metadata_url: str, digest: str) -> TrustFile:
    """The trust file of that SHA-256, which somebody vouched for."""
    raw = fetcher.get(f"{metadata_url}/targets/trust/{digest}.trust.json", max_bytes=TRUST_FILE_MAX_BYTES)
    found = hashlib.sha256(raw or b"").hexdigest()
    if found != digest:
        raise EvidenceError(f"the trust file {digest[:16]} is served with other bytes ({found[:16]})")
    return TrustFile.parse(raw or b"")


def newest_listed(fetcher: Fetcher, metadata_url: str, digests: Sequence[str]) -> TrustFile | None:
    """The newest of the trust files with these digests; None when there are none."""
    found = [read_trust_file(fetcher, metadata_url, digest) for digest in digests[:TRUST_STEPS_MAX]]
    return max(found, key=lambda each: each.version, default=None)


def check_not_weaker(current: TrustFile, following: TrustFile) -> None:
    """PolicyError where the successor asks for less than its predecessor: that is for a root to allow."""
    old, new = current.policy, following.policy
    kinds = [{key.type for key in each.log_keys} for each in (current, following)]
    floors = [each.client_policy.min_tree_size for each in (current, following)]
    what = None
    if fewest_witnesses(new) < fewest_witnesses(old):
        what = f"{fewest_witnesses(new)} witnesses make its quorum, {fewest_witnesses(old)} did before"
    elif not kinds[0] <= kinds[1]:
        what = "a kind of log key is missing that was demanded before"
    elif floors[1] < floors[0]:
        what = f"its floor of {floors[1]} entries is below {floors[0]}"
    if what is not None:
        raise PolicyError(
            f"trust file {following.version} is weaker than version {current.version}: {what}",
            hint="only a root that lists it can allow that; trust keys alone cannot",
        )


def fewest_witnesses(policy: Policy) -> int:
    """How many witnesses must work together at least to make the quorum."""
    if policy.quorum == NONE:
        return 0
    needed = {witness.name: 1 for witness in policy.witnesses}
    for group in policy.groups:
        needed[group.name] = sum(sorted(needed[member] for member in group.members)[: group.threshold])
    return needed[policy.quorum]
