#!/usr/bin/env bash
# Fuzz every decoder that faces a peer or the disk for SECONDS in all, or the named targets:
# `fuzz.sh SECONDS [TARGET…]`; for 0 seconds they are built alone. What libFuzzer finds to be worth keeping stays in target/fuzz/corpus/
# and is where the next run goes on; an input that breaks a law stays in target/fuzz/artifacts/.
# Exits with 1 where one is found or a target did not run, and with 77 where cargo-fuzz or a C++ compiler
# cannot be had.
set -euo pipefail
cd "$(dirname "$0")/../.."
source deploy/lab/steps.sh

# It adds the flags that instrument code; no sanitizer, so that a stable compiler will do.
CARGO_FUZZ=0.13.2
# Of each crate, compiled side by side: cargo-fuzz's default of one builds slower.
CODEGEN_UNITS=16
# An input that takes longer counts as a loop.
INPUT_SECONDS=10
# Longer inputs are not made: what decoders do with many bytes, fewer show.
INPUT_BYTES=16384
# What a target may take of the machine, with all that libFuzzer holds.
RSS_MIB=2048
SKIPPED=77

seconds=${1:?fuzz.sh SECONDS [TARGET…]}
shift
target=$(target_folder)
tools=$target/tools
work=$target/fuzz
triple=$(rustc -vV | sed -n 's/^host: //p')
programs=$work/build/$triple/release
cores=$(nproc)

installed() { "$tools/bin/cargo-fuzz" --version 2>/dev/null | grep -qF " $CARGO_FUZZ"; }
install() {
  cargo install --quiet --locked --root "$tools" --version "=$CARGO_FUZZ" cargo-fuzz
}
skip() {
  echo "skipped: $1, nothing is fuzzed"
  exit $SKIPPED
}
build() {
  cargo metadata --quiet --locked --format-version 1 --manifest-path tests/fuzz/Cargo.toml >/dev/null &&
    "$tools/bin/cargo-fuzz" build --sanitizer none --codegen-units "$CODEGEN_UNITS" \
      --fuzz-dir tests/fuzz --target-dir "$work/build"
}

# The words of JSON, which no fuzzer guesses: those of a target's seeds, and of the API's bodies.
dictionary() {
  local words=("$work/seeds/$1"/*)
  [ "$1" != api_body ] || words+=(api/src/json_case/shapes.rs)
  grep -ahoE '"[A-Za-z_]{2,}"' "${words[@]}" | sort -u | sed 's/"/\\"/g; s/.*/"&"/' || true
}

# Fuzzes one target, from its seeds, from what was worth keeping, and from what once broke a law.
# A file with its name in passed/ says that it ran and nothing was found.
fuzz() {
  local name=$1 log=$work/logs/$1.log options runs edges
  local inputs=("$work/corpus/$name" "$work/seeds/$name")
  [ ! -d "tests/fuzz/found/$name" ] || inputs+=("tests/fuzz/found/$name")
  mkdir -p "$work"/{seeds,corpus,artifacts}/"$name"
  options=("-max_total_time=$each" "-timeout=$INPUT_SECONDS" "-max_len=$INPUT_BYTES"
    "-rss_limit_mb=$RSS_MIB" -print_final_stats=1 "-artifact_prefix=$work/artifacts/$name/")
  if SKEIN_FUZZ_SEEDS=$work/seeds/$name "$programs/$name" >"$log" 2>&1; then
    dictionary "$name" >"$work/logs/$name.dict"
    # libFuzzer refuses an empty one.
    [ ! -s "$work/logs/$name.dict" ] || options+=("-dict=$work/logs/$name.dict")
    if "$programs/$name" "${options[@]}" "${inputs[@]}" >"$log" 2>&1; then
      runs=$(sed -n 's/^stat::number_of_executed_units: //p' "$log")
      edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
      printf '%-20s %9s inputs, %6s edges\n' "$name" "${runs:-?}" "${edges:-?}"
      touch "$work/passed/$name"
      return
    fi
  fi
  echo "$name FAILED:"
  grep -a -m 1 -A 3 'panicked at\|^==.*ERROR\|^ERROR' "$log" || tail -n 20 "$log"
  grep -a 'Test unit written to' "$log" || true
}

installed || step "install cargo-fuzz $CARGO_FUZZ from crates.io" install ||
  skip "cargo-fuzz could not be installed"
command -v c++ >/dev/null || skip "there is no C++ compiler for libFuzzer: make setup installs one"
step "build the targets, instrumented" build
[ "$seconds" != 0 ] || exit 0
targets=("$@")
[ $# != 0 ] || mapfile -t targets < <(basename -s .rs tests/fuzz/targets/*.rs)
for name in "${targets[@]}"; do
  [ -x "$programs/$name" ] || { echo "no target is named $name: see tests/fuzz/targets/" >&2 && exit 2; }
done
each=$((seconds * cores / ${#targets[@]}))
[ "$each" -gt 0 ] || each=1
rm -rf "$work"/{seeds,passed,logs}
mkdir -p "$work"/{passed,logs}
# None outlives this script.
trap 'kill $(jobs -rp) 2>/dev/null || true' EXIT
echo "== ${#targets[@]} targets, $each s each, $cores at a time; findings go to $work/artifacts/"
for name in "${targets[@]}"; do
  while [ "$(jobs -rp | wc -l)" -ge "$cores" ]; do wait -n || true; done
  fuzz "$name" &
done
wait
failed=
for name in "${targets[@]}"; do
  [ -e "$work/passed/$name" ] || failed+=" $name"
done
[ -z "$failed" ] || {
  echo "failed:$failed; one input again: $programs/TARGET FILE"
  exit 1
}
