"""Organisations as a file: read it strictly, write it, and say how two of them differ.

    [[organisation]]
    name = "acme"
    owners = ["ada@example.com"]              # logins: they do everything below, everywhere in acme
    names = ["acme-*", "acmelib"]             # project names that nobody else may begin

    [[organisation.team]]
    name = "ml"
    members = ["grace@example.com"]
    groups = ["ml-developers"]                # of the identity provider: whoever is in them is in the team
    maintains = ["acme-ml-*"]                 # may begin these and upload to them
    owns = ["acme-ml-core"]                   # and here share them, too

An unknown word, a name said twice, a pattern in another spelling than its one: nothing of such a file is taken. The
same organisations are always written as the same text, so what was exported and applied again changes nothing.
Patterns are those of tokens: a name, `acme-*`, or `corp/*` for a namespace.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from countermark.errors import UsageError
from countermark.limits import NAME_MAX_CHARS
from countermark_server.accounts.tokenroom import read_pattern
from countermark_server.errors import ServerError

FILE_MAX_BYTES = 4 * 1024 * 1024  # some ten thousand people
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_ORGANISATION = ("name", "owners", "names", "team")
_TEAM = ("name", "members", "groups", "maintains", "owns")


@dataclass(frozen=True)
class Team:
    """Some people, and what they may do where."""

    name: str
    members: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    maintains: frozenset[str] = frozenset()
    owns: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Organisation:
    """Who owns it, which names are its own, and its teams by name."""

    name: str
    owners: frozenset[str]
    names: frozenset[str] = frozenset()
    teams: tuple[Team, ...] = ()


def parse(text: str) -> tuple[Organisation, ...]:
    """The organisations in a file, by name. UsageError: which word of which organisation is wrong."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"not TOML: {error}") from None
    _only("the file", document, ("organisation",))
    found = tuple(_organisation(item) for item in _tables("the file", document, "organisation"))
    _once("organisation", (each.name for each in found))
    granted = [(name, each.name) for each in found for name in each.names]
    for name, owner in granted:
        others = sorted({other for same, other in granted if same == name} - {owner})
        if others:
            raise UsageError(f"{name} is given to {owner} and to {others[0]}: one of them has to let it go")
    return tuple(sorted(found, key=lambda each: each.name))


def format_file(organisations: Iterable[Organisation]) -> str:
    """The file's text; `parse` of it gives the same organisations."""
    return "\n".join(line for each in sorted(organisations, key=lambda o: o.name) for line in _lines_of(each))


def differences(old: Iterable[Organisation], new: Iterable[Organisation]) -> list[str]:
    """What would be added (`+`) and taken away (`-`), a line each; organisations that `new` leaves out stay."""
    before = {each.name: each for each in old}
    lines = list[str]()
    for after in new:
        had = set(_facts(before[after.name])) if after.name in before else set[str]()
        has = set(_facts(after))
        lines += [f"- {fact}" for fact in sorted(had - has)] + [f"+ {fact}" for fact in sorted(has - had)]
    return lines


def _facts(organisation: Organisation) -> Iterator[str]:
    where = organisation.name
    yield f"{where}: organisation"
    yield from (f"{where}: owner {login}" for login in organisation.owners)
    yield from (f"{where}: name {pattern}" for pattern in organisation.names)
    for team in organisation.teams:
        yield f"{where}: team {team.name}"
        for word, values in _words(team):
            yield from (f"{where}: team {team.name}: {word} {value}" for value in values)


def _words(team: Team) -> tuple[tuple[str, frozenset[str]], ...]:
    return (
        ("member", team.members),
        ("group", team.groups),
        ("maintains", team.maintains),
        ("owns", team.owns),
    )


def _lines_of(organisation: Organisation) -> Iterator[str]:
    yield "[[organisation]]"
    yield f"name = {_quoted(organisation.name)}"
    yield f"owners = {_list(organisation.owners)}"
    if organisation.names:
        yield f"names = {_list(organisation.names)}"
    yield ""
    for team in organisation.teams:
        yield "[[organisation.team]]"
        yield f"name = {_quoted(team.name)}"
        for word in _TEAM[1:]:
            if values := getattr(team, word):
                yield f"{word} = {_list(values)}"
        yield ""


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # printable text: TOML reads it like JSON


def _list(values: Iterable[str]) -> str:
    return f"[{', '.join(map(_quoted, sorted(values)))}]"


def _organisation(item: Mapping[str, Any]) -> Organisation:
    name = _name("organisation", item)
    where = f"organisation {name}"
    _only(where, item, _ORGANISATION)
    owners = _logins(where, item, "owners")
    if not owners:
        raise UsageError(f"{where} has no owners: without one nobody may change it")
    names = _patterns(where, item, "names")
    if wide := sorted(each for each in names if each == "*"):
        raise UsageError(f"{where}: {wide[0]} would be every name of this registry")
    teams = tuple(_team(where, table) for table in _tables(where, item, "team"))
    _once(f"{where}: team", (team.name for team in teams))
    return Organisation(name, owners, names, tuple(sorted(teams, key=lambda team: team.name)))


def _team(where: str, item: Mapping[str, Any]) -> Team:
    name = _name(f"{where}: team", item)
    where = f"{where}: team {name}"
    _only(where, item, _TEAM)
    maintains, owns = _patterns(where, item, "maintains"), _patterns(where, item, "owns")
    if both := sorted(maintains & owns):
        raise UsageError(f"{where} maintains {both[0]} and owns it, too: say the one that is meant")
    return Team(name, _logins(where, item, "members"), _strings(where, item, "groups"), maintains, owns)


def _name(what: str, item: Mapping[str, Any]) -> str:
    name = item.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UsageError(f"{what} {name!r}: a name has 1 to 64 small letters, digits and dashes")
    return name


def _logins(where: str, item: Mapping[str, Any], word: str) -> frozenset[str]:
    return _strings(where, item, word)


def _strings(where: str, item: Mapping[str, Any], word: str) -> frozenset[str]:
    values = item.get(word, [])
    good = isinstance(values, list) and all(
        isinstance(each, str) and 1 <= len(each) <= NAME_MAX_CHARS and each.isprintable() for each in values
    )
    if not good:
        raise UsageError(f"{where}: {word} must be a list of texts")
    _once(f"{where}: {word}", values)
    return frozenset(values)


def _patterns(where: str, item: Mapping[str, Any], word: str) -> frozenset[str]:
    values = _strings(where, item, word)
    for value in values:
        try:
            spelled = read_pattern(value)
        except ServerError as error:
            raise UsageError(f"{where}: {word}: {error.detail}") from None
        if spelled != value:
            raise UsageError(f"{where}: {word}: write {value!r} as {spelled!r}")
    return values


def _tables(where: str, item: Mapping[str, Any], word: str) -> list[Mapping[str, Any]]:
    tables = item.get(word, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{where}: {word} is written as tables in double brackets")
    return tables


def _only(where: str, item: Mapping[str, Any], known: tuple[str, ...]) -> None:
    if unknown := sorted(item.keys() - set(known)):
        raise UsageError(f"{where}: unknown word {unknown[0]!r}", hint=f"known: {', '.join(known)}")


def _once(what: str, names: Iterable[str]) -> None:
    seen = set[str]()
    for name in names:
        if name in seen:
            raise UsageError(f"{what} {name!r} is said twice")
        seen.add(name)
