# Countermark. `make demo` and `make test` set up all they need; everything else builds on those two.
#
#   make demo          watch a package travel, and an insider's swap refused (KEEP=1 leaves it running,
#                      RECORD=1 writes what you see to README.md and docs/demo.md)
#   make test          every test that needs no other Python than this one
#   make setup         the programs, in .venv/bin
#   make test-matrix   a real bandersnatch mirrors a registry, and uv audits a lock; needs Python 3.12 or newer beside;
#                      and pip, uv, poetry and pdm in every case of docs/reference/installers.md
#   make client-matrix every upload client at every refusal, on plain HTTP and TLS; prints a table (minutes)
#   make serve         a trial registry, until Ctrl-C (DATA=.work/registry LISTEN=127.0.0.1:8080)
#   make lint          style, types (three platforms for the client), import arrows, documentation
#   make bench         every figure we quote, printed and written to bench/results.json
#   make docs          write the generated pages anew (make lint fails when they are not true)
#   make test-full     make test, and the runs that take minutes
#   make soak          a registry whose processes are killed at random, under load, for SECONDS=600; then an audit
#                      (SOAK_ARGS='--backend "postgresql s3"' or --raw)
#   make lock          write requirements/*.txt anew
#
# PYTHON=python3.12 picks an interpreter for .venv.

PYTHON ?= python3
DATA ?= .work/registry
LISTEN ?= 127.0.0.1:8080
KEEP ?=
RECORD ?=
SECONDS_OF_SOAK := $(or $(SECONDS),600)
PYTEST_ARGS ?=
SOAK_ARGS ?=
# A third of what tests do is wait for a registry: three keep two cores busy. A worker that dies is a failure and ends
# the run, as pytest-xdist may wait for its successor for ever.
WORKERS ?= 3
SPREAD := -n $(WORKERS) --max-worker-restart 0 --dist loadfile --no-loadscope-reorder
BIN := .venv/bin
export PYTHON
# Set in many containers; a registry starts six processes, and each would compile all it imports, a second at a time.
unexport PYTHONDONTWRITEBYTECODE

# Not types-%, a pattern; no file has such a name.
.PHONY: help demo test test-full test-matrix client-matrix soak serve lint style ruff types pages bench docs lock setup setup-dev components clean

help:
	@sed -n '3,19p' Makefile | cut -c3-

setup:
	@scripts/setup.sh run

setup-dev:
	@scripts/setup.sh dev

# Programs of others that tests run for real; fetched once, into .work.
components:
	@scripts/components.sh nginx promtool strace systemd-analyze postgresql gcc spin softhsm ssh chromium axe

demo: setup
	@$(BIN)/python scripts/demo.py $(if $(KEEP),--keep) $(if $(RECORD),--record)

# A file's tests stay on one worker, in their order: a journey tells one story in one registry. The longest files begin
# (tests/conftest.py), so that no worker is left with one at the end.
test: setup-dev components
	@$(BIN)/python -m pytest -q -m "not exhaustive and not matrix" $(SPREAD) $(PYTEST_ARGS)

test-full: setup-dev components
	@$(BIN)/python -m pytest -q -m "not matrix" $(SPREAD) $(PYTEST_ARGS)

# In an environment of its own, of pinned versions; without a newer Python it fails and says so.
test-matrix: setup-dev
	@$(BIN)/python -m pytest -q -m matrix tests/mirrors tests/clients -n $(WORKERS) $(PYTEST_ARGS)

client-matrix: setup-dev components
	@$(BIN)/python -m pytest -q -s tests/clients $(PYTEST_ARGS)

serve: setup
	@$(BIN)/countermark-server up --data "$(DATA)" --listen "$(LISTEN)" --trial

# Side by side: mypy uses one core. A cache for each platform, as one platform's is of no use to another.
lint: setup-dev
	@$(MAKE) --no-print-directory -j 2 --output-sync ruff types types-win32 types-darwin pages

# What `make test` does not repeat.
style: setup-dev
	@$(MAKE) --no-print-directory -j 2 --output-sync ruff types types-win32 types-darwin

ruff:
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types:
	@$(BIN)/mypy client/countermark server/countermark_server keys-ceremony/countermark_ceremony

types-%:
	@$(BIN)/mypy --cache-dir .mypy_cache/$* --platform $* client/countermark

pages:
	@$(BIN)/python -m pytest -q tests/test_architecture.py tests/test_docs.py

soak: setup-dev
	@$(BIN)/python bench/soak.py --seconds $(SECONDS_OF_SOAK) $(SOAK_ARGS)

bench: setup-dev components
	@$(BIN)/python bench/run.py

docs: setup-dev
	@$(BIN)/python scripts/docs.py

lock: setup-dev
	@scripts/lock.sh

clean:
	rm -rf .venv .work .demo
