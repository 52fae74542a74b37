# SPDX-License-Identifier: MIT
# gttctl doctor sees this machine as it is; --fix does what --dry-run shows, once, and it counts.
# shellcheck shell=bash disable=SC2154 # guest/lib.sh

LIMITS=/etc/security/limits.d/60-gttd.conf
cd /run
rm -f $LIMITS
as tester gttctl doctor || true # what is bad here, if anything, is for the eyes
# what JQ-EXPRESSION of a finding's id and level, as tester
judged() {
    as "$1" gttctl doctor --json >report || true
    jq -e ".findings[] | select(.id == \"$2\") | .level == \"$3\"" report
}
judged tester access-gpu ok
judged tester access-service ok
judged stranger access-gpu bad
judged tester gtt-total ok
jq -e ".facts.gpu.gtt_bytes == $(cat /sys/class/drm/renderD128/device/mem_info_gtt_total) and .facts.kernel == \"$KERNEL\"" report

judged tester memlock warn
refused 'only root may' as tester gttctl doctor --fix
gttctl doctor --user tester --fix --dry-run | tee shown
[ ! -e $LIMITS ]
gttctl doctor --user tester --fix | cmp shown -
sed -n "\\|^$LIMITS|,/^[^ ]/s/^    //p" shown | cmp - $LIMITS
gttctl doctor --user tester --fix | grep -x 'There is nothing to fix.'
runuser -l tester -c 'ulimit -l' | grep -x unlimited # a new session has it
judged tester memlock note
rm $LIMITS
