/* SPDX-License-Identifier: MIT */
/*
 * Decoding ahead of the host, at the seam: the tokens are those of one forward() after another, and
 * a timeline that goes on from before surplus steps is as if they had not been, also where the
 * local layers' rings wrap round; of one and of several together. On lavapipe the same shaders run
 * in the same order: equal is equal.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>

#include "check.h"
#include "random_model.h"
#include "vk_opened.h"

#define VOCAB   1031
#define WINDOW  16
#define BEYOND  48 /* the ring, to the end of a timeline */
#define POS_MAX (WINDOW + VK_BATCH_MAX + BEYOND)

struct opened {
    struct backend *backend;
    struct backend_model *bm;
    uint32_t ring;    /* of a local layer */
    uint32_t max_pos; /* of a timeline */
};

static const struct backend_sampling greedy = {.top_p = 1, .penalty = 1};

static struct backend_state *new_state(struct opened *o)
{
    struct backend_state *state;
    struct err err;
    uint32_t rewind_max;
    uint64_t kv_bytes;
    CHECK_EQ(vulkan_backend.state_create(o->bm, o->max_pos, &err, &state, &rewind_max, &kv_bytes),
             0);
    CHECK_EQ(rewind_max, o->ring - WINDOW);
    return state;
}

static void forward(struct backend_state *state, const int32_t *ids, uint32_t n, uint32_t pos,
                    float *logits)
{
    struct err err;
    CHECK_EQ(vulkan_backend.forward(state, ids, n, pos, logits ? LOGITS_LAST : LOGITS_NONE, logits,
                                    &err),
             0);
}

static int32_t best(const float *logits)
{
    int32_t id = 0;
    for (int32_t i = 1; i < VOCAB; i++) {
        id = logits[i] > logits[id] ? i : id;
    }
    return id;
}

/* ids[0 .. n) in the cache, in batches. */
static void prefill(struct backend_state *state, const int32_t *ids, uint32_t n)
{
    for (uint32_t pos = 0; pos < n; pos += 32) {
        forward(state, ids + pos, n - pos < 32 ? n - pos : 32, pos, NULL);
    }
}

static struct backend_run *start(struct backend_state *state, int32_t id, uint32_t pos)
{
    const struct backend_decode from = {.id = id, .pos = pos, .sampling = &greedy, .step = 1};
    struct backend_run *run;
    struct err err;
    CHECK_EQ(vulkan_backend.decode_start(&state, &from, 1, &err, &run), 0);
    return run;
}

static void submit(struct backend_run *run, uint32_t n)
{
    struct err err;
    for (uint32_t i = 0; i < n; i++) {
        CHECK_EQ(vulkan_backend.decode_submit(run, &err), 0);
    }
}

static int32_t collect(struct backend_run *run)
{
    struct err err;
    int32_t id = -1;
    CHECK_EQ(vulkan_backend.decode_collect(run, &id, &err), 0);
    return id;
}

/* Decode n_ahead + 3 tokens from `from` on, take three, go on elsewhere from there. */
static void test_surplus(struct opened *o, const int32_t *ids, uint32_t from, uint32_t n_ahead)
{
    enum { TAKEN = 3 };
    static float want[VOCAB], got[VOCAB];
    struct backend_state *ahead = new_state(o), *plain = new_state(o);
    prefill(ahead, ids, from);
    prefill(plain, ids, from);
    int32_t next = ids[from];
    struct backend_run *run = start(ahead, next, from);
    submit(run, n_ahead - 1);
    for (uint32_t i = 0; i < TAKEN; i++) {
        forward(plain, &next, 1, from + i, want);
        next = best(want);
        submit(run, 1);
        CHECK_EQ(collect(run), next);
    }
    vulkan_backend.decode_stop(run);
    uint32_t pos = from + TAKEN;
    for (; pos + 20 < o->max_pos && pos < from + 40; pos++) {
        forward(plain, &ids[pos], 1, pos, want);
        forward(ahead, &ids[pos], 1, pos, got);
        CHECK(memcmp(want, got, sizeof want) == 0);
    }
    forward(plain, &ids[pos], 9, pos, want);
    forward(ahead, &ids[pos], 9, pos, got);
    CHECK(memcmp(want, got, sizeof want) == 0);
    vulkan_backend.state_destroy(ahead);
    vulkan_backend.state_destroy(plain);
}

