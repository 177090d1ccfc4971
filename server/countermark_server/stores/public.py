"""Public: the static trees anyone may read, `log/` and `tuf/`.

Every file here is immutable, except three that are replaced as a whole: the checkpoint, the timestamp and the
candidate that the timestamper reads. A CDN may serve this folder as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from countermark_server.stores.immutable import StoreError, checked_name, replace_file, write_files

CHECKPOINT = "log/checkpoint"
TIMESTAMP = "tuf/timestamp.json"
CANDIDATE = "tuf/candidate.json"
REPLACED = frozenset({CHECKPOINT, TIMESTAMP, CANDIDATE})


class Public:
    """The public tree below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, name: str, data: bytes) -> None:
        """Write one immutable file. ConflictError: it exists with other bytes."""
        self.put_all({name: data})

    def put_all(self, files: Mapping[str, bytes]) -> None:
        """Write immutable files together; after an error any of them may exist, each of them whole."""
        if replaced := REPLACED.intersection(files):
            raise StoreError(f"{min(replaced)} is replaced, not written once")
        write_files(self.root, files)

    def replace(self, name: str, data: bytes) -> None:
        """Give one of the replaced files its new content, durably."""
        if name not in REPLACED:
            raise StoreError(f"{name} never changes")
        replace_file(self.root / name, data)

    def read(self, name: str) -> bytes | None:
        """The file's bytes, or None when there is none."""
        try:
            return self.path(name).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def path(self, name: str) -> Path:
        """Where the file lies; never outside of this tree."""
        return self.root / checked_name(name)
