# Two commands matter: `make demo` and `make test`. Both make the environment (.venv) first; a second run finds it ready.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help env demo test lint types format clean
help:
	@echo 'make demo    environment, synthetic data, store, a small fine-tuning on the CPU, evaluation'
	@echo 'make test    environment, lint, types, tests'
	@echo 'make format  rewrite the sources as ruff would have them'
	@echo 'make clean   remove the demonstration and the caches, not the environment'

env: $(VENV)/.ready

# sam2 is a source distribution that imports torch while it builds: torch first, then sam2 without build isolation.
$(VENV)/.ready: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo 'env: installing torch, sam2 and the project into $(VENV) (a few minutes, once)'
	@$(PIP) setuptools wheel torch torchvision
	@SAM2_BUILD_CUDA=0 $(PIP) --no-build-isolation sam2
	@SAM2_BUILD_CUDA=0 $(PIP) --no-build-isolation --editable '.[dask,s3,test,tools]'
	@touch $@
