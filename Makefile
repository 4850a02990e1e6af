# Every target sets up what it needs: a virtual environment in .venv, installed once per change of the pins.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export PYTHONHASHSEED := 0
export TOKENIZERS_PARALLELISM := false
export HF_HUB_DISABLE_TELEMETRY := 1
# Threads that wait for work give way at once: otherwise two jobs side by side slow one another ten-fold.
export GOMP_SPINCOUNT ?= 1000
export PYTHONWARNINGS := ignore::FutureWarning
export COMPENDIUM_STARTED := $(shell date +%s)
PYTHON ?= python3.11
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb notebooks/*/*.ipynb))
PIP := .venv/bin/python -m pip install --quiet --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help repro check verify test outputs book lab

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

repro: .venv/data  ## bring every figure, table and claim up to date; a second time does nothing
	.venv/bin/dvc repro
	@.venv/bin/python -m compendium.compare --scorecard

verify: .venv/data  ## regenerate everything but the pretraining, run the slow tests, compare with what is committed
	.venv/bin/dvc repro --force --single-item $$(.venv/bin/dvc stage list --name-only | grep -vx 04-pretrain)
	.venv/bin/python -m pytest -m slow tests
	.venv/bin/python -m compendium.compare --strict

check: .venv/data  ## make a few units of every expensive stage again (SEED=..., MINUTES=...) and compare them with the tables
	.venv/bin/dvc repro --quiet fetch_model
	.venv/bin/python -m compendium.check $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES))

test: .venv/book  ## unit tests, pipeline tests, and every notebook with its quick defaults
	.venv/bin/dvc repro --quiet fetch_model
	.venv/bin/python -m pytest --numprocesses 2 --dist loadfile

outputs: .venv/ok  ## run every notebook with its quick defaults and store what nbval compares
	.venv/bin/dvc repro --quiet fetch_model
	.venv/bin/python tools/nbtidy.py $(NOTEBOOKS)
	.venv/bin/python tools/quick.py

book: .venv/book  ## the book, from what is committed: build/book/html/index.html
	.venv/bin/python tools/book.py
	@echo "open build/book/html/index.html"

lab: .venv/book  ## open the notebooks in Jupyter
	.venv/bin/dvc repro --quiet fetch_model
	.venv/bin/jupyter lab notebooks

.venv/ok: requirements.txt requirements-rl.txt requirements-tabular.txt requirements-xai.txt requirements-cluster.txt constraints.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not on the PATH: install Python 3.11, or say make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "setting up .venv (2.5 GB, about four minutes) ..."
	$(PYTHON) -m venv .venv
	$(PIP) -r requirements.txt -r requirements-rl.txt -r requirements-tabular.txt -r requirements-cluster.txt
	$(PIP) --no-deps -r requirements-xai.txt
	$(PIP) --no-deps -e .
	@touch $@

.venv/book: .venv/ok requirements-book.txt
	$(PIP) -r requirements-book.txt
	@touch $@

.venv/data: .venv/ok requirements-data.txt
	$(PIP) --no-deps -r requirements-data.txt
	@touch $@
