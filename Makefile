# The two commands of the README are `make test` and `make demo`; each does all set-up by itself.
# Logic beyond a few lines is Rust in tests/lab/src/bin or a script in deploy/lab/.
.PHONY: help check fix test fuzz sim netns vm compose tidy demo demo-down demo-vm demo-vm-down bench-vertical bench-rollout bench-rows bench-services bench-writes bench-topologies
.PHONY: setup setup-compose checkouts demo-compose demo-compose-down lab lab-down image systemd install build
CARGO ?= cargo
# Where cargo builds: its settings or CARGO_TARGET_DIR may name another folder than target.
TARGET = $(shell bash -c 'source deploy/lab/steps.sh && target_folder')
# One lab at a time: parallel clusters on two cores would measure each other.
SERIAL := -- --test-threads=1

help: ## show this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 18

setup: ## install the Debian packages needed, check root, cargo and its version
	@deploy/lab/setup.sh

build: ## build the daemon, the client and the demo programs (debug profile)
	$(CARGO) build --locked -p skein -p lab -p tests --bins

check: ## read-only gate: format, lints, tidy, every test that needs no root
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path tests/fuzz/Cargo.toml --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) clippy --locked -p skein --features fuzzing -- -D warnings
	$(CARGO) test --locked -p tests --test tidy --test sim
	$(CARGO) test --locked -p cluster -p gossip -p netprog -p api -p raft-store
	$(CARGO) test --locked -p lab -p tests --lib --bins

fix: ## the mutating twin of check
	$(CARGO) fmt --all
	$(CARGO) fmt --manifest-path tests/fuzz/Cargo.toml
	$(CARGO) clippy --fix --allow-dirty --allow-staged --workspace --all-targets

test: setup ## every tier, with the duration of each; TIERS="netns vm" for some
	@deploy/lab/tiers.sh $(TIERS)

sim: ## a thousand seeds of the simulator, or COUNT from FROM; the first that fails prints itself
	$(CARGO) run --locked -p tests --bin sim -- --count $(or $(COUNT),1000) --from $(or $(FROM),1)

fuzz: ## any bytes to every decoder that faces a peer or the disk, for 10 minutes; FUZZ_SECONDS=60, FUZZ_TARGETS="dns …"
	@deploy/lab/fuzz.sh $(or $(FUZZ_SECONDS),600) $(FUZZ_TARGETS)

netns: setup build ## real daemons, real kernel, real redis, in network namespaces
	$(CARGO) test --locked -p tests --test netns $(SERIAL)

vm: setup build ## guests with kernels of their own: user-mode Linux, and kernel 6.1 in QEMU
	@deploy/vm/setup.sh
	$(CARGO) test --locked -p skein -p tests --test vm $(SERIAL)

setup-compose: ## the same for containers: Docker's engine and compose, without starting a service
	@deploy/compose/setup.sh

compose: setup-compose build ## real daemons in containers of a Docker Engine, by deploy/compose/
	@deploy/vm/setup.sh
	$(CARGO) test --locked -p tests --test compose $(SERIAL)

tidy: ## import rules, lengths, purposes
	$(CARGO) test --locked -p tests --test tidy

demo: ## three nodes, redis behind a VIP, a web front on port 3000; MANAGERS=3 for three
	@deploy/lab/demo.sh up --managers $(or $(MANAGERS),1)

demo-down: ## stop the demo; nothing of it stays
	@deploy/lab/demo.sh down

checkouts: setup build ## the demo from a read-only clone of this commit below /tmp in a path with a space
	@deploy/lab/checkouts.sh

lab: setup build ## a lab of NODES nodes (3), MANAGERS of them managers (1); see deploy/lab/README.md
	@"$(TARGET)"/debug/skein-lab up --nodes $(or $(NODES),3) --managers $(or $(MANAGERS),1)

lab-down: ## remove the lab; nothing of it stays
	@"$(TARGET)"/debug/skein-lab down

demo-compose: ## the demo in containers: three managers and two workers
	@deploy/lab/demo.sh up --topology containers --nodes 5 --managers 3

demo-vm: ## the demo on virtual machines with Debian's kernel; SKEIN_VM_GUEST=uml for user-mode Linux
	@deploy/lab/demo.sh up --topology vm --managers $(or $(MANAGERS),1)

demo-vm-down demo-compose-down: demo-down ## the same as demo-down: there is one demo at a time

image: ## images of a node on the engine of DOCKER_HOST: skein, and skein-demo with the demo's programs
	$(CARGO) build --locked --release -p skein -p lab --bins
	@deploy/container/build.sh "$(TARGET)"/release base skein
	@deploy/container/build.sh "$(TARGET)"/release demo skein-demo

systemd: ## check deploy/systemd/ by systemd-analyze
	@deploy/systemd/check.sh

install: ## install the program and its unit below DESTDIR; docs/operations.md says what then
	install -D -m 755 "$(TARGET)"/release/skein $(DESTDIR)/usr/local/bin/skein
	install -D -m 644 deploy/systemd/skein.service $(DESTDIR)/etc/systemd/system/skein.service
	install -D -m 644 deploy/systemd/skein.sysctl.conf $(DESTDIR)/etc/sysctl.d/90-skein.conf
	install -D -m 644 deploy/systemd/skein.modules.conf $(DESTDIR)/etc/modules-load.d/skein.conf

bench-vertical: setup ## the figures of docs/benchmarks.md
	$(CARGO) build --locked --release -p skein -p lab -p tests --bins
	@"$(TARGET)"/release/skein-bench-vertical

bench-rollout: setup ## requests that fail while backends come, go and are lost, for docs/benchmarks.md
	$(CARGO) build --locked --release -p skein -p lab -p tests --bins
	@"$(TARGET)"/release/skein-bench-rollout

bench-writes: setup ## durable writes, and those of etcd, with OBJECTS services and networks there, for docs/benchmarks.md
	$(CARGO) build --locked --release -p skein -p lab -p tests --bins
	@"$(TARGET)"/release/skein-bench-writes $(OBJECTS)

bench-rows: setup ## two daemons among ROWS rows of other nodes, for docs/benchmarks.md
	$(CARGO) build --locked --release -p skein -p lab -p tests --bins
	@"$(TARGET)"/release/skein-bench-rows $(ROWS)

bench-services: setup ## lists of services that a manager answers a second, for docs/benchmarks.md
	$(CARGO) build --locked --release -p skein -p lab -p tests --bins
	@"$(TARGET)"/release/skein-bench-services

bench-topologies: setup-compose ## what machines of each kind cost, for docs/benchmarks.md
	@deploy/vm/setup.sh
	$(CARGO) build --locked --release -p skein -p lab -p tests --bins
	@"$(TARGET)"/release/skein-bench-topologies
