#!/usr/bin/env bash
# Make a Debian machine ready for `make test` and `make demo`: check root and cargo, install the
# packages that the lab needs. No service is started by the installation.
set -euo pipefail
cd "$(dirname "$0")/../.."

fail() {
  echo "setup: $*" >&2
  exit 1
}

[ "$(id -u)" = 0 ] || fail "network namespaces need root: run it as root, for example with sudo -E"

wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
command -v cargo >/dev/null || fail "cargo is not installed: install Rust $wanted or newer with" \
  "rustup (rustup.rs): rustup toolchain install $wanted"
found=$(cargo --version | cut -d' ' -f2)
oldest=$(printf '%s\n%s\n' "$wanted" "${found%%-*}" | sort -V | head -n1)
[ "$oldest" = "$wanted" ] || fail "cargo is $found, this workspace needs $wanted or newer:" \
  "rustup update stable (or rustup toolchain install $wanted && rustup default $wanted)"

# program:package
missing=()
for pair in nft:nftables ip:iproute2 redis-server:redis-server redis-cli:redis-tools \
  ping:iputils-ping dig:bind9-dnsutils ps:procps curl:curl gcc:gcc mount:mount \
  systemd-analyze:systemd; do
  PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
[ -e /usr/include/stdlib.h ] || missing+=(libc6-dev)
docker=no
command -v docker >/dev/null || docker=missing
if [ ${#missing[@]} = 0 ] && [ "$docker" = no ]; then
  exit 0
fi

command -v apt-get >/dev/null || fail "missing: ${missing[*]} ${docker/no/}; this machine has no" \
  "apt-get, install them by hand"

apt-get update -qq
if [ "$docker" = missing ]; then
  # The client alone where Debian has it as a package of its own, else the one inside docker.io.
  if apt-cache show docker-cli >/dev/null 2>&1; then missing+=(docker-cli); else missing+=(docker.io); fi
fi
deploy/lab/install.sh "${missing[@]}"
