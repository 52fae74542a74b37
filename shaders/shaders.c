/* SPDX-License-Identifier: MIT */
/* The table of embedded SPIR-V modules; the .inc files are what glslc wrote for each name.comp. */
#include "shaders.h"

#include "shaders_spv.inc"

/* SPIR-V starts with a magic number; what glslc could not compile is a single 0. */
#define SHADER(name) \
    [SHADER_##name] = {#name, name##_spv, sizeof name##_spv > 4 ? sizeof name##_spv : 0},
#define SHADER_COOPMAT(name) SHADER(name)
const struct shader shaders[SHADER_COUNT] = {
#include "shaders.def"
};
#undef SHADER
#undef SHADER_COOPMAT
