# SPDX-License-Identifier: MIT
# The simulated drivers behave as the real ones do: what all other cases rest on.
# shellcheck shell=bash disable=SC2154 # guest/lib.sh

systemctl stop gttd.socket gttd.service
module_check /dev/dri/renderD128 /sys/kernel/debug/dri/0
