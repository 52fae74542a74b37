# SPDX-License-Identifier: MIT
# The package installs over itself with clients attached, goes without a trace and comes back.
# shellcheck shell=bash disable=SC2154 # guest/lib.sh

cd /run
trap 'dpkg -i "$PAYLOAD/gttd.deb"' EXIT # for the cases that follow
as tester gttseg fill kept 16 >filled
dpkg -i "$PAYLOAD/gttd.deb" # an upgrade
[ "$(systemctl is-active gttd.socket)" = active ]
as tester gttseg open kept | cmp filled -

dpkg -r gttd
[ ! -e $SOCKET ] || fail 'removed, and its socket is still there'
[ "$(counter bytes)" = 0 ] || fail "removed, and $(counter bytes) bytes of GTT are still held"
dpkg -P gttd
for path in /usr/bin/gttd /usr/bin/gttctl /usr/lib/systemd/system/gttd.service /usr/share/gttd; do
    [ ! -e $path ] || fail "still there: $path"
done
dpkg -i "$PAYLOAD/gttd.deb"
[ "$(systemctl is-enabled gttd.socket || true)" = disabled ] # as the package says
systemctl enable --now gttd.socket
refused ENOENT as tester gttseg open kept
