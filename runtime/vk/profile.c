/* SPDX-License-Identifier: MIT */
/* One forward pass with a timestamp after each dispatch, summed up by kernel. */
#include <assert.h>
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
    const struct kernel_time *x = a, *y = b;
    return (x->seconds < y->seconds) - (x->seconds > y->seconds);
}

#define NAMES_MAX 64 /* more than there are */

/* The times between marks, by the name of the later one. */
static int sum_up(struct backend_state *state, struct kernel_time *ret, size_t cap, size_t *ret_n,
                  struct err *err)
{
    const struct vk_marks *marks = state->marks;
    struct kernel_time sums[NAMES_MAX];
    AUTO_FREE double *ns = calloc(marks->n, sizeof *ns);
    if (!ns) {
        return err_set(err, -ENOMEM, "no memory for timestamps");
    }
    int r = vkc_timer_read(state->bm->backend->device, marks->timer, marks->n, err, ns);
    if (r < 0) {
        return r;
    }
    size_t n = 0;
    for (uint32_t i = 1; i < marks->n; i++) {
        size_t k = 0;
        while (k < n && strcmp(sums[k].name, marks->names[i]) != 0) {
            k++;
        }
        assert(k < NAMES_MAX);
        if (k == n) {
            sums[n++] = (struct kernel_time){.name = marks->names[i]};
        }
        sums[k].n++;
        sums[k].seconds += (ns[i] - ns[i - 1]) * 1e-9;
    }
    qsort(sums, n, sizeof *sums, by_seconds);
    *ret_n = n < cap ? n : cap;
    memcpy(ret, sums, *ret_n * sizeof *ret);
    return 0;
}

static int marks_init(struct backend_state *state, struct err *err)
{
    struct vk_marks *marks = calloc(1, sizeof *marks);
    if (!marks) {
        return err_set(err, -ENOMEM, "no memory for a profile");
    }
    int r = vkc_timer_create(state->bm->backend->device, VK_MARKS_MAX, err, &marks->timer);
    if (r < 0) {
        free(marks);
        return r;
    }
    state->marks = marks;
    return 0;
}

static void marks_finish(struct backend_state *state)
{
    vkc_timer_destroy(state->bm->backend->device, state->marks->timer);
    free(state->marks);
    state->marks = NULL;
}

int vk_profile(struct backend_state *state, const int32_t *ids, uint32_t n, uint32_t pos,
               struct kernel_time *ret, size_t cap, size_t *ret_n, struct err *err)
{
    struct vk_recording recording = {0};
    int r = marks_init(state, err);
    if (r < 0) {
        return r;
    }
    r = vk_set_step(state, ids, n, pos, err);
    if (r == 0) {
        r = vk_recording_init(state, vk_batches[vk_batch_index(n)], LOGITS_LAST, NULL, err,
                              &recording);
    }
    if (r == 0) {
        vk_wrote_kv(state, n, pos);
        r = vk_run(state->bm->backend, recording.cmds, recording.n_cmds, err);
    }
    if (r == 0) {
        r = sum_up(state, ret, cap, ret_n, err);
    }
    vk_recording_finish(state, &recording);
    marks_finish(state);
    return r;
}

int vk_decode_profile(struct backend_run *run, struct kernel_time *ret, size_t cap, size_t *ret_n,
                      struct err *err)
{
    const struct vk_recording *usual = run->recording;
    struct vk_recording recording = {0};
    int32_t ids[STEP_ROWS_MAX];
    if (run->collected != run->submitted) {
        return err_set(err, -EBUSY, "steps are in flight");
    }
    int r = marks_init(run->by, err);
    if (r < 0) {
        return r;
    }
    r = vk_recording_init(run->by, run->end.io.n_rows, run->by->kv ? LOGITS_LAST : LOGITS_ALL,
                          &run->end, err, &recording);
    if (r == 0) {
        run->recording = &recording;
        r = vk_decode_submit(run, err);
        run->recording = usual;
    }
    if (r == 0) {
        r = vk_decode_collect(run, ids, err);
    }
    if (r == 0) {
        r = sum_up(run->by, ret, cap, ret_n, err);
    }
    vk_recording_finish(run->by, &recording);
    marks_finish(run->by);
    return r;
}
