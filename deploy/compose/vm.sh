#!/bin/sh
# The first program of a container that is a virtual machine: moves the container's address and wire
# on to the guest, by a bridge of eth0 and a TAP, and runs the guest and a daemon in it in the
# foreground. The container's log is the daemon's. With words it runs these in the guest that runs.
set -eu
programs=/skein-programs
if [ $# != 0 ]; then
  guest=$(ip -o -4 route show dev br0 | sed -n 's/^\([0-9.]*\) .*src 169\.254.*/\1/p')
  exec "$programs/skein-lab-agent" call - "$guest:1023" -- "$@"
fi
address=$(ip -o -4 address show dev eth0 | sed -n 's/.* inet \([0-9./]*\) .*/\1/p')
gateway=$(ip -o -4 route show default | sed -n 's/.* via \([0-9.]*\) .*/\1/p')
[ -n "$address" ] || { echo "vm: eth0 has no address to move to the guest" >&2; exit 1; }
[ -c /dev/net/tun ] || { echo "vm: /dev/net/tun is missing: modprobe tun on the host" >&2; exit 1; }

ip link add br0 type bridge
ip tuntap add tap0 mode tap
ip address flush dev eth0
for link in eth0 tap0; do ip link set $link master br0 up; done
ip link set br0 up

# The guest's agent is asked from here all the same, by a link-local address (RFC 3927) whose last
# bytes are the guest's: no two of the underlay are the same.
guest=${address%/*}
local=169.254.$(echo "$guest" | sed 's/^[0-9]*\.[0-9]*\.//')
ip address add "$local/32" dev br0
ip route add "$guest/32" dev br0 src "$local"

name=$(cat /proc/sys/kernel/hostname)
exec "$programs/skein-vm" run --name "$name" --address "$address" \
  ${gateway:+--gateway "$gateway"} --tap tap0 --folder /var/lib/skein-vm \
  -- /opt/skein/skein daemon --advertise-addr "$guest"
