#!/usr/bin/env bash
# Make a Debian machine ready for `make test` and `make demo`: check root and cargo, install the
# packages that the lab needs, check what the kernel must have. No service is started by the
# installation. What is missing is said in one line with the remedy.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH=$PATH:/usr/sbin:/sbin

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

install_missing() {
  # program:package
  local missing=() docker=no pair
  for pair in nft:nftables ip:iproute2 redis-server:redis-server redis-cli:redis-tools \
    ping:iputils-ping dig:bind9-dnsutils ps:procps curl:curl gcc:gcc c++:g++ mount:mount unshare:util-linux chattr:e2fsprogs \
    systemd-analyze:systemd faketime:faketime openssl:openssl; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
  done
  [ -e /usr/include/stdlib.h ] || missing+=(libc6-dev)
  command -v docker >/dev/null || docker=missing
  if [ ${#missing[@]} = 0 ] && [ "$docker" = no ]; then
    return 0
  fi

  command -v apt-get >/dev/null || fail "missing: ${missing[*]} ${docker/no/}; this machine has no" \
    "apt-get, install them by hand"

  apt-get update -qq
  if [ "$docker" = missing ]; then
    # The client alone where Debian has it as a package of its own, else the one inside docker.io.
    if apt-cache show docker-cli >/dev/null 2>&1; then missing+=(docker-cli); else missing+=(docker.io); fi
  fi
  deploy/lab/install.sh "${missing[@]}"
}

# What the lab and its nodes ask of this kernel, tried in a network namespace that is gone at once.
in_namespace() {
  # Its last words are the reason, in parentheses.
  reason=$(unshare --net --mount -- "$@" 2>&1 >/dev/null) && return 0
  reason="$* says: $(echo "$reason" | tail -n1)"
  return 1
}
check_kernel() {
  local advice="in a container, start it with --privileged, or use a virtual machine"
  in_namespace true ||
    fail "root may make no network and mount namespaces here: $advice ($reason)"
  in_namespace mount -t tmpfs none /mnt ||
    fail "root may mount nothing here, which tasks need: $advice ($reason)"
  in_namespace ip link add name vx0 type vxlan id 1 dstport 4789 ||
    fail "this kernel makes no VXLAN device: modprobe vxlan, or boot a kernel that has" \
      "CONFIG_VXLAN ($reason)"
  in_namespace ip link add name br0 type bridge ||
    fail "this kernel makes no bridge: modprobe bridge, or boot a kernel that has" \
      "CONFIG_BRIDGE ($reason)"
  in_namespace ip link add name ve0 type veth peer name ve1 ||
    fail "this kernel makes no veth pair: modprobe veth, or boot a kernel that has" \
      "CONFIG_VETH ($reason)"
  in_namespace nft add table netdev skein-setup ||
    fail "this kernel has no nftables: modprobe nf_tables, or boot a kernel that has" \
      "CONFIG_NF_TABLES_NETDEV ($reason)"
}

install_missing
check_kernel