/* To the last position, and what is refused. */
static void test_limits(struct opened *o, const int32_t *ids)
{
    struct backend_state *state = new_state(o);
    struct backend_decode from = {.id = VOCAB, .pos = 0, .sampling = &greedy};
    struct backend_run *run, *other;
    struct err err;
    int32_t id;
    CHECK_EQ(vulkan_backend.decode_start(&state, &from, 1, &err, &run), -EINVAL);
    from = (struct backend_decode){.id = 1, .pos = o->max_pos, .sampling = &greedy};
    CHECK_EQ(vulkan_backend.decode_start(&state, &from, 1, &err, &run), -EINVAL);
    from.pos = 0;
    CHECK_EQ(vulkan_backend.decode_start(&state, &from, 0, &err, &run), -EINVAL);

    prefill(state, ids, o->max_pos - 3);
    run = start(state, ids[o->max_pos - 3], o->max_pos - 3);
    CHECK_EQ(vulkan_backend.decode_collect(run, &id, &err), -EINVAL);
    submit(run, 3);
    CHECK_EQ(vulkan_backend.decode_submit(run, &err), -EINVAL); /* no such position */
    CHECK_EQ(vulkan_backend.decode_start(&state, &from, 1, &err, &other), -EBUSY);
    for (int i = 0; i < 3; i++) {
        CHECK(collect(run) >= 0);
    }
    CHECK_EQ(vulkan_backend.decode_start(&state, &from, 1, &err, &other), -EBUSY);
    vulkan_backend.decode_stop(run);
    prefill(state, ids, 5);
    run = start(state, ids[5], 5);
    submit(run, BACKEND_AHEAD_MAX);
    CHECK_EQ(vulkan_backend.decode_submit(run, &err), -EBUSY);
    vulkan_backend.state_destroy(state); /* waits for what is in flight */
}

/* Timelines of different lengths, one of which wraps round its rings: ahead as step by step, also
 * after the surplus, and what is refused meanwhile. */
static void test_together(struct opened *o, const int32_t *ids, uint32_t n, uint32_t n_ahead)
{
    enum { MOST = 5, STEPS = 6 };
    const uint32_t at[MOST] = {3, o->ring - 2, 40, 17, 9};
    static float want[MOST * VOCAB], got[MOST * VOCAB];
    struct backend_state *ahead[MOST], *plain[MOST];
    struct backend_decode from[MOST];
    struct backend_run *run, *other;
    struct err err;
    uint32_t pos[MOST];
    int32_t next[MOST], drawn[MOST], wanted[STEPS][MOST];
    for (uint32_t i = 0; i < n; i++) {
        ahead[i] = new_state(o);
        plain[i] = new_state(o);
        prefill(ahead[i], ids, at[i]);
        prefill(plain[i], ids, at[i]);
        pos[i] = at[i];
        next[i] = ids[at[i]];
        from[i] = (struct backend_decode){next[i], pos[i], &greedy, NULL, 0, 7 * i};
    }
    for (int k = 0; k < STEPS; k++) {
        CHECK_EQ(vulkan_backend.forward_many(plain, next, pos, n, want, &err), 0);
        for (uint32_t i = 0; i < n; i++, pos[i - 1]++) {
            next[i] = wanted[k][i] = best(want + (size_t)i * VOCAB);
        }
    }
    CHECK_EQ(vulkan_backend.decode_start(ahead, from, n, &err, &run), 0);
    CHECK_EQ(vulkan_backend.decode_start(plain, from, n, &err, &other), -EBUSY);
    CHECK(strstr(err.text, "together"));
    CHECK_EQ(vulkan_backend.forward_many(plain, next, pos, n, want, &err), -EBUSY);
    submit(run, n_ahead - 1);
    for (int k = 0; k < STEPS; k++) {
        submit(run, 1);
        CHECK_EQ(vulkan_backend.decode_collect(run, drawn, &err), 0);
        CHECK(memcmp(drawn, wanted[k], n * sizeof *drawn) == 0);
    }
    vulkan_backend.decode_stop(run);
    CHECK_EQ(vulkan_backend.forward_many(plain, next, pos, n, want, &err), 0);
    CHECK_EQ(vulkan_backend.forward_many(ahead, next, pos, n, got, &err), 0);
    CHECK(memcmp(want, got, n * VOCAB * sizeof *got) == 0);
    for (uint32_t i = 0; i < n; i++) {
        vulkan_backend.state_destroy(ahead[i]);
        vulkan_backend.state_destroy(plain[i]);
    }
}

/* Logits that are not numbers are told for each step, and the timeline before them is still good.
 */
