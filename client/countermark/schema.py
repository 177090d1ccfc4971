"""Schemas: the form every type's predicate and registry part must have.

A schema is closed: all its members are mandatory and there are no others. This is a `yank`'s:

    predicate   namespace, origin, prev, project, reason (one of YANK_REASONS)
    registry    actor (an account, or null)

Codes are lower-case words from the closed lists below; a new code is a new rule version. `check_statement`
is for whoever signs or receives a statement on its own; entry.py calls it for every leaf, and checks the
registry's part by the same tables. Form only: nothing here knows the log's history.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from countermark.digest import is_hex, sha256
from countermark.errors import MalformedError
from countermark.limits import (
    ANALYZERS_MAX,
    CI_KEY_SECONDS,
    ENTRY_TIME_MAX,
    JSON_MAX_INTEGER,
    MANIFEST_MAX_LINES,
    NAME_MAX_CHARS,
    PUBLIC_KEY_MAX_BYTES,
    SIGNATURES_MAX,
    TIMESTAMPS_MAX,
)
from countermark.machine import (
    is_identity,
    is_issuer,
    is_ref_pattern,
    is_repository,
    is_repository_id,
    is_workflow,
    publisher_id,
)
from countermark.names import normalise_project, normalise_version, parse_filename
from countermark.statement import Statement, decode_base64, is_sha256, keyid_of, load_public_key
from countermark.values import dataclass, pattern

Check: TypeAlias = Callable[[Any], bool]

# --- closed lists of codes ------------------------------------------------------------------------------
ROLE_SCOPES: Final = frozenset({"registry", "scanner", "moderation"})
SCOPES: Final = ROLE_SCOPES | {"project", "namespace", "ci"}
ATTEST_KINDS: Final = frozenset({"countermark", "pep740", "sbom", "slsa-provenance"})
CHECKED: Final = frozenset({"yes", "no", "not-checked"})
YANK_REASONS: Final = frozenset({"broken", "metadata", "mistake", "other", "security", "superseded"})
UNYANK_REASONS: Final = frozenset({"fixed", "mistake", "other"})
REMOVE_REASONS: Final = frozenset({"legal", "mistake", "other", "secret", "security"})
REVOKE_REASONS: Final = frozenset({"compromised", "lost", "retired", "superseded"})
OWNER_ACTIONS: Final = frozenset({"add", "remove", "transfer", "signing-off", "veto", "decide"})
OWNER_ROLES: Final = frozenset({"owner", "maintainer"})
PUBLISHER_ACTIONS: Final = frozenset({"add", "remove"})
DECISIONS: Final = frozenset({"confirm", "reject"})
APPROVALS: Final = frozenset({"approve", "reject"})
TIERS: Final = frozenset({"none", "note", "queue", "block"})  # nothing; a remark; a person looks; automatic
PASSING_TIERS: Final = frozenset({"none", "note"})  # a verdict of these lets a file be listed
CLASSIFICATIONS: Final = frozenset({"no-findings", "indeterminate", "threat", "spam"})
CONFIDENCES: Final = frozenset({"low", "medium", "high"})
HOLD_REASONS: Final = frozenset({"account", "legal", "malware", "report", "secret", "spam", "verdict"})
CLEAR_REASONS: Final = frozenset({"appeal-upheld", "false-positive", "resolved", "reviewed"})
TAKEDOWN_REASONS: Final = frozenset(
    {"dependency-confusion", "impersonation", "legal", "malware", "policy", "secret", "spam"}
)
FREEZE_REASONS: Final = frozenset({"compromised", "retired", "successor"})
TUF_ROLES: Final = ("index", "root", "snapshot", "targets", "trust")

RESERVED: Final = frozenset({"appeal", "freeze", "purge", "observe", "policy"})
FILE_TYPES: Final = frozenset(
    {"publish", "attest", "yank", "unyank", "remove", "verdict", "hold", "clear", "takedown"}
)

_TOKEN = pattern(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_NAMESPACE = pattern(r"[a-z0-9]+(?:-[a-z0-9]+)*")


# --- what a member may be -------------------------------------------------------------------------------
def _integer(value: Any) -> bool:
    return type(value) is int and 0 <= value <= JSON_MAX_INTEGER


def _positive(value: Any) -> bool:
    return type(value) is int and 0 < value <= JSON_MAX_INTEGER


def _seconds(value: Any) -> bool:
    return type(value) is int and 0 < value <= ENTRY_TIME_MAX


def _approvers(value: Any) -> bool:
    """How many people must approve; to lower it, so many sign one statement."""
    return type(value) is int and 0 <= value <= SIGNATURES_MAX - 1


def _account(value: Any) -> bool:
    """An account, moderator or case: 16 random bytes in hex, mapped to a person in a database only."""
    return type(value) is str and is_hex(value, 32)


def _or_null(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _code(codes: frozenset[str]) -> Check:
    return lambda value: type(value) is str and value in codes


def _text(pattern: re.Pattern[str], max_chars: int = NAME_MAX_CHARS) -> Check:
    return lambda value: (
        type(value) is str and len(value) <= max_chars and pattern.fullmatch(value) is not None
    )


def is_origin(value: Any) -> bool:
    """Whether `value` can be a log's origin: printable ASCII without spaces and plus signs."""
    if type(value) is not str or not 0 < len(value) <= 255:
        return False
    return value.isascii() and value.isprintable() and " " not in value and "+" not in value


