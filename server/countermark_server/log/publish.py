"""Publishing: the newest checkpoint, once enough witnesses have cosigned it, becomes the public one.

    publisher.start()
    publisher.offer(checkpoint)      # the sequencer has applied its tiles; returns at once

It rings when a checkpoint is public, since who waits for a statement's proof can see that for themselves, and again
when the database says so, too (`settle`).

Its own thread, so that sequencing goes on while witnesses are slow: it always takes the newest checkpoint
offered, and one publication may cover many rounds. Fail-closed: without the policy's quorum nothing becomes
public, nothing is acknowledged, and it tries again. So it is while this machine's clock has leapt (clockwatch.py).

An idle log is cosigned again every hour, so that its checkpoint does not look stale.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from countermark.errors import CountermarkError
from countermark.tlog.checkpoint import (
    LogCheckpoint,
    VerifiedCheckpoint,
    open_checkpoint,
    open_log_checkpoint,
)
from countermark.tlog.note import Note
from countermark.tlog.policy import Policy
from countermark_server import db, proposal, submission, telemetry
from countermark_server.log.cleanup import Cleanup
from countermark_server.log.clockwatch import ClockLeaptError, ClockWatch
from countermark_server.log.staging import Staging
from countermark_server.log.tree import PublicTree
from countermark_server.log.witnesses import Quorum
from countermark_server.stores import heads
from countermark_server.stores.immutable import StoreError
from countermark_server.stores.public import CHECKPOINT, Public

RECOSIGN_SECONDS = 3600  # an unchanged head's cosignatures are renewed after this
RETRY_SECONDS = 0.25  # after a failed publication
IDLE_SECONDS = 0.05  # without a checkpoint to publish: then clean-up, if it is behind, goes on by a step


class NoQuorumError(Exception):
    """Fewer witnesses than the policy asks for cosigned; nothing was published."""


class Publisher:
    """Cosigns, publishes, tells the waiting, drops staging. One thread."""

    def __init__(
        self,
        engine: Engine,
        public: Public,
        staging: Staging,
        *,
        tree: PublicTree,
        cleanup: Cleanup,
        quorum: Quorum,
        policy: Policy,
        origin: str,
        clockwatch: ClockWatch,
        mutex: threading.Lock,
        on_fatal: Callable[[BaseException], None],
        ring: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._public = public
        self._staging = staging
        self._tree = tree
        self._cleanup = cleanup
        self._quorum = quorum
        self._policy = policy
        self._origin = origin
        self._clockwatch = clockwatch
        self._mutex = mutex
        self._on_fatal = on_fatal
        self._ring = ring
        self._news = threading.Condition()
        self._offered: LogCheckpoint | None = None
        self._stopping = False
        self._newest: bytes | None = None  # what we published last
        self._published = -1  # size of the public checkpoint
        self._published_at = float("-inf")  # monotonic seconds
        self._told: int | None = None  # everybody below this index was told, as far as this process knows
        self._is_tidy = True  # the last clean-up removed what it tried to
        self._without_quorum: float | None = None  # monotonic seconds: since when
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    def offer(self, checkpoint: LogCheckpoint) -> None:
        """This checkpoint's tiles are readable; publish it, or a newer one."""
        with self._news:
            self._offered = checkpoint
            self._news.notify_all()

    def wait_until_public(self, seconds: float) -> None:
        """Wait for the publication of what was offered last, or so long; or until somebody stops us."""
        with self._news:
            self._news.wait_for(self._has_caught_up, timeout=seconds)

    def _has_caught_up(self) -> bool:
        return self._stopping or self._offered is None or self._offered.size <= self._published

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Finish the publication in hand, then stop."""
        with self._news:
            self._stopping = True
            self._news.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def cosigned(
        self, checkpoint: LogCheckpoint, *, everybody: bool = False, clock: Callable[[], float] | None = None
    ) -> VerifiedCheckpoint:
        """The checkpoint with its quorum's cosignatures, opened the way everybody will open it.

        `everybody`: every witness is heard out, also beyond the quorum; one of them may know more than we do.
        `clock`: by which their times are judged; as a rule ours, which must not have leapt (ClockLeaptError).
        """
        clock = clock or self._clockwatch.now
        clock()  # before anybody is asked: a witness on this machine would state the time of the leap
        read = self._tree.reader(checkpoint.size, checkpoint.root_hash)
        lines, problems = self._quorum.cosign(checkpoint, read, everybody=everybody)
        raw = Note(checkpoint.text(), (*checkpoint.log_signatures, *lines)).format()
        now = int(clock())
        try:
            return open_checkpoint(raw, self._policy, now=now)
        except CountermarkError as error:
            said = "; ".join(problems)
            raise NoQuorumError(f"{error}{': ' + said if said else ''}") from None

    def publish(self, checkpoint: LogCheckpoint) -> VerifiedCheckpoint:
        """Cosign, publish, tell, tidy: one checkpoint, in this order."""
        started = time.perf_counter()
        verified = self.cosigned(checkpoint)
        self._clockwatch.vouch(verified.quorum_time)
        # Cosigned. If we stop here witnesses remember this size; the head row holds it, so the next start
        # offers the same checkpoint again and they cosign it again.
        telemetry.LOG_SIZE.labels("witnessed").set(verified.size)
        self._public.replace(CHECKPOINT, verified.raw, partial(self._check_newer, verified))
        self._newest = verified.raw
        # Published. If we stop here the entries are public and no row says so. Who looked at the checkpoint may have
        # answered, and is right; settle() runs at the start, before anything is sequenced.
        self._ring()
        telemetry.LOG_SIZE.labels("published").set(verified.size)
        telemetry.QUORUM_SINCE.set(verified.quorum_time)
        telemetry.LOG_PUBLICATION.observe(time.perf_counter() - started)
        self.settle(verified.size)
        with self._news:  # not before: else nobody retries
            self._published, self._published_at = verified.size, time.monotonic()
            self._news.notify_all()
        # Told, and the head names no bundle that this covers. If we stop here such bundles stay on the disk;
        # the next publication drops them.
        self._is_tidy = self.tidy(verified.size)
        return verified

    def _check_newer(self, ours: VerifiedCheckpoint, found: bytes | None) -> None:
        """HeadLostError: what is public is ahead of us, or another history of our length: it is not taken back."""
        if found is None or found == self._newest:
            return
        try:
            # The log's own lines count: which witnesses there are may have changed while we were paused.
            public = open_log_checkpoint(found, self._policy.log_keys(self._origin))
        except CountermarkError:
            return  # nobody can use it; ours is good
        if public.size > ours.size:
            raise heads.HeadLostError(
                f"the public checkpoint is at size {public.size}, ours is of size {ours.size}: "
                "is another sequencer running?"
            )
        if public.size == ours.size and public.root_hash != ours.root_hash:
            raise heads.HeadLostError(
                f"the public checkpoint of size {ours.size} has root {public.root_hash.hex()}, ours has "
                f"{ours.root_hash.hex()}: two logs sign for {self._origin}"
            )

    def settle(self, size: int) -> int:
        """Tell those whose entries a public checkpoint of this size covers; returns how many proposals."""
        now = int(self._clockwatch.nearest())
        with self._mutex, db.write(self._engine) as connection:
            # Nothing is sequenced meanwhile (the mutex): both are about the same rows.
            # Each index has its row before its checkpoint is offered, so below `_told` nobody was left out.
            for elsewhere in submission.finish_covered(connection, size, told=self._told, now=now):
                telemetry.logger().error(
                    "a published entry's submission was not waiting", submission=elsewhere
                )
            told = proposal.publish(connection, size, told=self._told)
            heads.applied(connection, self._origin, size)
        # Committed. If we stop here everybody finds it where they look by themselves.
        self._told = max(size, self._told or 0)
        self._ring()
        return told

    def tidy(self, size: int) -> bool:
        """Drop what a public checkpoint covers: staging bundles, then some partial tiles.

        False: something could not be removed, which costs disk space and is tried again behind the next checkpoint.
        """
        try:
            for bundle_size, name in list(self._staging.sizes()):
                if bundle_size <= size:
                    self._staging.drop(name)
            self._cleanup.step(size)
        except (OSError, StoreError) as error:
            telemetry.LOG_CLEANUP_FAILURES.inc()
            telemetry.logger().warning("not cleaned up", error=str(error))
            return False
        return True

    def _run(self) -> None:
        while (checkpoint := self._next()) is not None:
            try:
                verified = self.publish(checkpoint)
                self._report_quorum(None)
                telemetry.logger().debug("published", size=verified.size)
            except (NoQuorumError, OSError, SQLAlchemyError, StoreError) as error:
                # Nothing was acknowledged that is not public; the entries wait for the next try.
                self._report_quorum(error)
                telemetry.logger().warning("not published", size=checkpoint.size, error=str(error))
                self._pause()
            except ClockLeaptError:
                self._pause()  # who saw it first has said so
            except BaseException as error:
                self._on_fatal(error)
                return

    def _pause(self) -> None:
        with self._news:
            self._news.wait_for(lambda: self._stopping, timeout=RETRY_SECONDS)

    def _report_quorum(self, error: Exception | None) -> None:
        """Say how long the quorum has been missing; a failure of another kind says nothing about it."""
        now = time.monotonic()
        if error is None:
            self._without_quorum = None
        elif isinstance(error, NoQuorumError) and self._without_quorum is None:
            self._without_quorum = now
        since = self._without_quorum
        telemetry.QUORUM_MISSING.set(0 if since is None else now - since)

    def _next(self) -> LogCheckpoint | None:
        """Wait for a checkpoint that is not public yet, or whose cosignatures are an hour old; clean up meanwhile."""
        while not self._stopping:
            with self._news:
                offered = self._offered
                left = self._published_at + RECOSIGN_SECONDS - time.monotonic()
                if offered is not None and offered.size and (offered.size > self._published or left <= 0):
                    return offered
                behind = self._is_tidy and self._cleanup.is_behind(self._published)
                until = None if offered is None or left == float("-inf") else max(left, 0.01)
                told = self._news.wait(timeout=IDLE_SECONDS if behind else until)
            if behind and not told:
                self._is_tidy = self.tidy(self._published)
        return None
