"""The commands of who shares a project: `whoami`, `approve`, `act ...`, `key enrol`, `owner require-approvals`.

Engines: approving.py, countersign.py, afterwards.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from countermark import afterwards, approving
from countermark.actfile import APPROVE, Act, describe, members_of
from countermark.commands_afterwards import owner_of, told
from countermark.commands_install import pinned
from countermark.compare import difference
from countermark.console import GREEN, YELLOW, confirm, put, put_json, say
from countermark.countersign import Examined, countersign, examine
from countermark.disk import read_file, replace_file
from countermark.errors import PolicyError, UsageError
from countermark.limits import ENTRY_MAX_BYTES
from countermark.pins import Home
from countermark.session import Session
from countermark.signer import list_keys, load_key, open_signer


def whoami(arguments: argparse.Namespace) -> int:
    """The account's pseudonym, which stands in the log and in which others name who may do what."""
    _, registry, _ = pinned(arguments)
    session = Session.load(registry)
    if arguments.json:
        put_json({"account": session.account, "login": session.login, "url": registry.url})
    else:
        put(session.account)
    return 0


def approve(arguments: argparse.Namespace) -> int:
    """Show what is new in a release that waits, ask, and sign the list of its files."""
    project, decision = (
        afterwards.check_project(arguments.project),
        "reject" if arguments.reject else "approve",
    )
    asking = owner_of(arguments, lambda _: None, anybody=arguments.act is not None)
    release = approving.look(asking, project, arguments.version)
    version, old = approving.before(asking, release)
    lines = difference(approving.contents(asking, release, arguments.files), old)
    told = (
        f"{project} {release.version} beside {version}"
        if version
        else f"{project} {release.version}, the first release"
    )
    for line in (f"{told}:", *lines, *approving.words(release, asking.session.account)):
        say(line)
    if not arguments.yes and not confirm(f"{decision} these {len(release.files)} files?"):
        raise PolicyError(
            f"nothing was signed for {project} {release.version}", hint="--yes signs without asking"
        )
    owner = asking.as_signer(open_signer(load_key(Home().keys, arguments.key)))
    if arguments.act is not None:
        return _write_approval(arguments, approving.written(owner, release, decision), release)
    done = approving.decide(owner, release, decision)
    given = (
        len(set(release.approved) | {asking.session.account})
        if decision == "approve"
        else len(release.approved)
    )
    left = max(release.needed - given, 0)
    if arguments.json:
        put_json({
            "decision": decision, "difference": lines, "files": [vars(file) for file in release.files],
            "index": done.index, "leaf_hash": done.leaf_hash, "needed": release.needed, "project": project,
            "version": release.version,
        })  # fmt: skip
        return 0
    if decision == "reject":
        ends = "it is not listed until you approve it"
    else:
        ends = f"{left} more needed" if left else "it is listed with the next timestamp"
    put(
        f"{project} {release.version}: {decision} is entry #{done.index}, proof checked; {ends}", colour=GREEN
    )
    return 0


def _write_approval(arguments: argparse.Namespace, act: Act, release: approving.Release) -> int:
    """What was signed, in a file; somebody who is signed in brings it, on the release's page or from a machine."""
    if arguments.act.exists():
        raise UsageError(
            f'"{arguments.act}" already exists', hint="an act is never overwritten: choose another --act FILE"
        )
    replace_file(arguments.act, act.format(), mode=0o644)
    page = f"{act.registry}/me/projects/{release.project}/releases/{release.version}"
    submit = f"where you are signed in: countermark act submit {arguments.act.name}"
    # What is served elsewhere has no pages here.
    say(f"hand it in {submit}" if "/" in release.project else f"hand it in on {page}, or {submit}")
    if arguments.json:
        put_json(members_of(act) | {"file": str(arguments.act), "page": page})
    else:
        put(str(arguments.act))
    return 0


def enrol(arguments: argparse.Namespace) -> int:
    """Let a key of this machine in, by keys that are in: those named here, and others on their machines."""
    project = afterwards.check_project(arguments.project)
    home = Home()
    new = open_signer(load_key(home.keys, arguments.key))
    vouching = [open_signer(load_key(home.keys, name)) for name in arguments.by or ()]
    if not arguments.yes:
        say(f"key {new.keyid} will sign for {project} in the name of your account")
        say("it stays in the public log for ever, and so does your account id; it may identify you")
        if not confirm("enrol it?"):
            raise PolicyError("nothing was signed", hint="--yes signs without asking")
    done = owner_of(arguments, lambda _: new).let_in(
        project, new, vouching, arguments.threshold, arguments.valid_for
    )
    return told(arguments, project, "enrolment", done)


