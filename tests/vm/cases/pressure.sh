# SPDX-License-Identifier: MIT
# The kernel reports memory pressure to gttd, which has no privilege: unused segments go while free RAM is below the floor.
# shellcheck shell=bash disable=SC2154 # guest/lib.sh

settings=('pressure.stall = 20ms' 'pressure.step = 2M')
fresh "${settings[@]}"
as tester gttseg fill first 4
as tester gttseg fill second 4
as tester gttseg fill held 4
as tester gttseg hold held >/run/held.log &
eventually 20 grep -q digest /run/held.log
[ "$(status .pressure_watched)" = true ]

# A process that reads a file larger than its cgroup may hold, from anywhere in it.
head -c 67108864 /dev/zero >/var/tmp/thrash
sync
echo 3 >/proc/sys/vm/drop_caches
# shellcheck disable=SC2016 # perl's
systemd-run -q --collect --unit=thrash -p MemoryMax=16M perl -e '
    open my $f, "<", "/var/tmp/thrash" or die;
    for (;;) {
        sysseek $f, int(rand(16384)) * 4096, 0;
        sysread $f, my $page, 4096;
    }'
sleep 5
cat /proc/pressure/memory
[ "$(status .counts.evictions)" = 0 ] || fail "evicted while there is RAM"

printf '%s\n' 'floor = 1000T' "${settings[@]}" >/etc/gttd.conf
systemctl reload gttd.service
evicted() {
    [ "$(status .counts.evictions)" -ge "$1" ]
}
eventually 60 evicted 2
as tester gttctl list
as tester gttctl list --json | grep -q held
refused ENOENT as tester gttseg open first
journalctl -u gttd.service -b --no-pager | grep -E 'segment first .*4 MiB\): evicted: memory pressure, free RAM of .* is below the floor'
eventually 60 grep -q 'is sealed and unused' <(journalctl -u gttd.service -b -f --no-pager)
[ "$(status .counts.evictions)" = 2 ]
systemctl stop thrash.service
rm /var/tmp/thrash
as tester gttctl drop held --force # its holder ends with this case
