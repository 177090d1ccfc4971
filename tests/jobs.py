"""A job of a CI system in the simulated registry: trusted by the project, and with a key for one run."""

from __future__ import annotations

import base64
from typing import Any

from countermark import rules
from countermark.entry import make_entry
from countermark.machine import TRUSTED, publisher_id
from countermark.statement import KeySigner, Statement, sign
from tests.cimaker import TRUSTS, identity
from tests.simulator import ACCOUNT, World, signing_key

RUN = KeySigner(signing_key("run 1"))


def trust_jobs(
    world: World, project: str, *, by: KeySigner | None = None, raw: bool = False, **said: Any
) -> int:
    """trusted-publisher, signed by the project's key; `raw` logs what the rules would refuse."""
    state = world.view.get(rules.project_key("", project))
    assert state is not None
    trusts = {name: (TRUSTS | said)[name] for name in TRUSTED}
    predicate = trusts | {"action": said.get("action", "add"), "prev": state["head"]} | _bound(world, project)
    signer = by or world.publisher
    statement = Statement.about(f"publisher:{publisher_id(trusts)}", "trusted-publisher", predicate)
    registry = {"actor": ACCOUNT, "authorised_by": world.key_index(project)}
    return _append(world, "trusted-publisher", statement, signer, registry, raw=raw)


def enrol_run(
    world: World, project: str, trusted: int, *, run: KeySigner = RUN, raw: bool = False, **about: Any
) -> int:
    """The enrolment of a one-run key under a trusted publisher's entry."""
    from countermark.tlog.merkle import leaf_hash

    predicate = {
        "key": base64.b64encode(run.public_key).decode(),
        "prev": leaf_hash(world.entries[trusted]).hex(),
        "scope": "ci",
        "threshold": 1,
        "valid_for": 900,
    } | _bound(world, project)
    statement = Statement.about(f"key:{run.keyid}", "key-enroll", predicate)
    registry = {"account": ACCOUNT, "authorised_by": trusted, "identity": identity(**about)}
    return _append(world, "key-enroll", statement, run, registry, raw=raw)


def publishing_job(world: World, project: str, **said: Any) -> tuple[int, int]:
    """A project that trusts a job, whose key signs from now on; the indexes of trust and enrolment."""
    if world.view.get(rules.project_key("", project)) is None:
        world.enroll(project)
    trusted = trust_jobs(world, project, **said)
    about = {name: value for name, value in said.items() if name != "ref"}
    enrolled = enrol_run(world, project, trusted, **about)
    world.publisher = RUN
    return trusted, enrolled


def _bound(world: World, project: str) -> dict[str, Any]:
    return {"namespace": "", "origin": world.origin, "project": project}


def _append(
    world: World, kind: str, statement: Statement, signer: KeySigner, registry: dict[str, Any], *, raw: bool
) -> int:
    envelope = sign(statement, signer)
    if not raw:
        return world.append(kind, envelope, registry)
    return world.append_raw(make_entry(type=kind, envelope=envelope, registry=registry, time=world.now).raw)
