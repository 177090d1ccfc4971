"""The log-only bundle: what proves, without network, that a file is in a log; and nothing more than that.

    {"checkpoint":"registry.example\\n40\\n...","entries":[{"entry":"...","index":31,"proof":["..."]},...],
     "format":"countermark-log-bundle/v1","index":31,"namespace":"corp","roots":[],"trust_file":"..."}

(shown on two lines; the file is canonical JSON.) It is for files that other registries serve (logonly.py), beside
the bundle of a listed file (bundle.py) and never in its place: another format, another suffix, no target, no
timestamp. It holds the publish entry and the enrolments of the key that signed it, each with its inclusion proof;
the cosigned checkpoint those proofs lead to; the trust file, which names the log's keys and witnesses and which the
root accepts by its digest; and roots newer than the one its maker had pinned.

Whether a file was withdrawn, or its key revoked, is in no such bundle: it takes every entry up to the head to say
that, and nobody whose key this bundle carries has said it. Its maker looked; who opens it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from countermark.bundle import (
    Logged,
    accepted_trust_file,
    check_entries,
    check_trust_times,
    format_entries,
    newest_root,
    parse_entries,
)
from countermark.canonical import encode_canonical, parse_canonical
from countermark.errors import MalformedError
from countermark.limits import OFFLINE_BUNDLE_MAX_BYTES
from countermark.timestamp import open_head
from countermark.tlog.checkpoint import VerifiedCheckpoint
from countermark.trustfile import TrustFile
from countermark.tufjson import Root
from countermark.values import dataclass

FORMAT = "countermark-log-bundle/v1"
SUFFIX = ".log-only.countermark"


@dataclass(frozen=True)
class LogBundle:
    """A log-only bundle as somebody offers it: parsing proves nothing, `open_log_bundle` does."""

    namespace: str
    index: int  # of the publish entry
    checkpoint: bytes
    trust_file: bytes
    entries: tuple[Logged, ...]
    roots: tuple[bytes, ...] = ()

    def format(self) -> bytes:
        """The file's bytes."""
        return encode_canonical(
            {
                "checkpoint": self.checkpoint.decode(),
                "entries": format_entries(self.entries),
                "format": FORMAT,
                "index": self.index,
                "namespace": self.namespace,
                "roots": [root.decode() for root in self.roots],
                "trust_file": self.trust_file.decode(),
            }
        )

    @classmethod
    def parse(cls, raw: bytes) -> LogBundle:
        """The bundle in these bytes, in its one spelling."""
        document: Any = parse_canonical(raw, max_bytes=OFFLINE_BUNDLE_MAX_BYTES)
        try:
            index, namespace = document["index"], document["namespace"]
            if type(index) is not int or type(namespace) is not str:
                raise TypeError("index and namespace are a number and a name")
            found = cls(
                namespace=namespace,
                index=index,
                checkpoint=document["checkpoint"].encode(),
                trust_file=document["trust_file"].encode(),
                entries=parse_entries(document["entries"]),
                roots=tuple(root.encode() for root in document["roots"]),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise MalformedError(f"this is not a log-only bundle: {error!r}") from None
        if found.format() != raw:
            raise MalformedError(
                "the log-only bundle is of another version, or has members this program does not know"
            )
        return found


@dataclass(frozen=True)
class OpenedLogBundle:
    """What a log-only bundle proved, from a pinned root. Made by `open_log_bundle` alone."""

    root: Root
    trust_file: TrustFile
    checkpoint: VerifiedCheckpoint
    entries: Mapping[int, bytes]

    @property
    def time(self) -> int:
        """T: the newest time by which the quorum had seen the checkpoint."""
        return self.checkpoint.quorum_time

    @property
    def log(self) -> OpenedLogBundle:
        """Itself, as the reader of the entries that came along."""
        return self

    def entry(self, index: int) -> bytes:
        """The bytes of one entry, proved to be in the checkpoint's tree."""
        if index not in self.entries:
            raise MalformedError(f"the log-only bundle lacks entry #{index}, which its other entries rely on")
        return self.entries[index]


def open_log_bundle(
    bundle: LogBundle,
    root: Root,
    *,
    now: int,
    known_roots: Mapping[int, bytes] | None = None,
    followed: str = "",
) -> OpenedLogBundle:
    """Verify a log-only bundle from a pinned root (`open_bundle`). How old it may be is not judged here."""
    # (1) The newest root that this machine or the bundle knows accepts the trust file. Against another log.
    root = newest_root(root, bundle.roots, known_roots or {})
    trust_file = accepted_trust_file(bundle.trust_file, root, followed)
    # (2) Every log key and the quorum signed the checkpoint. Against a private log.
    checkpoint = open_head(bundle.checkpoint, trust_file, now=now)
    check_trust_times(root, trust_file, checkpoint.quorum_time)
    # (4) Every entry is in the checkpoint's tree. Against a file, or a key, that nobody logged.
    return OpenedLogBundle(root, trust_file, checkpoint, check_entries(bundle.entries, checkpoint))
