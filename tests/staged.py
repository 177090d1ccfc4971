"""Staged releases in a simulated registry: ask for approvals, give them, and make the target a rogue would list."""

from __future__ import annotations

from typing import Any

from countermark import rules
from countermark.filelist import files_digest
from countermark.statement import KeySigner, Statement, sign
from tests.simulator import ACCOUNT, Published, World


def require(
    world: World, project: str, needed: int, *, namespace: str = "", key: KeySigner | None = None,
    account: str = ACCOUNT,
) -> int:  # fmt: skip
    """The owner asks that so many people approve a release."""
    holder = world.view.get(rules.holder_key(namespace, project))
    assert holder is not None
    said = {"namespace": namespace, "origin": world.origin, "prev": holder["head"], "project": project}
    subject = f"project:{project}" if project else f"namespace:{namespace}"
    statement = Statement.about(subject, "require-approvals", {**said, "needed": needed})
    return world.append("require-approvals", sign(statement, key or world.publisher), {"actor": account})


def approve(
    world: World, project: str, version: str, *, namespace: str = "", key: KeySigner | None = None,
    account: str = ACCOUNT,
) -> int:  # fmt: skip
    """An owner approves what waits of a release."""
    release = world.view.get(("release", namespace, project, version))
    assert release is not None
    said = {
        "namespace": namespace, "origin": world.origin, "prev": release["head"], "project": project,
        "version": version, "files_sha256": files_digest(map(tuple, release["files"].values())),
        "decision": "approve",
    }  # fmt: skip
    statement = Statement.about(f"project:{project}", "approve", said)
    return world.append("approve", sign(statement, key or world.publisher), {"approver": account})


def target(world: World, file: Published) -> dict[str, Any]:
    """The target that this file would have if it were listed."""
    state = world.view.get(rules.file_key("", file.project, file.filename))
    assert state is not None
    hashes = {"sha256": state["sha256"]}
    return {"custom": rules.target_custom(state), "hashes": hashes, "length": state["length"]}
