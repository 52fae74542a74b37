# SPDX-License-Identifier: MIT
# Many clients do random things, a third of them is killed: no fd, byte or page is left, and gttd has not grown.
# shellcheck shell=bash disable=SC2154 # guest/lib.sh
# timeout: 1200

cd /run
fresh 'quota = 256M' # a pool would be reserved ahead, in pieces that come and go
gttctl status
export GTTD_RIG_SOCKET=$SOCKET GTTD_RIG_PID
GTTD_RIG_PID=$(daemon_pid)
clients=("$(id -u tester)" "$(getent group render | cut -d : -f 3)")
soak_test 1 64 400 1 "${clients[@]}" # what a first round makes it allocate (its log, its tables, its code) is not growth
fds=$(daemon_fds)
rss=$(daemon_rss_kib)
start=$SECONDS
soak_test 2 64 2000 1 "${clients[@]}"
echo "note: 64 clients, 2000 operations each: $((SECONDS - start)) s; RSS $rss KiB before, $(daemon_rss_kib) KiB after"
[ "$(daemon_pid)" = "$GTTD_RIG_PID" ]
[ "$(daemon_fds)" = "$fds" ]
[ "$(status .pool.used_bytes)" = 0 ]
eventually 10 counter_is bytes 0
[ "$(counter pinned_bytes)" = 0 ]
[ "$(daemon_rss_kib)" -le $((rss + 1024)) ]
