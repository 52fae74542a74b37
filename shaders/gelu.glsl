/* SPDX-License-Identifier: MIT */
/* gelu_tanh(x). x/2 (1 + tanh(u)) is x / (1 + exp(-2u)), without tanh's cancellation near -1. exp()
 * must not overflow: what it does then is the driver's choice. */
vec4 gelu(vec4 x)
{
    vec4 u = 0.7978845608 * (x + 0.044715 * x * x * x);
    return x / (1.0 + exp(min(-2.0 * u, vec4(80.0))));
}

float gelu(float x)
{
    float u = 0.7978845608 * (x + 0.044715 * x * x * x);
    return x / (1.0 + exp(min(-2.0 * u, 80.0)));
}
