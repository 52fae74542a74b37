/* SPDX-License-Identifier: MIT */
/* Sampling: see sampler.h. */
#include "sampler.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A weight is a fraction of the best token's, in 2^-44: their sums are exact in any order, so that
 * a device that adds them up in another one draws the same token. */
#define WEIGHT_ONE 0x1p44f
#define WEIGHT_END 30.5f /* exp(-30.5) is less than 2^-44 */

__extension__ typedef unsigned __int128 uint128;

struct candidate {
    float logit;
    int32_t id;
    uint64_t weight;
};

struct sampler {
    struct llm_sampling sampling;
    uint32_t vocab;
    struct candidate *candidates; /* [vocab]; this and seen: NULL until they are needed */
    uint64_t *seen;               /* bitmap [vocab]: tokens already penalised in this draw */
    float *adjust;                /* [vocab]: added to the logits; NULL: nothing is */
};

/* splitmix64's finaliser: Steele, Lea, Flood, "Fast splittable pseudorandom number generators",
 * 2014. */
static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Bias and mask as one row of numbers to add. */
static int make_adjust(struct sampler *sampler, struct err *err)
{
    const struct llm_sampling *s = &sampler->sampling;
    uint32_t n_allowed = 0;
    if (s->n_bias == 0 && !s->allowed) {
        return 0;
    }
    sampler->adjust = calloc(sampler->vocab, sizeof *sampler->adjust);
    if (!sampler->adjust) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < s->n_bias; i++) {
        const struct llm_logit_bias *bias = &s->bias[i];
        if (bias->id < 0 || (uint32_t)bias->id >= sampler->vocab || !isfinite(bias->add)) {
            return err_set(err, -EINVAL,
                           "logit bias of token %d: the vocabulary has %u, and a "
                           "bias is a number",
                           bias->id, sampler->vocab);
        }
        sampler->adjust[bias->id] += bias->add;
    }
    for (uint32_t id = 0; id < sampler->vocab && s->allowed; id++) {
        if (s->allowed[id / 32] >> (id % 32) & 1) {
            n_allowed++;
        } else {
            sampler->adjust[id] = -INFINITY;
        }
    }
    return n_allowed || !s->allowed ? 0 : err_set(err, -EINVAL, "no token is allowed");
}

int sampler_create(uint32_t vocab, const struct llm_sampling *s, struct err *err,
                   struct sampler **ret)
{
    if (!(s->temperature >= 0 && s->temperature <= 100)) {
        return err_set(err, -EINVAL, "temperature must be between 0 and 100");
    }
    if (!(s->top_p > 0 && s->top_p <= 1)) {
        return err_set(err, -EINVAL, "top_p must be more than 0 and at most 1");
    }
    if (!(s->min_p >= 0 && s->min_p <= 1)) {
        return err_set(err, -EINVAL, "min_p must be between 0 and 1");
    }
    if (!(s->repetition_penalty > 0 && s->repetition_penalty <= 100)) {
        return err_set(err, -EINVAL, "repetition_penalty must be more than 0 and at most 100");
    }
    struct sampler *sampler = calloc(1, sizeof *sampler);
    if (!sampler) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    sampler->sampling = *s;
    sampler->vocab = vocab;
    int r = make_adjust(sampler, err);
    if (r < 0) {
        sampler_destroy(sampler);
        return r;
    }
    *ret = sampler;
    return 0;
}

void sampler_destroy(struct sampler *sampler)
{
    if (!sampler) {
        return;
    }
    free(sampler->candidates);
    free(sampler->seen);
    free(sampler->adjust);
    free(sampler);
}

void sampler_describe(const struct sampler *sampler, struct backend_sampling *ret)
{
    const struct llm_sampling *s = &sampler->sampling;
    *ret = (struct backend_sampling){
        .rate = s->temperature > 0 ? fminf(1 / s->temperature, 1e30f) : 0,
        .top_k = s->top_k < sampler->vocab ? s->top_k : 0,
        .top_p = s->top_p,
        .min_p = s->min_p,
        .penalty = s->repetition_penalty,
        .seed = mix(s->seed),
        .adjust = sampler->adjust,
    };
}

/* Keskar et al., "CTRL", 2019: positive logits are divided, negative ones multiplied; once per
 * token. */
