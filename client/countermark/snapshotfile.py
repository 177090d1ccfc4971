"""A snapshot in the spelling in which registries write it, read without walking it entry by entry.

    {"signatures":[{"keyid":"6f1c...","sig":"90ab..."}],"signed":{"_type":"snapshot","expires":"2026-01-08T00:00:00Z",
     "meta":{"bins-0000.json":{"version":3},...},"spec_version":"1.0.31","version":12}}

At 16,384 bins tuf makes an object of each entry and spells the canonical JSON, entry by entry, twice: 150 of the
milliseconds that a refresh costs which brings nothing new. None of that is needed when the file's `signed` already
*is* its canonical JSON, byte for byte, and a regular expression can tell: fixed members in order, plain ASCII names
in order and each once, versions without leading zeros. Then the bytes in the file are what signatures cover, and
the long list is cut at its delimiters.

Nothing is decided here. Everything around the list (members, expiry, signatures) is still read by tuf, and
ngclient still checks signature, expiry, version and rollback of every entry, on the same `Snapshot` that tuf would
have made. Any other spelling, of whatever is not exactly this, goes to tuf as ever. That no file is judged otherwise
than by tuf alone is held against stock ngclient over mutated repositories: tests/client/verify/test_snapshotfile.py.

A moment that nothing has changed since is verified without tuf (moment.py), by the same `split`.

The cache on this disk gains no trust: a file read back passes the same road, signature included.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from countermark.values import dataclass

if TYPE_CHECKING:
    from tuf.api.metadata import Metadata, Signature, Snapshot

    Loaded = tuple[Any, bytes, dict[str, Signature]]
    Load = Callable[
        ..., Loaded
    ]  # ngclient's: (type, data, delegator, role name) to (signed, its bytes, signatures)

# Possessive, so that no input makes it try twice. Every string is of characters that no JSON escapes.
_ENTRY = rb'"[A-Za-z0-9_.-]++":\{"version":[1-9][0-9]{0,14}+\}'
_FILE = re.compile(
    rb'(?P<head>\{"signatures":\[(?:\{"keyid":"[A-Za-z0-9]++","sig":"[0-9a-f]*+"\},?+)*+\],"signed":)'
    rb'(?P<before>\{"_type":"snapshot","expires":"[0-9TZ:-]{20}","meta":\{)'
    rb"(?P<meta>" + _ENTRY + rb"(?:," + _ENTRY + rb")*+)"
    rb'(?P<after>\},"spec_version":"[0-9.]++","version":[1-9][0-9]{0,14}+\})\}'
)


def quick(stock: Load) -> Load:
    """ngclient's way to load a file, with a short cut for snapshots in their usual spelling."""
    from tuf.api.metadata import Snapshot  # noqa: PLC0415

    def load(role: type[Any], data: bytes, delegator: Any = None, role_name: str | None = None) -> Loaded:
        found = parse(data) if role is Snapshot and role_name is None else None
        if found is None:
            return stock(role, data, delegator, role_name)
        metadata, signed = found
        if delegator is not None:
            delegator.verify_delegate(Snapshot.type, signed, metadata.signatures)
        return metadata.signed, signed, metadata.signatures

    return load


@dataclass(frozen=True)
class Split:
    """A snapshot in its usual spelling, taken apart."""

    rest: bytes  # the file without its list
    frame: bytes  # the signed part without its list
    signed: bytes  # the signed part, which is its own canonical JSON where `frame` is
    versions: Mapping[str, str]  # of each file in the list, by name


def split(data: bytes) -> Split | None:
    """The snapshot's parts; None unless the file is spelled so that its signed part is its own canonical JSON."""
    match = _FILE.fullmatch(data)
    if match is None or (found := _versions(match["meta"].decode("ascii"))) is None:
        return None
    frame = match["before"] + match["after"]
    return Split(match["head"] + frame + b"}", frame, data[match.start("before") : match.end("after")], found)


def _versions(text: str) -> dict[str, str] | None:
    """The versions in the list; None when their names are not in order, each once."""
    parts = text[1:-1].replace('":{"version":', '},"').split('},"')
    names = parts[0::2]
    found = dict(zip(names, parts[1::2], strict=True))
    return found if len(found) == len(names) and names == sorted(names) else None


def parse(data: bytes) -> tuple[Metadata[Snapshot], bytes] | None:
    """The snapshot as tuf makes it, and its canonical signed part; None where `split` has none."""
    from tuf.api.metadata import Metadata, MetaFile, Snapshot  # noqa: PLC0415
    from tuf.api.serialization import DeserializationError  # noqa: PLC0415

    if (found := split(data)) is None:
        return None
    try:  # all but the list, by tuf: it knows what times and versions it takes, and which keys sign twice
        metadata = Metadata[Snapshot].from_bytes(found.rest)
        if metadata.signed_bytes != found.frame:  # a year before 1000 has another canonical form
            return None
    except DeserializationError:
        return None
    versions = found.versions.values()
    made = {version: MetaFile(int(version)) for version in set(versions)}  # many bins have the same version
    metadata.signed.meta = dict(zip(found.versions, map(made.__getitem__, versions), strict=True))
    return metadata, found.signed
