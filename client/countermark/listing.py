"""Listing: which TUF target the log's history demands for a file. Pure; tufrepo, timestamper and auditors share it.

    path, target = target_of(view, ("file", "", "acme", "acme-1.0.tar.gz"))
    bin_index("files/acme/acme-1.0.tar.gz", 12)     # 2741

None stands for a target that must not be there.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from countermark.rules import Key, View, is_listed, target_custom, target_path

Target = dict[str, Any]

# Entries after which a file may have another standing or another right to be listed: the clock of `applied`.
STATUS_TYPES: Final = frozenset(
    {"verdict", "hold", "clear", "takedown", "yank", "unyank", "remove", "key-revoke", "approve"}
)


def target_of(view: View, key: Key) -> tuple[str, Target | None]:
    """A file's target path, and the target it must have: None when it may not be listed."""
    file = view.get(key)
    assert file is not None, "rules name a touched file only when they wrote it"
    path = target_path(file)
    if not is_listed(view, key):
        return path, None
    return path, {
        "custom": target_custom(file),
        "hashes": {"sha256": file["sha256"]},
        "length": file["length"],
    }


def bin_index(path: str, bit_length: int) -> int:
    """The bin a target path belongs to, as TUF's succinct delegation says (TAP 15)."""
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:4], "big") >> 32 - bit_length
