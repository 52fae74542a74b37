/* SPDX-License-Identifier: MIT */
/* gttd.conf: what is read, what is refused and on which line it says that is. */
#include <errno.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "config.h"

#define MIB (1ull << 20)

static int parse(const char *text, struct config *ret, struct reason *why)
{
    config_default(ret);
    return config_parse(ret, "f", text, strlen(text), why);
}

static void test_all_keys(void)
{
    static const char text[] = "# a comment, with umlauts: \xc3\xa4\n"
                               "\n"
                               "heap = memfd\n"
                               "device=/dev/dri/renderD129\n"
                               "\t anchor \t=  off \t # and why\n"
                               "pool = 20G\n"
                               "quota = 8G\n"
                               "quota.root = none\n"
                               "quota.12345 = 512M\n"
                               "floor = 0\n"
                               "share = group\n"
                               "adopt = 24G\n"
                               "pressure = full\n"
                               "pressure.stall = 2s\n"
                               "pressure.window = 4s\n"
                               "pressure.step = 1G"; /* no newline */
    struct config c;
    struct reason why;
    CHECK_EQ(parse(text, &c, &why), 0);
    CHECK(!strcmp(c.heap, "memfd") && !strcmp(c.device, "/dev/dri/renderD129"));
    CHECK(!strcmp(c.anchor, "off"));
    CHECK_EQ(c.pool_bytes, 20480 * MIB);
    CHECK_EQ(c.quota_bytes, 8192 * MIB);
    CHECK_EQ(c.floor_bytes, 0);
    CHECK(c.share_group);
    CHECK(c.adopts && c.adopted_quota_bytes == 24ull << 30);
    CHECK_EQ(c.n_user_quotas, 2);
    CHECK(c.user_quotas[0].uid == 0 && c.user_quotas[0].bytes == 0);
    CHECK(c.user_quotas[1].uid == 12345 && c.user_quotas[1].bytes == 512 * MIB);
    CHECK_EQ(c.pressure.kind, PRESSURE_FULL);
    CHECK(c.pressure.stall_ms == 2000 && c.pressure.window_ms == 4000);
    CHECK_EQ(c.pressure.step_bytes, 1024 * MIB);
    char trigger[PRESSURE_TRIGGER_MAX]; /* in microseconds */
    CHECK(!strcmp(pressure_trigger(&c.pressure, trigger), "full 2000000 4000000"));
}

static void test_defaults(void)
{
    struct config c;
    struct reason why;
    CHECK_EQ(parse("", &c, &why), 0);
    CHECK(!strcmp(c.heap, "auto") && !strcmp(c.device, "auto") && !strcmp(c.anchor, "auto"));
    CHECK(!c.pool_bytes && !c.quota_bytes && !c.n_user_quotas && !c.share_group);
    CHECK_EQ(c.floor_bytes, admission_default_floor());
    CHECK(c.floor_bytes >= 2048 * MIB);
    CHECK_EQ(c.pressure.kind, PRESSURE_SOME);
    char trigger[PRESSURE_TRIGGER_MAX];
    CHECK(!strcmp(pressure_trigger(&c.pressure, trigger), "some 150000 2000000"));
    CHECK_EQ(parse("pool = none\nquota=none\n", &c, &why), 0);
    CHECK(!c.pool_bytes && !c.quota_bytes);
}

static void test_refusals(void)
{
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"floor = 1G\nquotta = 1G\n", "f:2: unknown key quotta"},
        {"\n\npool = 1G\n# x\npool = 2G\n", "f:5: pool was set on line 3 already"},
        {"pool\n", "f:1: not of the form key = value: pool"},
        {"= 1G\n", "f:1: unknown key "},
        {"pool =\n", "f:1: pool has no value"},
        {"pool = # none\n", "f:1: pool has no value"},
        {"pool = 1Q\n", "f:1: pool: 1Q: not a size such as 512M or 20G"},
        {"pool = -1G\n", "f:1: pool: -1G: not a size"},
        {"pool = 1G 2G\n", "f:1: pool: 1G 2G: not a size"},
        {"pool = 0\n", "f:1: pool: 0 would let nobody have anything; none is no limit"},
        {"quota = 99999999T\n", "f:1: quota: 99999999T: too large"},
        {"floor = none\n", "f:1: floor: none: not a size"},
        {"POOL = 1G\n", "f:1: unknown key POOL"},
        {"heap = vram\n", "f:1: heap: vram: there are auto, amdgpu, udmabuf and memfd"},
        {"device = card0\n", "f:1: device: card0: neither auto nor a path"},
        {"anchor = on\n", "f:1: anchor: on: neither auto nor off nor a path"},
        {"adopt = 0\n", "f:1: adopt: 0 would let nobody have anything; none is no limit"},
        {"share = all\n", "f:1: share: all: there are user and group"},
        {"share = user\nshare = user\n", "f:2: share was set on line 1 already"},
        {"quota. = 1G\n", "f:1: quota.: nobody named: there is no such user"},
        {"quota.no-such-user = 1G\n",
         "f:1: quota.no-such-user: no-such-user: there is no such user"},
        {"quota.4294967295 = 1G\n", "f:1: quota.4294967295: 4294967295: not a uid"},
        {"quota.12x = 1G\n", "f:1: quota.12x: 12x: not a uid"},
        {"quota.root = 1G\nquota.0 = 2G\n", "f:2: quota.0: uid 0 has a quota of its own already"},
        {"pressure = yes\n", "f:1: pressure: yes: there are off, some and full"},
        {"pressure.window = 3s\n", "f:1: pressure.window: 3s: 2s, 4s, 6s, 8s or 10s"},
        {"pressure.window = 500ms\n", "f:1: pressure.window: 500ms: 2s, 4s, 6s, 8s or 10s"},
        {"pressure.stall = 0ms\n", "f:1: pressure.stall: 0ms: 1ms to 10s"},
        {"pressure.stall = 5\n", "f:1: pressure.stall: 5: not a time such as 150ms or 2s"},
        {"pressure.step = 0\n", "f:1: pressure.step: 0 would evict nothing"},
        {"pressure.stall = 3s\n\n", "f:2: pressure.stall of 3000 ms is above pressure.window"},
        {"pool = 1G\r\n", "f:1: only comments may have other than printable ASCII"},
        {"p\xc3\xb6\xc3\xb6l = 1G\n", "f:1: only comments may have other than printable ASCII"},
        {"device = /a#b\ndevice = /c\n", "f:2: device was set on line 1 already"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct config c;
        struct reason why = {""};
        int r = parse(cases[i].text, &c, &why);
        if (r >= 0 || strncmp(why.text, cases[i].why, strlen(cases[i].why)) != 0) {
            fprintf(stderr, "%zu: %d, \"%s\" instead of \"%s\"\n", i, r, why.text, cases[i].why);
            exit(1);
        }
    }
}

