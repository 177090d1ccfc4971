"""`make bench`: every figure we quote, printed and written to bench/results.json.

make bench                          all of them
.venv/bin/python bench/run.py law   only those whose script's name contains "law"
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import figures  # noqa: E402

SCRIPTS = (
    "bench_law", "bench_audit", "bench_tuf", "bench_tuf_batch", "bench_tuf_bytes", "bench_scan", "bench_proof",
    "bench_rate", "bench_doors", "bench_read", "bench_index", "bench_verify", "bench_lock", "bench_team",
    "bench_bundle", "bench_backfill", "bench_growth", "bench_idle",
)  # fmt: skip


def main(wanted: list[str]) -> int:
    """Run the benchmarks one after the other; exit status 1 when one of them fails to measure."""
    rows = []
    for name in SCRIPTS:
        if wanted and not any(part in name for part in wanted):
            continue
        before = figures.load()
        module = importlib.import_module(name)
        print(f"{name}: {(module.__doc__ or '').splitlines()[0]}", flush=True)
        rows += [figure.row(before) for figure in module.measure()]
    print(figures.table(rows))
    figures.keep(rows, HERE / "results.json", all_ran=not wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
