/* SPDX-License-Identifier: MIT */
/* Reports: see report.h. */
#include "report.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

static json_t *ids_json(const int32_t *ids, size_t n)
{
    json_t *array = json_array();
    for (size_t i = 0; array && i < n; i++) {
        json_array_append_new(array, json_integer(ids[i]));
    }
    return array;
}

static double per_second(size_t n, uint64_t ns)
{
    return ns ? (double)n * 1e9 / (double)ns : 0;
}

static size_t n_decoded(const struct llm_result *result)
{
    return result->n_ids > 1 ? result->n_ids - 1 : 0;
}

/* null: the device reads the weights in place. */
static json_t *device_copy_json(const struct llm_engine_info *info)
{
    const struct llm_device_copy *copy = &info->device_copy;
    return info->has_device_copy
               ? json_pack("{s:b, s:f, s:f, s:f, s:f, s:f}", "kept", (int)copy->kept, "find_ms",
                           copy->find_ms, "import_ms", copy->import_ms, "compare_ms",
                           copy->compare_ms, "copy_ms", copy->copy_ms, "keep_ms", copy->keep_ms)
               : json_null();
}

json_t *report_weights(const struct llm_engine_info *info)
{
    return json_pack("{s:s, s:s, s:I, s:o}", "source", info->source, "memory", info->memory,
                     "bytes", (json_int_t)info->weight_bytes, "device_copy",
                     device_copy_json(info));
}

static void add_ms(json_t *json, const char *name, uint64_t when_ns)
{
    if (json && when_ns) {
        json_object_set_new(json, name, json_real((double)since_start_ns(when_ns) * 1e-6));
    }
}

json_t *report_start(const struct start *start, uint64_t first_token_ns)
{
    json_t *json = json_object();
    for (int step = 0; step < START_STEPS; step++) {
        add_ms(json, start_step_text((enum start_step)step), start->done_ns[step]);
    }
    add_ms(json, "first_token", first_token_ns);
    return json;
}

int report_print(json_t *json, struct err *err)
{
    if (!json) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    int r = json_dumpf(json, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
    json_decref(json);
    if (r < 0 || putchar('\n') == EOF || fflush(stdout) != 0) {
        return err_set(err, -EIO, "stdout: cannot be written");
    }
    return 0;
}

int report_chat(const struct llm_engine *engine, const int32_t *prompt, size_t n_prompt,
                const struct llm_result *result, struct err *err)
{
    static const char *const finish[] = {"stop", "length", "cancelled"};
    struct llm_engine_info info;
    llm_engine_info(engine, &info);
    double first_ms =
        result->first_token_ns ? (double)since_start_ns(result->first_token_ns) * 1e-6 : 0;
    return report_print(json_pack("{s:s%, s:o, s:o, s:s, s:{s:f, s:f, s:f}, s:o, s:s, s:s, s:o}",
                                  "text", result->text, result->text_size, "ids",
                                  ids_json(result->ids, result->n_ids), "prompt_ids",
                                  ids_json(prompt, n_prompt), "finish", finish[result->finish],
                                  "timings", "first_token_ms", first_ms, "prefill_tps",
                                  per_second(n_prompt - result->n_reused, result->prefill_ns),
                                  "decode_tps", per_second(n_decoded(result), result->decode_ns),
                                  "weights", report_weights(&info), "backend", info.backend,
                                  "device", info.device, "start_ms",
                                  report_start(&info.start, result->first_token_ns)),
                        err);
}

void report_speed(size_t n_prefill, const struct llm_result *result, bool quiet)
{
    if (quiet || !isatty(STDERR_FILENO)) {
        return;
    }
    fprintf(stderr, "[prompt %zu tokens, %.0f/s; answer %zu tokens, %.1f/s]\n", n_prefill,
            per_second(n_prefill, result->prefill_ns), result->n_ids,
            per_second(n_decoded(result), result->decode_ns));
}
