"""The state that rules read and write, and what follows from it: standing, listing, a target's `custom`.

State is a table of JSON objects. A key is a tuple of strings:

    ("log",)                                   size, time, rule version, applied, newest TUF versions, import, frozen,
                                               predecessor
    ("role", "registry")                       keys of a role; ("role", "authority") also heads the role chain
    ("project", namespace, project)            owners, keys, threshold, signed, frozen, recovery, head
    ("namespace", namespace)                   the same, for all projects of a namespace
    ("enrolment", namespace, project, keyid)   one publisher key in one project ("" for its namespace)
    ("publisher", issuer, "id"|"name", value)  the projects that trust a repository, by its number and its name
    ("key", keyid)                             whose name a key was enrolled in, anywhere in this registry
    ("file", namespace, project, filename)     one file, by its normalised file name
    ("release", namespace, project, version)   files of a release that wait for approvals, who gave theirs, and
                                               the entries that completed them

A project or namespace is called a *holder* (of keys). This is a file's state:

    {"before":null,"cleared":null,"filename":"acme-1.0-py3-none-any.whl","hold":null,"index":6,
     "key_index":4,"keyid":"40c3...","length":1421,"level":"project","lh":"9f2c...","namespace":"",
     "owner_head":"9f2c...","project":"acme","registry_head":"77ab...","removed":null,"sha256":"5891...",
     "status":7,"takedown":null,"time":1763800000,"uploader":"8f14...","verdict":{"index":7,"tier":"none"},
     "version":"1.0","yank":null}

A file of an import has neither `keyid`, `key_index` nor `uploader`, and a member more: `import`, the index of the
import entry. A file that was published while its project required approvals has `staged`, true; such a project has
`approvals`, how many. Numbers like `hold`, `yank` and `removed` are the index of the entry that did it.

`standing` is computed and never stored, since a `key-revoke` with `compromised_since` changes that of many files
at once: it writes one line into the holder (`compromised`), which `standing` reads. Who keeps something per file
(TUF bins, pages) asks `touched_files` after each entry: a key's files are a list from its newest backwards
(`before`), so the walk ends at the first file that is older than the compromise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, Protocol, TypeAlias

from countermark.names import normalise_filename
from countermark.schema import PASSING_TIERS
from countermark.values import dataclass

Key: TypeAlias = tuple[str, ...]
State: TypeAlias = dict[str, Any]
Standing: TypeAlias = Literal["ok", "yanked", "held", "removed"]

LOG: Final[Key] = ("log",)
AUTHORITY: Final[Key] = ("role", "authority")
CODES: Final = frozenset(  # every `Broken.code`; a new one is a new rule version
    {
        *("about-mismatch", "already-held", "already-removed", "already-yanked", "applied", "authorised-by"),
        *("bins", "file-exists", "file-mismatch", "file-unknown", "key-exists", "key-expired", "key-index"),
        *("key-pending", "key-revoked", "key-taken", "key-unknown", "last-owner", "malformed", "moderator"),
        *("namespace-unknown", "no-dispute", "no-recovery", "not-an-owner", "not-authorised", "not-signing"),
        *("not-understood", "not-yanked", "nothing-to-clear", "opaque", "own-project", "owner-exists"),
        *("owner-unknown", "prev-stale", "project-frozen", "project-unknown", "recovery-pending"),
        *(
            "signature-count",
            "signature-false",
            "signature-required",
            "since-ahead",
            "threshold",
            "time-fell",
        ),
        *("log-frozen", "not-first", "own-predecessor"),
        *("already-decided", "approvals", "approver", "files-changed", "nothing-staged", "release-full"),
        *("ci-key", "identity-mismatch", "publisher-exists", "publisher-unknown", "too-many-publishers"),
        *("import-closed", "import-line", "import-order", "import-passed"),
        *("too-many-keys", "too-many-owners", "tuf-incomplete", "tuf-version", "two-moderators"),
        *("wrong-origin",),
    }
)


class View(Protocol):
    """Where state is read: a dict, the sequencer's table, the timestamper's database."""

    def get(self, key: Key, /) -> State | None: ...


@dataclass(frozen=True)
class Broken:
    """An entry the rules refuse. It changes nothing; in a log it is a finding, at a door a refusal."""

    code: str
    message: str
    party: Literal["signer", "log"]


@dataclass(frozen=True)
class Changes:
    """What an allowed entry does: new values by key (None removes). Always advances ("log",)."""

    writes: Mapping[Key, State | None]
    compromised: tuple[tuple[Key, int], ...] = ()  # enrolment key, index from which its files are held
    approved: tuple[Key, ...] = ()  # the files of a release that has its approvals now

    def files(self) -> tuple[Key, ...]:
        """The files whose own state changed; see `touched_files` for those that changed through a key."""
        return tuple(key for key in self.writes if key[0] == "file")


def file_key(namespace: str, project: str, filename: str) -> Key:
    """The key of a file's state, from any spelling of its name (MalformedError for none)."""
    return ("file", namespace, project, normalise_filename(filename))


