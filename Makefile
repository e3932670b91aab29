# `make demo` and `make test` need Python 3.10 or newer with its venv module; all else is installed into .venv.
#
#   make test                     the tested set of constraints.txt
#   make test TORCH=              keep the torch that the system's Python already has (a CUDA or ROCm build)
#   make test TORCH=torch==2.11.0 install another one
#   make test PYTHON=python3.12   choose the interpreter
#   make test ARGS="-k delta"     arguments for pytest
#   make bench-gpu                checks and times on a GPU (benchmarks/README.md)

PYTHON ?= $(shell for p in python3.11 python3 python3.13 python3.12 python3.10; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo "$$p" && break; done)
PINNED := torch==2.13.0
TORCH ?= $(PINNED)
WORKERS ?= 2
ARGS ?=
BIN := .venv/bin
INSTALLED := .venv/.installed

BENCH ?= $(if $(wildcard $(INSTALLED)),$(BIN)/python,python3)

.PHONY: demo test lint types tree format clean bench-gpu

demo: $(INSTALLED)
	$(BIN)/python examples/demo.py

test: $(INSTALLED)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

lint: $(INSTALLED) types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED) tree
	$(BIN)/mypy

# The package as it is imported, in links: for mypy, which does not know setuptools' package-dir, and for machines on
# which nothing is to be installed.
tree:
	rm -rf build/typed
	mkdir -p build/typed/recurra
	ln -s $(CURDIR)/recurra/* $(CURDIR)/dsl $(CURDIR)/compiler $(CURDIR)/codegen_templates $(CURDIR)/runtime \
		build/typed/recurra/

# Takes the Python that has a torch for the GPU (BENCH=python3.12) and installs nothing: see benchmarks/README.md.
bench-gpu: tree
	PYTHONPATH=$(CURDIR)/build/typed$(if $(PYTHONPATH),:$(PYTHONPATH)) $(BENCH) benchmarks/gpu.py $(ARGS)

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# With another torch than the tested one, what belongs to it is not pinned.
$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Recurra needs Python 3.10 or newer with venv (Debian: apt install python3-venv)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(if $(TORCH),,--system-site-packages) .venv
	@grep -v $(if $(filter $(PINNED),$(TORCH)),'^$$','^torch==\|^triton==\|^numpy==') constraints.txt > .venv/constraints.txt
	@echo "Installing into .venv; torch is large, this can take some minutes."
	@$(if $(TORCH),$(BIN)/python -m pip install -q -c .venv/constraints.txt "$(TORCH)")
	@$(BIN)/python -m pip install -q -c .venv/constraints.txt -e '.[test,plot]'
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
