/* SPDX-License-Identifier: MIT */
/*
 * y = w z for one token and an int4 or int8 matrix, with z as prologue.glsl leaves it in shared
 * memory. A row is read by LANES neighbouring invocations, ROWS rows at once (they divide the rows),
 * UNROLL blocks of each: so many loads are under way, each is replaced, before it is used, by the one
 * that is needed that much later. A workgroup goes on to rows further down; with NEAR, its rows are neighbours, else
 * those of other workgroups lie in between.
 *
 * Included once for each matrix, with MATRIX(name) giving its names. The includer has said
 * MATRIX(COLS), MATRIX(LANES), MATRIX(ROWS), MATRIX(UNROLL), MATRIX(NEAR) and MATRIX(GLU), how z is read:
 * z_bytes(i) for uvec4 i of [high, low][plane][block] and z_meta(block), its scale and sum of v; and who works:
 * WORKERS invocations of the workgroup, WORKER being their number or, of others, WORKERS or more.
 * FLOATS_OUT is the type of what is written.
 */
#define COLS          MATRIX(COLS)
#define LANES         MATRIX(LANES)
#define ROWS          MATRIX(ROWS)
#define UNROLL        MATRIX(UNROLL)
#define NEAR          MATRIX(NEAR)
#define GLU           MATRIX(GLU)
#define BLOCKS        MATRIX(BLOCKS)
#define MATS          MATRIX(MATS)
#define LOADS         MATRIX(LOADS)
#define STEPS         MATRIX(STEPS)
#define EVEN          MATRIX(EVEN)
#define raw           MATRIX(raw)
#define scale         MATRIX(scale)
#define bias          MATRIX(bias)
#define now           MATRIX(now)
#define scale_now     MATRIX(scale_now)
#define bias_now      MATRIX(bias_now)
#define acc           MATRIX(acc)
#define WHOLE_WORDS   MATRIX(WHOLE_WORDS)
#define first_block   MATRIX(first_block)
#define pair_of       MATRIX(pair_of)
#define half_in       MATRIX(half_in)
#define load          MATRIX(load)
#define near_rows     MATRIX(near_rows)
#define end_unit      MATRIX(end_unit)
#define first_unit    MATRIX(first_unit)
#define take          MATRIX(take)
#define use           MATRIX(use)
#define gemv_begin    MATRIX(gemv_begin)
#define gemv          MATRIX(gemv)

