"""The commands `trusted-publisher add|remove|list`: which jobs of a CI system may publish for a project."""

from __future__ import annotations

import argparse
import time

from countermark import afterwards as engine
from countermark.commands_afterwards import owner_of, told
from countermark.commands_install import pinned
from countermark.console import confirm, put, put_json, say
from countermark.errors import PolicyError
from countermark.fetch import HttpFetcher
from countermark.machine import TRUSTED
from countermark.projectstate import ProjectState
from countermark.publish import enrol
from countermark.signer import load_key, open_signer

WHAT = "trusted-publisher"


def add(arguments: argparse.Namespace) -> int:
    """Trust a job; a project that has no key yet gets this one first, for somebody's key must say so."""
    project = engine.check_project(arguments.project)
    publisher = {name: getattr(arguments, name) for name in TRUSTED}
    publisher["repository"] = publisher["repository"].lower()
    if not arguments.yes:
        ref = arguments.ref or "any branch or tag"
        say(f"jobs of {arguments.repository} ({arguments.issuer}), workflow {arguments.workflow}, for {ref},")
        say(f"may publish {project} from now on; that stays in the public log for ever")
        if not confirm("sign this?"):
            raise PolicyError("nothing was changed", hint="--yes signs without asking")
    owner = owner_of(arguments, lambda home: open_signer(load_key(home.keys, arguments.key)))
    assert owner.signer is not None
    state = ProjectState.fetch(owner.fetcher, owner.view.registry, project)
    if not state.keys:
        index = enrol(owner.view, owner.fetcher, owner.session, owner.signer, state, now=int(time.time()))
        say(f"key {owner.signer.keyid[:16]} enrolled for {project}, entry #{index}, first seen there")
    return told(arguments, project, WHAT, owner.trust(project, "add", publisher))


def remove(arguments: argparse.Namespace) -> int:
    """Trust a job no longer; its living keys and tokens end with it."""
    project = engine.check_project(arguments.project)
    owner = owner_of(arguments, lambda home: open_signer(load_key(home.keys, arguments.key)))
    state = ProjectState.fetch(owner.fetcher, owner.view.registry, project)
    found = [each for each in state.publishers if str(each["id"]).startswith(arguments.id.lower())]
    if len(found) != 1 or len(arguments.id) < 8:
        raise PolicyError(
            f"{project} trusts {len(found)} publishers whose ID begins with {arguments.id[:80]!r}",
            hint=f"countermark trusted-publisher list {project} shows them; 8 digits at least",
        )
    publisher = {name: found[0][name] for name in TRUSTED}
    if not arguments.yes:
        say(
            f"jobs of {publisher['repository']}, workflow {publisher['workflow']}, publish {project} no longer"
        )
        if not confirm("sign this?"):
            raise PolicyError("nothing was changed", hint="--yes signs without asking")
    return told(arguments, project, WHAT, owner.trust(project, "remove", publisher))


def show_all(arguments: argparse.Namespace) -> int:
    """What a project trusts, by the registry's word; the entries named say it themselves."""
    project = engine.check_project(arguments.project)
    _, registry, remarks = pinned(arguments)
    for remark in remarks:
        say(remark)
    found = ProjectState.fetch(HttpFetcher(), registry, project).publishers
    if arguments.json:
        put_json({"project": project, "publishers": [dict(each) for each in found]})
        return 0
    if not found:
        say(f"{project} trusts no job of a CI system")
    for each in found:
        ref = each["ref"] or "any branch or tag"
        put(
            f"{str(each['id'])[:16]}  {each['issuer']}  {each['repository']} ({each['repository_id']})  "
            f"{each['workflow']}  {ref}  entry #{each['index']}"
        )
    return 0
