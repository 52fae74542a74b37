/* SPDX-License-Identifier: MIT */
/*
 * Where a token is and where its layer's keys and values are: the step's only timeline and the
 * addresses in the push constants, or with MANY, which the includer says, the token's own.
 */
#extension GL_EXT_buffer_reference_uvec2 : require

struct LayerKv {
    LAYER_KV_FIELDS
};
layout(buffer_reference, std430, buffer_reference_align = 16) restrict readonly buffer LayerKvs { LayerKv v[]; };

struct Timeline {
    uint pos;
    LayerKv kv;
};

/* k and v stay 0 without MANY: those of the push constants have types of their own. */
Timeline timeline_of(uint token)
{
    if (MANY != 0) {
        StepRow row = p.step_p.rows[token];
        return Timeline(row.pos, LayerKvs(row.layers).v[p.layer]);
    }
    LayerKv kv;
    kv.k = kv.v = uvec2(0);
    kv.ring = p.ring;
    return Timeline(p.step_p.pos + token, kv);
}
