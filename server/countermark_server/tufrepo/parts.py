"""What this room works with, gathered once (station.py, tests) and handed to who needs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Engine

from countermark.fetch import Fetcher
from countermark.statement import Signer
from countermark.trustfile import TrustFile
from countermark_server.stores.public import Public
from countermark_server.tufrepo.keys import Keys


@dataclass(frozen=True)
class Parts:
    """Collaborators and intervals. Intervals are seconds."""

    engine: Engine
    public: Public
    keys: Keys
    registry: Signer
    trust_file: TrustFile
    timestamper: Fetcher
    timestamper_url: str
    clock: Callable[[], float]
    min_interval: float  # between two publishes
    heartbeat: float  # the oldest a timestamp grows while nothing happens
    retention: float  # for which replaced snapshots and bins stay
