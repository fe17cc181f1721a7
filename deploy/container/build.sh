#!/usr/bin/env bash
# Build a node's image: `build.sh PROGRAMS TARGET TAG [DOCKER OPTION…]`, as in
# `build.sh target/release demo skein-demo -H unix:///run/docker.sock`. Nothing is pulled.
set -euo pipefail
programs=$1 target=$2 tag=$3
shift 3
out=$programs/../container-$(basename "$programs")
"$(dirname "$0")/tree.sh" "$programs" "$out"
# Without the buildx plugin docker's client builds in the way it had before, and says so each time.
docker "$@" build -q -t "$tag" --target "$target" -f "$(dirname "$0")/Dockerfile" "$out/trees" 2> >(grep -v \
  -e DEPRECATED -e 'Install the buildx' -e docs.docker.com -e '^$' >&2)
