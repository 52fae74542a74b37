/* SPDX-License-Identifier: MIT */
/*
 * One row of weights to int4 or int8 groups, with no knowledge but the weights themselves. The
 * forms are those of model.h, without bias.
 */
#ifndef FORMATS_QUANTIZE_ROW_H
#define FORMATS_QUANTIZE_ROW_H

#include <stdint.h>

/*
 * w[cols] to ret_q (cols / 2 bytes for WEIGHT_Q4, cols for WEIGHT_Q8) and ret_scale[cols / group],
 * f16. cols is a multiple of group. -EDOM: a weight is not finite, or too large for an f16 scale.
 *
 * Q8: scale = absmax / 127. Q4: of 25 scales around -max / 8 (max: the element farthest from 0,
 * sign kept, so that it may use the ninth value on its side), each refitted once by least squares,
 * the one with the smallest squared error.
 */
int quantize_row(uint32_t type, uint32_t group, const float *w, uint32_t cols, uint8_t *ret_q,
                 uint16_t *ret_scale);

#endif
