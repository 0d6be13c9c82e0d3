#!/bin/bash
# Makes a bare Debian or Ubuntu in memory and runs a script in it: `machine.sh ROOT RELEASE MIRROR SHARED COMMAND...`.
# Started in mount and process namespaces of its own, so that the machine is gone when this ends, however it ends.
#   ROOT      an empty folder, where the machine is mounted
#   SHARED    a folder that the machine sees as /shared. In it: `apt.conf` and `binds` of the host, the paths that pip and
#             TLS read there, a line each
set -euo pipefail
root=$1 release=$2 mirror=$3 shared=$4
shift 4

mount -t proc proc /proc
mount -t tmpfs -o size=8g,mode=755 bare "$root"
debootstrap --variant=minbase --include=python3,python3-venv,git,make "$release" "$root" "$mirror" >"$shared/debootstrap.log" 2>&1 ||
  { tail -n 40 "$shared/debootstrap.log"; exit 1; }
echo "deb $mirror $release main" >"$root/etc/apt/sources.list"
cp "$shared/apt.conf" "$root/etc/apt/apt.conf.d/99host"
cp /etc/hosts /etc/resolv.conf "$root/etc/"

mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mkdir "$root/shared"
mount --bind "$shared" "$root/shared"
while read -r path; do
  if [ -d "$path" ]; then mkdir -p "$root$path"; else mkdir -p "$root$(dirname "$path")" && touch "$root$path"; fi
  mount --bind "$path" "$root$path"
done <"$shared/binds"
chroot "$root" "$@"
