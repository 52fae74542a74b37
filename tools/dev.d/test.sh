# SPDX-License-Identifier: MIT
# The whole test run: steps, their times, and one line at the end that counts everything.
#
# Four builds give all the evidence: release (gcc; what is shipped, and what `tools/dev run` starts),
# asan (gcc, AddressSanitizer, UBSan, assertions, warnings are errors), tsan, and fuzz (clang,
# warnings are errors, libFuzzer). Only fuzz targets run in the last one. The debug and clang presets
# would repeat what these show; they are for hands.
# shellcheck shell=bash

LOGS=build/test-logs
FUZZ_SECONDS=30
# Not with ThreadSanitizer: lavapipe and the validation layer, which are not built for it, and what has one thread.
TSAN_EXCLUDE='vulkan|vkc|vk_|kept|ahead|reference'

n_passed=0
n_failed=0
n_skipped=0
failures=()
skips=()

# step NAME COMMAND...: 0 passed, 77 skipped (its last line says why), else failed.
step() {
    local name=$1 log start status=0
    shift
    log="$LOGS/$(echo "$name" | tr ' /' '__').log"
    start=$SECONDS
    printf '%-34s' "$name"
    ("$@") >"$log" 2>&1 </dev/null || status=$?
    case $status in
    0)
        printf 'ok      %4d s\n' $((SECONDS - start))
        n_passed=$((n_passed + 1))
        ;;
    77)
        printf 'skipped %4d s  %s\n' $((SECONDS - start)) "$(tail -n 1 "$log")"
        n_skipped=$((n_skipped + 1))
        skips+=("$name: $(tail -n 1 "$log")")
        ;;
    *)
        printf 'FAILED  %4d s\n' $((SECONDS - start))
        tail -n 60 "$log" | sed 's/^/    /'
        n_failed=$((n_failed + 1))
        failures+=("$name ($log)")
        ;;
    esac
    return $((status != 0 && status != 77))
}

junit_count() {
    sed -nE '/<testsuite( |$)/,/>/s/.*[[:space:]]'"$2"'="([0-9]+)".*/\1/p' "$1" | head -n 1
}

# ctest_step PRESET [CTEST-ARGUMENT...]: counts every test by itself.
ctest_step() {
    local preset=$1 log=$LOGS/ctest_$1.log junit=$ROOT/$LOGS/ctest_$1.xml start=$SECONDS
    local total failed skipped status=0 name
    shift
    rm -f "$junit"
    printf '%-34s' "tests ($preset)"
    ctest --test-dir "build/$preset" --output-on-failure --no-tests=error --timeout 600 \
        -j "$(nproc)" --output-junit "$junit" "$@" >"$log" 2>&1 </dev/null || status=$?
    if [ ! -s "$junit" ]; then
        printf 'FAILED  %4d s\n' $((SECONDS - start))
        tail -n 20 "$log" | sed 's/^/    /'
        n_failed=$((n_failed + 1))
        failures+=("tests ($preset) ($log)")
        return
    fi
    total=$(junit_count "$junit" tests)
    failed=$(junit_count "$junit" failures)
    skipped=$(($(junit_count "$junit" skipped) + $(junit_count "$junit" disabled)))
    if [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then
        failed=1 # a test that could not be run at all
    fi
    n_passed=$((n_passed + total - failed - skipped))
    n_failed=$((n_failed + failed))
    n_skipped=$((n_skipped + skipped))
    printf '%-7s %4d s  %d passed, %d failed, %d skipped\n' "$([ "$failed" -eq 0 ] && echo ok || echo FAILED)" \
        $((SECONDS - start)) $((total - failed - skipped)) "$failed" "$skipped"
    while IFS= read -r name; do
        skips+=("$name ($preset): see $log")
    done < <(sed -nE 's/.* Test +#[0-9]+: ([^ ]+) \.*\*\*\*Skipped.*/\1/p' "$log" | sort -u)
    if [ "$failed" -ne 0 ]; then
        failures+=("tests ($preset) ($log)")
        grep -vE '^ *[0-9]+/[0-9]+ Test .* Passed |^ +Start ' "$log" | tail -n 120 | sed 's/^/    /'
    fi
}

# One fuzz target: the kept corpus is read, new inputs go to build/.
fuzz_one() {
    local target=$1 seconds=$2 work=build/fuzz-work/$1
    mkdir -p "$work/corpus" "$work/findings"
    "build/fuzz/tests/$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=3000 -print_final_stats=1 \
        -verbosity=1 -artifact_prefix="$work/findings/" "$work/corpus" "tests/fuzz/corpus/$target" \
        >"$work/log" 2>&1 </dev/null || {
        echo "$target: FAILED; the input is in $work/findings"
        tail -n 40 "$work/log"
        return 1
    }
    echo "$target: $(sed -nE 's/^stat::number_of_executed_units: *//p' "$work/log") runs, no finding"
}

# As many at once as there are cores.
fuzz_all() {
    local targets
    targets=$(find build/fuzz/tests -maxdepth 1 -type f -name 'fuzz_*' -executable -printf '%f\n' | sort)
    [ -n "$targets" ] || die "fuzz: no targets"
    export -f fuzz_one
    echo "$targets" | xargs -P "$(nproc)" -I '{}' bash -c "fuzz_one '{}' $1"
}

# The guest rig: each case on each kernel counts by itself.
vm_step() {
    local log=$LOGS/vm.log start=$SECONDS passed failed
    tests/vm/run 2>&1 </dev/null | tee "$log" | sed 's/^/vm: /' || true
    read -r passed failed < <(sed -nE '$s/^([0-9]+) passed, ([0-9]+) failed, 0 skipped$/\1 \2/p' "$log") || true
    if [ -z "${failed:-}" ] || [ $((passed + failed)) -eq 0 ]; then
        passed=0 failed=1 # it did not come to its end
    fi
    n_passed=$((n_passed + passed))
    n_failed=$((n_failed + failed))
    printf '%-34s%-7s %4d s  %d passed, %d failed\n' "guest rig" "$([ "$failed" -eq 0 ] && echo ok || echo FAILED)" \
        $((SECONDS - start)) "$passed" "$failed"
    [ "$failed" -eq 0 ] || failures+=("guest rig ($log)")
}

# test_all [VM]: with the guest rig if VM is not empty.
test_all() {
    local start=$SECONDS item
    mkdir -p "$LOGS"
    step "hygiene" check_hygiene "$LOGS/white_space" || true
    step "format" check_format || true
    step "public headers" check_headers || true
    if step "build release (gcc)" build release; then
        ctest_step release
    fi
    if step "build asan (gcc, ubsan)" build asan; then
        ctest_step asan -LE slow
    fi
    if step "build tsan (gcc)" build tsan; then
        ctest_step tsan -E "$TSAN_EXCLUDE" -LE 'fuzz|single|slow'
    fi
    if step "build fuzz (clang, asan, ubsan)" build fuzz; then
        step "fuzzing, $FUZZ_SECONDS s each" fuzz_all $FUZZ_SECONDS || true
        grep -h 'runs, no finding' "$LOGS"/fuzzing*.log | sed 's/^/    /' || true
    fi
    [ -z "${1:-}" ] || vm_step

    for item in ${skips[@]+"${skips[@]}"}; do
        echo "skipped: $item"
    done
    for item in ${failures[@]+"${failures[@]}"}; do
        echo "failed: $item"
    done
    echo "took $((SECONDS - start)) s"
    echo "$n_passed passed, $n_failed failed, $n_skipped skipped"
    [ "$n_failed" -eq 0 ]
}
