# The two commands of the README are `make test` and `make demo`; each does all set-up by itself.
# Logic beyond a few lines is Rust in tests/src/bin or a script in deploy/lab/.
.PHONY: help check fix test sim netns vm compose tidy demo demo-down demo-vm demo-vm-down bench-vertical bench-topologies
.PHONY: setup setup-compose demo-compose demo-compose-down lab lab-down image systemd install build
CARGO ?= cargo
# One lab at a time: parallel clusters on two cores would measure each other.
SERIAL := -- --test-threads=1

help: ## show this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 18

setup: ## install the Debian packages needed, check root, cargo and its version
	@deploy/lab/setup.sh

build: ## build the daemon, the client and the demo programs (debug profile)
	$(CARGO) build --locked -p skein -p tests --bins

check: ## read-only gate: format, lints, tidy, every test that needs no root
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) test --locked -p tests --test tidy --test sim
	$(CARGO) test --locked -p cluster -p gossip -p netprog -p api -p raft-store
	$(CARGO) test --locked -p tests --lib --bins

fix: ## the mutating twin of check
	$(CARGO) fmt --all
	$(CARGO) clippy --fix --allow-dirty --allow-staged --workspace --all-targets

test: setup ## every tier, with the duration of each
	@deploy/lab/tiers.sh

sim: ## a thousand seeds of the simulator, or COUNT from FROM; the first that fails prints itself
	$(CARGO) run --locked -p tests --bin sim -- --count $(or $(COUNT),1000) --from $(or $(FROM),1)

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

demo: setup ## three nodes, redis behind a VIP, a web front on port 3000; MANAGERS=3 for three
	$(CARGO) build --locked --release -p skein -p tests --bins
	@target/release/skein-demo up --managers $(or $(MANAGERS),1)

demo-down: ## stop the demo; nothing of it stays
	@target/release/skein-demo down

lab: setup build ## a lab of NODES nodes (3), MANAGERS of them managers (1); see deploy/lab/README.md
	@target/debug/skein-lab up --nodes $(or $(NODES),3) --managers $(or $(MANAGERS),1)

lab-down: ## remove the lab; nothing of it stays
	@target/debug/skein-lab down

demo-compose: setup-compose ## the demo in containers: three managers and two workers
	$(CARGO) build --locked --release -p skein -p tests --bins
	@target/release/skein-demo up --topology containers --nodes 5 --managers 3

demo-vm: setup ## the demo on virtual machines with Debian's kernel; SKEIN_VM_GUEST=uml for user-mode Linux
	@deploy/vm/setup.sh
	$(CARGO) build --locked --release -p skein -p tests --bins
	@target/release/skein-demo up --topology vm --managers $(or $(MANAGERS),1)

demo-vm-down demo-compose-down: demo-down ## the same as demo-down: there is one demo at a time

image: ## images of a node on the engine of DOCKER_HOST: skein, and skein-demo with the demo's programs
	$(CARGO) build --locked --release -p skein -p tests --bins
	@deploy/container/build.sh target/release base skein
	@deploy/container/build.sh target/release demo skein-demo

systemd: ## check deploy/systemd/ by systemd-analyze
	@deploy/systemd/check.sh

install: ## install the program and its unit below DESTDIR; docs/operations.md says what then
	install -D -m 755 target/release/skein $(DESTDIR)/usr/local/bin/skein
	install -D -m 644 deploy/systemd/skein.service $(DESTDIR)/etc/systemd/system/skein.service
	install -D -m 644 deploy/systemd/skein.sysctl.conf $(DESTDIR)/etc/sysctl.d/90-skein.conf
	install -D -m 644 deploy/systemd/skein.modules.conf $(DESTDIR)/etc/modules-load.d/skein.conf

bench-vertical: setup ## the figures of docs/benchmarks.md
	$(CARGO) build --locked --release -p skein -p tests --bins
	@target/release/skein-bench-vertical

bench-topologies: setup-compose ## what machines of each kind cost, for docs/benchmarks.md
	@deploy/vm/setup.sh
	$(CARGO) build --locked --release -p skein -p tests --bins
	@target/release/skein-bench-topologies
