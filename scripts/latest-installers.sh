#!/usr/bin/env bash
# The matrix of installers with the newest versions, not the pinned ones (tests/clients/versions.txt). Prints it: each
# cell says whether the file was installed, and the program's exit code. What must not be is named at the end (exit 1).
set -euo pipefail
cd "$(dirname "$0")/.."
COUNTERMARK_CLIENTS=latest exec .venv/bin/python -m tests.clients.installing "$@"
