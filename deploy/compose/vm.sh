#!/bin/sh
# The first program of a container that is a virtual machine: moves the container's address and wire
# on to the guest, by a bridge of eth0 and a TAP, and runs the guest in the foreground.
set -eu
address=$(ip -o -4 address show dev eth0 | sed -n 's/.* inet \([0-9./]*\) .*/\1/p')
gateway=$(ip -o -4 route show default | sed -n 's/.* via \([0-9.]*\) .*/\1/p')
[ -n "$address" ] || { echo "vm: eth0 has no address to move to the guest" >&2; exit 1; }
[ -c /dev/net/tun ] || { echo "vm: /dev/net/tun is missing: modprobe tun on the host" >&2; exit 1; }

ip link add br0 type bridge
ip tuntap add tap0 mode tap
ip address flush dev eth0
for link in eth0 tap0; do ip link set $link master br0 up; done
ip link set br0 up

name=$(cat /proc/sys/kernel/hostname)
exec "$SKEIN_CHECKOUT/target/release/skein-vm" run --name "$name" --address "$address" \
  ${gateway:+--gateway "$gateway"} --tap tap0 --folder /var/lib/skein-vm
