/* SPDX-License-Identifier: MIT */
/* Accounts and charges: see quota.h. */
#include "quota.h"

#include <assert.h>
#include <stdlib.h>

void quota_init(struct quota *quota)
{
    *quota = (struct quota){0};
    list_init(&quota->accounts);
}

void quota_finish(struct quota *quota)
{
    assert(list_empty(&quota->accounts) && quota->bytes == 0 && quota->n_chunks == 0);
    (void)quota;
}

struct account *quota_get(struct quota *quota, uid_t uid)
{
    list_for_each(pos, &quota->accounts)
    {
        struct account *account = list_entry(pos, struct account, link);
        if (account->uid == uid) {
            account->n_refs++;
            return account;
        }
    }
    struct account *account = calloc(1, sizeof *account);
    if (account) {
        account->uid = uid;
        account->n_refs = 1;
        list_append(&quota->accounts, &account->link);
    }
    return account;
}

const struct account *quota_find(const struct quota *quota, uid_t uid)
{
    list_for_each(pos, &quota->accounts)
    {
        const struct account *account = list_entry(pos, struct account, link);
        if (account->uid == uid) {
            return account;
        }
    }
    return NULL;
}

void quota_put(struct account *account)
{
    if (account && --account->n_refs == 0) {
        assert(account->bytes == 0 && account->n_chunks == 0);
        list_remove(&account->link);
        free(account);
    }
}

void quota_charge(struct quota *quota, struct account *account, uint64_t bytes, uint32_t n_chunks,
                  struct charge *ret)
{
    account->n_refs++;
    account->bytes += bytes;
    account->n_chunks += n_chunks;
    quota->bytes += bytes;
    quota->n_chunks += n_chunks;
    *ret = (struct charge){quota, account, bytes, n_chunks};
}

void charge_release(struct charge *charge)
{
    if (!charge->quota) {
        return;
    }
    charge->quota->bytes -= charge->bytes;
    charge->quota->n_chunks -= charge->n_chunks;
    charge->account->bytes -= charge->bytes;
    charge->account->n_chunks -= charge->n_chunks;
    quota_put(charge->account);
    *charge = (struct charge){0};
}
