"""Library: verify from Python, in seven names. Everything else in this package may change with any release.

    registry = open_registry("https://registry.example")       # pinned before, by `countermark trust add`
    report = verify_lock("uv.lock", registry)                  # or verify_files(["dist/acme-1.0-py3-none-any.whl"])
    for outcome in report.outcomes:
        if isinstance(outcome, Refused):
            print(outcome.artifact.name, outcome.error, outcome.error.hint)
    sys.exit(report.exit_code)

`open_registry`, `verify_files` and `verify_lock` do what the commands do: the policy of this user and of the project
that the current folder is in is obeyed, a trial registry and a root trusted on first use are refused under CI, and
what was learned is remembered. `Report` has `outcomes`, `exit_code`, `remarks`, `believed` (how old, and who says so)
and `to_json()`; an outcome is `Verified` (with `steps`, `signed_by`, `findings`), `Refused` (with `error`) or let
pass by policy. Errors of the view as a whole (network, evidence, no trust) are raised: each is a `CountermarkError`
with `exit_code`, `reason` and `hint`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from countermark.errors import CountermarkError
from countermark.lockcheck import verify_locks
from countermark.lockfile import read_lock
from countermark.mirrors import fetcher_for
from countermark.pins import Home, Registry
from countermark.policyfile import load_policies
from countermark.verified import Artifact, Refused, Report, Verified
from countermark.verify import verify

__all__ = [
    "CountermarkError",
    "Refused",
    "Report",
    "Verified",
    "open_registry",
    "verify_files",
    "verify_lock",
]


def open_registry(url: str | None = None) -> Registry:
    """The registry that this user has pinned; without a URL, the only one. PolicyError where there is none."""
    return Home().registry(url or os.environ.get("COUNTERMARK_REGISTRY"))


def verify_files(paths: Sequence[str | Path], registry: Registry | None = None) -> Report:
    """Verify wheels and source distributions against one view of the registry."""
    registry = registry or open_registry()
    remarks = registry.admit(os.environ, allow_trial=False)
    policies = load_policies(Home().policy_file, Path.cwd(), os.environ)
    artifacts = [Artifact.from_path(Path(path)) for path in paths]
    now = int(time.time())
    return verify(artifacts, registry, fetcher_for(registry), now=now, policies=policies, remarks=remarks)


def verify_lock(path: str | Path, registry: Registry | None = None) -> Report:
    """Verify every hash of a uv.lock, poetry.lock, pylock.toml or hashed requirements file."""
    registry = registry or open_registry()
    remarks = registry.admit(os.environ, allow_trial=False)
    policies = load_policies(Home().policy_file, Path.cwd(), os.environ)
    lock, now = read_lock(Path(path)), int(time.time())
    return verify_locks([lock], registry, fetcher_for(registry), now=now, policies=policies, remarks=remarks)
