/* SPDX-License-Identifier: MIT */
/* Reserved memory and its trade for segments: see ballast.h. */
#include "ballast.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "admission.h"
#include "gttd_util.h"
#include "log.h"

#define PIECES_MAX     256 /* about; each is an fd */
#define PIECE_MIN      (64ull << 20)
#define PIECE_LEAST    (16ull << 20) /* if more is missing */
#define RETRY_MS       10000
#define FIRST_RETRY_MS 1000 /* clients that end keep memory a little longer than we do */
#define EARLY_LOG_MS   1000

struct ballast_piece {
    struct list link;           /* ballast::pieces */
    struct ballast_piece *next; /* in a claim */
    struct heap_chunk chunk;
};

uint64_t ballast_piece_bytes(uint64_t capacity_bytes, uint64_t chunk_max_bytes)
{
    uint64_t n = capacity_bytes / PIECES_MAX / GTTD_ALIGN_BYTES * GTTD_ALIGN_BYTES;
    n = n > PIECE_MIN ? n : PIECE_MIN;
    return n < chunk_max_bytes ? n : chunk_max_bytes;
}

static uint64_t over(uint64_t want, uint64_t limit)
{
    return want > limit ? want - limit : 0;
}

/* ---- pieces ---- */

static void insert(struct ballast *ballast, struct ballast_piece *piece)
{
    struct list *at = ballast->pieces.next;
    while (at != &ballast->pieces &&
           list_entry(at, struct ballast_piece, link)->chunk.size_bytes < piece->chunk.size_bytes) {
        at = at->next;
    }
    list_append(at, &piece->link); /* before it */
    ballast->debt->ballast_bytes += piece->chunk.size_bytes;
}

/* Take off size_bytes or a little more, smallest pieces first, so that there are never many of
 * them. With the lock. */
static struct ballast_piece *take(struct ballast *ballast, uint64_t size_bytes)
{
    struct ballast_piece *taken = NULL;
    uint64_t n_bytes = 0;
    while (n_bytes < size_bytes && !list_empty(&ballast->pieces)) {
        struct ballast_piece *piece = list_entry(ballast->pieces.next, struct ballast_piece, link);
        list_remove(&piece->link);
        piece->next = taken;
        taken = piece;
        n_bytes += piece->chunk.size_bytes;
        ballast->debt->traded_bytes += piece->chunk.size_bytes;
        ballast->debt->ballast_bytes -= piece->chunk.size_bytes;
    }
    return taken;
}

/* Give taken pieces back to the kernel. */
static void free_pieces(struct ballast *ballast, struct ballast_piece *piece)
{
    while (piece) {
        struct ballast_piece *next = piece->next;
        uint64_t size_bytes = piece->chunk.size_bytes;
        ballast->heap->ops->chunk_free(ballast->heap, &piece->chunk);
        ballast->debt->traded_bytes -= size_bytes;
        free(piece);
        piece = next;
    }
}

static int make_chunk(struct heap *heap, struct heap_chunk *chunk, struct reason *why)
{
    int r = heap->ops->chunk_begin(heap, chunk, why);
    for (uint64_t at = 0; r == 0 && at < chunk->size_bytes; at += heap->slice_bytes) {
        uint64_t left = chunk->size_bytes - at;
        r = heap->ops->chunk_populate(heap, chunk, at,
                                      left < heap->slice_bytes ? left : heap->slice_bytes, why);
    }
    return r < 0 ? r : heap->ops->chunk_export(heap, chunk, why);
}

static int make_piece(struct ballast *ballast, uint64_t size_bytes, struct ballast_piece **ret,
                      struct reason *why)
{
    struct ballast_piece *piece = calloc(1, sizeof *piece);
    if (!piece) {
        return reason_set(why, -ENOMEM, "gttd itself is out of memory");
    }
    piece->chunk = (struct heap_chunk){.size_bytes = size_bytes, .fd = -1, .backing_fd = -1};
    snprintf(piece->chunk.label, sizeof piece->chunk.label, "gttd:ballast");
    int r = make_chunk(ballast->heap, &piece->chunk, why);
    if (r < 0) {
        ballast->heap->ops->chunk_free(ballast->heap, &piece->chunk);
        free(piece);
        return r;
    }
    *ret = piece;
    return 0;
}

/* ---- growing and shrinking, on the workers ---- */

/* What there should be more, in whole 2 MiB, and can be as far as we know. With the lock. */
static uint64_t missing(const struct ballast *ballast)
{
    const struct memory_debt *debt = ballast->debt;
    uint64_t want = over(ballast->aim_bytes, debt->ballast_bytes + debt->making_bytes);
    return ballast->stalled ? 0 : want / GTTD_ALIGN_BYTES * GTTD_ALIGN_BYTES;
}

/* What there should be less, once every chunk that is being made has got its part. With the lock.
 */
static uint64_t excess(const struct ballast *ballast)
{
    const struct memory_debt *debt = ballast->debt;
    return over(debt->ballast_bytes, ballast->aim_bytes + debt->unclaimed_bytes);
}

