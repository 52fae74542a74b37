/* SPDX-License-Identifier: MIT */
/*
 * What every shader starts with: reference types for the addresses in push.h, the workgroup's size
 * and reductions over it. A workgroup may be split into subgroups of any size; nothing here assumes
 * one. Memory is read through addresses only, so there are no descriptors to bind.
 */
#extension GL_EXT_buffer_reference : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require

#include "push.h"

/* R: only read. W: only written. C: shared by the workgroups of a dispatch. */
layout(buffer_reference, std430, buffer_reference_align = 4) buffer F32 { float v[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) restrict readonly buffer F32R { float v[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) coherent buffer F32C { float v[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) coherent buffer U32C { uint v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer F32x4 { vec4 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) coherent buffer F32x4C { vec4 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) restrict readonly buffer F32x4R { vec4 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) restrict readonly buffer U32 { uint v[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) restrict writeonly buffer U32W { uint v[]; };
layout(buffer_reference, std430, buffer_reference_align = 8) restrict writeonly buffer U32x2W { uvec2 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 8) restrict readonly buffer U32x2 { uvec2 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) restrict readonly buffer U32x4 { uvec4 v[]; };
struct StepRow {
    STEP_ROW_FIELDS
};
layout(buffer_reference, std430, buffer_reference_align = 16) restrict readonly buffer Step {
    STEP_FIELDS
    int ids[STEP_IDS_MAX];
    StepRow rows[STEP_ROWS_MAX];
};

layout(local_size_x_id = SPEC_WG) in;
layout(constant_id = SPEC_WG) const uint WG = 64;
layout(constant_id = SPEC_SLOTS) const uint SLOTS = 64;

#define PUSH(fields) layout(push_constant, std430) uniform Push { fields } p

shared float reduce_slots[SLOTS];

/* Call these from uniform control flow, with every invocation of the workgroup. */
float workgroup_add(float value)
{
    value = subgroupAdd(value);
    if (gl_NumSubgroups == 1) {
        return value;
    }
    if (subgroupElect()) {
        reduce_slots[gl_SubgroupID] = value;
    }
    barrier();
    value = 0.0;
    for (uint i = gl_SubgroupInvocationID; i < gl_NumSubgroups; i += gl_SubgroupSize) {
        value += reduce_slots[i];
    }
    barrier(); /* before the next reduction writes the slots */
    return subgroupAdd(value);
}

float workgroup_max(float value)
{
    value = subgroupMax(value);
    if (gl_NumSubgroups == 1) {
        return value;
    }
    if (subgroupElect()) {
        reduce_slots[gl_SubgroupID] = value;
    }
    barrier();
    value = reduce_slots[0];
    for (uint i = gl_SubgroupInvocationID; i < gl_NumSubgroups; i += gl_SubgroupSize) {
        value = max(value, reduce_slots[i]);
    }
    barrier();
    return subgroupMax(value);
}
