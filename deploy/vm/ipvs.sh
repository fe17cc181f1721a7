#!/usr/bin/env bash
# Run the tests of the IPVS balancer in a guest: deploy/vm/ipvs.sh uml|qemu. Needs a build.
set -euo pipefail
cd "$(dirname "$0")/../.."

guest=${1:?give the guest: uml or qemu}
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$PWD/target/debug/skein-vm test --guest $guest --"
exec cargo test --locked --workspace --exclude tests --test ipvs -- --test-threads=1
