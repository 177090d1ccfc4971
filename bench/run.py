"""`make bench`: every figure we quote, printed and written to bench/results.json.

make bench                          all of them, which takes its time
.venv/bin/python bench/run.py law   only those whose script's name contains "law"

What a script has measured is written once it has ended, so whoever stops in the middle keeps it, and one that fails
takes nothing from the others. Rows that no script makes any more go when all of them have ended well.
"""

from __future__ import annotations

import importlib
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import figures  # noqa: E402

RESULTS = HERE / "results.json"
SCRIPTS = (
    "bench_law", "bench_audit", "bench_tuf", "bench_tuf_batch", "bench_tuf_bytes", "bench_scan", "bench_proof",
    "bench_rate", "bench_doors", "bench_read", "bench_index", "bench_verify", "bench_lock", "bench_team",
    "bench_bundle", "bench_backfill", "bench_growth", "bench_idle",
)  # fmt: skip


def main(wanted: list[str]) -> int:
    """Run the benchmarks one after the other; exit status 1 when one of them fails to measure."""
    rows, failed = list[dict[str, object]](), list[str]()
    for name in SCRIPTS:
        if wanted and not any(part in name for part in wanted):
            continue
        before, pace, started = figures.load(), figures.pace(), time.monotonic()
        try:
            module = importlib.import_module(name)
            print(f"{name}: {(module.__doc__ or '').splitlines()[0]}", flush=True)
            fresh = [figure.row(before, pace) for figure in module.measure()]
        except Exception:
            traceback.print_exc()
            failed.append(name)
            continue
        print(f"  {len(fresh)} rows in {time.monotonic() - started:.0f} s", flush=True)
        rows += fresh
        figures.keep(fresh, RESULTS, all_ran=False)
    print(figures.table(rows))
    figures.keep(rows, RESULTS, all_ran=not wanted and not failed)
    if failed:
        print(f"failed: {', '.join(failed)}; their rows are those of before", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
