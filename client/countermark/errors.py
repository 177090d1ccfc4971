"""Errors and the exit codes they end in.

Every error says three things: what is wrong, who is at fault, and the values that disagree. It also knows
its *exit code*, the same number in the shell, in `--json` and on the help page a registry serves:

    0 allowed by policy      1 a bug of ours          2 wrong usage
    3 cannot reach (retry)   4 too old to judge       5 refused by policy
    6 withdrawn or held      7 evidence false

Several failures in one run: the worst of 7 > 6 > 5 > 4 > 3 is the result (`worst`).

Anything that came from outside and cannot be parsed surfaces as a MalformedError, never as a leaked
ValueError or KeyError. (Design, section 7.)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar


class CountermarkError(Exception):
    """Root of all our errors. `str(error)` is one sentence, lower case, without a full stop."""

    exit_code: ClassVar[int] = 1
    reason = "bug"  # one word for programs; what raises an error may say a narrower one

    def __init__(self, message: str, *, hint: str | None = None, reason: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        if reason is not None:
            self.reason = reason


class UsageError(CountermarkError):
    """The person at the keyboard asked for something that cannot be: a bad argument, a missing file."""

    exit_code = 2
    reason = "usage"


class NetworkError(CountermarkError):
    """Somebody could not be reached, or answered with a server error. Worth a retry."""

    exit_code = 3
    reason = "unreachable"


class StaleError(CountermarkError):
    """What we hold is too old to judge by: an expired timestamp, a quorum that stopped."""

    exit_code = 4
    reason = "stale"


class PolicyError(CountermarkError):
    """Nothing is forged, but the policy does not allow it: unsigned, wrong identity, no entry, no trust."""

    exit_code = 5
    reason = "policy"


class WithdrawnError(CountermarkError):
    """The entry exists and says no: held, removed, taken down."""

    exit_code = 6
    reason = "withdrawn"


class EvidenceError(CountermarkError):
    """Two things that must agree do not: tampered bytes, a fork, a rollback, a false proof."""

    exit_code = 7
    reason = "false"


class MalformedError(EvidenceError):
    """Bytes from outside that are not in the (canonical) form their format demands."""


class SignatureError(EvidenceError):
    """A known key's signature does not verify, or the signatures present do not reach the threshold."""


class ProofError(EvidenceError):
    """A Merkle proof does not lead to the root hash it was offered for."""


def worst(codes: Iterable[int]) -> int:
    """The exit code of a run in which these codes occurred: 7 > 6 > 5 > 4 > 3; a bug (1) or usage (2) wins."""
    seen = set(codes)
    for code in (1, 2):
        if code in seen:
            return code
    return max(seen, default=0)