def project_key(namespace: str, project: str) -> Key:
    return ("project", namespace, project)


def holder_key(namespace: str, project: str) -> Key:
    """The project's key, or the namespace's where the project is empty."""
    return ("project", namespace, project) if project else ("namespace", namespace)


def release_key(file: State) -> Key:
    """The key of the release a file belongs to."""
    return ("release", file["namespace"], file["project"], file["version"])


def standing(file: State, project: State, namespace: State | None = None) -> Standing:
    """What a file is to an installer, by its entries and its key's: the strictest of both sides.

    `namespace` is the state of the file's namespace, None in the default one.
    """
    if file["removed"] is not None or file["takedown"] is not None:
        return "removed"
    if file["hold"] is not None or compromised_by(file, project, namespace) is not None:
        return "held"
    return "ok" if file["yank"] is None else "yanked"


def compromised_by(file: State, project: State, namespace: State | None) -> int | None:
    """The index of the key-revoke that holds this file, unless a later `clear` has let it go."""
    if file["level"] == "registry":
        return None
    holder = project if file["level"] == "project" else namespace
    if holder is None:
        raise ValueError(
            f"file {file['filename']!r} is signed by a key of its namespace, whose state is missing"
        )
    revoked = holder["compromised"].get(file["keyid"])
    if revoked is None or file["index"] < revoked["since"]:
        return None
    cleared = file["cleared"] is not None and file["cleared"] > revoked["index"]
    return None if cleared else int(revoked["index"])


def listed(view: View, file: State, project: State, namespace: State | None = None) -> bool:
    """Whether the file is a TUF target and stands on the simple index."""
    return approved(view, file) and listable(file, project, namespace)


def listable(file: State, project: State, namespace: State | None = None) -> bool:
    """Whether nothing but approvals, where they are required, could keep the file from being listed."""
    return passed(file) and standing(file, project, namespace) in ("ok", "yanked")


def approved(view: View, file: State) -> bool:
    """Whether the file needs no approvals, or its release had them all after it was published.

    An approval is about all files of the release that wait, so one entry that completes them is enough to know.
    """
    if "staged" not in file:
        return True
    release = view.get(release_key(file))
    return release is not None and any(index > file["index"] for index in release["approved"])


def passed(file: State) -> bool:
    """The newest verdict lets the file through, or a moderator's later `clear` does. No verdict: not yet."""
    verdict = file["verdict"]
    if verdict is None:
        return False
    cleared = file["cleared"] is not None and file["cleared"] > verdict["index"]
    return cleared or verdict["tier"] in PASSING_TIERS


def target_path(file: State) -> str:
    """The file's name among TUF targets: `files/acme/...`, or `files/corp.acme/...` in the namespace corp.

    Neither namespaces nor normalised project names have dots, so no two files share a path.
    """
    holder = f"{file['namespace']}.{file['project']}" if file["namespace"] else file["project"]
    return f"files/{holder}/{file['filename']}"


def target_custom(file: State) -> State:
    """What a listed file's target says besides length and hash: the way from target to log without search.

    `verdict` is the newest entry of the registry's side that changed the file's status; a rescan that finds
    the same is none, so it rewrites no bin.
    """
    return {"i": file["index"], "lh": file["lh"], "verdict": file["status"], "yank": file["yank"]}


