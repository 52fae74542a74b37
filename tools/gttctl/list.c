/* SPDX-License-Identifier: MIT */
/* gttctl list: the segments, one a line. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "format.h"
#include "gttctl.h"

/* What is left for the name of 80 columns when the others have theirs. */
#define OTHER_COLUMNS 66
#define NAME_MIN      14

static int name_width(void)
{
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col < OTHER_COLUMNS + NAME_MIN) {
        return NAME_MIN;
    }
    int width = size.ws_col - OTHER_COLUMNS;
    return width > 64 ? 64 : width;
}

/* null: it is not device memory. */
static json_t *device_json(const struct gtt_entry *e)
{
    char device_uuid[TEXT_MAX], driver_uuid[TEXT_MAX];
    return e->adopted ? json_pack("{s:s, s:s, s:s}", "name", e->device.name, "device_uuid",
                                  hex_text(e->device.device_uuid, GTT_UUID_SIZE, device_uuid),
                                  "driver_uuid",
                                  hex_text(e->device.driver_uuid, GTT_UUID_SIZE, driver_uuid))
                      : json_null();
}

static json_t *entry_json(const struct gtt_info *info, const struct gtt_entry *e)
{
    char hold[TEXT_MAX], digest[2 * GTT_DIGEST_SIZE + 1] = "";
    for (int i = 0; e->state == GTT_SEALED && i < GTT_DIGEST_SIZE; i++) {
        snprintf(digest + 2 * i, 3, "%02x", e->digest[i]);
    }
    return json_pack("{s:I, s:s, s:I, s:I, s:I, s:s, s:s, s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:s, "
                     "s:s, s:b, s:b, s:o}",
                     "id", (json_int_t)e->id, "name", e->name, "size_bytes",
                     (json_int_t)e->size_bytes, "chunk_bytes", (json_int_t)e->chunk_bytes,
                     "pinned_bytes", (json_int_t)e->pinned_bytes, "hold", hold_text(info, e, hold),
                     "state", state_text(e->state), "immutable", (int)e->immutable,
                     "write_combined", (int)e->write_combined, "leases", (json_int_t)e->n_leases,
                     "waiters", (json_int_t)e->n_waiters, "idle_ms", (json_int_t)e->idle_ms, "uid",
                     (json_int_t)e->uid, "pid", (json_int_t)e->pid, "label", e->label, "digest",
                     digest, "kept", (int)e->kept, "adopted", (int)e->adopted, "device",
                     device_json(e));
}

static void print_entry(const struct gtt_info *info, const struct gtt_entry *e, int width)
{
    char name[GTT_NAME_MAX + 1], size[TEXT_MAX], hold[TEXT_MAX], idle[TEXT_MAX] = "-";
    char user[TEXT_MAX], owner[GTT_NAME_MAX + 1], digest[TEXT_MAX] = "-";
    if (e->n_leases == 0 && e->state == GTT_SEALED) {
        age_text(e->idle_ms, idle);
    }
    if (e->state == GTT_SEALED) {
        hex_text(e->digest, 4, digest);
    }
    printf("%4llu %-*s %9s %-10s %-9s %4u %6s %-8s %s\n", (unsigned long long)e->id, width,
           cut_text(e->name[0] ? e->name : "-", width, name), size_text(e->size_bytes, size),
           state_text(e->state), hold_text(info, e, hold), e->n_leases, idle,
           cut_text(user_text(e->uid, user), 8, owner), digest);
    if (e->adopted) {
        printf("     in the memory of %s\n", cut_text(e->device.name, 58, name));
    }
}

static int print_table(struct gtt *gtt, const struct gtt_info *info)
{
    struct gtt_entry entry;
    uint64_t cursor = 0, total_bytes = 0, device_bytes = 0;
    unsigned n = 0;
    int r, width = name_width();
    while ((r = gtt_list(gtt, &cursor, &entry)) > 0) {
        if (n++ == 0) {
            printf("%4s %-*s %9s %-10s %-9s %4s %6s %-8s %s\n", "ID", width, "NAME", "SIZE",
                   "STATE", "HELD", "OPEN", "IDLE", "OWNER", "DIGEST");
        }
        print_entry(info, &entry, width);
        *(entry.adopted ? &device_bytes : &total_bytes) += entry.size_bytes;
    }
    char size[TEXT_MAX], device[TEXT_MAX];
    if (r == 0) {
        printf("%u %s, %s", n, n == 1 ? "segment" : "segments", size_text(total_bytes, size));
        printf(device_bytes ? "; and %s of device memory\n" : "\n",
               size_text(device_bytes, device));
    }
    return r;
}

/* One array; out of memory is what a NULL in it says. */
static int list_json(struct gtt *gtt, const struct gtt_info *info, json_t **ret)
{
    struct gtt_entry entry;
    uint64_t cursor = 0;
    int r;
    json_t *array = json_array();
    while ((r = gtt_list(gtt, &cursor, &entry)) > 0) {
        if (json_array_append_new(array, entry_json(info, &entry)) < 0) {
            json_decref(array);
            array = NULL;
        }
    }
    *ret = array;
    return r;
}

int cmd_list(int argc, char **argv)
{
    struct common_options options;
    struct gtt_info info;
    json_t *array = NULL;
    parse_common("List the segments gttd holds for you; root sees everybody's.", argc, argv,
                 &options);
    struct gtt *gtt = connect_gttd(&options);
    if (!gtt) {
        return EXIT_FAILED;
    }
    gtt_get_info(gtt, &info);
    int r = options.json ? list_json(gtt, &info, &array) : print_table(gtt, &info);
    int code = EXIT_OK;
    if (r < 0) {
        code = complain("list: %s", gtt_last_error(gtt));
        json_decref(array);
    } else if (options.json) {
        code = print_json(array);
    }
    gtt_disconnect(gtt);
    return code;
}
