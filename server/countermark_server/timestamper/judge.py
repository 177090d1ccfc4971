"""The judge: may this be signed? Every check of the design, in order; the first that fails refuses.

    judge = Judge(store, signers, fetcher, base_url, fence)
    signed = judge.attempt(now=now)       # SignedTimestamp, or None: nothing new; RefusalError: why not

(0) The newest public timestamp is not ahead of us; if it is (a restored or standby timestamper), it is adopted. It is
    the one for which its number was won, and it is our turn to sign (`turn`).
(1) The log's checkpoint is signed by the log, cosigned by the quorum, and extends the last one carried.
(2) Every new entry, replayed through the rules; none is stamped ahead of the quorum time.
(3) The `tuf` entry in force names snapshot, bins root and `applied` (= A).
(4) Every timestamp signed earlier is logged, unless the same metadata is only re-carried (once frozen, for ever).
(5) No version went back and no role was dropped.
(6) Every bin equals what the first A entries demand, file for file; all of them anew under another bins key.
(7) The bins root is the one in the entry.
(8) No status entry at or above A is older than 15 minutes.
(9) Win the next number in the fence; sign; remember durably; only then let the signature out.

One attempt is one transaction: a refusal leaves no trace but the alarm. Only (0) is a transaction of its own: an
adopted timestamp must be known as not logged yet, or nobody would log it and (4) would refuse for ever. And a
number that was won stays won (`fence`): if anything fails after that, it is skipped.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import timedelta

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, Root, Snapshot

from countermark import replay
from countermark.bins import former
from countermark.errors import NetworkError
from countermark.fetch import Fetcher
from countermark.limits import NOTE_MAX_BYTES, TIMESTAMP_MAX_BYTES, TIMESTAMPS_MAX
from countermark.logreader import LogReader
from countermark.timestamp import Timestamp
from countermark.tlog.checkpoint import Checkpoint, VerifiedCheckpoint, open_checkpoint
from countermark.tlog.note import Note
from countermark.trustfile import TrustFile
from countermark_server import onlinekeys
from countermark_server.timestamper import carry, history, turn
from countermark_server.timestamper.bincheck import Accepted, BinCheck
from countermark_server.timestamper.chain import OFFLINE, Chain, Offline, check_trust_target
from countermark_server.timestamper.errors import RefusalError
from countermark_server.timestamper.fence import Claim, Fence
from countermark_server.timestamper.history import History, Told
from countermark_server.timestamper.store import SignedTimestamp, Store

STATUS_MAX_AGE = timedelta(minutes=15)  # an unapplied status entry older than this stops all signing
OVERLAP = 7 * 86_400  # seconds for which a timestamp serves whoever goes by the trust file before, too
QUORUM_MAX_AGE = timedelta(minutes=75)  # an idle log is cosigned hourly; past this the quorum counts as down


class Judge:
    """One timestamper's mind. One thread uses it."""

    def __init__(
        self, store: Store, signers: Sequence[Signer], fetcher: Fetcher, base_url: str, fence: Fence
    ) -> None:
        self._store = store
        self._signers = signers
        self._fetcher = fetcher
        self._base = base_url.rstrip("/")
        self._fence = fence
        self._accepted: Accepted | None = None
        self.findings: list[replay.Finding] = []  # of the newest attempt

    def adopt_root(self, root_raw: bytes) -> None:
        """Begin with this root; later ones are walked to. Does nothing when one was adopted before."""
        if self._store.fact("root") is None:
            with self._store.transaction():
                self._store.set_fact("root", base64.b64encode(root_raw).decode())

    def check_keys(self) -> None:
        """EvidenceError, with both key ids: the root we begin with names none of our keys."""
        stored = self._store.fact("root")
        if stored is not None:
            root = Metadata[Root].from_bytes(base64.b64decode(stored)).signed
            onlinekeys.holder_of(
                "timestamp", self._signers, root.roles["timestamp"].keyids, f"root {root.version}"
            )

    @property
    def entry(self) -> int:
        """Index of the `tuf` entry signed for last; -1 before the first."""
        index: int | None = self._store.fact("tuf_index")
        return -1 if index is None else index

    def attempt(self, *, now: int, recarry: bool = False) -> SignedTimestamp | None:
        """Sign for the `tuf` entry in force if it is new, or (`recarry`) again. None: nothing to sign."""
        chain, trust_file = self._trust(now)
        self._adopt(chain, trust_file)  # (0)
        number = turn.check(self._fence, self._store)
        # Adopted. If we stop here, or refuse below, it is served and asks to be logged like one of our own.
        self._accepted = self._accepted or Accepted(self._store)
        try:
            with self._store.transaction():
                return self._attempt(number, self._accepted, chain, trust_file, now=now, recarry=recarry)
        except BaseException:
            self._accepted = None  # it may hold what was refused; the database does not
            raise

    def take_over(self, fresh: str, *, now: int, lost: bool) -> Claim | None:
        """Make it our turn, under a fresh name (`turn.take_over`), and end: the next start has that name."""
        self._adopt(*self._trust(now))
        return turn.take_over(self._fence, self._store, fresh, lost=lost)

    def check_turn(self) -> None:
        """RefusalError: the fence says that another timestamper took over, or can't be used."""
        turn.check(self._fence, self._store)

    def watch(self, *, now: int) -> None:
        """Look for an unapplied status entry without signing anything. RefusalError: there is one."""
        with self._store.transaction():
            _, trust_file = self._trust(now)
            checkpoint = self._checkpoint(trust_file, now)
            _check_status(self._replay(checkpoint, trust_file), checkpoint, now)

    def _attempt(
        self, number: int, accepted: Accepted, chain: Chain, trust_file: TrustFile, *, now: int, recarry: bool
    ) -> SignedTimestamp | None:
        checkpoint = self._checkpoint(trust_file, now)  # (1)
        replayed = self._replay(checkpoint, trust_file)  # (2)
        told = replayed.told
        if told.predicate is None or told.index is None:
            return None  # no publish yet
        new = told.index != self._store.fact("tuf_index")
        if not new and not recarry:
            return None
        self._check_logged(told, new)  # (4)
        snapshot = chain.snapshot(told.files["snapshot"])  # (3)
        offline = chain.offline(snapshot)
        check_trust_target(offline, trust_file)
        self._check_files(chain, offline, told)
        self._check_versions(snapshot, offline, accepted)  # (5)
        if accepted.leaves and len(accepted.leaves) != offline.bins.number_of_bins:
            self._store.rebin(offline.bins.bit_length)
            accepted.forget()
        check = BinCheck(self._store, chain, offline, self._read_maybe)
        touched = replayed.touched.bins(offline.bins.bit_length)
        again = self._store.fact("bins_keys") not in (None, offline.bins.keyids)
        changed = told.predicate["changed_sha256"]
        tree = check.tree(accepted, snapshot, touched, changed, again=again)  # (6)
        if tree.root.hex() != told.predicate["bins_new"]:  # (7)
            raise RefusalError(
                "bins-root",
                f"the bins have the root {tree.root.hex()}, entry {told.index} says {told.predicate['bins_new']}",
            )
        _check_status(replayed, checkpoint, now)  # (8)
        older = [each.policy for each in chain.trust_files()[:-1] if now < trust_file.valid_from + OVERLAP]
        slim = carry.slim(checkpoint, trust_file.policy, older)
        contents = carry.Contents(
            told.files["snapshot"], slim, tree.root.hex(), offline.bins.bit_length, replayed.applied
        )
        metadata = carry.unsigned(contents, number, self._signers, now=now)
        # More are owed only once the log is frozen, which takes none of them.
        digest, owes = carry.signed_digest(metadata), tuple(self._store.owed())[-TIMESTAMPS_MAX:]
        self._fence.claim(metadata.signed.version, digest, owes)  # (9)
        signed = carry.sign(metadata, self._signers)
        self._store.set_fact("bins_keys", offline.bins.keyids)
        others = {
            name: version for name, version in _versions(snapshot).items() if name not in offline.bin_names
        }
        self._remember(signed, slim, replayed, chain, others)
        # Committed when this returns. If we stop here the signature is in our database only: the next start
        # serves it. If we stop before, nothing was signed as far as anybody can tell, and its number is skipped.
        return signed

    def _trust(self, now: int) -> tuple[Chain, TrustFile]:
        stored = self._store.fact("root")
        if stored is None:
            raise RefusalError("no-root", "this timestamper was given no root to start from")
        chain = Chain(base64.b64decode(stored), self._read, self._read_maybe)
        chain.check_unexpired(now)
        trust_file = chain.trust_file()
        if not trust_file.valid_at(now):
            raise RefusalError("trust-file", f"trust file {trust_file.version} is not in force at {now}")
        return chain, trust_file

    def _adopt(self, chain: Chain, trust_file: TrustFile) -> None:
        """Learn what others signed: the public timestamp, and what the fence says was owed to the log."""
        raw = self._read_maybe("timestamp.json", TIMESTAMP_MAX_BYTES)
        with self._store.transaction():
            turn.adopt_owed(self._fence.newest(), self._store)
            if raw is not None:
                self._adopt_public(raw, chain, trust_file)
            elif self._store.fact("public"):
                raise RefusalError("timestamp-missing", "a timestamp was public here, and none is now")

    def _adopt_public(self, raw: bytes, chain: Chain, trust_file: TrustFile) -> None:
        """A public timestamp we don't know is by a twin of ours, or by us before a restore: go on behind it."""
        public = chain.timestamp(raw)
        version, digest = public.signed.version, hashlib.sha256(raw).hexdigest()
        known, claim = self._store.signed(version), self._fence.read(version)
        if known is not None and known.sha256 != digest:
            raise RefusalError(
                "two-timestamps",
                f"version {version} was signed twice: {known.sha256} here, {digest} in public",
            )
        if claim is not None and claim.signs != carry.signed_digest(public):
            raise RefusalError(
                "two-timestamps",
                f"number {version} was won by {claim.who} for {claim.signs or 'nothing'}; "
                f"the public timestamp of this version says {carry.signed_digest(public)}",
            )
        if not self._store.fact("public"):
            self._store.set_fact("public", True)
        if known is not None and known.raw:
            return
        turn.adopt_owed(claim, self._store)
        own = self._store.newest()
        seen = SignedTimestamp(version, digest, raw)
        (self._store.add_signed if known is None else self._store.add_bytes)(seen)
        if own is None or version > own.version:
            carried = open_checkpoint(Timestamp.parse(raw).checkpoint, trust_file.policy, now=None)
            self._store.set_fact("checkpoint", carried.raw.decode())

    def _checkpoint(self, trust_file: TrustFile, now: int) -> VerifiedCheckpoint:
        """The log's checkpoint: signed, cosigned, and an extension of the last one carried."""
        raw = self._fetcher.get(f"{self._base}/log/checkpoint", max_bytes=NOTE_MAX_BYTES)
        checkpoint = open_checkpoint(raw or b"", trust_file.policy, now=now)
        if checkpoint.origin != trust_file.origin:
            raise RefusalError(
                "origin", f"the checkpoint is of {checkpoint.origin!r}, not {trust_file.origin!r}"
            )
        last = self._store.fact("checkpoint")
        if last is not None:
            older = Checkpoint.parse(Note.parse(last.encode()).text)
            if checkpoint.size < older.size:
                raise RefusalError(
                    "checkpoint-back", f"the log went from size {older.size} to {checkpoint.size}"
                )
            if older.size:
                self._reader(checkpoint).check_prefix(older)
        return checkpoint

    def _replay(self, checkpoint: VerifiedCheckpoint, trust_file: TrustFile) -> History:
        """The entries behind those applied, through the rules."""
        first = history.size(history.start(self._store, trust_file))
        leaves = [raw for _, raw in self._reader(checkpoint).entries(first, checkpoint.size)]
        done = history.read(self._store, trust_file, leaves, checkpoint)
        self.findings = done.findings
        return done

    def _check_logged(self, told: Told, new: bool) -> None:
        self._store.mark_logged(told.timestamps)
        unlogged = self._store.unlogged()
        if new and unlogged:
            raise RefusalError(
                "timestamp-unlogged", f"timestamps signed earlier are not in the log: {', '.join(unlogged)}"
            )
        if len(unlogged) >= TIMESTAMPS_MAX and not told.frozen:
            raise RefusalError(
                "timestamp-unlogged", f"{len(unlogged)} timestamps wait for a place in the log"
            )

    def _check_files(self, chain: Chain, offline: Offline, told: Told) -> None:
        """Offline metadata is what the log says it is."""
        found = {**offline.digests, "root": chain.root_digest}
        for role, digest in found.items():
            if told.files[role]["sha256"] != digest:
                raise RefusalError(
                    "unlogged-metadata",
                    f"{role} has SHA-256 {digest}, the log says {told.files[role]['sha256']}",
                )

    def _check_versions(self, snapshot: Snapshot, offline: Offline, accepted: Accepted) -> None:
        # The fact is about all but the bins, of which each is remembered with its leaf.
        last: dict[str, int] = (self._store.fact("versions") or {}) | accepted.versions
        now = _versions(snapshot)
        for name in [name for name, version in last.items() if now.get(name, 0) < version]:
            if name not in now:
                raise RefusalError("role-dropped", f"the snapshot does not list {name} any more")
            raise RefusalError("version-back", f"{name} went from version {last[name]} to {now[name]}")
        expected = offline.bin_names | {f"{role}.json" for role in OFFLINE} | {"snapshot"}
        others = {name.removesuffix(".json") for name in now.keys() - expected}
        left = {
            f"{role}.json" for role in former(others, offline.bins.bit_length)
        }  # by fewer bins, as they were
        if moved := sorted(name for name in left & last.keys() if now[name] != last[name]):
            raise RefusalError(
                "role-unexpected", f"{moved[0]} has another version, and nobody delegates to it"
            )
        if strange := sorted(now.keys() ^ (expected | left)):
            raise RefusalError(
                "role-unexpected", f"the snapshot lists other roles than it must: {strange[:3]}"
            )

    def _remember(
        self,
        signed: SignedTimestamp,
        checkpoint: VerifiedCheckpoint,
        replayed: History,
        chain: Chain,
        versions: dict[str, int],
    ) -> None:
        store = self._store
        store.put_all(replayed.kept.writes)
        store.add_signed(signed)
        if self._fence.shared:  # on one that others see, which may not be the one we had before
            store.set_fact("won", signed.version)
        store.set_fact("checkpoint", checkpoint.raw.decode())
        store.set_fact("root", base64.b64encode(chain.root_raw).decode())
        store.set_fact("versions", versions)
        store.set_fact("tuf_index", replayed.told.index)
        store.set_fact("predicate", dict(replayed.told.predicate or {}))
        store.set_fact("files", replayed.told.files)

    def _reader(self, checkpoint: VerifiedCheckpoint) -> LogReader:
        return LogReader(f"{self._base}/log", checkpoint, self._fetcher)

    def _read(self, name: str, max_bytes: int) -> bytes:
        raw = self._read_maybe(name, max_bytes)
        if raw is None:
            raise NetworkError(f"{self._base}/tuf/{name} is not there")
        return raw

    def _read_maybe(self, name: str, max_bytes: int) -> bytes | None:
        return self._fetcher.get(f"{self._base}/tuf/{name}", max_bytes=max_bytes, missing_ok=True)


def _versions(snapshot: Snapshot) -> dict[str, int]:
    """The version of every file that a snapshot lists, and its own."""
    return {name: meta.version for name, meta in snapshot.meta.items()} | {"snapshot": snapshot.version}


def _check_status(replayed: History, checkpoint: VerifiedCheckpoint, now: int) -> None:
    """Refuse while a status entry waits at or above A for more than 15 minutes of a quorum that is up."""
    seen = checkpoint.quorum_time or now
    reference = now if now - seen <= QUORUM_MAX_AGE.total_seconds() else seen
    for index, kind, time in replayed.status:
        if reference - time > STATUS_MAX_AGE.total_seconds():
            raise RefusalError(
                "applied-stale",
                f"entry {index} ({kind}) waits for {reference - time} s, only {replayed.applied} entries are applied",
            )
