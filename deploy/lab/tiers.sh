#!/usr/bin/env bash
# Run every tier of tests and say how long each took: one after the other, but for ipvs, whose guests
# leave a core free for the checkouts' build. A tier that fails does not hide the next ones: all run, and
# the exit status tells whether any failed. `tiers.sh NAME…` runs these alone, after the build. Ctrl-C
# ends the tiers that run and removes their lab.
set -uo pipefail
cd "$(dirname "$0")/../.."
source deploy/lab/steps.sh

# Errors carry their whole chain in words; a backtrace of each would bury them.
export RUST_BACKTRACE=0
# What a whole build takes of the disk. Estimated: no clean build was weighed.
BUILD_MIB=11000
# How long Ctrl-C waits until a tier has ended, before it is killed.
END_SECONDS=5
LABS=/var/lib/skein-lab
target=$(target_folder)
logs=$target/tiers
if [ -e $LABS/skein-demo ]; then
  echo "the demo is up ($LABS/skein-demo), and tests make one of their own: make demo-down first" >&2
  exit 1
fi
for lab in "$LABS"/*; do
  case ${lab##*/} in
  skl-* | "*") ;;
  *) echo "== lab ${lab##*/} is up and takes its part of the cores: skein-lab down --name ${lab##*/}" ;;
  esac
done
room $BUILD_MIB || exit 1
mkdir -p "$logs"

# What guests boot from takes minutes to build where the cache does not have it: in the background,
# behind all else, until it is needed.
images=
start_images() {
  nice -n 19 bash -c 'deploy/vm/setup.sh && "$0/debug/skein-vm" build qemu uml' "$target" \
    >"$target/images.log" 2>&1 &
  images=$!
}
await_images() {
  # Its status, once it has ended, is kept for the shell that started it: this one.
  wait "$images" || { cat "$target/images.log" && return 1; }
}

# The guests of ipvs begin when the images are there. Most of their time one of them uses one core, and
# the checkouts' build has the other.
ipvs= ipvs_begin=0
start_ipvs() {
  ipvs_begin=$SECONDS
  deploy/vm/ipvs.sh uml qemu </dev/null >"$logs/ipvs.log" 2>&1 &
  ipvs=$!
}
await_ipvs() {
  local status=0
  wait "$ipvs" || status=$?
  ipvs=
  cat "$logs/ipvs.log"
  return $status
}

# The instrumented decoders are built in the background, when the images are there. Their tier waits for
# cargo's lock.
fuzzing=
start_fuzzing() {
  nice -n 19 bash -c '[ -z "$0" ] || tail --pid="$0" -f /dev/null; deploy/lab/fuzz.sh 0' "$images" \
    >"$target/fuzzing.log" 2>&1 &
  fuzzing=$!
}

names=() seconds=() commands=()
plan() {
  names+=("$1") seconds+=("$2")
  shift 2
  commands+=("$(printf '%q ' "$@")")
}
# Name, how long it took on two cores when it was last looked at, command.
plan format 2 bash -c 'cargo fmt --all --check && cargo fmt --manifest-path tests/fuzz/Cargo.toml --check'
plan lints 310 cargo clippy --locked --workspace --all-targets -- -D warnings
plan lints-fuzz 40 cargo clippy --locked -p skein --features fuzzing -- -D warnings
plan build 173 cargo build --locked -p skein -p lab -p tests --bins
plan tidy 36 cargo test --locked -p tests --test tidy
plan sim 90 cargo test --locked -p tests --test sim
plan crates 250 cargo test --locked --no-fail-fast --workspace --exclude tests --exclude lab
plan lab 20 cargo test --locked -p lab -p tests --lib --bins
plan systemd 1 deploy/systemd/check.sh
plan netns 900 cargo test --locked -p tests --test netns -- --test-threads=1
plan images 90 await_images
plan checkouts 370 deploy/lab/checkouts.sh
plan ipvs 310 await_ipvs
plan vm 600 cargo test --locked -p skein -p tests --test vm -- --test-threads=1
plan docker 10 deploy/compose/setup.sh
plan compose 340 cargo test --locked -p tests --test compose -- --test-threads=1
plan fuzz 120 deploy/lab/fuzz.sh 90

