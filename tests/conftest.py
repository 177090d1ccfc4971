"""What every test shares: how hypothesis behaves on a shared, noisy machine."""

from __future__ import annotations

import os
import sys

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
