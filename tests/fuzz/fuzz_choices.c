/* SPDX-License-Identifier: MIT */
/* The file of what was measured on a device, any bytes: what is kept can run there. */
#include <stdint.h>
#include <stdlib.h>

#include "vk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool x)
{
    if (!x) {
        abort();
    }
}

static void require_choices(const struct backend *backend)
{
    const struct vkc_physical *physical = &backend->device->physical;
    for (uint32_t i = 0; i < backend->n_choices; i++) {
        const struct vk_gemv_tuning *t = &backend->choices[i].tuning;
        require(t->wg % physical->subgroup_size == 0 && t->wg > 0 && t->wg <= 1024);
        require(t->lanes > 0 && physical->subgroup_size % t->lanes == 0);
        require(backend->choices[i].shape.units % t->rows == 0);
    }
    for (uint32_t i = 0; i < backend->n_layers_choices; i++) {
        const struct vk_layers_choice *c = &backend->layers_choices[i];
        if (c->plan_us == 0) { /* nothing was better than what there is */
            continue;
        }
        require(c->plan.groups > 0 && c->plan.groups <= physical->compute_units);
        for (int m = 0; m < VK_LAYERS_TILES; m++) {
            const struct vk_layers_tile *t = &c->plan.tiles[m];
            require(t->lanes > 0 && physical->subgroup_size % t->lanes == 0);
            require(t->rows * t->unroll > 0 && t->rows * t->unroll <= VK_LAYERS_LOADS_MAX);
        }
    }
    for (uint32_t i = 0; i < backend->n_fews; i++) {
        require(backend->fews[i].tuning.tokens <= STEP_ROWS_MAX);
    }
    for (uint32_t i = 0; i < backend->n_gemms; i++) {
        require(backend->gemms[i].tiles.k % 32 == 0 && backend->gemms[i].tiles.rows <= 1024);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct vkc_device device; /* a large one, of which only this is read */
    device.physical.subgroup_size = 32;
    device.physical.compute_units = 132;
    device.physical.props.limits.maxComputeWorkGroupInvocations = 1024;
    struct backend backend = {.device = &device};
    FILE *f = size > 0 ? fmemopen((void *)data, size, "r") : NULL;
    if (!f) {
        return 0;
    }
    vk_choices_read(&backend, f);
    fclose(f);
    require_choices(&backend);
    free(backend.choices);
    free(backend.gemms);
    free(backend.fews);
    free(backend.layers_choices);
    return 0;
}
