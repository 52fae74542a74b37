/* SPDX-License-Identifier: MIT */
/*
 * Random operations of many clients on few names, a third of the clients killed at random moments:
 * gttd must go on and hold nothing in the end. The seed is printed; pass it to see a run again (as
 * far as scheduling lets it be the same). soak_test [SEED [CLIENTS OPERATIONS ROUNDS [UID GID]]];
 * with the environment of rig_borrow() on a gttd that is there, which needs a pool of a few MiB a
 * client. UID and GID: who the clients are, if root starts it.
 */
#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "gttd_util.h"
#include "rig.h"

#define CLIENTS_MAX 256
#define HELD_MAX    4

static unsigned n_rounds = 4, n_clients = 24, n_ops = 150;

static uid_t client_uid;
static gid_t client_gid;
static struct rig rig;
static unsigned seed;

struct held {
    struct gtt_segment *segments[HELD_MAX];
    size_t n;
};

static unsigned pick(unsigned n)
{
    return (unsigned)rand_r(&seed) % n;
}

static void close_one(struct held *held)
{
    if (held->n) {
        size_t i = pick((unsigned)held->n);
        gtt_segment_close(held->segments[i]);
        held->segments[i] = held->segments[--held->n];
    }
}

/* Whatever comes back must be one of the refusals that the header names. */
static void expect_known(struct gtt *gtt, int r)
{
    switch (r) {
    case 0:
    case 1:
    case -ENOENT:
    case -EAGAIN:
    case -ETIMEDOUT:
    case -EDEADLK:
    case -EEXIST:
    case -EDQUOT:
    case -ENOSPC:
    case -EBUSY:
    case -ESTALE:
        return;
    default:
        fprintf(stderr, "%d: %s\n", r, gtt_last_error(gtt));
        CHECK(!"a refusal that makes sense");
    }
}

static void make(struct gtt *gtt, struct held *held, const char *name)
{
    struct gtt_create_params params = {.name = name,
                                       .size_bytes = (1 + pick(8)) * 2 * MIB,
                                       .chunk_bytes = (1 + pick(3)) * 2 * MIB};
    struct gtt_segment *segment;
    uint8_t digest[GTT_DIGEST_SIZE] = {0};
    void *base;
    int r = gtt_create(gtt, &params, &segment);
    expect_known(gtt, r);
    if (r < 0) {
        return;
    }
    CHECK_EQ(gtt_segment_map(segment, true, &base), 0);
    memset(base, 1, 4096);
    if (name && pick(4)) {
        expect_known(gtt, gtt_segment_seal(segment, digest, name, strlen(name)));
    }
    held->segments[held->n++] = segment;
}

static void one_op(struct gtt *gtt, struct held *held)
{
    char name[16];
    struct gtt_status status;
    struct gtt_segment *segment;
    void *base;
    int r;
    snprintf(name, sizeof name, "n%u", pick(6));
    if (held->n == HELD_MAX) {
        close_one(held);
    }
    switch (pick(8)) {
    case 0:
    case 1:
    case 2:
        r = gtt_open(gtt, name, pick(4), (int)pick(20), &segment);
        expect_known(gtt, r);
        if (r == 0) {
            CHECK_EQ(gtt_segment_map(segment, false, &base), 0);
            CHECK_EQ(*(char *)base, 1);
            held->segments[held->n++] = segment;
        } else if (r == 1 && pick(3)) {
            make(gtt, held, name);
        } else if (r == 1) {
            CHECK_EQ(gtt_abandon(gtt, name), 0);
        }
        break;
    case 3:
        make(gtt, held, pick(2) ? name : NULL);
        break;
    case 4:
        expect_known(gtt, gtt_drop(gtt, name, pick(2)));
        break;
    case 5:
        CHECK_EQ(gtt_status(gtt, &status), 0);
        break;
    default:
        close_one(held);
    }
}

static void become_client(void)
{
    if (client_uid) {
        CHECK_EQ(setgroups(1, &client_gid), 0);
        CHECK_EQ(setgid(client_gid), 0);
        CHECK_EQ(setuid(client_uid), 0);
    }
}

static void client(void *data, int pipe_fd)
{
    struct held held = {.n = 0};
    (void)pipe_fd;
    seed = *(unsigned *)data;
    become_client();
    struct gtt *gtt = rig_connect(&rig);
    if (pick(8) == 0) {
        CHECK_EQ(gtt_watch(gtt), 0);
    }
    for (unsigned i = 0; i < n_ops; i++) {
        one_op(gtt, &held);
    }
    while (held.n) {
        close_one(&held);
    }
    gtt_disconnect(gtt);
}

static void one_round(unsigned round_seed)
{
    seed = round_seed;
    pid_t pids[CLIENTS_MAX];
    int pipes[CLIENTS_MAX];
    for (size_t i = 0; i < n_clients; i++) {
        unsigned client_seed = round_seed * 1000 + (unsigned)i;
        pids[i] = rig_fork(client, &client_seed, &pipes[i]);
    }
    for (size_t i = 0; i < n_clients; i += 3) {
        sleep_ms((int)(pick(40) * n_ops / 150));
        kill(pids[i], SIGKILL);
    }
    for (size_t i = 0; i < n_clients; i++) {
        int status;
        close(pipes[i]);
        CHECK(waitpid(pids[i], &status, 0) == pids[i]);
        CHECK(status == 0 || (i % 3 == 0 && WTERMSIG(status) == SIGKILL));
    }
}

static void drop_all(void)
{
    struct gtt *gtt = rig_connect(&rig);
    struct gtt_entry entry;
    for (uint64_t cursor = 0; gtt_list(gtt, &cursor, &entry) == 1;) {
        if (entry.name[0]) {
            gtt_drop_id(gtt, entry.id, GTT_DROP_FORCE);
        }
    }
    gtt_disconnect(gtt);
}

int main(int argc, char **argv)
{
    unsigned start = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : (unsigned)time(NULL);
    if (argc == 7) {
        client_uid = (uid_t)strtoul(argv[5], NULL, 10);
        client_gid = (gid_t)strtoul(argv[6], NULL, 10);
    }
    if (argc >= 5) {
        n_clients = (unsigned)strtoul(argv[2], NULL, 10);
        n_ops = (unsigned)strtoul(argv[3], NULL, 10);
        n_rounds = (unsigned)strtoul(argv[4], NULL, 10);
        CHECK(n_clients <= CLIENTS_MAX);
    }
    fprintf(stderr, "seed %u\n", start);
    if (!rig_borrow(&rig)) {
        rig_start(&rig, (const char *[]){"--pool=128M", NULL});
    }
    struct rig_count before = rig_count(&rig);
    for (unsigned i = 0; i < n_rounds; i++) {
        one_round(start + i);
    }
    while (rig_count(&rig).n_clients) {
        sleep_ms(5);
    }
    drop_all();
    rig_expect_count(&rig, &before);
    rig_stop(&rig);
    return 0;
}
