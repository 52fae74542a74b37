/* SPDX-License-Identifier: MIT */
/*
 * Find the key down to which tokens are kept: the top_k best, or (by_weight) the best of those kept
 * so far that have top_p of their weight. A radix selection in three levels of 11, 11 and 10 bits: a
 * level finds the bin in which the key is by adding up all bins, the best first.
 */
#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "sample.glsl"

shared uint bin_low[SAMPLE_BINS], bin_high[SAMPLE_BINS];

uint shift, n_bins; /* of this level: where its bits are */
uint prefix, cut_key;
float top;

/* The bin of a key, from the best on; SAMPLE_NONE: the levels before have excluded it. */
uint bin_of(uint key)
{
    if (p.level > 0) {
        uint known = p.level == 1 ? 21 : 10;
        if (key >> known != prefix >> known) {
            return SAMPLE_NONE;
        }
    }
    return n_bins - 1 - (key >> shift & (n_bins - 1));
}

void fill_bins()
{
    for (uint b = tid; b < n_bins; b += WG) {
        bin_low[b] = 0;
        bin_high[b] = 0;
    }
    barrier();
    for (uint id = slice_begin + tid; id < slice_end; id += WG) {
        uint key = key_at(id);
        uint b = key > cut_key ? bin_of(key) : SAMPLE_NONE;
        if (b == SAMPLE_NONE) {
            continue;
        }
        uvec2 value = p.by_weight != 0 ? weight_of(key, top) : uvec2(1, 0);
        uint before = atomicAdd(bin_low[b], value.x);
        value.y += before + value.x < before ? 1 : 0;
        if (value.y != 0) {
            atomicAdd(bin_high[b], value.y);
        }
    }
    barrier();
}

void join_bins()
{
    uint bins = work_first + WORK_BINS;
    for (uint b = tid; b < n_bins; b += WG) {
        uint low = bin_low[b], high = bin_high[b];
        if (low != 0) {
            uint before = atomicAdd(p.work.v[bins + b], low);
            high += before + low < before ? 1 : 0;
        }
        if (high != 0) {
            atomicAdd(p.work.v[bins + SAMPLE_BINS + b], high);
        }
    }
}

/* This invocation's bins, from the row's memory, which is zeroed. */
uvec2 take_bins(uint first, uint n)
{
    uint bins = work_first + WORK_BINS;
    uvec2 sum = uvec2(0);
    /* of those with the key of the last cut not all are kept */
    uint cut_bin = p.by_weight != 0 && cut_key != 0 ? bin_of(cut_key) : SAMPLE_NONE;
    for (uint b = first; b < first + n; b++) {
        uvec2 value = uvec2(p.work.v[bins + b], p.work.v[bins + SAMPLE_BINS + b]);
        p.work.v[bins + b] = 0;
        p.work.v[bins + SAMPLE_BINS + b] = 0;
        if (b == cut_bin) {
            uint ties = p.work.v[work_first + WORK_CUT_TIES];
            value = add64(value, mul64(weight_of(cut_key, top), ties));
        }
        bin_low[b] = value.x;
        bin_high[b] = value.y;
        sum = add64(sum, value);
    }
    return sum;
}

uvec2 target(uvec2 total)
{
    if (p.level > 0) {
        return uvec2(p.work.v[work_first + WORK_LEFT], p.work.v[work_first + WORK_LEFT + 1]);
    }
    if (p.by_weight == 0) {
        return uvec2(how.top_k != 0 ? how.top_k : p.vocab, 0);
    }
    uvec2 wanted = how.top_p == SAMPLE_ALL ? total : mul_shift64(total, how.top_p);
    return wanted == uvec2(0) ? uvec2(1, 0) : wanted;
}

/* The fewest of this weight that together have so much. */
uint ties_for(uvec2 left, uvec2 weight)
{
    uint low = 1, high = p.vocab;
    while (low < high) {
        uint middle = (low + high) / 2;
        if (less64(mul64(weight, middle), left)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The key is in this bin, and of the bin's so much is to be kept. */
void found(uint b, uvec2 left)
{
    uint key = (p.level > 0 ? prefix : 0) | (n_bins - 1 - b) << shift;
    p.work.v[work_first + WORK_PREFIX] = key;
    p.work.v[work_first + WORK_LEFT] = left.x;
    p.work.v[work_first + WORK_LEFT + 1] = left.y;
    if (p.level == 2) {
        p.work.v[work_first + WORK_CUT_KEY] = key;
        p.work.v[work_first + WORK_CUT_TIES] =
            p.by_weight != 0 ? ties_for(left, weight_of(key, top)) : left.x;
    }
}

void main()
{
    start();
    shift = p.level == 0 ? 21 : p.level == 1 ? 10 : 0;
    n_bins = p.level == 2 ? SAMPLE_BINS / 2 : SAMPLE_BINS;
    prefix = p.work.v[work_first + WORK_PREFIX];
    cut_key = p.work.v[work_first + WORK_CUT_KEY];
    top = logit_of(p.work.v[work_first + WORK_TOP_KEY]);
    fill_bins();
    join_bins();
    if (!is_last_of_row()) {
        return;
    }
    uint n = n_bins / WG, first = tid * n;
    uvec2 mine = take_bins(first, n);
    uvec2 sum = scan64(mine);
    uvec2 before = sub64(sum, mine);
    uvec2 wanted = target(scan[WG - 1]);
    barrier(); /* what is to be kept has been read before it is written */
    if (!less64(before, wanted) || less64(sum, wanted)) {
        return; /* not in this invocation's bins */
    }
    for (uint b = first; b < first + n; b++) {
        uvec2 left = sub64(wanted, before);
        before = add64(before, uvec2(bin_low[b], bin_high[b]));
        if (!less64(before, wanted)) {
            found(b, left);
            return;
        }
    }
}
