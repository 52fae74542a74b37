/* SPDX-License-Identifier: MIT */
/*
 * y = w z for one token and an int4 or int8 matrix, with z as prologue.glsl leaves it in shared
 * memory. A row is read by LANES neighbouring invocations, ROWS rows at once, UNROLL blocks of each;
 * the next loads are under way while the last are used. A workgroup goes on to rows further down.
 *
 * Included once for each matrix, with MATRIX(name) giving its names. The includer has said
 * MATRIX(COLS), MATRIX(LANES), MATRIX(ROWS), MATRIX(UNROLL) and MATRIX(GLU), and how z is read:
 * z_bytes(i) for uvec4 i of [high, low][plane][block] and z_meta(block), its scale and sum of v.
 * FLOATS_OUT is the type of what is written.
 */
#define COLS          MATRIX(COLS)
#define LANES         MATRIX(LANES)
#define ROWS          MATRIX(ROWS)
#define UNROLL        MATRIX(UNROLL)
#define GLU           MATRIX(GLU)
#define BLOCKS        MATRIX(BLOCKS)
#define MATS          MATRIX(MATS)
#define LOADS         MATRIX(LOADS)
#define STEPS         MATRIX(STEPS)
#define EVEN          MATRIX(EVEN)
#define raw           MATRIX(raw)
#define next_raw      MATRIX(next_raw)
#define scale         MATRIX(scale)
#define next_scale    MATRIX(next_scale)
#define bias          MATRIX(bias)
#define next_bias     MATRIX(next_bias)
#define acc           MATRIX(acc)
#define row_of        MATRIX(row_of)
#define load          MATRIX(load)
#define take          MATRIX(take)
#define multiply      MATRIX(multiply)
#define first_unit    MATRIX(first_unit)
#define gemv_begin    MATRIX(gemv_begin)
#define gemv          MATRIX(gemv)

#ifndef GEMV_GLSL
#define GEMV_GLSL
struct Matrix {
    U32x4 data;
    U32 scales, biases;
    uint units; /* rows of the result */
};

uvec4 block_x[4]; /* high planes, low planes */

/* Sum over a block of q * v. */
int block_dot(uvec4 w)
{
    int high = 0, low = 0;
    [[unroll]] for (uint i = 0; i < 4; i++) {
        if (TYPE == WEIGHT_Q4) {
            uint a = w[i] & 0x0f0f0f0fu, b = (w[i] >> 4) & 0x0f0f0f0fu;
            high += dot4(a, block_x[0][i]) + dot4(b, block_x[1][i]);
            low += dot4(a, block_x[2][i]) + dot4(b, block_x[3][i]);
        } else {
            high += dot4(w[i], block_x[0][i]);
            low += dot4(w[i], block_x[PLANES][i]);
        }
    }
    return 256 * high + low;
}
#endif

const uint BLOCKS = COLS / BLOCK;
const uint MATS = GLU != 0 ? 2 : 1; /* the gate's row and the up's */
const uint LOADS = MATS * ROWS * UNROLL;
const uint STEPS = (BLOCKS + LANES * UNROLL - 1) / (LANES * UNROLL);
const bool EVEN = BLOCKS % (LANES * UNROLL) == 0;

/* Raw weights and the words that hold their scales and biases: in use, and under way. Globals,
 * because glslc's optimizer cannot copy arrays of specialized sizes. */
uvec4 raw[LOADS], next_raw[LOADS];
uint scale[LOADS], next_scale[LOADS];
uint bias[LOADS], next_bias[LOADS];
float acc[ROWS * MATS];

uint row_of(Matrix w, uint unit, uint mat)
{
    return min(unit, w.units - 1) + mat * w.units;
}

