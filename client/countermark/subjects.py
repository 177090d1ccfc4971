"""Subjects: what a statement of each type is about, and whether its predicate fits that.

    publish, yank, hold, ...       the file                 hello_countermark-1.0.0-py3-none-any.whl
    key-enroll, key-revoke         the key, by its key ID   key:8c8c...
    owner, approve, ...            whose owners act         project:hello-countermark, or namespace:acme
    tuf                            the snapshot             tuf:7

A file's name says its project and version, which must be those of the predicate. Any other name follows from the
predicate, and its digest is the SHA-256 of the name. `check_statement` is for whoever signs or receives a statement
on its own; entry.py calls it for every leaf. Form only: nothing here knows the log's history.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any, Final

from countermark.digest import sha256
from countermark.errors import MalformedError
from countermark.limits import CI_KEY_SECONDS, SIGNATURES_MAX
from countermark.machine import publisher_id
from countermark.names import parse_filename
from countermark.schema import DECISIONS, FILE_TYPES, OWNER_ROLES, ROLE_SCOPES, SCHEMAS, check_members
from countermark.statement import Statement, is_sha256, keyid_of


def check_statement(statement: Statement) -> None:
    """MalformedError unless the predicate has its type's form and the subject fits it. Who signed is not asked."""
    kind, predicate = statement.type, statement.predicate
    schema = SCHEMAS.get(kind)
    if schema is None:
        raise MalformedError(f"statement type {kind!r} is not one this program can write or check")
    check_members(predicate, schema.predicate, f"{kind} statement's predicate")
    if kind in FILE_TYPES:
        _check_file_subject(statement)
        return
    name = _SUBJECTS[kind](predicate) or statement.subject_name
    if statement.subject_name != name:
        raise MalformedError(
            f"{kind} statement is about {statement.subject_name[:120]!r}, its predicate about {name!r}"
        )
    if statement.subject_sha256 != sha256(statement.subject_name.encode()).hexdigest():
        raise MalformedError(f"{kind} statement's subject digest is not the SHA-256 of its subject's name")
    _EXTRA.get(kind, _no_extra)(statement)


def _check_file_subject(statement: Statement) -> None:
    kind, predicate = statement.type, statement.predicate
    if not is_sha256(
        statement.subject_sha256
    ):  # Statement.parse asks as well; a signer's own has not been parsed
        raise MalformedError(f"{kind} statement's subject digest is not a SHA-256")
    file = parse_filename(statement.subject_name)
    if file.project != predicate["project"]:
        raise MalformedError(
            f"file {statement.subject_name!r} is of project {file.project!r},"
            f" the predicate of {predicate['project']!r}"
        )
    if kind != "publish":
        return
    if file.version != predicate["version"]:
        raise MalformedError(
            f"file {statement.subject_name!r} is of version {file.version}, the predicate of {predicate['version']}"
        )
    if predicate["prev"] is not None:
        raise MalformedError("publish statement's prev must be null: a file name is new for ever")
    if file.is_wheel != (predicate["record_sha256"] is not None):
        raise MalformedError("record_sha256 must be given for wheels and be null for anything else")


def _key_subject(predicate: Mapping[str, Any]) -> str:
    return "key:" + keyid_of(base64.b64decode(predicate["key"]))


def _owner_subject(predicate: Mapping[str, Any]) -> str:
    if predicate["project"]:
        return f"project:{predicate['project']}"
    return f"namespace:{predicate['namespace']}"


def _tuf_subject(predicate: Mapping[str, Any]) -> str:
    if predicate["snapshot"] is None:  # a heartbeat; which version is in force, the log's state knows
        return ""
    return f"tuf:{predicate['snapshot']['version']}"