def is_namespace(value: Any) -> bool:
    """Whether `value` is the name of a namespace; empty is the default one."""
    return value == "" or (
        type(value) is str and len(value) <= 64 and _NAMESPACE.fullmatch(value) is not None
    )


def _project(value: Any) -> bool:
    return type(value) is str and (value == "" or normalise_project(value) == value)


def _version(value: Any) -> bool:
    return type(value) is str and normalise_version(value) == value


def _public_key(value: Any) -> bool:
    load_public_key(decode_base64(value, max_bytes=PUBLIC_KEY_MAX_BYTES, what="public key"))
    return True


def _authorised_by(value: Any) -> bool:
    return _integer(value) or (type(value) is str and value in ("registry", "authority"))


def _analyzers(value: Any) -> bool:
    if type(value) is not list or len(value) > ANALYZERS_MAX:
        return False
    for item in value:
        if type(item) is not dict or item.keys() != {"name", "version"}:
            return False
        if not all(type(text) is str and _TOKEN.fullmatch(text) for text in item.values()):
            return False
    names = [item["name"] for item in value]
    return names == sorted(set(names))


def _metadata_file(value: Any) -> bool:
    return (
        type(value) is dict
        and value.keys() == {"length", "sha256", "version"}
        and _positive(value["length"])
        and _positive(value["version"])
        and is_sha256(value["sha256"])
    )


def _digests(value: Any) -> bool:
    if type(value) is not list or len(value) > TIMESTAMPS_MAX or len(set(map(str, value))) != len(value):
        return False
    return all(map(is_sha256, value))


@dataclass(frozen=True)
class Schema:
    """The members a type has, all of them mandatory, and no others."""

    predicate: Mapping[str, Check]
    registry: Mapping[str, Check]


_BINDING: Final[dict[str, Check]] = {
    "origin": is_origin,
    "namespace": is_namespace,
    "project": _project,
    "prev": _or_null(is_sha256),
}


def _schema(predicate: dict[str, Check], registry: dict[str, Check]) -> Schema:
    return Schema(_BINDING | predicate, registry)


_ACTOR: Final[dict[str, Check]] = {"actor": _or_null(_account)}
_CASE: Final[dict[str, Check]] = {"case": _or_null(_account), "moderator": _or_null(_account)}


def _decision(reasons: frozenset[str]) -> Schema:
    about: dict[str, Check] = {"about": _or_null(is_sha256), "evidence_sha256": _or_null(is_sha256)}
    return _schema({"reason": _code(reasons)} | about, _CASE)


