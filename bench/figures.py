"""Figures: what a benchmark returns, how it is printed, and how it is kept.

A figure is a list of samples in one unit, with the budget of docs/performance.md where there is one. The machine
and what else ran on it are recorded with every figure: these are shared machines, and ratios travel better than
absolutes. So is how long one Ed25519 check took just before (`pace`): a shared machine is slower in one hour than in
another, and the budgets were set on one where a check takes 65 us.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One measured quantity. `budget` is an upper bound, or a lower bound when `more_is_better`.

    `beside` names a figure of the same unit, taken in the same minutes: how many times as much it is, is what
    travels from one machine to another.
    """

    name: str
    unit: str
    samples: Sequence[float]
    budget: float | None = None
    more_is_better: bool = False
    beside: str | None = None

    @property
    def median(self) -> float:
        """The middle sample."""
        return statistics.median(self.samples)

    @property
    def met(self) -> bool | None:
        """Whether the median keeps the budget; None without a budget."""
        if self.budget is None:
            return None
        return self.median >= self.budget if self.more_is_better else self.median <= self.budget

    def row(self, load: float, pace: float) -> dict[str, object]:
        """The figure as it is kept in results.json; `load` and `pace` as they were before it was measured."""
        row: dict[str, object] = {
            "name": self.name, "unit": self.unit, "median": round(self.median, 4),
            "min": round(min(self.samples), 4), "max": round(max(self.samples), 4), "n": len(self.samples),
            "budget": self.budget, "met": self.met, "machine": machine(), "other_load": round(load, 2),
            "ed25519_check_us": round(pace, 1),
        }  # fmt: skip
        return row if self.beside is None else {**row, "beside": self.beside}


def machine() -> str:
    """What this ran on: cores, system, Python, and the versions that decide the figures."""
    import cryptography
    import tuf

    return (
        f"{os.cpu_count()} cores {platform.machine()}, {platform.system()}, Python {platform.python_version()}, "
        f"cryptography {cryptography.__version__}, tuf {tuf.__version__}"
    )


def load() -> float:
    """Runnable processes a core before we start: what else keeps this machine busy."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def pace() -> float:
    """CPU microseconds of one Ed25519 check, now: how fast this machine happens to be."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key, message = Ed25519PrivateKey.generate(), bytes(600)
    signature, public, spent = key.sign(message), key.public_key(), list[float]()
    for _ in range(5):
        started = time.process_time()
        for _ in range(200):
            public.verify(signature, message)
        spent.append(1e6 * (time.process_time() - started) / 200)
    return statistics.median(spent)


def percentile(samples: Sequence[float], share: float) -> float:
    """The sample below which this share of them lies (nearest rank)."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def table(rows: Sequence[dict[str, object]]) -> str:
    """The rows as a table for people."""
    lines = [f"{'figure':<68} {'median':>10} {'min':>10} {'max':>10} {'n':>6} {'ratio':>6}  budget"]
    medians = {row["name"]: row["median"] for row in rows}
    for row in rows:
        verdict = "" if row["met"] is None else ("met" if row["met"] else "MISSED")
        budget = "" if row["budget"] is None else f"{row['budget']:g} {verdict}"
        lines.append(
            f"{row['name']!s:<54} {row['unit']!s:>13} {row['median']:>10} {row['min']:>10} {row['max']:>10} "
            f"{row['n']:>6} {ratio(row, medians):>6}  {budget}"
        )
    return "\n".join(lines)


def ratio(row: Mapping[str, Any], medians: Mapping[Any, Any]) -> str:
    """How many times the figure beside it this one is; nothing when it stands alone."""
    other = medians.get(row.get("beside"))
    return f"{row['median'] / other:.2f}" if other else ""


def keep(rows: Sequence[dict[str, object]], path: Path, *, all_ran: bool) -> None:
    """Write results.json; rows of benchmarks that did not run this time stay as they were."""
    kept = [] if all_ran or not path.exists() else json.loads(path.read_text("utf-8"))
    fresh = {row["name"] for row in rows}
    merged = [row for row in kept if row["name"] not in fresh] + list(rows)
    merged.sort(key=lambda row: str(row["name"]))
    path.write_text(json.dumps(merged, indent=1) + "\n", encoding="utf-8")