static void test_not_numbers(struct opened *o, const int32_t *ids)
{
    static float want[VOCAB], got[VOCAB], adjust[VOCAB];
    struct backend_sampling sampling = {.rate = 1, .top_k = 9, .top_p = 1, .penalty = 1.1f};
    struct backend_state *state = new_state(o), *plain = new_state(o);
    struct backend_run *run;
    struct err err;
    int32_t id;
    adjust[VOCAB - 1] = NAN;
    sampling.adjust = adjust;
    prefill(state, ids, 20);
    for (int greedily = 0; greedily < 2; greedily++) {
        sampling.rate = greedily ? 0 : 1;
        const struct backend_decode from = {.id = ids[20], .pos = 20, .sampling = &sampling};
        CHECK_EQ(vulkan_backend.decode_start(&state, &from, 1, &err, &run), 0);
        submit(run, 3);
        for (int i = 0; i < 3; i++) {
            CHECK_EQ(vulkan_backend.decode_collect(run, &id, &err), -EDOM);
            CHECK(err.text[0]);
        }
        vulkan_backend.decode_stop(run);
    }
    forward(state, &ids[20], 1, 20, got);
    prefill(plain, ids, 20);
    forward(plain, &ids[20], 1, 20, want);
    CHECK(memcmp(want, got, sizeof want) == 0);
    vulkan_backend.state_destroy(state);
    vulkan_backend.state_destroy(plain);
}

/* Sampled tokens: however many are in flight, and penalties see those drawn in flight. */
static void test_sampled(struct opened *o, const int32_t *ids)
{
    const struct backend_sampling sampling =
        {.rate = 0.5f, .top_k = 50, .top_p = 0.9f, .min_p = 0.01f, .penalty = 1.5f, .seed = 99};
    enum { N = 16 };
    int32_t want[N];
    for (uint32_t n_ahead = 1; n_ahead <= BACKEND_AHEAD_MAX; n_ahead *= 2) {
        struct backend_state *state = new_state(o);
        struct backend_run *run;
        struct err err;
        prefill(state, ids, 20);
        const struct backend_decode from = {.id = ids[20],
                                            .pos = 20,
                                            .sampling = &sampling,
                                            .history = ids,
                                            .n_history = 21,
                                            .step = 7};
        CHECK_EQ(vulkan_backend.decode_start(&state, &from, 1, &err, &run), 0);
        submit(run, n_ahead - 1);
        for (int i = 0; i < N; i++) {
            submit(run, 1);
            int32_t id = collect(run);
            want[i] = n_ahead == 1 ? id : want[i];
            CHECK_EQ(id, want[i]);
        }
        vulkan_backend.decode_stop(run);
        vulkan_backend.state_destroy(state);
    }
}

int main(void)
{
    struct backend_params params;
    struct opened o;
    struct err err;
    if (!vk_can_open(&params)) {
        return SKIP;
    }
    CHECK_EQ(vulkan_backend.open(&params, &err, &o.backend), 0);
    uint32_t batch = o.backend->tuning.batch_max;
    o.ring = WINDOW + (batch > 256 ? batch : 256); /* as state.c has it */
    o.max_pos = o.ring + BEYOND;
    struct model_config config = vk_small_config(VOCAB);
    config.window = WINDOW;
    config.query_scale = 0.18f;
    struct image_formats formats;
    struct model model;
    void *base;
    enum weight_path path;
    int32_t ids[POS_MAX];
    for (int32_t i = 0; i < POS_MAX; i++) {
        ids[i] = (2 + i * 7919) % VOCAB;
    }
    random_formats(&config, (struct weight_format){WEIGHT_Q8, 32, false}, &formats);
    random_model_create(&config, &formats, 1, &model, &base);
    CHECK_EQ(vulkan_backend.bind(o.backend, &model, &err, &o.bm, &path), 0);
    test_surplus(&o, ids, 3, 1);
    test_surplus(&o, ids, 40, 4);
    test_surplus(&o, ids, o.ring - 4, BACKEND_AHEAD_MAX); /* the surplus wraps round */
    test_surplus(&o, ids, o.ring + 5, 5);
    test_together(&o, ids, 3, 4);
    test_together(&o, ids, 5, BACKEND_AHEAD_MAX);
    test_together(&o, ids, 2, 1);
    test_sampled(&o, ids);
    test_not_numbers(&o, ids);
    test_limits(&o, ids);
    vulkan_backend.unbind(o.bm);
    vulkan_backend.close(o.backend);
    random_model_destroy(&model, base);
    return 0;
}
