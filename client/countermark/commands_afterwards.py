"""The commands of owners: `yank`, `unyank`, `remove`, `owner ...`, `key rotate|revoke|recover|veto`.

The engine is afterwards.py.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from countermark import afterwards as engine
from countermark import namespacefiles
from countermark.actfile import Act, members_of
from countermark.commands_install import pinned
from countermark.console import GREEN, YELLOW, confirm, put, put_json, say
from countermark.disk import read_file, replace_file, safe_name
from countermark.errors import CountermarkError, PolicyError, UsageError, worst
from countermark.fetch import HttpFetcher
from countermark.limits import ENTRY_MAX_BYTES
from countermark.pins import Home
from countermark.place import Place
from countermark.session import Session
from countermark.signer import begin_rotation, finish_rotation, list_keys, load_key, open_signer
from countermark.statement import Signer
from countermark.trust import opened
from countermark.verified import Artifact

FOLDER = Path("countermark")  # where this program puts files that it makes, never dist/


def yank(arguments: argparse.Namespace) -> int:
    return _withdraw(arguments, "yank")


def unyank(arguments: argparse.Namespace) -> int:
    return _withdraw(arguments, "unyank")


def remove(arguments: argparse.Namespace) -> int:
    return _withdraw(arguments, "remove")


def _withdraw(arguments: argparse.Namespace, kind: str) -> int:
    engine.check_reason(kind, arguments.reason)
    local = {
        wanted: None if namespacefiles.is_meant(wanted) else _local(wanted) for wanted in arguments.files
    }
    owner = owner_of(arguments, lambda home: open_signer(load_key(home.keys, arguments.key)))
    files: list[engine.Known] = []
    for wanted, artifact in local.items():
        name = artifact.filename if artifact else wanted
        if namespacefiles.is_meant(wanted):
            meant = namespacefiles.find(owner, wanted)
        else:
            meant = engine.find(owner.view, owner.fetcher, name, artifact)
        files += [file for file in meant if file not in files]
    if kind == "remove" and not arguments.yes:
        say(f"{', '.join(file.filename for file in files)}: removed for ever, and the names stay spent")
        if not confirm("remove?"):
            raise PolicyError("nothing was removed", hint="--yes removes without asking")
    documents = [_act(owner, kind, file, arguments) for file in files]
    code = worst(document["exit_code"] for document in documents)
    if arguments.json:
        put_json({"exit_code": code, "files": documents})
    return code


def _act(owner: engine.Owner, kind: str, file: engine.Known, arguments: argparse.Namespace) -> dict[str, Any]:
    """One file's act, told and as JSON; what is so already is said and not done again."""
    document: dict[str, Any] = {"filename": file.filename, "exit_code": 0, "index": None}
    if file.standing == engine.DONE[kind]:
        say(f"{file.filename}: nothing to {kind}, its standing is {file.standing}", colour=YELLOW)
        return document
    try:
        done = owner.act(kind, file, arguments.reason)
    except CountermarkError as error:
        say(f"{file.filename}: {error}")
        if error.hint:
            say(f"hint: {error.hint}")
        return document | {"exit_code": error.exit_code, "error": str(error)}
    if not arguments.json:
        put(f"{file.filename}: {kind} is entry #{done.index}, proof checked", colour=GREEN)
    return document | {"index": done.index, "leaf_hash": done.leaf_hash}


