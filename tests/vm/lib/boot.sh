# SPDX-License-Identifier: MIT
# Booting the guest, and reading what its harness says about each case. The root disk is a snapshot that
# is forgotten; the guest has no network. Results come over a virtio port, the console goes to a file.
# shellcheck shell=bash disable=SC2016,SC2154 # code for another shell; what run sets

BOOT_SECONDS=2400 # for everything, on a very busy machine
UP_SECONDS=240    # until the harness begins: some 5 s, where nothing else runs
BOOTS=3           # at most, until it does
MEMORY_MIB=3072

n_passed=0
n_failed=0

# QEMU is the root's, not this machine's: Debian 12 has 7.2, where a processor may run what another one has
# patched since, and now and then a guest dies of it in its first seconds ("Oops: int3", 3 of 120 boots of 7.3;
# https://bugzilla.redhat.com/show_bug.cgi?id=2216496).
qemu() {
    local release=$1 console=$2 usr=$root_dir/root/usr
    # No watchdogs of the kernel: under TCG on a busy host they bark at the host. Both virtual disks are
    # thrown away; ati-vga and edu are what the test modules bind to.
    exec setpriv --pdeathsig KILL timeout -s KILL $BOOT_SECONDS setpriv --pdeathsig KILL \
        env QEMU_MODULE_DIR="$usr/lib/x86_64-linux-gnu/qemu" \
        "$usr/lib64/ld-linux-x86-64.so.2" --library-path "$usr/lib/x86_64-linux-gnu" \
        "$usr/bin/qemu-system-x86_64" -L "$usr/share/qemu" -L "$usr/share/seabios" \
        -M q35 -accel tcg,thread=multi -cpu max -smp 2 -m $MEMORY_MIB \
        -nodefaults -no-user-config -display none -no-reboot \
        -serial "file:$console" \
        -device virtio-serial -chardev file,id=results,path=/dev/stdout -device virtserialport,chardev=results,name=gttd.results \
        -drive "file=$root_dir/root.ext4,format=raw,if=virtio,snapshot=on,cache=unsafe,file.locking=off" \
        -drive "file=$run_dir/payload.ext4,format=raw,if=virtio,snapshot=on,cache=unsafe,file.locking=off" \
        -device ati-vga,romfile= -device edu \
        -kernel "$root_dir/root/boot/vmlinuz-$release" -initrd "$root_dir/root/boot/initrd-$release" \
        -append "console=ttyS0 panic=-1 quiet nowatchdog rcupdate.rcu_cpu_stall_suppress=1 systemd.show_status=no" \
        </dev/null 8>&- 9>&-
}

# Ends a QEMU whose guest has not come up in time: SEEN PID
watch_up() {
    local i
    for ((i = 0; i < UP_SECONDS; i++)); do
        ! grep -qx up "$1" && kill -0 "$2" 2>/dev/null || return 0
        sleep 1
    done
    kill -KILL "$2" 2>/dev/null || true
}

# qemu(), watched from the side.
qemu_watched() {
    local seen=$1 pid=$BASHPID
    shift
    watch_up "$seen" "$pid" >/dev/null 8>&- 9>&- &
    qemu "$@"
}

# boot_up SERIES RELEASE CONSOLE SEEN: until the guest ends. What dies or hangs before the harness begins is
# QEMU, a kernel of Debian's or systemd, with nothing of ours in it yet: that is said, and tried again.
boot_up() {
    local series=$1 release=$2 console=$3 seen=$4 i
    for ((i = 1; i <= BOOTS; i++)); do
        : >"$seen" >"$console"
        read_results "$series" "$seen" <"$run_dir/results-$series" &
        guarded qemu_watched "$seen" "$release" "$console" >"$run_dir/results-$series" || true
        wait
        ! grep -qx up "$seen" || return 0
        {
            echo "    note: $release did not come up, boot $i of $BOOTS; the end of $console:"
            tail -n 5 "$console" | sed 's/^/    /'
        } >&2
    done
}

# What the harness says, as it comes: "#up", "#ok NAME SECONDS", "#FAIL NAME SECONDS", "#exit STATUS"; all else is text.
read_results() {
    local series=$1 seen=$2 line word name seconds
    while IFS= read -r line; do
        read -r word name seconds <<<"$line" || true
        case $word in
        '#ok' | '#FAIL')
            printf '%-6s %-8s %-28s %4d s\n' "$series" "${word#\#}" "$name" "$seconds"
            echo "${word#\#} $name" >>"$seen"
            ;;
        '#up') echo up >>"$seen" ;;
        '#exit') echo "$line" >>"$seen" ;;
        *) if [ -n "$command" ]; then printf '%s\n' "$line"; else printf '    %s\n' "$line"; fi ;;
        esac
    done
}

# boot SERIES: runs the plan there. Non-zero if anything failed; with --exec the command's status.
boot() {
    local series=$1 release console seen=$run_dir/seen-$1 name failed=0
    console=$ROOT/build/vm/console-$series.log
    release=$(basename "$(find "$root_dir/root/usr/lib/modules" -mindepth 1 -maxdepth 1 -name "$series.*")")
    mkfifo "$run_dir/results-$series"
    boot_up "$series" "$release" "$console" "$seen"
    if [ -n "$command" ]; then
        name=$(sed -n 's/^#exit //p' "$seen")
        if [ -z "$name" ]; then
            tail -n 40 "$console" >&2
            die "$release ended without running the command to its end (console: $console)"
        fi
        return "$name"
    fi
    for name in "${cases[@]}"; do
        if grep -qx "ok $name" "$seen"; then
            n_passed=$((n_passed + 1))
        else
            failed=1
            n_failed=$((n_failed + 1))
            if ! grep -qx "FAIL $name" "$seen"; then
                printf '%-6s %-8s %-28s\n' "$series" FAIL "$name"
                echo "    no result: $release ended before; the end of $console:"
                tail -n 40 "$console" | sed 's/^/    /'
            fi
        fi
    done
    return $failed
}

summary() {
    echo "$n_passed passed, $n_failed failed, 0 skipped"
}
