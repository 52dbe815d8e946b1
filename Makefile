# SeqBench. `make quickstart` and `make test` need Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
VENV   ?= .venv
PY     := $(VENV)/bin/python
export TOKENIZERS_PARALLELISM = false

.PHONY: help quickstart install-dev test test-slurm test-cuda check unit fmt clean
help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/run.done: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	@echo "Installing the pinned set into $(VENV) (a few minutes, once)"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --quiet --disable-pip-version-check -r requirements.txt
	@$(PY) -m pip install --quiet --quiet --disable-pip-version-check --no-deps --no-build-isolation --config-settings editable_mode=compat -e .
	@touch $@

$(VENV)/dev.done: requirements-dev.txt $(VENV)/run.done
	@$(PY) -m pip install --quiet --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

quickstart: $(VENV)/run.done  ## install, run the default study, write reports/quickstart/index.html
	$(PY) scripts/train.py -m study=quickstart
	$(PY) scripts/leaderboard.py study=quickstart

install-dev: $(VENV)/dev.done  ## install what tests need, run nothing

test: $(VENV)/dev.done  ## all tests
	$(PY) -m pytest -n 2

# tests/runs (whole runs, processes, sweeps) and tests/contract (everything configured) are left to `make test`
check: $(VENV)/dev.done  ## lint, types, fast unit tests
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy --num-workers 2
	$(PY) -m pytest -n 2 -m "not slow and not data and not browser and not slurm" tests/encoders tests/tasks tests/seqbench

# apt's package, where it is missing and root may; without it the tests are skipped, visibly
test-slurm: $(VENV)/dev.done  ## sweeps on a SLURM of two nodes, started on this machine and stopped again
	@command -v slurmctld >/dev/null || [ -x /usr/sbin/slurmctld ] || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null \
	  || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null; }
	$(PY) -m pytest -m slurm -rs tests/slurm

test-cuda: $(VENV)/dev.done  ## what needs CUDA, on a machine with a GPU; skipped elsewhere
	$(PY) -m pytest -m cuda -rs

unit: $(VENV)/dev.done  ## fast tests only
	$(PY) -m pytest -n 2 -m "not slow and not browser and not slurm"

fmt: $(VENV)/dev.done  ## format and mend what ruff can
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

clean:           ## remove caches and reports; records stay
	rm -rf reports .mypy_cache .ruff_cache .pytest_cache
