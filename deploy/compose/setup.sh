#!/usr/bin/env bash
# Make a Debian machine ready for `make compose` and `make demo-compose`: what the lab needs, and
# Docker's engine and compose. An engine or a compose that is there already is left as it is, and no
# service is started.
set -euo pipefail
cd "$(dirname "$0")/../.."
deploy/lab/setup.sh

missing=()
PATH=$PATH:/usr/sbin:/sbin
command -v dockerd >/dev/null || missing+=(docker.io)
command -v docker-compose >/dev/null || docker compose version >/dev/null 2>&1 ||
  missing+=(docker-compose)
# dockerd programs its networks with iptables; images are made by gcc's and binutils' programs.
command -v iptables >/dev/null || missing+=(iptables)
command -v strip >/dev/null || missing+=(binutils)
[ ${#missing[@]} = 0 ] && exit 0
command -v apt-get >/dev/null || {
  echo "setup: missing: ${missing[*]}; this machine has no apt-get, install them by hand" >&2
  exit 1
}
apt-get update -qq
deploy/lab/install.sh "${missing[@]}"
