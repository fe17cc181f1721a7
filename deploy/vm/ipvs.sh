#!/usr/bin/env bash
# Run the tests of the IPVS balancer in guests, side by side: deploy/vm/ipvs.sh GUEST…, of uml and
# qemu. Needs a build. Each line of what they print begins with its guest's name.
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

# Jobs with groups of their own, which an interruption ends whole.
set -m
processes=()
end() {
  trap '' INT TERM
  for process in "${processes[@]}"; do kill -TERM -- "-$process" 2>/dev/null || true; done
  exit 130
}
trap end INT TERM
for guest in "$@"; do
  (run "$guest" 2>&1 | sed -u "s/^/$guest: /") &
  processes+=($!)
done
failed=()
for process in "${processes[@]}"; do
  wait "$process" || failed+=("$1")
  shift
done
[ ${#failed[@]} = 0 ] || { echo "ipvs: failed in ${failed[*]}" && exit 1; }
