/* SPDX-License-Identifier: MIT */
/*
 * y = x w^T for a matrix of any stored type: ROWS rows and TILE tokens per workgroup. The workgroup's
 * invocations lie along K, 16 bytes of weights each, so that a row is read coalesced; each weight is
 * decoded once for all tokens of the tile, each activation loaded once for all rows. Row groups fold into the grid's z beyond 65535 (the
 * smallest limit of a dimension).
 */
#version 460
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "weights.glsl"

layout(constant_id = SPEC_ROWS) const uint ROWS = 4;
layout(constant_id = SPEC_TILE) const uint TILE = 1;

PUSH(MATMUL_FIELDS);

shared float sums[ROWS * TILE * SLOTS];

void main()
{
    uint first_row = (gl_WorkGroupID.z * gl_NumWorkGroups.x + gl_WorkGroupID.x) * ROWS;
    uint n = p.step_p.n;
    uint first_token = p.last_only != 0 ? n - 1 : gl_WorkGroupID.y * TILE;
    if (first_row >= p.rows || first_token >= n) {
        return;
    }

    float acc[ROWS * TILE];
    for (uint i = 0; i < ROWS * TILE; i++) {
        acc[i] = 0.0;
    }
    uint blocks = p.cols / BLOCK;
    uint last_row = p.rows - 1;
    for (uint b = gl_LocalInvocationID.x; b < blocks; b += WG) {
        uvec4 raw[ROWS];
        vec2 affine[ROWS];
        for (uint r = 0; r < ROWS; r++) {
            uint row = min(first_row + r, last_row);
            raw[r] = p.data.v[row * blocks + b];
            affine[r] = block_affine(p.scale, p.bias, row, p.cols, b);
        }
        for (uint i = 0; i < VECS; i++) {
            vec4 w[ROWS];
            for (uint r = 0; r < ROWS; r++) {
                w[r] = unpack(raw[r], affine[r], i);
            }
            for (uint t = 0; t < TILE; t++) {
                vec4 x = p.x.v[(min(first_token + t, n - 1) * blocks + b) * VECS + i];
                for (uint r = 0; r < ROWS; r++) {
                    acc[r * TILE + t] += dot(w[r], x);
                }
            }
        }
    }

    for (uint i = 0; i < ROWS * TILE; i++) {
        float sum = subgroupAdd(acc[i]);
        if (subgroupElect()) {
            sums[i * SLOTS + gl_SubgroupID] = sum;
        }
    }
    barrier();
    uint out_token = p.last_only != 0 ? 0 : first_token;
    for (uint i = gl_LocalInvocationID.x; i < ROWS * TILE; i += WG) {
        uint row = first_row + i / TILE;
        uint t = i % TILE;
        if (row < p.rows && first_token + t < n) {
            float sum = 0.0;
            for (uint s = 0; s < gl_NumSubgroups; s++) {
                sum += sums[i * SLOTS + s];
            }
            p.y.v[(out_token + t) * p.rows + row] = sum;
        }
    }
}
