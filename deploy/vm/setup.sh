#!/usr/bin/env bash
# Make a Debian machine ready for virtual machines: install what building and running guests calls.
# No service is started by the installation. Does nothing where all is there.
set -euo pipefail

fail() {
  echo "setup: $*" >&2
  exit 1
}

# program:package
missing=()
for pair in qemu-system-x86_64:qemu-system-x86 mke2fs:e2fsprogs depmod:kmod strip:binutils \
  make:make gcc:gcc flex:flex bison:bison bc:bc xz:xz-utils ip:iproute2 nft:nftables; do
  PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
[ -e /usr/include/stdlib.h ] || missing+=(libc6-dev)
[ -e /usr/share/seabios/bios-256k.bin ] || [ -e /usr/share/qemu/bios-256k.bin ] ||
  missing+=(seabios)
[ ${#missing[@]} != 0 ] || exit 0

[ "$(id -u)" = 0 ] || fail "missing: ${missing[*]}; run it as root, for example with sudo"
command -v apt-get >/dev/null || fail "missing: ${missing[*]}; this machine has no apt-get"

# Debian asks this program before it starts a service; 101 means no.
policy=/usr/sbin/policy-rc.d
saved=
[ -e "$policy" ] && saved=$(mktemp) && cp -p "$policy" "$saved"
restore() {
  if [ -n "$saved" ]; then mv "$saved" "$policy"; else rm -f "$policy"; fi
}
trap restore EXIT
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
echo "setup: installing ${missing[*]}"
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
