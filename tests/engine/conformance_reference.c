/* SPDX-License-Identifier: MIT */
/*
 * The reference backend against itself: shows that the suite's own bookkeeping (positions, windows,
 * rewinds, batches) is right, before another backend is judged by it.
 */
#include "conformance.h"

int main(void)
{
    const struct backend_params params = {.n_threads = 1};
    const struct conformance_tolerances exact = {0}; /* the same arithmetic in the same order */
    return conformance_run(&reference_backend, &params, &exact, true, 32) == 0 ? 0 : 1;
}
