"""Responses as QR frames: how a response leaves a machine that has no stick, only a screen and a printer.

    countermark-response/1 2/3 6f1c09a2...(64 hex digits) eNqdkE1uwjAQhe...

A response is compressed and cut into numbered frames, each a line of text in a QR symbol of its own. Every
frame carries the SHA-256 of the whole response, so frames of two responses never mix, and what comes out is
the response byte for byte or an error: a missing frame is named, a changed one is refused. Frames may be
scanned in any order and more than once. They prove nothing about who made them; the signatures inside do.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
import zlib
from collections.abc import Iterable

import segno

from countermark.errors import EvidenceError, MalformedError
from countermark_ceremony.files import FILE_MAX_BYTES

PREFIX = "countermark-response/1"
CHUNK = 500  # characters; with its head a frame fills a symbol of 85 to 93 modules, which a phone reads
FRAMES_MAX = 999
_FRAME = re.compile(rf"{PREFIX} ([1-9][0-9]{{0,2}})/([1-9][0-9]{{0,2}}) ([0-9a-f]{{64}}) ([A-Za-z0-9_=-]+)")


def split(raw: bytes) -> list[str]:
    """The frames of a response, in order."""
    text = base64.urlsafe_b64encode(zlib.compress(raw, 9)).decode()
    chunks = [text[start : start + CHUNK] for start in range(0, len(text), CHUNK)]
    if len(chunks) > FRAMES_MAX:
        raise MalformedError(
            f"a response of {len(raw)} bytes fills {len(chunks)} frames, at most {FRAMES_MAX}"
        )
    digest = hashlib.sha256(raw).hexdigest()
    return [f"{PREFIX} {number}/{len(chunks)} {digest} {chunk}" for number, chunk in enumerate(chunks, 1)]


def is_frames(raw: bytes) -> bool:
    """Whether these bytes are scanned frames rather than a response file."""
    return raw.lstrip().startswith(PREFIX.encode())


def join(texts: Iterable[bytes]) -> list[bytes]:
    """The responses that these scans hold: lines of frames, of any number of responses, in any order."""
    found: dict[tuple[str, int], dict[int, str]] = {}
    for line in (line.strip() for text in texts for line in text.decode("utf-8", "replace").splitlines()):
        if not line:
            continue
        frame = _FRAME.fullmatch(line)
        if frame is None or not int(frame[1]) <= int(frame[2]):
            raise MalformedError(f"this is no frame of a response: {line[:60]!r}", hint="scan it again")
        number, chunk = int(frame[1]), frame[4]
        if found.setdefault((frame[3], int(frame[2])), {}).setdefault(number, chunk) != chunk:
            raise EvidenceError(f"two different frames are number {frame[1]} of response {frame[3][:16]}...")
    return [_whole(digest, total, chunks) for (digest, total), chunks in found.items()]


def _whole(digest: str, total: int, chunks: dict[int, str]) -> bytes:
    if missing := [str(number) for number in range(1, total + 1) if number not in chunks]:
        raise MalformedError(
            f"response {digest[:16]}...: frame {', '.join(missing)} of {total} is missing",
            hint="scan the missing frames, in any order",
        )
    raw = _inflated("".join(chunks[number] for number in sorted(chunks)).encode())
    if raw is None or hashlib.sha256(raw).hexdigest() != digest:
        raise EvidenceError(
            f"the frames of response {digest[:16]}... do not give it: one of them was changed or misread",
            hint="scan all of its frames again",
        )
    return raw


def _inflated(text: bytes) -> bytes | None:
    """What this text packs, or None where it has a spare bit, or anything after its end.

    Another packing of the same bytes is none of these, and does no harm: what counts is the response's digest.
    """
    stream = zlib.decompressobj()
    try:
        packed = base64.b64decode(text, b"-_", validate=True)
        raw = stream.decompress(packed, FILE_MAX_BYTES)
    except (binascii.Error, zlib.error):
        return None
    exact = base64.urlsafe_b64encode(packed) == text and stream.eof and not stream.unused_data
    return raw if exact else None


def pictures(raw: bytes) -> dict[str, bytes]:
    """Files for a screen or a printer: each frame as text, SVG and PNG."""
    files = {}
    frames = split(raw)
    for number, frame in enumerate(frames, 1):
        stem = f"frame-{number}-of-{len(frames)}"
        symbol = segno.make(frame, error="m", micro=False)
        files[f"{stem}.txt"] = frame.encode() + b"\n"
        for kind, scale in (("svg", 4), ("png", 6)):
            picture = io.BytesIO()
            symbol.save(picture, kind=kind, scale=scale)
            files[f"{stem}.{kind}"] = picture.getvalue()
    return files


def terminal(frame: str) -> str:
    """A frame as blocks of text, for a terminal."""
    drawn = io.StringIO()
    segno.make(frame, error="m", micro=False).terminal(out=drawn, compact=True)
    return drawn.getvalue()
