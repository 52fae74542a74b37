/* SPDX-License-Identifier: MIT */
/* Reading what an earlier gttrun bench --json has printed. See bench_result.h. */
#include "bench_result.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "json_file.h"

static int need_string(const char *name, const json_t *json, const char *key, const char **ret,
                       struct err *err)
{
    *ret = NULL;
    int r = json_get_string(name, json, key, ret, err);
    return r < 0 || *ret
               ? r
               : err_set(err, -EINVAL, "%s: no %s: gttrun bench has not printed this", name, key);
}

/* An object with tokens and tps; absent: nothing was measured. */
static int get_speed(const char *name, const json_t *json, const char *key, struct bench_speed *ret,
                     json_t **ret_object, struct err *err)
{
    json_t *object = NULL;
    float tps = 0;
    *ret = (struct bench_speed){0};
    int r = json_get_object(name, json, key, &object, err);
    if (r < 0 || !object) {
        return r;
    }
    r = json_get_u32(name, object, "tokens", 1, UINT32_MAX, &ret->n_tokens, err);
    if (r == 0) {
        r = json_get_float(name, object, "tps", 1e-6, 1e12, &tps, err);
    }
    if (r == 0 && (ret->n_tokens == 0 || tps <= 0)) {
        r = err_set(err, -EINVAL, "%s: %s: no tokens or tps", name, key);
    }
    ret->tps = (double)tps;
    *ret_object = object;
    return r;
}

static int get_all(const char *name, struct bench_earlier *e, struct err *err)
{
    json_t *prefill = NULL, *decode = NULL;
    int r = need_string(name, e->json, "version", &e->version, err);
    if (r == 0) {
        r = need_string(name, e->json, "model", &e->model, err);
    }
    if (r == 0) {
        r = need_string(name, e->json, "device", &e->device, err);
    }
    if (r == 0) {
        r = json_get_u32(name, e->json, "depth", 0, UINT32_MAX, &e->depth, err);
    }
    if (r == 0) {
        r = get_speed(name, e->json, "prefill", &e->prefill, &prefill, err);
    }
    if (r == 0) {
        r = get_speed(name, e->json, "decode", &e->decode, &decode, err);
    }
    if (r == 0 && decode) {
        r = json_get_float(name, decode, "cpu_ms_per_token", 0, 1e9, &e->cpu_ms_per_token, err);
    }
    return r;
}

int bench_earlier_parse(const char *name, const void *text, size_t size, struct bench_earlier *ret,
                        struct err *err)
{
    struct bench_earlier earlier = {.cpu_ms_per_token = -1};
    int r = json_parse_object(name, text, size, &earlier.json, err);
    if (r == 0) {
        r = get_all(name, &earlier, err);
    }
    if (r < 0) {
        bench_earlier_finish(&earlier);
        return r;
    }
    *ret = earlier;
    return 0;
}

int bench_earlier_load(const char *path, struct bench_earlier *ret, struct err *err)
{
    char *text;
    size_t size;
    int r = json_read_file(AT_FDCWD, path, path, &text, &size, err);
    if (r == 0) {
        r = bench_earlier_parse(path, text, size, ret, err);
        free(text);
    }
    return r;
}

void bench_earlier_finish(struct bench_earlier *earlier)
{
    json_decref(earlier->json);
    *earlier = (struct bench_earlier){0};
}
