/* SPDX-License-Identifier: MIT */
/* gttrun bench: prefill and decode speed, what a token reads, what it costs the CPU. */
#include "gttrun.h"
#include "report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "version.h"

struct bench_options {
    struct model_options model;
    uint32_t n_prefill;
    uint32_t n_decode;
    uint32_t depth;
    uint32_t reps;
    bool json;
    bool profile;
};

enum { OPT_RANDOM = 512, OPT_JSON, OPT_PROFILE };

static const struct argp_option bench_arg_options[] = {
    {"prefill", 'p', "N", 0, "tokens of prompt (default 512, 0: skip)", 0},
    {"decode", 'n', "N", 0, "tokens to decode (default 128, 0: skip)", 0},
    {"depth", 'd', "N", 0, "tokens already in the context (default 0)", 0},
    {"repetitions", 'r', "N", 0, "repetitions, of which the median counts (default 5)", 0},
    {"random", OPT_RANDOM, "SIZE", 0,
     "random weights of Gemma 3's true shapes, in the pool: 270m, 1b, 4b, 12b, 27b", 0},
    {"profile", OPT_PROFILE, NULL, 0,
     "then time each kernel of one decoded token and one batch of prompt", 0},
    {"json", OPT_JSON, NULL, 0, "print one JSON object", 0},
    {0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct bench_options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->model;
        break;
    case 'p':
        o->n_prefill = (uint32_t)number_arg(state, "-p", arg, 0, 1u << 20);
        break;
    case 'n':
        o->n_decode = (uint32_t)number_arg(state, "-n", arg, 0, 1u << 20);
        break;
    case 'd':
        o->depth = (uint32_t)number_arg(state, "-d", arg, 0, 1u << 20);
        break;
    case 'r':
        o->reps = (uint32_t)number_arg(state, "-r", arg, 1, 1000);
        break;
    case OPT_RANDOM:
        o->model.random_size = arg;
        break;
    case OPT_PROFILE:
        o->profile = true;
        break;
    case OPT_JSON:
        o->json = true;
        break;
    case ARGP_KEY_END:
        if (o->n_prefill == 0 && o->n_decode == 0) {
            argp_error(state, "nothing to measure: -p and -n are both 0");
        }
        if (!o->model.model == !o->model.random_size) {
            argp_error(state, "either -m DIR or --random SIZE is needed");
        }
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp_child children[] = {{&model_argp, 0, "Model and device:", 1}, {0}};
static const struct argp bench_argp = {
    .options = bench_arg_options,
    .parser = parse_option,
    .children = children,
    .doc = "Measure prefill and decode speed. Medians over the repetitions, after one that does "
           "not count.",
};

struct figures {
    double prefill_tps, prefill_min, prefill_max;
    double decode_tps, decode_min, decode_max;
    double cpu_per_s;     /* CPU seconds per second while decoding, user and system */
    double cpu_per_token; /* CPU seconds */
};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, by_value);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

/* Ids that no two neighbouring positions share; the first is not one a vocabulary might lack. */
static void fill_ids(int32_t *ids, size_t n, uint32_t vocab)
{
    for (size_t i = 0; i < n; i++) {
        ids[i] = (int32_t)((2 + i * 7919) % vocab);
    }
}

static int measure(struct llm_engine *engine, const struct bench_options *o, struct figures *ret,
                   struct err *err)
{
    struct llm_engine_info info;
    llm_engine_info(engine, &info);
    uint32_t longest = o->n_prefill > o->n_decode + 1 ? o->n_prefill : o->n_decode + 1;
    uint32_t n_ids = o->depth + longest;
    struct llm_session *session = NULL;
    int32_t *ids = malloc(n_ids * sizeof *ids);
    float *logits = malloc(info.vocab * sizeof *logits);
    double *prefill = calloc(o->reps, sizeof *prefill), *decode = calloc(o->reps, sizeof *decode);
    double cpu = 0, wall = 0;
    int r = -ENOMEM;
    if (!ids || !logits || !prefill || !decode) {
        err_set(err, r, "out of memory");
        goto out;
    }
    fill_ids(ids, n_ids, info.vocab);
    r = llm_session_create(engine, n_ids, err, &session);
    for (uint32_t rep = 0; r == 0 && rep <= o->reps; rep++) {
        /* repetition 0 warms up: page tables, clocks, command buffers */
        if (o->depth) {
            r = llm_session_sync(session, ids, o->depth, NULL, NULL, NULL, err, NULL);
        }
        if (r == 0 && o->n_prefill) {
            ids[o->depth] ^= 1; /* so that nothing of the last repetition is reused */
            uint64_t start = now_ns();
            r = llm_session_sync(session, ids, o->depth + o->n_prefill, logits, NULL, NULL, err,
                                 NULL);
            if (rep) {
                prefill[rep - 1] = (double)o->n_prefill * 1e9 / (double)(now_ns() - start);
            }
        }
        if (r == 0 && o->n_decode) {
            ids[o->depth] ^= 1;
            r = llm_session_sync(session, ids, o->depth + 1, logits, NULL, NULL, err, NULL);
            double cpu_start = cpu_seconds();
            uint64_t start = now_ns();
            for (uint32_t i = 1; r == 0 && i <= o->n_decode; i++) {
                r = llm_session_sync(session, ids, o->depth + 1 + i, logits, NULL, NULL, err, NULL);
            }
            double seconds = (double)(now_ns() - start) * 1e-9;
            if (rep) {
                decode[rep - 1] = (double)o->n_decode / seconds;
                cpu += cpu_seconds() - cpu_start;
                wall += seconds;
            }
        }
    }
    if (r == 0) {
        ret->prefill_tps = median(prefill, o->reps);
        ret->prefill_min = prefill[0];
        ret->prefill_max = prefill[o->reps - 1];
        ret->decode_tps = median(decode, o->reps);
        ret->decode_min = decode[0];
        ret->decode_max = decode[o->reps - 1];
        if (o->n_decode) {
            ret->cpu_per_s = cpu / wall;
            ret->cpu_per_token = cpu / o->reps / o->n_decode;
        }
    }
out:
    llm_session_destroy(session);
    free(ids);
    free(logits);
    free(prefill);
    free(decode);
    return r;
}

/* One pass's kernels, longest first. */
struct profile {
    struct llm_kernel_time kernels[32];
    size_t n;
    uint32_t n_tokens; /* 0: not measured */
};

static double profile_seconds(const struct profile *profile)
{
    double sum = 0;
    for (size_t i = 0; i < profile->n; i++) {
        sum += profile->kernels[i].seconds;
    }
    return sum;
}

/* A batch of prompt from the depth on, and a token after it; each twice, of which the second
 * counts: the first reads new memory. */
static int measure_kernels(struct llm_engine *engine, const struct bench_options *o,
                           struct profile *prefill, struct profile *decode, struct err *err)
{
    struct llm_engine_info info;
    llm_engine_info(engine, &info);
    uint32_t n_ids = o->depth + o->n_prefill + 2;
    struct llm_session *session = NULL;
    int32_t *ids = malloc(n_ids * sizeof *ids);
    int r = ids ? llm_session_create(engine, n_ids, err, &session)
                : err_set(err, -ENOMEM, "out of memory");
    if (r == 0) {
        fill_ids(ids, n_ids, info.vocab);
        uint32_t max = llm_session_max_batch(session);
        prefill->n_tokens = o->n_prefill < max ? o->n_prefill : max;
        decode->n_tokens = o->n_decode > 0;
    }
    struct profile *profiles[] = {prefill, decode};
    for (int i = 0; i < 2; i++) {
        struct profile *p = profiles[i];
        for (int run = 0; run < 2 && r == 0 && p->n_tokens; run++) {
            r = llm_session_profile(session, ids, o->depth + p->n_tokens, p->n_tokens, p->kernels,
                                    sizeof p->kernels / sizeof p->kernels[0], &p->n, err);
        }
    }
    llm_session_destroy(session);
    free(ids);
    return r;
}

static void print_profile(const struct profile *profile, const char *what)
{
    double total = profile_seconds(profile);
    if (profile->n_tokens == 0) {
        return;
    }
    printf("%s, %u token%s: %.3f ms on the device\n", what, profile->n_tokens,
           profile->n_tokens == 1 ? "" : "s", total * 1e3);
    for (size_t i = 0; i < profile->n; i++) {
        const struct llm_kernel_time *k = &profile->kernels[i];
        printf("  %-12s %5u x %9.2f us %9.3f ms %5.1f %%\n", k->name, k->n, k->seconds / k->n * 1e6,
               k->seconds * 1e3, 100 * k->seconds / total);
    }
}

static json_t *json_profile(const struct profile *profile)
{
    json_t *array = json_array();
    for (size_t i = 0; i < profile->n && array; i++) {
        const struct llm_kernel_time *k = &profile->kernels[i];
        json_array_append_new(array, json_pack("{s:s, s:i, s:f}", "kernel", k->name, "n", (int)k->n,
                                               "seconds", k->seconds));
    }
    return array;
}

static void print_text(const struct bench_options *o, const struct llm_engine_info *info,
                       const struct figures *f, double read_gbps)
{
    printf("gttrun %s, %s, backend %s on %s\n", GTTD_VERSION_TEXT, info->model_id, info->backend,
           info->device);
    printf("weights: %s, %s, %.3f GB; %.3f GB read per token\n", info->source, info->memory,
           (double)info->weight_bytes * 1e-9, (double)info->bytes_per_token * 1e-9);
    if (o->n_prefill) {
        printf("prefill %u at depth %u: %.1f tok/s (%.1f to %.1f, median of %u)\n", o->n_prefill,
               o->depth, f->prefill_tps, f->prefill_min, f->prefill_max, o->reps);
    }
    if (o->n_decode) {
        double gbps = f->decode_tps * (double)info->bytes_per_token * 1e-9;
        printf("decode %u at depth %u: %.2f tok/s (%.2f to %.2f, median of %u), %.2f GB/s",
               o->n_decode, o->depth, f->decode_tps, f->decode_min, f->decode_max, o->reps, gbps);
        if (read_gbps > 0) {
            printf(", %.0f %% of the %.1f GB/s this CPU reads", 100 * gbps / read_gbps, read_gbps);
        }
        printf("\nCPU while decoding: %.2f cores, %.3f ms per token\n", f->cpu_per_s,
               f->cpu_per_token * 1e3);
    }
}

static int print_json(const struct bench_options *o, const struct llm_engine_info *info,
                      const struct figures *f, double read_gbps, const struct profile *prefill,
                      const struct profile *decode, struct err *err)
{
    double gbps = f->decode_tps * (double)info->bytes_per_token * 1e-9;
    json_t *json =
        json_pack("{s:s, s:s, s:s, s:s, s:o, s:I, s:i, s:i}", "version", GTTD_VERSION_TEXT, "model",
                  info->model_id, "backend", info->backend, "device", info->device, "weights",
                  report_weights(info), "bytes_per_token", (json_int_t)info->bytes_per_token,
                  "depth", (int)o->depth, "repetitions", (int)o->reps);
    if (json && o->n_prefill) {
        json_object_set_new(json, "prefill",
                            json_pack("{s:i, s:f, s:f, s:f}", "tokens", (int)o->n_prefill, "tps",
                                      f->prefill_tps, "min", f->prefill_min, "max",
                                      f->prefill_max));
    }
    if (json && o->n_decode) {
        json_object_set_new(json, "decode",
                            json_pack("{s:i, s:f, s:f, s:f, s:f, s:o?, s:o?, s:f, s:f}", "tokens",
                                      (int)o->n_decode, "tps", f->decode_tps, "min", f->decode_min,
                                      "max", f->decode_max, "gbps", gbps, "device_gbps",
                                      read_gbps > 0 ? json_real(read_gbps) : NULL, "share",
                                      read_gbps > 0 ? json_real(gbps / read_gbps) : NULL,
                                      "cpu_cores", f->cpu_per_s, "cpu_ms_per_token",
                                      f->cpu_per_token * 1e3));
    }
    if (json && prefill->n) {
        json_object_set_new(json, "prefill_kernels", json_profile(prefill));
    }
    if (json && decode->n) {
        json_object_set_new(json, "decode_kernels", json_profile(decode));
    }
    return report_print(json, err);
}

int cmd_bench(int argc, char **argv)
{
    struct bench_options o = {.n_prefill = 512, .n_decode = 128, .reps = 5};
    struct figures f = {0};
    struct err err = {{0}};
    parse_args(&bench_argp, argc, argv, &o);
    struct llm_engine *engine = open_engine(&o.model);
    if (!engine) {
        return EXIT_FAILED;
    }
    struct llm_engine_info info;
    llm_engine_info(engine, &info);
    double read_gbps = llm_engine_read_speed(engine, o.model.n_threads) * 1e-9;
    struct profile prefill = {.n = 0}, decode = {.n = 0};
    int r = measure(engine, &o, &f, &err);
    if (r == 0 && o.profile) {
        r = measure_kernels(engine, &o, &prefill, &decode, &err);
    }
    if (r == 0 && o.json) {
        r = print_json(&o, &info, &f, read_gbps, &prefill, &decode, &err);
    } else if (r == 0) {
        print_text(&o, &info, &f, read_gbps);
        print_profile(&prefill, "prefill");
        print_profile(&decode, "decode");
    }
    if (r < 0) {
        complain("%s", err.text);
    }
    llm_engine_close(engine);
    return r == 0 ? EXIT_OK : EXIT_FAILED;
}