def holders(view: View, namespace: str, project: str) -> tuple[State | None, State | None]:
    """The states of a project and of its namespace (None in the default one)."""
    return (
        view.get(project_key(namespace, project)),
        view.get(("namespace", namespace)) if namespace else None,
    )


def standing_of(view: View, key: Key) -> Standing | None:
    """The standing of the file with this key; None when there is no such file."""
    file = view.get(key)
    if file is None:
        return None
    project, namespace = holders(view, key[1], key[2])
    assert project is not None  # a publish makes its project
    return standing(file, project, namespace)


def is_listed(view: View, key: Key) -> bool:
    """Whether the file with this key exists and is listed."""
    file = view.get(key)
    if file is None:
        return False
    project, namespace = holders(view, key[1], key[2])
    assert project is not None  # a publish makes its project
    return listed(view, file, project, namespace)


def is_listable(view: View, key: Key) -> bool:
    """Whether the file exists and nothing but missing approvals keeps it from being listed."""
    file = view.get(key)
    if file is None:
        return False
    project, namespace = holders(view, key[1], key[2])
    assert project is not None  # a publish makes its project
    return listable(file, project, namespace)


def touched_files(view: View, changes: Changes) -> Iterator[Key]:
    """Every file whose standing or listing may differ after `changes`, which `view` already holds."""
    yield from changes.files()
    yield from changes.approved
    for enrolment, since in changes.compromised:
        yield from files_of_key(view, enrolment, since)


def files_of_key(view: View, enrolment: Key, since: int = 0) -> Iterator[Key]:
    """The files one enrolled key has published at or after index `since`, newest first."""
    state = view.get(enrolment)
    cursor = None if state is None else state["newest"]
    while cursor is not None:
        key: Key = ("file", *cursor)
        file = view.get(key)
        assert file is not None  # the list holds files that were published
        if file["index"] < since:
            return
        yield key
        cursor = file["before"]


def new_file(
    *,
    key: Key,
    filename: str,
    version: str,
    sha256: str,
    length: int,
    index: int,
    leaf_hash: str,
    time: int,
    uploader: str | None = None,
    keyid: str | None = None,
    key_index: int | None = None,
    level: str = "registry",
    before: list[str] | None = None,
) -> State:
    """A file in its first entry. Without a keyid: nobody signed it."""
    return {
        "before": before,
        "cleared": None,
        "filename": filename,
        "hold": None,
        "index": index,
        "key_index": key_index,
        "keyid": keyid,
        "length": length,
        "level": level,
        "lh": leaf_hash,
        "namespace": key[1],
        "owner_head": leaf_hash,
        "project": key[2],
        "registry_head": leaf_hash,
        "removed": None,
        "sha256": sha256,
        "status": None,
        "takedown": None,
        "time": time,
        "uploader": uploader,
        "verdict": None,
        "version": version,
        "yank": None,
    }


def new_holder(owners: Mapping[str, str]) -> State:
    """A project or namespace in its first entry."""
    return {
        "compromised": {},
        "frozen": None,
        "head": None,
        "keyed": False,
        "keys": {},
        "owners": dict(owners),
        "recovery": None,
        "signed": False,
        "threshold": 1,
    }


def settled(holder: State, time: int) -> State:
    """The holder as it is at `time`: a recovery that nobody vetoed in its week has become a key.

    Only entries write state and nothing happens between them, so whoever reads a holder settles it first.
    """
    recovery = holder["recovery"]
    if recovery is None or holder["frozen"] is not None or time < recovery["until"]:
        return holder
    return recovered(holder, dict(holder["keys"]))


def recovered(holder: State, keys: Mapping[str, Any]) -> State:
    """The holder with its recovery's key beside `keys`. One key signs from now on: the others were lost.

    So nobody else is there to approve either, and approvals are not required any more.
    """
    recovery = holder["recovery"]
    return {
        **{name: value for name, value in holder.items() if name != "approvals"},
        "frozen": None,
        "keyed": True,
        "keys": {**keys, recovery["keyid"]: recovery["key"]},
        "recovery": None,
        "signed": True,
        "threshold": 1,
    }
