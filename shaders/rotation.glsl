/* SPDX-License-Identifier: MIT */
/*
 * cos and sin of position * frequency, correct to about 1e-7 at any position on every device.
 * Vulkan promises sin() to 2^-11 within [-pi, pi] and nothing beyond, and position 131071 is an
 * angle of up to that many radians. So the frequency is a 64-bit fraction of a turn per position
 * and the product wraps by itself.
 */

/* turn: low and high word of 2^64 * frequency / (2 pi). x: cos, y: sin. */
vec2 rotation(uint pos, uvec2 turn)
{
    uint high, low;
    umulExtended(pos, turn.x, high, low);
    uint angle = high + pos * turn.y; /* in 2^-32 of a turn */
    uint quadrant = (angle + 0x20000000u) >> 30;
    float r = float(int(angle - (quadrant << 30))) * 1.46291807926715968e-9; /* 2 pi / 2^32 */

    /* Minimax polynomials for [-pi/4, pi/4]. */
    float z = r * r;
    float s = r + r * z * (-1.6666654611e-1 + z * (8.3321608736e-3 - z * 1.9515295891e-4));
    float c = 1.0 - 0.5 * z +
              z * z * (4.166664568298827e-2 + z * (-1.388731625493765e-3 + z * 2.443315711809948e-5));
    vec2 cs = (quadrant & 1) != 0 ? vec2(-s, c) : vec2(c, s);
    return (quadrant & 2) != 0 ? -cs : cs;
}