def require(arguments: argparse.Namespace) -> int:
    """How many people must approve a release."""
    project = afterwards.check_project(arguments.project)
    if not arguments.yes:
        say(
            f"a release of {project} will be listed once {arguments.needed} people have approved it"
            if arguments.needed
            else f"releases of {project} will be listed without anybody's approval"
        )
        if not confirm("sign this?"):
            raise PolicyError("nothing was changed", hint="--yes signs without asking")
    owner = owner_of(arguments, lambda home: open_signer(load_key(home.keys, arguments.key)))
    return told(arguments, project, "require-approvals", owner.require(project, arguments.needed))


def act_show(arguments: argparse.Namespace) -> int:
    """What an act does, who signed it, and what it lacks."""
    examined = examine(owner_of(arguments, lambda _: None, anybody=True), _shared(_read(arguments.file)))
    _show(examined)
    if arguments.json:
        put_json(members_of(examined.act) | {"lacking": examined.lacking})
    return 0


def act_sign(arguments: argparse.Namespace) -> int:
    """Show what is about to be signed, ask, sign, and write the file anew."""
    asking = owner_of(arguments, lambda _: None, anybody=True)
    examined = examine(asking, _shared(_read(arguments.file)))
    _show(examined)
    if not arguments.yes and not confirm("sign this?"):
        raise PolicyError("nothing was signed", hint="--yes signs without asking")
    signed = countersign(asking.as_signer(open_signer(load_key(Home().keys, arguments.key))), examined)
    replace_file(arguments.file, signed.act.format(), mode=0o644)
    if arguments.json:
        put_json(members_of(signed.act) | {"lacking": signed.lacking})
    elif signed.lacking:
        put(f"{arguments.file}: signed; {signed.lacking}", colour=YELLOW)
    else:
        put(f"{arguments.file}: signed, enough have; `countermark act submit {arguments.file}`", colour=GREEN)
    return 0


def act_submit(arguments: argparse.Namespace) -> int:
    """Hand in an act that enough people have signed, or an approval that was signed elsewhere."""
    owner, act = owner_of(arguments, lambda _: None), _read(arguments.file)
    if act.statement.type == APPROVE:
        approving.check_act(owner, act)
        return told(arguments, act.project, str(act.statement.predicate["decision"]), owner.submit(act))
    examined = examine(owner, act)
    if examined.lacking is not None:
        raise PolicyError(
            f"not enough for {act.project}: {examined.lacking}", hint="countermark act sign FILE"
        )
    if act.new_keyid is not None and act.new_keyid not in [key.keyid for key in list_keys(Home().keys)]:
        raise PolicyError(
            f"key {act.new_keyid[:16]} would be enrolled in your account's name, and is not on this machine",
            hint="whoever holds the key submits the act",
        )
    done = owner.submit(act)
    return told(arguments, act.project, act.statement.type, done)


def _shared(act: Act) -> Act:
    """The same, if several people sign it."""
    if act.statement.type == APPROVE:
        said = act.statement.predicate
        raise UsageError(
            f"{said['decision']} of {said['project']} {said['version']} has one signature, its approver's",
            hint=f"countermark approve {said['project']} {said['version']} shows what is new, and signs for you",
        )
    return act


def _read(path: Path) -> Act:
    raw = read_file(path, max_bytes=2 * ENTRY_MAX_BYTES)
    if raw is None:
        raise UsageError(f'"{path}" is no file')
    return Act.parse(raw)


def _show(examined: Examined) -> None:
    for line in describe(examined.act.statement):
        say(line)
    accounts: Any = examined.state.accounts or {}
    for keyid in examined.act.envelope.keyids:
        whose = (
            "the new key"
            if keyid == examined.act.new_keyid
            else f"of account {accounts.get(keyid, 'unknown')}"
        )
        say(f"signed by key {keyid[:16]}, {whose}")
    say(examined.lacking or "enough have signed")
