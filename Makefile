# Every command that people and CI run. `make` alone lists them.
PYTHON ?= python3
export PYTHON
export NO_MKDOCS_2_WARNING = 1
LOCK = .venv/bin/uv pip compile --universal --python-version 3.11 --generate-hashes \
	--quiet --no-emit-index-url --no-emit-find-links --no-annotate \
	--custom-compile-command "make lock" $(UPGRADE)
PROJECT = pyproject.toml --extra standalone --extra postgres

.PHONY: help setup demo test test-servers lint format docs cookbook lock topology-definitions bench \
	bench-delay chaos

help:
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 28

setup: ## .venv with all packages, those of the tests included (PYTHON=python3.12: another Python)
	@deploy/setup.sh venv

demo: ## everything in the foreground, a private RabbitMQ included; Ctrl-C stops it
	@deploy/setup.sh demo
	@exec .venv/bin/python -m deploy.demo

test: ## every check and every test, with what they need (RabbitMQ, PostgreSQL, Chromium)
	@deploy/setup.sh test
	@$(MAKE) --no-print-directory lint
	.venv/bin/pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder

test-servers: ## jobs on real servers, which pip installs: Flower with Celery, Scrapyd, pygeoapi
	@deploy/setup.sh servers
	.venv/bin/pytest tests/servers

chaos: ## kill, stop and freeze everything, then count what was lost (SEED=1 SECONDS=120)
	@deploy/setup.sh test
	.venv/bin/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS))

lint: setup ## format, lint, types, one-way imports, declared dependencies, the docs
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	DEBUG=1 .venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/deptry broker consumers site deploy
	.venv/bin/deptry tests --exclude tests/embedded/host --ignore DEP002,DEP004
	.venv/bin/mkdocs build --strict --quiet

docs: setup ## the documentation on http://127.0.0.1:8010, built anew at each change
	.venv/bin/mkdocs serve --dev-addr 127.0.0.1:8010

cookbook: setup ## docs/cookbook.md from the recipes of the package
	.venv/bin/python -m deploy.cookbook

format: setup ## let ruff format and mend what it can
	.venv/bin/ruff format
	.venv/bin/ruff check --fix

lock: setup ## the lock files from pyproject.toml (UPGRADE=--upgrade: newest versions)
	$(LOCK) $(PROJECT) --group demo --output-file requirements.txt
	$(LOCK) $(PROJECT) --group dev --constraint requirements.txt --output-file requirements-dev.txt
	$(LOCK) $(PROJECT) --group bench --constraint requirements.txt --output-file requirements-bench.txt
	$(LOCK) --group servers --output-file requirements-servers.txt

topology-definitions: setup ## deploy/rabbitmq/definitions.json from the topology
	@export RABBITMQ_WEB_PASSWORD="$${RABBITMQ_WEB_PASSWORD:-web-demo}" \
		RABBITMQ_WORKER_PASSWORD="$${RABBITMQ_WORKER_PASSWORD:-worker-demo}" \
		RABBITMQ_OPERATOR_PASSWORD="$${RABBITMQ_OPERATOR_PASSWORD:-operator-demo}"; \
	DEBUG=1 .venv/bin/python manage.py topology --definitions \
		> deploy/rabbitmq/definitions.json.new && \
	mv deploy/rabbitmq/definitions.json.new deploy/rabbitmq/definitions.json

bench: ## how fast it is, beside the alternatives (BENCH="--quick poll_sqlite celery_eta"; --help)
	@deploy/setup.sh test
	.venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes \
		-r requirements-bench.txt
	.venv/bin/python -m tests.bench $(BENCH)

bench-delay: setup ## how late mixed delays are on a private RabbitMQ: prints a table
	@deploy/setup.sh demo
	.venv/bin/python -m tests.bench.bench_delay
