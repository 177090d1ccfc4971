"""Installers: what a command line would install from, read as pip and uv read it, or refused.

    uv sync --frozen                                  uv.lock of the project or its workspace
    uv sync --locked                                  the same; uv asks the registry whether it is up to date
    uv sync                                           as with --locked, which is added: a lock is never changed here
    poetry install, poetry sync                       poetry.lock (poetryplan.py)
    uv pip sync pylock.toml                           that file
    uv pip install --require-hashes -r FILE           FILE, and what it includes
    pip install --require-hashes -r FILE              the same; python -m pip, too
    pip install NAME, uv pip install NAME             nothing that is pinned: everything comes through the proxy
    uv sync, where there is no uv.lock yet            the same

A lock that is verified while the installer reads another is worse than none. So this reads a command line
strictly: every option is one we know (by its full name), with or without a value, and it changes nothing of
what is installed, or we know how. An option we do not know is refused, whatever it may do: pip takes
abbreviations, and each release of either program adds options.

Refused by name, because of what they do: options that turn hashes off or let code be built from source
(`--no-verify-hashes`, `--no-require-hashes`, `--no-binary`), or that hide our environment (`--isolated`).
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from countermark.errors import PolicyError, UsageError
from countermark.lockfile import ADDRESS, LockFile, is_pylock, read_lock
from countermark.plans import INDEXES, KNOWN, Options, Plan, digest_of, option_set, toml
from countermark.poetryplan import poetry_plan

# A project by its name, extras and versions: no URL, path or archive, which no index would be asked for.
_BY_NAME = re.compile(
    r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?(?:\[[a-z0-9._, -]*\])?"
    r"(?:\s*(?:===|==|~=|!=|<=|>=|<|>)\s*[a-z0-9.*+!_-]+(?:\s*,)?)*",
    re.IGNORECASE | re.ASCII,
)
_ARCHIVE = re.compile(r"\.(?:whl|zip|tar|tgz|tbz|txz|tlz|egg)\b", re.IGNORECASE)
_PIP = re.compile(r"pip[0-9.]*")
_PYTHON = re.compile(r"python[0-9.]*|py")


# Options that stand alone, options that take a value, and among these the ones that name files or indexes.
FILES = option_set("-r --requirement --requirements -c --constraint --constraints")
PIP_FLAGS = option_set(
    "--require-hashes --no-deps --dry-run --user -U --upgrade --force-reinstall -I --ignore-installed --compile "
    "--ignore-requires-python --break-system-packages --no-compile --no-warn-script-location --no-warn-conflicts "
    "--no-clean --pre --prefer-binary --require-virtualenv --verbose --quiet --no-input --no-cache-dir --no-index "
    "--disable-pip-version-check --no-color --debug"
)
PIP_VALUES = option_set(
    "-t --target --platform --python-version --implementation --abi --root --prefix --src --upgrade-strategy "
    "--progress-bar --root-user-action --report --log --proxy --retries --timeout --exists-action --cert "
    "--client-cert --cache-dir"
)
UV_FLAGS = option_set(
    "--verbose --quiet --offline --no-progress --no-config --managed-python --no-managed-python -n --no-cache "
    "--no-python-downloads --system-certs --native-tls --reinstall --refresh --compile-bytecode --no-build "
    "--no-index --dry-run --check"
)
UV_VALUES = option_set(
    "-p --python --cache-dir --color --link-mode --directory --project --reinstall-package --refresh-package "
    "--python-platform --output-format --no-build-package"
)
UV_PIP_FLAGS = UV_FLAGS | option_set(
    "--require-hashes --verify-hashes --no-deps --system --break-system-packages --user --exact --strict "
    "--allow-empty-requirements -U --upgrade"
)
UV_PIP_VALUES = UV_VALUES | option_set("-t --target --prefix --python-version")
UV_SYNC_FLAGS = UV_FLAGS | option_set(
    "--frozen --locked --dev --no-dev --only-dev --all-extras --all-groups --no-default-groups --no-editable "
    "--inexact --exact --active --all-packages --no-install-project --no-install-workspace --no-install-local"
)
UV_SYNC_VALUES = UV_VALUES | option_set(
    "--extra --no-extra --group --no-group --only-group --package --no-install-package --no-editable-package"
)


def plan(command: Sequence[str], *, folder: Path, own: Sequence[Path] = ()) -> Plan:
    """Read the child's command line; PolicyError when it is not an install we know.

    `own`: files in which this user, or this machine, tells uv what holds for every project.
    """
    if not command:
        raise UsageError("nothing to run", hint="countermark run -- uv sync --frozen")
    program, words = Path(command[0]).name.removesuffix(".exe").lower(), list(command[1:])
    if _PYTHON.fullmatch(program) and words[:1] == ["-m"] and len(words) > 1:
        program, words = words[1], words[2:]
    verbs = [word for word in words if not word.startswith("-")]
    if program == "uv" and "pip" in verbs:
        return _uv_pip(command, words, folder)
    if program == "uv" and "sync" in verbs:
        return _uv_sync(command, words, folder, own)
    if program == "poetry":
        return poetry_plan(command, words, folder)
    if _PIP.fullmatch(program) and "install" in verbs:
        return _pip(command, words, folder)
    raise PolicyError(f"`{' '.join(command)}` is not an install we know", hint=KNOWN)


def _pip(command: Sequence[str], words: Sequence[str], folder: Path) -> Plan:
    options = Options.parse(words, PIP_FLAGS, PIP_VALUES | FILES | INDEXES)
    if options.positional[:1] != ("install",):
        raise PolicyError(f"`{' '.join(command)}` is not an install we know", hint=KNOWN)
    if options.positional[1:]:
        return _by_name(command, "pip", options, options.positional[1:])
    if options.last("--proxy"):
        raise PolicyError(
            "`--proxy` stands between pip and its index on this machine", hint="set HTTPS_PROXY"
        )
    return Plan(tuple(command), "pip", options, _locks(options, options.named(FILES), folder))


def _uv_pip(command: Sequence[str], words: Sequence[str], folder: Path) -> Plan:
    options = Options.parse(words, UV_PIP_FLAGS, UV_PIP_VALUES | FILES | INDEXES)
    verb, names = options.positional[:2], list(options.positional[2:])
    if verb not in (("pip", "sync"), ("pip", "install")):
        raise PolicyError(f"`uv {' '.join(verb)}` is not an install", hint=KNOWN)
    if verb != ("pip", "sync") and names:
        return _by_name(command, "uv pip", options, names)
    folder = folder / options.last("--directory")
    return Plan(tuple(command), "uv pip", options, _locks(options, names + options.named(FILES), folder))


def _locks(options: Options, names: Sequence[str], folder: Path) -> tuple[LockFile, ...]:
    if not names:
        raise PolicyError("no lock or requirements file on the command line", hint=KNOWN)
    if any(ADDRESS.match(name) or name == "-" for name in names):
        raise PolicyError("requirements from elsewhere than a file can change between two looks", hint=KNOWN)
    if not all(is_pylock(Path(name).name) for name in names) and "--require-hashes" not in options.flags:
        raise PolicyError("requirements without --require-hashes pin nothing", hint="add --require-hashes")
    return tuple(read_lock(folder / name) for name in names)


def _uv_sync(command: Sequence[str], words: Sequence[str], folder: Path, own: Sequence[Path]) -> Plan:
    options = Options.parse(words, UV_SYNC_FLAGS, UV_SYNC_VALUES | INDEXES)
    if options.positional != ("sync",):
        raise PolicyError(f"`{' '.join(command)}` is not a hash-pinned install", hint=KNOWN)
    start = (folder / options.last("--directory")).resolve() / options.last("--project")
    folders = _uv_folders_of(start)
    has_lock = any((each / "uv.lock").exists() for each in folders)
    is_plain = not {"--frozen", "--locked"} & options.flags
    if is_plain and not has_lock:
        return _uv_first_sync(command, options, folders)
    is_locked = is_plain or "--locked" in options.flags
    locks = tuple(read_lock(each / "uv.lock") for each in folders if (each / "uv.lock").is_file())
    if not locks:
        raise UsageError(f'no uv.lock for "{start}"', hint="uv lock makes one")
    settings = [each / name for each in folders for name in ("pyproject.toml", "uv.toml")]
    own = () if "--no-config" in options.flags else own
    for path in settings if "--no-config" not in options.flags else ():
        if "python-downloads-json-url" in _uv_table(path):
            raise PolicyError(
                f'"{path}" has uv download a Python that nobody logged, and run it',
                hint="leave out python-downloads-json-url",
            )
    sources: list[str] = []
    if is_locked:
        sources = [source for lock in locks for source in lock.sources]
        sources += [url for path in (*settings, *own) for url in _uv_indexes(path)]
    return Plan(
        tuple(command),
        "uv sync",
        options,
        locks,
        folders[0],
        {path: digest_of(path) for path in (*settings, *own)},
        sources=tuple(sources),
        asks_registry=is_locked,
        added=("--locked",) if is_plain else (),  # or uv would write the lock anew before it installs
    )


def _uv_table(path: Path) -> Any:
    """What a settings file says to uv."""
    document = toml(path) if path.is_file() else {}
    return document if path.name == "uv.toml" else document.get("tool", {}).get("uv", {})


def _uv_indexes(path: Path) -> Iterator[str]:
    """The indexes that settings name: uv asks them whether a lock is up to date."""
    table = _uv_table(path)
    for index in table.get("index", []):
        yield str(index.get("url", "")) if isinstance(index, dict) else str(index)
    for name in ("index-url", "extra-index-url", "find-links"):
        value = table.get(name, [])
        yield from map(str, value if isinstance(value, list) else [value])


def _by_name(command: Sequence[str], installer: str, options: Options, names: Sequence[str]) -> Plan:
    """An install that pins nothing: by names alone, and from our index alone."""
    other = [f"{name} {value}" for name, value in options.values if name in INDEXES | FILES | {"--proxy"}]
    if other or "--no-index" in options.flags:
        raise PolicyError(
            f"an install by name goes through the proxy alone, and `{(other or ['--no-index'])[0]}` names something "
            "else",
            hint="leave it out, or pin every hash and add --require-hashes",
        )
    for name in names:
        if not _BY_NAME.fullmatch(name) or _ARCHIVE.search(name):
            raise PolicyError(f"`{name}` is not a project's name: no index is asked for it", hint=KNOWN)
    return Plan(tuple(command), installer, options, ())


def _uv_first_sync(command: Sequence[str], options: Options, folders: Sequence[Path]) -> Plan:
    """`uv sync` before there is a lock: uv resolves through the proxy, and writes one."""
    if options.named(INDEXES) or "--no-index" in options.flags:
        raise PolicyError(
            "a sync without a lock goes through the proxy alone", hint="leave out other indexes"
        )
    path = folders[0] / "pyproject.toml"
    if len(folders) > 1 or _is_workspace(folders[0]):
        raise PolicyError("a workspace is synced from its lock only", hint="uv lock, then add --frozen")
    for what in _elsewhere(path):
        raise PolicyError(f"{what} comes from elsewhere than an index", hint="uv lock, then add --frozen")
    return Plan(tuple(command), "uv sync", options, (), folders[0])


def _elsewhere(path: Path) -> Iterator[str]:
    """What a project takes from URLs, repositories, folders or indexes of its own."""
    document = toml(path)
    uv = document.get("tool", {}).get("uv", {})
    yield from (f"{name} in tool.uv.sources" for name in uv.get("sources", {}))
    project, build = document.get("project", {}), document.get("build-system", {})
    lists = [project.get("dependencies", []), build.get("requires", [])]
    lists += [
        *project.get("optional-dependencies", {}).values(),
        *document.get("dependency-groups", {}).values(),
    ]
    lists += [values for name, values in uv.items() if name.endswith("-dependencies")]
    for item in (item for values in lists for item in values):
        if isinstance(item, str) and "@" in item.partition(";")[0]:
            yield f'"{item}"'
    if build.get("backend-path"):
        yield "the build backend"


def _uv_folders_of(start: Path) -> list[Path]:
    """The same, where `--project` may lead through a link: uv goes up by its name, and both ways are verified."""
    by_name, behind = Path(os.path.normpath(start)), start.resolve()
    if ".." in start.parts and by_name != behind:
        raise PolicyError(f'"{start}" leads through a link and back', hint="name the project's folder itself")
    found: dict[str, Path] = {}
    for each in (*_uv_folders(by_name), *_uv_folders(behind)):
        found.setdefault(os.path.realpath(each), each)
    return list(found.values())


def _uv_folders(start: Path) -> Iterator[Path]:
    """The project's folder, and its workspace's: uv takes the lock of one of them, so both are verified.

    A uv.lock anywhere else on the way up is not the one uv reads.
    """
    found = [each for each in (start, *start.parents) if (each / "pyproject.toml").is_file()]
    if not found:
        raise UsageError(f'no pyproject.toml in "{start}" or above it')
    yield found[0]
    if not _is_workspace(found[0]):
        nearest = [each for each in found[1:] if _is_workspace(each)][:1]
        yield from (each for each in nearest if _may_have_member(each, found[0]))


def _may_have_member(workspace: Path, project: Path) -> bool:
    """Whether uv could take this project for a member. What we cannot tell counts as yes: then both are verified."""
    table = toml(workspace / "pyproject.toml")["tool"]["uv"]["workspace"]
    members = table.get("members", []) if isinstance(table, dict) else None
    if not isinstance(members, list) or not all(isinstance(pattern, str) for pattern in members):
        return True
    where = project.relative_to(workspace).as_posix()
    # fnmatch lets `*` cross folders, and so does uv; but to uv `**/` may be no folder at all.
    patterns = [posixpath.normpath(pattern) for pattern in members]
    return any(
        pattern.startswith(("..", "/")) or "**" in pattern or fnmatchcase(where, pattern)
        for pattern in patterns
    )


def _is_workspace(folder: Path) -> bool:
    return "workspace" in toml(folder / "pyproject.toml").get("tool", {}).get("uv", {})