/* What a string literal cannot say. */
static void test_bytes(void)
{
    static char line[5000];
    struct config c;
    struct reason why;
    config_default(&c);
    CHECK_EQ(config_parse(&c, "f", "floor = 1G\0\n", 12, &why), -EINVAL);
    CHECK(!strcmp(why.text, "f:1: a byte that is 0"));
    memset(line, 'x', sizeof line);
    memcpy(line, "device = /", 10);
    CHECK_EQ(config_parse(&c, "f", line, 1025, &why), -EINVAL);
    CHECK(!strcmp(why.text, "f:1: a line has at most 1024 bytes"));
    CHECK_EQ(config_parse(&c, "f", line, 9 + 256, &why), -EINVAL);
    CHECK(!strcmp(why.text, "f:1: device: a value has at most 255 bytes"));
    CHECK_EQ(config_parse(&c, "f", line, 9 + 255, &why), 0);
    CHECK_EQ(strlen(c.device), 255);
}

static void test_too_many_users(void)
{
    static char text[USER_QUOTAS_MAX * 40];
    struct config c;
    struct reason why;
    size_t n = 0;
    for (int i = 0; i <= USER_QUOTAS_MAX; i++) {
        n += (size_t)snprintf(text + n, sizeof text - n, "quota.%d = 1G\n", 5000 + i);
    }
    CHECK_EQ(parse(text, &c, &why), -EINVAL);
    CHECK(strstr(why.text, "f:65: quota.5064: there are at most 64 users"));
}

static void write_file(const char *path, const char *text, size_t size)
{
    FILE *f = fopen(path, "w");
    CHECK(f && fwrite(text, 1, size, f) == size && fclose(f) == 0);
}

static void test_files(void)
{
    char dir[] = "/tmp/gttd-conf-XXXXXX", path[64], want[96];
    static char large[CONFIG_MAX_BYTES + 1];
    struct config c;
    struct reason why;
    CHECK(mkdtemp(dir));
    int n_fds = count_fds(NULL);
    snprintf(path, sizeof path, "%s/conf", dir);
    config_default(&c);
    CHECK_EQ(config_read(&c, path, true, &why), 0);
    CHECK_EQ(config_read(&c, path, false, &why), -ENOENT);
    write_file(path, "# x\npool = 3M\n", 14);
    CHECK_EQ(config_read(&c, path, false, &why), 0);
    CHECK_EQ(c.pool_bytes, 3 * MIB);
    write_file(path, "\nx = y\n", 7);
    CHECK_EQ(config_read(&c, path, true, &why), -EINVAL); /* optional, but it is there */
    snprintf(want, sizeof want, "%s:2: unknown key x", path);
    CHECK(!strcmp(why.text, want));
    memset(large, '\n', sizeof large);
    write_file(path, large, CONFIG_MAX_BYTES);
    CHECK_EQ(config_read(&c, path, false, &why), 0);
    write_file(path, large, CONFIG_MAX_BYTES + 1);
    CHECK_EQ(config_read(&c, path, false, &why), -EFBIG);
    CHECK_EQ(unlink(path), 0);
    CHECK_EQ(mkfifo(path, 0600), 0);
    CHECK_EQ(config_read(&c, path, false, &why), -EINVAL); /* and does not wait for a writer */
    CHECK_EQ(unlink(path), 0);
    CHECK_EQ(config_read(&c, dir, false, &why), -EISDIR);
    CHECK_EQ(rmdir(dir), 0);
    CHECK_EQ(count_fds(NULL), n_fds);
}

int main(void)
{
    test_all_keys();
    test_defaults();
    test_refusals();
    test_bytes();
    test_too_many_users();
    test_files();
    return 0;
}
