"""Why the timestamper did not sign. The code labels the alarm; the message carries the values that disagree."""

from __future__ import annotations

from countermark.errors import EvidenceError


class RefusalError(EvidenceError):
    """A check failed: the old timestamp stays, nothing was remembered, somebody must look."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
