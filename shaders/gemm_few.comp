/* SPDX-License-Identifier: MIT */
/* gemm_few.glsl with one matrix of tokens. */
#version 460
#extension GL_GOOGLE_include_directive : require
#define TOKEN_MATS 1
#include "gemm_few.glsl"
