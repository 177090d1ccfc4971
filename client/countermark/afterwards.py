"""Afterwards: what owners do to files that are published and to keys that are enrolled.

    countermark yank acme==1.0 --reason broken              installers take it only by exact pin
    countermark unyank acme==1.0 --reason fixed
    countermark remove acme_demo-1.0-py3-none-any.whl --reason secret       for ever; its name stays spent
    countermark key rotate                                  a new key, vouched for by the old one
    countermark owner add acme ACCOUNT                      another account may upload; remove, transfer, signing-off
    countermark trusted-publisher add acme ...              jobs of a CI system may publish for it
    countermark owner require-approvals acme 2              a release is listed once two people approved it
    countermark key recover acme                            without the old key: in effect after seven days, unless
    countermark key veto acme                               somebody who has it vetoes
    countermark key revoke KEYID --reason compromised --compromised-since 31

Each is a statement signed by an enrolled key of the project: by k of them where it shares its power, and then it is
an act that travels (actfile.py); by the registry for the owners of a project that never signed. It reaches the log
through a signed-in session; an upload token can do none of it. What the registry's API says (which files there are,
what to follow in `prev`) is a hint: a file is looked up in the log before anything is signed about it, and the
log's rules judge what we signed. What we report as done comes from a checked proof that this very statement is an
entry.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from countermark.actfile import Act
from countermark.entry import Entry
from countermark.errors import EvidenceError, MalformedError, NetworkError, PolicyError, UsageError
from countermark.fetch import Answer, Fetcher, decode_json
from countermark.logreader import LogReader
from countermark.machine import publisher_id
from countermark.names import FileName, normalise_project, normalise_version, parse_filename
from countermark.place import Place
from countermark.projectstate import ProjectState
from countermark.publish import (
    ENROL_TIMEOUT,
    JSON,
    check_answer,
    check_proof,
    document_of,
    enrol,
)
from countermark.schema import (
    REMOVE_REASONS,
    REVOKE_REASONS,
    UNYANK_REASONS,
    YANK_REASONS,
    check_statement,
)
from countermark.session import Session
from countermark.statement import Envelope, Signer, Statement, is_sha256, sign
from countermark.trust import View
from countermark.values import dataclass, replace
from countermark.verified import Artifact

REASONS = {
    "yank": YANK_REASONS,
    "unyank": UNYANK_REASONS,
    "remove": REMOVE_REASONS,
    "key-revoke": REVOKE_REASONS,
}
DONE = {"yank": "yanked", "unyank": "ok", "remove": "removed"}  # the standing an act leads to


@dataclass(frozen=True)
class Known:
    """A published file, as its entry in the log says; `standing` and `prev` are the API's hints."""

    project: str
    filename: str
    sha256: str
    index: int
    standing: str
    prev: str | None


@dataclass(frozen=True)
class Recorded:
    """An act that is in the log: its index, its leaf hash, and the proof that was checked."""

    index: int
    leaf_hash: str
    proof: bytes


def check_reason(kind: str, reason: str) -> None:
    """UsageError with the list of codes: entries hold codes, never words of one's own."""
    if reason not in REASONS[kind]:
        raise UsageError(
            f'"{reason}" is no reason to {kind.removeprefix("key-")}',
            hint=f"one of {', '.join(sorted(REASONS[kind]))}",
        )


def check_keyid(text: str) -> str:
    """A whole keyid. Parts of one are not taken: revoking cannot be undone."""
    if not is_sha256(text):
        raise UsageError(
            f'"{text[:80]}" is neither a keyid of 64 hexadecimal digits nor a key of this machine',
            hint="`countermark key list` and `countermark verify --json` show keyids",
        )
    return text


def check_project(text: str) -> str:
    """A project's name in its one spelling: acme, corp/widget, or corp/* for all of a namespace."""
    return str(Place.parse(text))


