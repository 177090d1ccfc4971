"""One entry against the state it touches: reading, refusing, and finding out who signed.

Every rule function takes a Step, reads state through it, calls `refuse` where a rule is broken, and writes
new values. Nothing is applied until the function returns, so a refusal half-way leaves no trace. State that
was read is never changed in place.

A key that has signed is looked up in the places the rule allows and refused with a reason of its own:
`key-unknown`, `key-expired`, `key-revoked`, `key-pending`. Time is the leaf's, nothing else.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final, Literal, NoReturn

from countermark.entry import Entry
from countermark.errors import SignatureError
from countermark.rules_state import Broken, Key, State, View, holder_key, settled
from countermark.statement import check_signatures
from countermark.values import dataclass

REGISTRY: Final = "registry"
SCANNER: Final = "scanner"
MODERATION: Final = "moderation"


class RefusalError(Exception):
    """Carries a Broken from the rule that found it to `rules.apply`."""

    def __init__(self, broken: Broken) -> None:
        super().__init__(broken.message)
        self.broken = broken


@dataclass(frozen=True)
class Party:
    """Somebody who may sign: a role, or the key of a holder."""

    keyid: str
    spki: str  # base64, as state keeps it
    role: str | None  # None: a publisher's key
    level: Literal["project", "namespace", "registry"] = "registry"
    index: int | None = None  # of its enrolment
    enrolment: Key | None = None
    account: str | None = None  # of the person whose key it is; None: a role's, or a machine's for one run


class Step:
    """The entry, its place in the log, and the writes it would make."""

    def __init__(self, view: View, entry: Entry, index: int) -> None:
        assert entry.statement is not None
        self.entry = entry
        self.statement = entry.statement
        self.envelope = entry.envelope
        self.predicate = entry.statement.predicate
        self.registry = entry.registry
        self.time = entry.time
        self.index = index
        self.leaf_hash = entry.leaf_hash.hex()
        self.namespace: str = self.predicate["namespace"]
        self.project: str = self.predicate["project"]
        self.writes: dict[Key, State | None] = {}
        self.compromised: tuple[tuple[Key, int], ...] = ()
        self.approved: tuple[Key, ...] = ()
        self._view = view

    def read(self, key: Key) -> State | None:
        return self._view.get(key)

    def write(self, key: Key, value: State) -> None:
        self.writes[key] = value

    @property
    def keyids(self) -> tuple[str, ...]:
        assert self.envelope is not None
        return self.envelope.keyids

    def holder(self, project: str) -> State | None:
        """The settled state of a project of this entry's namespace, or of the namespace itself ("")."""
        if not project and not self.namespace:
            return None
        state = self.read(holder_key(self.namespace, project))
        return None if state is None else settled(state, self.time)

    def verify(self, parties: Sequence[Party]) -> None:
        """All parties, and nobody else, have signed."""
        assert self.envelope is not None
        try:
            keys = {party.keyid: _decoded(party.spki) for party in parties}
            check_signatures(self.envelope, keys, verified=self.entry.verified)
        except SignatureError as error:
            refuse("signature-false", str(error))

    def check_prev(self, head: str | None) -> None:
        if self.predicate["prev"] != head:
            refuse(
                "prev-stale", f"statement follows {self.predicate['prev']}, but the newest entry is {head}"
            )

    def one_signer(self, *, roles: Iterable[str] = (), owner: bool = False, ci: bool = False) -> Party:
        """The one who signed, in one of `roles` or as an owner's key; the signature is verified.

        `ci`: the key of one run of a job will do, too.
        """
        if len(self.keyids) != 1:
            refuse(
                "signature-count", f"a {self.entry.type} statement has one signature, not {len(self.keyids)}"
            )
        party = self.find_signer(self.keyids[0], roles=roles, owner=owner, ci=ci)
        self.verify([party])
        return party

    def find_signer(
        self, keyid: str, *, roles: Iterable[str] = (), owner: bool = False, ci: bool = False
    ) -> Party:
        for role in roles:
            if (party := self._role_key(keyid, role)) is not None:
                return party
        if owner:
            return self._owner_key(keyid, ci=ci)
        refuse("key-unknown", f"key {keyid} has none of the roles {', '.join(roles)}")

    def _role_key(self, keyid: str, role: str) -> Party | None:
        state = self.read(("role", role))
        item = None if state is None else state["keys"].get(keyid)
        if item is None:
            return None
        if item["revoked"] is not None:
            refuse("key-revoked", f"key {keyid} of role {role} was revoked by entry {item['revoked']}")
        self._check_until(keyid, item["until"])
        return Party(keyid, item["spki"], role, "registry", item["index"])

    def _owner_key(self, keyid: str, *, ci: bool) -> Party:
        """An enrolled key of the project, or of the namespace that covers it."""
        levels: list[tuple[Literal["project", "namespace"], str]] = []
        if self.project:
            levels.append(("project", self.project))
        if self.namespace:
            levels.append(("namespace", ""))
        revoked: Any = None
        for level, project in levels:
            key = ("enrolment", self.namespace, project, keyid)
            enrolment, holder = self.read(key), self.holder(project)
            if enrolment is not None and enrolment["scope"] == "ci":
                return self._one_run_key(keyid, key, enrolment, ci=ci)
            if enrolment is None or holder is None:
                continue
            if (item := holder["keys"].get(keyid)) is not None:
                self._check_until(keyid, item["until"])
                account = None if item["scope"] == "ci" else item["account"]
                return Party(keyid, enrolment["spki"], None, level, item["index"], key, account)
            recovery = holder["recovery"]
            if recovery is not None and recovery["keyid"] == keyid:
                refuse(
                    "key-pending", f"key {keyid} waits for its recovery to take effect at {recovery['until']}"
                )
            revoked = revoked if enrolment["revoked"] is None else enrolment["revoked"]
        if revoked is not None:
            refuse("key-revoked", f"key {keyid} was revoked by entry {revoked}")
        where = f"project {self.project!r}" if self.project else f"namespace {self.namespace!r}"
        refuse("key-unknown", f"key {keyid} is not enrolled for {where}")

    def _one_run_key(self, keyid: str, key: Key, enrolment: State, *, ci: bool) -> Party:
        """A job's key, as long as it lives and the project trusts where it came from."""
        if not ci:
            refuse(
                "ci-key", f"key {keyid} was made for one run of a job: it signs files, no {self.entry.type}"
            )
        if enrolment["revoked"] is not None:
            refuse("key-revoked", f"key {keyid} was revoked by entry {enrolment['revoked']}")
        self._check_until(keyid, enrolment["until"])
        holders = [holder for holder in (self.holder(self.project), self.holder("")) if holder is not None]
        trusted = {item["index"] for holder in holders for item in holder.get("publishers", {}).values()}
        if enrolment["publisher"] not in trusted:
            refuse(
                "key-revoked",
                f"key {keyid} came by trusted publisher {enrolment['publisher']}, which was removed",
            )
        return Party(keyid, enrolment["spki"], None, "project", enrolment["index"], key)

    def _check_until(self, keyid: str, until: int | None) -> None:
        if until is not None and self.time >= until:
            refuse(
                "key-expired",
                f"key {keyid} was valid until {until}, this entry is of {self.time}: enrol again",
            )

    def check_not_frozen(self, *holders: State | None) -> None:
        for holder in holders:
            if holder is not None and holder["frozen"] is not None:
                refuse(
                    "project-frozen",
                    f"{self.project or self.namespace!r} is frozen since entry {holder['frozen']}"
                    " until two moderators decide",
                )


