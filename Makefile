# Every target stands alone on a fresh machine: it first builds .venv, and again only when
# pyproject.toml or constraints.txt have changed. Needs Linux and Python 3.11 or newer.

VENV ?= .venv
# Another index for torch may be given as PIP_ARGS="--extra-index-url ...".
PIP_ARGS ?=
PYTEST_ARGS ?=
# One more than two cores have work for: tests wait for processes.
PYTEST_WORKERS ?= 3
# The build of torch that serves here; which one (CPU or CUDA) is the index's choice.
TORCH := torch==2.13.0 torchvision==0.28.0

# What serving needs; the checks need the extra `dev` beside it, in the same venv.
SERVING := all,onnx,openvino
# In the name of opencv-python, the OpenCV that needs no package of the host: see its pyproject.toml.
OPENCV := ./.ci/opencv-python

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
PINS := pyproject.toml constraints.txt .ci/opencv-python/pyproject.toml
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt $(PIP_ARGS)
STUBS = python -m grpc_tools.protoc -Iprotos --python_out=$(1) --grpc_python_out=$(1) \
	--mypy_out=quiet:$(1) --mypy_grpc_out=quiet:$(1) \
	--descriptor_set_out=$(1)/yolopool/v1/comments.binpb --include_source_info \
	protos/yolopool/*/*.proto

.PHONY: help install install-dev up demo test test-full dist bench protos lint format check-protos \
	check-packages
.DEFAULT_GOAL := help

help:
	@echo "make up      run a pool on this machine until Ctrl-C"
	@echo "make demo    run a pool, detect on the sample images, end"
	@echo "make test    every check: style, types, contracts, protos, tests (a sample of the long ones)"
	@echo "make test-full  the same with every case of every test"
	@echo "make lint    style, types and contracts only"
	@echo "make bench   the short benchmark"
	@echo "make protos  generate the stubs again from protos/"
	@echo "make dist    build the wheel into dist/"

$(STAMP): $(PINS)
	@VENV=$(VENV) sh .ci/make-venv
	$(PIP_INSTALL) -e '.[$(SERVING)]' $(OPENCV) $(TORCH)
	@touch $@

$(DEV_STAMP): $(STAMP)
	$(PIP_INSTALL) -e '.[$(SERVING),dev]' $(OPENCV) $(TORCH)
	@touch $@

install: $(STAMP)

install-dev: $(DEV_STAMP)

up: $(STAMP)
	$(BIN)/yolopool up

demo: $(STAMP)
	$(BIN)/yolopool demo

bench: $(DEV_STAMP)
	$(BIN)/python -m benchmarks.quick

protos: $(DEV_STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(call STUBS,.)

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/check_structure.py

format: $(DEV_STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check-protos: $(DEV_STAMP)
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	PATH="$(CURDIR)/$(BIN):$$PATH" $(call STUBS,"$$folder") && \
	for stubs in v1 kserve; do \
	diff -r -x __init__.py -x __pycache__ "$$folder/yolopool/$$stubs" "yolopool/$$stubs" || \
	{ echo "yolopool/$$stubs differs from protos/: run make protos and commit the result" >&2; \
	exit 1; }; done

check-packages:
	@missing=$$(sh .ci/missing-packages) && { test -z "$$missing" || \
	echo "some tests will be skipped; for all of them: sudo apt-get install" $$missing >&2; }

test: check-packages lint check-protos
	$(BIN)/python .ci/suite.py $(PYTEST_WORKERS) $(PYTEST_ARGS)

test-full: check-packages lint check-protos
	$(BIN)/python .ci/suite.py $(PYTEST_WORKERS) --full $(PYTEST_ARGS)

# The two wheels that a bare machine installs: pip install -c constraints.txt --find-links dist 'yolopool[all]'
dist: $(STAMP)
	@rm -rf dist
	$(BIN)/python -m pip wheel --disable-pip-version-check --no-deps -w dist $(PIP_ARGS) . $(OPENCV)
