/* SPDX-License-Identifier: MIT */
/* Telling what bench has measured: as text and as JSON. See bench_result.h. */
#include "bench_result.h"
#include "report.h"

#include <stdio.h>
#include <string.h>

#include "version.h"

static double gigabytes(double bytes)
{
    return bytes * 1e-9;
}

static double first_token_ms(const struct bench_result *r)
{
    return (double)since_start_ns(r->first_token_ns) * 1e-6;
}

static double decode_bps(const struct bench_result *r)
{
    return r->decode.tps * (double)r->info.bytes_per_token;
}

static double seconds_of(const struct bench_profile *profile)
{
    double sum = 0;
    for (size_t i = 0; i < profile->n; i++) {
        sum += profile->kernels[i].seconds;
    }
    return sum;
}

/* --- text --- */

static void print_profile(const struct bench_profile *profile, const char *what)
{
    double total = seconds_of(profile);
    if (profile->n_tokens == 0) {
        return;
    }
    printf("%s, %u token%s: %.3f ms on the device\n", what, profile->n_tokens,
           profile->n_tokens == 1 ? "" : "s", total * 1e3);
    for (size_t i = 0; i < profile->n; i++) {
        const struct kernel_time *k = &profile->kernels[i];
        printf("  %-12s %5u x %9.2f us %9.3f ms %5.1f %%\n", k->name, k->n, k->seconds / k->n * 1e6,
               k->seconds * 1e3, 100 * k->seconds / total);
    }
}

static void print_ratio(const char *what, uint32_t n_tokens, const struct bench_speed *now,
                        const struct bench_speed *then)
{
    if (now->n_tokens && then->n_tokens == now->n_tokens) {
        printf("  %s %u: %.3f times as fast (%.1f tok/s then)\n", what, n_tokens,
               now->tps / then->tps, then->tps);
    } else if (now->n_tokens) {
        printf("  %s %u: not measured then\n", what, n_tokens);
    }
}

static void print_difference(const char *what, const char *then)
{
    printf("  another %s then: %s\n", what, then);
}

static void print_comparison(const struct bench_result *r, const struct bench_earlier *earlier)
{
    printf("compared with gttrun %s:\n", earlier->version);
    if (strcmp(earlier->model, r->info.model_id) != 0) {
        print_difference("model", earlier->model);
    }
    if (strcmp(earlier->device, r->info.device) != 0) {
        print_difference("device", earlier->device);
    }
    if (earlier->depth != r->depth) {
        printf("  another depth then: %u\n", earlier->depth);
    }
    print_ratio("prefill", r->prefill.n_tokens, &r->prefill, &earlier->prefill);
    print_ratio("decode", r->decode.n_tokens, &r->decode, &earlier->decode);
    if (r->decode.n_tokens && earlier->cpu_ms_per_token > 0) {
        printf("  CPU per token: %.3f times as much (%.3f ms then)\n",
               r->cpu_per_token * 1e3 / (double)earlier->cpu_ms_per_token,
               (double)earlier->cpu_ms_per_token);
    }
}

void bench_print_text(const struct bench_result *r, const struct bench_earlier *earlier)
{
    const struct llm_engine_info *info = &r->info;
    printf("gttrun %s, %s, backend %s on %s%s%s\n", GTTD_VERSION_TEXT, info->model_id,
           info->backend, info->device, info->driver[0] ? ", " : "", info->driver);
    printf("weights: %s, %s, %.3f GB; %.3f GB read per token\n", info->source, info->memory,
           gigabytes((double)info->weight_bytes), gigabytes((double)info->bytes_per_token));
    if (r->first_token_ns) {
        printf("first token %.0f ms after the start\n", first_token_ms(r));
    }
    if (r->prefill.n_tokens) {
        printf("prefill %u at depth %u: %.1f tok/s (%.1f to %.1f, median of %u)\n",
               r->prefill.n_tokens, r->depth, r->prefill.tps, r->prefill.min, r->prefill.max,
               r->reps);
    }
    if (r->decode.n_tokens) {
        printf("decode %u at depth %u: %.2f tok/s (%.2f to %.2f, median of %u), %.2f GB/s",
               r->decode.n_tokens, r->depth, r->decode.tps, r->decode.min, r->decode.max, r->reps,
               gigabytes(decode_bps(r)));
        if (r->read_bps > 0) {
            printf(", %.0f %% of the %.1f GB/s it reads", 100 * decode_bps(r) / r->read_bps,
                   gigabytes(r->read_bps));
        }
        printf("\ntokens: %s ", r->sampled ? "drawn" : "the best, taken");
        if (r->n_ahead) {
            printf("on the device, %u in flight\n", r->n_ahead);
        } else {
            printf("on the host\n");
        }
        printf("CPU while decoding: %.2f cores, %.3f ms per token\n", r->cpu_per_s,
               r->cpu_per_token * 1e3);
    }
    if (r->batch.n_tokens) {
        printf(
            "%u sequences decode %u each at depth %u: %.2f tok/s in all (%.2f to %.2f, median of "
            "%u), %.2f each\n",
            r->n_sequences, r->batch.n_tokens, r->depth, r->batch.tps, r->batch.min, r->batch.max,
            r->reps, r->batch.tps / r->n_sequences);
    }
    if (earlier) {
        print_comparison(r, earlier);
    }
    print_profile(&r->prefill_kernels, "prefill");
    print_profile(&r->decode_kernels, "decode");
    print_profile(&r->batch_kernels, "decode together");
}

