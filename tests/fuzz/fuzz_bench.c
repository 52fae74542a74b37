/* SPDX-License-Identifier: MIT */
/* What gttrun bench --compare reads: whatever is accepted can be divided by and printed. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench_result.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok) {
        abort();
    }
}

static void require_speed(const struct bench_speed *speed)
{
    require(speed->n_tokens == 0 || (isfinite(speed->tps) && speed->tps > 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bench_earlier earlier;
    struct err err;
    if (bench_earlier_parse("earlier.json", data, size, &earlier, &err) < 0) {
        return 0;
    }
    require(strlen(earlier.version) + strlen(earlier.model) + strlen(earlier.device) <= size);
    require_speed(&earlier.prefill);
    require_speed(&earlier.decode);
    require(isfinite(earlier.cpu_ms_per_token));
    bench_earlier_finish(&earlier);
    return 0;
}
