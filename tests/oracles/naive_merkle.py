"""RFC 6962's definitions copied word by word: slow, recursive, and too simple to be wrong.

`D` is the list of leaf inputs. Proofs of subtrees are those of draft-ietf-plants-merkle-tree-certs.
"""

from __future__ import annotations

from hashlib import sha256


def split(n: int) -> int:
    """The largest power of two smaller than n."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def mth(D: list[bytes]) -> bytes:
    if not D:
        return sha256(b"").digest()
    if len(D) == 1:
        return sha256(b"\x00" + D[0]).digest()
    k = split(len(D))
    return sha256(b"\x01" + mth(D[:k]) + mth(D[k:])).digest()


def path(m: int, D: list[bytes]) -> list[bytes]:
    """PATH(m, D[n]), section 2.1.1."""
    if len(D) == 1:
        return []
    k = split(len(D))
    if m < k:
        return [*path(m, D[:k]), mth(D[k:])]
    return [*path(m - k, D[k:]), mth(D[:k])]


def proof(m: int, D: list[bytes]) -> list[bytes]:
    """PROOF(m, D[n]), section 2.1.2; 0 < m <= n."""
    return subproof(m, D, True)


def subproof(m: int, D: list[bytes], b: bool) -> list[bytes]:
    if m == len(D):
        return [] if b else [mth(D)]
    k = split(len(D))
    if m <= k:
        return [*subproof(m, D[:k], b), mth(D[k:])]
    return [*subproof(m - k, D[k:], False), mth(D[:k])]
