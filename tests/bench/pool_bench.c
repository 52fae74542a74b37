/* SPDX-License-Identifier: MIT */
/*
 * What gttd costs: making a 64 MiB segment (CREATE + CHUNK + SEAL), opening a sealed one, one round
 * trip, and a thousand clients that come and go. Starts its own gttd on the memfd heap, unless the
 * environment names one (rig_borrow()). Medians; --json for machines.
 */
#include <inttypes.h>
#include <time.h>

#include "gttd_util.h"
#include "rig.h"

#define SEGMENT_BYTES (64 * MIB)
#define N_CREATE      15
#define N_OPEN        300
#define N_CALLS       2000
#define N_CLIENTS     1000
#define N_AT_ONCE     64

struct results {
    double create_us, create_only_us, create_gbps;
    double open_us, open_map_us, round_trip_us;
    double connect_us, clients_s;
};

static struct rig rig;

static double now_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t n)
{
    qsort(values, n, sizeof values[0], compare);
    return values[n / 2];
}

/* The digest is given, so that hashing is not part of it. */
static void bench_create(struct gtt *gtt, struct results *results)
{
    double all[N_CREATE], create_only[N_CREATE];
    uint8_t digest[GTT_DIGEST_SIZE] = {0};
    struct gtt_create_params params = {.name = "bench", .size_bytes = SEGMENT_BYTES};
    for (size_t i = 0; i < N_CREATE; i++) {
        struct gtt_segment *segment;
        int fd;
        double start = now_us();
        CHECK_EQ(gtt_create(gtt, &params, &segment), 0);
        create_only[i] = now_us() - start;
        CHECK_EQ(gtt_segment_chunk_fd(segment, 0, &fd), 0);
        CHECK_EQ(gtt_segment_seal(segment, digest, NULL, 0), 0);
        all[i] = now_us() - start;
        gtt_segment_close(segment);
        if (i + 1 < N_CREATE) {
            CHECK_EQ(gtt_drop(gtt, "bench", 0), 0);
            sleep_ms(30); /* until the worker has given it back: not part of the next */
        }
    }
    results->create_us = median(all, N_CREATE);
    results->create_only_us = median(create_only, N_CREATE);
    results->create_gbps = (double)SEGMENT_BYTES / results->create_only_us / 1e3;
}

static void bench_open(struct gtt *gtt, struct results *results)
{
    double open_only[N_OPEN], open_map[N_OPEN];
    for (size_t i = 0; i < N_OPEN; i++) {
        struct gtt_segment *segment;
        void *base;
        double start = now_us();
        CHECK_EQ(gtt_open(gtt, "bench", 0, 0, &segment), 0);
        open_only[i] = now_us() - start;
        CHECK_EQ(gtt_segment_map(segment, false, &base), 0);
        open_map[i] = now_us() - start;
        gtt_segment_close(segment);
    }
    results->open_us = median(open_only, N_OPEN);
    results->open_map_us = median(open_map, N_OPEN);
}

static void bench_calls(struct gtt *gtt, struct results *results)
{
    static double times[N_CALLS];
    struct gtt_status status;
    for (size_t i = 0; i < N_CALLS; i++) {
        struct gtt_entry entry;
        uint64_t cursor = 0;
        double start = now_us();
        CHECK_EQ(gtt_list(gtt, &cursor, &entry), 1);
        times[i] = now_us() - start;
    }
    results->round_trip_us = median(times, N_CALLS);
    CHECK_EQ(gtt_status(gtt, &status), 0);
    for (size_t i = 0; i < N_CALLS; i++) {
        double start = now_us();
        gtt_disconnect(rig_connect(&rig));
        times[i] = now_us() - start;
    }
    results->connect_us = median(times, N_CALLS);
}

static void client(void *data, int pipe_fd)
{
    (void)data;
    (void)pipe_fd;
    struct gtt *gtt = rig_connect(&rig);
    struct gtt_segment *segment;
    void *base;
    CHECK_EQ(gtt_open(gtt, "bench", GTT_OPEN_WAIT, -1, &segment), 0);
    CHECK_EQ(gtt_segment_map(segment, false, &base), 0);
    CHECK_EQ(*(volatile char *)base, 0);
    /* and gone, without a word */
}

static void bench_clients(struct results *results)
{
    struct rig_count before = rig_count(&rig);
    double start = now_us();
    for (size_t n = 0; n < N_CLIENTS; n += N_AT_ONCE) {
        pid_t pids[N_AT_ONCE];
        int pipes[N_AT_ONCE];
        for (size_t i = 0; i < N_AT_ONCE; i++) {
            pids[i] = rig_fork(client, NULL, &pipes[i]);
        }
        for (size_t i = 0; i < N_AT_ONCE; i++) {
            rig_join(pids[i]);
            close(pipes[i]);
        }
    }
    results->clients_s = (now_us() - start) / 1e6;
    rig_expect_count(&rig, &before);
}

int main(int argc, char **argv)
{
    bool json = argc == 2 && !strcmp(argv[1], "--json");
    if (argc > 1 && !json) {
        fprintf(stderr, "usage: pool_bench [--json]\n");
        return 2;
    }
    struct results r;
    if (!rig_borrow(&rig)) {
        rig_start(&rig, NULL);
    }
    struct gtt *gtt = rig_connect(&rig);
    bench_create(gtt, &r);
    bench_open(gtt, &r);
    bench_calls(gtt, &r);
    gtt_disconnect(gtt);
    bench_clients(&r);
    rig_stop(&rig);
    if (json) {
        printf("{\"segment_bytes\":%llu,\"create_chunk_seal_us\":%.1f,\"create_us\":%.1f,"
               "\"create_gb_per_s\":%.2f,\"open_us\":%.1f,\"open_map_us\":%.1f,"
               "\"round_trip_us\":%.1f,\"connect_hello_us\":%.1f,\"clients\":%d,"
               "\"clients_at_once\":%d,\"clients_s\":%.3f}\n",
               SEGMENT_BYTES, r.create_us, r.create_only_us, r.create_gbps, r.open_us,
               r.open_map_us, r.round_trip_us, r.connect_us, N_CLIENTS, N_AT_ONCE, r.clients_s);
        return 0;
    }
    printf("CREATE + CHUNK + SEAL of 64 MiB  %9.1f us\n", r.create_us);
    printf("CREATE alone                     %9.1f us  %.2f GB/s zeroed\n", r.create_only_us,
           r.create_gbps);
    printf("OPEN of a sealed segment         %9.1f us  (target 150)\n", r.open_us);
    printf("OPEN and map                     %9.1f us\n", r.open_map_us);
    printf("one round trip (LIST)            %9.1f us\n", r.round_trip_us);
    printf("connect, HELLO, disconnect       %9.1f us\n", r.connect_us);
    printf("%d clients, %d at once         %9.3f s, nothing left over\n", N_CLIENTS, N_AT_ONCE,
           r.clients_s);
    return 0;
}
