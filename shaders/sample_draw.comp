/* SPDX-License-Identifier: MIT */
/* Draw one of the kept tokens of each row, by id, with the probability of its weight. */
#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "sample.glsl"

uint cut_key;
float top;
uvec2 tie_weight; /* of the tokens with cut_key */

shared uint slice; /* in which the token is */
shared uvec2 slice_place;
shared uint slice_ties;

uvec2 weight_or_none(uint key)
{
    uvec2 weight = weight_of(key, top);
    return less64(weight, uvec2(how.least_low, how.least_high)) ? uvec2(0) : weight;
}

/* What an invocation found in a range of ids: the weight above the cut and the ties with it. Of the
 * ties, those with the lowest ids are kept, as many as there is room for. */
struct Found {
    uvec2 weight;
    uint ties;
};

void look_at(uint id, inout Found f)
{
    uint key = key_at(id);
    if (key > cut_key) {
        f.weight = add64(f.weight, weight_or_none(key));
    } else if (key == cut_key) {
        f.ties++;
    }
}

uint ties_kept(uint ties, uint before, uint room)
{
    return before < room ? min(ties, room - before) : 0;
}

/* With the ties that are kept of it. All invocations in order; *before: weight before this one's. */
uvec2 whole_weight(Found f, uint room, out uvec2 before, out uint kept)
{
    uint ties_before = scan64(uvec2(f.ties, 0)).x - f.ties;
    kept = ties_kept(f.ties, ties_before, room);
    uvec2 mine = add64(f.weight, mul64(tie_weight, kept));
    before = sub64(scan64(mine), mine);
    return mine;
}

bool contains(uvec2 before, uvec2 mine, uvec2 place)
{
    return !less64(place, before) && less64(place, add64(before, mine));
}

/* The token at a place among ids[begin .. end). */
void draw(uint begin, uint end, uvec2 place, uint room)
{
    for (uint id = begin; id < end; id++) {
        uint key = key_at(id);
        uvec2 weight = uvec2(0);
        if (key > cut_key) {
            weight = weight_or_none(key);
        } else if (key == cut_key && room > 0) {
            weight = tie_weight;
            room--;
        }
        if (less64(place, weight)) {
            emit(id);
            return;
        }
        place = sub64(place, weight);
    }
}

void choose_slice()
{
    uint parts = work_first + WORK_PARTS;
    Found f = Found(uvec2(0), 0);
    if (tid == 0) {
        slice = 0;
    }
    if (tid < gl_NumWorkGroups.x) {
        f.weight = uvec2(p.work.v[parts + tid * 3], p.work.v[parts + tid * 3 + 1]);
        f.ties = p.work.v[parts + tid * 3 + 2];
    }
    uvec2 before;
    uint kept;
    uvec2 mine = whole_weight(f, p.work.v[work_first + WORK_CUT_TIES], before, kept);
    uvec2 random = mix64(uvec2(how.seed_low ^ how.step, how.seed_high));
    uvec2 place = mul_high64(random, scan[WG - 1]);
    if (contains(before, mine, place)) {
        slice = tid;
        slice_place = sub64(place, before);
        slice_ties = kept;
    }
    barrier();
}

void main()
{
    start();
    uint top_key = p.work.v[work_first + WORK_TOP_KEY];
    cut_key = p.work.v[work_first + WORK_CUT_KEY];
    top = logit_of(top_key);
    tie_weight = cut_key != 0 ? weight_or_none(cut_key) : uvec2(0);
    Found f = Found(uvec2(0), 0);
    for (uint id = slice_begin + tid; id < slice_end; id += WG) {
        look_at(id, f);
    }
    scan64(f.weight);
    uvec2 weight = scan[WG - 1];
    scan64(uvec2(f.ties, 0));
    if (tid == 0) {
        uint part = work_first + WORK_PARTS + gl_WorkGroupID.x * 3;
        p.work.v[part] = weight.x;
        p.work.v[part + 1] = weight.y;
        p.work.v[part + 2] = scan[WG - 1].x;
    }
    if (!is_last_of_row()) {
        return;
    }
    if (!is_number(top_key) || how.rate == 0.0) {
        if (tid == 0) {
            emit(is_number(top_key) ? p.work.v[work_first + WORK_TOP_ID] : SAMPLE_NONE);
        }
        return;
    }
    choose_slice();
    uint share = (p.vocab + gl_NumWorkGroups.x - 1) / gl_NumWorkGroups.x;
    uint begin = slice * share, end = min(begin + share, p.vocab);
    uint chunk = (end - begin + WG - 1) / WG;
    begin = min(begin + tid * chunk, end);
    end = min(begin + chunk, end);
    f = Found(uvec2(0), 0);
    for (uint id = begin; id < end; id++) {
        look_at(id, f);
    }
    uvec2 before;
    uint kept;
    uvec2 mine = whole_weight(f, slice_ties, before, kept);
    if (contains(before, mine, slice_place)) {
        draw(begin, end, sub64(slice_place, before), kept);
    }
}
