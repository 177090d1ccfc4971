"""Configuring: make a registry the index that pip, uv, poetry, pdm and twine use, in the files they already read.

    countermark configure uv                the difference that --write would make
    countermark configure uv --write        uv.toml or pyproject.toml of this project, else uv's file for this user
    countermark configure uv --undo         exactly what was there before

    tool     file                                              what is set               what is turned off
    pip      pip.conf of this user (pip.ini on Windows)        global.index-url          every other index, find-links
    uv       uv.toml or pyproject.toml here, or uv's own       [[index]], the default    every other index, find-links
    poetry   pyproject.toml here                               a primary source          every other source
    pdm      pyproject.toml here                               the source named `pypi`   every other source
    twine    .pypirc of this user                              a repository, beside the others

Where this machine has a client certificate for the index, pip and twine are told of it in the same file; it is no
business of a project's, so uv, poetry and pdm are told by the commands and variables of `shows_certificate`.

A second index is not kept: pip takes files from all of them, and uv asks the others first. How files are edited so
that `--undo` is exact: edits.py. After each edit the file is parsed again; unless it says what it said before, but
for what is in the table above, nothing is written and the lines to write by hand are shown.

A configured index is where files come from, not proof of what they are: that is `countermark run`, or the address of
a proxy given with `--index`.
"""

from __future__ import annotations

import configparser
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from countermark.edits import Table, insert, line_end, lines_of, statement, turn_off, undone
from countermark.errors import UsageError
from countermark.values import dataclass

NAME = "countermark"
INDEX_KEYS = frozenset({"index", "index-url", "extra-index-url", "find-links", "no-index"})


@dataclass(frozen=True)
class Urls:
    """Where files come from, and where they are handed in."""

    index: str
    upload: str
    certificate: str | None = None  # file of our client certificate and its key, where the index asks for one


@dataclass(frozen=True)
class Machine:
    """Where this user's files are."""

    folder: Path  # the project's, in which the command was started
    home: Path
    environment: Mapping[str, str]
    platform: str  # as `sys.platform`


@dataclass(frozen=True)
class Tool:
    """How one program is configured."""

    find: Callable[[Machine], Path]
    edit: Callable[[str, Path, Urls], str]


def configured(tool: str, text: str, path: Path, urls: Urls) -> str:
    """The file with the registry as the tool's index; UsageError where that can't be done safely."""
    return TOOLS[tool].edit(undone(text), path, urls)


# --- where --------------------------------------------------------------------------------------------------


def _user_folder(machine: Machine, name: str) -> Path:
    """Where a program keeps its settings for this user (pip and uv agree, but on macOS)."""
    if machine.platform == "win32":
        return Path(machine.environment.get("APPDATA") or machine.home / "AppData" / "Roaming") / name
    return Path(machine.environment.get("XDG_CONFIG_HOME") or machine.home / ".config") / name


def _pip_file(machine: Machine) -> Path:
    library = machine.home / "Library" / "Application Support" / "pip"
    if machine.platform == "darwin" and library.is_dir():
        return library / "pip.conf"
    return _user_folder(machine, "pip") / ("pip.ini" if machine.platform == "win32" else "pip.conf")


def _uv_file(machine: Machine) -> Path:
    for name in ("uv.toml", "pyproject.toml"):  # uv reads the first alone where both are
        if (machine.folder / name).is_file():
            return machine.folder / name
    return _user_folder(machine, "uv") / "uv.toml"


def uv_files(machine: Machine) -> list[Path]:
    """Where uv looks for settings of this user and of this machine, beside those of a project."""
    if machine.platform == "win32":
        shared = [Path(machine.environment.get("PROGRAMDATA") or "C:/ProgramData")]
    else:
        named = machine.environment.get("XDG_CONFIG_DIRS") or "/etc/xdg"
        shared = [*(Path(each) for each in named.split(":") if each), Path("/etc")]
    return [folder / "uv.toml" for folder in (_user_folder(machine, "uv"), *(each / "uv" for each in shared))]


def _project_file(machine: Machine) -> Path:
    path = machine.folder / "pyproject.toml"
    if not path.is_file():
        raise UsageError(f'no pyproject.toml in "{machine.folder}"', hint="cd to the project, or --file FILE")
    return path


# --- TOML ---------------------------------------------------------------------------------------------------


def _edit_uv(text: str, path: Path, urls: Urls) -> str:
    table: Table = ("tool", "uv") if path.name == "pyproject.toml" else ()
    ours = [
        f"[[{'.'.join((*table, 'index'))}]]",
        f'name = "{NAME}"',
        f'url = "{urls.index}"',
        "default = true",
    ]
    unwanted = [(table, INDEX_KEYS), ((*table, "pip"), INDEX_KEYS)]
    return _edit_toml("uv", text, path, unwanted, ours, referrer="index")


