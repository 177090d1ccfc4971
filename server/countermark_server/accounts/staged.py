"""Staged: a release that waits for approvals, as a person sees it who is asked for one.

Its files with their entries, who has said what by which entry, and the difference to the release before, which is
the one that `countermark approve` shows (countermark.compare), made here from the registry's own copies. So it is
the registry's word. Whoever approves signs on a machine of theirs, and what is signed there is compared with the log.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from countermark.compare import Contents, difference, read_contents
from countermark.errors import CountermarkError
from countermark.filelist import files_digest
from countermark.rules_approve import Waiting, waiting
from countermark_server import db
from countermark_server.accounts.holdings import Project, Release, releases_of
from countermark_server.ruleview import SqlView, encode_key
from countermark_server.stores.blobs import Blobs
from countermark_server.stores.immutable import StoreError

FILE_MAX_BYTES = 16 * 1024 * 1024  # compared on a page; `countermark approve` takes files of 256 MiB
PAGE_MAX_BYTES = 64 * 1024 * 1024  # of all files together: what one look may cost a web process
WAITING_MAX = 256  # releases on one page


@dataclass(frozen=True)
class File:
    """A file that waits, as its publish entry says."""

    filename: str
    sha256: str
    length: int
    index: int


@dataclass(frozen=True)
class Vote:
    """What somebody said of the release, and by which entry; `counts`: still, by their key and ownership."""

    account: str
    decision: str
    index: int
    counts: bool


@dataclass(frozen=True)
class Staged:
    """A release that waits: for whom, and what an approval of it would be about."""

    project: str
    version: str
    files: tuple[File, ...]
    votes: tuple[Vote, ...]
    waiting: Waiting

    @property
    def files_sha256(self) -> str:
        """What an approval signs: the digest of the list of files."""
        return files_digest((file.filename, file.sha256) for file in self.files)


def find(connection: Connection, project: str, version: str, *, now: int) -> Staged | None:
    """A release of a (normalised) project, if it waits."""
    view = SqlView(connection, db.rules_state)
    state = view.get(("release", "", project, version))
    waits = waiting(view, "", project, version, now)
    if state is None or waits is None:
        return None
    files = []
    for normalised in sorted(state["files"]):
        file = view.get(("file", "", project, normalised))
        assert file is not None, "a release lists files that were published"
        files.append(File(file["filename"], file["sha256"], file["length"], file["index"]))
    counted = {*waits.approved, *waits.rejected}
    votes = [
        Vote(who, said["decision"], said["index"], who in counted)
        for who, said in sorted(state["votes"].items(), key=lambda item: int(item[1]["index"]))
    ]
    return Staged(project, version, tuple(files), tuple(votes), waits)


def of_projects(connection: Connection, projects: Sequence[Project], *, now: int) -> list[Staged]:
    """The releases of these projects that wait, by project and version."""
    found = list[Staged]()
    for project in projects:
        first = encode_key(("release", "", project.name, ""))[:-2]  # up to the quote that begins a version
        table = db.rules_state
        query = select(table.c.key).where(table.c.key >= first, table.c.key < first + "~")
        for key in connection.execute(query.order_by(table.c.key)).scalars().all():
            if (staged := find(connection, project.name, json.loads(key)[3], now=now)) is not None:
                found.append(staged)
            if len(found) >= WAITING_MAX:
                return found
    return found


def before(connection: Connection, staged: Staged) -> Release | None:
    """The newest release with a listed file that was published before this one."""
    first = min(file.index for file in staged.files)
    for release in releases_of(connection, staged.project):
        older = [
            file for file in release.files if file.listed and file.index is not None and file.index < first
        ]
        if older and release.version != staged.version:
            return Release(release.version, tuple(older))
    return None


def changes(blobs: Blobs, staged: Staged, older: Release | None) -> list[str]:
    """What is new, in lines; what is too long to compare here says so."""
    left = PAGE_MAX_BYTES
    sides = list[list[Contents]]()
    for files in (
        [(file.filename, file.sha256) for file in staged.files],
        [] if older is None else [(file.name, file.sha256) for file in older.files],
    ):
        contents = list[Contents]()
        for name, sha256 in files:
            read = _contents(blobs, name, sha256, most=min(left, FILE_MAX_BYTES))
            left -= 0 if read.remark else read.length
            contents.append(read)
        sides.append(contents)
    return difference(*sides)


def _contents(blobs: Blobs, name: str, sha256: str, *, most: int) -> Contents:
    try:
        with blobs.local(sha256) as path:
            if (length := path.stat().st_size) > most:
                return Contents(name, length, remark="too long to compare on a page")
            return read_contents(name, path.read_bytes(), sha256)
    except (StoreError, FileNotFoundError, CountermarkError) as error:
        return Contents(name, 0, remark=str(error))
