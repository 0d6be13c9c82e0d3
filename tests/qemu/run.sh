#!/bin/bash
# run.sh LAB HOST OUT COMMAND [ARGUMENT...]: boots the guest in LAB and runs COMMAND there, with HOST as /host (read-only)
# and OUT as /out (writable). Virtual time: one instruction takes a nanosecond and idle time is skipped, so that what is
# measured does not depend on how busy this machine is. The exit code is the command's; 125: the guest did not report.
set -u
lab=$(cd "$1" && pwd) host=$(cd "$2" && pwd) out=$(cd "$3" && pwd)
shift 3
code=$(mktemp)
trap 'rm -f "$code"' EXIT

if command -v qemu-system-x86_64 >/dev/null; then
  machine=(qemu-system-x86_64)
else
  unpacked=$lab/qemu/usr
  export LD_LIBRARY_PATH=$unpacked/lib/x86_64-linux-gnu:$lab/qemu/lib/x86_64-linux-gnu
  machine=("$unpacked/bin/qemu-system-x86_64" -L "$unpacked/share/qemu" -L "$unpacked/share/seabios")
fi

shares=()
share() { # a comma inside a path is written twice
  shares+=(-fsdev "local,id=$1,path=${2//,/,,},security_model=none,multidevs=remap$3")
  shares+=(-device "virtio-9p-pci,fsdev=$1,mount_tag=$1")
}
share root "$lab/rootfs" ,readonly=on
share host "$host" ,readonly=on
share out "$out" ""

"${machine[@]}" -nodefaults -display none -nic none -no-reboot -M q35 -cpu max -smp 1 -m 1024 \
  -accel tcg,thread=single,tb-size=512 -icount shift=0,sleep=off,align=off \
  -kernel "$lab/vmlinux" -initrd "$lab/initrd.gz" -serial stdio -serial "file:$code" "${shares[@]}" \
  -append "console=ttyS0 quiet panic=-1 tsc=reliable guest.command=$(printf '%q ' "$@" | base64 -w0)" </dev/null &
guest=$!
trap 'kill "$guest" 2>/dev/null; rm -f "$code"' EXIT TERM INT
wait "$guest"
reported=$(tr -dc 0-9 <"$code")
exit "${reported:-125}"
