/* SPDX-License-Identifier: MIT */
/* A whole safetensors file in memory: what is accepted must lie inside the file, in order. */
#include <stdlib.h>
#include <string.h>

#include "safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct safetensors st;
    struct err err;
    size_t json_bytes;
    if (size < 8 || safetensors_header_size("f", data, size, &json_bytes, &err) < 0 ||
        safetensors_parse("f", (const char *)data + 8, json_bytes, size, &st, &err) < 0) {
        return 0;
    }
    uint64_t end = 8 + json_bytes;
    for (size_t i = 0; i < st.n; i++) {
        const struct safetensors_tensor *t = &st.tensors[i];
        if (t->off != end || t->n_dims > SAFETENSORS_MAX_DIMS || t->dtype >= DTYPE_COUNT) {
            abort();
        }
        end += t->size_bytes;
    }
    if (end != size) {
        abort();
    }
    safetensors_finish(&st);
    return 0;
}
