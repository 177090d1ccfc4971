"""Examples of entries: a statement of every type, and an import's manifest with the leaf of its first line."""

from __future__ import annotations

import base64
import json

from countermark import manifest, schema
from countermark.entry import make_imported
from countermark.filelist import files_digest
from countermark.imported import Imported
from countermark.machine import publisher_id
from countermark.statement import Statement
from docs_samples import HASH, ORIGIN, TIME, example, fence, publish_statement, publisher_signer

_FILES = files_digest([("hello_countermark-1.0.0-py3-none-any.whl", "5e" * 32)])
_PREDICATES: dict[str, tuple[str, dict[str, object]]] = {
    "attest": ("", {"about": HASH["leaf"], "statement_sha256": HASH["evidence"], "kind": "pep740"}),
    "yank": ("", {"reason": "broken"}),
    "unyank": ("", {"reason": "fixed"}),
    "remove": ("", {"reason": "secret"}),
    "key-revoke": ("key:" + "8c" * 32, {"keyid": "8c" * 32, "reason": "lost", "compromised_since": None}),
    "owner": ("project:hello-countermark", {"action": "add", "account": "ab" * 16, "role": "maintainer"}),
    "approve": (
        "project:hello-countermark",
        {"version": "1.0.0", "files_sha256": _FILES, "decision": "approve"},
    ),
    "require-approvals": ("project:hello-countermark", {"needed": 2}),
    "verdict": (
        "",
        {
            "tier": "none",
            "classification": "no-findings",
            "confidence": "high",
            "ruleset_sha256": HASH["rules"],
            "analyzers": [{"name": "archive", "version": "1"}],
            "findings_sha256": HASH["evidence"],
        },
    ),
    "hold": ("", {"reason": "malware", "about": None, "evidence_sha256": None}),
    "clear": ("", {"reason": "false-positive", "about": HASH["leaf"], "evidence_sha256": None}),
    "takedown": ("", {"reason": "malware", "about": None, "evidence_sha256": None}),
    "log-freeze": (f"log:{ORIGIN}", {"reason": "successor", "project": ""}),
    "predecessor": (
        "log:old.example/registry",
        {
            "log": "old.example/registry",
            "tree_size": 4711,
            "root_hash": HASH["bins"],
            "project": "",
            "prev": None,
        },
    ),
}


def statements() -> list[Statement]:
    """One of each type, in its form."""
    publish = publish_statement()
    binding = {name: publish.predicate[name] for name in ("origin", "namespace", "project")}
    key = base64.b64encode(publisher_signer().public_key).decode()
    enrol = {"key": key, "scope": "project", "valid_for": None, "threshold": 1}
    metadata = {"length": 4096, "sha256": HASH["bins"], "version": 7}
    tuf = dict.fromkeys(schema.TUF_ROLES) | {
        "snapshot": metadata,
        "timestamps": [HASH["evidence"]],
        "bins_old": HASH["bins"],
        "bins_new": HASH["leaf"],
        "changed_sha256": HASH["rules"],
        "applied": 41,
    }
    made = [publish]
    for kind, (subject, predicate) in _PREDICATES.items():
        members = {**binding, "prev": HASH["leaf"], **predicate}
        if subject:
            made.append(Statement.about(subject, kind, members))
        else:
            made.append(Statement(publish.subject_name, publish.subject_sha256, kind, members))
    made.append(
        Statement.about(f"key:{publisher_signer().keyid}", "key-enroll", {**binding, "prev": None, **enrol})
    )
    trusts = {
        "issuer": "https://token.actions.githubusercontent.com",
        "ref": "refs/tags/*",
        "repository": "acme/hello",
        "repository_id": "4711",
        "workflow": "release.yml",
    }
    subject = f"publisher:{publisher_id(trusts)}"
    trusted = {**binding, "prev": HASH["leaf"], "action": "add", **trusts}
    made.append(Statement.about(subject, "trusted-publisher", trusted))
    made.append(Statement.about("tuf:7", "tuf", {**binding, "project": "", "prev": None, **tuf}))
    said = manifest.predicate(_lines(), origin=binding["origin"], prev=None, source="old.example")
    made.append(Statement.about(f"import:{said['manifest_sha256']}", "import", said))
    return made


def _lines() -> list[manifest.Line]:
    return [
        manifest.Line("hello-countermark", version, f"hello_countermark-{version}.tar.gz", digest * 32, 1234)
        for version, digest in (("0.1", "6e"), ("0.2", "7e"))
    ]


@example
def manifest_lines() -> str:
    """The manifest of an import of two files."""
    return fence(manifest.format_manifest(_lines()).decode())


@example
def imported_leaf() -> str:
    """The leaf of its first line."""
    rest = manifest.links([line.row for line in _lines()])[1]
    return fence(make_imported(Imported(_lines()[0], 9, 1, rest, None), time=TIME).raw.decode(), "json")


@example
def every_type() -> str:
    """A statement of each type, in the order of the table, each of which has its type's form."""
    made = {statement.type: statement for statement in statements()}
    assert made.keys() | {"opaque"} == schema.SCHEMAS.keys() | {"opaque"}
    text = ""
    for kind in schema.SCHEMAS:
        schema.check_statement(Statement.parse(made[kind].payload()))
        text += f"`{kind}`, about `{made[kind].subject_name[:48]}`:\n\n"
        text += fence(json.dumps(dict(made[kind].predicate), indent=1, sort_keys=True), "json") + "\n"
    return text
