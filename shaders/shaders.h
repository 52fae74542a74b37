/* SPDX-License-Identifier: MIT */
/* The compiled shaders, embedded as SPIR-V: nothing is read from disk at run time. */
#ifndef SHADERS_H
#define SHADERS_H

#include <stddef.h>
#include <stdint.h>

#define SHADER(name)         SHADER_##name,
#define SHADER_COOPMAT(name) SHADER(name)
enum shader_id {
#include "shaders.def"
    SHADER_COUNT,
};
#undef SHADER
#undef SHADER_COOPMAT

struct shader {
    const char *name;
    const uint32_t *words;
    size_t size_bytes;
};

extern const struct shader shaders[SHADER_COUNT]; /* size_bytes 0: not in this build */

#endif
