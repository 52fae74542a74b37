/* SPDX-License-Identifier: MIT */
/*
 * gttrun and gttd together: weights are read once, shared, survive their reader, and nothing is
 * left behind when somebody is killed or a model is bad. Real programs, the bundled model.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "gtt.h"
#include "spawn.h"

#define BUNDLED "models/wordbook-22m"

static char socket_path[128], socket_arg[160], model_dir[128];

static void nap_ms(int ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000L}, NULL);
}

static void copy_file(const char *from_dir, const char *to_dir, const char *name)
{
    char from[512], to[512], buf[65536];
    snprintf(from, sizeof from, "%s/%s", from_dir, name);
    snprintf(to, sizeof to, "%s/%s", to_dir, name);
    int in = open(from, O_RDONLY | O_CLOEXEC);
    CHECK(in >= 0);
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    CHECK(out >= 0);
    ssize_t n;
    while ((n = read(in, buf, sizeof buf)) > 0) {
        CHECK(write(out, buf, (size_t)n) == n);
    }
    CHECK(n == 0);
    close(in);
    close(out);
}

static void copy_dir(const char *from, const char *to)
{
    DIR *dir = opendir(from);
    struct dirent *e;
    CHECK(dir && mkdir(to, 0755) == 0);
    while ((e = readdir(dir))) {
        if (e->d_name[0] != '.') {
            copy_file(from, to, e->d_name);
        }
    }
    closedir(dir);
}

/* Call fn on the path of each weight file of dir. */
static int each_weight_file(const char *dir_path, void (*fn)(const char *path))
{
    DIR *dir = opendir(dir_path);
    struct dirent *e;
    int n = 0;
    CHECK(dir);
    while ((e = readdir(dir))) {
        if (strstr(e->d_name, ".safetensors") && !strstr(e->d_name, ".json")) {
            char path[512];
            snprintf(path, sizeof path, "%s/%s", dir_path, e->d_name);
            fn(path);
            n++;
        }
    }
    closedir(dir);
    return n;
}

/* Overwrite a file's data and make it look untouched. */
static void spoil(const char *path)
{
    struct stat st;
    char junk[65536];
    memset(junk, 0x5a, sizeof junk);
    CHECK(stat(path, &st) == 0);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    for (off_t off = 0; off < st.st_size; off += (off_t)sizeof junk) {
        size_t n = st.st_size - off < (off_t)sizeof junk ? (size_t)(st.st_size - off) : sizeof junk;
        CHECK(pwrite(fd, junk, n, off) == (ssize_t)n);
    }
    close(fd);
    CHECK(utimensat(AT_FDCWD, path, (struct timespec[]){st.st_atim, st.st_mtim}, 0) == 0);
}

static void cut_in_half(const char *path)
{
    struct stat st;
    CHECK(stat(path, &st) == 0 && truncate(path, st.st_size / 2) == 0);
}

static void remove_file(const char *path)
{
    CHECK(unlink(path) == 0);
}

/* How many segments gttd holds, and how many of them are sealed. */
static int count_segments(int *ret_sealed)
{
    struct gtt *gtt;
    struct gtt_status status;
    CHECK(gtt_connect(socket_path, "test", &gtt) == 0);
    CHECK(gtt_status(gtt, &status) == 0);
    gtt_disconnect(gtt);
    if (ret_sealed) {
        *ret_sealed = (int)status.n_sealed;
    }
    return (int)status.n_segments;
}

static void drop_all(void)
{
    struct gtt *gtt;
    struct gtt_entry entry;
    uint64_t cursor = 0;
    CHECK(gtt_connect(socket_path, "test", &gtt) == 0);
    while (gtt_list(gtt, &cursor, &entry) == 1) {
        CHECK(gtt_drop_id(gtt, entry.id, GTT_DROP_FORCE) == 0);
    }
    gtt_disconnect(gtt);
}

static json_t *ask(const char *dir)
{
    char *out, *errors;
    json_error_t error;
    int status = run_gttrun((const char *[]){"chat", "-m", dir, "-p",
                                             "What does the word candle mean?", "--temp", "0", "-n",
                                             "48", "--json", "--backend", "cpu", socket_arg, NULL},
                            &out, &errors);
    if (status != 0) {
        fprintf(stderr, "gttrun: %d: %s\n", status, errors);
        exit(1);
    }
    json_t *json = json_loads(out, 0, &error);
    CHECK(json);
    free(out);
    free(errors);
    return json;
}

static const char *weights(const json_t *answer, const char *key)
{
    return json_string_value(json_object_get(json_object_get(answer, "weights"), key));
}

