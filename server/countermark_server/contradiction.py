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
