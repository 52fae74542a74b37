# SPDX-License-Identifier: MIT
# What the harness and the cases share. Commands of the cases: gttseg (see its usage), gttctl, gttrun.
# shellcheck shell=bash disable=SC2034 # used by the cases

PAYLOAD=/mnt/payload
MODEL=/usr/share/gttd/models/wordbook-22m
SOCKET=/run/gttd/gttd.sock
UNIT_SETTINGS=/run/systemd/system/gttd.service.d # a case may add *.conf there; the next one begins without
PATH=$PAYLOAD/bin:$PATH
export VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp_icd.json # RADV would refuse the simulated GPU
KERNEL=$(uname -r)                                          # 7.3.4+deb13-amd64

# Once per boot: the test modules, the package. amdgpu comes before vgem, so as to be renderD128.
prepare() {
    local file
    for file in amdxdna amdgpu; do
        file=$PAYLOAD/modules/$KERNEL/$file.ko
        if [ -e "$file" ]; then
            modinfo -F depends "$file" | tr ',' '\n' | xargs -r modprobe -a
            insmod "$file"
        fi
    done
    modprobe vgem
    udevadm settle
    dpkg -i "$PAYLOAD/gttd.deb"
    systemctl enable -q gttd.socket
    fresh
}

# gttd and its socket stop, and what systemd keeps for it goes.
stop_gttd() {
    systemctl stop gttd.socket gttd.service
    if [ "$(systemctl show -P NFileDescriptorStore gttd.service)" != 0 ]; then
        systemctl clean --what=fdstore gttd.service
    fi
}

# A gttd that holds nothing, configured like this: "key = value" each. It starts when it is asked.
fresh() {
    stop_gttd
    if [ -e $UNIT_SETTINGS ]; then
        rm -r $UNIT_SETTINGS
        systemctl daemon-reload
    fi
    printf '%s\n' "$@" >/etc/gttd.conf
    grep -q '^floor' /etc/gttd.conf || echo 'floor = 128M' >>/etc/gttd.conf
    systemctl reset-failed # and count its starts anew
    systemctl start gttd.socket
}

# as USER COMMAND...
as() {
    local user=$1
    shift
    setpriv --reuid="$user" --regid="$user" --init-groups -- env -C / HOME="/home/$user" "$@"
}

fail() {
    echo "$*" >&2
    exit 1
}

# refused WHAT COMMAND...: it must fail, and say WHAT (a regular expression).
refused() {
    local what=$1 text
    shift
    if text=$("$@" 2>&1); then
        fail "not refused: $*: $text"
    fi
    echo "$text"
    grep -qE "$what" <<<"$text" || fail "refused, but not with $what: $*"
}

# eventually SECONDS COMMAND...
eventually() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || fail "not within its time: $*"
        sleep 0.2
    done
}

# status FIELD: of what gttctl says, such as .pool.used_bytes
status() {
    gttctl status --json | jq -r "$1"
}

# counter NAME: of the simulated driver; 0 when nothing of it is left.
counter() {
    awk -v name="$1" '$1 == name { print $2 }' /sys/kernel/debug/dri/0/sim_counters
}

counter_is() {
    [ "$(counter "$1")" = "$2" ]
}

daemon_pid() {
    systemctl show -P MainPID gttd.service
}

daemon_rss_kib() {
    awk '$1 == "VmRSS:" { print $2 }' "/proc/$(daemon_pid)/status"
}

daemon_fds() {
    find "/proc/$(daemon_pid)/fd" -mindepth 1 | wc -l
}

# pids_of USER...
pids_of() {
    local user
    for user; do
        find /proc -maxdepth 1 -name '[0-9]*' -user "$user" -printf '%f\n'
    done
}

# After every case: its processes end, gttd gives back what it holds, and then nothing is left.
left_over() {
    local name
    pids_of tester neighbour stranger | xargs -r kill -KILL
    stop_gttd
    for name in objects bytes pinned_bytes imports exports attachments mappings; do
        for _ in 1 2 3 4 5 6 7 8 9 10; do # frees are done by kernel threads
            [ "$(counter $name)" != 0 ] || continue 2
            sleep 0.5
        done
        echo "left over in the driver: $name $(counter $name)"
    done
}
