PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
VLLM := .venv-vllm
PYTEST := $(BIN)/pytest -n 2 --dist loadscope

.PHONY: help setup demo check fix fast test test-all test-long vllm test-vllm coverage bench docs messages schemas pictures clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

setup: $(STAMP) ## a virtual environment in .venv with everything in it

demo: $(STAMP) ## train, register and serve the digits example, and ask it for one
	$(BIN)/python examples/01_digits/demo.py

check: $(STAMP) ## linters, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

fix: $(STAMP) ## what the linter and the formatter mend by themselves
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fast: $(STAMP) ## the tests that need neither Ray nor Kubernetes and take a moment; PYTEST_ARGS are passed on, here and below
	$(PYTEST) --ignore tests/ray --ignore tests/kube -m 'not ray and not kube and not slow and not long' $(PYTEST_ARGS)

test: $(STAMP) ## the tests, in about half an hour
	$(PYTEST) -m 'not minutes and not long' $(PYTEST_ARGS)

test-all: $(STAMP) ## also those that take minutes each
	$(PYTEST) -m 'not long' $(PYTEST_ARGS)

test-long: $(STAMP) ## those that show in one more setting what another test shows too
	$(PYTEST) -m long $(PYTEST_ARGS)

$(VLLM)/.installed: pyproject.toml requirements-vllm.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check --no-deps -r requirements-vllm.txt -e .
	@touch $@

vllm: $(VLLM)/.installed ## a virtual environment in .venv-vllm with vLLM for CPUs

test-vllm: $(VLLM)/.installed ## language models served by a real vLLM
	$(VLLM)/bin/pytest -m long tests/ray/test_llm.py $(PYTEST_ARGS)

coverage: $(STAMP) ## `make test` with a report of the lines that ran, in htmlcov/
	$(PYTEST) -m 'not minutes and not long' --cov --cov-report=term:skip-covered --cov-report=html $(PYTEST_ARGS)

bench: $(STAMP) ## the benchmarks that the docs quote
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/checkpoint.py
	$(BIN)/python benchmarks/recovery.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/render.py
	$(BIN)/python benchmarks/search.py
	$(BIN)/python benchmarks/tuning.py
	$(BIN)/python benchmarks/serving.py

docs: $(STAMP) ## generate docs/config.md, docs/cli.md, docs/lint.md and kuberay/manifests
	$(BIN)/python -m raystack schema --markdown > docs/config.md
	$(BIN)/python -c "from raystack.cli.page import markdown; print(markdown(), end='')" > docs/cli.md
	$(BIN)/python -c "from raystack.kuberay.lint import markdown; print(markdown(), end='')" > docs/lint.md
	$(BIN)/python -m raystack render kuberay/config.yaml "target.cron.schedule='0 3 * * *'" -n default --as all -o kuberay/manifests
	$(BIN)/python -m raystack render kuberay/config.yaml -n default --as role > kuberay/role.yaml
	$(BIN)/python -m raystack render kuberay/tuning.yaml -n default --as tune -o kuberay/manifests
	$(BIN)/python -m raystack render kuberay/tuning.yaml tuning=median -n default --as katib -o kuberay/manifests

messages: $(STAMP) ## compile the messages of the protocol over gRPC
	cd raystack/serving/grpc && $(abspath $(BIN))/python -m grpc_tools.protoc -I. --include_imports \
		--descriptor_set_out=messages.binpb inference.proto health.proto

schemas: $(STAMP) ## derive the schemas of KubeRay's kinds from CRDS=FOLDER with its CRDs
	$(BIN)/python tests/unit/kuberay/schemas.py $(CRDS)

pictures: $(STAMP) ## take the pictures in docs/pictures; needs chromium
	$(BIN)/python docs/pictures.py

clean: ## remove what was built and downloaded here
	rm -rf $(VENV) $(VLLM) .demo dist htmlcov .coverage* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
