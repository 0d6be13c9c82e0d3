#!/bin/bash
# Builds a small guest with Debian's own kernel, which has netem and every other queueing discipline, in the folder given.
# Needs root, apt, debootstrap and python3; installs nothing. qemu is taken from the PATH, or else unpacked beside the guest.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"
mkdir -p debs/partial

if ! command -v qemu-system-x86_64 >/dev/null && [ ! -x qemu/usr/bin/qemu-system-x86_64 ]; then
  apt-get install -y --no-install-recommends --download-only -o Dir::Cache::archives="$PWD/debs" qemu-system-x86 >/dev/null
  for package in debs/*.deb; do
    case $package in *linux-image*) ;; *) dpkg -x "$package" qemu ;; esac
  done
fi

kernel=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: linux-image-//p' | head -1)
if [ ! -e "kernel/boot/vmlinuz-$kernel" ]; then
  (cd debs && apt-get download "linux-image-$kernel" >/dev/null)
  dpkg -x debs/linux-image-"$kernel"_*.deb kernel
fi

# The kernel without its compressed wrapper boots two seconds sooner; qemu enters it through its PVH note.
python3 - "kernel/boot/vmlinuz-$kernel" vmlinux <<'PYTHON'
import lzma, struct, sys
data = open(sys.argv[1], "rb").read()
start = (data[0x1F1] + 1) * 512 + struct.unpack_from("<I", data, 0x248)[0]
open(sys.argv[2], "wb").write(lzma.LZMADecompressor().decompress(data[start:]))
PYTHON

if [ ! -e rootfs/usr/bin/python3 ]; then
  rm -rf rootfs
  mkdir -p rootfs/etc/dpkg/dpkg.cfg.d
  echo force-unsafe-io >rootfs/etc/dpkg/dpkg.cfg.d/unsafe-io  # an interrupted build is begun anew: nothing needs to be synced
  debootstrap --variant=minbase --include=iproute2,iptables,python3,kmod,busybox-static bookworm rootfs >debootstrap.log ||
    { tail -n 20 debootstrap.log; exit 1; }
fi
mkdir -p rootfs/lib/modules rootfs/{out,host}
# The guest copies this root into its memory at every start, so only what the tests need stays.
rm -rf rootfs/var/cache/apt rootfs/var/lib/apt rootfs/usr/share/{doc,locale,man,zoneinfo,perl,info} rootfs/lib/modules/*
for part in net drivers/net fs/9p fs/netfs fs/fscache fs/overlayfs drivers/virtio drivers/block lib crypto; do
  from=kernel/lib/modules/$kernel/kernel/$part
  if [ -d "$from" ]; then
    mkdir -p "rootfs/lib/modules/$kernel/kernel/$part"
    cp -a "$from/." "rootfs/lib/modules/$kernel/kernel/$part/"
  fi
done
cp kernel/lib/modules/"$kernel"/modules.* rootfs/lib/modules/"$kernel"/
rm -rf rootfs/lib/modules/"$kernel"/kernel/drivers/net/{ethernet,wireless,usb,phy,dsa,can,wwan,ieee802154}
chroot rootfs depmod "$kernel"
install -m 755 "$here/guest-init" rootfs/sbin/guest-init

# The first file system: busybox, and the modules that reach the shared root.
first=$(mktemp -d -p "$PWD")
trap 'rm -rf "$first"' EXIT
mkdir "$first"/{bin,dev,proc,sys,r,t,n,m}
cp rootfs/bin/busybox "$first/bin/"
install -m 755 "$here/first-init" "$first/init"
number=10
modules=$(for name in virtio_pci 9p 9pnet_virtio; do chroot rootfs modprobe -S "$kernel" --show-depends "$name"; done |
  sed -n 's/^insmod //p' | awk '!seen[$0]++')
for module in $modules; do
  cp "rootfs$module" "$first/m/$number-$(basename "$module")"
  number=$((number + 1))
done
(cd "$first" && find . | ../rootfs/bin/busybox cpio -o -H newc 2>/dev/null | gzip -9) >initrd.gz
touch complete
