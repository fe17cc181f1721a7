#!/usr/bin/env bash
# Put together the file trees of the container images, in OUT/trees, from Debian packages: the
# programs of each list below and the libraries that they load, nothing else. The packages come from this machine's
# own Debian sources, so that their libc is the one that the programs of PROGRAMS were built
# against. Usage: tree.sh PROGRAMS OUT, as in `tree.sh target/release target/container`.
set -euo pipefail

programs=$(realpath "$1")
mkdir -p "$2"
out=$(realpath "$2")

# What the daemon calls: nft. `skein` itself links libc and libgcc_s.
base_packages=(libc6 libgcc-s1 nftables)
base_programs=(nft)
# What the demo, the tests and a look around in a node need.
demo_packages=(dash coreutils grep sed procps libc-bin iproute2 iputils-ping bind9-dnsutils
  redis-server redis-tools curl mount util-linux)
demo_programs=(sh dash cat cut date dd echo env false head id kill ls mkdir mv rm seq sleep sort
  tail tee test timeout touch tr true uniq wc grep sed ps pgrep pidof getent ip ss bridge ping dig
  redis-server redis-cli curl mount umount nsenter unshare)

fail() {
  echo "container image: $*" >&2
  exit 1
}

# All packages with what they depend on, as if nothing were installed here; those that an earlier
# build fetched are not fetched again.
fetch() {
  : >"$out/status"
  mkdir -p "$out/packages/partial"
  apt-get -qq -y --no-install-recommends --download-only -o Debug::NoLocking=1 \
    -o Dir::State::status="$out/status" -o Dir::Cache::archives="$out/packages" \
    install "$@" >"$out/fetch.log" 2>&1 && return
  tail -n 3 "$out/fetch.log" >&2
  fail "Debian packages cannot be fetched: this needs apt-get and a way to its mirror, or the" \
    "packages of an earlier build in $out/packages. Is the list too old? Try apt-get update"
}

unpack() {
  [ "$(ls "$out/packages")" != "$(cat "$stage/list" 2>/dev/null)" ] || return 0
  rm -rf "$stage"
  for package in "$out"/packages/*.deb; do dpkg -x "$package" "$stage"; done
  ls "$out/packages" >"$stage/list"
}

# The libraries that a program loads, as paths in the stage, found by the stage's own loader.
libraries() {
  "$loader" --library-path "$stage/lib/$triplet:$stage/usr/lib/$triplet" --list "$1" 2>/dev/null |
    sed -n 's/.*=> \(.*\) (0x.*/\1/p' | grep "^$stage/" || true
}

# Put a file at a place of a tree, unless the base, below every other tree, has it.
place() {
  [ -e "$base/$2" ] || install -D "$(realpath "$1")" "$tree/$2"
}

# A program and all that it loads. Libraries lie in one folder, where the loader looks.
place_program() {
  place "$1" "usr/bin/$(basename "$1")"
  for library in "$loader" $(libraries "$1"); do
    place "$library" "usr/lib/$triplet/$(basename "$library")"
  done
}

place_package_programs() {
  for name in "$@"; do
    for folder in usr/bin usr/sbin bin sbin none; do
      [ ! -e "$stage/$folder/$name" ] || break
    done
    [ "$folder" != none ] || fail "no package of tree.sh holds the program $name"
    place_program "$stage/$folder/$name"
  done
}

command -v apt-get >/dev/null || fail "this needs Debian's apt-get: build it on a Debian machine"
stage=$out/stage
base=$out/trees/base
triplet=$(gcc -dumpmachine)
fetch "${base_packages[@]}" "${demo_packages[@]}"
unpack
loader=$(echo "$stage"/lib*/ld-linux*.so.*)

tree=$base
rm -rf "$out/trees"
mkdir -p "$tree"/{usr/{bin,sbin,lib,lib64},etc/skein,var/lib/skein,run,tmp,proc,sys,dev}
for name in bin sbin lib lib64; do ln -s "usr/$name" "$tree/$name"; done
chmod 1777 "$tree/tmp"
# Programs name their loader by this path.
ln -s "../lib/$triplet/$(basename "$loader")" "$tree/usr/lib64/"
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$tree/etc/passwd"
printf 'root:x:0:\ntty:x:5:\nnogroup:x:65534:\n' >"$tree/etc/group"
printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$tree/etc/nsswitch.conf"
echo 'PRETTY_NAME="Skein node"' >"$tree/etc/os-release"
place_package_programs "${base_programs[@]}"
place_program "$programs/skein"
strip "$tree/usr/bin/skein"

tree=$out/trees/demo
place_package_programs "${demo_programs[@]}"
for name in skein-demo-worker skein-demo-vote skein-lab-probe; do
  place_program "$programs/$name"
  strip "$tree/usr/bin/$name"
done
