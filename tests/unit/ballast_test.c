/* SPDX-License-Identifier: MIT */
/*
 * Ballast on a heap whose device has a limit of our choosing: that it grows to what it should be,
 * makes way for segments in the right order, and goes no further than it may.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "check.h"
#include "gttd_util.h"
#include "log.h"
#include "memory.h"

#define MIB   (1ull << 20)
#define TOTAL (64 * MIB)

/* The memfd heap, but what it has made counts against a total, of which others use some. */
static atomic_uint_fast64_t ours, others, peak;

static int begin(struct heap *heap, struct heap_chunk *chunk, struct reason *why)
{
    uint64_t now = atomic_fetch_add(&ours, chunk->size_bytes) + chunk->size_bytes;
    for (uint64_t seen = peak; now > seen && !atomic_compare_exchange_weak(&peak, &seen, now);) {
    }
    if (now + others > TOTAL) {
        ours -= chunk->size_bytes;
        return reason_set(why, -ENOMEM, "the device is full");
    }
    chunk->anchor_handle = 1;
    return heap_memfd.chunk_begin(heap, chunk, why);
}

static void free_chunk(struct heap *heap, struct heap_chunk *chunk)
{
    if (chunk->anchor_handle) {
        ours -= chunk->size_bytes;
        chunk->anchor_handle = 0;
    }
    heap_memfd.chunk_free(heap, chunk);
}

static int room(struct heap *heap, struct heap_room *ret)
{
    (void)heap;
    *ret = (struct heap_room){.total_bytes = TOTAL, .used_bytes = ours + others};
    return 0;
}

static struct heap_ops ops;
static struct heap heap;
static struct loop loop;
static struct worker worker;
static struct memory_debt debt;
static struct ballast ballast;
static struct quota quota;
static struct account *account;

static void turn(void)
{
    loop.deadline_ms = loop_now_ms() + 5;
    CHECK_EQ(loop_run(&loop), 0);
}

/* Until the ballast is at rest; the server does this after each round of events. */
static void aim(uint64_t aim_bytes)
{
    do {
        ballast_aim(&ballast, 32 * MIB, aim_bytes, 0);
        while (ballast.n_running) {
            turn();
        }
        ballast_aim(&ballast, 32 * MIB, aim_bytes, 0);
    } while (ballast.n_running);
}

static void settle(void)
{
    aim(32 * MIB - quota.bytes);
}

static void expect(uint64_t ballast_bytes, uint64_t device_bytes)
{
    CHECK_EQ(debt.ballast_bytes, ballast_bytes);
    CHECK_EQ(ours, device_bytes);
    CHECK(!debt.making_bytes && !debt.traded_bytes && !ballast.ahead_bytes);
}

static void on_done(struct memory *memory)
{
    *(bool *)(void *)memory->segment = true;
}

/* What a CREATE does, in a pool of 32 MiB. */
static struct memory *make_memory(uint64_t size_bytes, int want)
{
    const struct memory_shape shape = {1, size_bytes, 4 * MIB, GTTD_MEMORY_DEFAULT};
    struct memory *memory;
    bool done = false;
    CHECK_EQ(memory_create(&ballast, &quota, account, &shape, &memory), 0);
    memory->segment = (void *)&done;
    memory_promise(memory);
    ballast_aim(&ballast, 32 * MIB, 32 * MIB - quota.bytes, 0);
    memory_populate(memory, on_done);
    while (!done) {
        turn();
    }
    CHECK_EQ(memory->result, want);
    CHECK(!debt.unpopulated_bytes && !debt.unclaimed_bytes);
    return memory;
}

static void drop(struct memory *memory)
{
    memory_discard(memory);
    while (debt.freeing_bytes) {
        turn();
    }
    settle();
}

static void test_grow_and_shrink(void)
{
    aim(32 * MIB);
    expect(32 * MIB, 32 * MIB);
    aim(9 * MIB); /* to the piece */
    expect(8 * MIB, 8 * MIB);
    aim(0);
    expect(0, 0);
    aim(7 * MIB); /* in whole 2 MiB */
    expect(6 * MIB, 6 * MIB);
    aim(32 * MIB);
    expect(32 * MIB, 32 * MIB);
}

/* There is room for both: the ballast goes only when the chunk that replaces it is there. */
static void test_trade_with_room(void)
{
    peak = 0;
    struct memory *memory = make_memory(12 * MIB, 0);
    settle();
    expect(20 * MIB, 32 * MIB);
    CHECK(peak > 32 * MIB && peak <= (32 + 4 * WORKER_THREADS_MAX) * MIB);
    drop(memory);
    expect(32 * MIB, 32 * MIB);
}