@lru_cache(maxsize=4096)
def _decoded(spki: str) -> bytes:
    """A key as state keeps it, for who verifies by it: a few keys sign most entries."""
    return base64.b64decode(spki)


def refuse(code: str, message: str, party: Literal["signer", "log"] = "signer") -> NoReturn:
    """This entry breaks a rule, and whose fault it is: the statement's signer's or the log's."""
    raise RefusalError(Broken(code, message, party))


def threshold_of(project: State | None, namespace: State | None) -> int:
    """How many enrolled keys sign a change of keys or owners."""
    if project is not None and project["keyed"]:
        return int(project["threshold"])
    return int(namespace["threshold"]) if namespace is not None else 1


def approvals_of(project: State | None, namespace: State | None) -> int:
    """How many people must approve a release before it is listed; 0: none."""
    return max(int(holder.get("approvals", 0)) for holder in (project or {}, namespace or {}))


def check_count(signers: Sequence[Party], project: State | None, namespace: State | None) -> None:
    """Enough enrolled keys have signed a change of keys, owners or approvals.

    Where approvals are required, of as many people: or else one of them could make the others.
    """
    if len(signers) < (needed := threshold_of(project, namespace)):
        refuse("not-authorised", f"{len(signers)} enrolled keys signed, {needed} are needed")
    people = {signer.account for signer in signers} - {None}
    if len(people) < (needed := approvals_of(project, namespace)):
        refuse("not-authorised", f"the keys of {len(people)} people signed, those of {needed} are needed")


def is_keyed(project: State | None, namespace: State | None) -> bool:
    """Whether a key was ever enrolled here or in the namespace."""
    return any(holder is not None and holder["keyed"] for holder in (project, namespace))


def is_signed(project: State | None, namespace: State | None) -> bool:
    """Whether publishes must be signed by an enrolled key."""
    return any(holder is not None and holder["signed"] for holder in (project, namespace))


def owners_of(project: State | None, namespace: State | None, *, role: str | None = None) -> set[str]:
    """The accounts that may act for a project, its own and its namespace's; those of one role, if given."""
    return {
        account
        for holder in (project, namespace)
        if holder is not None
        for account, has in holder["owners"].items()
        if role in (None, has)
    }


def check_actor(
    step: Step,
    account: str | None,
    project: State | None,
    namespace: State | None,
    *,
    role: str | None = None,
) -> None:
    """The registry says on whose behalf an owner's act was taken: one who may act, in this role if one is given."""
    if account is None or account not in owners_of(project, namespace, role=role):
        what = f"may not act for {step.project or step.namespace!r}" + (f" as its {role}" if role else "")
        refuse("not-an-owner", f"account {account} {what}", "log")


def approvers_of(project: State | None, namespace: State | None, time: int) -> dict[str, str]:
    """The people who can approve at `time`, by a key of each: owners, of whatever role, with a key that is valid."""
    owners, found = owners_of(project, namespace), dict[str, str]()
    for holder in (project, namespace):
        for keyid, item in ({} if holder is None else holder["keys"]).items():
            valid = item["until"] is None or time < item["until"]
            if valid and item["scope"] != "ci" and item["account"] in owners:
                found[item["account"]] = keyid
    return found


def check_approvers(step: Step, project: State | None, namespace: State | None) -> None:
    """A project that requires approvals keeps so many people who can give them: else only a recovery is left."""
    needed, able = approvals_of(project, namespace), approvers_of(project, namespace, step.time)
    if len(able) < needed:
        refuse(
            "approvals",
            f"{step.project or step.namespace!r} requires {needed} approvals, and {len(able)} people with"
            " a valid key would be left to give them",
        )
