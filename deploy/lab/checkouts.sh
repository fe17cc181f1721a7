#!/usr/bin/env bash
# Play the first five minutes of someone new: clone the committed tree to where people put it, run the
# README's demo there, and take it down again. Exit status 77 says that it was skipped, and why.
set -euo pipefail
cd "$(dirname "$0")/../.."
source deploy/lab/steps.sh

# How long the demo may take to go.
DOWN_MS_MAX=3000
target=$(target_folder)

git rev-parse --verify -q HEAD >/dev/null ||
  { echo "checkouts: skipped: this is no git checkout, there is no commit to clone" && exit 77; }
git diff --quiet HEAD || echo "checkouts: what is not committed is not in the clones"

[ ! -e /var/lib/skein-lab/skein-demo ] ||
  { echo "checkouts: the demo is up, and this makes one of its own: make demo-down first" >&2 && exit 1; }

folder=$(mktemp -d /tmp/skein-checkouts-XXXXXX)
mounted=
clean_up() {
  if [ -e /var/lib/skein-lab/skein-demo ]; then "$target/release/skein-demo" down || true; fi
  if [ -n "$mounted" ]; then umount "$mounted"; fi
  rm -rf "$folder"
}
trap clean_up EXIT

# What 'make demo' builds, first and behind all else: guests of other tiers may run meanwhile.
build() (
  cd "$1" && CARGO_TARGET_DIR=$target nice -n 19 cargo build --locked --release -p skein -p lab --bins
)

make_there() { make --no-print-directory -C "$1" CARGO_TARGET_DIR="$target" "$2"; }

wrong() {
  echo "checkouts: $*" >&2
  return 1
}

# Each line says by itself that it failed: `step` looks at the status, so that `set -e` is off here.
play() {
  local place=$1 log=$target/checkouts.log begin took
  export CARGO_TARGET_DIR=$target
  make_there "$place" demo >"$log" 2>&1 || { tail -n 40 "$log" && wrong "make demo failed"; return 1; }
  cat "$log"
  grep -q "the task saw client 192.168.50.100" "$log" || wrong "the client's address is lost" || return 1
  grep -q "failed calls: 0" "$log" || wrong "calls failed" || return 1
  begin=$(date +%s%3N)
  make_there "$place" demo-down || wrong "make demo-down failed" || return 1
  took=$(($(date +%s%3N) - begin))
  echo "make demo-down took $took ms"
  [ $took -le $DOWN_MS_MAX ] || wrong "make demo-down took longer than $DOWN_MS_MAX ms" || return 1
  [ ! -e /var/lib/skein-lab/skein-demo ] || wrong "the demo's folder is left" || return 1
  ! ip netns list | grep "^skein-demo-" || wrong "namespaces are left"
}

# A path with what scripts trip over, and sources that may not be written to: all that is built goes to
# CARGO_TARGET_DIR.
checkout="$folder/a folder, größer/skein"
mkdir "$folder/a folder, größer"
git clone -q . "$checkout"
mount --bind "$checkout" "$checkout"
mounted=$checkout
mount -o remount,bind,ro "$checkout"
step "the release build of a read-only checkout below /tmp with a space and an umlaut in its path" \
  build "$checkout"
step "its demo" play "$checkout"
