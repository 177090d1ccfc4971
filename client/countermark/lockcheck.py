"""Locks: verify every hash that a lock pins, for the project and version it is pinned for.

    report = verify_locks([read_lock(Path("uv.lock"))], registry, fetcher, now=now, policies=policies)

A lock that was made after an insider's swap pins the swapped bytes, so a hash alone is not enough: it must be logged
as a file of that project and version. Requirements pin hashes without file names. For those the project's simple page
says which files there are, which nobody vouches for, and TUF decides what each is worth.

What no hash covers (git, folders, builds) is refused or let pass by policy, like a file that is not in the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from countermark import lookahead
from countermark.clientpolicy import Policies
from countermark.demanded import refused_or_let_pass
from countermark.errors import CountermarkError, MalformedError, PolicyError
from countermark.fetch import Fetcher
from countermark.limits import PREFETCH_FROM
from countermark.lockfile import LockFile, Pinned, Unprovable
from countermark.names import normalise_version, parse_filename
from countermark.pins import Registry
from countermark.prefetch import Tick, quiet
from countermark.trust import View
from countermark.unlisted import files_of, page_of, simple_page
from countermark.values import replace
from countermark.verified import Artifact, LetPass, Outcome, Refused, Report
from countermark.verify import verify

Page = list[dict[str, Any]]  # the files that a simple page lists


def verify_locks(
    locks: Sequence[LockFile],
    registry: Registry,
    fetcher: Fetcher,
    *,
    now: int,
    policies: Policies,
    remarks: Sequence[str] = (),
    loose: Sequence[Unprovable] | None = None,
    allow_build: bool | None = None,
    tick: Tick = quiet,
    attestations: bool = False,
) -> Report:
    """Verify every hash of every lock for its pinned project and version.

    What no hash covers is refused or let pass by policy, like a file that is not in the log; `loose` are
    those items, where a command leaves some of them out. `allow_build` is whether an installer that is about to start
    may build from source; None: none is.
    """
    pins = sorted(
        {pin for lock in locks for pin in lock.pinned}, key=lambda p: (p.project, p.version, p.sha256)
    )

    lock_pins: dict[str, frozenset[str]] = {}
    for pin in pins:
        if pin.keys:
            lock_pins[pin.project] = lock_pins.get(pin.project, frozenset()) | pin.keys
    policies = replace(policies, lock_pins=lock_pins)

    def artifacts(view: View) -> list[Artifact]:
        pages = _pages(view, [pin for pin in pins if pin.filename is None], tick)
        known = frozenset(pin.sha256 for pin in pins)
        return [_artifact(view, pin, pages, known) for pin in pins]

    report = verify(
        artifacts, registry, fetcher, now=now, policies=policies, remarks=remarks, tick=tick,
        attestations=attestations,
    )  # fmt: skip
    if loose is None:
        loose = [item for lock in locks for item in lock.unprovable]
    policies = policies if report.policy is None else policies.with_central(report.policy)
    outcomes = tuple(_unproved(item, policies, now=now, allow_build=allow_build) for item in loose)
    return replace(report, outcomes=report.outcomes + outcomes)


def _unproved(item: Unprovable, policies: Policies, *, now: int, allow_build: bool | None) -> Outcome:
    artifact = Artifact(item.project, item.version or "", "", "")
    if allow_build is False and item.is_source:
        error = PolicyError(
            f"not provable: {item.project}: {item.reason}",
            hint="`countermark run --allow-build -- ...` lets it be built, with tools that come through the proxy",
            reason="not-provable",
        )
        return Refused(artifact, error, "no build without --allow-build")
    leave_out = (
        "its build takes tools that no lock pins; --no-install-project (uv) or --no-root (poetry) leaves it out, "
        "`countermark run --allow-build` lets it be built"
    )
    hint = leave_out if item.folder == "." else None
    error = PolicyError(f"not provable: {item.project}: {item.reason}", hint=hint, reason="not-provable")
    if allow_build and (item.is_source or item.folder is not None):
        return LetPass(artifact, error, "--allow-build")
    return refused_or_let_pass(artifact, error, policies, now=now)


def _pages(view: View, pins: Sequence[Pinned], tick: Tick) -> dict[str, Page]:
    """The simple page of each project of these; the bins of the files that may be meant are brought beside it."""
    projects, url = list(dict.fromkeys(pin.project for pin in pins)), view.registry.url
    if view.online and len(projects) >= PREFETCH_FROM:
        view.fetcher.bring([page_of(url, project) for project in projects], tick)
    pages = {project: simple_page(view.fetcher, url, project) for project in projects}
    meant = [(pin, item["filename"]) for pin in pins for item in pages[pin.project]]
    paths = [f"files/{pin.project}/{filename}" for pin, filename in meant if _is_of(filename, pin)]
    lookahead.of_bins(view, list(dict.fromkeys(paths)), tick)
    return pages


def _artifact(view: View, pin: Pinned, pages: Mapping[str, Page], known: frozenset[str]) -> Artifact:
    """The file a pin means. Requirements name none: the simple page is asked, and TUF decides what it is worth."""
    if pin.filename is not None:
        return Artifact(pin.project, pin.version, pin.filename, pin.sha256)
    candidates = [item for item in pages[pin.project] if _is_of(item["filename"], pin)]
    others, unseen = [], []
    for item in candidates:
        try:
            target = view.target(f"files/{pin.project}/{item['filename']}")
        except CountermarkError:
            unseen.append(item)  # verification meets the same error, and it is of this file alone
            continue
        if target is not None and target.sha256 == pin.sha256:
            return Artifact(pin.project, pin.version, item["filename"], pin.sha256)
        if target is None or target.sha256 not in known:
            others.append(item)  # not the file of another hash of this lock
    # No target has this hash. A page that claims it does is caught by verifying the file it names; one that was
    # withdrawn is on no page, and the log says why.
    claimed = [item for item in candidates if _page_hash(item) == pin.sha256]
    gone = [] if claimed or unseen else [i for i in files_of(view, pin.project) if _is_gone(i, pin)]
    chosen = claimed or unseen or gone or (others if len(others) == 1 else [])
    filename = chosen[0]["filename"] if chosen else ""
    return Artifact(pin.project, pin.version, filename, pin.sha256)


def _is_gone(item: Mapping[str, Any], pin: Pinned) -> bool:
    return item.get("sha256") == pin.sha256 and _is_of(item["filename"], pin)


def _is_of(filename: str, pin: Pinned) -> bool:
    try:
        name = parse_filename(filename)
        same = normalise_version(name.version, strip_zeros=True) == normalise_version(
            pin.version, strip_zeros=True
        )
    except MalformedError:
        return False
    return name.project == pin.project and same


def _page_hash(item: Mapping[str, Any]) -> str | None:
    hashes = item.get("hashes")
    return str(hashes.get("sha256")) if isinstance(hashes, Mapping) else None
