/* SPDX-License-Identifier: MIT */
/* gttrun devices: what Vulkan has here, how each device would reach weights, and what was measured
 * to choose between kernels. */
#include "gttrun.h"
#include "report.h"
#include "vk_devices.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OPT_TUNING = 512, OPT_FORGET };

struct devices_options {
    bool json;
    bool tuning;
    bool forget;
};

static const struct argp_option devices_arg_options[] = {
    {"json", 'j', NULL, 0, "print one JSON object", 0},
    {"tuning", OPT_TUNING, NULL, 0, "show what was measured on each to choose between kernels", 0},
    {"forget-tuning", OPT_FORGET, NULL, 0, "remove that: the next start measures again", 0},
    {0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct devices_options *o = state->input;
    (void)arg;
    switch (key) {
    case 'j':
        o->json = true;
        break;
    case OPT_TUNING:
        o->tuning = true;
        break;
    case OPT_FORGET:
        o->forget = true;
        break;
    case ARGP_KEY_END:
        if (o->json + o->tuning + o->forget > 1) {
            argp_error(state, "only one of --json, --tuning and --forget-tuning");
        }
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp devices_argp = {
    .options = devices_arg_options,
    .parser = parse_option,
    .doc = "List the Vulkan devices and the memory path each would use, and why.",
};

static json_t *path_json(enum weight_path path, const char *why)
{
    return json_pack("{s:s, s:s}", "path", weight_path_text(path), "why", why);
}

static json_t *device_json(const struct vk_device_desc *d, size_t index)
{
    char version[48], uuid[33];
    json_t *heaps = json_array();
    snprintf(version, sizeof version, "%u.%u.%u", d->api_major, d->api_minor, d->api_patch);
    for (size_t i = 0; i < sizeof d->uuid; i++) {
        snprintf(uuid + 2 * i, 3, "%02x", d->uuid[i]);
    }
    for (uint32_t i = 0; heaps && i < d->n_heaps; i++) {
        json_array_append_new(heaps,
                              json_pack("{s:I, s:b}", "bytes", (json_int_t)d->heaps[i].size_bytes,
                                        "device_local", (int)d->heaps[i].device_local));
    }
    return json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:i, s:o, s:o, s:o, s:{s:b, s:s}, s:b, s:s}",
                     "index", (int)index, "name", d->name, "type", d->type, "driver", d->driver,
                     "api", version, "uuid", uuid, "subgroup_size", (int)d->subgroup_size, "heaps",
                     heaps, "dma_buf_weights", path_json(d->dmabuf_path, d->dmabuf_why),
                     "plain_weights", path_json(d->plain_path, d->plain_why), "kept_copy", "can",
                     !d->copy_dies_because, "why", d->copy_dies_because ? d->copy_dies_because : "",
                     "usable", d->missing[0] == '\0', "missing", d->missing);
}

static int print_json(const struct vk_device_desc *devices, size_t n, const char *why_none,
                      struct err *err)
{
    json_t *array = json_array();
    for (size_t i = 0; array && i < n; i++) {
        json_array_append_new(array, device_json(&devices[i], i));
    }
    return report_print(json_pack("{s:o, s:s, s:s}", "vulkan", array, "vulkan_error", why_none,
                                  "npu", "not supported by this version"),
                        err);
}

static void print_text(const struct vk_device_desc *devices, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct vk_device_desc *d = &devices[i];
        printf("%zu: %s (%s), %s, Vulkan %u.%u.%u, subgroups of %u\n", i, d->name, d->type,
               d->driver, d->api_major, d->api_minor, d->api_patch, d->subgroup_size);
        for (uint32_t h = 0; h < d->n_heaps; h++) {
            printf("   heap of %.1f GB%s\n", (double)d->heaps[h].size_bytes * 1e-9,
                   d->heaps[h].device_local ? ", device-local" : "");
        }
        if (d->missing[0]) {
            printf("   cannot be used: %s\n", d->missing);
            continue;
        }
        printf("   weights in dma-bufs: %s (%s)\n", weight_path_text(d->dmabuf_path),
               d->dmabuf_why);
        printf("   weights in plain memory: %s (%s)\n", weight_path_text(d->plain_path),
               d->plain_why);
        printf("   a copy on the device %s%s%s\n",
               d->copy_dies_because ? "ends with the process (" : "can outlive the process in gttd",
               d->copy_dies_because ? d->copy_dies_because : "", d->copy_dies_because ? ")" : "");
    }
}

/* What an earlier start has written: our own text, but from a file, so only what can be printed. */
static int print_file(const char *path, struct err *err)
{
    FILE *f = fopen(path, "re");
    if (!f) {
        int r = -errno;
        if (r == -ENOENT) {
            puts("   nothing was measured");
            return 0;
        }
        return err_set(err, r, "%s: cannot open: %s", path, strerror(-r));
    }
    printf("   %s\n", path);
    char line[512];
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        for (char *c = line; *c; c++) {
            *c = *c >= ' ' && *c <= '~' ? *c : '?';
        }
        printf("   %s\n", line);
    }
    fclose(f);
    return 0;
}

static int remove_file(const char *path, struct err *err)
{
    if (unlink(path) == 0) {
        printf("   removed %s\n", path);
    } else if (errno != ENOENT) {
        int r = -errno;
        return err_set(err, r, "%s: cannot be removed: %s", path, strerror(-r));
    } else {
        puts("   nothing was measured");
    }
    return 0;
}

static int tuning(const struct vk_device_desc *devices, size_t n, bool forget, struct err *err)
{
    char dir[512], path[600];
    find_cache_dir(dir, sizeof dir);
    if (!dir[0]) {
        return err_set(err, -ENOENT, "neither XDG_CACHE_HOME nor HOME: nothing is kept");
    }
    int r = 0;
    for (size_t i = 0; i < n && r == 0; i++) {
        printf("%zu: %s, %s\n", i, devices[i].name, devices[i].driver);
        snprintf(path, sizeof path, "%s/%s", dir, devices[i].tuned_name);
        r = forget ? remove_file(path, err) : print_file(path, err);
    }
    return r;
}

int cmd_devices(int argc, char **argv)
{
    struct devices_options o = {0};
    struct vk_device_desc *devices = NULL;
    struct err err = {{0}};
    size_t n = 0;
    parse_args(&devices_argp, argc, argv, &o);
    int r = vk_devices_list(&err, &devices, &n);
    if (r == 0 && (o.tuning || o.forget)) {
        r = tuning(devices, n, o.forget, &err);
    } else if (r == 0 && !o.json) {
        print_text(devices, n);
    } else if (o.json && (r == 0 || r == -ENODEV)) {
        /* no device is an answer too, and says why */
        r = print_json(devices, n, r < 0 ? err.text : "", &err);
    }
    free(devices);
    if (r < 0) {
        complain("%s", err.text);
        return EXIT_FAILED;
    }
    return EXIT_OK;
}
