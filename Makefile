# defragd. `make` lists the targets; `make test` and `make demo` install what they need and say so.

SHELL := /bin/bash
TOOLS := $(CURDIR)/.tools
export PATH := $(TOOLS)/bin:$(TOOLS)/cargo/bin:$(HOME)/.cargo/bin:$(PATH)
# If the machine has no protoc, tests/testkit/tools unpacks one.
export PROTOC ?= $(shell PATH="$(PATH)" command -v protoc)
CARGO_DENY_VERSION := 0.20.2
CARGO_MACHETE_VERSION := 0.9.2
# Not the newest: it has half as many crates again to build, for features that are not used here.
NEXTEST_VERSION := 0.9.95

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: tools
tools: ## Install what tests and demo run against: etcd 3.4/3.5/3.6/3.7, Prometheus, Alertmanager, protoc
	tests/testkit/tools

# $(call cargo_tool,NAME,VERSION,FLAGS) installs a cargo subcommand if it is missing, as a debug build, which is the fastest to build.
define cargo_tool
@cargo $(1:cargo-%=%) --version 2>/dev/null | grep -Eq '^($(1) )?$(2)\b' || { \
  echo "installing $(1) $(2) into $(TOOLS)/cargo (some minutes)"; \
  CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug --root $(TOOLS)/cargo $(3) $(1)@$(2); }
endef

.PHONY: tools-kube
tools-kube: ## Also build Kubernetes with Go (some minutes), for tests/kube and tests/e2e/pods.rs
	tests/testkit/tools --kubernetes

.PHONY: kube-lab
kube-lab: tools tools-kube ## A real Kubernetes node with the chart on it, until Ctrl-C; needs root
	tests/testkit/tools --deploy
	cargo test --locked --test kube keep_one_running -- --ignored --exact --nocapture

.PHONY: test-kube-long
test-kube-long: tools tools-kube nextest ## More of Kubernetes, one node after the other, 20 minutes; needs root
	tests/testkit/tools --deploy
	cargo nextest run --locked -p defragd --test kube --run-ignored only -E 'test(/^long_/)' --no-capture

.PHONY: tools-browser
tools-browser: ## Also get Chromium, its driver and axe-core, for tests/browser; without them, those tests are SKIPPED
	tests/testkit/tools --browser

SHOWN_IN_DOCS := running approval-run failed-cluster fragmented-dark fleet-30
.PHONY: screenshots
screenshots: tools-browser ## Show every state of the status page to a real browser: target/screenshots; five go into docs/images
	cargo test --locked --lib -- --ignored --nocapture screenshots
	cp $(SHOWN_IN_DOCS:%=target/screenshots/%.webp) docs/images/

.PHONY: build
build: tools ## Build the release binary: target/release/defragd
	cargo build --release --locked --bin defragd

# A debug build: `make test` leaves one, and an optimised one would take minutes longer for no benefit here.
.PHONY: demo
demo: tools ## The main job on real software, on this machine; with EXIT=1 it ends by itself, non-zero on failure
	cargo build --locked -p defragd -p demo
	DEFRAGD_BIN=target/debug/defragd target/debug/demo $(if $(EXIT),--exit)

# .config/nextest.toml says how tests run, and where this report is written. nextest runs no doctests; there are none.
JUNIT := target/nextest/default/junit.xml

.PHONY: test
test: tools check-shipped nextest ## All tests, on real etcd, Prometheus and Alertmanager; ARGS='-E "test(/^edge::/)"' for some
	@rm -f $(JUNIT)
	cargo nextest run --workspace --locked $(ARGS); status=$$?; \
	  if [ -e $(JUNIT) ]; then printf 'The slowest tests, in seconds:\n'; \
	    sed -n 's/.*<testcase name="\([^"]*\)" classname="\([^"]*\)".* time="\([^"]*\)".*/\3\t\2 \1/p' $(JUNIT) | \
	    sort -rn | head -n 10; printf 'Seconds of each target, over all its tests:\n'; \
	    sed -n 's/.*<testcase name="[^"]*" classname="\([^"]*\)".* time="\([^"]*\)".*/\1 \2/p' $(JUNIT) | \
	    awk '{ n[$$1]++; t[$$1] += $$2 } END { for (i in n) printf "%8.1f\t%d tests\t%s\n", t[i], n[i], i }' | sort -rn; \
	    grep -q 'SKIPPED: ' $(JUNIT) && printf 'Skipped, and how often:\n' && \
	    sed -n 's/.*SKIPPED: //p' $(JUNIT) | sort | uniq -c; fi; \
	  exit $$status

