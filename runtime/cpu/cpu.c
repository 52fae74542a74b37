/* SPDX-License-Identifier: MIT */
/* cpu_backend: opening it, binding models. What it computes is in forward.c, with what in kernels.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu_internal.h"

/* "model name" of /proc/cpuinfo; "CPU" where there is none (ARM). */
static void cpu_model_name(char *ret, size_t size)
{
    snprintf(ret, size, "CPU");
    FILE *file = fopen("/proc/cpuinfo", "re");
    if (!file) {
        return;
    }
    char line[256];
    while (fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (colon && strncmp(line, "model name", 10) == 0) {
            colon += strspn(colon, ": \t");
            colon[strcspn(colon, "\n")] = '\0';
            snprintf(ret, size, "%s", colon);
            break;
        }
    }
    fclose(file);
}

static void cpu_close(struct backend *backend)
{
    if (!backend) {
        return;
    }
    pool_destroy(backend->pool);
    free(backend);
}

static int cpu_open(const struct backend_params *params, struct err *err, struct backend **ret)
{
    struct backend *backend = calloc(1, sizeof *backend);
    if (!backend) {
        return err_set(err, -ENOMEM, "cpu: out of memory");
    }
    char name[160];
    cpu_model_name(name, sizeof name);
    if (params->device && strcmp(params->device, "0") != 0 && !strstr(name, params->device)) {
        cpu_close(backend);
        return err_set(err, -ENODEV, "cpu: no device matches \"%s\"; there is only \"%s\"",
                       params->device, name);
    }
    backend->kernels = cpu_isa_kernels(cpu_isa_forced());
    if (!backend->kernels) {
        cpu_close(backend);
        return err_set(err, -ENODEV, "cpu: %s lacks the instructions asked for", name);
    }
    int r = pool_create(params->n_threads, err, &backend->pool);
    if (r < 0) {
        cpu_close(backend);
        return err_prefix(err, r, "cpu");
    }
    uint32_t n_threads = pool_n_threads(backend->pool);
    snprintf(backend->device, sizeof backend->device, "%s (%s, %u thread%s)", name,
             backend->kernels->name, n_threads, n_threads == 1 ? "" : "s");
    *ret = backend;
    return 0;
}

static void cpu_info(const struct backend *backend, struct backend_info *ret)
{
    *ret = (struct backend_info){.backend = "cpu",
                                 .max_batch = CPU_MAX_BATCH,
                                 .max_sequences = CPU_MAX_SEQUENCES};
    memcpy(ret->device, backend->device, sizeof ret->device);
}

static void cpu_unbind(struct backend_model *bm)
{
    if (!bm) {
        return;
    }
    free(bm->inv_freq);
    free(bm);
}

/* Weights are read where they lie, never copied or rearranged: other processes share them. */
static int cpu_bind(struct backend *backend, const struct model *model, struct err *err,
                    struct backend_model **ret, enum weight_path *ret_path)
{
    const struct model_config *c = &model->config;
    uint32_t half = c->head_dim / 2;
    struct backend_model *bm = calloc(1, sizeof *bm);
    if (!bm) {
        return err_set(err, -ENOMEM, "cpu: out of memory");
    }
    bm->backend = backend;
    bm->model = model;
    bm->inv_freq = calloc((size_t)2 * half, sizeof *bm->inv_freq);
    if (!bm->inv_freq) {
        cpu_unbind(bm);
        return err_set(err, -ENOMEM, "cpu: out of memory");
    }
    for (uint32_t i = 0; i < half; i++) {
        double exponent = -2.0 * i / c->head_dim;
        bm->inv_freq[i] = pow(c->rope_theta_local, exponent);
        bm->inv_freq[half + i] = pow(c->rope_theta_global, exponent) / c->rope_factor_global;
    }
    *ret = bm;
    *ret_path = WEIGHT_PATH_ADOPTED;
    return 0;
}

const struct backend_ops cpu_backend = {
    .name = "cpu",
    .open = cpu_open,
    .close = cpu_close,
    .info = cpu_info,
    .bind = cpu_bind,
    .unbind = cpu_unbind,
    .state_create = cpu_state_create,
    .state_destroy = cpu_state_destroy,
    .forward = cpu_forward,
    .forward_many = cpu_forward_many,
    .op = cpu_op,
};
