"""Offers: what may be had of a project, judged file by file, and the simple page that says so.

    hints = look_up("acme", registry, fetcher)            # None: nobody knows it
    found, report = judge({"acme": hints}, registry, fetcher, now=now, policies=policies)
    judged = found["acme"]
    judged.offers["acme-1.0-py3-none-any.whl"].error      # None: served; else why not
    document("acme", judged)                              # the page (simplepage.py)

Names to look up come from the registry's page and from its API, which also knows withdrawn files. They are hints:
each name goes through verify.py like a file on disk, and hash, length, date and metadata's hash come from TUF and the
log. What nobody looked up is not offered, so a registry can still leave a file out; it cannot put one in.

Projects that are asked for together are judged against one view: to open one costs as much as some fifty files.

Withdrawn files are not on the page, because uv installs from its cache what a page lists. What contradicts the log
stays on the page under its *logged* hash, so that whoever wants it is told why not.

For a version of which nothing is left the page lists two *notices*: names of wheels that nobody has, so that no
cache knows them either. Whoever asks for one is refused with the reason; there every installer shows it (ADR 40):

    acme-1.0+refused-py3-none-any.whl     for who resolves: `==1.0` means it, too; METADATA of 1.0 in a cache does not
    acme-1.0-0refused-py3-none-any.whl    for who has a lock: exactly that version, with the hash that the log has
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
from countermark.names import normalise_version, parse_filename
from countermark.pins import Registry
from countermark.simplepage import JSON_TYPE, META
from countermark.tlog import merkle
from countermark.trust import View
from countermark.values import dataclass
from countermark.verified import Artifact, Outcome, Refused, Report, TamperedError, Verified
from countermark.verify import verify

HEX_SHA256 = re.compile(r"[0-9a-f]{64}")
REFUSED = "refused"  # no file's version has it in its local part, no wheel in its build tag: notices have
NO_HASH = "0" * 64  # of no bytes that anybody knows


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

    @property
    def shown(self) -> list[Offer]:
        """What the page lists under its own name."""
        return [offer for offer in self.offers.values() if _is_shown(offer)]

    def named(self, filename: str) -> Offer | None:
        """The file of that name, or the one that a notice of that name is about."""
        if (offer := self.offers.get(filename)) is not None:
            return offer
        return next((notice.about for notice in self.notices() if notice.filename == filename), None)

    def notices(self) -> list[Notice]:
        """Two names for each version of which nothing is shown, and the worst that was found of its files."""
        shown = {_version(offer) for offer in self.shown}
        worst: dict[str, Offer] = {}
        for offer in self.offers.values():
            version = _version(offer)
            if version not in shown and (version not in worst or _code(offer) > _code(worst[version])):
                worst[version] = offer
        return [notice for offer in worst.values() for notice in self._notices(offer)]

    def _notices(self, offer: Offer) -> tuple[Notice, Notice]:
        # Yanked, another version is taken unless this one is asked for. What is false is not passed over in silence.
        loud = not self.served or _code(offer) == EvidenceError.exit_code
        version = offer.artifact.version
        marked = f"{version}{'.' if '+' in version else '+'}{REFUSED}"
        sha256 = offer.artifact.sha256 if offer.is_logged else NO_HASH
        return (
            Notice(_wheel(offer, marked), marked, NO_HASH, offer, is_yanked=not loud),
            Notice(_wheel(offer, f"{version}-0{REFUSED}"), version, sha256, offer, is_yanked=True),
        )


@dataclass(frozen=True)
class Notice:
    """A name on the page that is no file's: whoever asks for it is told why `about` is not served."""

    filename: str
    version: str
    sha256: str
    about: Offer
    is_yanked: bool


def _wheel(offer: Offer, rest: str) -> str:
    return f"{offer.artifact.project.replace('-', '_')}-{rest}-py3-none-any.whl"


def _version(offer: Offer) -> str:
    """In one spelling: to an installer 1.0 is 1.0.0."""
    return normalise_version(offer.artifact.version, strip_zeros=True)


def _code(offer: Offer) -> int:
    return 0 if offer.error is None else offer.error.exit_code


def _is_shown(offer: Offer) -> bool:
    return offer.error is None or (offer.is_logged and _code(offer) == EvidenceError.exit_code)


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
    if name.project == project and not _is_notice(filename, name.version):
        hints[filename] = Hint(filename, name.version, str(sha256), has_metadata)


def _is_notice(filename: str, version: str) -> bool:
    """Whether a file is named as only notices are: from a cache it would be installed while a notice is shown."""
    parts = filename.split("-")
    build = parts[2] if filename.endswith(".whl") and len(parts) == 6 else ""
    return REFUSED in build.lower() or REFUSED in version.partition("+")[2]


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


def document(project: str, judged: Judged) -> dict[str, Any]:
    """The simple page of a project, in the shape that simplepage.py writes."""
    shown, notices = judged.shown, judged.notices()
    versions = {offer.artifact.version for offer in shown} | {notice.version for notice in notices}
    page: dict[str, Any] = {
        "meta": META,
        "name": project,
        "versions": sorted(versions),
        "files": [_file(project, offer) for offer in shown] + [_notice(project, each) for each in notices],
    }
    refused = judged.refused()
    if refused and not judged.served:
        page["project-status"] = {"status": "quarantined", "reason": str(refused[0].error)}
    return page


def _file(project: str, offer: Offer) -> dict[str, Any]:
    file: dict[str, Any] = {
        "filename": offer.artifact.filename,
        "url": _url(project, offer.artifact.filename),
        "hashes": {"sha256": offer.artifact.sha256},
        "size": offer.length,
        "yanked": False if offer.yank is None else f"yanked by entry {offer.yank} of the log",
    }
    if offer.time is not None:
        file["upload-time"] = datetime.fromtimestamp(offer.time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if offer.metadata_sha256 is not None and offer.error is None:
        file["core-metadata"] = {"sha256": offer.metadata_sha256}
    return file


def _notice(project: str, notice: Notice) -> dict[str, Any]:
    return {
        "filename": notice.filename,
        "url": _url(project, notice.filename),
        "hashes": {"sha256": notice.sha256},
        "yanked": str(notice.about.error) if notice.is_yanked else False,
    }


def _url(project: str, filename: str) -> str:
    return f"../../packages/{project}/{quote(filename)}"
