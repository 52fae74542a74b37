# SPDX-License-Identifier: MIT
# gttd is restarted, upgraded and killed while a client holds 256 MiB: the same bytes in the same memory, still pinned; the client goes on.
# shellcheck shell=bash disable=SC2154 # guest/lib.sh
# timeout: 900

cd /run
as tester gttseg fill big 256 64 | tee filled
as tester gttseg hold big >held &
eventually 60 grep -q ^digest held
holder=$(pids_of tester)
pinned=$(status .pin.pinned_bytes)
[ "$pinned" = $((256 << 20)) ]
[ "$(status .restart_loses_pool)" = false ]

# again COMMAND...: what ends this gttd; the time until OPEN works is from there.
again() {
    local pid start
    pid=$(daemon_pid)
    start=$(date +%s%N)
    "$@"
    as tester gttseg until big
    echo "note: $*: OPEN works again after $((($(date +%s%N) - start) / 1000000)) ms, all of the command included"
    [ "$(daemon_pid)" != "$pid" ]
    as tester gttseg open big | cmp filled -
    [ "$(status .pin.pinned_bytes)" = "$pinned" ]
    [ "$(counter pinned_bytes)" = "$pinned" ]
    kill -0 "$holder"
}
again systemctl restart gttd.service
again systemctl kill -s KILL gttd.service
again dpkg -i "$PAYLOAD/gttd.deb"

kill -TERM "$holder"
wait
grep ^beats held
grep -v ^beats held | tail -n +6 | cmp filled -
