/* SPDX-License-Identifier: MIT */
/* The table of embedded SPIR-V modules; the .inc files are what glslc wrote for each name.comp. */
#include "shaders.h"

#include "shaders_spv.inc"

#define SHADER(name) [SHADER_##name] = {#name, name##_spv, sizeof name##_spv},
const struct shader shaders[SHADER_COUNT] = {
#include "shaders.def"
};
#undef SHADER
