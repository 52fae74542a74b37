# SPDX-License-Identifier: MIT
# gttd.conf and systemctl reload: quotas by name, a file with an error, sharing between users of the group.
# shellcheck shell=bash disable=SC2154 # guest/lib.sh

reload() {
    printf '%s\n' 'floor = 128M' "$@" >/etc/gttd.conf
    systemctl reload gttd.service
}

status_text() {
    systemctl show -P StatusText gttd.service
}

fresh 'quota = 64M' 'quota.tester = 8M'
as neighbour gttseg fill mine 12
as tester gttseg fill model 8
refused '10 MiB is over this user.s quota of 8 MiB by 2 MiB.*EDQUOT' as tester gttseg fill large 10
pid=$(daemon_pid)

reload 'quota = 64M' 'quotta = 1G'
eventually 5 test "$(status_text)" = 'Not reloaded: /etc/gttd.conf:3: unknown key quotta'
refused EDQUOT as tester gttseg fill large 10
journalctl -u gttd.service -b --no-pager | grep -F '/etc/gttd.conf:3: unknown key quotta; nothing of it is used'

# names are users' own, until the administrator says otherwise
refused ENOENT as neighbour gttseg open model
reload 'share = group' 'heap = memfd'
eventually 5 test "$(status .share)" = group
[ -z "$(status_text)" ]
journalctl -u gttd.service -b --no-pager | grep -F 'heap = memfd: only from the next start on; it stays auto'
[ "$(status .heap.name)" = amdgpu ]
as tester gttseg open model >/run/own
as neighbour gttseg open model >/run/shared
cmp /run/own /run/shared
refused 'it belongs to uid|no segment of that name' as neighbour gttctl drop model
refused 'Permission denied' as stranger gttseg open model
reload
eventually 5 test "$(status .share)" = user
refused ENOENT as neighbour gttseg open model
as tester gttctl drop model
as neighbour gttctl drop mine
[ "$(daemon_pid)" = "$pid" ]