# A pre-release that fails the tests is a warning for us, not a failure of CI.
NEXT_TESTS := test(etcd_3_7_is) + test(rolls_a_cluster_of_3_7) + test(a_cluster_of_3_7_without_space) + \
  test(the_oldest_candidate_holds_on_3_7)

.PHONY: test-next
test-next: nextest ## The main tests on the newest pre-release of etcd, built with Go, as an early warning
	tests/testkit/tools --next
	@[ -x $(TOOLS)/bin/etcd-3.8 ] || { echo "test-next: SKIPPED, there is no etcd 3.8 here"; exit 0; }; \
	  DEFRAGD_ETCD=3.8 cargo nextest run --locked -p testkit -p defragd --test smoke --test e2e -E '$(NEXT_TESTS)'

.PHONY: nextest
nextest: tools ## The program that runs the tests
	$(call cargo_tool,cargo-nextest,$(NEXTEST_VERSION),--no-default-features --features default-no-update)

.PHONY: test-soak
test-soak: tools nextest ## Repeat the tests: on a quiet machine, beside four busy loops, on half a core; variables: tests/soak
	tests/soak

.PHONY: soak
soak: tools ## The long tests: a million simulated schedules, hundreds of kills, a million webhooks and scrapes; hours
	SIM_SCHEDULES=$${SIM_SCHEDULES:-1000000} \
	  cargo test --profile tools --locked --test sim every_schedule -- --nocapture
	cargo test --locked --test e2e -- --ignored --nocapture soak_
	cargo test --profile tools --locked --test program -- --ignored --nocapture soak_
	$(MAKE) bench-soak

# Figures of the release binary, in its own processes; load on the machine falsifies times, but little else.
FLEET := target/tools/fleet

.PHONY: bench-build
bench-build: build
	cargo build --profile tools --locked -p fleet

.PHONY: bench-fleet
bench-fleet: bench-build ## What a scrape of 10 to 1,000 simulated clusters costs; writes benches/FLEET.md; ARGS='-o json'
	$(FLEET) growth --write benches/FLEET.md $(ARGS)
	$(FLEET) idle --write benches/FLEET.md $(ARGS)

.PHONY: bench-shards
bench-shards: bench-build ## What 5,000 simulated clusters cost in one process, and 10,000 in several; writes benches/FLEET.md
	$(FLEET) shards --write benches/FLEET.md $(ARGS)

.PHONY: bench-idle
bench-idle: bench-build ## Memory at rest and time to the first good scrape with one real cluster; writes benches/FLEET.md
	$(FLEET) idle --write benches/FLEET.md $(ARGS)

.PHONY: bench-start
bench-start: bench-build ## Start and reload with 1,000 clusters and a full journal; writes benches/FLEET.md; ARGS='--before OTHER-BINARY'
	$(FLEET) start --write benches/FLEET.md $(ARGS)
	$(FLEET) reload --write benches/FLEET.md $(ARGS)

.PHONY: bench-soak
bench-soak: bench-build ## 100,000 scrapes of members that hang, refuse and restart; writes benches/FLEET.md
	$(FLEET) soak --write benches/FLEET.md $(ARGS)

# perf (Debian: linux-perf) on a build with symbols, in a directory of its own.
.PHONY: bench-profile
bench-profile: bench-build ## A CPU profile of scrapes of 1,000 clusters; writes benches/fleet/profile.txt
	CARGO_PROFILE_RELEASE_STRIP=none CARGO_PROFILE_RELEASE_DEBUG=line-tables-only \
	  cargo build --release --locked --bin defragd --target-dir target/profile
	$(FLEET) growth --defragd target/profile/release/defragd --sizes 1000 --scrapes 40 --tls-clusters 0 \
	  --faults-per-mille 0 --profile benches/fleet/profile.txt

# Beside the other Python tools: it needs many packages.
SCHEMATHESIS_VERSION := 4.32.5
SCHEMATHESIS := $(TOOLS)/schemathesis

$(SCHEMATHESIS)/$(SCHEMATHESIS_VERSION): | tools
	python3 -m venv $(SCHEMATHESIS)
	$(SCHEMATHESIS)/bin/pip install --quiet --disable-pip-version-check schemathesis==$(SCHEMATHESIS_VERSION)
	touch $@

.PHONY: check-api
check-api: $(SCHEMATHESIS)/$(SCHEMATHESIS_VERSION) ## Requests made of the OpenAPI document (schemathesis), on a real cluster
	DEFRAGD_SCHEMATHESIS=$(SCHEMATHESIS)/bin/schemathesis cargo test --locked --test e2e schemathesis -- --ignored --nocapture