/* Something of ours is being made or freed, and counts twice meanwhile. */
static bool under_way(const struct memory_debt *debt)
{
    return debt->unpopulated_bytes || debt->freeing_bytes || debt->traded_bytes ||
           debt->making_bytes;
}

/* How much more there can be; *why if that is less than want_bytes. With the lock. */
static uint64_t spare(struct ballast *ballast, uint64_t want_bytes, struct reason *why)
{
    uint64_t promised = ballast->debt->unpopulated_bytes + ballast->debt->making_bytes;
    const struct heap_room room = heap_room(ballast->heap);
    uint64_t gtt =
        room.total_bytes ? over(room.total_bytes, room.used_bytes + promised) : want_bytes;
    uint64_t ram = over(admission_available_ram(), promised + ballast->floor_bytes);
    char text[SIZE_TEXT_MAX];
    if (gtt < want_bytes) {
        reason_set(why, 0, "the rest of the GTT total of %s is in use",
                   size_text(room.total_bytes, text));
    } else if (ram < want_bytes) {
        reason_set(why, 0, "more would leave less than the floor of %s of free RAM",
                   size_text(ballast->floor_bytes, text));
    }
    return gtt < ram ? gtt : ram;
}

/* The size of the next piece; 0 if there is none to be made, because all is there or because it
 * would go beyond what others are to have. With the lock. */
static uint64_t next_piece(struct ballast *ballast)
{
    bool busy = under_way(ballast->debt); /* asked before anything that it could change */
    uint64_t want = missing(ballast);
    want = want < ballast->piece_bytes ? want : ballast->piece_bytes;
    uint64_t can = want ? spare(ballast, want, &ballast->why) : 0;
    uint64_t size = (want < can ? want : can) / GTTD_ALIGN_BYTES * GTTD_ALIGN_BYTES;
    if (size == want || size >= PIECE_LEAST) {
        return size;
    }
    ballast->stalled = true;
    ballast->stalled_by_us = busy;
    return 0;
}

static bool step_grow(struct ballast *ballast)
{
    struct ballast_piece *piece = NULL;
    struct reason why;
    pthread_mutex_lock(&ballast->lock);
    uint64_t size = next_piece(ballast);
    ballast->debt->making_bytes += size;
    pthread_mutex_unlock(&ballast->lock);
    if (!size) {
        return false;
    }
    int r = make_piece(ballast, size, &piece, &why);
    pthread_mutex_lock(&ballast->lock);
    if (r == 0) {
        insert(ballast, piece);
    } else {
        ballast->stalled = true;
        ballast->stalled_by_us = false;
        ballast->why = why;
    }
    ballast->debt->making_bytes -= size;
    pthread_mutex_unlock(&ballast->lock);
    return r == 0;
}

static bool step_shrink(struct ballast *ballast)
{
    pthread_mutex_lock(&ballast->lock);
    struct ballast_piece *taken = take(ballast, excess(ballast));
    pthread_mutex_unlock(&ballast->lock);
    free_pieces(ballast, taken);
    return taken;
}

static bool step(struct job *job)
{
    struct ballast *ballast = list_entry(job, struct ballast_lane, job)->ballast;
    return step_shrink(ballast) || step_grow(ballast);
}

/* ---- the main thread ---- */

static void tell(struct ballast *ballast, bool stalled, uint64_t aim_bytes)
{
    char have[SIZE_TEXT_MAX], want[SIZE_TEXT_MAX];
    size_text(ballast->debt->ballast_bytes, have);
    if (stalled && ballast->said != BALLAST_STALLED &&
        (ballast->n_stalls > 1 || ballast->said == BALLAST_SILENT)) {
        log_line(LOG_WARNING, "pool: %s of %s are reserved beside the segments: %s", have,
                 size_text(aim_bytes, want), ballast->why.text);
        ballast->said = BALLAST_STALLED;
    } else if (!stalled && ballast->said != BALLAST_COMPLETE && aim_bytes) {
        log_line(LOG_INFO, "pool: %s are reserved beside the segments", have);
        ballast->said = BALLAST_COMPLETE;
    }
}

static int64_t retry_ms(const struct ballast *ballast)
{
    return ballast->n_stalls > 1 ? RETRY_MS : FIRST_RETRY_MS;
}

static void on_retry(struct timer *timer)
{
    (void)timer; /* what is to be done is done after every event */
}

static void lane_done(struct job *job)
{
    struct ballast *ballast = list_entry(job, struct ballast_lane, job)->ballast;
    if (--ballast->n_running > 0) {
        return;
    }
    pthread_mutex_lock(&ballast->lock);
    bool stalled = ballast->stalled, by_us = ballast->stalled_by_us;
    bool complete = !missing(ballast);
    uint64_t aim_bytes = ballast->aim_bytes;
    pthread_mutex_unlock(&ballast->lock);
    if (stalled && !ballast->stall_ms) {
        ballast->stall_ms = loop_now_ms();
    }
    if ((stalled && !by_us) || (!stalled && complete)) {
        ballast->n_stalls = stalled ? ballast->n_stalls + 1 : 0;
        if (stalled) {
            loop_arm(ballast->worker->loop, &ballast->retry, ballast->stall_ms + retry_ms(ballast));
        }
        tell(ballast, stalled, aim_bytes);
    }
}

