/* SPDX-License-Identifier: MIT */
/*
 * Who holds how much: an account per uid and the sum over all. A charge lives in the object it pays
 * for and is given back with it. Whether a charge may be made is admission.h's business.
 */
#ifndef GTTD_QUOTA_H
#define GTTD_QUOTA_H

#include <stdint.h>
#include <sys/types.h>

#include "list.h"

struct account {
    struct list link; /* quota::accounts */
    uid_t uid;
    uint32_t n_refs; /* charges, clients and segments that point here */
    uint32_t n_clients;
    uint32_t n_segments;
    uint32_t n_chunks;
    uint64_t bytes;
};

struct quota {
    struct list accounts; /* struct account */
    uint64_t bytes;       /* the accounts' sums */
    uint32_t n_chunks;
};

struct charge {
    struct quota *quota; /* NULL: nothing charged */
    struct account *account;
    uint64_t bytes;
    uint32_t n_chunks;
};

void quota_init(struct quota *quota);
void quota_finish(struct quota *quota); /* every account must have been given back */

/* The account of a uid, made if it is the first use. Give back with quota_put(). NULL: no memory.
 */
struct account *quota_get(struct quota *quota, uid_t uid);
void quota_put(struct account *account);

/* The account of a uid, if there is one; borrowed. */
const struct account *quota_find(const struct quota *quota, uid_t uid);

/* Cannot fail: whether there is room has been decided before. */
void quota_charge(struct quota *quota, struct account *account, uint64_t bytes, uint32_t n_chunks,
                  struct charge *ret);
void charge_release(struct charge *charge); /* once is enough, twice does no harm */

#endif
