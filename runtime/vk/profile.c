/* SPDX-License-Identifier: MIT */
/* One forward pass with a timestamp after each dispatch, summed up by kernel. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gttd_util.h"
#include "vk.h"

void vk_mark(struct backend_state *state, VkCommandBuffer cmd, const char *name)
{
    struct vk_marks *marks = state->marks;
    if (!marks || marks->n == VK_MARKS_MAX) {
        return;
    }
    struct vkc_device *device = state->bm->backend->device;
    if (marks->n == 0) {
        vkc_timer_reset(device, cmd, marks->timer, VK_MARKS_MAX);
    }
    vkc_timer_write(device, cmd, marks->timer, marks->n);
    marks->names[marks->n++] = name;
}

static int by_seconds(const void *a, const void *b)
{
    const struct backend_kernel_time *x = a, *y = b;
    return (x->seconds < y->seconds) - (x->seconds > y->seconds);
}

/* The times between marks, by the name of the later one. */
static int sum_up(struct backend_state *state, struct backend_kernel_time *ret, size_t cap,
                  size_t *ret_n, struct err *err)
{
    const struct vk_marks *marks = state->marks;
    AUTO_FREE double *ns = calloc(marks->n, sizeof *ns);
    if (!ns) {
        return err_set(err, -ENOMEM, "no memory for timestamps");
    }
    int r = vkc_timer_read(state->bm->backend->device, marks->timer, marks->n, err, ns);
    size_t n = 0;
    for (uint32_t i = 1; i < marks->n && r == 0; i++) {
        size_t k = 0;
        while (k < n && strcmp(ret[k].name, marks->names[i]) != 0) {
            k++;
        }
        if (k == n && n == cap) {
            continue;
        }
        if (k == n) {
            ret[n++] = (struct backend_kernel_time){.name = marks->names[i]};
        }
        ret[k].n++;
        ret[k].seconds += (ns[i] - ns[i - 1]) * 1e-9;
    }
    qsort(ret, n, sizeof *ret, by_seconds);
    *ret_n = n;
    return r;
}

/* Write the step, and record its pass with the marks. */
static int prepare(struct backend_state *state, const int32_t *ids, uint32_t n, uint32_t pos,
                   const struct backend_sampling *sampling, struct err *err,
                   struct vk_recording *ret)
{
    struct vk_step_end end;
    int r = vk_set_step(state, ids, n, pos, err);
    if (r == 0 && sampling) {
        const struct backend_decode from = {.id = ids[0], .pos = pos, .sampling = sampling};
        r = n == 1 ? vk_step_begin(state, &from, err, &end)
                   : err_set(err, -EINVAL, "a draw after %u tokens: after one only", n);
    }
    return r < 0 ? r
                 : vk_recording_init(state, vk_batches[vk_batch_index(n)], LOGITS_LAST,
                                     sampling ? &end : NULL, err, ret);
}

int vk_profile(struct backend_state *state, const int32_t *ids, uint32_t n, uint32_t pos,
               const struct backend_sampling *sampling, struct backend_kernel_time *ret, size_t cap,
               size_t *ret_n, struct err *err)
{
    struct backend *backend = state->bm->backend;
    struct vk_recording recording = {0};
    AUTO_FREE struct vk_marks *marks = calloc(1, sizeof *marks);
    if (!marks) {
        return err_set(err, -ENOMEM, "no memory for a profile");
    }
    int r = vkc_timer_create(backend->device, VK_MARKS_MAX, err, &marks->timer);
    if (r < 0) {
        return r;
    }
    state->marks = marks;
    r = prepare(state, ids, n, pos, sampling, err, &recording);
    if (r == 0) {
        vk_wrote_kv(state, n, pos);
        r = vk_run(backend, recording.cmds, recording.n_cmds, err);
    }
    if (r == 0) {
        r = sum_up(state, ret, cap, ret_n, err);
    }
    state->marks = NULL;
    vk_recording_finish(state, &recording);
    vkc_timer_destroy(backend->device, marks->timer);
    return r;
}
