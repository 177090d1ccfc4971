"""Approving: look at a release that waits, see what is new in it, and sign the list of its files.

    countermark approve acme 1.1

    (1) each file that waits is looked up in the log: name, hash and length are the publish entry's
    (2) its bytes come from the registry and have that hash; metadata and entry points are read from them
    (3) the same of the release before, whose files are public
    (4) the difference is shown (compare.py), somebody decides, and exactly this list is signed

The list of files is the API's word, and need not be believed: a list that leaves one out has another digest than the
one the log's rules compute, and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from countermark.actfile import Act
from countermark.afterwards import Known, Owner, Recorded, find
from countermark.compare import Contents, read_contents
from countermark.countersign import newest
from countermark.disk import read_file
from countermark.entry import Entry
from countermark.errors import CountermarkError, EvidenceError, MalformedError, PolicyError, UsageError
from countermark.fetch import decode_json
from countermark.filelist import files_digest
from countermark.limits import COMPARED_MAX_BYTES
from countermark.logreader import LogReader
from countermark.names import normalise_version, parse_filename
from countermark.place import Place
from countermark.statement import Statement
from countermark.values import dataclass


@dataclass(frozen=True)
class File:
    """A file of a release, as its publish entry says."""

    filename: str
    sha256: str
    length: int
    index: int


@dataclass(frozen=True)
class Release:
    """What waits for approvals, and who has said what (accounts, by the API's word)."""

    project: str
    version: str
    prev: str | None
    files: tuple[File, ...]
    needed: int
    approved: tuple[str, ...]
    rejected: tuple[str, ...]
    missing: tuple[str, ...]


def look(owner: Owner, project: str, version: str) -> Release:
    """(1) The release. PolicyError: none of its files waits."""
    try:
        version = normalise_version(version)
    except MalformedError as error:
        raise UsageError(str(error)) from None
    url = f"{owner.view.registry.url}{Place.parse(project).door('releases')}/{quote(version, safe='')}"
    raw = owner.fetcher.get(url, missing_ok=True)
    try:
        document: dict[str, Any] = decode_json(raw) if raw else {"files": [], "approvals": None, "prev": None}
        waits = document["approvals"]
        files = [(str(item["filename"]), int(item["index"])) for item in document["files"]]
        if waits is None or not files:
            raise PolicyError(
                f"no file of {project} {version} waits for approval",
                hint="it is listed, or its project requires none: countermark status FILE",
            )
        log = newest(owner)
        prev, needed = document["prev"], int(waits["needed"])
        people = [tuple(map(str, waits[name])) for name in ("approved", "rejected", "missing")]
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedError(f"{url} is not a release we can read: {error!r}") from None
    found = tuple(
        sorted((_look_up(log, project, version, *item) for item in files), key=lambda f: f.filename)
    )
    return Release(project, version, None if prev is None else str(prev), found, needed, *people)


def _look_up(log: LogReader, project: str, version: str, filename: str, index: int) -> File:
    statement = Entry.parse(log.entry(index)).statement
    said = statement and (
        *(statement.type, statement.subject_name, str(Place.of(statement.predicate))),
        statement.predicate.get("version"),
    )
    if statement is None or said != ("publish", filename, project, version):
        raise EvidenceError(
            f"entry #{index} is said to publish {filename} of {project} {version}; it is {said}"
        )
    return File(filename, statement.subject_sha256, statement.predicate["length"], index)


def contents(owner: Owner, release: Release, files: Sequence[Path] = ()) -> list[Contents]:
    """(2) What is in the files that wait. Those that are too long or no archives are named without it.

    In a namespace the registry has no bytes; there `files` are this person's own, taken from who serves them.
    """
    if Place.parse(release.project).namespace:
        return read_own(files, [(file.filename, file.sha256, file.length) for file in release.files])
    url = f"{owner.view.registry.url}/api/v1/staged/{quote(release.project)}"
    return [_contents(owner, file.filename, file.sha256, file.length, url) for file in release.files]


def read_own(files: Sequence[Path], wanted: Sequence[tuple[str, str, int]]) -> list[Contents]:
    """What is in a person's own copies of files, each of which has the hash that its entry says."""
    at = {path.name: path for path in files}
    if unknown := sorted(at.keys() - {name for name, _, _ in wanted}):
        raise UsageError(f"{unknown[0]} is no file of this release that waits")
    found = list[Contents]()
    for name, sha256, length in wanted:
        if (path := at.get(name)) is None:
            remark = "served elsewhere: name your copy of it behind the version to see what is in it"
            found.append(Contents(name, length, remark=remark))
            continue
        data = read_file(path, max_bytes=COMPARED_MAX_BYTES)
        if data is None:
            raise UsageError(f'"{path}" is no file')
        found.append(read_contents(name, data, sha256))
    return found


def before(owner: Owner, release: Release) -> tuple[str | None, list[Contents]]:
    """(3) The listed release that was published last before this one, and what is in it; of a namespace, none."""
    if Place.parse(release.project).namespace:
        return None, []
    first = min(file.index for file in release.files)
    known = _older(owner, release.project, first)
    if not known:
        return None, []
    version = _version(known[0])
    url = f"{owner.view.registry.url}/packages/{quote(release.project)}"
    files = [file for file in known if _version(file) == version]
    return version, [_contents(owner, file.filename, file.sha256, None, url) for file in files]


def _older(owner: Owner, project: str, first: int) -> list[Known]:
    """The listed files with an entry before this one, newest first, each looked up in the log."""
    url = f"{owner.view.registry.url}/api/v1/files/{quote(project, safe='')}"
    raw = owner.fetcher.get(url, missing_ok=True)
    try:
        files = decode_json(raw)["files"] if raw else []
        older = [item for item in files if item["state"] == "listed" and item["index"] is not None]
        names = [(int(item["index"]), str(item["filename"])) for item in older if int(item["index"]) < first]
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedError(f"{url} is not a list of files we can read: {error!r}") from None
    versions: list[Known] = []
    for _, filename in sorted(names, reverse=True):
        (known,) = find(owner.view, owner.fetcher, filename, None)
        if versions and _version(known) != _version(versions[0]):
            break
        versions.append(known)
    return versions


def _version(known: Known) -> str:
    return parse_filename(known.filename).version


def _contents(owner: Owner, filename: str, sha256: str, length: int | None, url: str) -> Contents:
    if length is not None and length > COMPARED_MAX_BYTES:
        return Contents(filename, length, remark="too long to compare here")
    try:
        data = owner.fetcher.get(
            f"{url}/{quote(filename, safe='')}", max_bytes=COMPARED_MAX_BYTES, headers=owner.session.bearer
        )
        return read_contents(filename, data or b"", sha256)
    except EvidenceError:
        raise
    except CountermarkError as error:
        return Contents(filename, length or 0, remark=str(error))


def decide(owner: Owner, release: Release, decision: str) -> Recorded:
    """(4) Sign the list of files, `approve` or `reject`, and hand it in."""
    return owner.record(_statement(owner, release, decision))


def written(owner: Owner, release: Release, decision: str) -> Act:
    """(4) The same without handing it in: for a machine that has the key, and where nobody is signed in."""
    assert owner.signer is not None
    return Act.begin(owner.view.registry.url, _statement(owner, release, decision), owner.signer)


def check_act(owner: Owner, act: Act) -> Release:
    """The release that a written approval is about. PolicyError: another file, or somebody's word, came since."""
    said = act.statement.predicate
    release = look(owner, act.project, str(said["version"]))
    ours = _statement(owner, release, str(said["decision"])).predicate
    for name in ("origin", "prev", "files_sha256"):
        if said[name] != ours[name]:
            raise PolicyError(
                f"the act says {name} {said[name]}, {act.project} {release.version} has {ours[name]}",
                hint="something was logged since it was signed, or it is for elsewhere: approve anew",
            )
    return release


def _statement(owner: Owner, release: Release, decision: str) -> Statement:
    place = Place.parse(release.project)
    predicate = {
        **place.binding,
        "origin": owner.view.trust_file.origin,
        "prev": release.prev,
        "version": release.version,
        "files_sha256": files_digest((file.filename, file.sha256) for file in release.files),
        "decision": decision,
    }
    return Statement.about(place.subject, "approve", predicate)


def words(release: Release, account: str) -> Sequence[str]:
    """Who has approved, and who could; one's own account is "you"."""

    def names(accounts: Sequence[str]) -> str:
        return ", ".join("you" if each == account else each for each in accounts)

    lines = [f"{len(release.approved)} of {release.needed} approvals"]
    lines += [f"approved by {names(release.approved)}"] if release.approved else []
    lines += [f"rejected by {names(release.rejected)}"] if release.rejected else []
    return [*lines, f"missing: {names(release.missing)}"] if release.missing else lines