/* There is none: the ballast goes first, and all of the pool can still be had. */
static void test_trade_without_room(void)
{
    others = TOTAL - 33 * MIB;
    peak = 0;
    struct memory *memory = make_memory(32 * MIB, 0);
    settle();
    expect(0, 32 * MIB);
    CHECK_EQ(peak, 32 * MIB);
    drop(memory);
    expect(32 * MIB, 32 * MIB);
    others = 0;
}

/* Sizes that are no multiple of a piece leave odd pieces; there must not be more and more. */
static void test_pieces_stay_few(void)
{
    int n_fds = count_fds(NULL);
    for (uint64_t i = 0; i < 40; i++) {
        drop(make_memory((2 + i * 6 % 28) * MIB, 0));
        expect(32 * MIB, 32 * MIB);
        CHECK(count_fds(NULL) < n_fds + 8);
    }
}

/* What others have taken cannot be reserved; when it is back, it is. */
static void test_stall(void)
{
    others = TOTAL - 20 * MIB;
    aim(0);
    aim(32 * MIB);
    expect(20 * MIB, 20 * MIB);
    CHECK(ballast.stalled && strstr(ballast.why.text, "GTT total of 64 MiB"));
    /* segments may have what there is, also beyond their part of the pool */
    struct memory *memory = make_memory(20 * MIB, 0);
    settle();
    expect(0, 20 * MIB);
    struct memory *none = make_memory(4 * MIB, -ENOMEM);
    CHECK(strstr(none->why.text, "full"));
    memory_discard(none);
    others = 0;
    drop(memory);
    expect(32 * MIB, 32 * MIB);
    CHECK(!ballast.stalled);
}

/* What replaces something that is still being freed waits for it. */
static void test_replace(void)
{
    others = TOTAL - 32 * MIB;
    aim(0);
    struct memory *memory = make_memory(32 * MIB, 0);
    for (int i = 0; i < 10; i++) {
        memory_discard(memory);
        memory = make_memory(32 * MIB, 0);
    }
    others = 0;
    drop(memory);
    expect(32 * MIB, 32 * MIB);
}

static void after(void *data)
{
    (void)data;
    ballast_aim(&ballast, 32 * MIB, 32 * MIB, 0);
}

/* When others give something back, nobody tells us: it is tried again by itself. */
static void test_retry(void)
{
    others = TOTAL - 20 * MIB;
    aim(0);
    aim(32 * MIB);
    expect(20 * MIB, 20 * MIB);
    others = 0;
    loop.after = after;
    for (int i = 0; i < 2000 && (debt.ballast_bytes < 32 * MIB || ballast.n_running); i++) {
        turn();
    }
    loop.after = NULL;
    expect(32 * MIB, 32 * MIB);
}

static void test_piece_sizes(void)
{
    CHECK_EQ(ballast_piece_bytes(0, GTTD_CHUNK_MAX), 64 * MIB);
    CHECK_EQ(ballast_piece_bytes(8ull << 30, GTTD_CHUNK_MAX), 64 * MIB);
    CHECK_EQ(ballast_piece_bytes(96ull << 30, GTTD_CHUNK_MAX), 384 * MIB);
    CHECK_EQ(ballast_piece_bytes((96ull << 30) + 5 * MIB, GTTD_CHUNK_MAX), 384 * MIB);
    CHECK_EQ(ballast_piece_bytes(1ull << 50, GTTD_CHUNK_MAX), GTTD_CHUNK_MAX);
    CHECK_EQ(ballast_piece_bytes(8ull << 30, 32 * MIB), 32 * MIB);
}

int main(void)
{
    const struct heap_choice choice = {.heap = "memfd"};
    struct reason why;
    log_init();
    int n_fds = count_fds(NULL);
    CHECK_EQ(heap_open(&heap, &choice, &why), 0);
    ops = heap_memfd;
    ops.chunk_begin = begin;
    ops.chunk_free = free_chunk;
    ops.room = room;
    heap.ops = &ops;
    heap.chunk_max_bytes = 4 * MIB;
    CHECK_EQ(loop_init(&loop), 0);
    CHECK_EQ(worker_start(&worker, &loop), 0);
    quota_init(&quota);
    account = quota_get(&quota, 1000);
    ballast_init(&ballast, &heap, &worker, &debt);
    test_piece_sizes();
    test_grow_and_shrink();
    test_trade_with_room();
    test_trade_without_room();
    test_pieces_stay_few();
    test_stall();
    test_retry();
    test_replace();
    worker_stop(&worker);
    ballast_finish(&ballast);
    quota_put(account);
    quota_finish(&quota);
    CHECK_EQ(ours, 0);
    heap_close(&heap);
    loop_finish(&loop);
    CHECK_EQ(count_fds(NULL), n_fds);
    return 0;
}
