"""The log's process: take the lock, load, check that nobody knows more than we do, then work.

At the start, before anything is signed (design, section 5):

* the public checkpoint is larger than the head, or of its size with another root: refuse
* a witness has cosigned a larger size, or another root: refuse
* a tile that the head stands on, or an entry behind the public checkpoint, is not in the public tree: refuse
* fewer witnesses than the quorum answer: refuse, unless `--accept-unwitnessed-start` (which is logged)

A restored backup of the database, or of the public tree, ends here instead of in a second history. A database
that is restored beneath the running process ends it where it loads anew: what it loads must extend what it knew.
"""

from __future__ import annotations

import fcntl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from countermark import replay
from countermark.errors import CountermarkError, UsageError
from countermark.fetch import Fetcher, HttpFetcher
from countermark.tlog.checkpoint import LogCheckpoint
from countermark.tlog.merkle import check_consistency, prove_consistency
from countermark.tlog.note import NoteSigner
from countermark.tlog.policy import Policy
from countermark.tlog.tile import WIDTH
from countermark_server import adopted, db, logkeys, signing, telemetry
from countermark_server.bells import Desk
from countermark_server.contradiction import StartRefusedError, check_not_older
from countermark_server.log.backfill import Backfill
from countermark_server.log.cleanup import Cleanup
from countermark_server.log.clockwatch import ClockLeaptError, ClockWatch, seconds_elapsed
from countermark_server.log.keysets import open_by_any
from countermark_server.log.publish import NoQuorumError, Publisher
from countermark_server.log.sequence import LogError, Sequencer
from countermark_server.log.staging import Staging
from countermark_server.log.tree import MissingTileError, public_tree
from countermark_server.log.witnesses import Quorum, Witness, check_quorum_allowed, witness_urls
from countermark_server.news import News
from countermark_server.settings import Settings
from countermark_server.stores import places
from countermark_server.stores.immutable import StoreError
from countermark_server.stores.public import CHECKPOINT

START_PATIENCE = 15.0  # seconds for witnesses that start together with us
START_RETRY = 0.05  # seconds between two tries
SWITCH_SECONDS = 0.0005  # the publisher, back from the disk or a witness, need not wait 5 ms for its turn
BREATH = 0.001  # seconds between two rounds
SPAN = 16 * WIDTH  # entries that the start reads at once
PACE = 0.05  # seconds that a round waits at most for the publication of the last one
RELOAD_SECONDS = 1.0  # between two attempts to load after a failure
FAILURES = (OSError, SQLAlchemyError, StoreError, CountermarkError)  # of a round: reload, then go on


