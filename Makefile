# Sluice. `make help` lists the targets.
#
# Debian packages that `make demo` and `make test` install when they are
# missing (as root): the kernel lab's guest kernel, and the tools that Sluice
# is compared with and tested through.
# The compiler is for a shim that the guest kernel needs on processors with AMX;
# FRR and BIRD are the routers that tests tell their routes to.
PACKAGES := user-mode-linux ipvsadm ipset iptables conntrack iproute2 procps kmod gcc libc6-dev frr bird2
# Where systemd runs, packages start their services. These are not to run here:
# tests start the programs themselves.
SERVICES := frr bird

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
BIN     := $(CURDIR)/bin
LAB     := $(BIN)/lab
# One guest at a time per processor; two test binaries run side by side.
LABFLAGS ?= -cpu auto

.DEFAULT_GOAL := help
.PHONY: help demo test test-unit build lint kernel e2e bench generate generated packages clean

help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: packages build ## Show Sluice at work: three nodes, a BGP router, real IPVS, scaling and draining under load (about 2 minutes)
	@$(LAB) -cpu auto $(BIN)/demo -sluice $(BIN)/sluice

test: packages test-unit lint kernel e2e ## Everything: unit tests, lint, kernel conformance, end to end with a real API server

test-unit: ## Unit tests with the race detector (under a minute)
	$(GO) vet ./... && $(GO) test -race ./...
	$(GO) -C e2e vet ./lab/... ./policy && $(GO) -C e2e test ./lab/... ./policy

build: $(BIN)/sluice $(LAB) $(BIN)/demo ## Build sluice, the lab and the demo into bin/

$(BIN)/sluice: FORCE
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/sluice

$(LAB): FORCE
	CGO_ENABLED=0 $(GO) build -C e2e -o $@ ./lab

$(BIN)/demo: FORCE
	CGO_ENABLED=0 $(GO) build -C e2e -o $@ ./demo

$(BIN)/controlplane: FORCE
	@echo "building etcd and kube-apiserver (several minutes the first time)"
	CGO_ENABLED=0 $(GO) build -C e2e -ldflags '-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3' -o $@ ./controlplane

$(BIN)/golangci-lint: internal/tools/go.mod
	@echo "building golangci-lint (several minutes the first time)"
	$(GO) build -C internal/tools -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

$(BIN)/controller-gen: internal/tools/go.mod
	$(GO) build -C internal/tools -o $@ sigs.k8s.io/controller-tools/cmd/controller-gen

GENERATE := $(BIN)/controller-gen object crd paths=./internal/api/v1alpha1

generate: $(BIN)/controller-gen ## Generate deploy/crds and deep copies from the Go types of our own kinds
	$(GENERATE) output:crd:dir=deploy/crds

generated: $(BIN)/controller-gen
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && \
	$(GENERATE) output:object:dir="$$dir" output:crd:dir="$$dir/crds" && \
	diff -r "$$dir/crds" deploy/crds && diff "$$dir"/zz_generated.deepcopy.go internal/api/v1alpha1/zz_generated.deepcopy.go || \
	{ echo "run make generate"; exit 1; }

lint: generated $(BIN)/golangci-lint ## golangci-lint, with the direction of imports
	$(BIN)/golangci-lint run ./...

kernel: packages $(LAB) ## The handles' conformance cases and kernel tests, on real IPVS in the lab
	$(GO) test -tags lab -count=1 -p 2 -exec '$(LAB) $(LABFLAGS)' ./internal/nlbatch ./ipvs ./internal/vip ./internal/netfilter ./internal/conntrack ./internal/nflog ./nodeport ./bgp ./internal/engine
	$(GO) test -C e2e -tags lab -count=1 -p 2 -exec '$(LAB) $(LABFLAGS)' ./topo ./router

e2e: packages build $(BIN)/controlplane ## The binary against a real etcd and kube-apiserver, checked with real connections
	SLUICE_BIN=$(BIN)/sluice $(GO) test -C e2e -tags lab -count=1 -p 2 -timeout 20m -v -exec '$(LAB) $(LABFLAGS)' ./semantics ./loadbalancer ./policy
	SLUICE_BIN=$(BIN)/sluice CONTROLPLANE_BIN=$(BIN)/controlplane $(GO) test -C e2e -count=1 -v ./ipam
	SLUICE_BIN=$(BIN)/sluice $(GO) test -C e2e -tags lab -count=1 -timeout 20m -v -exec '$(LAB) $(LABFLAGS) -companion "$(BIN)/controlplane"' ./services

bench: packages build ## Benchmarks in the lab: 10,000 Services from the file source
	SLUICE_BIN=$(BIN)/sluice $(GO) test -tags lab -run '^$$' -bench . -benchtime 1x -timeout 20m -exec '$(LAB) $(LABFLAGS)' ./internal/engine

packages: ## Install the Debian packages the lab needs
	@missing=; for p in $(PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
		echo "installing Debian packages:$$missing"; \
		if [ -d /run/systemd/system ]; then \
			for s in $(SERVICES); do case "$$missing " in *" $$s "*|*" $${s}2 "*) systemctl mask -q --runtime $$s;; esac; done; \
		fi; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi

clean: ## Remove bin/
	rm -rf $(BIN)

FORCE:
