/* SPDX-License-Identifier: MIT */
/* Accounts and charges, what admission says about them, and amounts as people write them. */
#include <errno.h>

#include "admission.h"
#include "check.h"
#include "quantity.h"

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

static struct limits limits = {.capacity_bytes = 100 * MIB,
                               .quota_bytes = 50 * MIB,
                               .chunks_max = 8,
                               .chunks_per_user = 4};

static struct heap_room room;

static int fixed_room(struct heap *heap, struct heap_room *ret)
{
    (void)heap;
    *ret = room;
    return 0;
}

static const struct heap_ops ops = {.name = "fixed", .room = fixed_room};
static struct heap heap = {.ops = &ops};

/* What admission says to a request when evicting would give this much. */
static int ask(const struct quota *quota, const struct account *account, struct amount want,
               struct amount all, struct amount own, struct reason *why)
{
    struct memory_debt debt = {0};
    struct shortage lack = admission_shortage(&limits, quota, account, &debt, &heap, want);
    return admission_refuse(&limits, account, &lack, want, all, own, why);
}

static const struct amount nothing = {0, 0};

static void test_bytes(const struct quota *quota, const struct account *account,
                       const struct account *other)
{
    struct reason why;
    CHECK_EQ(ask(quota, account, (struct amount){10 * MIB, 1}, nothing, nothing, &why), 0);
    struct amount want = {12 * MIB, 1};
    CHECK_EQ(ask(quota, account, want, (struct amount){90 * MIB, 3}, nothing, &why), -EDQUOT);
    CHECK(!strcmp(why.text, "12 MiB is over this user's quota of 50 MiB by 2 MiB"));
    CHECK_EQ(ask(quota, account, want, (struct amount){2 * MIB, 1}, (struct amount){2 * MIB, 1},
                 &why),
             0);
    limits.quota_bytes = 0;
    CHECK_EQ(ask(quota, other, (struct amount){70 * MIB, 1}, (struct amount){4 * MIB, 1}, nothing,
                 &why),
             -ENOSPC);
    CHECK(strstr(why.text, "capacity of 100 MiB by 6 MiB"));
    limits.floor_bytes = 1ull << 60;
    CHECK_EQ(ask(quota, other, (struct amount){2 * MIB, 1}, nothing, nothing, &why), -ENOMEM);
    CHECK(strstr(why.text, "floor of 1073741824.0 GiB of free RAM, by "));
    limits.floor_bytes = 0;
}

/* A user's own quota, larger, smaller or none, wins over the one for everybody. */
static void test_user_quotas(const struct quota *quota, const struct account *account)
{
    struct reason why;
    struct amount want = {12 * MIB, 1};
    limits.quota_bytes = 20 * MIB;
    limits.user_quotas[0] = (struct user_quota){account->uid, 50 * MIB};
    limits.user_quotas[1] = (struct user_quota){77, 0};
    limits.n_user_quotas = 2;
    CHECK_EQ(limits_quota(&limits, account->uid), 50 * MIB);
    CHECK_EQ(limits_quota(&limits, 77), 0);
    CHECK_EQ(limits_quota(&limits, 78), 20 * MIB);
    CHECK_EQ(ask(quota, account, want, nothing, nothing, &why), -EDQUOT);
    CHECK(strstr(why.text, "quota of 50 MiB by 2 MiB"));
    limits.user_quotas[0].bytes = 0;
    CHECK_EQ(ask(quota, account, want, nothing, nothing, &why), 0);
    limits.n_user_quotas = 0;
    limits.quota_bytes = 0;
}

