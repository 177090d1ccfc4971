"""Trust: from a pinned root to one verified view of a registry.

    with opened(registry, fetcher, now=now) as view:
        view.checkpoint                 # signed by every key of the log, cosigned by the quorum
        view.freshness                  # fresh | ok | grace, and who is late
        view.target("files/acme/acme-1.0-py3-none-any.whl")    # what the index lists, bound to the bins root

One view is one moment: root chain, timestamp, snapshot and bins, verified from the pinned root by TUF's own client
(ngclient), or without it where nothing is new (moment.py); the trust file that says who the log and its witnesses
are; and the checkpoint that the timestamp carries. The head is held against all that this machine saw (timeline.py).

Nothing is kept before everything held: whoever writes does so in a private copy of the cache, and the copy replaces
the cache, and the timeline is written, only when the block ends without an error. A contradiction leaves an
evidence file and nothing else. One process at a time works on a registry.

The cache is untrusted input: signatures and versions of what is read back are checked (by ngclient; by moment.py and
binfiles.py for what has not changed), each bin's bytes are checked against the signed bins root, and each tile of the
bins tree against its name, whether they came from the network or from the disk.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from countermark.binfiles import Place, is_checked_when_read, keep_tile, kept_tile
from countermark.bins import BinLeaf, read_leaf_hash, read_proof, targets_root
from countermark.digest import sha256
from countermark.disk import locked, read_file, replace_file
from countermark.errors import (
    CountermarkError,
    EvidenceError,
    NetworkError,
    PolicyError,
    ProofError,
    StaleError,
)
from countermark.evidence import Evidence, EvidenceClass, kept_at, save
from countermark.fetch import Fetcher
from countermark.folder import Folder, lent
from countermark.freshness import OPERATOR, Freshness, grace_time, judge
from countermark.limits import (
    BIN_MAX_BYTES,
    NOTE_MAX_BYTES,
    TIMESTAMP_MAX_BYTES,
    TRUST_FILE_MAX_BYTES,
)
from countermark.logreader import LogReader
from countermark.mirrors import Mirrored
from countermark.moment import Moment, Refreshed, look
from countermark.pins import Registry, newer_roots
from countermark.prefetch import Prefetcher
from countermark.timeline import InconsistentError, SeenTimestamp, Timeline
from countermark.timestamp import Timestamp, check_spelling, open_carried, open_head
from countermark.tlog.checkpoint import VerifiedCheckpoint
from countermark.tlog.merkle import HASH_SIZE
from countermark.trustfile import TrustFile
from countermark.trustwalk import Followed, Walk, newest_listed, read_trust_file
from countermark.tufclient import KEPT_WITHIN, Cached, Recorder, RollbackError, refresh, restore
from countermark.tufjson import ListedTarget, Root
from countermark.values import dataclass, field, replace

if TYPE_CHECKING:
    from tuf.api.metadata import Targets

TRUST_FILE = "trust.file"  # in the cache: the trust file that counted last


@dataclass(frozen=True)
class View:
    """A registry at one moment. Everything here was verified, by whom the fields say."""

    registry: Registry
    fetcher: Prefetcher
    now: int
    freshness: Freshness
    timestamp: Timestamp
    trust_file: TrustFile
    checkpoint: VerifiedCheckpoint
    log: LogReader
    head: str  # how the head relates to those seen before, in words
    waiting: str | None  # a trust file that is announced and not in force yet, in words
    passed_over: tuple[str, ...]  # which sources had nothing that counts, and why, in words
    online: bool
    moment: Moment
    folder: Folder  # the cache
    timeline: Timeline
    newer: list[LogReader] = field(default_factory=list)  # heads read since, each beyond the last
    tiles: dict[str, bytes] = field(default_factory=dict)  # of the bins tree, named by their hash, read once
    bins: dict[str, tuple[BinLeaf, dict[str, Any]]] = field(
        default_factory=dict
    )  # by role, verified, read once

    def target(self, path: str) -> ListedTarget | None:
        """The target at `path`, or None when its bin, bound to the bins root, does not hold it."""
        leaf, targets = self.bin(path)
        # Only the bin counts: no other role may list a file.
        return ListedTarget.parse(path, leaf.role, targets[path]) if path in targets else None

    def bin(self, path: str) -> tuple[BinLeaf, dict[str, Any]]:
        """The bin a path belongs to, and its targets: exactly what the bins root in the timestamp commits to."""
        place = role, number, bit_length = self.moment.bin_files(path).place(path)
        if bit_length != self.timestamp.bit_length:
            raise ProofError(
                f"the index has 2^{bit_length} bins, the timestamp's bins root has 2^{self.timestamp.bit_length}"
            )
        if self.held_bin(path, place) is None:
            self.bins[role] = self._brought_bin(path, role, number, bit_length)
        return self.bins[role]

    @property
    def cache(self) -> Path:
        """Where the cache is read now; nothing is written there (`folder.own`)."""
        return self.folder.path

    def held_bin(self, path: str, place: Place) -> tuple[BinLeaf, dict[str, Any]] | None:
        """The bin at this place, where this view has it, or the cache holds the one that the bins root commits to."""
        role, number, bit_length = place
        if role not in self.bins and self.online:
            files = self.moment.bin_files(path)
            held = files.held(role, self._leaf_hash(number, bit_length))
            if held is not None:
                self.bins[role] = held
        return self.bins.get(role)

    def _brought_bin(
        self, path: str, role: str, number: int, bit_length: int
    ) -> tuple[BinLeaf, dict[str, Any]]:
        self.moment.bring(path)
        raw = read_file(self.cache / f"{role}.json", max_bytes=BIN_MAX_BYTES) or b""
        signed = json.loads(raw)["signed"]
        targets: dict[str, Any] = signed["targets"]
        leaf = BinLeaf(role, signed["version"], sha256(raw).hexdigest(), targets_root(targets))
        if self.online and leaf.leaf_hash != (expected := self._leaf_hash(number, bit_length)):
            raise ProofError(
                f"bin {role} version {leaf.version} hashes to {leaf.leaf_hash.hex()}, "
                f"the bins root {self.timestamp.bins_root.hex()} has {expected.hex()}"
            )
        return leaf, targets

    def _leaf_hash(self, number: int, bit_length: int) -> bytes:
        """What the bins root commits to for one bin."""
        root = self.timestamp.bins_root
        return read_leaf_hash(self.bins_tile, index=number, bit_length=bit_length, root=root)

    def bin_proof(self, number: int) -> tuple[bytes, ...]:
        """The path from one bin to the bins root."""
        timestamp = self.timestamp
        return read_proof(
            self.bins_tile, index=number, bit_length=timestamp.bit_length, root=timestamp.bins_root
        )

    def at_newest_head(self) -> View:
        """The same view at the log's newest public checkpoint, which no timestamp carries yet.

        Held to what the carried one is held to: every key of the log, the quorum, and every head seen here.
        """
        if not self.online:
            raise NetworkError(f"{self.registry.url}: the log's newest head cannot be read offline")
        url = f"{self.registry.log_url}/checkpoint"
        raw = self.fetcher.get(url, max_bytes=NOTE_MAX_BYTES)
        assert raw is not None
        head = open_head(raw, self.trust_file, now=self.now)
        for size, what in (
            (self.checkpoint.size, "its timestamp carries"),
            (self.timeline.size, "seen here was"),
        ):
            if head.size < size:
                sentence = f"rollback: {url} is of size {head.size}, the one {what} of size {size}"
                objects = {"checkpoint-offered": raw, "timestamp": self.timestamp.raw}
                raise InconsistentError(sentence, Evidence(EvidenceClass.OBSERVATION, [sentence], objects))
        log = LogReader(self.registry.log_url, head, self.fetcher)
        words = self.timeline.check_head(log)
        self.timeline.check_same(self.checkpoint, log)
        self.newer.append(log)
        return replace(self, checkpoint=head, log=log, head=words)

    def bins_tile(self, name: str) -> bytes:
        """A tile of the bins tree; whoever reads it compares its hash with the name."""
        if not self.has_tile(name):
            raw = self.fetcher.get(self.tile_url(name), max_bytes=256 * HASH_SIZE)
            assert raw is not None
            keep_tile(self.folder.own(), name, raw)
            self.tiles[name] = raw
        return self.tiles[name]

    def has_tile(self, name: str) -> bool:
        """Whether that tile is here, and nobody need be asked for it."""
        if name not in self.tiles and (raw := kept_tile(self.folder, name)) is not None:
            self.tiles[name] = raw
        return name in self.tiles

    def tile_url(self, name: str) -> str:
        return f"{self.registry.metadata_url}/bins/{name}"


@contextlib.contextmanager
def opened(registry: Registry, fetcher: Fetcher, *, now: int) -> Iterator[View]:
    """One verified view of the registry; what was learned is kept when the block ends without an error."""
    recorder = Recorder(fetcher)
    timeline_file = registry.folder / "timeline.json"
    try:
        with locked(registry.folder / "lock"):
            timeline = Timeline.load(timeline_file)
            # A clock that runs behind what witnesses signed is wrong; time never goes below that.
            now = max(now, timeline.newest_time)
            with lent(registry.folder / "tuf", within=KEPT_WITHIN, shared=is_checked_when_read) as folder:
                view = _view(registry, recorder, timeline, folder, now)
                yield view
                seen = _seen(view.timestamp, view.moment.root)
            # If we stop here the cache is ahead of the timeline: the next run checks against the older
            # head, which the newer one extends.
            if view.online:
                after = timeline.advanced(
                    view.newer[-1] if view.newer else view.log,
                    seen,
                    trust_version=view.trust_file.version,
                    trust_sha256=view.trust_file.digest,
                    now=now,
                )
                after.save(timeline_file)
    except EvidenceError as error:
        evidence = getattr(error, "evidence", None) or Evidence(
            EvidenceClass.OBSERVATION, [str(error)], {"timestamp": recorder.timestamp}
        )
        tuf = registry.folder / "tuf"
        trust_file = read_file(tuf / TRUST_FILE, max_bytes=TRUST_FILE_MAX_BYTES)
        newer = newer_roots(tuf, registry.info.version)
        evidence = evidence.about(registry.url, registry.root, newer, trust_file)
        path = save(evidence, registry.folder / "evidence", time=now)
        error.hint = error.hint or kept_at(path, evidence.kind)
        raise


def _view(registry: Registry, recorder: Recorder, timeline: Timeline, folder: Folder, now: int) -> View:
    cached = folder.read("timestamp.json", max_bytes=TIMESTAMP_MAX_BYTES)
    passed: list[str] = []
    moment: Moment
    try:
        moment, source = _looked(registry, recorder, folder, now, passed)
        fetcher, raw = recorder.fetcher, recorder.timestamp
        online = True
    except (NetworkError, StaleError) as error:
        if cached is None:
            raise
        late = error
        online = False
        restore(folder.own(), registry.folder / "tuf")
        raw = cached
        fetcher = Cached(recorder, cached)
        at = grace_time(cached, now, error)
        moment = Refreshed(registry, refresh(registry, fetcher, folder.own(), at), folder, at)
    except EvidenceError as error:
        raise _with_timestamps(error, cached or b"", recorder.timestamp) from None
    if online:
        check_spelling(raw, moment.root)
    timestamp = Timestamp.parse(raw)
    followed = _trust_file(
        registry, moment, folder, timeline, Walk(registry.metadata_url, fetcher, timestamp, now)
    )
    trust_file = followed.trust_file
    timeline.check_trust_file(trust_file.version, trust_file.format())
    if not trust_file.valid_at(now):
        raise StaleError(f"the trust file of version {trust_file.version} is not in force now")
    checkpoint = open_carried(timestamp, trust_file, now=now)
    if online:
        freshness = judge(timestamp, now, fetched_at=now, source=source)
    else:
        freshness = judge(timestamp, now, fetched_at=timeline.fetched_at, network=str(late))
    timeline.check_timestamp(
        _seen(timestamp, moment.root), raw, cached or b"", floor=trust_file.client_policy.min_tree_size
    )
    recorder.fetcher = ahead = Prefetcher(recorder.fetcher)
    log = LogReader(registry.log_url, checkpoint, ahead)
    head = timeline.check_head(log) if online else "not compared: offline"
    return View(
        registry=registry,
        fetcher=ahead,
        now=now,
        freshness=freshness,
        timestamp=timestamp,
        trust_file=trust_file,
        checkpoint=checkpoint,
        log=log,
        head=head,
        waiting=followed.waiting,
        passed_over=tuple(passed),
        online=online,
        moment=moment,
        folder=folder,
        timeline=timeline,
    )


def _looked(
    registry: Registry, recorder: Recorder, folder: Folder, now: int, passed: list[str]
) -> tuple[Moment, str]:
    """The moment of the first source that has one which verifies, and who that is for people.

    `passed` is who had none, and why. What the registry itself contradicts is evidence and ends it. A mirror that
    shows the past, or anything else, is passed over: it is trusted with nothing.
    """
    mirrored = recorder.fetcher
    if not isinstance(mirrored, Mirrored):
        return look(registry, recorder, folder, now), OPERATOR
    failed: CountermarkError | None = None
    for url in mirrored.urls:
        recorder.fetcher = mirrored.alone(url)
        try:
            moment = look(registry, recorder, folder, now)
        except (NetworkError, StaleError) as error:
            failed = failed or error
            passed.append(f"{url} was passed over: {error}")
        except EvidenceError as error:
            if url == registry.url:
                raise
            failed = failed or NetworkError(f"no source has a moment that verifies: {error}")
            passed.append(f"mirror {url} was passed over: {error}")
        else:
            mirrored.prefer(url)
            recorder.fetcher = mirrored
            return moment, OPERATOR if url == registry.url else f"mirror {url}, or the operator"
        restore(folder.own(), registry.folder / "tuf")
    recorder.fetcher = mirrored
    assert failed is not None
    raise failed


def _trust_file(
    registry: Registry, moment: Moment, folder: Folder, timeline: Timeline, walk: Walk
) -> Followed:
    """The trust file in force: the one TUF's `trust` role lists, if the root or a walk leads there."""
    listed, root = moment.trust_sha256(), moment.root.trust_files
    cached = folder.read(TRUST_FILE, max_bytes=TRUST_FILE_MAX_BYTES) or b""
    held = sha256(cached).hexdigest()  # whoever wrote it there: only its digest counts
    if listed in (*root, timeline.trust_sha256):
        followed = Followed(
            TrustFile.parse(cached)
            if held == listed
            else read_trust_file(walk.fetcher, registry.metadata_url, listed)
        )
    elif isinstance(walk.fetcher, Cached) and held in (*root, timeline.trust_sha256):
        followed = Followed(TrustFile.parse(cached), "a newer trust file is listed, and not followed offline")
    else:
        start = newest_listed(
            walk.fetcher, registry.metadata_url, [*root, *filter(None, [timeline.trust_sha256])]
        )
        if start is None:
            raise PolicyError(f"the root of {registry.url} lists no trust file to start from")
        followed = walk.follow(listed, start, _delegator(folder))
    if followed.trust_file.digest != held:
        path = folder.own() / TRUST_FILE
        replace_file(path, followed.trust_file.format())  # never through a link that somebody left there
    return followed


def _delegator(folder: Folder) -> Targets:
    """The targets role's metadata, which was verified in this view."""
    from tuf.api.metadata import Metadata, Targets  # noqa: PLC0415

    return Metadata[Targets].from_bytes(folder.read("targets.json", max_bytes=BIN_MAX_BYTES) or b"").signed


def _seen(timestamp: Timestamp, root: Root) -> SeenTimestamp:
    keys = tuple(sorted(map(str, root.roles["timestamp"]["keyids"])))
    return SeenTimestamp(timestamp.version, sha256(timestamp.raw).hexdigest(), timestamp.size, keys)


def _with_timestamps(error: EvidenceError, cached: bytes, offered: bytes) -> EvidenceError:
    if not isinstance(error, RollbackError):
        return error
    objects = {"timestamp-last": cached, "timestamp-offered": offered}
    return InconsistentError(str(error), Evidence(EvidenceClass.OBSERVATION, [str(error)], objects))
