#!/usr/bin/env bash
# Run every tier of tests, one after the other, and say how long each took. A tier that fails does
# not hide the next ones: all run, and the exit status tells whether any failed.
set -uo pipefail
cd "$(dirname "$0")/../.."

# Errors carry their whole chain in words; a backtrace of each would bury them.
export RUST_BACKTRACE=0
logs=target/tiers
mkdir -p "$logs"

report=()
failed=()
tier() {
  local name=$1 begin=$SECONDS verdict=ok
  shift
  echo "== $name: $*"
  "$@" > >(tee "$logs/$name.log") 2>&1 || { verdict=FAILED && failed+=("$name"); }
  report+=("$(printf '%-10s %5d s  %s' "$name" $((SECONDS - begin)) "$verdict")")
}
# What failed is told again at the end: a thousand lines may have followed it.
complaints() {
  local name
  for name in "${failed[@]}"; do
    echo
    echo "== $name FAILED; its last lines ($logs/$name.log):"
    tail -n 40 "$logs/$name.log" | cut -c -300
  done
}

# What guests boot from takes minutes to build where the cache does not have it: in the background,
# behind all else, until it is needed.
start_images() {
  nice -n 19 bash -c 'deploy/vm/setup.sh && target/debug/skein-vm build qemu uml' \
    >target/debug/images.log 2>&1 &
  building=$!
}
await_images() {
  wait "$building" || { cat target/debug/images.log && return 1; }
}

tier format cargo fmt --all --check
tier lints cargo clippy --locked --workspace --all-targets -- -D warnings
tier build cargo build --locked -p skein -p tests --bins
start_images
tier tidy cargo test --locked -p tests --test tidy
tier sim cargo test --locked -p tests --test sim
tier crates cargo test --locked --workspace --exclude tests
tier lab cargo test --locked -p tests --lib --bins
tier systemd deploy/systemd/check.sh
tier netns cargo test --locked -p tests --test netns -- --test-threads=1
tier images await_images
tier ipvs deploy/vm/ipvs.sh uml
tier ipvs-6.1 deploy/vm/ipvs.sh qemu
tier vm cargo test --locked -p skein -p tests --test vm -- --test-threads=1
tier docker deploy/compose/setup.sh
tier compose cargo test --locked -p tests --test compose -- --test-threads=1

complaints
echo
echo "== tiers"
printf '%s\n' "${report[@]}"
[ ${#failed[@]} = 0 ] || { echo "failed: ${failed[*]}" && exit 1; }
