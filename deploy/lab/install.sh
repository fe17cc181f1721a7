#!/usr/bin/env bash
# Install Debian packages, without what they recommend and without starting any service of theirs.
set -euo pipefail

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

echo "setup: installing $*"
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
