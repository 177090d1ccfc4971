"""A contradiction: what is stored here is not what was signed, or somebody else remembers more than we do.

No program can put that right by going on, so the process ends, with the exit code of false evidence and the page
that says what an operator does. It is no `CountermarkError`: stations meet those in a round and try again, and
this must never be tried again as if it were a passing fault.
"""

from __future__ import annotations

from countermark.errors import EvidenceError


class ContradictionError(Exception):
    """Two things that must agree do not; both are left as they are."""

    exit_code = EvidenceError.exit_code
    hint = "docs/operations/refusals.md says what each of these means, and what to do"


class StartRefusedError(ContradictionError):
    """Somebody knows more about this log than its head row does: going on from it would fork the log."""


def check_not_older(public_size: int, head_size: int) -> None:
    """The head row is committed before a checkpoint is public, so it is never behind. StartRefusedError: it is.

    The log asks this at its start, and so does who else would write public files that a newer database had named.
    The public checkpoint is to be read before the head row, which may grow meanwhile.
    """
    if public_size > head_size:
        raise StartRefusedError(
            f"the public checkpoint is at size {public_size}, the head row at {head_size}: "
            "the database is older than what the world has seen"
        )
