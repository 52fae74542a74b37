# SPDX-License-Identifier: MIT
# One process fills a segment, another one reads the same memory, through its mapping and through Vulkan.
# shellcheck shell=bash disable=SC2154 # guest/lib.sh

cd /run
for heap in amdgpu udmabuf; do
    fresh "heap = $heap"
    as tester gttseg fill weights 20 8 | tee filled
    [ "$(status .heap.name)" = $heap ]
    as tester gttseg open weights >opened
    cmp filled opened
    as tester gttseg vulkan weights >copied
    grep -i llvmpipe copied
    grep -v ^device copied | cmp filled -
    [ "$(grep -c '^chunk ' filled)" = 3 ]
    if [ $heap = amdgpu ]; then exporter=drm; else exporter=udmabuf; fi
    [ "$(awk '$1 == "chunk" && $3 == "'$exporter'"' filled | wc -l)" = 3 ] || fail "these are not $exporter's dma-bufs"
    refused 'ENOENT' as neighbour gttseg open weights
done