def rotate(arguments: argparse.Namespace) -> int:
    """A new key takes the old one's name; every project hears of it from the old one, which is then revoked."""
    home = Home()
    keyid = load_key(home.keys, arguments.name).keyid
    # Who has nothing to rotate makes no key: the projects are asked for before one is made.
    asking = owner_of(arguments, lambda _: None)
    projects = sorted(set(arguments.projects) or set(asking.projects(keyid)))
    if arguments.act is not None and len(projects) > 1:
        raise UsageError(f"--act is one file, and {', '.join(projects)} are {len(projects)} projects")
    if not projects:
        raise PolicyError(f"key {arguments.name} ({keyid[:16]}) is enrolled for no project")
    if not arguments.yes:
        say(f"a new key will sign for {', '.join(projects)}; it stays in the public log for ever")
        if not confirm("rotate?"):
            raise PolicyError("nothing was rotated", hint="--yes rotates without asking")
    others = [open_signer(load_key(home.keys, name)) for name in arguments.by or ()]
    old, new = begin_rotation(home.keys, arguments.name)
    owner = asking.as_signer(old)
    documents, waiting = list[dict[str, Any]](), list[dict[str, Any]]()
    for project in projects:
        if isinstance(done := owner.vouch(project, new, *others), Act):
            waiting.append(_waits(arguments, project, done))
            continue
        documents.append({"index": done, "keyid": new.keyid, "project": project})
        if not arguments.json:
            put(f"{project}: key {new.keyid[:16]} enrolled, entry #{done}, vouched for by {old.keyid[:16]}")
    if waiting:
        # The old key keeps its name, and the new one waits beside it: the same command goes on from here.
        say(f"key {arguments.name} is {old.keyid[:16]} still; once those acts are submitted, rotate again")
    else:
        kept = finish_rotation(home.keys, arguments.name)
        say(f"key {arguments.name} is {new.keyid[:16]} now; the old one is {kept.path}")
    if not waiting and not arguments.keep_old:
        documents += _revoke(
            owner.as_signer(new), projects, old.keyid, "superseded", since=None, json=arguments.json
        )
    if arguments.json:
        put_json({"exit_code": 0, "keys": documents, "waiting": waiting})
    return 0


def _waits(arguments: argparse.Namespace, project: str, act: Act) -> dict[str, Any]:
    """The enrolment that others of a shared project sign: in a file, written once for as long as it is good."""
    path = arguments.act or act_path(project, f"rotation-{str(act.new_keyid)[:16]}")
    raw = read_file(path, max_bytes=2 * ENTRY_MAX_BYTES)
    known = None if raw is None else Act.parse(raw)
    if known is not None and known.project == project and known.statement == act.statement:
        say(f"{path} waits for others still; they run `countermark act sign {path.name}`")
    elif known is not None and arguments.act is not None:
        raise UsageError(f'"{path}" is another act, or one that went stale', hint="choose another --act FILE")
    else:
        replace_file(path, act.format(), mode=0o644)
        say(f"others must sign, too: send them {path}; they run `countermark act sign {path.name}`")
    if not arguments.json:
        put(str(path))
    return {"file": str(path), "keyid": act.new_keyid, "project": project}


def revoke(arguments: argparse.Namespace) -> int:
    engine.check_reason("key-revoke", arguments.reason)
    if arguments.compromised_since is not None and arguments.reason != "compromised":
        raise UsageError("--compromised-since goes with --reason compromised only")
    home = Home()
    named = {key.name: key.keyid for key in list_keys(home.keys)}
    keyid = named.get(arguments.keyid) or engine.check_keyid(arguments.keyid)
    owner = owner_of(arguments, lambda home: open_signer(load_key(home.keys, arguments.key)))
    projects = sorted(set(arguments.project or ()) or set(owner.projects(keyid)))
    if not projects:
        raise PolicyError(f"key {keyid} is enrolled for no project")
    if not arguments.yes:
        say(f"key {keyid} will never sign for {', '.join(projects)} again")
        if arguments.compromised_since is not None:
            say(f"what it published at entry #{arguments.compromised_since} or later will be held")
        if not confirm("revoke?"):
            raise PolicyError("nothing was revoked", hint="--yes revokes without asking")
    documents = _revoke(
        owner, projects, keyid, arguments.reason, since=arguments.compromised_since, json=arguments.json
    )
    if arguments.json:
        put_json({"exit_code": 0, "keys": documents})
    return 0


def owner_add(arguments: argparse.Namespace) -> int:
    return _change(arguments, "add", arguments.account, arguments.role)


def owner_remove(arguments: argparse.Namespace) -> int:
    return _change(arguments, "remove", arguments.account)


def owner_transfer(arguments: argparse.Namespace) -> int:
    return _change(arguments, "transfer", arguments.account)


def signing_off(arguments: argparse.Namespace) -> int:
    return _change(arguments, "signing-off")


def veto(arguments: argparse.Namespace) -> int:
    """Stop a recovery with a key that was enrolled before it; the project is frozen until moderators decide."""
    return _change(arguments, "veto")


