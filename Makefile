# Contributor commands. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
UV ?= $(shell command -v uv || echo $(HOME)/.local/bin/uv)
RUN := $(UV) run --quiet
# A guest under software emulation keeps one core busy, so two tests take hardly longer than one on two cores.
WORKERS ?= 2
# What `make check` runs in the lab; `make lab-full` runs all of tests/lab, which takes a quarter of an hour.
QUICK_LAB := -m quick

.PHONY: runtime-build-kernel-real runtime-build-rootfs-real runtime-network-check inspector dev-setup runtime-fetch-binaries runtime-boot-check pypi-publish ollama-demo doctor runtime-publish-environment-oci runtime-publish-official-environments-oci dist runtime-materialize runtime-bundle help setup demo network-demo check lint unit test lab lab-full lab-bench chaos cold soak bench dist-check clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Get uv, the Python environment, the agent and the host packages.
	@scripts/get_uv.sh
	$(UV) sync --quiet
	$(RUN) pyro setup --yes
	@command -v uv >/dev/null || echo 'Your shell does not find uv yet: export PATH="$$HOME/.local/bin:$$PATH"'

dev-setup: setup ## The same, and what the tests need: a registry, skopeo, umoci, busybox, zsh, fish.
	$(RUN) pyro setup --yes --dev

demo: setup ## Set everything up, then run the main job: a command in a real microVM.
	$(RUN) pyro run debian:12 -- git --version

network-demo: setup ## The same with a network: a guest asks example.com for its first page.
	$(RUN) pyro demo --network

ollama-demo: setup ## Let a local model run a command in a microVM; OLLAMA_DEMO_FLAGS go to `pyro demo ollama`.
	$(RUN) pyro demo ollama $(OLLAMA_DEMO_FLAGS)

doctor: ## Say what this host can run.
	$(RUN) pyro doctor

check: dev-setup lint test lab ## All checks and all tests, real guests and the lab included.

lint: ## Style, types, layers, sizes, generated documents, Go, shell.
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(RUN) lint-imports --no-cache
	$(RUN) python scripts/check_sizes.py
	$(RUN) python scripts/generate_docs.py --check
	$(RUN) python scripts/generate_mcp_schemas.py --check
	$(RUN) --group agent scripts/check_agent.sh
	$(RUN) shellcheck .ci/run scripts/*.sh

unit: ## The fast tests: no guest, no root.
	$(RUN) pytest tests/unit

test: ## All tests, real guests included; WORKERS (2) of them side by side, a file of tests to one.
	$(RUN) --group agent pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

runtime-materialize: ## Make the runtime bundle (Firecracker, kernel, manifest, notice, SBOM) in build/runtime_bundle.
	$(RUN) python -m pyro_mcp.runtime.materialize runtime_sources build/runtime_bundle
	$(RUN) python scripts/sbom.py build/runtime_bundle

runtime-bundle: runtime-materialize ## The same, by its older name.

runtime-fetch-binaries: ## Fetch and build what machines are started from, if it is missing or damaged.
	$(RUN) pyro runtime install

runtime-build-kernel-real: runtime-fetch-binaries ## The same, by its older name: the kernel is Debian's, unpacked.

runtime-build-rootfs-real: ## Install the environments of the catalog.
	for name in debian:12-base debian:12 debian:12-build; do $(RUN) pyro env pull $$name || exit; done

runtime-network-check: network-demo ## Boot a guest with a network, and see whether it reaches the internet.

runtime-boot-check: ## Boot a guest, and say what this host can run.
	$(RUN) pyro doctor --deep

runtime-publish-environment-oci: ## Publish ENVIRONMENT to REGISTRY (default: docker.io/USER), from build/oci_layouts.
	$(RUN) python scripts/publish_environments.py --registry "$(REGISTRY)" "$(ENVIRONMENT)"

runtime-publish-official-environments-oci: ## The same for every environment of the catalog.
	$(RUN) python scripts/publish_environments.py --registry "$(REGISTRY)"

lab: ## Real KVM and Firecracker in an emulated machine, as root and as a user: the quick part of tests/lab, or ARGS.
	$(RUN) --group agent python scripts/lab.py $(or $(ARGS),$(QUICK_LAB))

lab-full: ## All of tests/lab there: the driver contract, the jail, hostile guests.
	$(RUN) --group agent python scripts/lab.py --full $(ARGS)

chaos: ## Kill clients, keeper, launchers, VMMs and agents at random, a hundred times.
	PYRO_TEST_CHAOS_ROUNDS=100 $(RUN) pytest tests/guest/test_chaos.py tests/guest/test_task_ends.py --timeout 3600

inspector: ## Call every MCP tool with the MCP Inspector (needs npm; a minute and a half).
	$(RUN) python scripts/mcp_inspector.py

cold: ## The guest tests with machines that boot: no templates.
	PYRO_NO_TEMPLATES=1 $(RUN) --group agent pytest tests/guest

soak: ## 200 runs one after the other and 25 at once; the host is as it was afterwards.
	PYRO_TEST_SOAK_RUNS=200 PYRO_TEST_SOAK_AT_ONCE=25 $(RUN) pytest tests/guest/test_soak.py --timeout 3600

bench: ## Measure; prints medians and ratios. ARGS: --rounds N, --quick, --files, --network, --json FILE.
	$(RUN) python benchmarks/bench.py $(ARGS)

lab-bench: ## The same for Firecracker in the lab, against microsandbox as it was measured there.
	$(RUN) python scripts/lab.py --user root --minutes 40 --command "python3 benchmarks/lab_bench.py"

dist: runtime-materialize ## Build the wheel with the runtime bundle inside, and the source distribution, in dist/.
	rm -rf dist
	PYRO_EMBED_BUNDLE=build/runtime_bundle $(UV) build --quiet --wheel
	$(UV) build --quiet --sdist

dist-check: ## Build the distributions, check them, and run a guest from the wheel in clean environments.
	scripts/dist_check.sh

pypi-publish: ## Upload what `make dist` made: TWINE_PASSWORD, and if need be TWINE_USERNAME, PYPI_REPOSITORY_URL.
	UV_PROJECT_ENVIRONMENT=build/publish-venv $(RUN) --only-group publish scripts/pypi_publish.sh

clean: ## Remove what was built here.
	rm -rf build dist src/pyro_mcp/_bin .venv
