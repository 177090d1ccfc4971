#!/usr/bin/env bash
# Writes requirements/*.txt anew from the pyproject files: hash-pinned, without index addresses.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=$(command -v uv || echo .venv/bin/uv)
export_() { "$uv" export --quiet --frozen --no-header --no-annotate --no-emit-workspace "$@" >/dev/null; }
"$uv" lock --quiet "$@"
export_ --package countermark --no-dev -o requirements/client.txt
# What a container of the service installs: no tool, both databases, both stores; no cloud's client libraries.
export_ --package countermark-server --no-dev --extra postgresql --extra s3 --extra granian --extra tokens \
    -o requirements/server.txt
# The same, for who verifies PEP 740 attestations.
export_ --package countermark-server --no-dev --extra postgresql --extra s3 --extra granian --extra tokens \
    --extra sigstore -o requirements/sigstore.txt
export_ --all-packages --no-dev --group demo -o requirements/run.txt
export_ --all-packages --group dev -o requirements/dev.txt
export_ --only-group bench -o requirements/bench.txt
