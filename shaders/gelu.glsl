/* SPDX-License-Identifier: MIT */
/* gelu_tanh(x) */
float gelu(float x)
{
    float u = 0.7978845608 * (x + 0.044715 * x * x * x);
    return x / (1.0 + exp(min(-2.0 * u, 80.0))); /* as in geglu.comp */
}
