# SPDX-License-Identifier: MIT
# The recipe of the guest's root file system: Debian 13 with backports, both kernels, what building the
# project takes, and QEMU. A change here makes everyone's root again.
# shellcheck shell=bash disable=SC2016,SC2154 # code for another shell; what run sets

SUITE=trixie
MIRROR=${GTTD_VM_MIRROR:-http://deb.debian.org/debian}

# Booting and looking around; building the project; its run time; building modules and the initrd; and the
# QEMU that boots it: see qemu().
PACKAGES=(systemd systemd-sysv dbus udev kmod busybox-static jq
    ca-certificates ccache cmake dpkg-dev file gcc glslc libc6-dev ninja-build pkg-config scdoc
    libdrm-dev libjansson-dev libmicrohttpd-dev libsystemd-dev libvulkan-dev nettle-dev
    mesa-vulkan-drivers vulkan-validationlayers
    make pahole cpio xz-utils
    qemu-system-x86)

# What no test needs, kept off the disk: half of it all.
MODULES='/usr/lib/modules/*/kernel'
EXCLUDED=('/usr/share/doc/*' '/usr/share/man/*' '/usr/share/locale/*' '/usr/share/info/*' "$MODULES/sound/*"
    "$MODULES/arch/x86/kvm/*" "$MODULES/drivers/platform/*"
    "$MODULES/drivers/"{accel,ata,bluetooth,cpufreq,crypto,edac,hid,hwmon,i2c,iio,infiniband,input,isdn}'/*'
    "$MODULES/drivers/"{md,media,message,mfd,mmc,mtd,net,nvme,parport,pcmcia,scsi,staging,usb,watchdog}'/*'
    "$MODULES/drivers/gpu/drm/"{amd,i915,nouveau,radeon,xe}'/*')

# The newest kernel package of a series that the mirror serves: ROOT image|headers SERIES
root_kernel_package() {
    local name
    name=$(chroot "$1" apt-cache pkgnames "linux-$2-$3." | grep -xE "linux-$2-$3\.[0-9]+\+deb13-amd64" |
        sort -V | tail -n 1)
    [ -n "$name" ] || die "the mirror has no linux-$2-$3.*+deb13-amd64"
    echo "$name"
}

# The initrd: just enough to mount a virtio disk and go on there. ROOT KERNEL-RELEASE
root_initrd() {
    chroot "$1" bash -e -s "$2" <<'END'
kernel=$1
dir=$(mktemp -d)
cd "$dir"
mkdir -p bin dev new
cp /bin/busybox bin/
for module in virtio_blk ext4; do
    modprobe --show-depends -S "$kernel" "$module" | sed -n 's/^insmod \([^ ]*\).*/\1/p'
done | awk '!seen[$0]++' | while read -r file; do
    name=$(basename "$file" .xz)
    xz -dc "$file" >"$name"
    echo "insmod /$name" >>insmods
done
cat - insmods >init <<'HEAD'
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
alias insmod='/bin/busybox insmod'
HEAD
cat >>init <<'TAIL'
/bin/busybox mount -t ext4 -o noatime /dev/vda /new
/bin/busybox mount -t ext4 -o ro /dev/vdb /new/mnt/payload
/bin/busybox mount -o move /dev /new/dev
exec /bin/busybox switch_root /new /sbin/init
TAIL
chmod +x init
find . | cpio --quiet -o -H newc >"/boot/initrd-$kernel"
rm -rf "$dir"
END
}

# Run by mmdebstrap once the packages are there, outside of the new root.
root_customize() {
    local root=$1 series names=() directory
    for series in 7.3 6.12; do
        names+=("$(root_kernel_package "$root" image $series)" "$(root_kernel_package "$root" headers $series)")
    done
    INITRD=No chroot "$root" apt-get -qq -y install "${names[@]}"
    for directory in "$root"/usr/lib/modules/*; do
        root_initrd "$root" "$(basename "$directory")"
    done
    chroot "$root" groupadd -f -r render
    chroot "$root" useradd -m -u 1001 -s /bin/bash -G render tester
    chroot "$root" useradd -m -u 1002 -s /bin/bash -G render neighbour
    chroot "$root" useradd -m -u 1003 -s /bin/bash stranger
    # A machine that has booted before: nothing to set up, to update or to do at night.
    echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
    echo guest >"$root/etc/hostname"
    printf '%s\n' '[Service]' Type=exec ExecStart=/mnt/payload/guest/harness KillMode=process \
        >"$root/etc/systemd/system/harness.service"
    mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
    ln -s ../harness.service "$root/etc/systemd/system/multi-user.target.wants/"
    mkdir -p "$root"/mnt/{source,build,ccache,payload} "$root/etc/systemd/journald.conf.d"
    printf '[Journal]\nStorage=volatile\n' >"$root/etc/systemd/journald.conf.d/vm.conf"
    # The disks are mounted by the initrd; of what the machine has, udev need only see these.
    mkdir "$root/etc/systemd/system/systemd-udev-trigger.service.d"
    printf '%s\n' '[Service]' ExecStart= \
        'ExecStart=udevadm trigger --action=add --subsystem-match=misc --subsystem-match=mem --subsystem-match=virtio-ports' \
        >"$root/etc/systemd/system/systemd-udev-trigger.service.d/vm.conf"
    chroot "$root" systemctl -q mask apt-daily.timer apt-daily-upgrade.timer dev-hugepages.mount dev-mqueue.mount \
        dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer getty.target ldconfig.service \
        modprobe@{configfs,dm_mod,drm,efi_pstore,fuse,loop}.service proc-sys-fs-binfmt_misc.automount \
        sys-fs-fuse-connections.mount sys-kernel-config.mount systemd-ask-password-console.path \
        systemd-ask-password-wall.path systemd-binfmt.service systemd-firstboot.service \
        systemd-hwdb-update.service systemd-journal-catalog-update.service systemd-pstore.service \
        systemd-random-seed.service systemd-remount-fs.service systemd-tmpfiles-clean.timer systemd-tpm2-setup.service \
        systemd-tpm2-setup-early.service systemd-update-done.service systemd-update-utmp.service
    touch "$root/etc/.updated" "$root/var/.updated"
}

# Everything below $1 (a directory that does not exist yet).
root_make() {
    local dir=$1 hook option excludes=()
    mkdir -p "$dir"
    hook=$dir/hook.sh
    {
        echo 'set -euo pipefail'
        declare -f die complain root_customize root_kernel_package root_initrd
        # shellcheck disable=SC2016 # for the hook's shell
        echo 'root_customize "$1"'
    } >"$hook"
    for option in "${EXCLUDED[@]}"; do
        excludes+=(--dpkgopt="path-exclude=$option")
    done
    # shellcheck disable=SC2016 # mmdebstrap gives the root as $1
    INITRD=No setpriv --pdeathsig KILL unshare --mount --mount-proc --pid --fork --kill-child \
        mmdebstrap --mode=root --variant=minbase --include="$(IFS=,; echo "${PACKAGES[*]}")" --aptopt='Apt::Install-Recommends "false"' \
        "${excludes[@]}" \
        --setup-hook='mkdir -p "$1/etc/apt/preferences.d"
            printf "Package: *\nPin: release n='"$SUITE"'-backports\nPin-Priority: 500\n" >"$1/etc/apt/preferences.d/backports"' \
        --customize-hook="bash '$hook' \"\$1\"" \
        "$SUITE" "$dir/root" "deb $MIRROR $SUITE main" "deb $MIRROR $SUITE-backports main" \
        "deb $MIRROR-security $SUITE-security main" </dev/null >"$dir/log" 2>&1 || {
        tail -n 40 "$dir/log" >&2
        die "mmdebstrap failed ($dir/log)"
    }
    truncate -s 4G "$dir/root.ext4"
    mke2fs -q -t ext4 -O ^has_journal -d "$dir/root" "$dir/root.ext4"
}