void load(Matrix w, uint unit, uint s)
{
    [[unroll]] for (uint u = 0; u < UNROLL; u++) {
        uint block = (s * UNROLL + u) * LANES + me % LANES;
        if (EVEN || block < BLOCKS) {
            [[unroll]] for (uint r = 0; r < ROWS * MATS; r++) {
                uint row = row_of(w, unit + r / MATS, r % MATS);
                uint at = u * ROWS * MATS + r;
                next_raw[at] = w.data.v[row * BLOCKS + block];
                next_scale[at] = w.scales.v[scale_index(row, COLS, block) / 2];
                next_bias[at] = AFFINE != 0 ? w.biases.v[scale_index(row, COLS, block) / 2] : 0;
            }
        } else {
            /* Or what was there before would be kept, and take registers until now. */
            [[unroll]] for (uint r = 0; r < ROWS * MATS; r++) {
                uint at = u * ROWS * MATS + r;
                next_raw[at] = uvec4(0);
                next_scale[at] = next_bias[at] = 0;
            }
        }
    }
}

void take()
{
    [[unroll]] for (uint i = 0; i < LOADS; i++) {
        raw[i] = next_raw[i];
        scale[i] = next_scale[i];
        bias[i] = next_bias[i];
    }
}

void multiply(Matrix w, uint unit, uint s)
{
    [[unroll]] for (uint u = 0; u < UNROLL; u++) {
        uint block = (s * UNROLL + u) * LANES + me % LANES;
        if (EVEN || block < BLOCKS) {
            uvec2 meta = z_meta(block);
            float x_scale = uintBitsToFloat(meta.x);
            int x_sum = int(meta.y);
            [[unroll]] for (uint i = 0; i < 2 * PLANES; i++) {
                block_x[i] = z_bytes(i * BLOCKS + block);
            }
            [[unroll]] for (uint r = 0; r < ROWS * MATS; r++) {
                uint row = row_of(w, unit + r / MATS, r % MATS);
                uint at = u * ROWS * MATS + r;
                uint i = scale_index(row, COLS, block);
                int d = block_dot(raw[at]);
                float w_scale = half_of(scale[at], i);
                if (AFFINE != 0) {
                    acc[r] += x_scale * (w_scale * float(d) + half_of(bias[at], i) * float(x_sum));
                } else {
                    d -= TYPE == WEIGHT_Q4 ? 8 * x_sum : 0;
                    acc[r] += w_scale * (x_scale * float(d));
                }
            }
        }
    }
}

/* Neighbouring rows go to different workgroups, so that all have equally many. */
uint first_unit()
{
    return (me / LANES * gl_NumWorkGroups.x + gl_WorkGroupID.x) * ROWS;
}

/* The first weights are under way after this, which may be before z is there. */
void gemv_begin(Matrix w)
{
    load(w, first_unit(), 0);
}

void gemv(Matrix w, FLOATS_OUT to)
{
    uint stride = WG / LANES * gl_NumWorkGroups.x * ROWS;
    for (uint unit = first_unit(); unit < w.units; unit += stride) {
        [[unroll]] for (uint r = 0; r < ROWS * MATS; r++) {
            acc[r] = 0.0;
        }
        for (uint s = 0; s < STEPS; s++) {
            take();
            bool goes_on = s + 1 < STEPS;
            if (goes_on || unit + stride < w.units) {
                load(w, goes_on ? unit : unit + stride, goes_on ? s + 1 : 0);
            }
            multiply(w, unit, s);
        }
        [[unroll]] for (uint r = 0; r < ROWS * MATS; r++) {
            [[unroll]] for (uint x = 1; x < LANES; x *= 2) {
                acc[r] += subgroupShuffleXor(acc[r], x);
            }
        }
        [[unroll]] for (uint r = 0; r < ROWS; r++) {
            if (me % LANES == r % LANES && unit + r < w.units) {
                to.v[unit + r] = GLU != 0 ? gelu(acc[MATS * r]) * acc[MATS * r + MATS - 1] : acc[r];
            }
        }
    }
}

#undef COLS
#undef LANES
#undef ROWS
#undef UNROLL
#undef GLU
#undef BLOCKS
#undef MATS
#undef LOADS
#undef STEPS
#undef EVEN
#undef raw
#undef next_raw
#undef scale
#undef next_scale
#undef bias
#undef next_bias
#undef acc
#undef row_of
#undef load
#undef take
#undef multiply
#undef first_unit
#undef gemv_begin
#undef gemv
