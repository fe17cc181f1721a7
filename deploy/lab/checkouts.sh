#!/usr/bin/env bash
# Play the first five minutes of someone new: clone the committed tree to where people put it, run the
# README's demo there, and take it down again. What cargo has built of other crates is used. Exit
# status 77 says that it was skipped, and why.
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

folders=()
mounted=
clean_up() {
  if [ -e /var/lib/skein-lab/skein-demo ]; then "$target/release/skein-demo" down || true; fi
  if [ -n "$mounted" ]; then umount "$mounted"; fi
  rm -rf ${folders[@]+"${folders[@]}"}
}
trap clean_up EXIT

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

below_tmp=$(mktemp -d /tmp/skein-checkouts-XXXXXX)
elsewhere=$(mktemp -d /var/tmp/skein-checkouts-XXXXXX)
folders=("$below_tmp" "$elsewhere")

# This one is about the path. The crates of the workspace are built once more for it, so they are not
# optimised.
mkdir "$elsewhere/.cargo"
crates=$(cargo tree --locked --offline --workspace --depth 0 --prefix none --format '{p}')
while read -r crate _; do
  [ -z "$crate" ] || printf '[profile.release.package."%s"]\nopt-level = 0\n' "$crate"
done <<<"$crates" >"$elsewhere/.cargo/config.toml"

# Its sources may not be written to: all that is built goes to CARGO_TARGET_DIR.
odd="$elsewhere/a folder, größer/skein"
mkdir "$elsewhere/a folder, größer"
git clone -q . "$odd"
mount --bind "$odd" "$odd"
mounted=$odd
mount -o remount,bind,ro "$odd"
step "the demo from a read-only checkout with a space and an umlaut in its path" play "$odd"

# As someone new has it, and last: what is left in the target folder is a whole release build.
git clone -q . "$below_tmp/skein"
step "the demo from a checkout below /tmp" play "$below_tmp/skein"
