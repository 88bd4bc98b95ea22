# The commands of this project. `make run` and `make test` do all the set-up they need.

SHELL := /bin/bash
MODELS := $(CURDIR)/target/test-models
PYTHON ?= python3

# The tests run on SQLite and once more on PostgreSQL: all of tests/ but those that never meet a database. What is not listed
# runs twice; that costs time and hides nothing.
WITHOUT_DATABASE := config engine_% house model_lifecycle sources structured_output
TESTS := $(patsubst tests/%.rs,%,$(wildcard tests/*.rs)) $(patsubst tests/%/main.rs,%,$(wildcard tests/*/main.rs))
ON_POSTGRES := $(addprefix --test ,$(filter-out $(WITHOUT_DATABASE),$(TESTS)))
CARGO_TEST := cargo test --workspace --locked --no-fail-fast
COUNT := awk '/^test result:/ { passed += $$4; failed += $$6; ignored += $$8 } END { printf "%d passed, %d failed, %d skipped\n", passed, failed, ignored }'

.DEFAULT_GOAL := help
.PHONY: help run build test test-postgres lint house check-cuda build-cuda bench bench-compare test-models prepare prepare-postgres

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

prepare: # what a fresh machine may lack
	@command -v cargo > /dev/null || { echo "Rust is missing: install it from https://rustup.rs"; exit 1; }
	@command -v cc > /dev/null || { echo "installing a C compiler"; apt-get update -qq && apt-get install -y -qq gcc libc6-dev; }

build: prepare ## build the release binary
	cargo build --release --locked

run: build ## build, fetch the default model, serve on 127.0.0.1:8080
	@exec ./target/release/sconce serve $(ARGS)

test-models: ## fetch the two real models that the tests run
	@$(PYTHON) scripts/fetch_test_models.py "$(MODELS)"

prepare-postgres: # before the tests and not after half of them
	@$(PYTHON) scripts/postgres.py install

test: prepare prepare-postgres test-models house ## run everything: tests on both databases, lints, the CUDA type check
	@mkdir -p target
	set -o pipefail; SCONCE_TEST_DATABASE=sqlite $(CARGO_TEST) 2>&1 | tee target/test-output.txt
	$(MAKE) test-postgres
	$(MAKE) lint
	$(MAKE) check-cuda
	@$(COUNT) target/test-output.txt target/test-output-postgres.txt

test-postgres: prepare test-models ## the tests that meet a database, on PostgreSQL: that of TEST_POSTGRES_URL, or its own
	@mkdir -p target
	set -o pipefail; SCONCE_TEST_DATABASE=postgres $(PYTHON) scripts/postgres.py run -- $(CARGO_TEST) $(ON_POSTGRES) 2>&1 | tee target/test-output-postgres.txt
	@$(COUNT) target/test-output-postgres.txt

house: ## formatting
	cargo fmt --all --check

lint: ## clippy, warnings are errors
	cargo clippy --workspace --all-targets --locked -- -D warnings

check-cuda: ## type-check the CUDA build without a toolkit
	./scripts/check_cuda.sh

build-cuda: prepare ## build with CUDA, where a toolkit is
	@command -v nvcc > /dev/null || { echo "nvcc is not on the PATH: install the CUDA toolkit (11.4 or newer)"; exit 1; }
	cargo build --release --locked --features cuda

bench: test-models ## everything measured, beside what the machine can do; QUICK=1 in three minutes, MODEL=file.gguf another model
	@mkdir -p target/bench && touch target/bench/started
	cargo bench --workspace --locked $(addprefix --bench ,peaks kernels forward engine structured server) -- $(if $(QUICK),--quick)
	@cargo bench --locked --bench report -- --write

bench-compare: test-models ## our server and another by turns, with the same requests: PEER=http://host:port
	cargo bench --locked --bench compare