static void penalise(struct sampler *sampler, float *logits, const int32_t *history, size_t n)
{
    float penalty = sampler->sampling.repetition_penalty, inverse = 1 / penalty;
    memset(sampler->seen, 0, (sampler->vocab + 63) / 64 * sizeof *sampler->seen);
    for (size_t i = 0; i < n; i++) {
        uint32_t id = (uint32_t)history[i];
        if (id >= sampler->vocab || (sampler->seen[id / 64] >> (id % 64) & 1)) {
            continue;
        }
        sampler->seen[id / 64] |= 1ull << (id % 64);
        logits[id] = logits[id] > 0 ? logits[id] * inverse : logits[id] * penalty;
    }
}

static int by_logit(const void *pa, const void *pb)
{
    const struct candidate *a = pa, *b = pb;
    if (a->logit != b->logit) {
        return a->logit < b->logit ? 1 : -1;
    }
    return (a->id > b->id) - (a->id < b->id);
}

static int by_id(const void *pa, const void *pb)
{
    const struct candidate *a = pa, *b = pb;
    return (a->id > b->id) - (a->id < b->id);
}

/* Whether a is to be thrown out before b. */
static int worse(const struct candidate *a, const struct candidate *b)
{
    return by_logit(a, b) > 0;
}

/* Restore the heap whose root is the worst of the kept candidates. */
static void sift_down(struct candidate *heap, size_t n, size_t i)
{
    for (;;) {
        size_t worst = i, left = 2 * i + 1, right = left + 1;
        if (left < n && worse(&heap[left], &heap[worst])) {
            worst = left;
        }
        if (right < n && worse(&heap[right], &heap[worst])) {
            worst = right;
        }
        if (worst == i) {
            return;
        }
        struct candidate swap = heap[i];
        heap[i] = heap[worst];
        heap[worst] = swap;
        i = worst;
    }
}

/* The k best of logits, best first. */
static void select_top(struct candidate *out, const float *logits, uint32_t vocab, uint32_t k)
{
    for (uint32_t i = 0; i < k; i++) {
        out[i] = (struct candidate){.logit = logits[i], .id = (int32_t)i};
    }
    if (k < vocab) {
        for (size_t i = k / 2; i-- > 0;) {
            sift_down(out, k, i);
        }
        for (uint32_t i = k; i < vocab; i++) {
            struct candidate c = {.logit = logits[i], .id = (int32_t)i};
            if (worse(&out[0], &c)) {
                out[0] = c;
                sift_down(out, k, 0);
            }
        }
    }
    qsort(out, k, sizeof *out, by_logit);
}

/* The largest, and whether none is a NaN: in lanes, because a vocabulary is long. */
static float largest(const float *logits, uint32_t n, bool *ret_numbers)
{
    enum { LANES = 16 };
    float best[LANES];
    int n_nan[LANES] = {0};
    for (int l = 0; l < LANES; l++) {
        best[l] = -INFINITY;
    }
    uint32_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int l = 0; l < LANES; l++) {
            float x = logits[i + (uint32_t)l];
            best[l] = x > best[l] ? x : best[l];
            n_nan[l] += x != x;
        }
    }
    for (; i < n; i++) {
        best[0] = logits[i] > best[0] ? logits[i] : best[0];
        n_nan[0] += isnan(logits[i]);
    }
    *ret_numbers = true;
    for (int l = 0; l < LANES; l++) {
        best[0] = best[l] > best[0] ? best[l] : best[0];
        *ret_numbers = *ret_numbers && n_nan[l] == 0;
    }
    return best[0];
}

static int argmax(const float *logits, uint32_t vocab, int32_t *ret)
{
    bool numbers;
    uint32_t best = 0;
    float top = largest(logits, vocab, &numbers);
    if (!numbers || !isfinite(top)) {
        return -EDOM;
    }
    while (logits[best] != top) {
        best++;
    }
    *ret = (int32_t)best;
    return 0;
}

static uint64_t add_weights(struct candidate *c, uint32_t n, float best, float rate)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        float x = (best - c[i].logit) * rate;
        c[i].weight = x < WEIGHT_END ? (uint64_t)(expf(-x) * WEIGHT_ONE) : 0;
        sum += c[i].weight;
    }
    return sum;
}

/* At least a weight's unit, so that the best token is always kept. */
static uint64_t share(uint64_t sum, float top_p)
{
    uint64_t wanted = (uint64_t)((uint128)sum * (uint64_t)(top_p * 0x1p32f) >> 32);
    return wanted ? wanted : 1;
}

