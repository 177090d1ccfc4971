"""SHA-256 for a process that lives for forty milliseconds: Python's own, until there is enough to hash.

    sha256(b"").hexdigest()     e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855

`hashlib` loads the system's OpenSSL and asks it for every digest it has: more than two milliseconds, and a cold
`bundle verify` hashes twenty kilobytes. The module that Python brings beside it is there at once, and five times
slower a byte; the standard library's `random` takes its SHA-512 from a sibling, for the same reason. So the first
256 kB of a process go through it, and all that follows through `hashlib`. The digests are the same
(tests/client/formats/test_digest.py). A Python that was built without it has `hashlib` from the start.

Type checkers see `hashlib.sha256`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hashlib import sha256
else:
    try:
        try:
            from _sha2 import sha256 as _own  # Python 3.12
        except ImportError:
            from _sha256 import sha256 as _own
    except ImportError:
        _own = None

    OWN_BYTES = 256 * 1024  # hashed before `hashlib` is loaded, which takes as long as this

    def _first(left: int) -> Any:
        found = None

        def sha256(data: bytes = b"") -> Any:
            """The hash of `data`, which takes more by `update`."""
            nonlocal found, left
            if found is None:
                left -= len(data)
                if left > 0:
                    return _own(data)
                from hashlib import sha256 as found  # noqa: PLC0415  (see above)
            return found(data)

        return sha256

    sha256 = _first(OWN_BYTES if _own is not None else 0)


HEX = "0123456789abcdef"
_DIGITS = HEX.encode()


def is_hex(text: str, length: int) -> bool:
    """Whether `text` is so many small hex digits. Compiling a pattern takes longer than checking a file.

    Nothing of it is left without them. (`strip` looks for each letter in a list, and takes three times as long.)
    """
    return len(text) == length and text.isascii() and not text.encode().translate(None, _DIGITS)


__all__ = ["HEX", "is_hex", "sha256"]
