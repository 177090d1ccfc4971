"""Run: verify what a lock pins, then start the installer; or say why not, and start nothing.

    countermark run -- uv sync --frozen
    countermark run -- uv pip sync pylock.toml
    countermark run -- pip install --require-hashes -r requirements.txt

A lock that was made after an insider's swap pins the swapped bytes, and the installer that enforces its
hashes installs them. So every hash in the lock must be logged *for the pinned project and version* before
the child starts. The installer then enforces the hashes itself; the lock is hashed before and after, and a
change in between is evidence.

Only installs that pin every hash are run. Others are refused with a sentence that says what to do; so are
sources without a hash and builds from source, where the policy enforces. The child gets one index, the
registry's own, and every other index setting in its environment is cleared and named.

Exit code: ours if the child never started or anything got 6 or 7 (even when the child ends with 0), else
the child's. The last line on stderr says whose it is.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from countermark.clientpolicy import Policies
from countermark.errors import MalformedError, PolicyError, UsageError, worst
from countermark.fetch import Fetcher
from countermark.lockfile import LockFile, Pinned, Unprovable, read_lock
from countermark.names import normalise_version, parse_filename
from countermark.pins import Registry
from countermark.trust import View
from countermark.unlisted import simple_page
from countermark.verified import Artifact, Outcome, Report
from countermark.verify import verify

CLEARED = (  # where from, what else, and whether hashes count: none of it from the environment
    "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_TRUSTED_HOST", "PIP_CONFIG_FILE",
    "PIP_REQUIREMENT", "PIP_EDITABLE", "PIP_CONSTRAINT", "PIP_GROUP", "PIP_REQUIRE_HASHES",
    "UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_NO_INDEX",
    "UV_PROJECT", "UV_WORKING_DIR", "UV_WORKING_DIRECTORY", "UV_CONFIG_FILE", "UV_CONSTRAINT", "UV_OVERRIDE",
    "UV_NO_VERIFY_HASHES", "UV_REQUIRE_HASHES", "UV_UPGRADE",
)  # fmt: skip
LATER = (
    "only installs that pin every hash are verified so far: uv sync --frozen, uv pip sync pylock.toml, "
    "pip install --require-hashes -r FILE; the proxy for everything else comes later"
)
_PIP = re.compile(r"pip[0-9.]*")
_PYTHON = re.compile(r"python[0-9.]*|py")


@dataclass(frozen=True)
class Plan:
    """What a command would install from, and the environment it gets."""

    command: tuple[str, ...]
    locks: tuple[LockFile, ...]

    @property
    def pinned(self) -> list[Pinned]:
        return [pin for lock in self.locks for pin in lock.pinned]

    def unprovable(self) -> list[Unprovable]:
        """What no hash covers; the project's own folder doesn't count where the command leaves it out."""
        skip = "--no-install-project" in self.command or "--no-install-workspace" in self.command
        return [item for lock in self.locks for item in lock.unprovable if not (item.local and skip)]

    def changed(self) -> list[Path]:
        return [path for lock in self.locks for path in lock.changed()]


@dataclass(frozen=True)
class Finished:
    """How a run ended: whose exit code, what was verified, and what was said of it."""

    exit_code: int
    whose: str
    report: Report
    sentences: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            **self.report.to_json(),
            "exit_code": self.exit_code,
            "exit_code_of": self.whose,
            "sentences": list(self.sentences),
        }


# --- (1) what would be installed -------------------------------------------------------------------------


def plan(command: Sequence[str], *, folder: Path) -> Plan:
    """Read the child's command line; PolicyError when it is not a hash-pinned install we know."""
    if not command:
        raise UsageError("nothing to run", hint="countermark run -- uv sync --frozen")
    if "--no-verify-hashes" in command:
        raise PolicyError(
            "`--no-verify-hashes` tells the installer to ignore what was verified", hint="leave it out"
        )
    program, arguments = Path(command[0]).name.removesuffix(".exe").lower(), list(command[1:])
    if _PYTHON.fullmatch(program):
        if arguments[:1] != ["-m"] or len(arguments) < 2:
            raise PolicyError(f"`{' '.join(command)}` is not an installer", hint=LATER)
        program, arguments = arguments[1], arguments[2:]
    words = [word for word in arguments if not word.startswith("-")]
    if program == "uv" and words[:1] == ["sync"]:
        paths = [_uv_lock(arguments, folder)]
    elif program == "uv" and words[:1] == ["pip"]:
        paths = _uv_pip(arguments[arguments.index("pip") + 1 :], folder)
    elif _PIP.fullmatch(program) and words[:1] == ["install"]:
        paths = _pip_install(arguments[arguments.index("install") + 1 :], folder)
    else:
        raise PolicyError(f"`{' '.join(command)}` is not a hash-pinned install", hint=LATER)
    return Plan(tuple(command), tuple(read_lock(path) for path in paths))


