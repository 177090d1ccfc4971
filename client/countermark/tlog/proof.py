"""Proofs of logging that fit in a file: an index, an inclusion proof, and the checkpoint it leads to.

    c2sp.org/tlog-proof@v1
    index 1
    Aippeebat6pa5MPl5F9+l3ESp+Y1k4INvsHsc4ok+Tw=
    WX/LMSgtNGVMIA00GPylcFxkjr8ybsc9jd7xGEH4dtg=

    example.com/registry
    3
    ...and the rest of the checkpoint, verbatim

A line `extra <base64>` may stand before the index; nobody vouches for it. The hashes start with the leaf's
sibling. A proof never expires and says nothing about now: the checkpoint's cosignatures carry the times.

Files end in `.tlog-proof`. Format: https://c2sp.org/tlog-proof (text of 2026-07)
"""

from __future__ import annotations

from countermark.errors import MalformedError
from countermark.limits import PROOF_MAX_HASHES, TLOG_PROOF_MAX_BYTES
from countermark.tlog import merkle
from countermark.tlog.checkpoint import VerifiedCheckpoint
from countermark.tlog.note import format_base64, parse_base64, parse_decimal, parse_hash
from countermark.values import dataclass

_HEADER = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True)
class TlogProof:
    """A proof as somebody offers it. `checkpoint` is a note's bytes: open it with open_checkpoint."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None

    def format(self) -> bytes:
        lines = [_HEADER]
        if self.extra is not None:
            lines.append(f"extra {format_base64(self.extra)}")
        lines.append(f"index {self.index}")
        lines += [format_base64(hash) for hash in self.hashes]
        return "\n".join([*lines, "", ""]).encode() + self.checkpoint

    @classmethod
    def parse(cls, raw: bytes) -> TlogProof:
        if len(raw) > TLOG_PROOF_MAX_BYTES:
            raise MalformedError(f"a proof of {len(raw)} bytes; at most {TLOG_PROOF_MAX_BYTES} are read")
        head, blank, checkpoint = raw.partition(b"\n\n")
        if not blank or not checkpoint:
            raise MalformedError("a proof must end in an empty line and a checkpoint")
        header, *lines = head.decode("ascii", "surrogateescape").split("\n")
        if header != _HEADER:
            raise MalformedError(f"a proof must start with {_HEADER}, not {header[:40]!r}")
        extra = parse_base64(lines.pop(0)[6:]) if lines and lines[0].startswith("extra ") else None
        if not lines or not lines[0].startswith("index "):
            raise MalformedError("a proof must name the index")
        if len(lines) - 1 > PROOF_MAX_HASHES:
            raise MalformedError(f"a proof of {len(lines) - 1} hashes; no tree needs over {PROOF_MAX_HASHES}")
        proof = cls(parse_decimal(lines[0][6:]), tuple(map(parse_hash, lines[1:])), checkpoint, extra)
        if proof.format() != raw:
            raise MalformedError("the proof is not in canonical form")
        return proof


def check(entry: bytes, proof: TlogProof, checkpoint: VerifiedCheckpoint) -> None:
    """Check that `entry` is in the tree of `checkpoint`, at the proof's index.

    `checkpoint` is the proof's own, opened, or any other that the proof was made for: size and root hash come
    from what was verified, never from the proof.
    """
    leaf, size, root = merkle.leaf_hash(entry), checkpoint.size, checkpoint.root_hash
    merkle.check_inclusion(proof.hashes, index=proof.index, size=size, leaf_hash=leaf, root_hash=root)
