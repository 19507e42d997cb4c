# make help shows what there is. PYTHON chooses the interpreter (3.10 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
BESIDE := --numprocesses 2 --dist worksteal
SOURCES := setup.py pyproject.toml $(wildcard sentinel_wasm/*.pyx sentinel_wasm/*.pxd)
MODULE ?= examples/c/security.wasm
SOCKET ?= /tmp/sentinel-wasm.sock
SOAK_SECONDS ?= 600
SOAK_EVENTS ?= 1000000
SOAK_RELOADS ?= 200
UPGRADES ?= 50
TESTS ?= tests/test_agent.py tests/test_api.py tests/test_call.py tests/test_reload.py tests/test_pytest_plugin.py

# Where it is set, every agent of the tests compiles all its Python again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup run test overload soak lint e2e upgrades bench bench-ratios gate fuzz asan examples templates proto docs wheel test-wheel \
	audit macos newest-wasmtime container-steps lint-deploy clean

help:  ## show this
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready  ## virtual environment and compiled extension in .venv

$(VENV)/.ready: $(SOURCES)
	@PYTHON="$(PYTHON)" ci/venv.sh $(VENV)
	@touch $@

run: setup  ## an agent on an example module, with requests played at it (MODULE=… SOCKET=… for yours)
	@$(BIN)/python examples/play.py --module "$(MODULE)" --socket "$(SOCKET)"

test: setup  ## every test but those that need the real proxies, the machine to themselves, or slow compilers
	$(PYTEST) -m "parallel and not e2e and not templates" $(BESIDE)
	$(PYTEST) -m "not parallel and not e2e and not load"

overload: setup  ## an agent with three times what its module can take, and one that reloads; wants an idle machine
	$(PYTEST) -m load tests/load

soak: setup  ## ten minutes of mixed traffic with faults, a million events and traps, 200 reloads (SOAK_SECONDS, SOAK_EVENTS, SOAK_RELOADS)
	SOAK_SECONDS="$(SOAK_SECONDS)" SOAK_EVENTS="$(SOAK_EVENTS)" SOAK_RELOADS="$(SOAK_RELOADS)" $(PYTEST) tests/soak

e2e: setup  ## real HTTP through the real proxies (installs them with cargo where they are missing)
	eval "$$(ci/proxies.sh)" && $(PYTEST) -m "e2e and parallel" $(BESIDE) tests/e2e && \
		$(PYTEST) -m "e2e and not parallel" tests/e2e

lint: setup  ## ruff, mypy --strict, cython-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint sentinel_wasm

docs: $(VENV)/.docs  ## the documentation as a site in build/site, checked; open build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	$(PYTEST) ci/site

$(VENV)/.docs: $(VENV)/.ready pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group docs
	@touch $@

upgrades: setup  ## 50 upgrades of the agent behind the real v2 proxy, under load; wants an idle machine (UPGRADES=…)
	UPGRADES="$(UPGRADES)" $(PYTEST) -s -m e2e tests/e2e/test_upgrade.py

bench: bench-ratios  ## bench-ratios, then the floor, the Rust agents and ours side by side, and behind the real proxy
	$(BIN)/python -m benchmarks.side_by_side --rounds 3 --seconds 0.5 --out build/bench
	$(BIN)/python -m benchmarks.behind_proxy --rounds 3 --seconds 2

bench-ratios: setup  ## benchmarks of fixed work, and the ratios that must hold anywhere
	$(PYTEST) benchmarks --benchmark-columns=min,median,iqr,rounds --benchmark-sort=name

gate: setup  ## fails where a benchmark is over 10% slower than at the commit BASE=…
	ci/gate.sh $(BASE)

fuzz: setup  ## look for inputs that break the agent, under sanitizers, for FUZZ_SECONDS (60); compare a million events
	ci/fuzz.sh

asan: setup  ## the unit tests under AddressSanitizer and UBSan
	ci/asan.sh

examples: ## rebuild the example modules that this machine has the compilers for
	ci/build_examples.sh

templates: setup  ## build every template of sentinel-wasm new whose compiler is here, and run its table
	$(PYTEST) tests/test_new.py

proto: setup  ## generate what reads gRPC's messages, after an edit of agent.proto
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. sentinel_wasm/grpc/agent.proto

wheel: setup  ## the sdist, and a wheel for each Python that is here (PYTHONS=…), looked at and repaired, in dist/
	ci/wheel.sh $(PYTHONS)

test-wheel:  ## tests on the installed wheel of dist/, away from the sources (TESTS=…)
	PYTHON="$(PYTHON)" ci/test_wheel.sh $(TESTS)

audit:  ## the SBOM of the wheel of dist/, and whether an advisory is known for what is in it
	PYTHON="$(PYTHON)" ci/audit.sh

macos: setup  ## compile for macOS, and check the types as they are there
	ci/macos.sh

newest-wasmtime:  ## what breaks with the newest wasmtime, whatever is pinned (WASMTIME=… for another)
	PYTHON="$(PYTHON)" ci/newest_wasmtime.sh $(WASMTIME)

container-steps: setup  ## the steps of the Dockerfile where no builder is, and a probe of the agent; as root
	ci/container_steps.sh

lint-deploy:  ## actionlint, zizmor, hadolint, and the manifests against Kubernetes' schemas
	ci/lint_deploy.sh

clean:  ## remove what was built
	rm -rf $(VENV) build dist *.egg-info sentinel_wasm/*.so sentinel_wasm/*.c