/* The second start takes the weights from the pool and does not look at the weight files. */
static void test_hit(void)
{
    json_t *first = ask(model_dir);
    CHECK(strcmp(weights(first, "source"), "pool-fill") == 0);
    CHECK(strcmp(weights(first, "memory"), "adopted") == 0);
    CHECK(strstr(json_string_value(json_object_get(first, "text")), "candle"));
    CHECK(each_weight_file(model_dir, spoil) > 0);
    json_t *second = ask(model_dir);
    CHECK(strcmp(weights(second, "source"), "pool-hit") == 0);
    CHECK(json_equal(json_object_get(first, "ids"), json_object_get(second, "ids")));
    printf("first token: fill %.1f ms, hit %.1f ms; decode %.0f tok/s\n",
           json_number_value(json_object_get(json_object_get(first, "timings"), "first_token_ms")),
           json_number_value(json_object_get(json_object_get(second, "timings"), "first_token_ms")),
           json_number_value(json_object_get(json_object_get(second, "timings"), "decode_tps")));
    json_decref(first);
    json_decref(second);
    CHECK_EQ(count_segments(NULL), 1);
}

/* Pss and Rss in KiB of a process's mappings of gttd's memory. */
static void weight_memory(pid_t pid, long *ret_rss, long *ret_pss)
{
    char path[64], line[512];
    bool ours = false;
    long rss, pss;
    *ret_rss = *ret_pss = 0;
    snprintf(path, sizeof path, "/proc/%d/smaps", (int)pid);
    FILE *f = fopen(path, "r");
    CHECK(f);
    while (fgets(line, sizeof line, f)) {
        unsigned long start, end;
        if (sscanf(line, "%lx-%lx ", &start, &end) == 2) {
            ours = strstr(line, "/memfd:");
        } else if (ours && sscanf(line, "Rss: %ld", &rss) == 1) {
            *ret_rss += rss;
        } else if (ours && sscanf(line, "Pss: %ld", &pss) == 1) {
            *ret_pss += pss;
        }
    }
    fclose(f);
}

static struct process start_conversation(const char *dir)
{
    struct process p = spawn_gttrun((const char *[]){"chat", "-m", dir, "--temp", "0", "-n", "16",
                                                     "--backend", "cpu", socket_arg, NULL});
    CHECK(write(p.stdin_fd, "What does the word river mean?\n", 31) == 31);
    spawn_expect(&p, false, "\n");
    return p;
}

/* Two programs at once: one copy of the weights, half of it charged to each. */
static void test_shared(void)
{
    long rss[2], pss[2];
    struct process p[2] = {start_conversation(model_dir), start_conversation(model_dir)};
    for (int i = 0; i < 2; i++) {
        weight_memory(p[i].pid, &rss[i], &pss[i]);
        printf("weights of run %d: Rss %ld KiB, Pss %ld KiB\n", i, rss[i], pss[i]);
        CHECK(rss[i] > 8 << 10);
        CHECK(pss[i] <= rss[i] * 51 / 100);
    }
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(spawn_wait(&p[i]), 0);
        spawn_close(&p[i]);
    }
}

/* A program killed while it decodes takes nothing with it. */
static void test_kill_decode(void)
{
    struct process p = start_conversation(model_dir);
    kill(p.pid, SIGKILL);
    CHECK_EQ(spawn_wait(&p), 128 + SIGKILL);
    spawn_close(&p);
    json_t *answer = ask(model_dir);
    CHECK(strcmp(weights(answer, "source"), "pool-hit") == 0);
    json_decref(answer);
}

/* A program killed while it fills leaves no segment, and the next one fills. */
static void test_kill_fill(void)
{
    drop_all();
    int caught = 0;
    for (int i = 0; i < 5; i++) {
        int sealed = 0, n;
        struct process p =
            spawn_gttrun((const char *[]){"bench", "--random", "270m", "--backend", "cpu", "-p",
                                          "1", "-n", "1", "-r", "1", socket_arg, NULL});
        do {
            nap_ms(1 + 20 * i);
            n = count_segments(&sealed);
        } while (n == 0);
        kill(p.pid, SIGKILL);
        CHECK_EQ(spawn_wait(&p), 128 + SIGKILL);
        spawn_close(&p);
        caught += sealed == 0;
        for (int wait = 0; count_segments(&sealed) != sealed && wait < 500; wait++) {
            nap_ms(10);
        }
        CHECK_EQ(count_segments(&sealed), sealed);
        drop_all();
    }
    printf("killed while filling: %d of 5 times\n", caught);
    CHECK(caught > 0);
}

/* While another process is to fill: who waits can be interrupted, and takes over when it dies. */
static void test_wait(void)
{
    struct gtt *gtt;
    struct gtt_entry entry;
    struct gtt_segment *segment;
    uint64_t cursor = 0;
    drop_all();
    json_decref(ask(BUNDLED));
    CHECK(gtt_connect(socket_path, "test", &gtt) == 0);
    CHECK_EQ(gtt_list(gtt, &cursor, &entry), 1);
    CHECK_EQ(gtt_drop(gtt, entry.name, 0), 0);
    CHECK_EQ(gtt_open(gtt, entry.name, GTT_OPEN_FILL, 0, &segment), 1);

    struct process serve =
        spawn_gttrun((const char *[]){"serve", "-m", BUNDLED, "--backend", "cpu", "--listen",
                                      "127.0.0.1:0", socket_arg, NULL});
    spawn_expect(&serve, true, "waiting");
    kill(serve.pid, SIGINT);
    CHECK_EQ(spawn_wait(&serve), 128 + SIGINT);
    spawn_close(&serve);

    struct process chat = spawn_gttrun((const char *[]){"chat", "-m", BUNDLED, "-p", "x", "-n", "1",
                                                        "--backend", "cpu", socket_arg, NULL});
    spawn_expect(&chat, true, "waiting");
    gtt_disconnect(gtt);
    CHECK_EQ(spawn_wait(&chat), 0);
    spawn_expect(&chat, true, "pool-fill");
    spawn_close(&chat);
}

