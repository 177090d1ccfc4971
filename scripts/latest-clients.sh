#!/usr/bin/env bash
# The client matrix with the newest versions of all upload clients, not the pinned ones (tests/clients/versions.txt).
# Prints what they are: when all pass, these are the next pins.
set -euo pipefail
cd "$(dirname "$0")/.."
COUNTERMARK_CLIENTS=latest exec .venv/bin/python -m pytest -q -s tests/clients "$@"
