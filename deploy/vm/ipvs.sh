#!/usr/bin/env bash
# Run the tests of the IPVS balancer in guests, side by side: deploy/vm/ipvs.sh [uml] [qemu]. Needs a
# build.
set -euo pipefail
cd "$(dirname "$0")/../.."

[ $# -gt 0 ] || { echo "ipvs: give guests: uml, qemu" >&2 && exit 2; }
source deploy/lab/steps.sh

run() {
  # A list, so that the path may hold spaces.
  local runner="['$(target_folder)/debug/skein-vm', 'test', '--guest', '$1', '--']"
  cargo --config "target.'cfg(all())'.runner=$runner" test --locked --workspace --exclude tests \
    --exclude lab --test ipvs -- --test-threads=1
}

logs=$(mktemp -d)
trap 'rm -r "$logs"' EXIT
processes=() failed=
for guest in "$@"; do
  run "$guest" >"$logs/$guest" 2>&1 &
  processes+=($!)
done
for process in "${processes[@]}"; do
  wait "$process" || failed=yes
  guest=$1
  shift
  echo "== guest $guest"
  cat "$logs/$guest"
done
[ -z "$failed" ]