for name in "$@"; do
  case " ${names[*]} " in
  *" $name "*) ;;
  *) echo "no tier is named $name: there are ${names[*]}" >&2 && exit 2 ;;
  esac
done
# What others need is always run.
chosen() {
  [ $# = 1 ] && return 0
  local name=$1
  shift
  case "$name" in build) return 0 ;; esac
  case " $* " in *" $name "*) return 0 ;; esac
  case "$name: $* " in
  images:*" ipvs "* | images:*" vm "* | images:*" compose "*) return 0 ;;
  docker:*" compose "*) return 0 ;;
  esac
  return 1
}

report=()
failed=()
skipped=()
running=
# A job of its own, whose group a signal of the terminal does not reach: `interrupted` ends it.
set -m
tier() {
  local name=$1 begin=$SECONDS status=0 verdict=ok
  echo "== $name: $2"
  case $name in
  images) await_images > >(tee "$logs/$name.log") 2>&1 || status=$? ;;
  ipvs) begin=$ipvs_begin && { await_ipvs || status=$?; } ;;
  *)
    eval "$2" </dev/null > >(tee "$logs/$name.log") 2>&1 &
    running=$!
    wait "$running" || status=$?
    running=
    ;;
  esac
  case $status in
  0) ;;
  77) verdict=skipped && skipped+=("$name") ;;
  *) verdict=FAILED && failed+=("$name") ;;
  esac
  report+=("$(printf '%-10s %5d s  %s' "$name" $((SECONDS - begin)) "$verdict")")
}
end_group() {
  local looks
  [ -n "$1" ] || return 0
  kill -TERM -- "-$1" 2>/dev/null
  for ((looks = 0; looks < END_SECONDS * 10; looks++)); do
    kill -0 -- "-$1" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL -- "-$1" 2>/dev/null
}
interrupted() {
  trap '' INT TERM HUP
  echo
  echo "== interrupted: what runs is ended, and what it made is removed"
  end_group "$running"
  end_group "$ipvs"
  end_group "$images"
  end_group "$fuzzing"
  if [ -x "$target/debug/skein-lab" ]; then "$target/debug/skein-lab" sweep; fi
  summary
  exit 130
}

# What failed is told again at the end: a thousand lines may have followed it.
complaints() {
  local name
  for name in ${failed[@]+"${failed[@]}"}; do
    echo
    echo "== $name FAILED; its last lines, the whole of it in $logs/$name.log:"
    tail -n 40 "$logs/$name.log" | cut -c -300
  done
}
summary() {
  echo
  echo "== tiers"
  printf '%s\n' ${report[@]+"${report[@]}"}
}

total=0 listed=
for index in "${!names[@]}"; do
  chosen "${names[index]}" "$@" || continue
  total=$((total + seconds[index]))
  listed+=" ${names[index]}"
done
echo "== these tiers will run, in about $(((total + 59) / 60)) minutes on two cores where nothing is built:$listed"
echo "== what each prints goes to $logs; Ctrl-C ends it all and removes what it made"

trap interrupted INT TERM HUP
for index in "${!names[@]}"; do
  chosen "${names[index]}" "$@" || continue
  tier "${names[index]}" "${commands[index]}"
  # Nothing else can be without it.
  if [ "${names[index]}" = build ]; then
    [ ${#failed[@]} = 0 ] || [[ " ${failed[*]} " != *" build "* ]] || break
    if chosen images "$@"; then start_images; fi
    if chosen fuzz "$@"; then start_fuzzing; fi
  fi
  if [ "${names[index]}" = images ] && chosen ipvs "$@"; then start_ipvs; fi
done

complaints
summary
[ ${#skipped[@]} = 0 ] || echo "skipped, the reason is above: ${skipped[*]}"
if [ ${#failed[@]} != 0 ]; then
  echo "failed: ${failed[*]}"
  echo "to look further: $logs/NAME.log; daemons' logs of the labs in $target/debug/lab-logs;" \
    "one tier again: make test TIERS=${failed[0]}"
  exit 1
fi
