# SPDX-License-Identifier: MIT
# What systemd keeps of gttd: per user, also while gttd is stopped, nothing of what was not sealed, and no more than fits.
# shellcheck shell=bash disable=SC2154 # guest/lib.sh
# timeout: 900

cd /run
stored() {
    systemd-analyze fdstore gttd.service
}
counts() { # COUNTER VALUE
    [ "$(counter "$1")" = "$2" ]
}
mib() {
    echo $(($1 << 20))
}
as tester gttseg fill same 16 4 >mine
as neighbour gttseg fill same 8 4 >theirs
as tester gttseg half unsealed 16 &
eventually 30 counts pinned_bytes "$(mib 40)"
stored
stored | grep -q gttd-s-1
stored | grep -q gttd-h-anchor
[ "$(stored | grep -c gttd-c-)" = 6 ]

# killed in the middle of a fill: that memory is not pinned for ever
systemctl kill -s KILL gttd.service
pkill -KILL -u tester -x gttseg
as tester gttseg open same | cmp mine -
as neighbour gttseg open same | cmp theirs -
journalctl -u gttd.service -o cat | grep 'took over 2 sealed segments (24 MiB)'
eventually 10 counts bytes "$(mib 24)"
[ "$(counter pinned_bytes)" = "$(mib 24)" ]

# stopped: it stays, and stays pinned
systemctl stop gttd.socket gttd.service
journalctl -u gttd.service -o cat | grep '2 sealed segments stay with the service manager (24 MiB)'
[ "$(counter pinned_bytes)" = "$(mib 24)" ]
systemctl start gttd.socket
as neighbour gttseg open same | cmp theirs -
[ "$(counter pinned_bytes)" = "$(mib 24)" ]
as tester gttctl drop same
eventually 10 counts bytes "$(mib 8)"

# given back on demand
systemctl stop gttd.socket gttd.service
systemctl clean --what=fdstore gttd.service
eventually 10 counts bytes 0
systemctl start gttd.socket
refused ENOENT as neighbour gttseg open same

# too small: what does not fit works, is said to be lost, and is
fresh
mkdir -p "$UNIT_SETTINGS"
printf '[Service]\nFileDescriptorStoreMax=4\n' >"$UNIT_SETTINGS/test.conf"
systemctl daemon-reload
as tester gttseg fill fits 8 4 >kept
as tester gttseg fill not 4 >/dev/null
as tester gttseg open not >/dev/null
journalctl -u gttd.service -o cat | grep 'segment not (uid .*): a restart of gttd will lose it: the fd store has 4 of 4 fds'
systemctl restart gttd.service
as tester gttseg open fits | cmp kept -
refused ENOENT as tester gttseg open not

# without one: said at the start and to clients
printf '[Service]\nFileDescriptorStoreMax=0\n' >"$UNIT_SETTINGS/test.conf"
systemctl daemon-reload
systemctl restart gttd.service
[ "$(status .restart_loses_pool)" = true ]
journalctl -u gttd.service -o cat | grep 'a restart loses the pool: its unit has no FileDescriptorStoreMax='
