/* SPDX-License-Identifier: MIT */
/* gemm.glsl with subgroups of 2 times 2 matrices: for those that would leave most of a device idle otherwise. */
#version 460
#extension GL_GOOGLE_include_directive : require
#define MATS GEMM_SMALL_MATS
#include "gemm.glsl"
