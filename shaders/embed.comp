/* SPDX-License-Identifier: MIT */
/* Rows of the embedding matrix, dequantized and scaled. One workgroup per token. */
#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "weights.glsl"

PUSH(EMBED_FIELDS);

void main()
{
    uint token = gl_WorkGroupID.x;
    if (token >= p.step_p.n) {
        return;
    }
    uint row = uint(p.step_p.ids[token]);
    uint blocks = p.cols / BLOCK;
    for (uint b = gl_LocalInvocationID.x; b < blocks; b += WG) {
        uvec4 raw = p.data.v[row * blocks + b];
        vec2 affine = block_affine(p.scale, p.bias, row, p.cols, b);
        uint out_first = (token * blocks + b) * VECS;
        for (uint i = 0; i < VECS; i++) {
            p.x.v[out_first + i] = unpack(raw, affine, i) * p.factor;
        }
    }
}
