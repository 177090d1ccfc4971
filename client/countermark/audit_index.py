"""The index's part of an audit: simple pages, metadata files, artifacts, and evidence that must be open.

    (10) the simple index shows exactly the listing, in JSON and in HTML: names, hashes, sizes, entries, yanked
    (11) each metadata file has the digest that was logged; with `files`, each artifact too
    (12) blobs that entries name are open after their embargo, and are the ones named; the manifest of an import,
         public from the start, is the list whose chain the import's lines in the log obeyed in (5)

A page is live, the listing is of one moment. So what an entry of the last two minutes touched may be either
as it was or as it is. Projects at odds are kept apart (`odds`): the audit catches up with the log and looks at
those once more before it believes it. Wrong hashes and files without an entry are never in motion.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urljoin

from countermark.audit_report import Finding, Notes, finding, view_finding
from countermark.audit_state import AuditState, Target
from countermark.errors import CountermarkError, MalformedError
from countermark.fetch import Fetcher, decode_json
from countermark.limits import BLOB_EMBARGO, FETCH_MAX_BYTES, MANIFEST_MAX_BYTES, PAGE_SETTLES
from countermark.manifest import ZERO_NONCE, links, parse_manifest
from countermark.pins import Registry
from countermark.simplepage import HTML_TYPE, JSON_TYPE, parse_links
from countermark.values import dataclass

_BLOB_MAX = len(ZERO_NONCE) + MANIFEST_MAX_BYTES
FORMS = {"": JSON_TYPE, "HTML ": HTML_TYPE}  # the word in findings, and what is asked for


@dataclass(frozen=True)
class _Shown:
    """One file as a page shows it."""

    filename: str
    sha256: str
    size: int | None
    yanked: bool
    url: str
    metadata: str | None  # digest, where the page offers the metadata file
    entry: tuple[int, str] | None  # index and leaf hash, where the page names them

    @classmethod
    def parse(cls, file: Mapping[str, Any], page: str) -> _Shown:
        metadata, entry = file.get("core-metadata"), file.get("_countermark")
        return cls(
            filename=str(file["filename"]),
            sha256=str(file["hashes"]["sha256"]),
            size=None if file.get("size") is None else int(file["size"]),
            yanked=file.get("yanked", False) is not False,
            url=urljoin(page, str(file["url"])),
            metadata=str(metadata["sha256"]) if isinstance(metadata, dict) else None,
            entry=(int(entry["index"]), str(entry["leaf_hash"])) if entry else None,
        )


class IndexAudit:
    """One pass over the simple index, as of the quorum time of the head."""

    def __init__(
        self,
        state: AuditState,
        registry: Registry,
        fetcher: Fetcher,
        notes: Notes,
        *,
        quorum_time: int,
        files: bool,
    ) -> None:
        self._state, self._registry, self._fetcher, self._notes = state, registry, fetcher, notes
        self._settled = quorum_time - int(PAGE_SETTLES.total_seconds())
        self._files = files
        self.odds: dict[str, list[Finding]] = {}  # by project: what its pages say otherwise than the log

    def run(self, only: Sequence[str] | None = None) -> None:
        """(10), (11) for all projects, or some."""
        projects = self._state.projects() if only is None else only
        try:
            for form in FORMS:
                self._front(projects, form, everything=only is None)
                for project in projects:
                    self._page(project, form)
        except CountermarkError as error:
            self._notes.add(view_finding(error, "the simple index"))
            self._notes.leave("the simple index: not all of it could be read")
        if not self._files:
            self._notes.leave("the bytes of artifacts (--files reads them)")

    def _front(self, projects: Sequence[str], form: str, *, everything: bool) -> None:
        """The list of all projects."""
        url = f"{self._registry.url}/simple/"
        raw = self._fetcher.get(url, headers={"Accept": FORMS[form]})
        try:
            names = _once([str(item["name"]) for item in _members(raw or b"", form)["projects"]])
        except _MALFORMED as error:
            self._odd("", "page-malformed", f"{url} is not a {form}simple index: {error!r}")
            return
        known = set(self._state.projects())
        for name in sorted(names - known if everything else names.intersection(projects) - known):
            self._odd(name, "page-extra", f"project {name!r} is on the {form}simple index, and in no entry")
        for project in (project for project in projects if project not in names):
            listed = self._state.targets_of(project)
            if not all(self._in_motion(project, name) for name in listed):
                message = f"project {project!r} has {len(listed)} listed files, and is not on the {form}simple index"
                self._odd(project, "project-missing", message)

    def _page(self, project: str, form: str) -> None:
        url = f"{self._registry.url}/simple/{project}/"
        raw = self._fetcher.get(url, headers={"Accept": FORMS[form]}, missing_ok=True)
        try:
            document: Any = {"name": project, "files": []} if raw is None else _members(raw, form)
            if document.get("name", project) != project or "files" not in document:
                raise ValueError(f"it is about {document.get('name')!r}")
            shown = [_Shown.parse(file, url) for file in document["files"]]
            names = _once([file.filename for file in shown])
        except _MALFORMED as error:
            self._odd(project, "page-malformed", f"{url} is not the {form}page of {project!r}: {error!r}")
            return
        applied, newest = self._state.targets_of(project), self._state.newest_of(project)
        for file in shown:
            said = [applied.get(file.filename), newest.get(file.filename, applied.get(file.filename))]
            self._file(project, file, form, [target for target in said if target is not None])
        for name in sorted(applied.keys() - names):
            if newest.get(name, applied[name]) is not None and not self._in_motion(project, name):
                self._odd(
                    project,
                    "page-missing",
                    f"{name} is listed by TUF, and not on the {form}page of {project!r}",
                )
        self._notes.cover(f"{form}simple pages")
        self._notes.cover(f"files on {form}simple pages", len(names))

    def _file(self, project: str, file: _Shown, form: str, listed: Sequence[Target]) -> None:
        """One file on a page; `listed` is what the log demands of it, as applied and as of the newest entry."""
        known = self._state.file(f"files/{project}/{file.filename}")
        if known is None:
            message = f"{file.filename} on the {form}page of {project!r} has no entry in the log"
            self._odd(project, "page-extra", message, page=file.sha256, log="absent")
            return
        if not listed:
            if not self._in_motion(project, file.filename):
                message = f"{file.filename} on the {form}page of {project!r} was withdrawn, or never listed"
                self._odd(project, "page-extra", message, page=file.sha256, log="not listed")
            return
        target, custom = listed[0], listed[0]["custom"]
        pairs: dict[str, tuple[object, object]] = {"page-hash": (file.sha256, target["hashes"]["sha256"])}
        if file.size is not None:
            pairs["page-size"] = (file.size, target["length"])
        if file.entry is not None:
            pairs["page-entry"] = (file.entry, (custom["i"], custom["lh"]))
        if file.metadata is not None and known[0]:  # of an imported file no entry says the metadata
            pairs["metadata"] = (file.metadata, known[0])
        for code, (page, log) in pairs.items():
            if page != log:
                where = f"the {form}page of {project!r}"
                message = f"{file.filename}: {where} says {page}, entry {custom['i']} says {log}"
                self._odd(project, code, message, page=page, log=log)
        yanked = {target["custom"]["yank"] is not None for target in listed}
        if file.yanked not in yanked and not self._in_motion(project, file.filename):
            message = f"{file.filename}: the {form}page says yanked {file.yanked}, the log {not file.yanked}"
            self._odd(project, "page-yanked", message, page=file.yanked, log=not file.yanked)
        if form == "":  # both forms offer the same bytes, or were at odds above
            self._bytes(project, file, target, known[0])

    def _bytes(self, project: str, file: _Shown, target: Target, metadata: str) -> None:
        """(11) Metadata files that were not read before; artifacts each time they are asked for."""
        path = f"files/{project}/{file.filename}"
        if not file.url.startswith(f"{self._registry.url}/"):
            self._notes.leave("bytes that pages offer at other addresses")
            return
        if file.metadata is not None and metadata and not self._state.is_checked(path):
            raw = self._get(f"{file.url}.metadata", FETCH_MAX_BYTES)
            if self._same(raw, metadata, "metadata", f"the metadata of {file.filename}"):
                with self._state.transaction():
                    self._state.check_file(path)
                self._notes.cover("metadata files")
        if self._files:
            raw = self._get(file.url, target["length"] + 1)
            if self._same(raw, target["hashes"]["sha256"], "artifact", file.filename):
                self._notes.cover("artifacts")

    def _same(self, raw: bytes | None, sha256: str, code: str, what: str) -> bool:
        if raw is None:
            self._notes.add(finding(f"{code}-missing", f"{what} is not served"))
            return False
        found = hashlib.sha256(raw).hexdigest()
        if found != sha256:
            message = f"{what} has SHA-256 {found}, its entry says {sha256}"
            self._notes.add(finding(code, message, served=found, log=sha256), {"served": raw})
        return found == sha256

    def _get(self, url: str, max_bytes: int) -> bytes | None:
        return self._fetcher.get(url, max_bytes=max_bytes, missing_ok=True)

    def _in_motion(self, project: str, filename: str) -> bool:
        known = self._state.file(f"files/{project}/{filename}")
        moving = known is not None and known[1] > self._settled
        if moving:
            self._notes.cover("files in motion: touched in the last two minutes")
        return moving

    def _odd(self, project: str, code: str, message: str, **values: object) -> None:
        self.odds.setdefault(project, []).append(finding(code, message, None, **values))


_MALFORMED = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError)


def _members(raw: bytes, form: str) -> Any:
    """A page as a JSON document, whichever form it has. Of the list of projects, links are projects."""
    if FORMS[form] == JSON_TYPE:
        return decode_json(raw)
    links = parse_links(raw)
    return {"files": links, "projects": [{"name": link["filename"]} for link in links]}


def _once(names: Sequence[str]) -> set[str]:
    """The names; ValueError when one is there twice, as readers differ in which of the two they take."""
    found = set(names)
    if len(found) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is on it twice")
    return found


def check_manifests(state: AuditState, registry: Registry, fetcher: Fetcher, notes: Notes) -> None:
    """(12) The manifest that an import names by digest must be the one that it binds by the chain over its lines.

    Rules hold every line in the log against the chain, so where the two agree the manifest is what was imported. One
    that is not served is asked for again by the next run, and told by `check_blobs` once its time is over.
    """
    for entry, sha256, chain, count in state.manifests():
        try:
            raw = fetcher.get(f"{registry.url}/blobs/{sha256}", max_bytes=_BLOB_MAX, missing_ok=True)
        except CountermarkError as error:
            notes.add(view_finding(error, "manifests of imports"))
            notes.leave("manifests of imports: not all of them could be read")
            return
        if raw is None:
            notes.leave(f"the manifest of import {entry}: it is not open")
        elif (found := hashlib.sha256(raw).hexdigest()) != sha256:
            _other_blob(sha256, entry, found, raw, notes)
        elif (said := _bound(raw)) != (count, chain):
            lines, link = said
            message = f"the manifest {sha256} has {lines} lines and the link {link}, import {entry} says"
            message += f" {count} and {chain}"
            notes.add(finding("manifest", message, manifest=link, entry=chain), {"manifest": raw})
        else:
            with state.transaction():
                state.compare_manifest(entry, sha256)
            notes.cover("manifests of imports", 1)


def _bound(raw: bytes) -> tuple[int, str]:
    """How many lines a manifest's blob has, and the first link of the chain over them."""
    try:
        if not raw.startswith(ZERO_NONCE):
            raise MalformedError("it is not public from the start")
        rows = [line.row for line in parse_manifest(raw[len(ZERO_NONCE) :])]
    except MalformedError as error:
        return 0, f"of no manifest ({error})"
    return len(rows), links(rows)[0]