class Station:
    """The sequencer and the publisher of one log, put together."""

    def __init__(
        self,
        settings: Settings,
        policy: Policy,
        signers: tuple[NoteSigner, ...],
        *,
        fetcher: Fetcher,
        clock: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = seconds_elapsed,
    ) -> None:
        origin = settings.registry.origin
        check_quorum_allowed(policy, origin)
        self.public = places.public(settings)
        self.staging = Staging(places.place(settings, "staging"))
        self.engine = db.open_engine(settings.database_url)
        self._keys = [signer.vkey for signer in signers]
        self._failure: BaseException | None = None
        self._known: LogCheckpoint  # the newest this process has seen; from check_start on
        self._stop = threading.Event()
        urls = witness_urls(policy, settings.log.witness_urls)
        seconds = settings.log.witness_timeout
        asked = [
            Witness(w.name, w.key, urls[w.name], fetcher, timeout=seconds, clock=clock)
            for w in policy.witnesses
        ]
        self.quorum = Quorum(policy, asked)
        self.clockwatch = ClockWatch(clock, elapsed)
        mutex = threading.Lock()
        self.desk = Desk(settings.data)
        self.sequencer = Sequencer(
            self.engine,
            self.public,
            self.staging,
            signers,
            origin=origin,
            clockwatch=self.clockwatch,
            batch=settings.log.batch,
            mutex=mutex,
            raw_add=settings.testing.raw_add,
            backfill=Backfill(places.blobs(settings), monotonic=time.monotonic),
        )
        self.publisher = Publisher(
            self.engine,
            self.public,
            self.staging,
            tree=public_tree(self.public),
            cleanup=Cleanup(self.public, places.place(settings, "staging")),
            quorum=self.quorum,
            policy=policy,
            origin=origin,
            clockwatch=self.clockwatch,
            mutex=mutex,
            on_fatal=self._fail,
            ring=self.desk.ring,
        )

    def check_start(self, *, accept_unwitnessed: bool = False, patience: float = 0.0) -> None:
        """Refuse to start when anybody knows more than our head. StartRefusedError; nothing was changed.

        `patience`: seconds to wait for witnesses that may be starting beside us.
        """
        try:
            head = self.sequencer.load()
            raw = self.public.read(CHECKPOINT)
            if raw is not None:
                public = open_by_any(raw, self._keys)
                self._check_public(public, head)
            self._check_entries(0 if raw is None else public.size, head)
            self._ask_witnesses(head, accept_unwitnessed, time.monotonic() + patience)
            self._known = head
        except MissingTileError as error:
            raise LogError(
                f"{error} is missing from the public tree: the store is older than the database"
            ) from None
        # Nobody knows more. What lies beyond the head never happened.
        self.sequencer.sweep()
        # If we stop here the next start does it again.
        # What the public checkpoint covers was acknowledged: say so where a crash did not.
        if raw is not None:
            self.publisher.settle(public.size)
            self.publisher.tidy(public.size)

    def _ask_witnesses(self, head: LogCheckpoint, accept_unwitnessed: bool, deadline: float) -> None:
        while True:
            try:
                answered = self.publisher.cosigned(head, everybody=True)
                self.clockwatch.begin(answered.quorum_time)
                return
            except NoQuorumError as error:
                if accept_unwitnessed:
                    telemetry.logger().warning("accepted an unwitnessed start", error=str(error))
                    self.clockwatch.begin(None)
                    return
                if time.monotonic() >= deadline:
                    raise StartRefusedError(
                        f"too few witnesses answer to know that nothing was lost: {error}"
                    ) from None
            time.sleep(START_RETRY)

    def _check_public(self, public: LogCheckpoint, head: LogCheckpoint) -> None:
        check_not_older(public.size, head.size)
        self._check_prefix(public, head, "the public checkpoint")

    def _check_entries(self, start: int, head: LogCheckpoint) -> None:
        """What the head has and no public checkpoint covers is in the public tree, each entry in its slot.

        The right edge alone does not say so: the last round's bundle may have put that there, in a tree from
        yesterday's backup.
        """
        tree = public_tree(self.public)
        while start < head.size:
            end = min(head.size, start // SPAN * SPAN + SPAN)
            tree.entries(start // WIDTH * WIDTH, end, tree.reader(head.size, head.root_hash))
            start = end

    def _check_prefix(self, old: LogCheckpoint, head: LogCheckpoint, whose: str) -> None:
        read = public_tree(self.public).reader(head.size, head.root_hash)
        proof = prove_consistency(old.size, head.size, read)
        try:
            check_consistency(
                proof,
                old_size=old.size,
                old_root=old.root_hash,
                new_size=head.size,
                new_root=head.root_hash,
            )
        except CountermarkError as error:
            raise StartRefusedError(f"{whose} is not a prefix of our head: {error}") from None

    def work(self, stop: threading.Event, *, poll_interval: float) -> None:
        """Sequence until `stop`; the publisher runs beside. Raises what ended it, if anything did."""
        self._stop = stop
        self.publisher.start()
        self._offer(self.sequencer.checkpoint)
        news, again, rung = News(self.engine), True, False
        try:
            while not stop.is_set():
                has_leapt = self._has_clock_leapt()
                # Asked before the round looks: what is committed after the answer is news the next time.
                if not has_leapt and (
                    again or rung or not news.cheap or news.any() or self.sequencer.importing
                ):
                    again = self._round()
                # Also after a full round: whoever waits to propose gets the write lock, and the next round
                # takes what gathers meanwhile. However often it rings: no round begins before that pause is over.
                self.publisher.wait_until_public(PACE)
                stop.wait(BREATH)
                is_busy = again and not has_leapt
                rung = self.desk.wait(0 if is_busy else max(0.0, poll_interval - BREATH))
        finally:
            news.close()
            self.sequencer.close()
            self.publisher.stop()
            self.desk.close()
            self.quorum.close()
        if self._failure is not None:
            raise self._failure

    def _round(self) -> bool:
        """One round; after a failure one reload. True when there may be more to do at once."""
        try:
            settled = self.sequencer.round()
            if settled:
                self._offer(self.sequencer.checkpoint)
            return settled > 0
        except ClockLeaptError:
            return True
        except FAILURES as error:
            telemetry.logger().error("round failed", error=str(error), kind=type(error).__name__)
        # Nothing is sequenced before this has succeeded; an error here is tried again, never dropped.
        while not self._stop.is_set():
            try:
                telemetry.LOG_RELOADS.inc()
                self._check_newer(self.sequencer.load())
                self.sequencer.sweep()
                return True
            except FAILURES as error:
                telemetry.logger().error("reload failed", error=str(error), kind=type(error).__name__)
                self._stop.wait(RELOAD_SECONDS)
        return False

    def _has_clock_leapt(self) -> bool:
        """Whether it has. A leap that lasts is put to the quorum once a minute; nothing is published by that."""
        if self.clockwatch.is_to_be_asked():
            try:
                asked = self.publisher.cosigned(self._known, clock=self.clockwatch.wall)
                self.clockwatch.hear(asked.quorum_time)
            except (NoQuorumError, *FAILURES) as error:
                telemetry.logger().warning("no quorum says what time it is", error=str(error))
        return self.clockwatch.has_leapt()

    def _check_newer(self, loaded: LogCheckpoint) -> None:
        """Go on from what was loaded, if it extends what this process knew. StartRefusedError: it does not.

        A database restored beneath a running process shows here, before anything is signed on top of it.
        """
        known = self._known
        if loaded.size < known.size:
            raise StartRefusedError(
                f"the head row went back from size {known.size} to {loaded.size} while the log ran: "
                "the database is older than this process"
            )
        self._check_prefix(known, loaded, "the head this process knew")
        self._offer(loaded)

    def _offer(self, checkpoint: LogCheckpoint) -> None:
        self._known = checkpoint
        self.publisher.offer(checkpoint)

    def _fail(self, error: BaseException) -> None:
        telemetry.logger().error("the log stops", error=str(error), kind=type(error).__name__)
        self._failure = error
        self._stop.set()


def run(settings: Settings, stop: threading.Event, *, accept_unwitnessed: bool = False) -> None:
    """`countermark-server work log`."""
    quicken()
    with only_sequencer(settings.data / "staging"):
        places.check(settings)
        station = open_station(settings)
        try:
            station.check_start(accept_unwitnessed=accept_unwitnessed, patience=START_PATIENCE)
            telemetry.ready(settings.data / "run", "log", size=station.sequencer.checkpoint.size)
            station.work(stop, poll_interval=settings.log.poll_interval)
        finally:
            station.engine.dispose()


def quicken() -> None:
    """Set the interpreter up for what this process does. For `run`, and for benchmarks that stand in for it."""
    sys.setswitchinterval(SWITCH_SECONDS)
    replay.quicken()


def open_station(settings: Settings, *, fetcher: Fetcher | None = None) -> Station:
    """The station of this data directory: keys opened, policy read from the adopted trust file."""
    trust = adopted.trust_file(places.public(settings))
    signers = signing.log_signers(settings)
    if trust.origin != settings.registry.origin:
        raise UsageError(
            f"registry.origin is {settings.registry.origin}, the trust file is for {trust.origin}"
        )
    logkeys.check(settings.database_url, trust, [signer.vkey for signer in signers], now=int(time.time()))
    return Station(settings, trust.policy, signers, fetcher=fetcher or HttpFetcher())


@contextmanager
def only_sequencer(folder: Path) -> Iterator[None]:
    """Hold the lock that says "I am the sequencer of this data directory"; the kernel frees it at death."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "sequencer.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another sequencer works on {folder.parent}") from None
        yield