def _check_enroll(statement: Statement) -> None:
    predicate = statement.predicate
    scope, project, namespace = predicate["scope"], predicate["project"], predicate["namespace"]
    if scope in ROLE_SCOPES:
        fits = not project and not namespace and predicate["threshold"] == 1
    elif scope == "namespace":
        fits = not project and bool(namespace)
    else:
        fits = bool(project)
    if scope == "ci" and (
        predicate["threshold"] != 1 or not 0 < (predicate["valid_for"] or 0) <= CI_KEY_SECONDS
    ):
        raise MalformedError(
            f"a one-run key lives 1 to {CI_KEY_SECONDS} seconds, not {predicate['valid_for']}, and sets no threshold"
        )
    if not fits or predicate["threshold"] > SIGNATURES_MAX - 1:  # k enrolled keys and the new one sign
        raise MalformedError(
            f"key-enroll statement of scope {scope!r} does not go with project {project!r},"
            f" namespace {namespace!r} and threshold {predicate['threshold']}"
        )


def _check_revoke(statement: Statement) -> None:
    predicate = statement.predicate
    of_role = not predicate["project"] and not predicate["namespace"]
    if predicate["compromised_since"] is not None and (of_role or predicate["reason"] != "compromised"):
        raise MalformedError("compromised_since goes with the reason 'compromised' of a publisher's key only")


def _check_owner(statement: Statement) -> None:
    predicate = statement.predicate
    action, account, role = predicate["action"], predicate["account"], predicate["role"]
    if not predicate["project"] and not predicate["namespace"]:
        raise MalformedError("owner statement names neither a project nor a namespace")
    roles = {"add": OWNER_ROLES, "decide": DECISIONS}.get(action)
    if (role not in roles) if roles is not None else (role is not None):
        raise MalformedError(f"owner statement's role {role!r} does not go with its action {action!r}")
    if (account is None) != (action in ("signing-off", "veto")):
        raise MalformedError(f"owner statement's account {account!r} does not go with its action {action!r}")


def _check_approve(statement: Statement) -> None:
    if not statement.predicate["project"]:
        raise MalformedError("approve statement names no project")


def _check_requirement(statement: Statement) -> None:
    if not statement.predicate["project"] and not statement.predicate["namespace"]:
        raise MalformedError("require-approvals statement names neither a project nor a namespace")


def _check_publisher(statement: Statement) -> None:
    if not statement.predicate["project"] and not statement.predicate["namespace"]:
        raise MalformedError("trusted-publisher statement names neither a project nor a namespace")


def _check_unbound(statement: Statement) -> None:
    if statement.predicate["project"] or statement.predicate["namespace"]:
        raise MalformedError(f"{statement.type} statement names a project or namespace")


def _check_tuf(statement: Statement) -> None:
    name = statement.subject_name
    _check_unbound(statement)
    version = name.removeprefix("tuf:")
    if (
        version == name
        or not version.isdecimal()
        or not version.isascii()
        or str(int(version[:17])) != version
    ):
        raise MalformedError(f"tuf statement is about {name[:120]!r}, not about tuf:VERSION")


def _no_extra(statement: Statement) -> None:
    pass


_SUBJECTS: Final[dict[str, Callable[[Mapping[str, Any]], str]]] = {
    "key-enroll": _key_subject,
    "key-revoke": lambda predicate: f"key:{predicate['keyid']}",
    "owner": _owner_subject,
    "approve": _owner_subject,
    "require-approvals": _owner_subject,
    "trusted-publisher": lambda predicate: f"publisher:{publisher_id(predicate)}",
    "tuf": _tuf_subject,
    "log-freeze": lambda predicate: f"log:{predicate['origin']}",
    "predecessor": lambda predicate: f"log:{predicate['log']}",
    "import": lambda predicate: f"import:{predicate['manifest_sha256']}",
}
_EXTRA: Final[dict[str, Callable[[Statement], None]]] = {
    "key-enroll": _check_enroll,
    "key-revoke": _check_revoke,
    "owner": _check_owner,
    "approve": _check_approve,
    "require-approvals": _check_requirement,
    "trusted-publisher": _check_publisher,
    "tuf": _check_tuf,
    "log-freeze": _check_unbound,
    "predecessor": _check_unbound,
    "import": _check_unbound,
}
