# SPDX-License-Identifier: MIT
# What is asked of the driver, and of which device.
# timeout: 500
# shellcheck shell=bash disable=SC2154,SC2164 # guest/lib.sh

cd /run
node=/dev/dri/renderD128
module=$PAYLOAD/modules/$KERNEL/amdgpu.ko
begin() { # KEY = VALUE...
    fresh "$@"
    systemctl start gttd
}
device() {
    status .heap.device
}
# reload PARAMETER...: the driver, with these devices
reload() {
    stop_gttd
    rmmod amdgpu
    insmod "$module" "$@"
    udevadm settle
}
nodes_of() { # BUS: render nodes of the driver amdgpu there
    local link
    for link in /sys/class/drm/renderD*; do
        if [ "$(basename "$(readlink -f "$link/device/driver")")" = amdgpu ] &&
            [ "$(basename "$(readlink -f "$link/device/subsystem")")" = "$1" ]; then
            echo "/dev/dri/$(basename "$link")"
        fi
    done
}

# GTT and nothing else (2), explicitly synchronized (128), perhaps write-combined (4); each chunk by its name
begin
[ "$(status .heap.name)" = amdgpu ]
as tester heapbo $node 10 4 </dev/null | tee bos
[ "$(wc -l <bos)" = 3 ]
grep -qx 'gttd:1:0 domain 2 flags 128 bytes 4194304' bos
grep -qx 'gttd:1:2 domain 2 flags 128 bytes 2097152' bos
as tester heapbo $node 4 4 wc </dev/null | grep -x 'gttd:2:0 domain 2 flags 132 bytes 4194304'
none_left() {
    [ "$(counter bytes)" = 0 ]
}
eventually 5 none_left

# of several devices the APU; which it is, is said
reload discrete=1
trap 'reload' EXIT
apu=$(nodes_of pci)
card=$(nodes_of platform)
[ -n "$apu" ] && [ -n "$card" ]
begin
device | grep -F "($apu)"
journalctl -u gttd -n 20 --no-pager | grep -F "GTT of" | grep -F 'of 2 it is the first APU'
begin "device = $card"
device | grep -F "($card)"
as tester gttseg fill a 8
begin "device = /dev/dri/by-path/$(basename "$(readlink -f "/sys/class/drm/$(basename "$apu")/device")" | sed 's/^/pci-/')-render"
device | grep -F "($apu)"

# one that is asked for and is none is never replaced by another
start=$(date +%s)
fresh 'device = /dev/dri/renderD190'
refused '' systemctl start gttd
journalctl -u gttd --since="@$start" --no-pager | grep -F '/dev/dri/renderD190 is not a render node of the driver amdgpu'
trap - EXIT
reload

# without the driver: the next best, and why
stop_gttd
rmmod amdgpu
trap 'insmod "$module"; udevadm settle' EXIT
start=$(date +%s)
begin
[ "$(status .heap.name)" = udmabuf ]
journalctl -u gttd --since="@$start" --no-pager | grep -F 'no amdgpu heap: there is no GPU with the driver amdgpu'
as tester gttseg fill a 8
stop_gttd
