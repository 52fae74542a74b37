# SPDX-License-Identifier: MIT
# gttctl tells the truth about this machine.
# shellcheck shell=bash disable=SC2154 # guest/lib.sh

cd /run
as tester gttseg fill one 6 2
as neighbour gttseg fill two 4
[ "$(gttctl list --json | jq length)" = 2 ]
[ "$(as tester gttctl list --json | jq -r '.[].name')" = one ]
as tester gttctl list
as tester gttctl status
as tester gttctl status --json | jq -e '.heap.name == "amdgpu" and .heap.dma_buf and .pool.used_bytes == (10 * 1048576) and
    .user.used_bytes == (6 * 1048576) and .gtt.used_bytes == (10 * 1048576)'
refused 'EPERM|ENOENT|not permitted|no segment' as tester gttctl drop two
as neighbour gttctl drop two
gttctl drop --id="$(gttctl list --json | jq '.[0].id')"
[ "$(gttctl list --json | jq length)" = 0 ]
