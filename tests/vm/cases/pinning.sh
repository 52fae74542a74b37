# SPDX-License-Identifier: MIT
# Pinned is what the driver counts as pinned, by which device; resident is said to be no more than that.
# shellcheck shell=bash disable=SC2154 # guest/lib.sh

cd /run
evict() {
    cat /sys/kernel/debug/dri/0/amdgpu_evict_gtt
}
# what the driver says is in GTT, of 32 MiB
expect() { # ANCHOR PINNED-MIB WHY
    fresh "anchor = $1"
    as tester gttseg fill a 32 8 >filled
    gttctl status
    [ "$(status .pin.pinned_bytes)" = $(($2 << 20)) ]
    [ "$(counter pinned_bytes)" = $(($2 << 20)) ]
    status .pin.why | grep -E "$3"
    gttctl list
    gttctl list --json | jq -e ".[0].pinned_bytes == $(($2 << 20))"
    evict
    [ "$(counter gtt_used)" = $(($2 << 20)) ]
    as tester gttseg open a | cmp filled - # wherever it is now
    as tester gttctl drop a
    eventually 5 counter_is bytes 0
    [ "$(counter pinned_bytes)" = 0 ]
}
vgem=$(for node in /dev/dri/renderD*; do
    readlink -f "/sys/class/drm/$(basename "$node")/device" | grep -q '/vgem$' && echo "$node"
done)
expect auto 32 '^pinned by /dev/accel/accel0 \(amdxdna_accel_driver\)'
expect off 0 '^resident, not pinned: pinning is turned off'
case $KERNEL in
6.12.*) expect "$vgem" 32 '^pinned by .*\(vgem\)' ;;
*) expect "$vgem" 0 '^resident, not pinned: an import into .* \(vgem\) pins nothing' ;;
esac