def find(view: View, fetcher: Fetcher, wanted: str, local: Artifact | None) -> list[Known]:
    """The published files that `PROJECT==VERSION` or a file name means, each looked up in the log.

    `local` is the file itself where the person has it: then only a file of these bytes is meant.
    """
    project, wants = _parse_wanted(wanted)
    named = [(parse_filename(item["filename"]), item) for item in _files(view, fetcher, project)]
    # A hint about somebody else's file is none.
    meant = [item for name, item in named if name.project == project and wants(name)]
    if not meant:
        raise PolicyError(f"{view.registry.url} has no file of {wanted}")
    found = [_look_up(view, fetcher, project, item) for item in meant]
    for known in found:
        if local is not None and known.sha256 != local.sha256:
            raise PolicyError(
                f"{local.filename} is sha256:{local.sha256}, entry #{known.index} says sha256:{known.sha256}",
                hint="name the file without its folder to mean the published one",
            )
    return found


@dataclass(frozen=True)
class Owner:
    """Somebody who is signed in, with an enrolled key, in front of one verified view of the registry."""

    view: View
    fetcher: Fetcher
    session: Session
    signer: Signer | None  # None: somebody who only asks
    now: int

    def as_signer(self, signer: Signer) -> Owner:
        """The same person with this key."""
        return replace(self, signer=signer)

    def act(self, kind: str, file: Known, reason: str) -> Recorded:
        """Yank, unyank or remove one file."""
        predicate = {**self._binding(file.project, file.prev), "reason": reason}
        return self.record(Statement(file.filename, file.sha256, kind, predicate))

    def projects(self, keyid: str) -> list[str]:
        """The projects for which a key is enrolled, by the API's word; one it omits is not touched."""
        raw = self.fetcher.get(f"{self.view.registry.url}/api/v1/keys/{keyid}", headers=self.session.bearer)
        try:
            enrolments = decode_json(raw or b"")["enrolments"]
            return sorted(str(Place(str(item["namespace"]), str(item["project"]))) for item in enrolments)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MalformedError(
                f"{self.view.registry.url} describes key {keyid} in a way we can't read: {error!r}"
            ) from None

    def vouch(self, project: str, new: Signer, *others: Signer) -> int | Act:
        """Enrol `new` for a project with this owner's signature, and those of `others` here. Twice is once.

        The index of its entry; or the act that people on other machines have to sign as well.
        """
        assert self.signer is not None
        state, keyid = ProjectState.fetch(self.fetcher, self.view.registry, project), self.signer.keyid
        if new.keyid in state.keys:
            return state.keys[new.keyid]
        if keyid not in state.keys:
            raise PolicyError(f"key {keyid[:16]} is not enrolled for {project} and cannot vouch for another")
        done = self.let_in(project, new, [self.signer, *others], None, None)
        return done.index if isinstance(done, Recorded) else done

    def let_in(
        self,
        project: str,
        new: Signer,
        vouching: Sequence[Signer],
        threshold: int | None,
        valid_for: int | None,
    ) -> Recorded | Act:
        """Enrol `new` for a project that has keys, or begin to: an act where others have to sign as well."""
        state = ProjectState.fetch(self.fetcher, self.view.registry, project)
        place = Place.parse(project)
        if not state.keys and (place.project or not place.namespace):
            raise PolicyError(f"{project} has no key yet", hint=_first_key(place))
        if new.keyid in state.keys:
            raise PolicyError(
                f"key {new.keyid[:16]} is enrolled for {project}, by entry #{state.keys[new.keyid]}"
            )
        said = {
            "key": base64.b64encode(new.public_key).decode(),
            "scope": place.scope,
            "threshold": threshold or state.threshold,
            "valid_for": valid_for,
        }
        predicate = {**self._binding(project, state.prev), **said}
        return self.together(
            state, Statement.about(f"key:{new.keyid}", "key-enroll", predicate), new, *vouching
        )

    def revoke(self, project: str, keyid: str, reason: str, compromised_since: int | None = None) -> Recorded:
        """Revoke a key of a project; what it published from `compromised_since` on becomes held."""
        state = ProjectState.fetch(self.fetcher, self.view.registry, project)
        revoked = {"compromised_since": compromised_since, "keyid": keyid, "reason": reason}
        predicate = {**self._binding(project, state.prev), **revoked}
        return self.record(Statement.about(f"key:{keyid}", "key-revoke", predicate))

    def change(
        self, project: str, action: str, account: str | None = None, role: str | None = None
    ) -> Recorded | Act:
        """An `owner` entry: who owns a project, that it signs no more, or the veto against a recovery."""
        state = ProjectState.fetch(self.fetcher, self.view.registry, project)
        said = {"account": account, "action": action, "role": role}
        predicate = {**self._binding(project, state.prev), **said}
        statement = Statement.about(Place.parse(project).subject, "owner", predicate)
        if action == "veto":
            return self.record(statement)
        if not state.keys and not state.signed and action != "signing-off" and "/" not in project:
            return self._in_place(project, said)
        return self.together(state, statement, *([self.signer] if self.signer else []))

    def require(self, project: str, needed: int) -> Recorded | Act:
        """How many people must approve a release of this project from now on."""
        state = ProjectState.fetch(self.fetcher, self.view.registry, project)
        predicate = {**self._binding(project, state.prev), "needed": needed}
        statement = Statement.about(Place.parse(project).subject, "require-approvals", predicate)
        return self.together(state, statement, *([self.signer] if self.signer else []))

    def trust(self, project: str, action: str, publisher: Mapping[str, Any]) -> Recorded | Act:
        """Which jobs of a CI system may publish for a project: one more, or one less."""
        state = ProjectState.fetch(self.fetcher, self.view.registry, project)
        predicate = {**self._binding(project, state.prev), **publisher, "action": action}
        statement = Statement.about(f"publisher:{publisher_id(publisher)}", "trusted-publisher", predicate)
        return self.together(state, statement, *([self.signer] if self.signer else []))

    def together(self, state: ProjectState, statement: Statement, *signers: Signer) -> Recorded | Act:
        """Sign, and hand in if that is enough; else the act that others have to sign."""
        try:
            act = Act.begin(self.view.registry.url, statement, *signers)
        except MalformedError as error:
            raise UsageError(str(error)) from None
        if not state.keys and act.new_keyid is not None:
            return self.submit(act)  # whoever enrols a namespace's first key owns it
        if act.new_keyid is None and not state.keys.keys() & set(act.envelope.keyids):
            raise PolicyError(
                f"key {act.envelope.keyids[0][:16]} is not enrolled for {state.project}, so it signs nothing for it",
                hint=f"--key NAME, or countermark key enrol {state.project}",
            )
        if state.lacking(act.envelope.keyids) is not None:
            return act
        return self.submit(act)

    def submit(self, act: Act) -> Recorded:
        """Hand in an act that enough have signed, as the account that is signed in here."""
        door = "keys" if act.new_keyid is not None else "entries"
        return self._hand_in(act.statement, act.envelope, door)

    def _in_place(self, project: str, said: dict[str, str | None]) -> Recorded:
        """A change of owners that no key can sign, since the project has none: the registry does."""
        self.session.check(self.view.registry, now=self.now)
        url = f"{self.view.registry.url}/api/v1/projects/{project}/owners"
        body = json.dumps(said).encode()
        answer = self.fetcher.post(
            url, body, content_type=JSON, headers=self.session.bearer, timeout=ENROL_TIMEOUT
        )
        what = f"{said['action']} for {project}"
        index, leaf_hash, raw, entry = self._placed(answer, what)
        statement = entry.statement
        if statement is None or {name: statement.predicate.get(name) for name in said} != said:
            raise EvidenceError(f"{what}: the proof offered is of another entry, #{index}")
        return Recorded(index, leaf_hash, raw)

    def recover(self, project: str, new: Signer) -> int:
        """Ask for `new` without any old key's signature; the index of its entry. It waits for seven days."""
        state = ProjectState.fetch(self.fetcher, self.view.registry, project)
        if not state.keys:
            raise PolicyError(
                f"{project} has no key, so there is nothing to recover", hint="publish enrols the first key"
            )
        if new.keyid in state.keys:
            raise PolicyError(f"key {new.keyid[:16]} is enrolled for {project}: it needs no recovery")
        return enrol(self.view, self.fetcher, self.session, new, state, now=self.now)

    def _binding(self, project: str, prev: str | None) -> dict[str, Any]:
        return {"origin": self.view.trust_file.origin, "prev": prev, **Place.parse(project).binding}

    def record(self, statement: Statement) -> Recorded:
        """Sign, hand in, and check that exactly this statement is the entry the answer proves."""
        assert self.signer is not None
        try:
            check_statement(statement)
        except MalformedError as error:
            raise UsageError(str(error)) from None
        return self._hand_in(statement, sign(statement, self.signer), "entries")

    def _hand_in(self, statement: Statement, envelope: Envelope, door: str) -> Recorded:
        self.session.check(self.view.registry, now=self.now)
        answer = self.fetcher.post(
            f"{self.view.registry.url}/api/v1/{door}",
            json.dumps({"envelope": envelope.to_dict()}).encode(),
            content_type=JSON,
            headers=self.session.bearer,
            timeout=ENROL_TIMEOUT,
        )
        what = f"{statement.type} of {statement.subject_name}"
        index, leaf_hash, raw, entry = self._placed(answer, what)
        if entry.envelope is None or entry.envelope.payload != envelope.payload:
            raise EvidenceError(f"{what}: the proof offered is of another entry, #{index}")
        return Recorded(index, leaf_hash, raw)

    def _placed(self, answer: Answer, what: str) -> tuple[int, str, bytes, Entry]:
        """Where an answer says that an entry is, once its proof was checked, and that entry."""
        check_answer(answer, what)
        document = document_of(answer)
        index, proof = document.get("index"), document.get("proof")
        if type(index) is not int or proof is None:
            raise NetworkError(f"{what}: taken, and not public in the log yet", hint="look again in a moment")
        leaf_hash, raw = str(document.get("leaf_hash")), str(proof).encode()
        checkpoint = check_proof(self.view, raw, index, leaf_hash, now=self.now)
        log = LogReader(self.view.registry.log_url, checkpoint, self.fetcher)
        return index, leaf_hash, raw, Entry.parse(log.entry(index))


