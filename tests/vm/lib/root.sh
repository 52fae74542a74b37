# SPDX-License-Identifier: MIT
# Using the guest's root file system: making it when its recipe has changed, keeping it in the cache, never
# writing to it, running something inside of it.
# shellcheck shell=bash disable=SC2016,SC2154 # code for another shell; what run sets

KEEP_DAYS=7 # what no run has used for so long goes

# The recipe's hash: what makes one root file system differ from another.
root_hash() {
    { cat "$HERE/lib/recipe.sh"; echo "$MIRROR"; } | sha256sum | cut -c 1-16
}

# What nobody has used for days, and nobody uses now.
cache_sweep() {
    local dir
    find "$CACHE" -mindepth 1 -maxdepth 1 -name '*-*.lock' -mtime "+$KEEP_DAYS" | while IFS= read -r lock; do
        dir=${lock%.lock}
        flock -n "$lock" rm -rf --one-file-system "$dir" "$lock" || true
    done
}

# Sets root_dir: .../root is the tree, .../root.ext4 the disk. Its lock is shared by all who use it, so that
# nobody sweeps it away, and exclusive while it is made.
use_root() {
    local start=$SECONDS
    cache_sweep
    root_dir=$CACHE/root-$(root_hash)
    exec 8>>"$root_dir.lock"
    touch "$root_dir.lock"
    flock -s 8
    if [ -n "$fresh_root" ] || [ ! -e "$root_dir" ]; then
        flock 8
        [ -z "$fresh_root" ] || rm -rf --one-file-system "$root_dir"
        if [ ! -e "$root_dir" ]; then
            echo "Making the guest's root file system (once, some minutes)"
            rm -rf --one-file-system "$root_dir.new"
            guarded root_make "$root_dir.new"
            mv "$root_dir.new" "$root_dir"
            echo "root file system: $((SECONDS - start)) s"
        fi
        flock -s 8
    fi
}

# in_root COMMAND...: becomes the command inside the root, which is read-only but for /tmp and /mnt/build, in
# namespaces of its own: nothing stays mounted or running however we end. The checkout is /mnt/source.
in_root() {
    exec 8>&- 9>&- # our locks
    exec setpriv --pdeathsig KILL unshare --mount --pid --ipc --net --fork --kill-child bash -euc '
        root=$1 source=$2 build=$3 ccache=$4
        shift 4
        mount --bind "$root" "$root"
        mount -o remount,bind,ro "$root"
        mount -t proc proc "$root/proc"
        mount -t tmpfs tmp "$root/tmp"
        mount --rbind /dev "$root/dev"
        mount --bind "$source" "$root/mnt/source"
        mount -o remount,bind,ro "$root/mnt/source"
        mount --bind "$build" "$root/mnt/build"
        mount --bind "$ccache" "$root/mnt/ccache"
        exec chroot "$root" env -i PATH=/usr/lib/ccache:/usr/sbin:/usr/bin HOME=/tmp LC_ALL=C.UTF-8 \
            CCACHE_DIR=/mnt/ccache CCACHE_TEMPDIR=/tmp TERM="${TERM:-dumb}" "$@"
    ' in_root "$root_dir/root" "$ROOT" "$build_dir" "$CACHE/ccache" "$@"
}