.PHONY: fuzz
fuzz: ## Coverage-guided hostile input for every parser of foreign data, SECONDS=60 for each; failing inputs are kept
	FUZZ_SECONDS=$(or $(SECONDS),60) tests/fuzz/guided $(TARGETS)

.PHONY: bench
bench: build ## Compare a run of defragd with etcdctl under load; BENCH_RUNS=5 BENCH_LOADS=…; an hour or more in full
	cargo build --profile tools --locked -p bench-roll
	target/tools/bench-roll

# How much of each member's file is in use, GiB; a quarter more is free. Finished trials stay in BENCH_DIR: the same command
# continues a bench that was stopped.
BENCH_LARGE_GIB ?= 4 8
LARGE_LOADS := leases,api-server,api-server-gate,api-server-proxy,go-clients,go-clients-gate
LARGE_TOOLS := etcdctl-loop,etcd-defrag,etcd-defrag-move-leader,defragd,defragd-transfer

.PHONY: bench-large
bench-large: build tools-kube ## The same on large members that sync their files, with a real API server; BENCH_DIR=… BENCH_LARGE_GIB=4 BENCH_RUNS=3; hours
	cargo build --profile tools --locked -p bench-roll
	@for check in --needs ''; do for gib in $(BENCH_LARGE_GIB); do \
	  mib=$$(awk "BEGIN { printf \"%d\", $$gib * 1024 }"); \
	  BENCH_DIR=$${BENCH_DIR:?name a directory on a disk with room} BENCH_FSYNC=true BENCH_ESTIMATES=false BENCH_WEBHOOKS=0 \
	  BENCH_RUNS=$${BENCH_RUNS:-3} BENCH_LOADS=$${BENCH_LOADS:-$(LARGE_LOADS)} BENCH_TOOLS=$${BENCH_TOOLS:-$(LARGE_TOOLS)} \
	  BENCH_LARGE_IN_USE_MIB=$$mib BENCH_LARGE_FILE_MIB=$$((mib * 5 / 4)) \
	  BENCH_RESULTS=$${BENCH_RESULTS:-benches/LARGE-$$gib.md} target/tools/bench-roll $$check || exit 1; done; done

.PHONY: bench-journal
bench-journal: tools ## The journal after a year of 1,000 clusters; JOURNAL_CLUSTERS=… JOURNAL_DAYS=…
	cargo bench --profile tools --locked --bench journal

.PHONY: bench-policies
bench-policies: ## Compare defragd's policies, on a Kubernetes load and on a cluster without compaction
	BENCH_LOADS=$${BENCH_LOADS:-kubernetes,history} BENCH_WEBHOOKS=0 BENCH_RESULTS=$${BENCH_RESULTS:-benches/POLICIES.md} \
	  BENCH_TOOLS=etcdctl-loop,defragd,defragd-transfer,defragd-pause,defragd-compact $(MAKE) bench

.PHONY: mutants
mutants: tools ## Put deliberate faults into a copy of src and check that the simulator catches each
	tests/sim/mutants.sh

.PHONY: check-shipped
check-shipped: tools lint-observability ## Check the shipped rules, their tests, dashboards and all configurations
	promtool test rules alerts/tests/*.test.yml
	@for file in deploy/examples/*.yaml; do \
	  cargo run --quiet --locked --bin defragd -- check-config --syntax-only "$$file" || exit 1; done

# pint and dashboard-linter are not available from the Go module proxy. tests/observability checks the rules of theirs that
# apply here.
.PHONY: lint-observability
lint-observability: tools ## Lint rules and Alertmanager's configuration; check that the dashboards match their source
	promtool check rules --lint=all --lint-fatal alerts/*.rules.yml
	amtool check-config alerts/alertmanager.yml
	promtool check config --syntax-only deploy/examples/prometheus-probe.yml
	@if command -v python3 >/dev/null; then python3 dashboards/generate.py --check; \
	  else echo "dashboards: SKIPPED, there is no python3 here to compare them with their source"; fi

# Built in target: nothing of npm lands in the tree. package-lock.json pins the versions.
GRAFANA_SCHEMA := target/grafana-schema

.PHONY: check-dashboards
check-dashboards: ## Validate the dashboards with Grafana's own types (@grafana/schema); needs node and npm, else SKIPPED
	@if command -v node >/dev/null && command -v npm >/dev/null; then \
	  mkdir -p $(GRAFANA_SCHEMA) && cp dashboards/schema/* dashboards/schema/.npmrc $(GRAFANA_SCHEMA)/ && \
	  npm ci --silent --ignore-scripts --prefix $(GRAFANA_SCHEMA) && \
	  node $(GRAFANA_SCHEMA)/check.mjs dashboards/*.json; \
	else echo "dashboards: SKIPPED, there is no node and npm here to validate them with @grafana/schema"; fi

.PHONY: dashboards
dashboards: ## Generate dashboards/*.json from dashboards/source
	python3 dashboards/generate.py

# The site is built from a copy of the tree, so that one link works in the repository and on the site.
PYTHON_VENV ?= $(TOOLS)/python
DOCS_COPY := target/docs-source

.PHONY: docs
docs: $(PYTHON_VENV)/installed ## Build the documentation into target/site; a broken link fails
	rm -rf $(DOCS_COPY) && mkdir -p $(DOCS_COPY)
	tar --create --exclude=./.git --exclude=./.tools --exclude=./target . | tar --extract --directory $(DOCS_COPY)
	NO_MKDOCS_2_WARNING=1 $(PYTHON_VENV)/bin/mkdocs build --strict
	cd $(DOCS_COPY) && $(abspath $(PYTHON_VENV))/bin/lychee --offline --no-progress --include-fragments '**/*.md'

