# The one entry to every routine task; `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
# Address of a package index to take torch from, where pip's own does not hold the right build.
TORCH_INDEX_URL ?=
# Empty is livestar-mini, which comes with the package.
MODEL ?=
VIDEO ?= livestar/assets/scripted_room
WATCH_ARGS ?=
PYTEST_ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.livestar-installed
TORCH := $(shell sed -n '/^torch==/p' constraints.txt)
HAS_GPU = $(shell nvidia-smi -L >/dev/null 2>&1 && echo 1)
PIP_TORCH = $(BIN)/pip install --quiet --no-deps $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) $(TORCH)
# mypy refuses a folder without Python in it, and git keeps no empty folders.
TYPED := $(foreach d,livestar deployments router storage training benchmarks examples tests,$(if $(shell find $(d) -name '*.py' 2>/dev/null),$(d)))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup hooks watch mini test test-gpu check format bench constraints clean

help: ## List what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## Create .venv with pinned dependencies and the livestar command

define CHECK_PYTHON
import sys
if sys.version_info < (3, 11):
    sys.exit("LiveStar needs Python 3.11 or newer, this is %d.%d: make setup PYTHON=python3.11" % sys.version_info[:2])
endef

# Reads pip's report on what it would install, so that gigabytes of CUDA are refused before they are fetched.
define CHECK_TORCH_CHOICE
import json, sys
report = json.load(open(sys.argv[1]))
needs = [need for item in report["install"] for need in item["metadata"].get("requires_dist", [])]
if sys.platform == "linux" and any(need.startswith(("nvidia-", "cuda-")) for need in needs):
    sys.exit("No NVIDIA GPU here, yet pip would install the CUDA build of torch, several GB.\n"
             "Give the index of the CPU builds, as PyTorch's install page names it:\n"
             "  make setup TORCH_INDEX_URL=<address of the CPU index>")
endef

define CHECK_TORCH_BUILD
import sys, torch
gpu = sys.argv[1] == "1"
print("torch", torch.__version__, "on", "GPU" if gpu else "CPU")
if torch.version.cuda and not gpu:
    sys.exit("torch is a CUDA build, yet there is no NVIDIA GPU here: make clean, then\n"
             "  make setup TORCH_INDEX_URL=<address of PyTorch's CPU index>")
if gpu and not torch.version.cuda:
    print("WARNING: torch is a CPU build, so the GPU stays idle: make clean, then\n"
          "  make setup TORCH_INDEX_URL=<address of PyTorch's CUDA index>", file=sys.stderr)
endef
export CHECK_PYTHON CHECK_TORCH_CHOICE CHECK_TORCH_BUILD

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "No $(PYTHON) here: make setup PYTHON=<python 3.11 or newer>" >&2; exit 1; }
	@$(PYTHON) -c "$$CHECK_PYTHON"
	$(PYTHON) -m venv $(VENV)
	$(if $(HAS_GPU),,$(PIP_TORCH) --dry-run --report $(VENV)/torch.json && $(BIN)/python -c "$$CHECK_TORCH_CHOICE" $(VENV)/torch.json)
	$(PIP_TORCH)
	$(BIN)/pip install --quiet -c constraints.txt setuptools
	$(BIN)/pip install --quiet -c constraints.txt --no-build-isolation -e '.[dev]'
	@$(BIN)/python -c "$$CHECK_TORCH_BUILD" "$(HAS_GPU)"
	@touch $@

hooks: $(STAMP) ## Run the checks before every commit of this clone
	$(BIN)/pre-commit install

models/demo/config.json: | $(STAMP)
	$(BIN)/livestar demo-checkpoint models/demo

watch: $(STAMP) $(if $(filter models/demo,$(MODEL)),models/demo/config.json) ## Watch what ships; MODEL=, VIDEO=, WATCH_ARGS=
	$(BIN)/livestar watch $(VIDEO) $(if $(MODEL),--model $(MODEL)) $(WATCH_ARGS)

mini: $(STAMP) ## Rebuild livestar-mini from nothing, in build/mini; takes hours
	$(BIN)/python -m training.mini rebuild --to build/mini

test: $(STAMP) ## Run every test that this machine can run; PYTEST_ARGS=
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-gpu: $(STAMP) ## Run the GPU tests; without a GPU they fail instead of being skipped
	LIVESTAR_REQUIRE_GPU=1 $(BIN)/python -m pytest -m gpu $(PYTEST_ARGS)

check: $(STAMP) ## Format, lint, types and dependency rules, as CI and the hooks run them
	@failed=; run() { echo "$$*"; "$$@" || failed=1; }; \
	run $(BIN)/ruff format --check .; \
	run $(BIN)/ruff check .; \
	run $(BIN)/mypy $(TYPED); \
	run $(BIN)/lint-imports; \
	test -z "$$failed"

format: $(STAMP) ## Format the code and apply the lint fixes that are safe
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

constraints: $(STAMP) ## Write what .venv holds now to constraints.txt
	@{ sed -n '/^#/p' constraints.txt; \
	   $(BIN)/pip freeze --all --exclude-editable | sed -E 's/\+[a-z0-9.]+$$//' \
	   | grep -Ev '^(pip|wheel|torchvision|torchaudio|triton|nvidia-.*|cuda-.*)==| @ ' | LC_ALL=C sort -f; } > constraints.new
	@mv constraints.new constraints.txt

clean: ## Remove .venv, build, the demo checkpoint and what the tools leave behind
	rm -rf $(VENV) build dist models/demo constraints.new *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

bench: $(STAMP) ## Measure speed and a long life; results go to benchmarks/results
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.long_life