/* How many of c, best first, it takes to have so much weight. */
static uint32_t count_weight(const struct candidate *c, uint32_t n, uint64_t wanted)
{
    uint64_t kept = 0;
    uint32_t i = 0;
    while (i < n && kept < wanted) {
        kept += c[i++].weight;
    }
    return i;
}

/* Throw out, without sorting, most of those that come after so much weight has been met; the order
 * of the others is kept. There are at most so many left. */
static uint32_t drop_tail(struct candidate *c, uint32_t n, uint64_t wanted)
{
    uint64_t by_bits[46] = {0}, met = 0; /* weights of 1 to 45 bits */
    for (uint32_t i = 0; i < n; i++) {
        by_bits[c[i].weight ? 64 - __builtin_clzll(c[i].weight) : 0] += c[i].weight;
    }
    int bits = 46;
    while (bits > 1 && met < wanted) {
        met += by_bits[--bits];
    }
    uint64_t least = 1ull << (bits - 1);
    uint32_t n_kept = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (c[i].weight >= least) {
            c[n_kept++] = c[i];
        }
    }
    return n_kept;
}

/* The token at a place, as a fraction of 2^64, among those that have min_p of the best's weight, by
 * id. */
static int32_t draw(const struct candidate *c, uint32_t n, float min_p, uint64_t place)
{
    uint64_t least = (uint64_t)(min_p * WEIGHT_ONE), sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += c[i].weight >= least ? c[i].weight : 0;
    }
    uint64_t target = (uint64_t)((uint128)sum * place >> 64);
    for (uint32_t i = 0;; i++) {
        uint64_t weight = c[i].weight >= least ? c[i].weight : 0;
        if (target < weight) {
            return c[i].id;
        }
        target -= weight; /* target < sum, so that there is a token before the end */
    }
}

/* What drawing here takes, and drawing on a device does not. */
static int need_room(struct sampler *sampler, struct err *err)
{
    const struct llm_sampling *s = &sampler->sampling;
    if (s->repetition_penalty != 1 && !sampler->seen) {
        sampler->seen = calloc((sampler->vocab + 63) / 64, sizeof *sampler->seen);
    }
    if (s->temperature > 0 && !sampler->candidates) {
        sampler->candidates = malloc(sampler->vocab * sizeof *sampler->candidates);
    }
    bool has_room = (sampler->seen || s->repetition_penalty == 1) &&
                    (sampler->candidates || s->temperature <= 0);
    return has_room ? 0 : err_set(err, -ENOMEM, "out of memory");
}

int sampler_draw(struct sampler *sampler, float *logits, const int32_t *history, size_t n,
                 uint64_t step, struct err *err, int32_t *ret_id)
{
    struct backend_sampling s;
    int r = need_room(sampler, err);
    if (r < 0) {
        return r;
    }
    sampler_describe(sampler, &s);
    for (uint32_t i = 0; i < sampler->vocab && s.adjust; i++) {
        logits[i] += s.adjust[i];
    }
    if (s.penalty != 1) {
        penalise(sampler, logits, history, n);
    }
    int32_t best;
    r = argmax(logits, sampler->vocab, &best);
    if (r < 0) {
        return err_set(err, r, "the model's logits are not numbers");
    }
    if (s.rate == 0) {
        *ret_id = best;
        return 0;
    }
    struct candidate *c = sampler->candidates;
    uint32_t k = s.top_k ? s.top_k : sampler->vocab;
    if (s.top_k) {
        select_top(c, logits, sampler->vocab, k);
    } else {
        for (uint32_t i = 0; i < k; i++) {
            c[i] = (struct candidate){.logit = logits[i], .id = (int32_t)i};
        }
    }
    uint64_t sum = add_weights(c, k, logits[best], s.rate);
    if (s.top_p < 1) {
        uint64_t wanted = share(sum, s.top_p);
        if (!s.top_k) {
            k = drop_tail(c, k, wanted);
            qsort(c, k, sizeof *c, by_logit);
        }
        k = count_weight(c, k, wanted);
    }
    if (s.top_k || s.top_p < 1) {
        qsort(c, k, sizeof *c, by_id);
    }
    *ret_id = draw(c, k, s.min_p, mix(s.seed ^ step));
    return 0;
}
