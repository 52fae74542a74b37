/* SPDX-License-Identifier: MIT */
/* What backends have in common besides their table of functions. */
#include "backend.h"

#include <errno.h>

const char *weight_path_text(enum weight_path path)
{
    static const char *const text[] = {
        [WEIGHT_PATH_ADOPTED] = "adopted",
        [WEIGHT_PATH_DMABUF] = "dma-buf",
        [WEIGHT_PATH_HOST_POINTER] = "host-pointer",
        [WEIGHT_PATH_DEVICE_COPY] = "device-copy",
    };
    return text[path];
}

int backend_check_many(struct backend_state *const *states, const int32_t *ids, uint32_t n,
                       uint32_t max, uint32_t vocab, struct err *err)
{
    if (n == 0 || n > max) {
        return err_set(err, -EINVAL, "%u sequences in one step: 1 to %u can decode together", n,
                       max);
    }
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t j = 0; j < i; j++) {
            if (states[i] == states[j]) {
                return err_set(err, -EINVAL, "sequences %u and %u of a step are the same", j, i);
            }
        }
        if (ids[i] < 0 || (uint32_t)ids[i] >= vocab) {
            return err_set(err, -EINVAL, "sequence %u: token id %d: the vocabulary has %u", i,
                           ids[i], vocab);
        }
    }
    return 0;
}