/* --- JSON --- */

static json_t *json_profile(const struct bench_profile *profile)
{
    json_t *array = json_array();
    double total = seconds_of(profile);
    for (size_t i = 0; i < profile->n && array; i++) {
        const struct kernel_time *k = &profile->kernels[i];
        json_array_append_new(array, json_pack("{s:s, s:i, s:f, s:f}", "kernel", k->name, "n",
                                               (int)k->n, "seconds", k->seconds, "share",
                                               total > 0 ? k->seconds / total : 0));
    }
    return array;
}

static json_t *json_speed(const struct bench_speed *speed)
{
    return json_pack("{s:i, s:f, s:f, s:f}", "tokens", (int)speed->n_tokens, "tps", speed->tps,
                     "min", speed->min, "max", speed->max);
}

static json_t *json_decode(const struct bench_result *r)
{
    json_t *json = json_speed(&r->decode);
    json_t *more =
        json_pack("{s:s, s:s, s:i, s:f, s:o?, s:o?, s:f, s:f}", "tokens_are",
                  r->sampled ? "drawn" : "best", "sampling", r->n_ahead ? "device" : "host",
                  "ahead", (int)r->n_ahead, "gbps", gigabytes(decode_bps(r)), "device_gbps",
                  r->read_bps > 0 ? json_real(gigabytes(r->read_bps)) : NULL, "share",
                  r->read_bps > 0 ? json_real(decode_bps(r) / r->read_bps) : NULL, "cpu_cores",
                  r->cpu_per_s, "cpu_ms_per_token", r->cpu_per_token * 1e3);
    if (json && more) {
        json_object_update(json, more);
    }
    json_decref(more);
    return json;
}

static json_t *json_batch(const struct bench_result *r)
{
    json_t *json = json_speed(&r->batch);
    if (json) {
        json_object_set_new(json, "sequences", json_integer(r->n_sequences));
        json_object_set_new(json, "tps_each", json_real(r->batch.tps / r->n_sequences));
    }
    return json;
}

/* Ratios of what was measured both times; now divided by then. */
static json_t *json_comparison(const struct bench_result *r, const struct bench_earlier *earlier)
{
    json_t *json =
        json_pack("{s:s, s:s, s:s, s:i}", "version", earlier->version, "model", earlier->model,
                  "device", earlier->device, "depth", (int)earlier->depth);
    if (json && r->prefill.n_tokens && r->prefill.n_tokens == earlier->prefill.n_tokens) {
        json_object_set_new(json, "prefill", json_real(r->prefill.tps / earlier->prefill.tps));
    }
    if (json && r->decode.n_tokens && r->decode.n_tokens == earlier->decode.n_tokens) {
        json_object_set_new(json, "decode", json_real(r->decode.tps / earlier->decode.tps));
    }
    if (json && r->decode.n_tokens && earlier->cpu_ms_per_token > 0) {
        json_object_set_new(json, "cpu_per_token",
                            json_real(r->cpu_per_token * 1e3 / (double)earlier->cpu_ms_per_token));
    }
    return json;
}

int bench_print_json(const struct bench_result *r, const struct bench_earlier *earlier,
                     struct err *err)
{
    const struct llm_engine_info *info = &r->info;
    json_t *json =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:I, s:i, s:i}", "version", GTTD_VERSION_TEXT,
                  "model", info->model_id, "backend", info->backend, "device", info->device,
                  "driver", info->driver, "weights", report_weights(info), "bytes_per_token",
                  (json_int_t)info->bytes_per_token, "depth", (int)r->depth, "repetitions",
                  (int)r->reps);
    if (json) {
        json_object_set_new(json, "start_ms", report_start(&info->start, r->first_token_ns));
    }
    if (json && r->first_token_ns) {
        json_object_set_new(json, "first_token_ms", json_real(first_token_ms(r)));
    }
    if (json && r->prefill.n_tokens) {
        json_object_set_new(json, "prefill", json_speed(&r->prefill));
    }
    if (json && r->decode.n_tokens) {
        json_object_set_new(json, "decode", json_decode(r));
    }
    if (json && r->batch.n_tokens) {
        json_object_set_new(json, "batch", json_batch(r));
    }
    if (json && r->prefill_kernels.n) {
        json_object_set_new(json, "prefill_kernels", json_profile(&r->prefill_kernels));
    }
    if (json && r->decode_kernels.n) {
        json_object_set_new(json, "decode_kernels", json_profile(&r->decode_kernels));
    }
    if (json && r->batch_kernels.n) {
        json_object_set_new(json, "batch_kernels", json_profile(&r->batch_kernels));
    }
    if (json && earlier) {
        json_object_set_new(json, "compared", json_comparison(r, earlier));
    }
    return report_print(json, err);
}