/* Whether something has changed since it could not grow. With the lock. */
static bool worth_a_try(const struct ballast *ballast)
{
    return (ballast->stalled_by_us && !under_way(ballast->debt)) ||
           loop_now_ms() - ballast->stall_ms >= retry_ms(ballast);
}

void ballast_aim(struct ballast *ballast, uint64_t capacity_bytes, uint64_t aim_bytes,
                 uint64_t floor_bytes)
{
    pthread_mutex_lock(&ballast->lock);
    if (ballast->stalled && aim_bytes > ballast->aim_bytes) {
        ballast->stalled_by_us = true; /* by a segment that has gone meanwhile, or is going */
    }
    if (ballast->n_running == 0 && ballast->stalled && worth_a_try(ballast)) {
        ballast->stalled = false;
        ballast->stall_ms = 0;
    }
    ballast->aim_bytes = aim_bytes;
    ballast->floor_bytes = floor_bytes;
    ballast->piece_bytes = ballast_piece_bytes(capacity_bytes, ballast->heap->chunk_max_bytes);
    bool idle = ballast->n_running == 0 && (missing(ballast) || excess(ballast));
    pthread_mutex_unlock(&ballast->lock);
    for (uint32_t i = 0; idle && i < ballast->worker->n_threads; i++) {
        ballast->n_running++;
        worker_submit(ballast->worker, &ballast->lanes[i].job);
    }
}

void ballast_init(struct ballast *ballast, struct heap *heap, struct worker *worker,
                  struct memory_debt *debt)
{
    *ballast = (struct ballast){.heap = heap, .worker = worker, .debt = debt};
    list_init(&ballast->pieces);
    ballast->retry.expired = on_retry;
    list_init(&ballast->retry.link);
    pthread_mutex_init(&ballast->lock, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(ballast->lanes); i++) {
        ballast->lanes[i] =
            (struct ballast_lane){.job = {.step = step, .done = lane_done}, .ballast = ballast};
        list_init(&ballast->lanes[i].job.link);
    }
}

void ballast_finish(struct ballast *ballast)
{
    free_pieces(ballast, take(ballast, UINT64_MAX));
    loop_disarm(&ballast->retry);
    pthread_mutex_destroy(&ballast->lock);
}

/* ---- claims, on the workers ---- */

/* Whether a chunk can be had without anything being freed. With the lock. */
static bool has_room(struct ballast *ballast, uint64_t size_bytes)
{
    const struct heap_room room = heap_room(ballast->heap);
    uint64_t ahead = ballast->ahead_bytes + size_bytes;
    return (!room.total_bytes || room.used_bytes + ahead <= room.total_bytes) &&
           admission_available_ram() >= ahead + ballast->floor_bytes;
}

static void free_early(struct ballast *ballast, struct ballast_claim *claim, const char *label)
{
    pthread_mutex_lock(&ballast->lock);
    int64_t now = loop_now_ms(), last = ballast->early_ms;
    ballast->early_ms = now;
    pthread_mutex_unlock(&ballast->lock);
    if (!last || now - last > EARLY_LOG_MS) { /* not for every chunk of a segment */
        log_line(LOG_NOTICE, "%s: what is reserved is freed before it is made, for want of room",
                 label);
    }
    free_pieces(ballast, claim->pieces);
    claim->pieces = NULL;
}

void ballast_claim(struct ballast *ballast, uint64_t size_bytes, const char *label,
                   struct ballast_claim *ret)
{
    struct memory_debt *debt = ballast->debt;
    *ret = (struct ballast_claim){0};
    pthread_mutex_lock(&ballast->lock);
    bool any = debt->ballast_bytes;
    bool room = any && has_room(ballast, size_bytes);
    uint64_t surplus = over(debt->ballast_bytes, room ? ballast->aim_bytes : 0);
    ret->pieces = take(ballast, surplus < size_bytes ? surplus : size_bytes);
    ret->ahead_bytes = any ? size_bytes : 0; /* what is freed for it is no other's room */
    ballast->ahead_bytes += ret->ahead_bytes;
    debt->unclaimed_bytes -= size_bytes;
    pthread_mutex_unlock(&ballast->lock);
    if (any && !room) {
        free_early(ballast, ret, label);
    }
}

void ballast_settle(struct ballast *ballast, struct ballast_claim *claim)
{
    free_pieces(ballast, claim->pieces);
    if (claim->ahead_bytes) {
        pthread_mutex_lock(&ballast->lock);
        ballast->ahead_bytes -= claim->ahead_bytes;
        pthread_mutex_unlock(&ballast->lock);
    }
    *claim = (struct ballast_claim){0};
}

bool ballast_yield(struct ballast *ballast, uint64_t size_bytes, const char *label,
                   struct ballast_claim *claim)
{
    if (!claim->pieces) {
        pthread_mutex_lock(&ballast->lock);
        claim->pieces = take(ballast, size_bytes);
        pthread_mutex_unlock(&ballast->lock);
    }
    bool any = claim->pieces;
    if (any) {
        free_early(ballast, claim, label);
    }
    return any;
}
