# make demo: a real model, a real server, a proof.   make test: all tests but the slow ones.   make help: the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := build/demo
# Servers and other isolated environments live here; set REPO_BUILDER_CACHE to share them between checkouts.
export REPO_BUILDER_CACHE ?= $(CURDIR)/build/toolchains
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONDONTWRITEBYTECODE := 1
# PyTorch's CPU wheels, taken where this index answers; TORCH_INDEX= (empty) takes torch from the default index.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: help demo demo-llm test test-slow lint bench example docs architectures errors onnx-suite clean

help:
	@echo "make demo       convert all-MiniLM-L6-v2, serve it, prove it; the report is $(DEMO)/report.json"
	@echo "make demo-llm   SmolLM2-135M-Instruct by vLLM on the CPU: prove it, stream answers; ENGINE=tensorrt-llm|llmapi for the others"
	@echo "make test       unit, golden, contract and integration tests"
	@echo "make test-slow  the slow tests"
	@echo "make lint       ruff, mypy, import-linter"
	@echo "make bench      build time, no-op rebuild, served throughput"
	@echo "make example    write model_repository/ anew"
	@echo "make docs       write the generated pages of docs/ anew"
	@echo "make architectures  build, serve and prove every architecture with every task: docs/architectures.md"
	@echo "make errors     a model of every format, real weights among them: the table in docs/frameworks.md"
	@echo "make onnx-suite  every node case of ONNX's own tests, built and served: docs/onnx-suite.md"
	@echo "make clean      remove build/ and .venv/"

$(VENV)/ready: scripts/environment.py constraints.txt pyproject.toml
	@$(PYTHON) scripts/environment.py $(VENV) --torch-index "$(TORCH_INDEX)"

demo: $(VENV)/ready
	@$(BIN)/python scripts/demo.py $(DEMO)

demo-llm: $(VENV)/ready
	@$(BIN)/python scripts/smollm2.py build/smollm2
	@$(BIN)/python scripts/demo_llm.py build/smollm2 build/demo-llm $(or $(ENGINE),vllm)

test: $(VENV)/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not gpu" $(ARGS)

test-slow: $(VENV)/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m slow $(ARGS)

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/ready
	@$(BIN)/python benchmarks/bench.py

example: $(VENV)/ready
	@$(BIN)/python scripts/example.py

docs: $(VENV)/ready
	@$(BIN)/python scripts/generate_docs.py

architectures: $(VENV)/ready
	@$(BIN)/python scripts/architectures.py $(ARGS)

errors: $(VENV)/ready
	@$(BIN)/python scripts/error_table.py $(ARGS)

onnx-suite: $(VENV)/ready
	@$(BIN)/python scripts/onnx_suite.py $(ARGS)

clean:
	rm -rf build .venv
