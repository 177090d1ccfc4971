"""Offers: what may be had of a project, judged file by file, and the simple page that says so.

    hints = look_up("acme", registry, fetcher)            # None: nobody knows it
    found, report = judge({"acme": hints}, registry, fetcher, now=now, policies=policies)
    judged = found["acme"]
    judged.offers["acme-1.0-py3-none-any.whl"].error      # None: served; else why not
    document("acme", judged, for_pip=False)               # the page (simplepage.py)

Names to look up come from the registry's page and from its API, which also knows withdrawn files. They are hints:
each name goes through verify.py like a file on disk, and hash, length, date and metadata's hash come from TUF and the
log. What nobody looked up is not offered, so a registry can still leave a file out; it cannot put one in.

Projects that are asked for together are judged against one view: to open one costs as much as some fifty files.

Withdrawn files are not on the page, because uv installs from its cache what a page lists. Only pip, which always
asks for the file, sees them: as yanked, with the reason. What contradicts the log stays on the page under its
*logged* hash, so that whoever wants it is told why not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from countermark.clientpolicy import Policies
from countermark.entry import Entry
from countermark.errors import CountermarkError, EvidenceError, MalformedError, NetworkError, PolicyError
from countermark.fetch import Fetcher, decode_json
from countermark.limits import FETCH_MAX_BYTES, PROXY_FILES_MAX
from countermark.names import parse_filename
from countermark.pins import Registry
from countermark.simplepage import JSON_TYPE, META
from countermark.tlog import merkle
from countermark.trust import View
from countermark.values import dataclass
from countermark.verified import Artifact, Outcome, Refused, Report, TamperedError, Verified
from countermark.verify import verify

HEX_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Offer:
    """One file and what came of its verification. `error` says why it is not served.

    `is_logged` says that the artifact's hash is the one TUF lists, not one that somebody claims.
    """

    outcome: Outcome
    error: CountermarkError | None
    length: int = 0
    yank: int | None = None
    metadata_sha256: str | None = None
    time: int | None = None
    is_logged: bool = False

    @property
    def artifact(self) -> Artifact:
        return self.outcome.artifact


@dataclass(frozen=True)
class Judged:
    """A project at one moment: its files by name, or why nothing can be said of any."""

    offers: Mapping[str, Offer]
    at: int
    error: CountermarkError | None = None

    def refused(self) -> list[Refused]:
        """The files that are not served, worst first."""
        found = [Refused(o.artifact, o.error) for o in self.offers.values() if o.error is not None]
        return sorted(found, key=lambda refused: -refused.exit_code)

    @property
    def served(self) -> list[Offer]:
        return [offer for offer in self.offers.values() if offer.error is None]


@dataclass(frozen=True)
class Hint:
    """What somebody says of a file. Nothing but its name counts when TUF lists it."""

    filename: str
    version: str
    sha256: str
    has_metadata: bool


# --- judging ----------------------------------------------------------------------------------------------


def judge(
    projects: Mapping[str, Sequence[Hint]],
    registry: Registry,
    fetcher: Fetcher,
    *,
    now: int,
    policies: Policies,
) -> tuple[dict[str, Judged], Report | None]:
    """Verify every file that anybody names of these projects; without a report where no view could be had."""
    views: list[View] = []
    targets: dict[str, Any] = {}

    def wanted(view: View) -> list[Artifact]:
        views.append(view)
        found = [
            _artifact(view, project, hint, targets) for project, hints in projects.items() for hint in hints
        ]
        return [artifact for artifact in found if artifact is not None]

    try:
        report = verify(wanted, registry, fetcher, now=now, policies=policies)
    except (CountermarkError, OSError) as found:
        error = found if isinstance(found, CountermarkError) else _disk(found)
        return {project: unjudged(project, hints, error, now) for project, hints in projects.items()}, None
    with_metadata = {hint.filename for hints in projects.values() for hint in hints if hint.has_metadata}
    offers: dict[str, dict[str, Offer]] = {project: {} for project in projects}
    for outcome in report.outcomes:  # a file name says which project it is of
        filename = outcome.artifact.filename
        offers[outcome.artifact.project][filename] = _offer(
            views[0], outcome, targets.get(filename), filename in with_metadata
        )
    return {project: Judged(found, now) for project, found in offers.items()}, report


def _disk(error: OSError) -> NetworkError:
    """What the network refuses has errors of its own."""
    return NetworkError(f"this machine's disk: {error.strerror or error}", hint="make room, and try again")


def unjudged(project: str, hints: Sequence[Hint], error: CountermarkError, now: int) -> Judged:
    """What is said of a project of which nothing could be proved, and why."""
    blank = [Refused(Artifact(project, h.version, h.filename, h.sha256), error) for h in hints]
    return Judged({refused.artifact.filename: Offer(refused, error) for refused in blank}, now, error)


def look_up(project: str, registry: Registry, fetcher: Fetcher) -> list[Hint] | None:
    """The files of a project that the registry names; None when it knows no such project."""
    url = registry.url
    accept = {"Accept": JSON_TYPE}
    page = fetcher.get(f"{url}/simple/{project}/", max_bytes=FETCH_MAX_BYTES, missing_ok=True, headers=accept)
    try:
        known = fetcher.get(f"{url}/api/v1/files/{project}", max_bytes=FETCH_MAX_BYTES, missing_ok=True)
    except NetworkError:
        known = None  # then nobody says what was withdrawn
    if page is None and known is None:
        return None
    hints: dict[str, Hint] = {}
    try:
        for item in decode_json(known)["files"] if known else []:
            _add(hints, project, item["filename"], item["sha256"], has_metadata=False)
        for item in decode_json(page)["files"] if page else []:
            has_metadata = bool(item.get("core-metadata"))
            sha256 = item.get("hashes", {}).get("sha256", "")
            _add(hints, project, item["filename"], sha256, has_metadata=has_metadata)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise MalformedError(f"{url}/simple/{project}/ is not a simple page in JSON") from None
    if len(hints) > PROXY_FILES_MAX:
        raise PolicyError(f"{project} has {len(hints)} files; at most {PROXY_FILES_MAX} are judged")
    return list(hints.values())


def _add(hints: dict[str, Hint], project: str, filename: str, sha256: str, *, has_metadata: bool) -> None:
    try:
        name = parse_filename(filename)
    except MalformedError:
        return  # no installer takes it for a file of this project
    if name.project == project:
        hints[filename] = Hint(filename, name.version, str(sha256), has_metadata)


def _artifact(view: View, project: str, hint: Hint, targets: dict[str, Any]) -> Artifact | None:
    """The file as TUF lists it; as it is claimed to be where TUF lists none. None without even a claim."""
    claimed = Artifact(project, hint.version, hint.filename, hint.sha256)
    try:
        target = view.target(claimed.target)
    except CountermarkError:
        return claimed  # verify meets the same error, and says it
    if target is None:
        return claimed if HEX_SHA256.fullmatch(hint.sha256) else None
    targets[hint.filename] = target
    return Artifact(project, hint.version, hint.filename, target.sha256, target.length)


def _offer(view: View, outcome: Outcome, target: Any, has_metadata: bool) -> Offer:
    if target is None:
        # Even where the policy lets it pass: nobody knows which bytes would be the right ones.
        error = PolicyError("nothing is known of it") if isinstance(outcome, Verified) else outcome.error
        return Offer(outcome, error)
    if isinstance(outcome, Refused):
        return Offer(outcome, outcome.error, target.length, target.yank, is_logged=True)
    offer = Offer(outcome, None, target.length, target.yank, is_logged=True)
    if not isinstance(outcome, Verified):
        return offer
    try:
        raw = view.log.entry(outcome.index)
        if merkle.leaf_hash(raw).hex() != outcome.leaf_hash:
            raise TamperedError(f"entry #{outcome.index} is not the one that was verified", entry=raw)
    except NetworkError:
        return offer  # offline, from what this machine verified before: without a date and metadata
    except EvidenceError as error:
        return Offer(outcome, error, target.length, target.yank, is_logged=True)
    entry = Entry.parse(raw)
    if (
        entry.statement is None
    ):  # imported: without metadata, and without a date, since nobody knows of an upload
        return offer
    metadata = entry.statement.predicate["metadata_sha256"] if has_metadata else None
    return Offer(outcome, None, target.length, target.yank, metadata, entry.time, is_logged=True)


# --- the page ---------------------------------------------------------------------------------------------


def document(project: str, judged: Judged, *, for_pip: bool) -> dict[str, Any]:
    """The simple page of a project, in the shape that simplepage.py writes."""
    shown = [offer for offer in judged.offers.values() if _is_shown(offer, for_pip)]
    page: dict[str, Any] = {
        "meta": META,
        "name": project,
        "versions": sorted({offer.artifact.version for offer in judged.served}),
        "files": [_file(project, offer, judged) for offer in shown],
    }
    refused = judged.refused()
    if refused and not judged.served:
        page["project-status"] = {"status": "quarantined", "reason": str(refused[0].error)}
    return page


def _is_shown(offer: Offer, for_pip: bool) -> bool:
    if offer.error is None or for_pip:
        return True
    return offer.error.exit_code == EvidenceError.exit_code and offer.is_logged


def _file(project: str, offer: Offer, judged: Judged) -> dict[str, Any]:
    name, error = offer.artifact.filename, offer.error
    yanked: str | bool = False if offer.yank is None else f"yanked by entry {offer.yank} of the log"
    if error is not None and error.exit_code != EvidenceError.exit_code and judged.error is None:
        yanked = str(error)  # so that pip takes another version unless this one is asked for
    file: dict[str, Any] = {
        "filename": name,
        "url": f"../../packages/{project}/{quote(name)}",
        "hashes": {"sha256": offer.artifact.sha256} if offer.is_logged else {},
        "yanked": yanked,
    }
    if offer.is_logged:
        file["size"] = offer.length
    if offer.time is not None:
        file["upload-time"] = datetime.fromtimestamp(offer.time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if offer.metadata_sha256 is not None and error is None:
        file["core-metadata"] = {"sha256": offer.metadata_sha256}
    return file
