/* SPDX-License-Identifier: MIT */
/*
 * What the sampling shaders share. The ids of a row are dealt out to the workgroups in slices; the
 * last workgroup of a row to finish goes on with what all have found. Weights are integers, so that
 * no order of adding them up matters (sampler.c is the reference); a 64-bit number is a uvec2, low
 * word first. Nothing depends on the size of subgroups.
 */
struct SampleRow { SAMPLE_ROW_FIELDS };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer SampleRows { SampleRow v[]; };

PUSH(SAMPLE_FIELDS);

const uint KEY_INFINITY = 0xff800000u;          /* of +infinity; a NaN's is higher */
const uint KEY_MINUS_INFINITY = 0x007fffffu;
const uint KEY_NAN = 0xffffffffu;

uint row, tid, row_first, work_first, slice_begin, slice_end;
SampleRow how;

shared uint row_is_done;
shared uvec2 scan[WG];

void start()
{
    row = gl_WorkGroupID.y;
    tid = gl_LocalInvocationID.x;
    row_first = row * p.vocab;
    work_first = row * WORK_WORDS;
    how = p.rows.v[row];
    uint share = (p.vocab + gl_NumWorkGroups.x - 1) / gl_NumWorkGroups.x;
    slice_begin = min(gl_WorkGroupID.x * share, p.vocab);
    slice_end = min(slice_begin + share, p.vocab);
}

/* Numbers of 64 bits */

uvec2 add64(uvec2 a, uvec2 b)
{
    uint carry;
    uint low = uaddCarry(a.x, b.x, carry);
    return uvec2(low, a.y + b.y + carry);
}

uvec2 sub64(uvec2 a, uvec2 b)
{
    uint borrow;
    uint low = usubBorrow(a.x, b.x, borrow);
    return uvec2(low, a.y - b.y - borrow);
}

bool less64(uvec2 a, uvec2 b)
{
    return a.y < b.y || (a.y == b.y && a.x < b.x);
}

uvec2 mul64(uvec2 a, uint b)
{
    uint high, low;
    umulExtended(a.x, b, high, low);
    return uvec2(low, high + a.y * b);
}

/* a * b / 2^32 */
uvec2 mul_shift64(uvec2 a, uint b)
{
    uint high, low, high_2, low_2;
    umulExtended(a.x, b, high, low);
    umulExtended(a.y, b, high_2, low_2);
    return add64(uvec2(low_2, high_2), uvec2(high, 0));
}

/* a * b / 2^64 */
uvec2 mul_high64(uvec2 a, uvec2 b)
{
    uint high, low;
    umulExtended(a.x, b.x, high, low);
    uvec2 middle = uvec2(high, 0);
    umulExtended(a.y, b.x, high, low);
    middle = add64(middle, uvec2(low, high));
    uint above = middle.y;
    umulExtended(a.x, b.y, high, low);
    middle = add64(uvec2(middle.x, 0), uvec2(low, high));
    uvec2 sum = add64(uvec2(above, 0), uvec2(middle.y, 0));
    umulExtended(a.y, b.y, high, low);
    return add64(sum, uvec2(low, high));
}

uvec2 shift_right64(uvec2 a, uint n)
{
    return uvec2(a.x >> n | a.y << (32 - n), a.y >> n);
}

uvec2 mul_low64(uvec2 a, uvec2 b)
{
    uvec2 product = mul64(a, b.x);
    return uvec2(product.x, product.y + a.x * b.y);
}

/* splitmix64's finaliser, as in sampler.c */
uvec2 mix64(uvec2 x)
{
    x = add64(x, uvec2(0x7f4a7c15u, 0x9e3779b9u));
    x = mul_low64(x ^ shift_right64(x, 30), uvec2(0x1ce4e5b9u, 0xbf58476du));
    x = mul_low64(x ^ shift_right64(x, 27), uvec2(0x133111ebu, 0x94d049bbu));
    return x ^ shift_right64(x, 31);
}

/* Logits */

/* Unsigned numbers in the order of the logits, 0 for none of them. */
uint key_of(float logit)
{
    uint bits = floatBitsToUint(logit);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return KEY_NAN;
    }
    if (bits == 0x80000000u) {
        bits = 0; /* -0 equals 0 */
    }
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

float logit_of(uint key)
{
    return uintBitsToFloat((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key);
}

/* Of a token with this logit, as it is sampled. */
uint key_from(uint id, float raw)
{
    precise float logit = raw;
    if (how.has_adjust != 0) {
        logit += how.adjust.v[id];
    }
    if (how.penalty != 1.0 &&
        (p.seen.v[row * ((p.vocab + 31) / 32) + id / 32] >> (id % 32) & 1) != 0) {
        logit *= logit > 0.0 ? how.inverse : how.penalty;
    }
    return key_of(logit);
}

uint key_at(uint id)
{
    return key_from(id, p.logits.v[row_first + id]);
}

/* floor(exp((logit - top) * rate) * 2^44) */
uvec2 weight_of(uint key, float top)
{
    precise float x = (top - logit_of(key)) * how.rate;
    if (!(x < 30.5)) {
        return uvec2(0); /* exp(-30.5) is less than 2^-44 */
    }
    precise float w = x > 0.0 ? exp(-x) : 1.0;
    precise float high = w * 4096.0;
    precise float low = (high - floor(high)) * 4294967296.0;
    return uvec2(uint(low), uint(high));
}

/* The workgroup: call from uniform control flow. */

/* The sum of the values up to each invocation's own; scan[WG - 1] is that of all. */
uvec2 scan64(uvec2 value)
{
    barrier();
    scan[tid] = value;
    barrier();
    for (uint by = 1; by < WG; by *= 2) {
        uvec2 before = tid >= by ? scan[tid - by] : uvec2(0);
        barrier();
        value = add64(value, before);
        scan[tid] = value;
        barrier();
    }
    return value;
}

/* Whether this is the last workgroup of the row: it then sees what the others wrote. */
bool is_last_of_row()
{
    memoryBarrierBuffer();
    barrier();
    if (tid == 0) {
        uint before = atomicAdd(p.work.v[work_first + WORK_FINISHED], 1);
        row_is_done = before == gl_NumWorkGroups.x - 1 ? 1 : 0;
    }
    barrier();
    if (row_is_done == 0) {
        return false;
    }
    memoryBarrierBuffer();
    if (tid == 0) {
        p.work.v[work_first + WORK_FINISHED] = 0; /* for the next dispatch */
    }
    return true;
}

bool is_number(uint key)
{
    return key < KEY_INFINITY && key > KEY_MINUS_INFINITY;
}

/* The row's token is known: for the host, and for the next pass. By one invocation. */
void emit(uint id)
{
    p.ring.v[row * SAMPLE_RING + how.step % SAMPLE_RING] = id;
    p.rows.v[row].step = how.step + 1;
    p.next_id.v[row] = id == SAMPLE_NONE ? 0 : id;
    p.next_pos.v[row * p.pos_stride] += 1;
    if (how.penalty != 1.0 && id != SAMPLE_NONE) {
        p.seen.v[row * ((p.vocab + 31) / 32) + id / 32] |= 1u << (id % 32);
    }
}
