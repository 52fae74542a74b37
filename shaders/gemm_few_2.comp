/* SPDX-License-Identifier: MIT */
/* gemm_few.glsl with two matrices of tokens. */
#version 460
#extension GL_GOOGLE_include_directive : require
#define TOKEN_MATS 2
#include "gemm_few.glsl"
