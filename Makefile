# What a newcomer types. Every target makes or updates .venv first.

PYTHON ?= python3
BIN := .venv/bin
DATA ?=
EMBEDDER ?=

TITLES ?=
TEXTS ?=

.PHONY: demo test test-deploy deploy-files lock licences audit sbom crash fuzz soak label-studio lint format proto docs bench-scheduler bench-scheduler-quick bench-index bench-index-quick bench-peers bench-learner bench-learner-quick bench-learning install clean help

help:  ## Say what can be typed
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | sort | expand -t 12

demo: install  ## Run a real campaign to its end: handwritten digits, or DATA=labelled texts [EMBEDDER=encoder]
	@$(BIN)/sealpool demo $(if $(DATA),--data "$(DATA)") $(if $(EMBEDDER),--embedder "$(EMBEDDER)")

# Whole files to a worker, in their order: the slow ones, with processes to start, come first. One thread each, or torch's
# would fight over the cores.
test: install  ## Run the test suite, all but test-deploy [WORKERS=2]
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(or $(WORKERS),2) --dist loadfile --no-loadscope-reorder --ignore tests/deploy

test-deploy: install  ## Check what is under deploy/: manifests, images, rules, boards, rolling restarts [RESTARTS=20]
	OMP_NUM_THREADS=1 SEALPOOL_RESTARTS=$(or $(RESTARTS),20) $(BIN)/python -m pytest --numprocesses $(or $(WORKERS),2) \
		--dist loadfile --timeout 1200 tests/deploy

deploy-files: install  ## Write the dashboards and the rules' Kubernetes objects from deploy/
	$(BIN)/python -m deploy.generate

crash: install  ## Cut power 2,000 times, kill the index server 200 times at every named point, the scheduler 200 at any
	SEALPOOL_POWER_CUTS=1000 SEALPOOL_POWER_CUT_SEEDS=2 SEALPOOL_KILLS=200 $(BIN)/python -m pytest --timeout 1800 \
		tests/crash/index_server tests/crash/scheduler/test_kills_at_random_points.py

fuzz: install  ## Send 20,000 changed requests to every call of the index server
	SEALPOOL_FUZZ_REQUESTS=20000 $(BIN)/python -m pytest --timeout 1800 -s tests/fuzz

soak: install  ## Put mixed load on the index server for half an hour [MINUTES=2]
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),30)

lint: install  ## Check style, types, imports between rooms, and that the stubs are fresh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python proto/generate.py --check
	$(BIN)/python docs/generate.py --check
	$(BIN)/python -m deploy.generate --check

format: install  ## Put the code into the house's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: install  ## Write sealpool/v1 from proto/
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python proto/generate.py

docs: install  ## Write docs/settings.md and docs/metrics.md from the code
	$(BIN)/python docs/generate.py

bench-index: install  ## Measure the index server at a million items: an hour; TITLES=texts to embed, as JSON lines
	$(BIN)/python -m benchmarks.index $(if $(TITLES),--titles "$(TITLES)")

bench-index-quick: install  ## The same on a tenth of the data, in under three minutes
	$(BIN)/python -m benchmarks.index --quick $(if $(TITLES),--titles "$(TITLES)")

bench-peers: install  ## Measure other vector services on the same vectors, each in an environment of its own
	PYTHON="$(PYTHON)" sh benchmarks/peers/install.sh
	$(BIN)/python -m benchmarks.peers

bench-learner: install  ## Measure the learner at a million candidates, beside its peers; TEXTS=texts to embed, as JSON lines
	$(BIN)/python -m benchmarks.learner $(if $(TEXTS),--texts "$(TEXTS)")

bench-learner-quick: install  ## The same on a tenth of the data, in under three minutes
	$(BIN)/python -m benchmarks.learner --quick $(if $(TEXTS),--texts "$(TEXTS)")

bench-scheduler: install  ## Measure the scheduler: labels a second, waiting annotators, rounds, 300 campaigns at once
	$(BIN)/python -m benchmarks.scheduler

bench-scheduler-quick: install  ## The same on a tenth of the work, in under three minutes
	$(BIN)/python -m benchmarks.scheduler --quick

bench-learning: install  ## Learning curves of the strategies on labelled texts: DATA="labelled.jsonl.gz …"; an hour or more
	$(BIN)/python -m benchmarks.learning --data $(DATA)

label-studio: .label-studio/installed  ## Install a Label Studio of its own, for the tests that start one: two minutes

# Its dependencies and ours do not go together.
.label-studio/installed: .ci/label-studio.txt
	.ci/venv.sh "$(PYTHON)" .label-studio
	.label-studio/bin/python -m pip install --quiet --disable-pip-version-check --requirement .ci/label-studio.txt
	@touch $@

lock: install .audit/installed  ## Write deploy/locks, the images' packages with hashes [TORCH_CPU="--find-links FOLDER"]
	PATH="$(CURDIR)/.audit/bin:$$PATH" TORCH_CPU="$(TORCH_CPU)" $(BIN)/python -m deploy.supply_chain.lock

licences: install .audit/installed  ## Write docs/licences.md; fails on a licence that nobody has looked at
	PATH="$(CURDIR)/.audit/bin:$$PATH" $(BIN)/python -m deploy.supply_chain.licences

# learner.txt is learner-gpu.txt with another build of torch and without CUDA, and no database knows that build.
audit: .audit/installed  ## Ask for known vulnerabilities of everything in the images; needs the network
	@for image in index-server index-server-gpu learner-gpu scheduler; do \
		echo "$$image:"; .audit/bin/pip-audit --strict --disable-pip --require-hashes --requirement deploy/locks/$$image.txt \
		|| failed=1; done; exit $${failed:-0}

sbom: .audit/installed  ## Write build/sbom/<image>.cdx.json, the images' packages in CycloneDX's format
	@mkdir -p build/sbom
	@for lock in deploy/locks/*.txt; do PYTHONWARNINGS=ignore .audit/bin/cyclonedx-py requirements --pyproject pyproject.toml \
		--output-reproducible --output-file build/sbom/$$(basename $$lock .txt).cdx.json $$lock || exit 1; done

.audit/installed: .ci/audit.txt
	.ci/venv.sh "$(PYTHON)" .audit
	.audit/bin/python -m pip install --quiet --disable-pip-version-check --requirement .ci/audit.txt
	@touch $@

install: .venv/installed  ## Make or update .venv

# batchbald_redux asks for torchvision, whose wheels need CUDA's torch and break transformers beside the CPU's; what it is
# compared by imports none of it.
# pip, not uv: see docs/development.md. The stamp is written last, so an interrupted install is done again.
.venv/installed: pyproject.toml constraints.txt
	.ci/venv.sh "$(PYTHON)" .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps batchbald_redux
	@touch $@

clean:  ## Remove what the other targets made
	rm -rf .venv .label-studio .audit .sealpool build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