def _edit_poetry(text: str, path: Path, urls: Urls) -> str:
    ours = ["[[tool.poetry.source]]", f'name = "{NAME}"', f'url = "{urls.index}"', 'priority = "primary"']
    unwanted = [(("tool", "poetry"), frozenset({"source"}))]
    return _edit_toml("poetry", text, path, unwanted, ours, referrer="source")


def _edit_pdm(text: str, path: Path, urls: Urls) -> str:
    verify = str(not urls.index.startswith("http:")).lower()
    ours = ["[[tool.pdm.source]]", 'name = "pypi"', f'url = "{urls.index}"', f"verify_ssl = {verify}"]
    return _edit_toml("pdm", text, path, [(("tool", "pdm"), frozenset({"source"}))], ours, referrer="")


def _edit_toml(
    tool: str,
    text: str,
    path: Path,
    unwanted: Sequence[tuple[Table, frozenset[str]]],
    ours: Sequence[str],
    *,
    referrer: str,
) -> str:
    """Turn off what is unwanted, statement by statement, and append our table."""
    before = _toml(text, path)
    lines = lines_of(text)
    for table, keys in unwanted:
        for name in _named(before, table, keys):
            turn_off(lines, statement(lines, table, name))
    for name in _referred(before.get("tool", {}) if path.name == "pyproject.toml" else before, referrer):
        raise UsageError(
            f'"{path}" takes a dependency from the {referrer} "{name}", which would be turned off',
            hint="leave that out of the dependency first: files then come from one index",
        )
    insert(lines, len(lines), ours, tool=tool, end=line_end(text))
    edited = "".join(lines)
    try:
        after = tomllib.loads(edited)
    except tomllib.TOMLDecodeError:
        after = {}
    wanted = _without(before, unwanted)
    if _without(after, unwanted) != wanted or tomllib.loads("\n".join(ours)) != _only(after, wanted):
        by_hand = "; ".join(ours)
        raise UsageError(f'"{path}" is written in a way that we do not edit', hint=f"write there: {by_hand}")
    return edited


def _named(document: Mapping[str, Any], table: Table, keys: frozenset[str]) -> list[str]:
    """Which of these keys the table has."""
    at: Any = document
    for part in table:
        at = at.get(part, {}) if isinstance(at, Mapping) else {}
    return [key for key in at if key in keys] if isinstance(at, Mapping) else []


def _without(document: Any, unwanted: Sequence[tuple[Table, frozenset[str]]], at: Table = ()) -> Any:
    """The document without these keys, and without tables that are empty."""
    if not isinstance(document, Mapping):
        return document
    gone = frozenset().union(*(keys for table, keys in unwanted if table == at))
    kept = {k: _without(v, unwanted, (*at, k)) for k, v in document.items() if k not in gone}
    return {key: value for key, value in kept.items() if value != {}}


def _only(document: Any, rest: Any) -> Any:
    """What the document has beyond `rest`."""
    if not isinstance(document, Mapping) or not isinstance(rest, Mapping):
        return document
    found = {
        k: _only(v, rest[k]) if k in rest else v for k, v in document.items() if k not in rest or rest[k] != v
    }
    return {key: value for key, value in found.items() if value != {}}


def _referred(document: Any, key: str) -> Iterator[str]:
    """Sources that dependencies name, in any table: `acme = {index = "other"}`."""
    if not key or not isinstance(document, Mapping):
        return
    for name, value in document.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Mapping):
                if isinstance(item.get(key), str) and name != key:
                    yield item[key]
                yield from _referred(item, key)


def _toml(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f'"{path}" is not TOML: {error}') from None


# --- INI ----------------------------------------------------------------------------------------------------


def _edit_pip(text: str, path: Path, urls: Urls) -> str:
    lines, end = lines_of(text), line_end(text)
    _ini(text, path)

    def is_ours(key: str) -> bool:
        return _is_index(key) or (urls.certificate is not None and _plain(key) == "client-cert")

    for _, key, numbers in list(_settings(lines)):
        if is_ours(key):
            turn_off(lines, numbers)
    ours = {"index-url": urls.index} | ({"client-cert": urls.certificate} if urls.certificate else {})
    block = [f"{key} = {value}" for key, value in ours.items()]
    _set(lines, "global", block, tool="pip", end=end)
    edited = "".join(lines)
    before = {name for name in _said(text, path) if not is_ours(name[1])}
    _check_ini(
        edited, path, before | {("global", *each) for each in ours.items()}, f"[global] {'; '.join(block)}"
    )
    return edited