def _first_key(place: Place) -> str:
    if place.namespace:
        return f"the first key of a namespace opens it: countermark key enrol '{place.namespace}/*'"
    return "countermark publish enrols the first one"


def _parse_wanted(wanted: str) -> tuple[str, Callable[[FileName], bool]]:
    """The project that is meant, and which of its files."""
    project, equals, text = wanted.partition("==")
    try:
        if not equals:
            name = parse_filename(wanted)
            return name.project, lambda other: other.normalised == name.normalised
        version = normalise_version(text.strip(), strip_zeros=True)
        return normalise_project(
            project.strip()
        ), lambda other: normalise_version(other.version, strip_zeros=True) == version
    except MalformedError as error:
        raise UsageError(f'"{wanted}" is neither PROJECT==VERSION nor a distribution: {error}') from None


def _files(view: View, fetcher: Fetcher, project: str) -> Sequence[dict[str, Any]]:
    raw = fetcher.get(f"{view.registry.url}/api/v1/files/{quote(project, safe='')}", missing_ok=True)
    try:
        files: list[dict[str, Any]] = decode_json(raw)["files"] if raw else []
        return [item for item in files if isinstance(item["filename"], str)]
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedError(
            f"{view.registry.url} describes the files of {project} oddly: {error!r}"
        ) from None


def _look_up(view: View, fetcher: Fetcher, project: str, item: dict[str, Any]) -> Known:
    """The file's publish entry. Name and digest are the log's; only where to look was the API's word."""
    index, filename, prev = item.get("index"), str(item["filename"]), item.get("prev")
    if type(index) is not int or index >= view.checkpoint.size:
        raise NetworkError(
            f"{filename} is not in the part of the log that is verified here", hint="try again in a moment"
        )
    entry = Entry.parse(LogReader(view.registry.log_url, view.checkpoint, fetcher).entry(index))
    statement, imported, sha256 = entry.statement, entry.imported, ""
    said = None if statement is None else (entry.type, statement.subject_name, statement.predicate["project"])
    if statement is not None:
        sha256 = statement.subject_sha256
    elif imported is not None and imported.passed is None:
        said, sha256 = (entry.type, imported.line.filename, imported.line.project), imported.line.sha256
    if said != ("publish", filename, project):
        raise EvidenceError(f"{view.registry.url} says that {filename} is entry #{index}, which is {said}")
    standing = str(item.get("standing", ""))
    return Known(project, filename, sha256, index, standing, None if prev is None else str(prev))
