# SPDX-License-Identifier: MIT
# systemd is process 1, everything has started, and the programs run.
# shellcheck shell=bash disable=SC2154 # guest/lib.sh

[ "$(cat /proc/1/comm)" = systemd ]
state=$(systemctl is-system-running --wait) || {
    systemctl --failed --no-pager
    fail "the system is $state"
}
gttd --version
as tester gttrun devices
