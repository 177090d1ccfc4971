"""Run: verify what a lock pins, then start the installer; or give it a verifying index of its own.

    countermark run -- uv sync                  (beside a uv.lock; also with --frozen or --locked)
    countermark run -- uv pip sync pylock.toml
    countermark run -- pip install --require-hashes -r requirements.txt
    countermark run -- poetry install --no-root

A lock that was made after an insider's swap pins the swapped bytes, and the installer that enforces its
hashes installs them. So every hash in the lock must be logged *for the pinned project and version* before
the child starts. The installer then enforces the hashes itself; the lock and the project's settings are
hashed before and after, and a change in between is evidence. Which lock it will read: installers.py. The lock is
not changed, so what it pins by URL (uv.lock, pylock.toml) is fetched from there; whatever an index is asked for
(files that requirements pin by hash alone, tools that a build takes) comes through the proxy below.

    countermark run -- pip install acme
    countermark run -- uv sync                  (where there is no uv.lock yet)

An install by name pins nothing, so everything it asks for comes through a proxy (proxy.py) that lives as long as
the child and hands out verified files only. Nothing else can be reached: the child's settings for web proxies lead
to a closed door, and its git fetches nothing, so that a dependency that names a URL is not fetched past the proof.
A lock that `uv sync` writes names the registry, not the proxy.

Other commands are refused with a sentence that says what to do; so are, in a lock, sources without a hash, where the
policy enforces, and packages that exist only as source. `--allow-build` lets those and the project's own folder be
built: what they are made of is verified, and the tools come through the proxy. pip and uv have the proxy as their one
index, never the registry itself; poetry, and `uv sync --locked`, ask what their project names, which must be the
registry. Every setting of theirs in the environment is cleared and named, but for a few that cannot change what is
installed.

Exit code: ours if the child never started or anything got 6 or 7 (even when the child ends with 0), else
the child's. The last line on stderr says whose it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from countermark.clientpolicy import Policies
from countermark.credentials import SECRET_VARIABLES
from countermark.disk import read_file, replace_file
from countermark.errors import PolicyError, UsageError
from countermark.fetch import Fetcher
from countermark.limits import LOCK_MAX_BYTES
from countermark.lockcheck import verify_locks
from countermark.pins import Registry
from countermark.plans import Plan
from countermark.prefetch import Tick, quiet
from countermark.values import dataclass, replace
from countermark.verified import LetPass, Outcome, Report

if TYPE_CHECKING:
    from countermark.proxy import Proxy

# What of pip's and uv's own variables a child keeps: where caches and interpreters are, and how it talks. Every
# other one is cleared: each option of theirs has a variable, and each release brings new ones.
SECRETS = ("COUNTERMARK_PASSPHRASE", *SECRET_VARIABLES)
KEPT = re.compile(
    r"PIP_(?:CACHE_DIR|NO_CACHE_DIR|CERT|CLIENT_CERT|PROXY|RETRIES|TIMEOUT|DEFAULT_TIMEOUT|NO_INPUT|NO_COLOR|QUIET|"
    r"VERBOSE|PROGRESS_BAR|DISABLE_PIP_VERSION_CHECK|ROOT_USER_ACTION|REQUIRE_VIRTUALENV|BREAK_SYSTEM_PACKAGES|"
    r"TARGET|PREFIX|USER)|"
    r"UV_(?:CACHE_DIR|NO_CACHE|OFFLINE|PYTHON|PYTHON_PREFERENCE|PYTHON_DOWNLOADS|PYTHON_INSTALL_DIR|MANAGED_PYTHON|"
    r"NO_MANAGED_PYTHON|PROJECT_ENVIRONMENT|SYSTEM_PYTHON|BREAK_SYSTEM_PACKAGES|LINK_MODE|COMPILE_BYTECODE|"
    r"NO_PROGRESS|HTTP_TIMEOUT|HTTP_RETRIES|LOCK_TIMEOUT|NATIVE_TLS|SYSTEM_CERTS|NO_CONFIG|NO_BUILD|FROZEN|NO_DEV|"
    r"KEYRING_PROVIDER|CONCURRENT_[A-Z]+|INDEX_[A-Z0-9_]+_(?:USERNAME|PASSWORD))|"
    r"POETRY_(?:CACHE_DIR|HOME|CONFIG_DIR|DATA_DIR|VIRTUALENVS_[A-Z_]+|KEYRING_ENABLED|REQUESTS_TIMEOUT|"
    r"INSTALLER_(?:PARALLEL|MAX_WORKERS)|HTTP_BASIC_[A-Z0-9_]+|CERTIFICATES_[A-Z0-9_]+)"
)

PATIENCE = "120"  # seconds an installer waits for the first byte, while the proxy has not yet hashed the last
WEB_PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"})


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


# --- the child --------------------------------------------------------------------------------------------


def run(
    todo: Plan,
    proxy: Proxy,
    registry: Registry,
    fetcher: Fetcher,
    *,
    now: int,
    policies: Policies,
    environment: Mapping[str, str],
    say: Callable[[str], None],
    remarks: Sequence[str] = (),
    start: Callable[[Sequence[str], Mapping[str, str]], int] | None = None,
    allow_build: bool = False,
    tick: Tick = quiet,
) -> Finished:
    """Verify, then start the child with the proxy as its index, then look whether the locks are what they were."""
    _check_sources(todo, registry)
    report = verify_locks(
        todo.locks, registry, fetcher, now=now, policies=policies, remarks=remarks, loose=todo.unprovable(),
        allow_build=allow_build, tick=tick,
    )  # fmt: skip
    if report.exit_code:
        return Finished(report.exit_code, "countermark", report, ("the installer was not started",))
    if changed := todo.changed():
        return Finished(7, "countermark", report, (f"{changed[0]} changed while it was being verified",))
    if past := todo.past_the_index():
        raise PolicyError(
            f"{past[0]} lets a build take tools from elsewhere than the verifying index",
            hint="leave it out, or leave out what must be built",
        )
    # Verified. From here on the installer enforces the hashes; if it changes a lock, we notice.
    child = _child(todo, proxy, registry, report, environment=environment, say=say, start=start or _start)
    locked = {pin.sha256 for pin in todo.pinned}
    asked = [o for o in proxy.outcomes if o.exit_code or o.artifact.sha256 not in locked]
    report = replace(report, outcomes=(*report.outcomes, *asked))
    if changed := todo.changed():
        return Finished(7, "countermark", report, (f"{changed[0]} was changed while the installer ran",))
    return _ended(todo, report, child, [*_not_provable(report), *_left_alone(todo, child)])


def _check_sources(todo: Plan, registry: Registry) -> None:
    """Refuse a command that pins nothing, and one that asks another index."""
    if not todo.is_pinned:
        raise UsageError(f"`{' '.join(todo.command)}` pins nothing that could be verified before it starts")
    if others := todo.other_sources(registry.url):
        raise PolicyError(
            f"{todo.command[0]} would ask another index than {registry.url}: {others[0]}",
            hint=f"countermark configure {todo.command[0].split('/')[-1]} --write, then lock anew"
            + ("; or --frozen, which asks no index for what uv.lock pins" if todo.added else ""),
        )


def _child(
    todo: Plan,
    proxy: Proxy,
    registry: Registry,
    report: Report,
    *,
    environment: Mapping[str, str],
    say: Callable[[str], None],
    start: Callable[[Sequence[str], Mapping[str, str]], int],
) -> int:
    """Start the child with the proxy for whatever it asks an index; its exit code."""
    from countermark import serving  # noqa: PLC0415  (lazy: `verify` of a lock listens to nobody)

    build = bool(todo.unprovable())
    with serving.in_background(proxy.answer) as url:
        index = f"{registry.url}/simple/" if todo.asks_registry else f"{url}/simple/"
        child_environment, cleared = child_env(environment, index, todo, build=build)
        child_environment = _beside_the_lock(child_environment, todo, build=build)
        say(_one_line(todo, report, registry, registry.url if todo.sources else url, cleared))
        return start((*todo.command, *todo.added), child_environment)


def _left_alone(todo: Plan, child: int) -> list[str]:
    """Why a child may have failed that was told to leave its lock as it is."""
    if not todo.added or not child:
        return []
    return [
        f"{todo.command[0]} was given {' '.join(todo.added)}, so that {todo.locks[0].path.name} stays as it is: "
        "if that is out of date, `uv lock` makes it anew, and the next run verifies it"
    ]


def _ended(todo: Plan, report: Report, child: int, sentences: Sequence[str]) -> Finished:
    """Whose exit code it is: what was refused as withdrawn or false wins, even over a child that ends with 0."""
    grave = [outcome.exit_code for outcome in report.outcomes if outcome.exit_code in (6, 7)]
    if grave:
        return Finished(max(grave), "countermark", report, (f"{todo.command[0]} ended with {child}",))
    return Finished(child, todo.command[0], report, tuple(sentences))


def _beside_the_lock(environment: Mapping[str, str], todo: Plan, *, build: bool) -> dict[str, str]:
    """The same environment, in which the proxy on this machine is reached, and nothing past it is remembered.

    Web proxies stay: what a lock names by URL may be behind them, and its hash was verified.
    """
    kept = dict(environment)
    if web := kept.pop("PIP_PROXY", ""):  # pip would ask it for the proxy on this machine, too
        kept |= {name: web for each in ("HTTP_PROXY", "HTTPS_PROXY") for name in (each, each.lower())}
    others = kept.get("no_proxy") or kept.get("NO_PROXY") or ""
    if others != "*":
        past = ",".join(filter(None, (others, "127.0.0.1")))
        kept |= {"NO_PROXY": past, "no_proxy": past}
    if todo.added:
        kept.pop("UV_FROZEN", None)  # uv takes one of the two, and the stricter is what was added
    if build and todo.installer == "uv sync":
        kept["UV_NO_CONFIG"] = "1"  # uv asks the indexes of `[tool.uv]` first for what a build takes
    if build or todo.asks_index:  # the proxy's port is new each time: its pages are of no use to a cache
        kept |= {"UV_NO_CACHE": "1", "PIP_NO_CACHE_DIR": "1"}
    return _patient(kept)


def _patient(environment: Mapping[str, str]) -> dict[str, str]:
    kept = dict(environment)
    if not {"PIP_TIMEOUT", "PIP_DEFAULT_TIMEOUT"} & kept.keys():
        kept["PIP_TIMEOUT"] = PATIENCE
    kept.setdefault("UV_HTTP_TIMEOUT", PATIENCE)
    return kept


def run_proxied(
    todo: Plan,
    proxy: Proxy,
    registry: Registry,
    *,
    environment: Mapping[str, str],
    say: Callable[[str], None],
    remarks: Sequence[str] = (),
    start: Callable[[Sequence[str], Mapping[str, str]], int] | None = None,
) -> Finished:
    """Start the child with a proxy of its own; what the proxy refused as withdrawn or false decides the exit code."""
    report = proxy.check()
    from countermark import serving  # noqa: PLC0415  (lazy: `verify` of a lock listens to nobody)

    with serving.in_background(proxy.answer) as url:
        child_environment, cleared = child_env(environment, f"{url}/simple/", todo, build=True)
        child_environment = _shut_in(child_environment, url)
        line = f"everything comes through {url}, from {registry.url}"
        line += f" (log of {report.tree_size} entries, {report.believed})"
        say(line + (f"; cleared {', '.join(cleared)}" if cleared else ""))
        try:
            child = (start or _start)(todo.command, child_environment)
        finally:
            # If we are killed before this the lock names an address that is gone, and uv refuses it.
            _name_registry(todo, url, registry)
    report = proxy.report()
    report = replace(report, remarks=(*remarks, *report.remarks))
    return _ended(todo, report, child, proxy.withheld() if child else ())


def _shut_in(environment: Mapping[str, str], url: str) -> dict[str, str]:
    """The same environment with no way out but the proxy, and no cache that was filled past it."""
    kept = {n: v for n, v in environment.items() if n.upper() not in WEB_PROXIES and n != "PIP_PROXY"}
    for name in WEB_PROXIES:
        kept |= {name: url, name.lower(): url}  # it lets nobody through
    kept |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    kept["GIT_ALLOW_PROTOCOL"] = (
        "none"  # git:// and ssh ask no web proxy, and git's own settings name another
    )
    return _patient(kept) | {"UV_NO_CACHE": "1", "UV_NO_CONFIG": "1", "PIP_NO_CACHE_DIR": "1"}


def _name_registry(todo: Plan, url: str, registry: Registry) -> None:
    """A lock written by the child must be good after the proxy is gone: the paths are the same at the registry."""
    lock = None if todo.project is None else todo.project / "uv.lock"
    raw = None if lock is None else read_file(lock, max_bytes=LOCK_MAX_BYTES)
    if lock is not None and raw is not None and url.encode() in raw:
        replace_file(lock, raw.replace(url.encode(), registry.url.encode()), mode=0o644)


def child_env(
    environment: Mapping[str, str], index: str, todo: Plan, *, build: bool
) -> tuple[dict[str, str], list[str]]:
    """The child's environment with this index (the proxy) as its only one, and the settings that were cleared."""
    ours = [n for n in environment if n.startswith(("PIP_", "UV_", "POETRY_")) and not KEPT.fullmatch(n)]
    cleared = sorted(name for name in ours if environment[name] not in ("", index, os.devnull))
    # Installers run other people's code: a key's passphrase and the registry's tokens are none of its business.
    kept = {n: value for n, value in environment.items() if n not in ours and n not in SECRETS}
    kept |= {"PIP_INDEX_URL": index, "UV_DEFAULT_INDEX": index, "PIP_CONFIG_FILE": os.devnull}
    if todo.installer == "uv pip":
        kept["UV_NO_CONFIG"] = "1"  # `[tool.uv.pip]` could turn hash checking off; `uv sync` can't
    if todo.installer == "poetry":
        # Else it puts the pip that virtualenv carries into a new environment, which nobody proved.
        kept.setdefault("POETRY_VIRTUALENVS_OPTIONS_NO_PIP", "true")
    if not build:
        # Every pin has a wheel: a build from source, whose requirements nothing pins, is never needed.
        kept |= {"PIP_ONLY_BINARY": ":all:", "UV_NO_BUILD": "1"}
        kept |= {"POETRY_INSTALLER_ONLY_BINARY": ":all:", "POETRY_INSTALLER_NO_BINARY": ":none:"}
    return kept, cleared


def _one_line(todo: Plan, report: Report, registry: Registry, index: str, cleared: Sequence[str]) -> str:
    names = ", ".join(lock.path.name for lock in todo.locks)
    files = len(todo.pinned)
    line = f"{files} {'hash' if files == 1 else 'hashes'} in {names} verified at {registry.url}"
    line += f" (log of {report.tree_size} entries, {report.believed})"
    line += f"; the only index is {index}"
    line += f"; cleared {', '.join(cleared)}" if cleared else ""
    line += f"; the lock or the command itself says {', '.join(todo.indexes)}" if todo.indexes else ""
    return "; ".join([line, *_not_provable(report)])


def _not_provable(report: Report) -> list[str]:
    """What was let pass, in words."""
    return [str(outcome.error) for outcome in report.outcomes if isinstance(outcome, LetPass)]


def _start(command: Sequence[str], environment: Mapping[str, str]) -> int:
    import subprocess  # noqa: PLC0415  (lazy: `verify` of a lock starts nothing)

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
