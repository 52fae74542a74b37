# SPDX-License-Identifier: MIT
# What has to be installed, and installing it. apt is asked only if dpkg says that something is
# missing, so that a second run is quick and works offline.
# shellcheck shell=bash

APT_build=(cmake ninja-build gcc libc6-dev pkg-config libdrm-dev libvulkan-dev glslc
    mesa-vulkan-drivers vulkan-validationlayers libmicrohttpd-dev libjansson-dev libsystemd-dev
    nettle-dev scdoc curl)
APT_test=(clang g++ git systemd strace dpkg-dev file)
APT_vm=(e2fsprogs mmdebstrap util-linux)
# Taken where the distribution has them; what needs them is skipped, and says so, where not.
APT_test_if_there=(clang-format-14)

# The same elsewhere, to be named in a message.
ELSEWHERE="  Fedora: cmake ninja-build gcc gcc-c++ pkgconf libdrm-devel vulkan-loader-devel vulkan-headers glslc
          mesa-vulkan-drivers vulkan-validation-layers libmicrohttpd-devel jansson-devel systemd-devel
          nettle-devel scdoc curl; for tests also clang compiler-rt git strace
  Arch:   cmake ninja gcc pkgconf libdrm vulkan-icd-loader vulkan-headers shaderc vulkan-swrast
          vulkan-validation-layers libmicrohttpd jansson systemd-libs nettle scdoc curl;
          for tests also clang compiler-rt git strace"

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "not root, and there is no sudo: as root, run: $*"
    fi
}

apt_missing() {
    local package status
    for package; do
        status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
        [ "$status" = installed ] || echo "$package"
    done
}

apt_install() {
    echo "Installing: $*"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update </dev/null ||
        complain "apt-get update failed; trying with the lists that are there"
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -y --no-install-recommends install "$@" </dev/null >/dev/null ||
        die "apt-get could not install: $*"
}

# clang's sanitizer and fuzzer libraries are in a package of their own, named after clang's version.
need_clang_runtime() {
    local version
    if echo 'int LLVMFuzzerTestOneInput(const unsigned char *p, unsigned long n) { return p && n > 99; }' |
        clang -fsanitize=fuzzer,address -x c - -o /dev/null 2>/dev/null; then
        return
    fi
    version=$(clang -dumpversion | cut -d. -f1)
    apt_install "libclang-rt-$version-dev"
}

# Without apt: see whether what is needed can be found, whoever installed it.
check_elsewhere() {
    local missing=() tool library
    for tool in cmake ninja cc pkg-config glslc curl; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    if command -v pkg-config >/dev/null; then
        for library in libdrm libdrm_amdgpu vulkan libmicrohttpd jansson libsystemd nettle; do
            pkg-config --exists "$library" || missing+=("$library (development files)")
        done
    fi
    if [ ${#missing[@]} -gt 0 ]; then
        complain "missing: $(printf '%s, ' "${missing[@]}" | sed 's/, $//')"
        echo "This is neither Debian nor Ubuntu, so please install them yourself:" >&2
        echo "$ELSEWHERE" >&2
        exit 1
    fi
}

# need_packages SET...: build, test, vm
need_packages() {
    local wanted=() missing package sets=" $* "
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        check_elsewhere
        return
    fi
    for package; do
        local -n set=APT_$package
        wanted+=("${set[@]}")
    done
    missing=$(apt_missing "${wanted[@]}")
    if [ -n "$missing" ]; then
        # shellcheck disable=SC2086 # package names have no spaces
        apt_install $missing
    fi
    if [[ $sets = *" test "* ]]; then
        missing=$(for package in $(apt_missing "${APT_test_if_there[@]}"); do
            ! apt-cache show "$package" >/dev/null 2>&1 || echo "$package"
        done)
        # shellcheck disable=SC2086
        [ -z "$missing" ] || apt_install $missing
        need_clang_runtime
    fi
}
