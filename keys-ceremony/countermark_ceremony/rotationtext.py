"""A rotation in words, as the plan of its next ceremony, and as JSON.

ceremony 2 of registry.example, after root 1
  root       2 of 3 keys: ada-root ben-root eve-root
  - cleo-root of cleo leaves; not asked to sign
  + eve-root of eve comes, fingerprint 91aa...
  signs      2 of ada-root ben-root, in the name of root 1
  signs      2 of ada-root ben-root eve-root, in the name of the new root
  enough     ada and ben
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from countermark.words import root_words
from countermark_ceremony.nextplan import FORMAT
from countermark_ceremony.previous import Previous
from countermark_ceremony.rotation import Rotation, Step
from countermark_ceremony.tables import PlanKey, text


def plan_text(
    newest: Previous,
    step: Step,
    *,
    folder: str,
    title: str,
    operator: str,
    date: datetime,
    changes: Sequence[str] | None = None,
) -> bytes:
    """The plan of one ceremony, as a person would write it; `changes` where it changes more than roles."""
    lines = [
        f"format = {text(FORMAT)}",
        f"title = {text(title)}",
        f"operator = {text(operator)}",
        f"origin = {text(newest.trust_file.origin)}",
        f"date = {date:%Y-%m-%dT%H:%M:%SZ}",
        f"changes = {json.dumps(list(step.changes if changes is None else changes))}",
        "",
        "[previous]",
        f"folder = {text(folder)}",
        f"root_words = {text(root_words(newest.metadata['root'].signed_bytes))}",
    ]
    for key in step.keys.values():
        lines += key.table()
    for role in step.roles.values():
        lines += role.table()
    return ("\n".join(lines) + "\n").encode()


def title_of(step: Step) -> str:
    """Who leaves and who comes, in a line."""
    come, go = _moves(step)
    words = [f"{name} leaves" for name in _holders(go, come)] + [
        f"{name} comes" for name in _holders(come, go)
    ]
    words += [f"another key for {name}" for name in _holders(go, []) if name in _holders(come, [])]
    if not words:
        words = ["another threshold" if "threshold" in step.changes else "the same keys, later expiries"]
    return ", ".join(words)


def lines(newest: Previous, rotation: Rotation) -> list[str]:
    """Every ceremony of a rotation, for the people who will hold it."""
    found = []
    if len(rotation.steps) > 1:
        old = rotation.steps[0].before["root"].threshold
        found.append(
            f"{len(rotation.steps)} ceremonies are needed: {old} keys could sign, so fewer than {old} may leave "
            "the root in one step"
        )
    for number, step in enumerate(rotation.steps):
        found.append(
            f"ceremony {newest.number + 1 + number} of {newest.trust_file.origin}, after root "
            f"{newest.root.version + number}"
        )
        found += [f"  {line}" for line in _step_lines(step, rotation)]
    return found


def _step_lines(step: Step, rotation: Rotation) -> list[str]:
    found = []
    for name, role in step.roles.items():
        names = " ".join(key.name for key in role.keys)
        found.append(f"{name:10} {role.threshold} of {len(role.keys)} keys: {names}")
    come, go = _moves(step)
    for key in go:
        asked = "signs a last time" if key in step.asked else "not asked to sign"
        found.append(f"- {key.name} of {key.holder} leaves; {asked}")
    found += [f"+ {key.name} of {key.holder} comes, fingerprint {key.fingerprint}" for key in come]
    for name, role in step.roles.items():
        before = step.before[name]
        if role.threshold != before.threshold:
            found.append(f"! {name}: the threshold goes from {before.threshold} to {role.threshold}")
        left = [key for key in before.keys if key not in rotation.lost]
        if name != "root" and len(left) < before.threshold:
            found.append(f"! {name}: {len(left)} of its old keys are left; its delegator names the new ones")
    for quota in step.quotas:
        names = " ".join(key.name for key in quota.keys)
        found.append(f"signs      {quota.threshold} of {names}, in the name of {quota.of}")
    return [*found, f"enough     {' and '.join(step.enough())}"]


def following(folder: str, rotation: Rotation) -> list[str]:
    """The command for the ceremony after the next; nothing where one ceremony is enough."""
    if len(rotation.steps) < 2:
        return []
    done, last = rotation.steps[0].roles["root"], rotation.steps[-1].roles["root"]
    words = [f"--lost {key.name}" for key in rotation.lost if key in done.keys]
    words += [f"--remove {key.name}" for key in rotation.removed if key in done.keys]
    words += [f"--add {key.name}=FILE" for key in last.keys if key not in done.keys]
    if last.threshold != done.threshold:
        words.append(f"--threshold root={last.threshold}")
    return [
        "when that one is in force: countermark-ceremony rotate " + " ".join([folder, *words, "--out PLAN"])
    ]


def as_json(newest: Previous, rotation: Rotation) -> str:
    """{"origin", "after_root", "ceremonies": [{"enough", "keys", "leave", "come", "roles", "signs"}]}"""
    document = {
        "after_root": newest.root.version,
        "ceremonies": [_step_json(step) for step in rotation.steps],
        "origin": newest.trust_file.origin,
    }
    return json.dumps(document, indent=2, sort_keys=True)


def _step_json(step: Step) -> dict[str, Any]:
    come, go = _moves(step)
    return {
        "changes": step.changes,
        "come": {key.name: key.fingerprint for key in come},
        "enough": list(step.enough()),
        "leave": {key.name: key.fingerprint for key in go},
        "roles": {
            name: {"keys": [key.name for key in role.keys], "threshold": role.threshold}
            for name, role in step.roles.items()
        },
        "signs": [
            {"keys": [key.name for key in quota.keys], "of": quota.of, "threshold": quota.threshold}
            for quota in step.quotas
        ],
    }


def _moves(step: Step) -> tuple[list[PlanKey], list[PlanKey]]:
    """Keys that come and keys that leave, each once."""
    after = {key.name: key for role in step.roles.values() for key in role.keys}
    before = {key.name: key for name in step.roles for key in step.before[name].keys}
    come = [key for name, key in after.items() if name not in before]
    return come, [key for name, key in before.items() if name not in after]


def _holders(keys: Sequence[PlanKey], without: Sequence[PlanKey]) -> list[str]:
    others = {key.holder for key in without}
    return sorted({key.holder for key in keys} - others)
