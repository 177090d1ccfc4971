"""The files of a release as one digest: what its approvers sign.

    acme-1.0-py3-none-any.whl 5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03
    acme-1.0.tar.gz 87428fc522803d31065e7bce3cf03fe475096631e5e07bbd7a0fde60c4cf25c7

`files_digest` is the SHA-256 of these lines, sorted by file name, each ending with a newline. A file more or less, or
other bytes under one of the names, is another digest: an approval is about exactly these files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def files_digest(files: Iterable[tuple[str, str]]) -> str:
    """The digest of (file name, SHA-256 in hex) pairs, in any order."""
    lines = "".join(f"{filename} {sha256}\n" for filename, sha256 in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()
