/* SPDX-License-Identifier: MIT */
/*
 * A thousand clients, 64 at a time, that create, open, share and leave in order or by dying: in the
 * end gttd holds what it held before, byte for byte and fd for fd, and is no bigger.
 */
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

#include "gttd_util.h"
#include "rig.h"

#define N_CLIENTS 1000
#define N_AT_ONCE 64

/* Pages of the heap that one run touches and the other did not; sanitizers keep freed memory. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RSS_SLACK_KIB 65536
#else
#define RSS_SLACK_KIB 128
#endif

static struct rig rig;

/* gttd's own anonymous memory: what it leaks would be there. */
static uint64_t rss_anon_kib(void)
{
    char path[64], line[128];
    unsigned long long kib = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)rig.pid);
    FILE *f = fopen(path, "re");
    CHECK(f);
    while (fgets(line, sizeof line, f) && sscanf(line, "RssAnon: %llu", &kib) != 1) {
    }
    fclose(f);
    return kib;
}

static void client(void *data, int pipe_fd)
{
    size_t n = *(size_t *)data;
    char name[32];
    struct gtt *gtt = rig_connect(&rig);
    struct gtt_segment *segment, *own;
    struct gtt_create_params params = {.size_bytes = 2 * MIB};
    void *base;
    (void)pipe_fd;
    snprintf(name, sizeof name, "shared-%zu", n % 8);
    int r = gtt_open(gtt, name, GTT_OPEN_WAIT | GTT_OPEN_FILL, -1, &segment);
    if (r == 1) {
        if (n % 5 == 0) {
            _exit(0); /* as a filler */
        }
        segment = rig_fill(gtt, name, 2 * MIB, 7);
    } else {
        CHECK_EQ(r, 0);
    }
    CHECK_EQ(gtt_segment_map(segment, false, &base), 0);
    CHECK_EQ(((char *)base)[MIB], 7);
    CHECK_EQ(gtt_create(gtt, &params, &own), 0);
    if (n % 3 == 0) {
        kill(getpid(), SIGKILL);
    }
    if (n % 3 == 1) {
        _exit(0);
    }
    gtt_segment_close(own);
    gtt_segment_close(segment);
    gtt_disconnect(gtt);
}

static void round_of_clients(void)
{
    pid_t pids[N_AT_ONCE];
    int pipes[N_AT_ONCE];
    for (size_t n = 0; n < N_CLIENTS; n += N_AT_ONCE) {
        for (size_t i = 0; i < N_AT_ONCE; i++) {
            size_t number = n + i;
            pids[i] = rig_fork(client, &number, &pipes[i]);
        }
        for (size_t i = 0; i < N_AT_ONCE; i++) {
            char c;
            CHECK_EQ(read(pipes[i], &c, 1), 0); /* until it has ended */
            close(pipes[i]);
            if ((n + i) % 3 == 0) {
                kill(pids[i], SIGKILL); /* has done so itself, or left early */
                int status;
                waitpid(pids[i], &status, 0);
            } else {
                rig_join(pids[i]);
            }
        }
    }
}

static void drop_all(void)
{
    struct gtt *gtt = rig_connect(&rig);
    struct gtt_entry entry;
    for (uint64_t cursor = 0; gtt_list(gtt, &cursor, &entry) == 1;) {
        while (entry.name[0] && gtt_drop_id(gtt, entry.id, 0) == -EBUSY) {
            sleep_ms(5);
        }
    }
    gtt_disconnect(gtt);
}

int main(void)
{
    rig_start(&rig, NULL);
    struct rig_count before = rig_count(&rig);
    round_of_clients(); /* the allocator's own growth happens here */
    drop_all();
    rig_expect_count(&rig, &before);
    uint64_t kib = rss_anon_kib();
    round_of_clients();
    drop_all();
    rig_expect_count(&rig, &before);
    uint64_t grown_kib = rss_anon_kib() > kib ? rss_anon_kib() - kib : 0;
    printf("RssAnon %llu kiB, grown by %llu kiB over %d clients\n", (unsigned long long)kib,
           (unsigned long long)grown_kib, N_CLIENTS);
    CHECK(grown_kib < RSS_SLACK_KIB);
    rig_stop(&rig);
    return 0;
}
