# The commands of this project. `make demo` and `make test` are the two that matter.
# Every target installs what it needs into .venv first, and re-uses it while
# pyproject.toml and constraints.txt stay as they are.

BIN := .venv/bin
SPECS := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-long test-cluster lint format chaos chaos-cluster interop gpu-check bench-env bench clean

help: ## Show these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/installed-demo: $(SPECS)
	@.ci/run install demo

.venv/installed-test: $(SPECS)
	@.ci/run install test

demo: .venv/installed-demo ## Run the whole life of a model on real digits
	@$(BIN)/penstock demo

test: .venv/installed-test ## Run the whole test suite
	@.ci/run test

test-long: .venv/installed-test ## Run the tests that take long and have a shorter sister in the suite
	@.ci/run long

lint: .venv/installed-test ## Check style, types and floors
	@.ci/run lint

format: .venv/installed-test ## Rewrite files in our style
	$(BIN)/ruff format src tests benchmarks examples
	$(BIN)/ruff check --fix

test-cluster: .venv/installed-test ## Run what takes a cluster of Ray or Spark for long (needs root and Java)
	$(BIN)/python -m pytest -q -p no:xdist -m "cluster and not slow" tests

chaos: .venv/installed-test ## Kill at random points for long (PENSTOCK_CHAOS_SEED=N repeats a run)
	$(BIN)/python -m pytest -q -s -p no:xdist -m "slow and not ray" --timeout=1800

chaos-cluster: .venv/installed-test ## The same on a cluster of hosts in namespaces, with PostgreSQL and S3 (needs root)
	$(BIN)/python -m pytest -q -s -p no:xdist -m "slow and ray" tests/training/test_chaos_cluster.py

.venv-interop/installed-interop: $(SPECS)
	@.ci/run install interop .venv-interop

interop: .venv-interop/installed-interop ## Run the tests beside Lightning, Accelerate, Hugging Face datasets, MLflow, W&B and Ray's jobs
	.venv-interop/bin/python -m pytest -q -p no:xdist -m interop tests/data tests/training tests/signals

# GPU_PYTHON=/path/to/python: an environment that is there already, where nothing can be installed.
gpu-check: $(if $(GPU_PYTHON),,.venv/installed-test) ## Check what only a GPU can show, with a table of figures
	@$(or $(GPU_PYTHON),$(BIN)/python) tests/gpu/check.py --json $(or $(JSON),gpu-check.json)

bench-env: .venv/installed-test ## Make the environments that the benchmarks' peers live in
	$(BIN)/python -m benchmarks --make-environments

bench: .venv/installed-test ## Run every benchmark beside its peers
	$(BIN)/python -m benchmarks all

clean: ## Remove environments and caches; homes (.penstock) stay
	rm -rf .venv .venv-interop .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
