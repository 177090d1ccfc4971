"""Unlisted: why the index does not list a file, or has none with that hash.

The registry's own answers (its API, its simple pages) are hints where to look; nobody vouches for them.
What they say ends in an entry of the log, or it ends nowhere:

    no entry, and no page lists it       5  there is no such file here
    no entry, but a page lists it        7  listed without entry
    an entry with another hash           7  these bytes were never published under that name
    an entry with this hash              6  held or removed since, or 5, not listed yet
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from countermark.entry import Entry
from countermark.errors import CountermarkError, MalformedError, NetworkError, PolicyError, WithdrawnError
from countermark.fetch import Fetcher, decode_json
from countermark.limits import FETCH_MAX_BYTES
from countermark.names import normalise_filename
from countermark.prefetch import Wanted
from countermark.signature import check_publisher
from countermark.trust import View
from countermark.verified import Artifact, TamperedError
from countermark.withdrawals import described


def why_unlisted(view: View, artifact: Artifact) -> CountermarkError:
    """Why the index does not list a file. The registry's answer is only a hint where to look in the log."""
    name = f"{quote(artifact.project)}/{quote(artifact.filename, safe='')}"
    answer = ask(view, f"/api/v1/files/{name}")
    index = answer.get("index")
    if type(index) is not int or index >= view.checkpoint.size:
        if artifact.filename in _page_files(view, artifact.project):
            return TamperedError(
                f"{artifact.filename} is on the simple index, and the log has no entry for it"
            )
        return PolicyError(f"no entry for {artifact.filename} in {view.checkpoint.origin}", reason="no-entry")
    raw = view.log.entry(index)
    entry = Entry.parse(raw)
    if entry.imported is not None:
        return _why_imported(view, entry, artifact, index, answer)
    statement = entry.statement
    same = (
        statement is not None
        and entry.type == "publish"
        and normalise_filename(statement.subject_name) == normalise_filename(artifact.filename)
    )
    if statement is None or not same:
        return PolicyError(f"no entry for {artifact.filename} in {view.checkpoint.origin}", reason="no-entry")
    if statement.subject_sha256 != artifact.sha256:
        return TamperedError(
            f"{artifact.filename} is sha256:{artifact.sha256}, "
            f"entry #{index} of {view.checkpoint.origin} says sha256:{statement.subject_sha256}",
            entry=raw,
        )
    if (withdrawn := _withdrawn(view, artifact, index, answer)) is not None:
        return withdrawn
    if answer.get("state") == "held":  # no hold entry: the scanner wants a person to look
        return WithdrawnError(f"{artifact.filename}, entry #{index}, is held for a moderator's decision")
    if isinstance(waits := answer.get("approvals"), dict):
        given, needed = waits.get("approved"), waits.get("needed")
        given = len(given) if isinstance(given, list) else 0
        return PolicyError(
            f"{artifact.filename}, entry #{index}, waits for its owners: {given} of {needed} approvals",
            hint=f"countermark approve {artifact.project} {artifact.version}",
        )
    return PolicyError(
        f"{artifact.filename} is logged as entry #{index} and not listed yet",
        hint="wait for it and try again",
    )


def _withdrawn(view: View, artifact: Artifact, index: int, answer: dict[str, Any]) -> CountermarkError | None:
    standing, reason = str(answer.get("standing", "")), str(answer.get("reason") or "")
    if standing not in ("held", "removed"):
        return None
    words = described(view, artifact, answer.get("standing_entry"))
    words = f": {words}" if words else f" ({reason})" if reason.isprintable() and reason else ""
    return WithdrawnError(f"{artifact.filename}, entry #{index}, is {standing}{words}")


def _why_imported(
    view: View, entry: Entry, artifact: Artifact, index: int, answer: dict[str, Any]
) -> CountermarkError:
    """A file that an import recorded: the log knows its hash, and nobody has signed or scanned it."""
    imported = entry.imported
    assert imported is not None
    line = imported.line
    if line.name.normalised != normalise_filename(artifact.filename) or imported.passed is not None:
        return PolicyError(f"no entry for {artifact.filename} in {view.checkpoint.origin}", reason="no-entry")
    if line.sha256 != artifact.sha256:
        return TamperedError(
            f"{artifact.filename} is sha256:{artifact.sha256}, "
            f"entry #{index} of {view.checkpoint.origin} says sha256:{line.sha256}",
            entry=entry.raw,
        )
    withdrawn = _withdrawn(view, artifact, index, answer)
    return withdrawn or PolicyError(
        f"{artifact.filename}, entry #{index}, is {check_publisher(view, entry, index).sentence}; it is not listed",
        hint="an import records what existed; nobody has signed the file, and no scanner has seen it here",
    )


def ask(view: View, path: str) -> dict[str, Any]:
    """An answer of the registry's API, which nobody vouches for; an empty one when there is none."""
    try:
        raw = view.fetcher.get(view.registry.url + path, max_bytes=FETCH_MAX_BYTES, missing_ok=True)
        document = decode_json(raw) if raw else {}
    except (NetworkError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def files_of(view: View, project: str) -> list[dict[str, Any]]:
    """The files of a project that the registry's API knows, withdrawn ones too; a hint where to look in the log."""
    files = ask(view, f"/api/v1/files/{quote(project, safe='')}").get("files")
    found = files if isinstance(files, list) else []
    return [each for each in found if isinstance(each, dict) and isinstance(each.get("filename"), str)]


def _page_files(view: View, project: str) -> set[str]:
    files = simple_page(view.fetcher, view.registry.url, project)
    return {item["filename"] for item in files}


def page_of(url: str, project: str) -> Wanted:
    """The question for a project's simple page."""
    accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
    return Wanted(f"{url}/simple/{quote(project, safe='')}/", FETCH_MAX_BYTES, accept)


def simple_page(fetcher: Fetcher, url: str, project: str) -> list[dict[str, Any]]:
    """The files a simple page lists; nobody vouches for it."""
    page = page_of(url, project)
    try:
        raw = fetcher.get(page.url, max_bytes=page.max_bytes, missing_ok=True, headers=page.headers)
        files = decode_json(raw)["files"] if raw else []
        return [item for item in files if isinstance(item["filename"], str)]
    except (ValueError, KeyError, TypeError):
        raise MalformedError(f"{page.url} is not a simple page in JSON") from None
