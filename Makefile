# The main commands are `make demo` and `make test`. Both first make the environment (.venv), unless it is ready.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
PIP_OF = .venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-$*.txt
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# Containers often set this variable. Without compiled files, each process of the tests compiles all modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help env demo test lint types format constraints licenses audit test-faults test-slow test-soak test-oldest test-newest same-as clean
help:
	@echo 'make demo             environment, synthetic data, store, a small fine-tuning on the CPU, evaluation'
	@echo 'make test             environment, lint, types, tests'
	@echo 'make test-slow        tests of compiled models, killed processes and unusual machines (ten minutes)'
	@echo 'make test-faults      long tests of kills, full disks, dead servers and hostile files (half an hour)'
	@echo 'make test-soak        memory stays flat over 20,000 samples (ten minutes)'
	@echo 'make test-oldest      tests with the lower bounds of pyproject.toml'
	@echo 'make test-newest      tests with the newest versions'
	@echo 'make same-as REV=...  compare stores, losses and scores with those of a revision'
	@echo 'make format           format the sources with ruff'
	@echo 'make audit            look up known vulnerabilities of the pinned versions (needs network)'
	@echo 'make licenses         write docs/dependencies.md'
	@echo 'make constraints      pin the versions again'
	@echo 'make clean            remove the demonstration and the caches, not the environment'

env: $(VENV)/.ready

# sam2 is a source distribution that imports torch while it builds. So torch is installed first, then sam2 without build
# isolation, and only from the archive with the known hash.
$(VENV)/.ready: pyproject.toml constraints.txt requirements-sam2.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo 'env: installing torch, sam2 and the project into $(VENV) (a few minutes, once)'
	@$(PIP) setuptools wheel torch torchvision
	@SAM2_BUILD_CUDA=0 $(PIP) --no-build-isolation --no-deps --require-hashes --requirement requirements-sam2.txt
	@SAM2_BUILD_CUDA=0 $(PIP) --no-build-isolation --editable '.[dask,lora,s3,slides,small,test,tools]'
	@touch $@

# Adapt the small start of this project, which knows synthetic tissue of many looks, to glands that it has never seen.
demo: env $(DEMO)/evaluation/metrics.json
	@echo
	@echo 'checkpoint  $(DEMO)/run/checkpoints/best.pt'
	@echo 'numbers     $(DEMO)/evaluation/metrics.json'
	@echo 'report      $(DEMO)/evaluation/report.html'
	@echo 'picture     $(DEMO)/evaluation/overlays.png'

$(DEMO)/evaluation/metrics.json:
	rm -rf $(DEMO)
	$(BIN)/bcss-prep sample $(DEMO)/data --look glands --rois 18 --size 768
	$(BIN)/bcss-prep build $(DEMO)/data --out $(DEMO)/bcss.zarr --size 256 --objects component --classes tumor
	$(BIN)/bcss-train fit $(DEMO)/bcss.zarr --out $(DEMO)/run --init nano --image-size 128 --batch-size 8 --max-objects 8 \
		--max-steps 150 --epochs 1000 --lr 3e-4 --vision-lr 3e-4 --ema 0.98 --device cpu --workers 1
	$(BIN)/bcss-train evaluate $(DEMO)/bcss.zarr --checkpoint $(DEMO)/run/checkpoints/best.pt \
		--device cpu --out $(DEMO)/evaluation

# Types are checked beside the tests; what is found is printed after them.
test: lint
	@$(BIN)/pyright >$(VENV)/types.log & types=$$!; trap "kill $$types" INT TERM; \
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal; tests=$$?; \
	wait $$types; types=$$?; cat $(VENV)/types.log; exit $$((tests ? tests : types))

# Check for ten minutes that memory and descriptors stay flat: 20,000 samples, 500 steps, 200 steps of two processes.
test-soak: env
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s -m slow -o faulthandler_timeout=0 tests/integration/test_soak.py

# Test with the lower bounds of pyproject.toml on Python 3.11, or with the newest versions on 3.12 or later
# (PYTHON=python3.13). Each makes its own environment of 3 GB.
test-oldest: .venv-oldest/.ready
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -W ignore::DeprecationWarning tests/schemas tests/prep tests/train

test-newest: .venv-newest/.ready
	OMP_NUM_THREADS=1 .venv-newest/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

.venv-oldest/.ready .venv-newest/.ready: .venv-%/.ready: pyproject.toml constraints-%.txt requirements-sam2.txt
	@test -x .venv-$*/bin/python || $(PYTHON) -m venv .venv-$*
	@$(PIP_OF) 'setuptools>=77' wheel torch torchvision
	@SAM2_BUILD_CUDA=0 $(PIP_OF) --no-build-isolation --no-deps --require-hashes --requirement requirements-sam2.txt
	@SAM2_BUILD_CUDA=0 $(PIP_OF) --no-build-isolation --editable '.[dask,lora,s3,slides,small,test]'
	@touch $@

# Tests that take long: compiled models beside plain ones, and starts of many processes.
test-slow: env
	$(BIN)/python -m pytest -m 'slow and not cuda' --ignore tests/integration/test_soak.py tests

test-faults: env
	$(BIN)/python -m pytest tests/faults -m 'not cuda' -o faulthandler_timeout=0 --numprocesses auto --maxprocesses 4 --dist worksteal

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Data, stores, runs and scores of another revision and of the checkout, compared bit by bit: three minutes.
same-as: env
	$(BIN)/python -m tests.tools.same_as $(REV)

types: env
	$(BIN)/pyright

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: env
	@{ sed -n 1p constraints.txt; $(BIN)/python -m pip freeze --exclude-editable; } > constraints.new
	@mv constraints.new constraints.txt

licenses: env
	$(BIN)/python docs/licenses.py

# The tool has its own environment, so that its dependencies are not audited.
audit: env
	@test -x $(VENV)/audit/bin/pip-audit || { $(BIN)/python -m venv $(VENV)/audit && $(VENV)/audit/bin/pip install --quiet pip-audit; }
	$(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

clean:
	rm -rf $(DEMO) build dist .pytest_cache .ruff_cache .hypothesis