def _other_blob(sha256: str, entry: int, found: str, raw: bytes, notes: Notes) -> None:
    message = f"blob {sha256}, named by entry {entry}, is served with SHA-256 {found}"
    notes.add(finding("blob", message, entry=sha256, served=found), {"served": raw})


def check_blobs(
    state: AuditState, registry: Registry, fetcher: Fetcher, quorum_time: int, notes: Notes
) -> None:
    """(12) What entries name by digest, once it must be open."""
    embargo = int(BLOB_EMBARGO.total_seconds())
    for sha256, entry, time in state.closed_blobs(quorum_time - embargo):
        try:
            raw = fetcher.get(f"{registry.url}/blobs/{sha256}", max_bytes=_BLOB_MAX, missing_ok=True)
        except CountermarkError as error:
            notes.add(view_finding(error, "blobs"))
            notes.leave("blobs that must be open: not all of them could be read")
            return
        if raw is None:
            days = (quorum_time - time) // 86400
            message = f"blob {sha256}, named by entry {entry} {days} days ago, is not open"
            notes.add(finding("blob-closed", message, entry=entry, days=days))
        elif (found := hashlib.sha256(raw).hexdigest()) != sha256:
            _other_blob(sha256, entry, found, raw, notes)
        else:
            with state.transaction():
                state.open_blob(sha256)
            notes.cover("blobs opened")
