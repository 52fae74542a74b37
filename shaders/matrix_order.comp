/* SPDX-License-Identifier: MIT */
/* Which elements of a 16 x 16 matrix of f16 each invocation of a subgroup of 32 holds, and in which
 * order: Vulkan does not say. */
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_cooperative_matrix : require
#include "common.glsl"

PUSH(MATRIX_ORDER_FIELDS);

shared uint pairs[128];

void main()
{
    for (uint i = gl_LocalInvocationID.x; i < 128; i += WG) {
        pairs[i] = packFloat2x16(f16vec2(2 * i, 2 * i + 1));
    }
    barrier();
    coopmat<float16_t, gl_ScopeSubgroup, 16, 16, gl_MatrixUseA> a;
    coopMatLoad(a, pairs, 0, 8, gl_CooperativeMatrixLayoutRowMajor);
    [[unroll]] for (uint i = 0; i < 8; i++) {
        p.out_.v[gl_SubgroupInvocationID * 8 + i] = uint(a[i]);
    }
}
