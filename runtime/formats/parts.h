/* SPDX-License-Identifier: MIT */
/*
 * What the image's tensors are called in Hugging Face's files, and which of them are stored in
 * parts there: names and row counts, nothing of files.
 */
#ifndef FORMATS_PARTS_H
#define FORMATS_PARTS_H

#include <stdint.h>

#include "checkpoint.h"
#include "image.h"

struct part {
    char name[CHECKPOINT_NAME_MAX]; /* for checkpoint_matrix(): "layers.0.mlp.up_proj" */
    uint32_t rows;
};

/* The parts of a slot of config's image, in the order of their rows. Returns how many: 1 to 3. */
uint32_t slot_parts(const struct model_config *config, const struct image_slot *slot,
                    struct part ret[static 3]);

#endif
