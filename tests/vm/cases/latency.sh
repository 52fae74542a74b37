# SPDX-License-Identifier: MIT
# What real dma-bufs cost over memfds, in this guest.
# shellcheck shell=bash disable=SC2154 # guest/lib.sh
# timeout: 900

cd /run
for heap in memfd amdgpu; do
    fresh "heap = $heap"
    gttctl status >/dev/null
    [ "$(status .heap.name)" = $heap ]
    GTTD_RIG_SOCKET=$SOCKET GTTD_RIG_PID=$(daemon_pid) pool_bench --json >$heap.json
    cat $heap.json
done
for value in create_chunk_seal_us open_us open_map_us; do
    jq -rs --arg v $value '"note: \($v): memfd \(.[0][$v]), amdgpu \(.[1][$v]), ratio \(.[1][$v] / .[0][$v] * 100 | round / 100)"' \
        memfd.json amdgpu.json
done
