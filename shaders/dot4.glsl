/* SPDX-License-Identifier: MIT */
/*
 * The sum of the products of four signed bytes and four others: one instruction on every GPU of the
 * last years. OpSDot through its number, because older glslc do not know its name; the device needs
 * shaderIntegerDotProduct.
 */
#extension GL_EXT_spirv_intrinsics : require

#define PACKED_4X8 0
spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6019, 6018], id = 4450)
int sdot(uint a, uint b, spirv_literal int format);

int dot4(uint a, uint b)
{
    return sdot(a, b, PACKED_4X8);
}
