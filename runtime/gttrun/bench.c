/* SPDX-License-Identifier: MIT */
/* gttrun bench: prefill and decode speed, what a token reads, what it costs the CPU. What it
 * measures; bench_result.c tells it. */
#include "bench_result.h"
#include "gttrun.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>

struct bench_options {
    struct model_options model;
    uint32_t n_prefill;
    uint32_t n_decode;
    uint32_t depth;
    uint32_t reps;
    uint32_t n_sequences;
    bool json;
    bool profile;
    const char *compare;
    uint32_t n_ahead; /* see struct llm_request */
    bool sample_on_host;
    bool sample; /* draw tokens as `gttrun chat` does, instead of taking the best */
};

enum {
    OPT_RANDOM = 512,
    OPT_JSON,
    OPT_PROFILE,
    OPT_COMPARE,
    OPT_AHEAD,
    OPT_HOST_SAMPLING,
    OPT_SAMPLE,
};

static const struct argp_option bench_arg_options[] = {
    {"prefill", 'p', "N", 0, "tokens of prompt (default 512, 0: skip)", 0},
    {"decode", 'n', "N", 0, "tokens to decode (default 128, 0: skip)", 0},
    {"depth", 'd', "N", 0, "tokens already in the context (default 0)", 0},
    {"repetitions", 'r', "N", 0, "repetitions, of which the median counts (default 5)", 0},
    {"batch", 'b', "N", 0, "then decode N sequences together (2 to 32)", 0},
    {"random", OPT_RANDOM, "SIZE", 0,
     "random weights of Gemma 3's true shapes, in the pool: 270m, 1b, 4b, 12b, 27b", 0},
    {"profile", OPT_PROFILE, NULL, 0,
     "then time each kernel of one decoded token, one batch of prompt, and with -b one step of the "
     "sequences",
     0},
    {"compare", OPT_COMPARE, "FILE", 0, "compare with what an earlier run printed with --json", 0},
    {"sample", OPT_SAMPLE, NULL, 0,
     "draw the tokens with chat's temperature, top-k and top-p (default: take the best)", 0},
    {"ahead", OPT_AHEAD, "N", 0,
     "tokens in flight on a device that draws them itself, 1 to 8 (default 4, as generating has)",
     0},
    {"host-sampling", OPT_HOST_SAMPLING, NULL, 0,
     "draw each token on the host, from logits copied there", 0},
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
    case 'b':
        o->n_sequences = (uint32_t)number_arg(state, "-b", arg, 2, LLM_MAX_SEQUENCES);
        break;
    case OPT_RANDOM:
        o->model.random_size = arg;
        break;
    case OPT_PROFILE:
        o->profile = true;
        break;
    case OPT_COMPARE:
        o->compare = arg;
        break;
    case OPT_SAMPLE:
        o->sample = true;
        break;
    case OPT_AHEAD:
        o->n_ahead = (uint32_t)number_arg(state, "--ahead", arg, 1, LLM_AHEAD_MAX);
        break;
    case OPT_HOST_SAMPLING:
        o->sample_on_host = true;
        break;
    case OPT_JSON:
        o->json = true;
        break;
    case ARGP_KEY_END:
        if (o->n_prefill == 0 && o->n_decode == 0) {
            argp_error(state, "nothing to measure: -p and -n are both 0");
        }
        if (o->n_sequences && o->n_decode == 0) {
            argp_error(state, "-b decodes, and -n is 0");
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

struct decode_clock {
    unsigned n_asked;
    double cpu_start;
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

/* One repetition's prefill, from the depth on; 0 of *ret_tps: none was asked for. */
static int time_prefill(struct llm_session *session, const struct bench_options *o, int32_t *ids,
                        float *logits, double *ret_tps, struct err *err)
{
    if (o->n_prefill == 0) {
        return 0;
    }
    ids[o->depth] ^= 1; /* so that nothing of the last repetition is reused */
    uint64_t start = now_ns();
    int r = llm_session_sync(session, ids, o->depth + o->n_prefill, logits, NULL, NULL, err, NULL);
    *ret_tps = (double)o->n_prefill * 1e9 / (double)(now_ns() - start);
    return r;
}

static struct llm_sampling sampling_of(const struct bench_options *o)
{
    struct llm_sampling sampling = {.top_p = 1, .repetition_penalty = 1};
    if (o->sample) {
        sampling.temperature = 1;
        sampling.top_k = 64;
        sampling.top_p = 0.95f;
    }
    return sampling;
}

/* Asked before each token; by the second time, the first one is there and the clock runs. */
static bool note_cpu(void *data)
{
    struct decode_clock *clock = data;
    if (clock->n_asked++ == 1) {
        clock->cpu_start = cpu_seconds();
    }
    return false;
}

/* Generate, as for an answer: n_decode tokens after the first one. */
static int time_decode(struct llm_session *session, const struct bench_options *o, int32_t *ids,
                       double *ret_seconds, double *ret_cpu, uint64_t *ret_first_ns,
                       struct err *err)
{
    if (o->n_decode == 0) {
        return 0;
    }
    ids[o->depth] ^= 1;
    int r = llm_session_sync(session, ids, o->depth + 1, NULL, NULL, NULL, err, NULL);
    if (r < 0) {
        return r;
    }
    struct decode_clock clock = {0};
    struct llm_result result;
    struct llm_request request = {
        .prompt = ids,
        .n_prompt = o->depth + 1,
        .max_tokens = o->n_decode + 1,
        .sampling = sampling_of(o),
        .ignore_eos = true,
        .n_ahead = o->n_ahead,
        .sample_on_host = o->sample_on_host,
        .cancelled = note_cpu,
        .data = &clock,
    };
    r = llm_generate(session, &request, err, &result);
    if (r < 0) {
        return r;
    }
    *ret_cpu = cpu_seconds() - clock.cpu_start;
    *ret_seconds = (double)result.decode_ns * 1e-9;
    *ret_first_ns = result.first_token_ns;
    llm_result_finish(&result);
    return 0;
}

static struct bench_speed speed_of(uint32_t n_tokens, double *tps, uint32_t reps)
{
    struct bench_speed speed = {.n_tokens = n_tokens};
    if (n_tokens) {
        speed.tps = median(tps, reps);
        speed.min = tps[0];
        speed.max = tps[reps - 1];
    }
    return speed;
}

static int measure(struct llm_engine *engine, const struct bench_options *o,
                   struct bench_result *ret, struct err *err)
{
    uint32_t longest = o->n_prefill > o->n_decode + 2 ? o->n_prefill : o->n_decode + 2;
    uint32_t n_ids = o->depth + longest;
    struct llm_session *session = NULL;
    int32_t *ids = malloc(n_ids * sizeof *ids);
    float *logits = malloc(ret->info.vocab * sizeof *logits);
    double *prefill = calloc(o->reps, sizeof *prefill), *decode = calloc(o->reps, sizeof *decode);
    double cpu = 0, wall = 0;
    int r = -ENOMEM;
    if (!ids || !logits || !prefill || !decode) {
        err_set(err, r, "out of memory");
        goto out;
    }
    fill_ids(ids, n_ids, ret->info.vocab);
    r = llm_session_create(engine, n_ids, err, &session);
    for (uint32_t rep = 0; r == 0 && rep <= o->reps; rep++) {
        /* repetition 0 warms up: page tables, clocks, command buffers */
        double tps = 0, rep_wall = 0, rep_cpu = 0;
        uint64_t first_ns = 0;
        if (o->depth) {
            r = llm_session_sync(session, ids, o->depth, NULL, NULL, NULL, err, NULL);
        }
        if (r == 0) {
            r = time_prefill(session, o, ids, logits, &tps, err);
        }
        if (r == 0) {
            r = time_decode(session, o, ids, &rep_wall, &rep_cpu, &first_ns, err);
        }
        if (rep == 0) {
            ret->first_token_ns = first_ns;
        }
        if (rep) {
            prefill[rep - 1] = tps;
            decode[rep - 1] = (double)o->n_decode / rep_wall;
            wall += rep_wall;
            cpu += rep_cpu;
        }
    }
    llm_engine_info(engine, &ret->info); /* with the whole start */
    if (r == 0) {
        ret->prefill = speed_of(o->n_prefill, prefill, o->reps);
        ret->decode = speed_of(o->n_decode, decode, o->reps);
        ret->cpu_per_s = o->n_decode ? cpu / wall : 0;
        ret->cpu_per_token = o->n_decode ? cpu / o->reps / o->n_decode : 0;
    }
out:
    llm_session_destroy(session);
    free(ids);
    free(logits);
    free(prefill);
    free(decode);
    return r;
}

/* The token after the depth, and the drawing of the next one where the device does it. */
static int time_token(struct llm_session *session, const struct bench_options *o, int32_t *ids,
                      bool drawn, struct bench_profile *ret, struct err *err)
{
    const struct llm_sampling sampling = sampling_of(o);
    const uint32_t first = 0;
    struct llm_decoder *decoder = NULL;
    if (!drawn) {
        return llm_session_profile(session, ids, o->depth + 1, 1, ret->kernels, BENCH_KERNELS_MAX,
                                   &ret->n, err);
    }
    int r = 0;
    if (o->depth) {
        r = llm_session_sync(session, ids, o->depth, NULL, NULL, NULL, err, NULL);
    } else {
        llm_session_forget(session);
    }
    if (r == 0) {
        r = llm_decoder_start(&session, &ids[o->depth], 1, &sampling, &first, err, &decoder);
    }
    if (r == 0) {
        r = llm_decoder_profile(decoder, ret->kernels, BENCH_KERNELS_MAX, &ret->n, err);
    }
    llm_decoder_stop(decoder);
    return r;
}

/* A batch of prompt from the depth on, and a token after it; each twice, of which the second
 * counts: the first reads new memory. */
static int measure_kernels(struct llm_engine *engine, const struct bench_options *o,
                           struct bench_result *ret, struct err *err)
{
    struct bench_profile *prefill = &ret->prefill_kernels, *decode = &ret->decode_kernels;
    uint32_t n_ids = o->depth + o->n_prefill + 2;
    struct llm_session *session = NULL;
    int32_t *ids = malloc(n_ids * sizeof *ids);
    int r = ids ? llm_session_create(engine, n_ids, err, &session)
                : err_set(err, -ENOMEM, "out of memory");
    if (r == 0) {
        fill_ids(ids, n_ids, ret->info.vocab);
        uint32_t max = llm_session_max_batch(session);
        prefill->n_tokens = o->n_prefill < max ? o->n_prefill : max;
        decode->n_tokens = o->n_decode > 0;
    }
    for (int run = 0; run < 2 && r == 0 && prefill->n_tokens; run++) {
        r = llm_session_profile(session, ids, o->depth + prefill->n_tokens, prefill->n_tokens,
                                prefill->kernels, BENCH_KERNELS_MAX, &prefill->n, err);
    }
    for (int run = 0; run < 2 && r == 0 && decode->n_tokens; run++) {
        r = time_token(session, o, ids, ret->n_ahead > 0, decode, err);
    }
    llm_session_destroy(session);
    free(ids);
    return r;
}

static int measure_batch(struct llm_engine *engine, const struct bench_options *o,
                         struct bench_result *ret, struct err *err)
{
    const struct bench_batch plan = {.n_sequences = o->n_sequences,
                                     .depth = o->depth,
                                     .n_decode = o->n_decode,
                                     .vocab = ret->info.vocab,
                                     .sampling = sampling_of(o),
                                     .n_ahead = o->sample_on_host ? 0
                                                : ret->n_ahead    ? ret->n_ahead
                                                                  : 1};
    double *tps = calloc(o->reps, sizeof *tps);
    bool timed = o->profile && ret->n_ahead;
    int r = tps ? bench_batch(engine, &plan, o->reps, tps, timed ? &ret->batch_kernels : NULL, err)
                : err_set(err, -ENOMEM, "out of memory");
    if (r == 0) {
        ret->n_sequences = o->n_sequences;
        ret->batch = speed_of(o->n_decode, tps, o->reps);
    }
    free(tps);
    return r;
}

int cmd_bench(int argc, char **argv)
{
    struct bench_options o = {.n_prefill = 512, .n_decode = 128, .reps = 5};
    struct bench_earlier earlier = {0};
    struct err err = {{0}};
    parse_args(&bench_argp, argc, argv, &o);
    if (o.compare && bench_earlier_load(o.compare, &earlier, &err) < 0) {
        complain("%s", err.text);
        return EXIT_FAILED;
    }
    struct llm_engine *engine = open_engine(&o.model);
    if (!engine) {
        bench_earlier_finish(&earlier);
        return EXIT_FAILED;
    }
    struct bench_result result = {.depth = o.depth, .reps = o.reps, .sampled = o.sample};
    llm_engine_info(engine, &result.info);
    if (result.info.draws_ahead && !o.sample_on_host) {
        result.n_ahead = o.n_ahead ? o.n_ahead : LLM_AHEAD_DEFAULT;
    }
    int r = measure(engine, &o, &result, &err);
    if (r == 0 && o.n_sequences) {
        r = measure_batch(engine, &o, &result, &err);
    }
    if (r == 0) {
        r = llm_engine_read_speed(engine, o.model.n_threads, &result.read_bps, &err);
    }
    if (r == 0 && o.profile) {
        r = measure_kernels(engine, &o, &result, &err);
    }
    if (r == 0 && o.json) {
        r = bench_print_json(&result, o.compare ? &earlier : NULL, &err);
    } else if (r == 0) {
        bench_print_text(&result, o.compare ? &earlier : NULL);
    }
    if (r < 0) {
        complain("%s", err.text);
    }
    llm_engine_close(engine);
    bench_earlier_finish(&earlier);
    return r == 0 ? EXIT_OK : EXIT_FAILED;
}
