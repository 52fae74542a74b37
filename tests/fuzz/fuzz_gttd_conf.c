/* SPDX-License-Identifier: MIT */
/*
 * gttd.conf, any bytes: a refusal says on which line, and what is accepted is within what gttd can
 * work with.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool x)
{
    if (!x) {
        abort();
    }
}

static void require_text(const char *text, size_t size)
{
    const char *end = memchr(text, '\0', size);
    require(end && end != text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config c;
    struct reason why = {""};
    config_default(&c);
    if (config_parse(&c, "f", data, size, &why) < 0) {
        require(!strncmp(why.text, "f:", 2) && why.text[2] >= '1' && why.text[2] <= '9');
        return 0;
    }
    require(!why.text[0]);
    require_text(c.heap, sizeof c.heap);
    require_text(c.device, sizeof c.device);
    require_text(c.anchor, sizeof c.anchor);
    require(c.pool_bytes < 1ull << 62 && c.quota_bytes < 1ull << 62 && c.floor_bytes < 1ull << 62);
    require(c.n_user_quotas <= USER_QUOTAS_MAX);
    for (uint32_t i = 0; i < c.n_user_quotas; i++) {
        require(c.user_quotas[i].uid != (uid_t)-1 && c.user_quotas[i].bytes < 1ull << 62);
    }
    require(c.pressure.stall_ms && c.pressure.stall_ms <= c.pressure.window_ms);
    require(c.pressure.window_ms <= 10000 && c.pressure.window_ms % 2000 == 0);
    require(c.pressure.step_bytes > 0);
    char trigger[PRESSURE_TRIGGER_MAX];
    require(strlen(pressure_trigger(&c.pressure, trigger)) >= sizeof "some 1 2000000" - 1);
    return 0;
}
