# SPDX-License-Identifier: MIT
# The pool is really reserved, pinned, traded for segments, and nobody gets what another had.
# timeout: 500
# shellcheck shell=bash disable=SC2154,SC2164 # guest/lib.sh

cd /run
mib=$((1 << 20))
gtt=/sys/module/amdgpu/parameters/gtt_mib
was=$(cat $gtt)
trap 'echo "$was" >$gtt' EXIT
reserved() { # MIB; of what is not in segments
    [ "$(status .pool.ballast_bytes)" = $(($1 * mib)) ]
}
held() { # MIB in all, by the driver's count, and all of it pinned
    [ "$(counter bytes)" = $(($1 * mib)) ] && [ "$(counter pinned_bytes)" = $(($1 * mib)) ]
}
logged() {
    journalctl -u gttd --since="@$start" --no-pager | grep -E "$1"
}

start=$(date +%s)
fresh 'pool = 256M'
systemctl start gttd
eventually 60 reserved 256
held 256
[ "$(status .gtt.used_bytes)" = $((256 * mib)) ]

# there is room for both: the driver is asked for a chunk before ballast is given back
before=$(awk '$1 == "bytes" { print $4 }' /sys/kernel/debug/dri/0/sim_counters)
as tester gttseg fill a 96 32
eventually 10 reserved 160
eventually 5 held 256
grown=$(($(awk '$1 == "bytes" { print $4 }' /sys/kernel/debug/dri/0/sim_counters) - before))
[ $grown -ge $((96 * mib)) ]
if logged 'freed before it is made'; then
    fail 'there was room'
fi

# there is none: ballast goes first, and still all of the pool can be had
echo 272 >$gtt
as tester gttseg fill b 160 32
logged 'gttd:[0-9]+:[0-9]+: what is reserved is freed before it is made'
eventually 10 reserved 0
eventually 5 held 256
as tester gttseg open a
as tester gttseg open b
as tester gttctl drop a
as tester gttctl drop b
eventually 60 reserved 256
eventually 5 held 256

# what one user has written no other user reads: heapbo looks whether its memory is zero, and soils it
for user in tester neighbour tester; do
    as $user heapbo /dev/dri/renderD128 128 32 </dev/null
    eventually 60 reserved 256
done

# what others hold cannot be reserved; it is said, and made good when there is more
echo 160 >$gtt
start=$(date +%s)
fresh 'pool = 256M'
systemctl start gttd
eventually 60 reserved 160
logged 'pool: 160 MiB of 256 MiB are reserved beside the segments: the rest of the GTT total of 160 MiB is in use'
refused 'GTT total of 160 MiB' as tester gttseg fill a 192
as tester gttseg fill a 64 16
echo "$was" >$gtt
as tester gttctl drop a
eventually 60 reserved 256

# its pins are not left behind by one that is killed
systemctl kill -s KILL gttd
eventually 60 reserved 256
eventually 5 held 256
