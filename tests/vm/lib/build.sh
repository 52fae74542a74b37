# SPDX-License-Identifier: MIT
# Building inside the root, out of tree: the project, the test modules for every kernel, and the disk that
# takes them to the guest (the payload). The build directory belongs to this checkout and is kept.
# shellcheck shell=bash disable=SC2016,SC2154 # code for another shell; what run sets

# build_log NAME COMMAND...: quietly, with its time; its output if it fails.
build_log() {
    local name=$1 start=$SECONDS log=$ROOT/build/vm/build-$1.log
    shift
    guarded "$@" >"$log" 2>&1 </dev/null || {
        tail -n 60 "$log" >&2
        die "building $name failed ($log)"
    }
    printf '%-28s %4d s\n' "built $name" $((SECONDS - start))
}

build_project() {
    in_root bash -euc '
        cmake -S /mnt/source -B /mnt/build/project -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo \
            -DCMAKE_INSTALL_PREFIX=/usr -DGTTD_BUILD_TESTS=OFF -DGTTD_VM_TOOLS=ON
        cmake --build /mnt/build/project
        cd /mnt/build/project
        rm -rf package
        cpack
    '
}

# Every directory of tests/vm/modules is one kernel module, with a Makefile that takes KDIR.
build_modules() {
    in_root bash -euc '
        for release in $(ls /usr/lib/modules); do
            for source in /mnt/source/tests/vm/modules/*/; do
                [ -e "$source/Makefile" ] || continue
                work=/mnt/build/modules/$release/$(basename "$source")
                mkdir -p "$work"
                cp -pu "$source"/* "$work/"
                make -C "$work" KDIR="/lib/modules/$release/build" -j"$(nproc)"
            done
        done
    '
}

# Sets build_dir; another run from this checkout waits for us.
use_build() {
    build_dir=$CACHE/build-$(echo "$ROOT" | sha256sum | cut -c 1-16)
    exec 9>>"$build_dir.lock"
    touch "$build_dir.lock"
    flock 9
    if [ -n "$clean_build" ]; then
        rm -rf --one-file-system "$build_dir"
    fi
    mkdir -p "$build_dir" "$CACHE/ccache"
    # Another root has other compilers and headers.
    if [ "$(cat "$build_dir/root" 2>/dev/null)" != "$root_dir" ]; then
        rm -rf --one-file-system "$build_dir"
        mkdir -p "$build_dir"
        echo "$root_dir" >"$build_dir/root"
    fi
    build_log project build_project
    build_log modules build_modules
}

# The payload: what the guest finds in /mnt/payload.
make_payload() {
    local dir=$run_dir/payload module release
    mkdir -p "$dir/modules"
    cp "$build_dir"/project/package/gttd_*.deb "$dir/gttd.deb"
    cp -a "$HERE/guest" "$HERE/cases" "$build_dir/project/tests" "$dir/"
    mv "$dir/tests" "$dir/bin"
    for module in "$build_dir"/modules/*/*/*.ko; do
        [ -e "$module" ] || continue
        release=$(basename "$(dirname "$(dirname "$module")")")
        mkdir -p "$dir/modules/$release"
        cp "$module" "$dir/modules/$release/"
    done
    if [ -n "$command" ]; then
        printf '%s\n' "$command" >"$dir/command"
    else
        printf '%s\n' "${cases[@]}" >"$dir/plan"
    fi
    truncate -s 1G "$run_dir/payload.ext4"
    mke2fs -q -t ext4 -O ^has_journal -d "$dir" "$run_dir/payload.ext4"
}
