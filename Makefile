# Sluice. `make help` lists the targets.
#
# Debian packages that `make demo` and `make test` install when they are
# missing (as root): the kernel lab's guest kernel, and the tools that Sluice
# is compared with and tested through.
# The compiler is for a shim that the guest kernel needs on processors with AMX;
# FRR and BIRD are the routers that tests tell their routes to.
PACKAGES := user-mode-linux ipvsadm ipset iptables conntrack iproute2 procps kmod gcc libc6-dev frr bird2 curl
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
# Builds the image: docker, or podman.
CONTAINER_TOOL ?= docker

.DEFAULT_GOAL := help
.PHONY: help demo test test-unit build lint kernel e2e bench docs generate generated deploy-lint image packages clean

help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: packages build ## Show Sluice at work: three nodes, a BGP router, real IPVS, scaling and draining under load (about 2 minutes)
	@$(LAB) -cpu auto $(BIN)/demo -sluice $(BIN)/sluice

test: packages test-unit lint deploy-lint kernel e2e ## Everything: unit tests, lint, kernel conformance, end to end with a real API server

test-unit: ## Unit tests with the race detector (under a minute)
	$(GO) vet ./... && $(GO) test -race ./...
	$(GO) -C e2e vet ./lab/... ./policy ./life && $(GO) -C e2e test ./lab/... ./policy ./life

build: $(BIN)/sluice $(LAB) $(BIN)/demo ## Build sluice, the lab and the demo into bin/

$(BIN)/sluice: FORCE
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/sluice

$(LAB): FORCE
	CGO_ENABLED=0 $(GO) build -C e2e -o $@ ./lab

$(BIN)/demo: FORCE
	CGO_ENABLED=0 $(GO) build -C e2e -o $@ ./demo

$(BIN)/controlplane: FORCE
	@echo "building etcd, kube-apiserver, kube-controller-manager and kube-proxy (several minutes the first time)"
	CGO_ENABLED=0 $(GO) build -C e2e -ldflags '-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3' -o $@ ./controlplane

$(BIN)/kube-proxy: $(BIN)/controlplane
	ln -sf controlplane $@

$(BIN)/golangci-lint: internal/tools/go.mod
	@echo "building golangci-lint (several minutes the first time)"
	$(GO) build -C internal/tools -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

$(BIN)/controller-gen: internal/tools/go.mod
	$(GO) build -C internal/tools -o $@ sigs.k8s.io/controller-tools/cmd/controller-gen

GENERATE := $(BIN)/controller-gen object crd paths=./internal/api/v1alpha1

generate: $(BIN)/controller-gen ## Generate deploy/crds and deep copies from the Go types of our own kinds, and the tables of docs/configuration.md from the flags
	$(GENERATE) output:crd:dir=deploy/crds
	SLUICE_WRITE=1 $(GO) test -count=1 -run TestConfigurationReference ./cmd/sluice

generated: $(BIN)/controller-gen
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && \
	$(GENERATE) output:object:dir="$$dir" output:crd:dir="$$dir/crds" && \
	diff -r -x Kustomization "$$dir/crds" deploy/crds && diff "$$dir"/zz_generated.deepcopy.go internal/api/v1alpha1/zz_generated.deepcopy.go || \
	{ echo "run make generate"; exit 1; }

$(BIN)/promtool: internal/tools/prometheus/go.mod
	@echo "building promtool (two minutes the first time)"
	$(GO) build -C internal/tools/prometheus -tags remove_all_sd -ldflags '-s -w' -o $@ github.com/prometheus/prometheus/cmd/promtool

lint: generated $(BIN)/golangci-lint ## golangci-lint, with the direction of imports
	$(BIN)/golangci-lint run ./...

deploy-lint: $(BIN)/sluice $(BIN)/promtool ## Render and judge what is under deploy: manifests, chart, alerts, dashboard, Dockerfile
	SLUICE_BIN=$(BIN)/sluice PROMTOOL_BIN=$(BIN)/promtool $(GO) test -C deploy/test -count=1 ./...

kernel: packages $(BIN)/sluice $(LAB) ## The handles' conformance cases and kernel tests, on real IPVS in the lab
	SLUICE_BIN=$(BIN)/sluice $(GO) test -tags lab -count=1 -p 2 -exec '$(LAB) $(LABFLAGS)' ./internal/nlbatch ./ipvs ./ipvs/ipvsadm ./internal/vip ./internal/netfilter ./internal/conntrack ./internal/nflog ./nodeport ./bgp ./internal/engine ./internal/sysctl ./cmd/sluice
	$(GO) test -C e2e -tags lab -count=1 -p 2 -exec '$(LAB) $(LABFLAGS)' ./topo ./router

e2e: packages build $(BIN)/controlplane $(BIN)/kube-proxy $(BIN)/rootfs $(BIN)/rendered ## The binary against a real etcd and kube-apiserver, checked with real connections
	SLUICE_BIN=$(BIN)/sluice $(GO) test -C e2e -tags lab -count=1 -p 2 -timeout 20m -v -exec '$(LAB) $(LABFLAGS)' ./semantics ./loadbalancer ./policy ./life
	SLUICE_ROOTFS=$(BIN)/rootfs $(GO) test -C e2e -tags lab -count=1 -v -exec '$(LAB) $(LABFLAGS)' ./image
	SLUICE_BIN=$(BIN)/sluice CONTROLPLANE_BIN=$(BIN)/controlplane $(GO) test -C e2e -count=1 -v ./ipam
	SLUICE_BIN=$(BIN)/sluice SLUICE_KUBE_PROXY=$(BIN)/kube-proxy $(GO) test -C e2e -tags lab -count=1 -timeout 20m -v -exec '$(LAB) $(LABFLAGS) -companion "$(BIN)/controlplane"' ./services
	SLUICE_BIN=$(BIN)/sluice SLUICE_ROOTFS=$(BIN)/rootfs SLUICE_RENDERED=$(BIN)/rendered $(GO) test -C e2e -tags lab -count=1 -timeout 20m -v -exec '$(LAB) $(LABFLAGS) -companion "$(BIN)/controlplane -authorization RBAC -audit -controllers all"' ./cluster

docs: packages build ## Write the pages that show commands anew, from what happens in the lab (look at the difference)
	SLUICE_BIN=$(BIN)/sluice SLUICE_WRITE=1 SLUICE_LAB_OUT=$(CURDIR)/docs $(GO) test -C e2e -tags lab -count=1 -exec '$(LAB) $(LABFLAGS)' ./life

$(BIN)/rendered: FORCE
	rm -rf $@ && SLUICE_RENDERED=$@ $(GO) test -C deploy/test -count=1 -run TestSchema .

$(BIN)/rootfs: $(BIN)/sluice deploy/image/rootfs.sh
	rm -rf $@ && deploy/image/rootfs.sh $< $@ >$@.txt

image: ## Build the image sluice:VERSION, with CONTAINER_TOOL (docker); its contents without one: deploy/image/rootfs.sh
	$(CONTAINER_TOOL) build -f deploy/image/Dockerfile --build-arg VERSION=$(VERSION) -t sluice:$(VERSION) .

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