_ASKED = {
    "add": "{account} may upload to {project} from now on, as {role}",
    "remove": "{account} owns {project} no longer",
    "transfer": "{account} alone owns {project} from now on",
    "signing-off": "{project} takes unsigned files again, by whoever has an upload token of an owner",
    "veto": "the recovery of {project} stops; nobody publishes or changes it until two moderators decide",
}


def _change(
    arguments: argparse.Namespace, action: str, account: str | None = None, role: str | None = None
) -> int:
    project = engine.check_project(arguments.project)
    if not arguments.yes:
        say(_ASKED[action].format(account=account, project=project, role=role))
        if not confirm("sign this?"):
            raise PolicyError("nothing was changed", hint="--yes signs without asking")
    owner = owner_of(arguments, lambda home: open_signer(load_key(home.keys, arguments.key)))
    return told(arguments, project, action, owner.change(project, action, account, role))


def told(arguments: argparse.Namespace, project: str, what: str, done: engine.Recorded | Act) -> int:
    """Say what became of an act: it is an entry, or a file for others to sign."""
    if isinstance(done, engine.Recorded):
        if arguments.json:
            put_json({"action": what, "index": done.index, "leaf_hash": done.leaf_hash, "project": project})
        else:
            put(f"{project}: {what} is entry #{done.index}, proof checked", colour=GREEN)
        return 0
    path = arguments.act or act_path(project, what)
    if path.exists():
        raise UsageError(
            f'"{path}" already exists', hint="an act is never overwritten: choose another --act FILE"
        )
    replace_file(path, done.format(), mode=0o644)
    say(f"others must sign, too: send them {path}; they run `countermark act sign {path.name}`")
    if arguments.json:
        put_json({"action": what, "file": str(path), "project": project} | members_of(done))
    else:
        put(str(path))
    return 0


def act_path(project: str, what: str) -> Path:
    """Where an act goes when nobody says so."""
    return FOLDER / safe_name(f"{Place.parse(project).file_name}-{what}.act")


def recover(arguments: argparse.Namespace) -> int:
    """Ask for a key without an old one's signature: its holders have seven days to veto."""
    project = engine.check_project(arguments.project)
    owner = owner_of(arguments, lambda home: open_signer(load_key(home.keys, arguments.key)))
    assert owner.signer is not None
    if not arguments.yes:
        say(f"key {owner.signer.keyid} asks to sign for {project}, without any key that does now")
        say("it is in the public log at once and in effect after seven days, unless an older key vetoes")
        if not confirm("recover?"):
            raise PolicyError("nothing was asked for", hint="--yes asks without confirmation")
    index = owner.recover(project, owner.signer)
    if arguments.json:
        put_json({"index": index, "keyid": owner.signer.keyid, "project": project})
    else:
        put(f"{project}: recovery is entry #{index}, in effect after seven days", colour=YELLOW)
    return 0


def _revoke(
    owner: engine.Owner,
    projects: Sequence[str],
    keyid: str,
    reason: str,
    *,
    since: int | None,
    json: bool,
) -> list[dict[str, Any]]:
    documents = []
    for project in projects:
        done = owner.revoke(project, keyid, reason, since)
        documents.append({"index": done.index, "project": project, "revoked": keyid})
        if not json:
            put(f"{project}: key {keyid[:16]} revoked, entry #{done.index}, proof checked", colour=GREEN)
    return documents


def owner_of(
    arguments: argparse.Namespace, signer: Callable[[Home], Signer | None], *, anybody: bool = False
) -> engine.Owner:
    """Who is signed in at the pinned registry, with a verified view of it; the key is opened last.

    `anybody`: what follows only looks and signs, so it goes on where nobody is signed in.
    """
    home, registry, remarks = pinned(arguments)
    for remark in remarks:
        say(remark)
    fetcher, now = HttpFetcher(), int(time.time())
    session = Session.nobody() if anybody and not Session.is_kept(registry) else Session.load(registry)
    with opened(registry, fetcher, now=now) as view:
        pass  # proofs are checked against its trust file; the log's answers need no lock
    return engine.Owner(view, fetcher, session, signer(home), now)


def _local(wanted: str) -> Artifact | None:
    """The file of this name, where the person has it."""
    path = Path(wanted)
    if "==" in wanted or not path.is_file():
        if len(path.parts) > 1:
            raise UsageError(f'"{wanted}" is no file')
        return None
    return Artifact.from_path(path)
