# SPDX-License-Identifier: MIT
# Tests that need no guest, but what its root file system has: a lavapipe with cooperative matrices, a glslc
# that knows them, a validation layer that does. ctest's label for them is "matrices".
# shellcheck shell=bash disable=SC2016,SC2154 # code for another shell; what run sets

build_tests() {
    in_root bash -euc '
        cmake -S /mnt/source -B /mnt/build/tests -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DGTTD_QUICK_TESTS=ON
        cmake --build /mnt/build/tests
    '
}

run_ctest() {
    in_root ctest --test-dir /mnt/build/tests -L matrices --no-tests=error --output-on-failure -j "$(nproc)"
}

# Non-zero if anything failed; a test that is skipped or has no validation layer has, there.
root_tests() {
    local log=$ROOT/build/vm/tests.log status=0 failed=0 name result seconds
    guarded run_ctest >"$log" 2>&1 </dev/null || status=$?
    while read -r name result seconds; do
        if [ "$result" = Passed ]; then
            result=ok
            n_passed=$((n_passed + 1))
        else
            result=FAIL
            failed=1
            n_failed=$((n_failed + 1))
        fi
        printf '%-6s %-8s %-28s %4d s\n' root "$result" "$name" "${seconds%.*}"
    done < <(sed -nE 's,^ *[0-9]+/[0-9]+ Test +#[0-9]+: ([^ ]+) \.* *(\*\*\*)?([A-Za-z]+).* ([0-9.]+) sec.*,\1 \3 \4,p' "$log")
    if [ "$failed" -eq 0 ] && { [ "$status" -ne 0 ] || [ "$n_passed" -eq 0 ] ||
        grep -H 'NOT VALIDATED' "$build_dir/tests/Testing/Temporary/LastTest.log" >>"$log"; }; then
        failed=1
        n_failed=$((n_failed + 1))
        printf '%-6s %-8s %-28s\n' root FAIL ctest
    fi
    [ "$failed" -eq 0 ] || tail -n 60 "$log" | sed 's/^/    /'
    return $failed
}
