"""Files that an operator names: read with a bound, refused in words."""

from __future__ import annotations

from pathlib import Path

from countermark.errors import MalformedError, UsageError


def read_bounded(path: Path, most: int) -> bytes:
    """At most so many bytes. UsageError: it can't be read; MalformedError: it is longer."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(most + 1)
    except OSError as error:
        raise UsageError(f'cannot read "{path}": {error.strerror}') from None
    if len(raw) > most:
        raise MalformedError(f'"{path}" is longer than {most} bytes')
    return raw
