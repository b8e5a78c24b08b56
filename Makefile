# Two commands do all the set-up on a fresh Debian machine with Rust and Go: `make demo` and `make test`.
# Stages can be run one by one; each needs only what stands before it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.ONESHELL:

# local: build and start a cluster on this machine (root). current: use the kubeconfig's cluster.
export CLUSTER ?= local
# Where a cluster of your own finds the images; the local one has them imported.
export IMAGE_REGISTRY ?= localhost/sopwith
export IMAGE_TAG ?= dev

CLUSTER_DIR := e2e/cluster
STAGES := $(CLUSTER_DIR)/stages.sh
# The built tools, and the local cluster's kubeconfig.
USE := source $(CLUSTER_DIR)/use.sh
# Cargo is always asked for all packages at once: of one alone it would build the dependencies anew, with fewer features.
E2E := cargo test --locked --features sopwith-e2e/cluster
# kubectl-sop on PATH, so that `kubectl sop` works.
define PLUGIN
cargo build --locked --quiet --bin kubectl-sop
export PATH="$$(cargo metadata --format-version 1 --no-deps --offline | jq -r .target_directory)/debug:$$PATH"
endef

##@ The whole
.PHONY: demo test
demo: ## Start a cluster, install Sopwith, run the sample SOP to its end and show what it left
	@$(STAGES) demo $(if $(filter current,$(CLUSTER)),tools-base images,tools-base cluster-up images) plugin install demo-run

test: ## Everything, from nothing: tools, lint, unit tests, cluster, images, end-to-end tests
	@$(STAGES) test tools lint unit $(if $(filter current,$(CLUSTER)),,cluster-up) images install e2e

##@ Stages
.PHONY: tools tools-base lint unit cluster-up cluster-down images plugin install demo-run e2e faults bench
tools: ## Install missing Debian packages; build the cluster's parts, helm, kubectl and the lint tools into the cache
	@$(CLUSTER_DIR)/tools.sh

tools-base:
	@$(CLUSTER_DIR)/tools.sh base

lint: ## Format, clippy, licences, unused dependencies, generated files, chart, alert rules
	@$(USE)
	$(CLUSTER_DIR)/lint.sh

unit: ## Tests that need no cluster
	@cargo test --locked

cluster-up: ## Start the local cluster (root), clearing what an earlier one left
	@$(CLUSTER_DIR)/up.sh

cluster-down: ## Remove every process, mount, interface and rule of the local cluster
	@$(CLUSTER_DIR)/down.sh

images: ## Build the images and give them to the local cluster
	@$(CLUSTER_DIR)/images.sh

plugin: ## Build kubectl-sop
	@cargo build --locked --quiet --bin kubectl-sop

install: ## Install the chart into the cluster, or upgrade it
	@$(USE)
	$(CLUSTER_DIR)/install.sh

demo-run:
	@$(USE)
	$(PLUGIN)
	e2e/demo.sh

e2e: ## Tests against the cluster
	@$(USE)
	$(PLUGIN)
	$(E2E) --test e2e --test faults --test recovery --test walls

faults: ## Every fault at every write, read and watched event of the operator: the long form of one of the tests in e2e
	@$(USE)
	SOPWITH_FAULTS=$${SOPWITH_FAULTS:-all} $(E2E) --test faults -- --nocapture

bench: ## What a run costs of its own: time a step and memory of a local run, as a release build
	@cargo bench --locked --quiet --bench local

##@ Files
.PHONY: generate clean help
generate: ## Write the CRDs into the chart, and config/ from the chart
	@$(USE)
	$(CLUSTER_DIR)/generate.sh "$(CURDIR)"

clean: cluster-down ## Stop the cluster; delete build results and the cache of tools and images
	@cargo clean --quiet
	rm -rf "$${SOPWITH_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/sopwith}"

help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } /^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile
	printf '\nVariables: CLUSTER=local|current (now %s), IMAGE_REGISTRY, IMAGE_TAG, SOPWITH_CACHE, SOPWITH_STATE\n' "$$CLUSTER"
