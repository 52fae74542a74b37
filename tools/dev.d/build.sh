# SPDX-License-Identifier: MIT
# Configuring and building a preset.
# shellcheck shell=bash

# build PRESET [TARGET...]
build() {
    local preset=$1 log
    shift
    case $preset in
    release | debug | clang | asan | tsan | fuzz) ;;
    *) misused "build: no preset $preset" ;;
    esac
    if command -v ccache >/dev/null; then
        export CMAKE_C_COMPILER_LAUNCHER=ccache
    fi
    mkdir -p "build/$preset"
    log=build/$preset/configure.log
    if ! cmake --preset "$preset" >"$log" 2>&1; then
        cat "$log" >&2
        die "cmake failed"
    fi
    cmake --build --preset "$preset" ${1:+--target "$@"}
}
