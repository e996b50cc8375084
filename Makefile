# Every target stands alone on a fresh machine: it first builds .venv, and again only when
# pyproject.toml or constraints.txt have changed. Needs Linux and Python 3.11 or newer.

VENV ?= .venv
# Another index for torch may be given as PIP_ARGS="--extra-index-url ...".
PIP_ARGS ?=
PYTEST_ARGS ?=
PYTEST_WORKERS ?= 2
# The build of torch that serves here; which one (CPU or CUDA) is the index's choice.
TORCH := torch==2.13.0 torchvision==0.28.0

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
STUBS = python -m grpc_tools.protoc -Iprotos --python_out=$(1) --grpc_python_out=$(1) \
	--mypy_out=quiet:$(1) --mypy_grpc_out=quiet:$(1) protos/yolopool/v1/*.proto

.PHONY: help install up demo test bench protos lint format check-protos check-packages
.DEFAULT_GOAL := help

help:
	@echo "make up      run a pool on this machine until Ctrl-C"
	@echo "make demo    run a pool, detect on the sample images, end"
	@echo "make test    every check: style, types, contracts, protos, tests"
	@echo "make lint    style, types and contracts only"
	@echo "make bench   the short benchmark"
	@echo "make protos  generate the stubs again from protos/"

$(STAMP): pyproject.toml constraints.txt
	@VENV=$(VENV) sh .ci/make-venv
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt $(PIP_ARGS) \
		-e '.[dev]' $(TORCH)
	@touch $@

install: $(STAMP)

up: $(STAMP)
	$(BIN)/yolopool up

demo: $(STAMP)
	$(BIN)/yolopool demo

bench: $(STAMP)
	$(BIN)/python -m benchmarks.quick

protos: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(call STUBS,.)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check-protos: $(STAMP)
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	PATH="$(CURDIR)/$(BIN):$$PATH" $(call STUBS,"$$folder") && \
	diff -r -x __init__.py -x __pycache__ "$$folder/yolopool/v1" yolopool/v1 || \
	{ echo "yolopool/v1 differs from protos/: run make protos and commit the result" >&2; exit 1; }

check-packages:
	@missing=$$(sh .ci/missing-packages) && { test -z "$$missing" || \
	echo "some tests will be skipped or fail; first: sudo apt-get install" $$missing >&2; }

test: check-packages lint check-protos
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile $(PYTEST_ARGS)
