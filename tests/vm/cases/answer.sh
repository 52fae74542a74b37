# SPDX-License-Identifier: MIT
# gttrun answers through Vulkan from memory that it does not copy, the second time also did not fill.
# shellcheck shell=bash disable=SC2154 # guest/lib.sh
# timeout: 900

cd /run
# lavapipe compiles its shaders on an emulated CPU here: narrow and not optimized, that takes a seventh.
export LP_NATIVE_VECTOR_WIDTH=128 GALLIVM_PERF=nopt
ask() { # BACKEND
    as tester gttrun chat -m "$MODEL" --backend "$1" --temp 0 -n 3 -p 'What is 7 plus 5?' --json
}
for source in pool-fill pool-hit; do
    start=$SECONDS
    ask vulkan | tee answer.json
    [ "$(jq -r .weights.source answer.json)" = $source ]
    [ "$(jq -r .weights.memory answer.json)" = dma-buf ]
    jq -c .ids answer.json >ids-$source
    echo "note: $source, dma-buf, $(jq -r .device answer.json): $((SECONDS - start)) s: $(jq -c .text answer.json)"
done
[ "$(status .heap.name)" = amdgpu ]
cmp ids-pool-fill ids-pool-hit
ask cpu | jq -c .ids | cmp ids-pool-hit - || fail "the CPU answers otherwise"
