"""The law of the log in one process: hashing, proofs and signatures, without any I/O."""

from __future__ import annotations

import time
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from countermark.tlog import merkle
from countermark.tlog.checkpoint import Checkpoint, open_log_checkpoint
from countermark.tlog.cosignature import MlDsaSigner
from countermark.tlog.note import Ed25519NoteSigner, sign_note
from figures import Figure

ENTRIES = 100_000
ENTRY = bytes(1024)


def measure() -> list[Figure]:
    """Audit rate of 1 KiB entries, and one checkpoint opened with both log signatures."""
    return [
        Figure("merkle audit, 1 KiB entries", "entries/s", _rates(_audit, 7), 500_000, more_is_better=True),
        Figure("open a checkpoint, both log lines", "ms", [1000 * s for s in _times(_opener(), 200)]),
    ]


def _audit() -> int:
    leaves = [merkle.leaf_hash(ENTRY) for _ in range(ENTRIES)]
    merkle.RightEdge.empty().extend(leaves).root()
    return ENTRIES


def _opener() -> Callable[[], object]:
    log = (
        Ed25519NoteSigner("bench.test/log", Ed25519PrivateKey.from_private_bytes(bytes(32))),
        MlDsaSigner("bench.test/log", MLDSA44PrivateKey.from_seed_bytes(bytes(32))),
    )
    raw = sign_note(Checkpoint("bench.test/log", 1, bytes(32)).text(), log, time=1_790_000_000).format()
    keys = [signer.vkey for signer in log]
    return lambda: open_log_checkpoint(raw, keys)


def _rates(work: Callable[[], int], n: int) -> list[float]:
    rates = []
    for _ in range(n):
        started = time.process_time()  # CPU time: these machines are shared
        rates.append(work() / (time.process_time() - started))
    return rates


def _times(work: Callable[[], object], n: int) -> list[float]:
    times = []
    for _ in range(n):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return times
