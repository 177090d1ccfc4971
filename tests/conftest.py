"""What every test shares: how hypothesis behaves on a shared, noisy machine."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

import countermark
import countermark_server
from tests import postgres

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

# Commands import what they need when they are called. A module first imported while a test has put something else in
# the place of what that module imports would keep it for all tests after: so all are imported before the first test,
# but those that are programs and do something at once.
PROGRAMS = (
    "countermark_server.gunicorn_conf",
    "countermark_server.migrations.env",
    "countermark_server.wsgi",
)
for package in (countermark, countermark_server):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if module.name not in PROGRAMS and not module.name.endswith(".__main__"):
            importlib.import_module(module.name)

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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """After a file's last test no database of its worlds is needed."""
    yield
    if (nextitem is None or nextitem.path != item.path) and postgres.server.cache_info().currsize:
        postgres.server().forget()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A failure is named at once: a run that is stopped before its end has said what failed."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\nFAILED in {report.when}: {report.nodeid}", file=sys.__stderr__, flush=True)


@pytest.fixture(autouse=True)
def _no_log_of_earlier_tests() -> Iterator[None]:
    """Who configures the log (a command, run in this process) does so for one test."""
    yield
    structlog.reset_defaults()
