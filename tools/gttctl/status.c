/* SPDX-License-Identifier: MIT */
/* gttctl status: heap, pool, limits, what holds the memory and what a restart does to it. */
#include <stdio.h>

#include "format.h"
#include "gttctl.h"

/* 0 means that there is no such limit. */
static json_t *limit_json(uint64_t bytes)
{
    return bytes ? json_integer((json_int_t)bytes) : json_null();
}

static json_t *gtt_json(const struct gtt_status *s)
{
    if (!s->gtt_total_bytes) {
        return json_null();
    }
    return json_pack("{s:I, s:I, s:I}", "total_bytes", (json_int_t)s->gtt_total_bytes,
                     "usable_bytes", (json_int_t)s->gtt_usable_bytes, "used_bytes",
                     (json_int_t)s->gtt_used_bytes);
}

/* Devices' own memory: in none of the other numbers. */
static json_t *adopted_json(const struct gtt_status *s)
{
    return json_pack("{s:b, s:I, s:I, s:I, s:o}", "allowed", (int)s->adopts, "segments",
                     (json_int_t)s->n_adopted, "bytes", (json_int_t)s->adopted_bytes, "user_bytes",
                     (json_int_t)s->adopted_user_bytes, "quota_bytes",
                     limit_json(s->adopted_quota_bytes));
}

static json_t *status_json(const struct gtt_info *info, const struct gtt_status *s)
{
    return json_pack(
        "{s:s, s:s, s:{s:s, s:s, s:b, s:I}, s:{s:o, s:I, s:I}, s:{s:I, s:s}, s:o, s:{s:I, s:I}, "
        "s:{s:I, s:o}, s:{s:I, s:I, s:I, s:I, s:I, s:I}, s:b, s:b, s:s, s:o}",
        "version", info->daemon_version, "socket", info->socket_path, "heap", "name", info->heap,
        "device", s->device, "dma_buf", (int)info->is_dmabuf, "chunk_max_bytes",
        (json_int_t)info->chunk_max_bytes, "pool", "capacity_bytes", limit_json(s->capacity_bytes),
        "used_bytes", (json_int_t)s->used_bytes, "ballast_bytes", (json_int_t)s->ballast_bytes,
        "pin", "pinned_bytes", (json_int_t)s->pinned_bytes, "why", s->pin, "gtt", gtt_json(s),
        "ram", "free_bytes", (json_int_t)s->free_ram_bytes, "floor_bytes",
        (json_int_t)s->floor_bytes, "user", "used_bytes", (json_int_t)s->user_bytes, "quota_bytes",
        limit_json(s->quota_bytes), "counts", "clients", (json_int_t)s->n_clients, "segments",
        (json_int_t)s->n_segments, "sealed", (json_int_t)s->n_sealed, "leases",
        (json_int_t)s->n_leases, "waiters", (json_int_t)s->n_waiters, "evictions",
        (json_int_t)s->n_evictions, "restart_loses_pool", (int)info->restart_loses_pool,
        "pressure_watched", (int)s->pressure_watched, "share", s->share_group ? "group" : "user",
        "adopted", adopted_json(s));
}

static void print_pool(const struct gtt_status *s)
{
    char used[TEXT_MAX], capacity[TEXT_MAX], ballast[TEXT_MAX], pinned[TEXT_MAX];
    printf("pool      %s used", size_text(s->used_bytes, used));
    if (s->capacity_bytes) {
        printf(" of %s", size_text(s->capacity_bytes, capacity));
    } else {
        printf(", no limit of its own");
    }
    if (s->ballast_bytes) {
        printf("; %s reserved ahead", size_text(s->ballast_bytes, ballast));
    }
    printf("\npinned    %s\n", size_text(s->pinned_bytes, pinned));
    if (s->pin[0]) {
        printf("          %s\n", s->pin);
    }
}

static void print_limits(const struct gtt_status *s)
{
    char a[TEXT_MAX], b[TEXT_MAX], c[TEXT_MAX];
    if (s->gtt_total_bytes) {
        printf("GTT       %s used by all, of %s; %s not pinned\n", size_text(s->gtt_used_bytes, a),
               size_text(s->gtt_total_bytes, b), size_text(s->gtt_usable_bytes, c));
    }
    printf("RAM       %s free, %s of it stays free\n", size_text(s->free_ram_bytes, a),
           size_text(s->floor_bytes, b));
    printf("pressure  %s\n", s->pressure_watched ? "evicts what nobody uses, below that"
                                                 : "is not watched, the log says why");
    printf("you       %s used", size_text(s->user_bytes, a));
    if (s->quota_bytes) {
        printf(" of a quota of %s\n", size_text(s->quota_bytes, b));
    } else {
        printf(", no quota\n");
    }
}

/* Said apart from all else: it is no RAM. */
static void print_adopted(const struct gtt_status *s)
{
    char all[TEXT_MAX], own[TEXT_MAX], quota[TEXT_MAX];
    printf("adopted   %s of GPUs' own memory, %s of it yours", size_text(s->adopted_bytes, all),
           size_text(s->adopted_user_bytes, own));
    if (!s->adopts) {
        printf("; no more: adopt = off\n");
    } else if (s->adopted_quota_bytes) {
        printf(", at most %s\n", size_text(s->adopted_quota_bytes, quota));
    } else {
        printf(", no limit\n");
    }
}

static void print_status(const struct gtt_info *info, const struct gtt_status *s)
{
    char chunk[TEXT_MAX];
    printf("gttd %s on %s\n", info->daemon_version, info->socket_path);
    printf("heap      %s, %s of at most %s\n", info->heap, info->is_dmabuf ? "dma-bufs" : "memfds",
           size_text(info->chunk_max_bytes, chunk));
    if (s->device[0]) {
        printf("device    %s\n", s->device);
    }
    print_pool(s);
    print_limits(s);
    print_adopted(s);
    printf("segments  %u, %u sealed; %u leases, %u waiting; %llu evicted\n", s->n_segments,
           s->n_sealed, s->n_leases, s->n_waiters, (unsigned long long)s->n_evictions);
    printf("clients   %u\n", s->n_clients);
    printf("share     %s\n", s->share_group ? "group: users open each other's segments" : "user");
    printf("restart   %s\n", info->restart_loses_pool
                                 ? "loses what is sealed: no service manager keeps it"
                                 : "keeps what is sealed: the service manager holds it");
}

int cmd_status(int argc, char **argv)
{
    struct common_options options;
    struct gtt_info info;
    struct gtt_status status;
    parse_common("Say where gttd's memory comes from, how much there is, and its limits.", argc,
                 argv, &options);
    struct gtt *gtt = connect_gttd(&options);
    if (!gtt) {
        return EXIT_FAILED;
    }
    int code = EXIT_OK;
    gtt_get_info(gtt, &info);
    if (gtt_status(gtt, &status) < 0) {
        code = complain("status: %s", gtt_last_error(gtt));
    } else if (options.json) {
        code = print_json(status_json(&info, &status));
    } else {
        print_status(&info, &status);
    }
    gtt_disconnect(gtt);
    return code;
}
