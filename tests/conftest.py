"""What every test shares: how hypothesis behaves on a shared, noisy machine."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

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
