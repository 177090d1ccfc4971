"""Bundling: verify files online, and put what proved them into bundles (bundle.py) for machines without network.

    made = make([Artifact.from_path(path)], registry, fetcher, now=now, policies=policies)
    made["acme-1.0-py3-none-any.whl"]         # the bytes of acme-1.0-py3-none-any.whl.countermark

A bundle is made of what `verify` verified, in the same view, and of nothing else; a file that policy refuses
gets none. Each new bundle is opened once from the pinned root before it is handed out. The same holds for what
`verify --log-only` proved, and its bundles (logbundle.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from countermark.bins import bin_number, prove_target
from countermark.bundle import Bundle, Logged, open_bundle
from countermark.clientpolicy import Policies
from countermark.entry import Entry
from countermark.errors import NetworkError, worst
from countermark.fetch import Fetcher
from countermark.logbundle import LogBundle, open_log_bundle
from countermark.logonly import memory_of, newest, prove
from countermark.logreader import LogReader
from countermark.pins import Registry, newer_roots
from countermark.signature import check_publisher
from countermark.timestamp import Timestamp
from countermark.tlog.checkpoint import VerifiedCheckpoint
from countermark.trust import View, opened
from countermark.trustfile import TrustFile
from countermark.tufjson import Root
from countermark.values import dataclass, field
from countermark.verified import Artifact, Verified
from countermark.verify import verify_with


def make(
    artifacts: Sequence[Artifact], registry: Registry, fetcher: Fetcher, *, now: int, policies: Policies
) -> dict[str, bytes]:
    """The bundle of each artifact by file name; raises the gravest error when one is not verified."""
    with opened(registry, fetcher, now=now) as view:
        if not view.online:
            raise NetworkError(f"{registry.url}: a bundle is made from what it serves now", hint="try again")
        report = verify_with(view, artifacts, policies)
        errors = [outcome.error for outcome in report.outcomes if not isinstance(outcome, Verified)]
        gravest = worst(error.exit_code for error in errors)
        for error in errors:
            if error.exit_code == gravest:
                raise error
        return {artifact.filename: bundle_of(view, artifact) for artifact in artifacts}


def bundle_of(view: View, artifact: Artifact) -> bytes:
    """The bundle of one artifact that was verified in this view."""
    path = artifact.target
    leaf, targets = view.bin(path)
    index = int(targets[path]["custom"]["i"])
    log = _Recorder(view.log)
    entry = Entry.parse(log.entry(index))
    check_publisher(_Recorded(view.timestamp, view.trust_file, view.checkpoint, log), entry, index)
    raw = Bundle(
        path=path,
        target=targets[path],
        target_proof=prove_target(targets, path),
        bin=leaf,
        bin_proof=view.bin_proof(bin_number(path, view.timestamp.bit_length)),
        timestamp=view.timestamp.raw,
        trust_file=view.trust_file.format(),
        entries=_proved(log, view.log),
        roots=tuple(newer_roots(view.cache, view.registry.info.version).values()),
    ).format()
    open_bundle(
        Bundle.parse(raw), Root.parse(view.registry.root), now=view.now, followed=view.trust_file.digest
    )
    return raw


def make_log_only(
    artifacts: Sequence[Artifact],
    namespace: str,
    registry: Registry,
    fetcher: Fetcher,
    *,
    now: int,
    policies: Policies,
) -> dict[str, bytes]:
    """The log-only bundle of each file of a namespace; raises the gravest error when one is refused."""
    with opened(registry, fetcher, now=now) as view:
        head, history = newest(view, namespace)
        indexes = {}
        for artifact in artifacts:
            logged = prove(head, history, artifact, policies)
            if logged.finding is not None:
                raise logged.finding
            indexes[artifact.filename] = logged.index
        history.save(memory_of(registry, namespace), head.checkpoint.root_hash)
        return {name: _log_bundle_of(head, namespace, index) for name, index in indexes.items()}


def _log_bundle_of(head: View, namespace: str, index: int) -> bytes:
    log = _Recorder(head.log)
    entry = Entry.parse(log.entry(index))
    check_publisher(_Recorded(head.timestamp, head.trust_file, head.checkpoint, log), entry, index)
    raw = LogBundle(
        namespace=namespace,
        index=index,
        checkpoint=head.checkpoint.raw,
        trust_file=head.trust_file.format(),
        entries=_proved(log, head.log),
        roots=tuple(newer_roots(head.cache, head.registry.info.version).values()),
    ).format()
    open_log_bundle(
        LogBundle.parse(raw), Root.parse(head.registry.root), now=head.now, followed=head.trust_file.digest
    )
    return raw


def _proved(recorder: _Recorder, log: LogReader) -> tuple[Logged, ...]:
    """What was read, each with its inclusion proof."""
    return tuple(
        Logged(number, entry, log.inclusion(number)) for number, entry in sorted(recorder.read.items())
    )


@dataclass
class _Recorder:
    """Reads entries, and remembers which: what a check read online is what it needs offline."""

    log: LogReader
    read: dict[int, bytes] = field(default_factory=dict)

    def entry(self, index: int) -> bytes:
        raw = self.read[index] = self.log.entry(index)
        return raw


@dataclass(frozen=True)
class _Recorded:
    """A view through a recorder."""

    timestamp: Timestamp
    trust_file: TrustFile
    checkpoint: VerifiedCheckpoint
    log: _Recorder
