#!/bin/sh
# SPDX-License-Identifier: MIT
# package_test.sh BUILD CPACK: `cmake --install` and the .deb have what they should, a program can be
# built against what is installed, and the unit is as closed as it is meant to be.
set -eu

build=$1
cpack=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

fail() {
    echo "package_test: $*" >&2
    exit 1
}

# installed ROOT
installed() {
    for file in bin/gttd bin/gttctl bin/gttrun include/gtt.h lib*/libgtt.so lib*/libgtt.so.0 lib*/pkgconfig/libgtt.pc \
        lib/systemd/system/gttd.socket lib/systemd/system/gttd.service lib/systemd/user/gttd.socket \
        lib/systemd/user/gttd.service lib/sysusers.d/gttd.conf share/doc/gttd/copyright \
        share/gttd/models/wordbook-22m/config.json; do
        # shellcheck disable=SC2086 # a pattern
        ls "$1"/$file >/dev/null || fail "$file is not installed"
    done
}

DESTDIR=$dir/root cmake --install "$build" >"$dir/log" || fail "cmake --install: $(cat "$dir/log")"
prefix=$(sed -n 's/^CMAKE_INSTALL_PREFIX:PATH=//p' "$build/CMakeCache.txt")
installed "$dir/root$prefix"

pc=$(dirname "$(find "$dir/root" -name libgtt.pc)")
cat >"$dir/use.c" <<'END'
#include <gtt.h>
#include <stdio.h>

int main(void)
{
    struct gtt *gtt;
    printf("%d\n", gtt_connect("/nonexistent/sock", "package_test", &gtt));
    return 0;
}
END
# shellcheck disable=SC2046 # flags
cc -o "$dir/use" "$dir/use.c" $(PKG_CONFIG_PATH=$pc pkg-config --cflags --libs libgtt)
[ "$(LD_LIBRARY_PATH=$pc/.. "$dir/use")" = -2 ] || fail "a program that uses libgtt does not run"
objdump -p "$dir/use" | grep -q 'NEEDED *libgtt.so.0$' || fail "libgtt has no SONAME"

(cd "$build" && "$cpack" -B "$dir/deb") >"$dir/log" 2>&1 || fail "cpack: $(cat "$dir/log")"
deb=$(echo "$dir"/deb/gttd_*.deb)
dpkg-deb -x "$deb" "$dir/unpacked"
installed "$dir/unpacked/usr"
dpkg-deb -f "$deb" Depends | grep -q 'libc6 .*libsystemd0' || fail "the package's dependencies are wrong"
for script in postinst prerm postrm triggers; do
    dpkg-deb --ctrl-tarfile "$deb" | tar -t | grep -q "/$script$" || fail "the package has no $script"
done
[ -z "$(find "$dir/unpacked" -perm /022 ! -type l)" ] || fail "something in the package is writable by all"

# Exposure at most 1.5. ExecStart is looked for on this machine, where gttd is not installed.
sed 's/^ExecStart=.*/ExecStart=true/' "$dir/unpacked/usr/lib/systemd/system/gttd.service" >"$dir/gttd.service"
systemd-analyze security --offline=true --threshold=15 "$dir/gttd.service" >"$dir/log" 2>&1 ||
    fail "$(tail -n 5 "$dir/log")"
tail -n 1 "$dir/log"
