/* SPDX-License-Identifier: MIT */
/* gemm.glsl with subgroups of 4 times 4 matrices: for matrices of many rows. */
#version 460
#extension GL_GOOGLE_include_directive : require
#define MATS GEMM_MATS
#include "gemm.glsl"
