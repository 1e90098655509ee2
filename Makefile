# Convoy's commands; `make help` lists them. Everything runs in .venv, installed from the lock files in requirements/.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
RECIPE ?= digits
DATA   ?=
ARGS   ?=

BIN := .venv/bin
UV  := $(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes
export ORT_DISABLE_TELEMETRY := 1
# Without .pyc files, every process compiles the modules of PyTorch again, which doubles its start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## list the targets, the recipes and the options of a run
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12
	@printf '\nRecipes, for make train RECIPE=name; presets and settings: .venv/bin/python -m trainer recipes\n'
	@for file in $(filter-out %/__init__.py %/registry.py,$(wildcard trainer/recipes/*.py)); do \
		name=$$(basename $$file .py); printf '%s\t%s\n' "$${name//_/-}" "$$(sed -n '1s/^r*"""//p' $$file)"; done | expand -t 12
	@printf '\nOptions, for make train ARGS="...":\n'
	@printf '%s\t%s\n' --epochs 'passes over the training images' --max-seconds 'limit of the training time' \
		--seed 'random seed of the run' --set 'any setting, as in --set batch_size=32' --help 'all options' | expand -t 16

.PHONY: train
train: .venv/.trainer ## train a model into artifacts/ (RECIPE=digits DATA=folder ARGS="--epochs 5")
	$(BIN)/python -m trainer train $(RECIPE) $(if $(DATA),--data "$(DATA)") $(ARGS)

.PHONY: serve
serve: .venv/.service ## serve artifacts/ on http://127.0.0.1:8000 (trains the recipe digits first if there is no model)
	@test -n "$${CONVOY_ARTIFACTS:-}" || compgen -G 'artifacts/*/*/manifest.json' >/dev/null || $(MAKE) train
	$(BIN)/python -m service

.PHONY: serve-ray
serve-ray: .venv/.ray ## serve artifacts/ with Ray Serve, on this machine or the cluster of RAY_ADDRESS (ARGS="max_replicas=8")
	PYTHONPATH=. RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=service.ray_serve:middlewares \
		$(BIN)/serve run --route-prefix / service.ray_serve:build $(ARGS)

# A file's tests run in one process, because they share its fixtures.
PYTEST = $(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder --durations 10

.PHONY: test
test: .venv/.dev ## run the tests, except the slow ones (ARGS="-k name")
	$(PYTEST) -m "not slow" $(ARGS)

.PHONY: test-slow
test-slow: .venv/.dev ## run the slow tests: real data sets, several processes, kills, many generated requests
	$(PYTEST) -m slow $(ARGS)

.PHONY: check
check: .venv/.dev ## read-only checks: ruff, mypy --strict, import-linter, openapi.json up to date
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m service.api.export_openapi --check openapi.json

.PHONY: fmt
fmt: .venv/.dev ## format the code and apply ruff's fixes
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

.PHONY: openapi
openapi: .venv/.service ## write openapi.json
	$(BIN)/python -m service.api.export_openapi openapi.json

# One resolution for all: dev.txt contains every package and constrains the other files. uv keeps a locked version while
# it satisfies pyproject.toml.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
          --no-emit-index-url --no-emit-find-links $(ARGS)
.PHONY: lock
lock: $(BIN)/uv ## write the lock files from pyproject.toml (ARGS=--upgrade takes newer releases)
	$(COMPILE) pyproject.toml --extra service --extra trainer --extra otel --extra tune --extra heic --extra tensorboard --extra mlflow --extra wandb --extra clean --extra ray --extra dev -o requirements/dev.txt
	$(COMPILE) pyproject.toml --extra service -c requirements/dev.txt -o requirements/service.txt
	$(COMPILE) pyproject.toml --extra service-cpu -c requirements/dev.txt -o requirements/service-cpu.txt
	$(COMPILE) pyproject.toml --extra trainer -c requirements/dev.txt -o requirements/trainer.txt
	$(COMPILE) pyproject.toml --extra trainer --extra tune --extra heic --extra tensorboard --extra mlflow --extra wandb --extra clean --extra score -c requirements/dev.txt -o requirements/extras.txt
	$(COMPILE) pyproject.toml --extra service --extra trainer --extra ray -c requirements/dev.txt -o requirements/ray.txt
	$(COMPILE) pyproject.toml --extra service --extra otel -c requirements/dev.txt -o requirements/otel.txt
	$(COMPILE) pyproject.toml --extra service --extra cuda -c requirements/dev.txt -o requirements/cuda.txt
	$(COMPILE) pyproject.toml --extra docs -c requirements/dev.txt -o requirements/docs.txt
	echo uv | $(COMPILE) - -o requirements/uv.txt
	grep -o '^onnxruntime==[0-9.]*' requirements/service-cpu.txt | cat benchmarks/serving/peers/requirements.in - | $(COMPILE) - -o requirements/peers.txt
	$(COMPILE) benchmarks/training/requirements.in -o requirements/keras.txt

.PHONY: docs
docs: .venv-docs/.docs ## build the documentation as a site in build/site/ (ARGS=... for mkdocs build)
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet --strict $(ARGS)

.venv-docs/.docs: requirements/docs.txt $(BIN)/uv
	$(PYTHON) -m venv .venv-docs
	$(BIN)/uv pip install --quiet --python .venv-docs/bin/python --require-hashes -r requirements/docs.txt
	@touch $@

.PHONY: bench-train
bench-train: .venv/.trainer .venv-keras/.keras ## compare training with Keras's tutorials, write docs/benchmarks-training.md (DATA=folder)
	$(BIN)/python -m benchmarks.training $(if $(DATA),--data "$(DATA)") $(ARGS)

.venv-keras/.keras: requirements/keras.txt $(BIN)/uv
	$(PYTHON) -m venv .venv-keras
	$(BIN)/uv pip install --quiet --python .venv-keras/bin/python --require-hashes -r requirements/keras.txt
	@touch $@

.PHONY: bench
bench: .venv/.dev .venv-peers/.peers ## compare the service with others, write docs/benchmarks.md (needs wrk, h2load; ARGS="--only small")
	$(BIN)/python -m benchmarks.serving $(if $(DATA),--data "$(DATA)") $(ARGS)
	$(BIN)/python -m benchmarks.scaling

.venv-peers/.peers: requirements/peers.txt $(BIN)/uv
	$(PYTHON) -m venv .venv-peers
	$(BIN)/uv pip install --quiet --python .venv-peers/bin/python --require-hashes -r requirements/peers.txt
	@touch $@

.PHONY: clean
clean: ## remove .venv and the caches; keep artifacts/ and data/
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The file .venv/.NAME marks that requirements/NAME.txt is installed. The lock files agree, so one .venv can hold several.
# Exception: service-cpu.txt, for the CPU image, because onnxruntime must not be installed beside onnxruntime-gpu.
$(BIN)/uv: requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Convoy needs Python 3.11 or newer; name one with make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

.venv/.%: requirements/%.txt $(BIN)/uv
	$(UV) -r requirements/$*.txt
	@touch $@