#ifndef GEMV_GLSL
#define GEMV_GLSL
struct Matrix {
    uvec2 data, scales, biases; /* addresses */
    uint units;                 /* rows of the result */
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

/* Raw weights and the words that hold their scales and biases, under way, and of a block of each row
 * in use. Globals, because glslc's optimizer cannot copy arrays of specialized sizes. */
uvec4 raw[LOADS], now[ROWS * MATS];
uint scale[LOADS], bias[LOADS], scale_now[ROWS * MATS], bias_now[ROWS * MATS];
float acc[ROWS * MATS];

/* Scales in words of two: neighbouring blocks of an invocation, and rows, lie whole words apart. */
const bool WHOLE_WORDS = COLS / GROUP % 2 + LANES * BLOCK % (2 * GROUP) == 0;

uint first_block(uint s)
{
    return s * UNROLL * LANES + WORKER % LANES;
}

/* The words of scales, or biases, of blocks u of step s. The address is one for all of a step: what
 * is added to it is constant. */
uint pair_of(uvec2 pairs, uint row, uint s, uint r, uint u)
{
    uint pair;
    if (WHOLE_WORDS) {
        U32 from = U32(advance(pairs, scale_index(row, COLS, first_block(s)) / 2 * 4));
        pair = from.v[(r / MATS * COLS + u * LANES * BLOCK) / GROUP / 2];
    } else {
        pair = U32(pairs).v[scale_index(row + r / MATS, COLS, first_block(s) + u * LANES) / 2];
    }
    return pair;
}

float half_in(uint pair, uint row, uint s, uint r, uint u)
{
    float value;
    if (WHOLE_WORDS) { /* the same half in all steps */
        value = unpackHalf2x16(pair >> (first_block(0) * BLOCK / GROUP % 2 * 16)).x;
    } else {
        value = half_of(pair, scale_index(row + r / MATS, COLS, first_block(s) + u * LANES));
    }
    return value;
}

/* Blocks u of step s, of a unit's rows. */
void load(Matrix w, uint unit, uint s, uint u)
{
    uint block = first_block(s) + u * LANES;
    if (EVEN || block < BLOCKS) {
        [[unroll]] for (uint r = 0; r < ROWS * MATS; r++) {
            uint row = unit + r % MATS * w.units, at = u * ROWS * MATS + r;
            U32x4 from = U32x4(advance(w.data, (row * BLOCKS + first_block(s)) * 16));
            raw[at] = from.v[r / MATS * BLOCKS + u * LANES];
            scale[at] = pair_of(w.scales, row, s, r, u);
            bias[at] = AFFINE != 0 ? pair_of(w.biases, row, s, r, u) : 0;
        }
    }
}

void take(uint u)
{
    [[unroll]] for (uint r = 0; r < ROWS * MATS; r++) {
        uint at = u * ROWS * MATS + r;
        now[r] = raw[at];
        scale_now[r] = scale[at];
        bias_now[r] = bias[at];
    }
}

/* What was taken: blocks u of step s. */
void use(Matrix w, uint unit, uint s, uint u)
{
    uint block = first_block(s) + u * LANES;
    if (EVEN || block < BLOCKS) {
        uvec2 meta = z_meta(block);
        float x_scale = uintBitsToFloat(meta.x);
        int x_sum = int(meta.y);
        [[unroll]] for (uint i = 0; i < 2 * PLANES; i++) {
            block_x[i] = z_bytes(i * BLOCKS + block);
        }
        [[unroll]] for (uint r = 0; r < ROWS * MATS; r++) {
            uint row = unit + r % MATS * w.units;
            int d = block_dot(now[r]);
            float w_scale = half_in(scale_now[r], row, s, r, u);
            if (AFFINE != 0) {
                acc[r] += x_scale * (w_scale * float(d) + half_in(bias_now[r], row, s, r, u) * float(x_sum));
            } else {
                d -= TYPE == WEIGHT_Q4 ? 8 * x_sum : 0;
                acc[r] += w_scale * (x_scale * float(d));
            }
        }
    }
}

/* With NEAR: of a workgroup. */
uint near_rows(Matrix w)
{
    uint each = ROWS * gl_NumWorkGroups.x;
    return (w.units + each - 1) / each * ROWS;
}

/* Where a workgroup's rows end. */
uint end_unit(Matrix w)
{
    return NEAR != 0 ? min(w.units, (gl_WorkGroupID.x + 1) * near_rows(w)) : w.units;
}

/* Either way, workgroups have equally many rows. */
uint first_unit(Matrix w)
{
    uint first = WORKER / LANES * gl_NumWorkGroups.x + gl_WorkGroupID.x;
    if (NEAR != 0) {
        first = WORKER / LANES + gl_WorkGroupID.x * near_rows(w) / ROWS;
    }
    return WORKER < WORKERS ? first * ROWS : end_unit(w);
}

/* The first weights are under way after this, which may be before z is there. */
void gemv_begin(Matrix w)
{
    [[unroll]] for (uint i = 0; i < LOADS; i++) {
        raw[i] = uvec4(0); /* or what was there before would take registers until now */
        scale[i] = bias[i] = 0;
    }
    uint first = first_unit(w);
    if (first < end_unit(w)) {
        [[unroll]] for (uint u = 0; u < UNROLL; u++) {
            load(w, first, 0, u);
        }
    }
}

/* factor: of all of z. */
void gemv(Matrix w, float factor, FLOATS_OUT to)
{
    uint stride = WORKERS / LANES * ROWS * (NEAR != 0 ? 1 : gl_NumWorkGroups.x), end = end_unit(w);
    [[dont_unroll]] for (uint unit = first_unit(w); unit < end; unit += stride) {
        [[unroll]] for (uint r = 0; r < ROWS * MATS; r++) {
            acc[r] = 0.0;
        }
        [[dont_unroll]] for (uint s = 0; s < STEPS; s++) {
            bool is_last = s + 1 == STEPS;
            uint next_unit = is_last ? unit + stride : unit, next_s = is_last ? 0 : s + 1;
            bool goes_on = next_unit < end;
            [[unroll]] for (uint u = 0; u < UNROLL; u++) {
                take(u);
                if (goes_on) {
                    load(w, next_unit, next_s, u);
                }
                use(w, unit, s, u);
            }
        }
        [[unroll]] for (uint r = 0; r < ROWS * MATS; r++) {
            [[unroll]] for (uint x = 1; x < LANES; x *= 2) {
                acc[r] += subgroupShuffleXor(acc[r], x);
            }
            acc[r] *= factor;
        }
        [[unroll]] for (uint r = 0; r < ROWS; r++) {
            if (WORKER % LANES == r % LANES) {
                to.v[unit + r] = GLU != 0 ? gelu(acc[MATS * r]) * acc[MATS * r + MATS - 1] : acc[r];
            }
        }
    }
}

#undef COLS
#undef LANES
#undef ROWS
#undef UNROLL
#undef NEAR
#undef GLU
#undef BLOCKS
#undef MATS
#undef LOADS
#undef STEPS
#undef EVEN
#undef raw
#undef scale
#undef bias
#undef now
#undef scale_now
#undef bias_now
#undef acc
#undef WHOLE_WORDS
#undef first_block
#undef pair_of
#undef half_in
#undef load
#undef near_rows
#undef end_unit
#undef first_unit
#undef take
#undef use
#undef gemv_begin
#undef gemv
