/* SPDX-License-Identifier: MIT */
/* Which GPU is chosen, on lists that no single machine has; and the proof of a pin, against counts
 * that others move meanwhile. */
#include <errno.h>
#include <unistd.h>

#include "anchor.h"
#include "check.h"
#include "device.h"

#define MIB (1ull << 20)

static struct device apu = {"/dev/dri/renderD129", "0000:c5:00.0", "Radeon 780M", true, 0};
static struct device card = {"/dev/dri/renderD128", "0000:03:00.0", "Radeon RX 7900", false, 0};
static struct reason why;

static int choose(size_t n, const struct device *a, const struct device *b, const char *wanted)
{
    const struct device list[] = {*a, b ? *b : *a};
    return device_choose(list, n, wanted, &why);
}

static void test_choice(void)
{
    struct device locked = apu;
    locked.error = -EACCES;
    CHECK_EQ(device_choose(NULL, 0, NULL, &why), -ENODEV);
    CHECK(strstr(why.text, "no GPU"));
    CHECK_EQ(choose(1, &card, NULL, NULL), 0);
    CHECK(strstr(why.text, "only one"));
    CHECK_EQ(choose(2, &card, &apu, NULL), 1);
    CHECK(strstr(why.text, "first APU"));
    CHECK_EQ(choose(2, &apu, &card, NULL), 0);
    CHECK_EQ(choose(2, &card, &card, NULL), 0);
    CHECK(strstr(why.text, "none is an APU"));
    CHECK_EQ(choose(2, &locked, &card, NULL), 1);
    CHECK(strstr(why.text, "may open"));
    CHECK_EQ(choose(1, &locked, NULL, NULL), -EACCES);
    CHECK(strstr(why.text, "renderD129") && strstr(why.text, "render"));
}

static void test_wanted(void)
{
    struct device locked = apu;
    locked.error = -EACCES;
    CHECK_EQ(choose(2, &apu, &card, card.path), 1);
    CHECK(strstr(why.text, "asked for"));
    CHECK_EQ(choose(2, &locked, &card, apu.path), -EACCES); /* and no other instead */
    CHECK_EQ(choose(2, &apu, &card, "/dev/dri/renderD130"), -ENODEV);
    CHECK(strstr(why.text, "renderD130") && strstr(why.text, "renderD129"));
}

/* A driver's count of pinned bytes, and somebody else who moves it. */
struct count {
    uint64_t bytes;
    uint64_t pins;     /* what an import adds; 0: it does not pin */
    int64_t others[8]; /* what others add between an import and the next look */
    int n_imports, n_held;
    int import_error, count_error; /* the latter from the second look on */
    bool existed;                  /* the import is there already and has pinned */
};

static int do_import(void *data, uint32_t *ret_handle)
{
    struct count *count = data;
    if (count->import_error) {
        return count->import_error;
    }
    count->bytes += count->existed ? 0 : count->pins;
    count->bytes += (uint64_t)count->others[count->n_imports];
    count->n_imports++;
    count->n_held++;
    *ret_handle = 7;
    return 0;
}

static void do_release(void *data, uint32_t handle)
{
    struct count *count = data;
    CHECK_EQ(handle, 7);
    count->bytes -= count->pins;
    count->existed = false;
    count->n_held--;
}

static int do_count(void *data, uint64_t *ret_bytes)
{
    struct count *count = data;
    *ret_bytes = count->bytes;
    return count->n_imports ? count->count_error : 0;
}

static int prove(struct count *count)
{
    const struct anchor_hand hand = {do_import, do_release, do_count, count};
    uint32_t handle = 0;
    int r = anchor_prove(&hand, 4 * MIB, &handle);
    CHECK_EQ(count->n_held, r == 0);
    CHECK_EQ(handle, r == 0 ? 7 : 0);
    return r;
}

static void test_proof(void)
{
    struct count good = {.bytes = 9 * MIB, .pins = 4 * MIB};
    CHECK_EQ(prove(&good), 0);
    CHECK_EQ(good.n_imports, 1);
    struct count useless = {.bytes = 9 * MIB};
    CHECK_EQ(prove(&useless), -EOPNOTSUPP);
    struct count busy = {.bytes = 9 * MIB, .pins = 4 * MIB, .others = {8 * MIB, -2 * (int)MIB}};
    CHECK_EQ(prove(&busy), 0);
    CHECK_EQ(busy.n_imports, 3);
    struct count storm = {.bytes = 9 * MIB, .pins = 4 * MIB, .others = {1, 2, 3, 4, 5, 6, 7, 8}};
    CHECK_EQ(prove(&storm), -EAGAIN);
    /* what others pin is not taken for ours */
    struct count theirs = {.bytes = 9 * MIB, .others = {8 * MIB}};
    CHECK_EQ(prove(&theirs), -EOPNOTSUPP);
    /* imported already by a gttd before us */
    struct count kept = {.bytes = 9 * MIB, .pins = 4 * MIB, .existed = true};
    CHECK_EQ(prove(&kept), 0);
    CHECK_EQ(kept.n_imports, 2);
    struct count refused = {.import_error = -EINVAL};
    CHECK_EQ(prove(&refused), -EINVAL);
    struct count mute = {.pins = 4 * MIB, .count_error = -EIO};
    CHECK_EQ(prove(&mute), -EIO);
}

static void test_no_anchor(void)
{
    struct anchor anchor;
    uint32_t handle;
    char text[GTTD_TEXT_SIZE];
    int n_fds = count_fds(NULL);
    CHECK_EQ(anchor_open(&anchor, "off", &why), 0);
    CHECK(!anchor_pin(&anchor, 0, 4 * MIB, true, do_count, NULL, &handle));
    anchor_text(&anchor, text);
    CHECK(!strcmp(text, "resident, not pinned: pinning is turned off"));
    CHECK_EQ(anchor_adopt(&anchor, dup(0), &why), -EBADMSG);
    anchor_close(&anchor);
    CHECK_EQ(anchor_open(&anchor, "/dev/null", &why), -ENODEV);
    CHECK(strstr(why.text, "/dev/null"));
    CHECK_EQ(anchor_open(&anchor, "/nonexistent", &why), -ENOENT);
    CHECK_EQ(count_fds(NULL), n_fds);
}

int main(void)
{
    test_choice();
    test_wanted();
    test_proof();
    test_no_anchor();
    return 0;
}