def _uv_lock(arguments: Sequence[str], folder: Path) -> Path:
    if "--frozen" not in arguments:
        raise PolicyError("`uv sync` may change the lock before it installs", hint="add --frozen")
    if "--script" in arguments:
        raise PolicyError("`uv sync --script` installs from another lock", hint=LATER)
    start = folder
    for option in ("--directory", "--project"):
        start = start / (_value(arguments, option) or "")
    for candidate in (start, *start.resolve().parents):
        if (candidate / "uv.lock").is_file():
            return candidate / "uv.lock"
    raise UsageError(f'no uv.lock in "{start}" or above it', hint="uv lock makes one")


def _uv_pip(arguments: Sequence[str], folder: Path) -> list[Path]:
    if arguments[:1] == ["sync"]:
        files = _positional(arguments[1:])
        if (
            not all(Path(name).name.startswith("pylock.") for name in files)
            and "--require-hashes" not in arguments
        ):
            raise PolicyError(
                "requirements without --require-hashes pin nothing", hint="add --require-hashes"
            )
        return _files(files, folder)
    if arguments[:1] == ["install"]:
        return _pip_install(arguments[1:], folder)
    raise PolicyError(f"`uv pip {' '.join(arguments[:1])}` is not an install", hint=LATER)


def _pip_install(arguments: Sequence[str], folder: Path) -> list[Path]:
    files = [
        value for option in ("-r", "--requirement", "--requirements") for value in _values(arguments, option)
    ]
    if not files or _positional(arguments):
        raise PolicyError("names on the command line pin no hash", hint=LATER)
    locks = all(Path(name).name.startswith("pylock.") for name in files)
    if not locks and "--require-hashes" not in arguments:
        raise PolicyError("requirements without --require-hashes pin nothing", hint="add --require-hashes")
    return _files(files, folder)


WITH_VALUE = frozenset(
    {"-r", "--requirement", "--requirements", "-c", "--constraint", "--constraints", "-i", "--index-url", "-f",
     "--extra-index-url", "--find-links", "-t", "--target", "--prefix", "--root", "-p", "--python", "--cache-dir",
     "--platform", "--python-version", "--abi", "--implementation", "--no-binary", "--only-binary", "--progress-bar",
     "--proxy", "--retries", "--timeout", "--exists-action", "--log", "--cert", "--client-cert", "--default-index",
     "--index", "--link-mode", "--python-platform", "--directory", "--project", "--src", "--upgrade-strategy",
     "--trusted-host", "--report", "--config-settings", "-C", "--group", "--extra"}
)  # fmt: skip


def _positional(arguments: Sequence[str]) -> list[str]:
    """The words of a command line that are neither options nor their values."""
    found, skip = [], False
    for word in arguments:
        if skip:
            skip = False
        elif word in WITH_VALUE:
            skip = True
        elif word in ("-e", "--editable") or not word.startswith("-"):
            found.append(word)
    return found


def _values(arguments: Sequence[str], option: str) -> list[str]:
    found = [word.partition("=")[2] for word in arguments if word.startswith(f"{option}=")]
    found += [arguments[i + 1] for i, word in enumerate(arguments[:-1]) if word == option]
    if len(option) == 2:  # -rFILE
        found += [
            word[2:] for word in arguments if word.startswith(option) and len(word) > 2 and word[2] != "="
        ]
    return found


def _value(arguments: Sequence[str], option: str) -> str | None:
    values = _values(arguments, option)
    return values[-1] if values else None


def _files(names: Sequence[str], folder: Path) -> list[Path]:
    if not names:
        raise UsageError("no lock or requirements file on the command line")
    if any("://" in name or name == "-" for name in names):
        raise PolicyError("requirements from elsewhere than a file can change between two looks", hint=LATER)
    return [folder / name for name in names]


# --- (2) what of it is proved -----------------------------------------------------------------------------


def verify_locks(
    locks: Sequence[LockFile],
    registry: Registry,
    fetcher: Fetcher,
    *,
    now: int,
    policies: Policies,
    remarks: Sequence[str] = (),
) -> Report:
    """Verify every hash of every lock for its pinned project and version."""
    pins = sorted(
        {pin for lock in locks for pin in lock.pinned}, key=lambda p: (p.project, p.version, p.sha256)
    )

    def artifacts(view: View) -> list[Artifact]:
        pages: dict[str, list[dict[str, Any]]] = {}
        return [_artifact(view, fetcher, pin, pages) for pin in pins]

    return verify(artifacts, registry, fetcher, now=now, policies=policies, remarks=remarks)


def _artifact(view: View, fetcher: Fetcher, pin: Pinned, pages: dict[str, list[dict[str, Any]]]) -> Artifact:
    """The file a pin means. Requirements name none: the simple page is asked, and TUF decides what it is worth."""
    if pin.filename is not None:
        return Artifact(pin.project, pin.version, pin.filename, pin.sha256)
    if pin.project not in pages:
        pages[pin.project] = simple_page(fetcher, view.registry.url, pin.project)
    candidates = [item for item in pages[pin.project] if _is_of(item["filename"], pin)]
    for item in candidates:
        target = view.target(f"files/{pin.project}/{item['filename']}")
        if target is not None and target.sha256 == pin.sha256:
            return Artifact(pin.project, pin.version, item["filename"], pin.sha256)
    # No target has this hash. A page that claims it does is caught by verifying the file it names.
    claimed = [item for item in candidates if _page_hash(item) == pin.sha256]
    chosen = claimed or (candidates if len(candidates) == 1 else [])
    filename = chosen[0]["filename"] if chosen else ""
    return Artifact(pin.project, pin.version, filename, pin.sha256)


