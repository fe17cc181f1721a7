#!/usr/bin/env bash
# The demo: `demo.sh up [--topology KIND] [--nodes N] [--managers M]` sets this machine up, builds the
# daemon and the demo's programs, and starts it all; `demo.sh down` removes it.
set -euo pipefail
cd "$(dirname "$0")/../.."
source deploy/lab/steps.sh

# What a whole build takes of the disk: 735 MiB, and room for the linker.
BUILD_MIB=1300
FOLDER=/var/lib/skein-lab/skein-demo

fail() {
  echo "demo: $*" >&2
  exit 1
}

command=${1:-}
shift || true
case $command in
up)
  [ ! -e $FOLDER ] || fail "it is up already: make demo-down stops it ($FOLDER)"
  case " $* " in
  *" containers "*) step "set this machine up" deploy/compose/setup.sh ;;
  *" vm "*) step "set this machine up" bash -c 'deploy/lab/setup.sh && deploy/vm/setup.sh' ;;
  *) step "set this machine up" deploy/lab/setup.sh ;;
  esac
  room $BUILD_MIB || exit 1
  step "build the daemon and the demo's programs (the first time: about 4 minutes on two cores)" \
    cargo build --locked --release -p skein -p lab --bins ||
    fail "the compiler's words are above; nothing was started"
  exec "$(target_folder)/release/skein-demo" up "$@"
  ;;
down)
  program=$(target_folder)/release/skein-demo
  if [ -x "$program" ]; then exec "$program" down; fi
  [ ! -e $FOLDER ] || fail "$FOLDER is there, but not by this checkout, which has no $program:" \
    "run make demo-down where make demo was run"
  echo "There is no demo."
  ;;
*) fail "say demo.sh up or demo.sh down" ;;
esac