/* gttd killed under a running program: it goes on; the next start says what is wrong and works. */
static void test_kill_gttd(struct process *gttd)
{
    char *out, *errors;
    json_t *answer = ask(BUNDLED);
    json_decref(answer);
    struct process p = start_conversation(BUNDLED);
    kill(gttd->pid, SIGKILL);
    CHECK_EQ(spawn_wait(gttd), 128 + SIGKILL);
    spawn_close(gttd);
    CHECK(write(p.stdin_fd, "What does the word stone mean?\n", 31) == 31);
    spawn_expect(&p, false, "stone");
    CHECK_EQ(spawn_wait(&p), 0);
    spawn_close(&p);
    CHECK_EQ(run_gttrun((const char *[]){"chat", "-m", BUNDLED, "-p", "Hello!", "-n", "4", "--json",
                                         "--backend", "cpu", socket_arg, NULL},
                        &out, &errors),
             0);
    CHECK(strstr(out, "\"private\""));
    CHECK(strstr(errors, "gttd"));
    free(out);
    free(errors);
    *gttd = spawn_gttd(socket_path, NULL); /* over the dead one's socket */
    answer = ask(BUNDLED);
    CHECK(strcmp(weights(answer, "source"), "pool-fill") == 0);
    json_decref(answer);
}

/* A bad model: one line, exit code 1, nothing in the pool. */
static void expect_refused(const char *dir, const char *what)
{
    char *errors;
    CHECK_EQ(run_gttrun((const char *[]){"chat", "-m", dir, "-p", "x", "-q", "--backend", "cpu",
                                         socket_arg, NULL},
                        NULL, &errors),
             1);
    printf("refused: %s", errors);
    CHECK(strncmp(errors, "gttrun: ", 8) == 0);
    CHECK(strchr(errors, '\n') == errors + strlen(errors) - 1);
    CHECK(strstr(errors, what));
    free(errors);
    CHECK_EQ(count_segments(NULL), 0);
}

static void write_file(const char *dir, const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

static void test_bad_models(void)
{
    char dir[8][160];
    drop_all();
    for (int i = 0; i < 8; i++) {
        snprintf(dir[i], sizeof dir[i], "%s/bad-%d", spawn_dir(), i);
        copy_dir(BUNDLED, dir[i]);
    }
    CHECK(each_weight_file(dir[0], cut_in_half) > 0);
    expect_refused(dir[0], ".safetensors");
    CHECK(each_weight_file(dir[1], spoil) > 0);
    expect_refused(dir[1], ".safetensors");
    CHECK(each_weight_file(dir[2], remove_file) > 0);
    expect_refused(dir[2], "safetensors");
    write_file(dir[3], "config.json", "{\"model_type\": \"gemma3_text\", \"model_type\": \"x\"}");
    expect_refused(dir[3], "config.json");
    write_file(dir[4], "tokenizer.json", "{\"model\": {\"type\": \"Unigram\", \"vocab\": []}}");
    expect_refused(dir[4], "tokenizer.json");
    write_file(dir[5], "config.json", "[]");
    expect_refused(dir[5], "config.json");
    snprintf(dir[6], sizeof dir[6], "%s/none", spawn_dir());
    expect_refused(dir[6], "No such file or directory");
}

/* A process's open fds once they stay the same: gttd may still be closing a connection. */
static int settled_fds(const char *fd_dir)
{
    int fds = count_fds(fd_dir);
    for (int n_same = 1; n_same < 10;) {
        nap_ms(20);
        int again = count_fds(fd_dir);
        n_same = again == fds ? n_same + 1 : 1;
        fds = again;
    }
    return fds;
}

int main(void)
{
    snprintf(socket_path, sizeof socket_path, "%s/gttd.sock", spawn_dir());
    snprintf(socket_arg, sizeof socket_arg, "--socket=%s", socket_path);
    snprintf(model_dir, sizeof model_dir, "%s/model", spawn_dir());
    atexit(spawn_clean_up);
    copy_dir(BUNDLED, model_dir);
    struct process gttd = spawn_gttd(socket_path, NULL);
    char fd_dir[64];
    snprintf(fd_dir, sizeof fd_dir, "/proc/%d/fd", (int)gttd.pid);
    int fds = settled_fds(fd_dir);

    test_hit();
    test_shared();
    test_kill_decode();
    test_kill_fill();
    test_wait();
    test_bad_models();
    CHECK_EQ(settled_fds(fd_dir), fds);
    test_kill_gttd(&gttd);

    kill(gttd.pid, SIGTERM);
    CHECK_EQ(spawn_wait(&gttd), 0);
    spawn_close(&gttd);
    return 0;
}
