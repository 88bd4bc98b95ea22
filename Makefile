# The commands of this project. `make run` and `make test` do all the set-up they need.

SHELL := /bin/bash
MODELS := $(CURDIR)/target/test-models
PYTHON ?= python3

.DEFAULT_GOAL := help
.PHONY: help run build test lint house check-cuda build-cuda bench test-models prepare

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

test: prepare test-models house ## run everything: tests, lints, the CUDA type check
	@mkdir -p target
	set -o pipefail; cargo test --workspace --locked --no-fail-fast 2>&1 | tee target/test-output.txt
	$(MAKE) lint
	$(MAKE) check-cuda
	@awk '/^test result:/ { passed += $$4; failed += $$6; ignored += $$8 } END { printf "%d passed, %d failed, %d skipped\n", passed, failed, ignored }' target/test-output.txt

house: ## formatting
	cargo fmt --all --check

lint: ## clippy, warnings are errors
	cargo clippy --workspace --all-targets --locked -- -D warnings

check-cuda: ## type-check the CUDA build without a toolkit
	./scripts/check_cuda.sh

build-cuda: prepare ## build with CUDA, where a toolkit is
	@command -v nvcc > /dev/null || { echo "nvcc is not on the PATH: install the CUDA toolkit (11.4 or newer)"; exit 1; }
	cargo build --release --locked --features cuda

bench: test-models ## tokens per second of the real model, and the kernels
	cargo bench --workspace --locked
