# SPDX-License-Identifier: MIT
# GTT is full, and the driver refuses: gttd says so, holds what it had and nothing more.
# shellcheck shell=bash disable=SC2154 # guest/lib.sh

cd /run
gtt=/sys/module/amdgpu/parameters/gtt_mib
was=$(cat $gtt)
trap 'echo "$was" >$gtt; echo 0 >/sys/kernel/debug/dri/0/sim_fail_create' EXIT
echo 96 >$gtt
as tester gttseg fill a 64 16
[ "$(status .gtt.total_bytes)" = $((96 << 20)) ]
as tester gttseg hold a >held &
eventually 10 grep -q digest held
refused 'GTT' as tester gttseg fill b 64
[ "$(counter bytes)" = $((64 << 20)) ]
pids_of tester | xargs kill -TERM
wait
as tester gttseg fill b 64 # evicts a

echo "$was" >$gtt
for fault in create export pin; do
    fresh
    as tester gttseg fill a 8
    bytes=$(counter bytes)
    echo 2 >/sys/kernel/debug/dri/0/sim_fail_$fault
    if [ $fault = pin ]; then
        as tester gttseg fill b 16 4 # not pinned, but there
        [ "$(status .pin.pinned_bytes)" -lt $((24 << 20)) ]
    else
        refused 'ENOMEM' as tester gttseg fill b 16 4
        eventually 5 counter_is bytes "$bytes"
        as tester gttseg fill b 16 4
    fi
    as tester gttseg open a
done
