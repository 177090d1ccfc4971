"""Machines that publish, for tests of the rules: a trusted publisher, an identity, a one-run key in a `World`.

world.accept(trust(world, "acme", alice))             # jobs of acme/widgets, release.yml may publish
world.accept(enroll_run(world, "acme", run))          # such a job's key
world.accept(world.publish("acme-1.0.tar.gz", by=run, registry=by_run(world, run)))
"""

from __future__ import annotations

import base64
from typing import Any

from countermark.entry import Entry
from countermark.machine import TRUSTED, publisher_id
from countermark.statement import Signer
from tests.entrymaker import ALICE, World

ISSUER = "https://token.actions.githubusercontent.com"
TRUSTS = {
    "issuer": ISSUER,
    "ref": "refs/tags/*",
    "repository": "acme/widgets",
    "repository_id": "4711",
    "workflow": "release.yml",
}


def identity(**changes: Any) -> dict[str, Any]:
    """The job that `TRUSTS` trusts, or another."""
    said = TRUSTS | {"ref": "refs/tags/v1.0", "actor": "5f" * 32, "run": "9001", "sha": "ab" * 20}
    return said | changes


def trust(
    world: World,
    project: str,
    *signers: Signer,
    action: str = "add",
    namespace: str = "",
    actor: str | None = ALICE,
    authorised_by: Any = None,
    prev: Any = ...,
    **said: Any,
) -> Entry:
    """trusted-publisher: whom the project trusts from now on, or no longer."""
    holder = world.project(project, namespace)
    trusts = {name: (TRUSTS | said)[name] for name in TRUSTED}
    predicate = trusts | {
        "action": action,
        "namespace": namespace,
        "project": project,
        "prev": (holder["head"] if holder else None) if prev is ... else prev,
    }
    by = world.key_index(signers[0], project, namespace) if authorised_by is None else authorised_by
    added = {"actor": actor, "authorised_by": "registry" if by is None else by}
    return world.entry("trusted-publisher", f"publisher:{publisher_id(trusts)}", predicate, added, *signers)


def publisher(world: World, project: str, namespace: str = "") -> dict[str, Any]:
    """The newest trusted publisher of a project, or nothing that anybody trusts."""
    for level in (project, "") if namespace else (project,):
        items = (world.project(level, namespace) or {}).get("publishers", {})
        if items:
            return max(items.values(), key=lambda item: item["index"])
    return TRUSTS | {"index": 0, "lh": "00" * 32, "account": ALICE}


def enroll_run(
    world: World,
    project: str,
    run: Signer,
    *others: Signer,
    namespace: str = "",
    valid_for: int = 900,
    predicate: dict[str, Any] | None = None,
    registry: dict[str, Any] | None = None,
    **about: Any,
) -> Entry:
    """key-enroll of a one-run key under the project's newest trusted publisher."""
    trusted = publisher(world, project, namespace)
    said = {
        "key": base64.b64encode(run.public_key).decode(),
        "namespace": namespace,
        "prev": trusted["lh"],
        "project": project,
        "scope": "ci",
        "threshold": 1,
        "valid_for": valid_for,
    }
    trusts = {name: trusted[name] for name in TRUSTED if name != "ref"}
    added = {
        "account": trusted["account"],
        "authorised_by": trusted["index"],
        "identity": identity(**(trusts | about)),
    }
    return world.entry(
        "key-enroll", f"key:{run.keyid}", said | (predicate or {}), added | (registry or {}), run, *others
    )


def run_index(world: World, project: str, run: Signer, namespace: str = "") -> int | None:
    """The enrolment of a one-run key."""
    enrolment = world.view.get(("enrolment", namespace, project, run.keyid))
    return None if enrolment is None else int(enrolment["index"])


def by_run(world: World, run: Signer, project: str = "acme", **about: Any) -> dict[str, Any]:
    """What the registry adds to a publish by a job, over what `World.publish` says."""
    return {"key_index": run_index(world, project, run), "identity": identity(**about)}
