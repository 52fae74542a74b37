/* SPDX-License-Identifier: MIT */
/* Accounts and charges, what admission says about them, and sizes on the command line. */
#include <errno.h>

#include "admission.h"
#include "check.h"
#include "options.h"

#define MIB (1ull << 20)

static void test_charges(void)
{
    struct quota quota;
    struct charge a, b;
    quota_init(&quota);
    struct account *account = quota_get(&quota, 1000);
    CHECK(account && quota_get(&quota, 1000) == account);
    quota_put(account);
    CHECK(quota_get(&quota, 1001) != account);
    quota_charge(&quota, account, 4 * MIB, 2, &a);
    quota_charge(&quota, account, 6 * MIB, 1, &b);
    CHECK_EQ(account->bytes, 10 * MIB);
    CHECK_EQ(quota.n_chunks, 3);
    charge_release(&a);
    charge_release(&a);
    CHECK_EQ(quota.bytes, 6 * MIB);
    quota_put(account); /* the charge still holds it */
    CHECK_EQ(account->bytes, 6 * MIB);
    charge_release(&b);
    account = quota_get(&quota, 1001);
    quota_put(account);
    quota_put(account);
    CHECK(list_empty(&quota.accounts));
    quota_finish(&quota);
}

static struct heap_room room;

static int fixed_room(struct heap *heap, struct heap_room *ret)
{
    (void)heap;
    *ret = room;
    return 0;
}

static const struct heap_ops ops = {.name = "fixed", .room = fixed_room};
static struct heap heap = {.ops = &ops};

/* What a device has left, of which others use some. */
static void test_room(struct quota *quota, const struct account *account)
{
    const struct limits none = {0};
    struct memory_debt debt = {0};
    struct shortage lack;
    struct reason why;
    room = (struct heap_room){.total_bytes = 100 * MIB, .used_bytes = 60 * MIB};
    admission_shortage(&none, quota, account, &debt, &heap, 40 * MIB, &lack);
    CHECK_EQ(lack.gtt_bytes, 0);
    debt.unpopulated_bytes = 10 * MIB; /* promised */
    debt.freeing_bytes = 4 * MIB;      /* on its way back */
    admission_shortage(&none, quota, account, &debt, &heap, 40 * MIB, &lack);
    CHECK_EQ(lack.gtt_bytes, 6 * MIB);
    CHECK_EQ(admission_refuse(&none, &lack, 40 * MIB, 0, 0, &why), -ENOSPC);
    CHECK(!strcmp(why.text, "40 MiB is over the GTT total of 100 MiB by 6 MiB"));
    CHECK_EQ(admission_refuse(&none, &lack, 40 * MIB, 6 * MIB, 0, &why), 0);
    room = (struct heap_room){0}; /* no limit */
    admission_shortage(&none, quota, account, &debt, &heap, 40 * MIB, &lack);
    CHECK_EQ(lack.gtt_bytes, 0);
}

static void test_refusals(void)
{
    struct quota quota;
    struct charge charge;
    struct memory_debt debt = {0};
    struct shortage lack;
    struct reason why;
    struct limits limits = {.capacity_bytes = 100 * MIB,
                            .quota_bytes = 50 * MIB,
                            .chunks_max = 8,
                            .chunks_per_user = 4};
    quota_init(&quota);
    struct account *account = quota_get(&quota, 1), *other = quota_get(&quota, 2);
    quota_charge(&quota, account, 40 * MIB, 3, &charge);
    admission_shortage(&limits, &quota, account, &debt, &heap, 10 * MIB, &lack);
    CHECK_EQ(lack.quota_bytes, 0);
    CHECK_EQ(lack.capacity_bytes, 0);
    CHECK_EQ(admission_refuse(&limits, &lack, 10 * MIB, 0, 0, &why), 0);
    admission_shortage(&limits, &quota, account, &debt, &heap, 12 * MIB, &lack);
    CHECK_EQ(lack.quota_bytes, 2 * MIB);
    CHECK_EQ(admission_refuse(&limits, &lack, 12 * MIB, 90 * MIB, 0, &why), -EDQUOT);
    CHECK(!strcmp(why.text, "12 MiB is over this user's quota of 50 MiB by 2 MiB"));
    CHECK_EQ(admission_refuse(&limits, &lack, 12 * MIB, 2 * MIB, 2 * MIB, &why), 0);
    limits.quota_bytes = 0;
    admission_shortage(&limits, &quota, other, &debt, &heap, 70 * MIB, &lack);
    CHECK_EQ(admission_refuse(&limits, &lack, 70 * MIB, 4 * MIB, 0, &why), -ENOSPC);
    CHECK(strstr(why.text, "capacity of 100 MiB by 6 MiB"));
    /* what is promised is not free any more; what is on its way back is */
    uint64_t free_bytes = admission_free_ram(&debt);
    CHECK(free_bytes > 0);
    debt.unpopulated_bytes = 1ull << 60;
    CHECK_EQ(admission_free_ram(&debt), 0);
    debt.freeing_bytes = 1ull << 61;
    CHECK(admission_free_ram(&debt) > 1ull << 59);
    test_room(&quota, account);
    CHECK_EQ(admission_count(&limits, &quota, account, 1, &why), 0);
    CHECK_EQ(admission_count(&limits, &quota, account, 2, &why), -EDQUOT);
    limits.chunks_per_user = 100;
    CHECK_EQ(admission_count(&limits, &quota, other, 6, &why), -EDQUOT);
    charge_release(&charge);
    quota_put(account);
    quota_put(other);
    quota_finish(&quota);
}

static void test_sizes(void)
{
    static const struct {
        const char *text;
        int r;
        uint64_t bytes;
    } cases[] = {
        {"0", 0, 0},
        {"1048576", 0, MIB},
        {"512M", 0, 512 * MIB},
        {"20G", 0, 20480 * MIB},
        {"1.5G", 0, 1536 * MIB},
        {"2GiB", 0, 2048 * MIB},
        {"1KB", 0, 1024},
        {"1T", 0, 1048576 * MIB},
        {"", -EINVAL, 0},
        {"G", -EINVAL, 0},
        {"-1G", -EINVAL, 0},
        {"+1G", -EINVAL, 0},
        {" 1G", -EINVAL, 0},
        {"1Gx", -EINVAL, 0},
        {"1GG", -EINVAL, 0},
        {"inf", -EINVAL, 0},
        {"nan", -EINVAL, 0},
        {"99999999T", -ERANGE, 0},
        {"1e99", -ERANGE, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t bytes = 0;
        CHECK_EQ(size_parse(cases[i].text, &bytes), cases[i].r);
        CHECK_EQ(bytes, cases[i].bytes);
    }
}

int main(void)
{
    test_charges();
    test_refusals();
    test_sizes();
    return 0;
}
