#!/usr/bin/env bash
# Run the tests of the IPVS balancer in a guest: deploy/vm/ipvs.sh uml|qemu. Needs a build.
set -euo pipefail
cd "$(dirname "$0")/../.."

guest=${1:?give the guest: uml or qemu}
words=(--test-threads=1)
if [ "$guest" = qemu ]; then
  # See docs/limits.md: one client port towards two nodes.
  echo "ipvs: 1 skipped on kernel 6.1: one_client_port_can_call_both_nodes fails there"
  words+=(--skip paths::one_client_port_can_call_both_nodes)
fi
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$PWD/target/debug/skein-vm test --guest $guest --"
exec cargo test --locked --workspace --exclude tests --test ipvs -- "${words[@]}"