def _edit_twine(text: str, path: Path, urls: Urls) -> str:
    lines, end = lines_of(text), line_end(text)
    servers = ["pypi", "testpypi"]  # what twine takes for granted where nobody names any
    if NAME in (parser := _ini(text, path)):
        raise UsageError(f'"{path}" has a section [{NAME}] already', hint="rename it, or edit it by hand")
    for section, key, numbers in list(_settings(lines)):
        if (section, key) == ("distutils", "index-servers"):
            servers = parser["distutils"]["index-servers"].split()
            turn_off(lines, numbers)
    named = ["index-servers =", *(f"    {server}" for server in (*servers, NAME))]
    _set(lines, "distutils", named, tool="twine", end=end)
    account = [f"[{NAME}]", f"repository = {urls.upload}", "username = __token__"]
    account += [f"client_cert = {urls.certificate}"] if urls.certificate else []
    insert(lines, len(lines), account, tool="twine", end=end)
    edited = "".join(lines)
    before = {name for name in _said(text, path) if name[:2] != ("distutils", "index-servers")}
    added: set[tuple[str, str, str | None]] = set()
    for key, _, value in (line.partition(" = ") for line in account[1:]):
        added.add((NAME, key, value))
    added.add(("distutils", "index-servers", "\n".join(("", *servers, NAME))))
    _check_ini(edited, path, before | added, "; ".join(account))
    return edited


def _set(lines: list[str], section: str, block: Sequence[str], *, tool: str, end: str) -> None:
    """Put settings at the beginning of a section, or make the section at the end of the file."""
    for number, line in enumerate(lines):
        if line.strip() == f"[{section}]" and not line[:1].isspace():
            insert(lines, number + 1, block, tool=tool, end=end)
            return
    insert(lines, len(lines), [f"[{section}]", *block], tool=tool, end=end)


def _settings(lines: Sequence[str]) -> Iterator[tuple[str, str, list[int]]]:
    """Section, key and lines of every setting, as configparser reads them: what is indented goes on."""
    section, key, numbers = "", "", list[int]()
    for number, line in enumerate(lines):
        text = line.strip()
        if not text or text.startswith(("#", ";")):
            continue
        if line[0].isspace() and numbers:
            numbers.append(number)
            continue
        if numbers:
            yield section, key, numbers
        numbers = []
        if text.startswith("["):
            section = text.strip("[]")
        else:
            key, numbers = re.split(r"[=:]", text, maxsplit=1)[0].strip(), [number]
    if numbers:
        yield section, key, numbers


def _is_index(key: str) -> bool:
    """Whether a setting of pip's says where files come from, however it is spelled."""
    return _plain(key) in INDEX_KEYS


def _plain(key: str) -> str:
    return key.lower().replace("_", "-").lstrip("-")


def _said(text: str, path: Path) -> set[tuple[str, str, str | None]]:
    """Section, key and value of every setting, as programs read them; of a section's defaults once, as DEFAULT."""
    parser = _ini(text, path)
    sections = {parser.default_section: parser.defaults(), **parser._sections}  # type: ignore[attr-defined]
    return {(name, key, value) for name, keys in sections.items() for key, value in keys.items()}


def _check_ini(edited: str, path: Path, wanted: set[tuple[str, str, str | None]], by_hand: str) -> None:
    """UsageError: the edited text says something else than what was wanted; indented settings do that, for one."""
    try:
        is_right = _said(edited, path) == wanted
    except UsageError:
        is_right = False
    if not is_right:
        raise UsageError(f'"{path}" is written in a way that we do not edit', hint=f"write there: {by_hand}")


def _ini(text: str, path: Path) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise UsageError(f'"{path}" is no file of settings: {error.message}') from None
    return parser


def shows_certificate(tool: str, certificate: str) -> str | None:
    """How a tool is told of a client certificate that is not told in its file; None: it is."""
    quoted = shlex.quote(certificate)
    return {
        "uv": f"export SSL_CLIENT_CERT={quoted}",
        "poetry": f"poetry config certificates.{NAME}.client-cert {quoted}",
        "pdm": f"pdm config pypi.client_cert {quoted}",
    }.get(tool)


TOOLS = {
    "pip": Tool(_pip_file, _edit_pip),
    "uv": Tool(_uv_file, _edit_uv),
    "poetry": Tool(_project_file, _edit_poetry),
    "pdm": Tool(_project_file, _edit_pdm),
    "twine": Tool(lambda machine: machine.home / ".pypirc", _edit_twine),
}
