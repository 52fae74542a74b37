/* SPDX-License-Identifier: MIT */
/* What backends have in common besides their table of functions. */
#include "backend.h"

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
