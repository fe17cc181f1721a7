# What the scripts of this folder share: where cargo builds, and steps that say what they do and how
# long it took. To be sourced by bash, in the checkout's root.

# The folder that cargo builds in, wherever its settings or CARGO_TARGET_DIR put it.
target_folder() {
  local folder
  folder=$(cargo metadata --format-version 1 --no-deps --offline 2>/dev/null |
    sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
  echo "${folder:-${CARGO_TARGET_DIR:-$PWD/target}}"
}

# step WHAT COMMAND…: says what, runs the command, says how long it took.
step() {
  local what=$1 begin=$SECONDS status=0
  shift
  echo "== $what"
  "$@" || status=$?
  if [ "$status" = 0 ]; then
    echo "== done in $((SECONDS - begin)) s: $what"
  else
    echo "== FAILED after $((SECONDS - begin)) s: $what" >&2
  fi
  return "$status"
}

# room MIB: whether a build that takes so much of the disk in all still fits where cargo builds.
room() {
  local needed=$1 folder parent built free
  folder=$(target_folder)
  parent=$folder
  while [ ! -e "$parent" ]; do parent=$(dirname "$parent"); done
  built=$(du -sm "$folder" 2>/dev/null | cut -f1)
  needed=$((needed - ${built:-0}))
  free=$(df --output=avail -m "$parent" | tail -n1)
  [ "$needed" -le 0 ] || [ "$free" -ge "$needed" ] || {
    echo "the build needs $needed MiB more in $folder, ${free// /} MiB are free there: free some," \
      "or let CARGO_TARGET_DIR name a folder on another disk" >&2
    return 1
  }
}
