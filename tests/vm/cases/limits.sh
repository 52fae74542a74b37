# SPDX-License-Identifier: MIT
# Every limit refuses with its name and by how much, and leaves what is there alone; what nobody uses makes room.
# shellcheck shell=bash disable=SC2154 # guest/lib.sh

cd /run
fresh 'quota = 64M' 'quota.neighbour = 16M'
as tester gttseg fill a 48
refused 'EDQUOT' as tester gttseg half b 80
refused 'EDQUOT' as neighbour gttseg fill c 24
as neighbour gttseg fill c 16
as tester gttseg hold a >held &
eventually 10 grep -q digest held
refused 'EDQUOT' as tester gttseg fill b 32
pids_of tester | xargs kill -TERM
wait
as tester gttseg fill b 32 # a gives way
refused ENOENT as tester gttseg open a
as neighbour gttseg open c # not the neighbour's
[ "$(status .counts.evictions)" = 1 ]

fresh 'pool = 64M'
refused 'ENOSPC' as tester gttseg fill a 80
as tester gttseg fill a 64
as neighbour gttseg fill b 32 # from anyone's
refused ENOENT as tester gttseg open a

fresh 'floor = 64G'
refused 'ENOMEM.*' as tester gttseg fill a 2
