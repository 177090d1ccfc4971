"""What every test shares: how hypothesis behaves on a shared, noisy machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

# Processes that tests start are compiled once, as installed programs are, and not at each of a thousand starts.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# No time limits on examples: they would measure what else the machine does. A run that decides whether a change
# lands is repeatable; everybody else's looks at new examples each time.
settings.register_profile(
    "shared",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("CI") == "true",
)
settings.load_profile("shared")

# Whoever runs tests on a desktop keeps their own keyring out of it.
os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.fail.Keyring"

# Minutes each, the longest first; `make test` gives whole files to its workers, in the order of collection.
LONGEST = (
    "journeys/test_tutorials.py",
    "server/log/test_fault_walk.py",
    "server/cli/test_up.py",
    "server/core/test_postgresql.py",
    "server/log/test_rivals.py",
    "journeys/test_soak.py",
    "journeys/test_standby.py",
)
TESTS = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; within a file and among the rest nothing moves."""
    places = {TESTS / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(autouse=True)
def _no_log_of_earlier_tests() -> Iterator[None]:
    """Who configures the log (a command, run in this process) does so for one test."""
    yield
    structlog.reset_defaults()
