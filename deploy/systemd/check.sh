#!/usr/bin/env bash
# Check the unit: no complaint by systemd-analyze, no more exposure than it has, and what it says of
# capabilities and files is what the code and the other files say. CI runs it by `make systemd`.
set -euo pipefail
cd "$(dirname "$0")"

# What is left when everything that a node needs is allowed; README.md says what each costs.
EXPOSURE_TENTHS_MAX=73

fail() {
  echo "systemd: $*" >&2
  exit 1
}

command -v systemd-analyze >/dev/null || fail "systemd-analyze is missing: apt-get install systemd"
unit=$(mktemp -d)/skein.service
trap 'rm -r "$(dirname "$unit")"' EXIT
# The program need not be installed here; everything else is checked as it is.
sed "s|^ExecStart=/usr/local/bin/skein|ExecStart=$(command -v true)|" skein.service >"$unit"
complaints=$(systemd-analyze verify --recursive-errors=one "$unit" 2>&1) || fail "$complaints"
[ -z "$complaints" ] || fail "$complaints"

exposure=$(systemd-analyze security --offline=true --no-pager "$unit" |
  sed -n 's/.*exposure level for skein.service: \([0-9]*\)\.\([0-9]\).*/\1\2/p')
[ -n "$exposure" ] || fail "systemd-analyze security names no exposure level"
[ "$exposure" -le $EXPOSURE_TENTHS_MAX ] ||
  fail "exposure is $exposure tenths, $EXPOSURE_TENTHS_MAX are allowed: close it, or say why not"

# Settings that would break a node; why, README.md says.
forbidden='^(Protect[A-Za-z]*|Private[A-Za-z]*|MountFlags|ReadWritePaths|ReadOnlyPaths|TemporaryFileSystem'
forbidden+='|InaccessiblePaths|BindPaths|RootDirectory|DynamicUser|MemoryDenyWriteExecute)='
! grep -E "$forbidden" skein.service || fail "the setting above gives the unit its own mounts"

for file in skein.sysctl.conf skein.modules.conf; do
  ! grep -vE '^(#.*|[a-z0-9_.]+( = [0-9]+)?)$' $file || fail "$file: the line above is no setting"
done
echo "systemd: the unit verifies, exposure $exposure tenths of $EXPOSURE_TENTHS_MAX"