static void test_counts(const struct quota *quota, const struct account *account,
                        const struct account *other)
{
    struct reason why;
    struct amount one = {2 * MIB, 1}, two = {4 * MIB, 2}, six = {12 * MIB, 6};
    CHECK_EQ(ask(quota, account, one, nothing, nothing, &why), 0);
    CHECK_EQ(ask(quota, account, two, six, nothing, &why), -EDQUOT);
    CHECK(!strcmp(why.text, "2 chunks are over this user's limit of 4 by 1"));
    CHECK_EQ(ask(quota, account, two, one, one, &why), 0); /* by evicting one */
    limits.chunks_per_user = 100;
    CHECK_EQ(ask(quota, other, six, nothing, nothing, &why), -EDQUOT);
    CHECK(!strcmp(why.text, "6 chunks are over gttd's limit of 8 by 1"));
    CHECK_EQ(ask(quota, other, six, one, nothing, &why), 0);
}

/* What a device has left, of which others use some. */
static void test_room(const struct quota *quota, const struct account *account)
{
    const struct amount want = {40 * MIB, 1};
    const struct limits none = {.chunks_max = 100, .chunks_per_user = 100};
    struct memory_debt debt = {0};
    struct reason why;
    room = (struct heap_room){.total_bytes = 100 * MIB, .used_bytes = 60 * MIB};
    struct shortage lack = admission_shortage(&none, quota, account, &debt, &heap, want);
    CHECK_EQ(lack.gtt_bytes, 0);
    debt.unpopulated_bytes = 10 * MIB; /* promised */
    debt.freeing_bytes = 4 * MIB;      /* on its way back */
    lack = admission_shortage(&none, quota, account, &debt, &heap, want);
    CHECK_EQ(lack.gtt_bytes, 6 * MIB);
    CHECK_EQ(admission_refuse(&none, account, &lack, want, nothing, nothing, &why), -ENOSPC);
    CHECK(!strcmp(why.text, "40 MiB is over the GTT total of 100 MiB by 6 MiB"));
    struct amount enough = {6 * MIB, 1};
    CHECK_EQ(admission_refuse(&none, account, &lack, want, enough, nothing, &why), 0);
    room = (struct heap_room){0}; /* no limit */
    lack = admission_shortage(&none, quota, account, &debt, &heap, want);
    CHECK_EQ(lack.gtt_bytes, 0);
}

static void test_refusals(void)
{
    struct quota quota;
    struct charge charge;
    quota_init(&quota);
    struct account *account = quota_get(&quota, 1), *other = quota_get(&quota, 2);
    quota_charge(&quota, account, 40 * MIB, 3, &charge);
    test_bytes(&quota, account, other);
    test_user_quotas(&quota, account);
    test_counts(&quota, account, other);
    test_room(&quota, account);
    charge_release(&charge);
    quota_put(account);
    quota_put(other);
    quota_finish(&quota);
}

/* What is promised is not free any more; what is on its way back is. */
static void test_debt(void)
{
    struct memory_debt debt = {0};
    CHECK(admission_free_ram(&debt) > 0);
    debt.unpopulated_bytes = 1ull << 60;
    CHECK_EQ(admission_free_ram(&debt), 0);
    debt.freeing_bytes = 1ull << 61;
    CHECK(admission_free_ram(&debt) > 1ull << 59);
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

static void test_durations(void)
{
    static const struct {
        const char *text;
        int r;
        uint32_t ms;
    } cases[] = {
        {"150ms", 0, 150},
        {"2s", 0, 2000},
        {"0s", 0, 0},
        {"", -EINVAL, 0},
        {"ms", -EINVAL, 0},
        {"2", -EINVAL, 0},
        {"2m", -EINVAL, 0},
        {"-2s", -EINVAL, 0},
        {" 2s", -EINVAL, 0},
        {"2s ", -EINVAL, 0},
        {"1.5s", -EINVAL, 0},
        {"86400s", -ERANGE, 0},
        {"86399s", 0, 86399000},
        {"99999999999999999999ms", -ERANGE, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t ms = 0;
        CHECK_EQ(duration_parse(cases[i].text, &ms), cases[i].r);
        CHECK_EQ(ms, cases[i].ms);
    }
}

int main(void)
{
    test_charges();
    test_refusals();
    test_debt();
    test_sizes();
    test_durations();
    return 0;
}
