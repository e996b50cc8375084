# Every target stands alone on a fresh machine: it first builds .venv, and again only when
# pyproject.toml or constraints.txt have changed. Needs Linux and Python 3.11 or newer.

VENV ?= .venv
# Another index for torch may be given as PIP_ARGS="--extra-index-url ...".
PIP_ARGS ?=
PYTEST_ARGS ?=
# One more than two cores have work for: tests wait for processes.
PYTEST_WORKERS ?= 3
# Of make fuzz: seconds, or executions of all targets together.
FUZZ_SECONDS ?= 300
FUZZ_RUNS ?= 0
FUZZ_ARGS ?=
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

.PHONY: help install install-dev up demo test test-full fuzz dist bench alerts dashboards protos \
	lint format check-protos check-packages sbom audit lock check-release
.DEFAULT_GOAL := help

help:
	@echo "make up      run a pool on this machine until Ctrl-C"
	@echo "make demo    run a pool, detect on the sample images, end"
	@echo "make test    every check: style, types, contracts, protos, tests (a sample of the long ones)"
	@echo "make test-full  the same with every case of every test"
	@echo "make fuzz    random input for every door, FUZZ_SECONDS=300 or FUZZ_RUNS=1000000"
	@echo "make lint    style, types and contracts only"
	@echo "make bench   the short benchmark"
	@echo "make protos  generate the stubs again from protos/"
	@echo "make alerts  write the rules of Prometheus again from the table of alerts"
	@echo "make dashboards  write the dashboards of Grafana again from their tables"
	@echo "make dist    build the wheel into dist/"
	@echo "make sbom    list the packages that serve, in CycloneDX: dist/yolopool.cdx.json"
	@echo "make audit   look them up among known vulnerabilities (DATABASE=all.zip: without network)"

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

alerts: $(DEV_STAMP)
	$(BIN)/python -c 'from control_plane.alerts import prometheus_file as file, table; \
		print(file.rules_file(table.RULES), end="")' > deploy/prometheus/alerts.yml

dashboards: $(DEV_STAMP)
	$(BIN)/python deploy/grafana/generate.py

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

fuzz: $(DEV_STAMP)
	$(BIN)/python -m benchmarks.fuzz --seconds $(if $(filter-out 0,$(FUZZ_RUNS)),0,$(FUZZ_SECONDS)) \
	--runs $(FUZZ_RUNS) $(FUZZ_ARGS)

# The two wheels that a bare machine installs: pip install -c constraints.txt --find-links dist 'yolopool[all]'
dist: $(STAMP)
	@rm -rf dist
	$(BIN)/python -m pip wheel --disable-pip-version-check --no-deps -w dist $(PIP_ARGS) . $(OPENCV)

sbom: $(DEV_STAMP)
	$(BIN)/python .ci/sbom.py dist/yolopool.cdx.json

audit: $(DEV_STAMP)
	$(BIN)/python .ci/audit.py $(if $(DATABASE),--database $(DATABASE))

# What images install, with hashes, once constraints.txt has changed. TORCH_INDEX: torch for the CPU.
lock: $(DEV_STAMP)
	$(BIN)/python .ci/lock.py $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX))

# BASE and REDIS: the images of a release, by digest.
check-release: $(DEV_STAMP)
	$(BIN)/python .ci/check_release.py $(if $(BASE),--base $(BASE)) $(if $(REDIS),--redis $(REDIS))
