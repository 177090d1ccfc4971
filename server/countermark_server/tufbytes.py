"""Bins in the one spelling in which this registry writes them: tuf's own, without asking it entry by entry.

    {"signatures":[{"keyid":"...","sig":"..."}],"signed":{"_type":"targets","expires":"...","spec_version":"1.0.31",
     "targets":{"files/acme/acme-1.0.tar.gz":{...}},"version":12}}

A publish of a thousand files signs nearly a thousand bins, and whoever checks it reads as many. tuf spells the
canonical JSON of each member by member; orjson makes the same text a hundred times as fast, as long as no string
holds what the two spell differently. `spell` says so, by finding nothing but ASCII and no escape in what it made.

tufrepo writes with this; the timestamper expects it: what it knows must be in a bin determines every byte but the
expiry and the signature, so it compares bytes, and reads what differs with tuf, as ever. Both are held against tuf's
own bytes and verdicts: tests/server/tuf/test_tufbytes.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson
from securesystemslib.signer import Signature, Signer
from tuf.api.metadata import SPECIFICATION_VERSION

from countermark.tufjson import parse_time

Target = Mapping[str, Any]
_ENCODE = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode
_SPEC = ".".join(SPECIFICATION_VERSION)
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_HEAD = re.compile(
    rb'\{"signatures":\[\{"keyid":"([0-9a-f]{64})","sig":"([0-9a-f]++)"\}\],"signed":'
    rb'\{"_type":"targets","expires":"([1-9][0-9TZ:-]{19})",'
)


def spell(value: Any) -> bytes | None:
    """TUF's canonical JSON of a value without floats; None when it may have another spelling than this."""
    try:
        text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # a number beyond 64 bits
        return None
    return text if text.isascii() and b"\\" not in text and b"\x7f" not in text else None


def signed_file(message: bytes, *signers: Signer) -> bytes:
    """The file of a signed part that is canonical: tuf's compact form of it, byte for byte."""
    signatures = [signer.sign(message).to_dict() for signer in signers]
    text = spell(signatures) or _ENCODE(signatures).encode()
    return b'{"signatures":' + text + b',"signed":' + message + b"}"


def sign_bin(version: int, targets: Mapping[str, Target], signer: Signer, expires: datetime) -> bytes | None:
    """A bin's file; None when its targets need tuf's own spelling."""
    rest = _rest(version, targets)
    if rest is None or expires.year < 1000:
        return None
    return signed_file(
        b'{"_type":"targets","expires":"%s",' % expires.strftime(_TIME).encode() + rest, signer
    )


def expected_bin(
    raw: bytes, version: int, targets: Mapping[str, Target]
) -> tuple[bytes, dict[str, Signature]] | None:
    """Signed part and signatures of a bin that holds exactly these targets, at this version, spelled as here.

    None says nothing about it: it may be another bin, or the same one in another spelling.
    """
    head, rest = _HEAD.match(raw), _rest(version, targets)
    if head is None or rest is None or raw[head.end() :] != rest + b"}":
        return None
    try:
        parse_time(head[3].decode())
    except ValueError:
        return None
    keyid = head[1].decode()
    return raw[head.end(2) + len(b'"}],"signed":') : -1], {keyid: Signature(keyid, head[2].decode())}


def _rest(version: int, targets: Mapping[str, Target]) -> bytes | None:
    """A bin's signed part behind its expiry."""
    text = spell({"spec_version": _SPEC, "targets": targets, "version": version})
    return None if text is None else text[1:]
