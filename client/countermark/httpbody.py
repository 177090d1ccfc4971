"""The body of an answer, as far as a bound and a deadline allow: whole, or an error.

    b"".join(pieces(response, url, max_bytes=8192, deadline=time.monotonic() + 120))

An answer may be gzip, of one member, and nothing else: an encoding nobody asked for is refused, and so is a chain of
them, which makes a bomb of bombs. The bound holds for what came and for what it unpacks to, of which no more than
CHUNK bytes exist at a time. Gzip that ends early is no answer, though HTTP may find nothing wrong with it.

What cannot be seen from here is a read that does not return; fetch.py hangs up on it.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from countermark.errors import NetworkError

CHUNK = 64 * 1024  # bytes read at a time


class Arriving(Protocol):
    """What is needed of urllib3's answer; only fetch.py knows urllib3."""

    @property
    def headers(self) -> Mapping[str, str]: ...

    def read1(self, amt: int, decode_content: bool) -> bytes: ...


def pieces(response: Arriving, url: str, *, max_bytes: int, deadline: float) -> Iterator[bytes]:
    """The body, at most `max_bytes` of it, never later than `deadline`: read1 returns after every packet."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise NetworkError(f'{url} is encoded as "{encoding[:40]}", which nobody asked for')
    gunzip = zlib.decompressobj(16 + zlib.MAX_WBITS) if encoding == "gzip" else None
    most = max_bytes if gunzip is None else max_bytes + (max_bytes >> 8) + 1024  # some data grows a little
    came = length = 0
    while True:
        if time.monotonic() > deadline:
            raise NetworkError(f"{url} is too slow: {came} bytes before the deadline")
        raw = response.read1(CHUNK, decode_content=False)
        came += len(raw)
        for piece in (raw,) if gunzip is None else _unpacked(gunzip, raw, url):
            length += len(piece)
            if came > most or length > max_bytes:
                raise NetworkError(f"{url} is longer than the {max_bytes} bytes allowed for it")
            if piece:
                yield piece
        if not raw:
            if gunzip is not None and came and not gunzip.eof:
                raise NetworkError(f"{url} ends in the middle of its gzip data")
            return


def _unpacked(gunzip: Any, raw: bytes, url: str) -> Iterator[bytes]:
    """What some more bytes of gzip hold, never more than CHUNK at a time."""
    try:
        while raw:
            if gunzip.eof:
                raise NetworkError(f"{url} goes on behind its gzip data")
            yield gunzip.decompress(raw, CHUNK)
            raw = gunzip.unconsumed_tail or gunzip.unused_data
    except zlib.error as error:
        raise NetworkError(f"{url} is no gzip, and says it is: {error}") from None
