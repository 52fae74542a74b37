# SPDX-License-Identifier: MIT
# Clients are killed while they fill, wait and hold: what they had is given back, what is sealed stays.
# shellcheck shell=bash disable=SC2154 # guest/lib.sh

cd /run
as tester gttseg fill sealed 8
used=$(status .pool.used_bytes)
fds=$(daemon_fds)
bytes=$(counter bytes)

as tester gttseg half torn 32 >half &
eventually 10 grep -q filling half
[ "$(status .pool.used_bytes)" -gt "$used" ]
as tester gttseg hold sealed >held &
eventually 10 grep -q digest held
pids_of tester | xargs kill -KILL
wait
given_back() {
    [ "$(status .pool.used_bytes)" = "$used" ] && [ "$(daemon_fds)" = "$fds" ] && [ "$(counter bytes)" = "$bytes" ]
}
eventually 20 given_back

[ "$(status .counts.leases)" = 0 ]
refused ENOENT as tester gttseg open torn
as tester gttseg open sealed