# What comes from PyPI, for `make words`, `make docs` and `make check-deploy`.
$(PYTHON_VENV)/installed: docs/requirements.txt | tools
	python3 -m venv $(PYTHON_VENV)
	$(PYTHON_VENV)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

SVG_TERM_VERSION := 2.1.1

.PHONY: recording
recording: tools $(PYTHON_VENV)/installed ## Record `plan` and `run` on a real cluster: docs/images/run.svg; needs npm
	npm install --silent --no-audit --no-fund --prefix target/svg-term svg-term-cli@$(SVG_TERM_VERSION)
	cargo build --locked -p defragd -p demo
	DEFRAGD_BIN=target/debug/defragd target/debug/demo --run "$(PYTHON_VENV)/bin/asciinema rec --quiet --overwrite \
	  --cols 140 --rows 30 --command docs/images/recording target/recording.cast"
	target/svg-term/node_modules/.bin/svg-term --in target/recording.cast --out docs/images/run.svg \
	  --no-cursor --window --width 140 --height 30

.PHONY: man
man: ## Write manual pages and completions into target/man, from a debug build
	cargo build --quiet --locked --bin defragd
	deploy/docs target/debug/defragd target/man

.PHONY: check-deploy
check-deploy: $(PYTHON_VENV)/installed ## Render chart and kustomizations, validate them, compare them with the program; needs Go, else SKIPPED
	tests/testkit/tools --deploy
	PYTHON_VENV=$(PYTHON_VENV) deploy/check

.PHONY: deploy-generated
deploy-generated: ## Write the parts of deploy/kustomize that are generated from the chart
	tests/testkit/tools --deploy
	deploy/generate

.PHONY: dist
dist: tools ## The files of a release in target/dist: static binaries, .deb, .rpm, image, chart, SBOMs; as root, half an hour
	deploy/release

.PHONY: check-dist
check-dist: tools ## Test what `make dist` made: with qemu, in new Debians with their systemd, as an image; needs root
	deploy/check-dist

.PHONY: lint
lint: tools words ## Words, formatting, clippy, whether the deliberate faults still apply, dashboards, dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	tests/sim/mutants.sh --check
	$(MAKE) check-dashboards
	$(MAKE) deny unused

.PHONY: words
words: $(PYTHON_VENV)/installed ## Misspellings, and what this project does not use: words (typos.toml) and phrases (.phrases)
	$(PYTHON_VENV)/bin/typos
	@! grep -rniwIE --file .phrases . --exclude-dir={.git,.tools,target} --exclude={.phrases,LICENSE,'*.svg','*.sum'} || \
	  { echo "words: find other words for the phrases above (.phrases lists them)"; exit 1; }

.PHONY: deny
deny: ## Licences, bans and sources of the dependencies
	$(call cargo_tool,cargo-deny,$(CARGO_DENY_VERSION))
	cargo fetch --locked
	cargo deny --offline --locked check bans licenses sources

.PHONY: unused
unused: ## Dependencies that no code uses
	$(call cargo_tool,cargo-machete,$(CARGO_MACHETE_VERSION))
	cargo machete --skip-target-dir

.PHONY: ci
ci: ## Everything that .ci/run checks
	bash .ci/run

.PHONY: clean
clean: ## Remove build results; the tools stay
	cargo clean
