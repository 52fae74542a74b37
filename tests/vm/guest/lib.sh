# SPDX-License-Identifier: MIT
# What the harness and the cases share.
# shellcheck shell=bash disable=SC2034 # used by the cases

PAYLOAD=/mnt/payload
MODEL=/usr/share/gttd/models/wordbook-22m
export VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp_icd.json

# Once per boot: the test modules, the project.
prepare() {
    local module release
    release=$(uname -r)
    for module in amdxdna amdgpu; do # the first to know a PCI id gets it
        if [ -e "$PAYLOAD/modules/$release/$module.ko" ]; then
            modprobe -a drm_shmem_helper drm_exec gpu-sched || true
            insmod "$PAYLOAD/modules/$release/$module.ko"
        fi
    done
    udevadm settle
    dpkg -i "$PAYLOAD/gttd.deb"
    systemctl enable -q --now gttd.socket
}

# Before every case.
fresh() {
    :
}

# as USER COMMAND...
as() {
    local user=$1
    shift
    setpriv --reuid="$user" --regid="$user" --init-groups -- env HOME="/home/$user" "$@"
}

fail() {
    echo "$*" >&2
    exit 1
}
