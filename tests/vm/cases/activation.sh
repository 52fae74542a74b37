# SPDX-License-Identifier: MIT
# The first client starts gttd; it runs as its own user with next to no rights; only group render may connect.
# shellcheck shell=bash disable=SC2154 # guest/lib.sh

[ "$(systemctl is-active gttd.service)" = inactive ]
[ "$(stat -c '%a %U %G' $SOCKET)" = '660 gttd render' ]
as tester gttctl status
[ "$(systemctl is-active gttd.service)" = active ]
pid=$(daemon_pid)
grep -E '^(Uid|Groups|NoNewPrivs|Seccomp|Cap(Eff|Prm|Bnd|Amb)):' "/proc/$pid/status"
[ "$(stat -c %U "/proc/$pid")" = gttd ]
for set in CapEff CapPrm CapBnd CapAmb; do
    grep -qx "$set:"$'\t''0*' "/proc/$pid/status" || fail "gttd has capabilities: $set"
done
[ "$(status .heap.name)" = amdgpu ]

refused 'Permission denied' as stranger gttctl status
refused 'Permission denied' as stranger gttseg fill x 2

exposure=$(systemd-analyze security gttd.service --no-pager | sed -nE 's/.*exposure level for gttd.service: ([0-9.]+) .*/\1/p')
echo "note: systemd-analyze security: exposure $exposure"
awk -v e="$exposure" 'BEGIN { exit !(e != "" && e <= 1.5) }'
