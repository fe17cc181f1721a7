#!/usr/bin/env bash
# Run the tests of the IPVS balancer in a guest: deploy/vm/ipvs.sh uml|qemu. Needs a build.
set -euo pipefail
cd "$(dirname "$0")/../.."

guest=${1:?give the guest: uml or qemu}
source deploy/lab/steps.sh
# A list, so that the path may hold spaces.
runner="['$(target_folder)/debug/skein-vm', 'test', '--guest', '$guest', '--']"
exec cargo --config "target.'cfg(all())'.runner=$runner" test --locked --workspace --exclude tests \
  --exclude lab --test ipvs -- --test-threads=1