def _is_of(filename: str, pin: Pinned) -> bool:
    try:
        name = parse_filename(filename)
        same = normalise_version(name.version, strip_zeros=True) == normalise_version(
            pin.version, strip_zeros=True
        )
    except MalformedError:
        return False
    return name.project == pin.project and same


def _page_hash(item: Mapping[str, Any]) -> str | None:
    hashes = item.get("hashes")
    return str(hashes.get("sha256")) if isinstance(hashes, Mapping) else None


# --- (3) the child ----------------------------------------------------------------------------------------


def run(
    todo: Plan,
    registry: Registry,
    fetcher: Fetcher,
    *,
    now: int,
    policies: Policies,
    environment: Mapping[str, str],
    say: Callable[[str], None],
    remarks: Sequence[str] = (),
    start: Callable[[Sequence[str], Mapping[str, str]], int] | None = None,
) -> Finished:
    """Verify, then start the child, then look whether the locks are what they were."""
    report = verify_locks(todo.locks, registry, fetcher, now=now, policies=policies, remarks=remarks)
    loose = [f"{item.project}: {item.reason}" for item in todo.unprovable()]
    refused = [item for item in todo.unprovable() if policies_refuse(report, policies, item, now=now)]
    code = worst([report.exit_code, *([PolicyError.exit_code] if refused else [])])
    if code:
        return Finished(code, "countermark", report, ("the installer was not started", *_not_provable(loose)))
    if todo.changed():
        return Finished(
            7, "countermark", report, (f"{todo.changed()[0]} changed while it was being verified",)
        )
    child_environment, cleared = child_env(environment, registry, todo, build=bool(loose))
    say(_one_line(todo, report, registry, cleared, loose))
    # Verified. From here on the installer enforces the hashes; if it changes a lock, we notice.
    child = (start or _start)(todo.command, child_environment)
    if todo.changed():
        return Finished(
            7, "countermark", report, (f"{todo.changed()[0]} was changed while the installer ran",)
        )
    return Finished(child, todo.command[0], report, _not_provable(loose))


def policies_refuse(report: Report, policies: Policies, item: Unprovable, *, now: int) -> bool:
    """Whether something no hash covers is refused; the central policy is the one the report was made under."""
    central = policies.with_central(report.policy) if report.policy is not None else policies
    return central.decide(item.project, PolicyError.exit_code, now=now).refused


def child_env(
    environment: Mapping[str, str], registry: Registry, todo: Plan, *, build: bool
) -> tuple[dict[str, str], list[str]]:
    """The child's environment with this registry as its only index, and the settings that were cleared."""
    index = f"{registry.url}/simple/"
    cleared = [name for name in CLEARED if environment.get(name) not in (None, "", index, os.devnull)]
    kept = {name: value for name, value in environment.items() if name not in CLEARED}
    kept |= {"PIP_INDEX_URL": index, "UV_DEFAULT_INDEX": index, "PIP_CONFIG_FILE": os.devnull}
    if "pip" in todo.command[1:2]:
        kept["UV_NO_CONFIG"] = "1"  # `[tool.uv.pip]` could turn hash checking off; `uv sync` can't
    if not build:
        # Every pin has a wheel: a build from source, whose requirements nothing pins, is never needed.
        kept |= {"PIP_ONLY_BINARY": ":all:", "UV_NO_BUILD": "1"}
    return kept, cleared


def _one_line(
    todo: Plan, report: Report, registry: Registry, cleared: Sequence[str], loose: Sequence[str]
) -> str:
    names = ", ".join(lock.path.name for lock in todo.locks)
    files = len(report.outcomes)
    line = f"{files} {'hash' if files == 1 else 'hashes'} in {names} verified at {registry.url}"
    line += f" (log of {report.tree_size} entries, {report.freshness})"
    inside = [setting for lock in todo.locks for setting in lock.indexes]
    line += f"; cleared {', '.join(cleared)}" if cleared else ""
    line += f"; the lock itself says {', '.join(inside)}" if inside else ""
    return line + (f"; not provable: {'; '.join(loose)}" if loose else "")


def _not_provable(loose: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"not provable: {text}" for text in loose)


def _start(command: Sequence[str], environment: Mapping[str, str]) -> int:
    try:
        done = subprocess.run(list(command), env=dict(environment), check=False)
    except FileNotFoundError:
        raise UsageError(f'there is no program "{command[0]}"') from None
    except OSError as error:
        raise UsageError(f'cannot start "{command[0]}": {error.strerror}') from None
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


def refusals(report: Report) -> list[Outcome]:
    """The outcomes that stopped the run, worst first."""
    failed = [outcome for outcome in report.outcomes if outcome.exit_code]
    return sorted(failed, key=lambda outcome: -outcome.exit_code)
