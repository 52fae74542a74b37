/* SPDX-License-Identifier: MIT */
/* gemm_few.glsl with two matrices of tokens, of weights that go from register to register. */
#version 460
#extension GL_GOOGLE_include_directive : require
#define TOKEN_MATS 2
#define DIRECT
#include "gemm_few.glsl"