SCHEMAS: Final[dict[str, Schema]] = {
    "publish": _schema(
        {
            "version": _version,
            "length": _positive,
            "metadata_sha256": is_sha256,
            "record_sha256": _or_null(is_sha256),
        },
        {"uploader": _account, "key_index": _or_null(_integer), "identity": _or_null(is_identity)},
    ),
    "attest": _schema(
        {"about": is_sha256, "statement_sha256": is_sha256, "kind": _code(ATTEST_KINDS)},
        {"verified": _code(CHECKED)},
    ),
    "yank": _schema({"reason": _code(YANK_REASONS)}, _ACTOR),
    "unyank": _schema({"reason": _code(UNYANK_REASONS)}, _ACTOR),
    "remove": _schema({"reason": _code(REMOVE_REASONS)}, _ACTOR),
    "key-enroll": _schema(
        {
            "key": _public_key,
            "scope": _code(SCOPES),
            "valid_for": _or_null(_seconds),
            "threshold": _positive,
        },
        {
            "authorised_by": _authorised_by,
            "account": _or_null(_account),
            "identity": _or_null(is_identity),
        },
    ),
    "key-revoke": _schema(
        {"keyid": is_sha256, "reason": _code(REVOKE_REASONS), "compromised_since": _or_null(_integer)},
        _ACTOR,
    ),
    "trusted-publisher": _schema(
        {
            "action": _code(PUBLISHER_ACTIONS),
            "issuer": is_issuer,
            "repository": is_repository,
            "repository_id": is_repository_id,
            "workflow": is_workflow,
            "ref": _or_null(is_ref_pattern),
        },
        _ACTOR | {"authorised_by": _authorised_by},
    ),
    "owner": _schema(
        {
            "action": _code(OWNER_ACTIONS),
            "account": _or_null(_account),
            "role": _or_null(_code(OWNER_ROLES | DECISIONS)),
        },
        _ACTOR | {"second": _or_null(_account)},
    ),
    "approve": _schema(
        {"version": _version, "files_sha256": is_sha256, "decision": _code(APPROVALS)}, {"approver": _account}
    ),
    "require-approvals": _schema({"needed": _approvers}, _ACTOR),
    "verdict": _schema(
        {
            "tier": _code(TIERS),
            "classification": _code(CLASSIFICATIONS),
            "confidence": _code(CONFIDENCES),
            "ruleset_sha256": is_sha256,
            "analyzers": _analyzers,
            "findings_sha256": _or_null(is_sha256),
        },
        {},
    ),
    "hold": _decision(HOLD_REASONS),
    "clear": _decision(CLEAR_REASONS),
    "takedown": _decision(TAKEDOWN_REASONS),
    "log-freeze": _schema({"reason": _code(FREEZE_REASONS)}, {"case": _or_null(_account)}),
    "predecessor": _schema({"log": is_origin, "tree_size": _positive, "root_hash": is_sha256}, {}),
    "import": _schema(
        {
            "manifest_sha256": is_sha256,
            "chain_sha256": is_sha256,
            "count": lambda value: _positive(value) and value <= MANIFEST_MAX_LINES,
            "source": _text(_TOKEN),
        },
        {},
    ),
    "tuf": _schema(
        {role: _or_null(_metadata_file) for role in TUF_ROLES}
        | {
            "timestamps": _digests,
            "bins_old": _or_null(is_sha256),
            "bins_new": is_sha256,
            "changed_sha256": _or_null(is_sha256),
            "applied": _integer,
        },
        {},
    ),
}


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


def check_members(value: Mapping[str, Any], schema: Mapping[str, Check], what: str) -> None:
    if value.keys() != schema.keys():
        odd = sorted(value.keys() ^ schema.keys())
        raise MalformedError(
            f"{what} must have exactly {', '.join(sorted(schema))}; at odds: {', '.join(odd)[:200]}"
        )
    for name, check in schema.items():
        if not check(value[name]):
            raise MalformedError(f"{what} has an illegal {name}: {str(value[name])[:120]!r}")


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
