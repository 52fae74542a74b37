/* SPDX-License-Identifier: MIT */
/* Compute pipelines: a shader and its specialization constants, made on first use. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parallel.h"
#include "push.h"
#include "vkc.h"

struct vkc_pipeline {
    struct vkc_pipeline *next; /* vkc_device::pipelines */
    enum shader_id shader;
    uint32_t n_spec;
    uint32_t spec[VKC_SPEC_MAX];
    VkPipeline handle; /* NULL: a thread is making it */
    bool is_new;       /* to the cache on disk, as far as the driver tells */
};

bool vkc_is_sized(const struct vkc_physical *physical, uint32_t wg)
{
    return physical->has_size_control && wg % physical->subgroup_size == 0 &&
           wg / physical->subgroup_size <= physical->max_subgroups;
}

uint32_t vkc_subgroups(const struct vkc_physical *physical, uint32_t wg)
{
    bool sized = vkc_is_sized(physical, wg);
    uint32_t least = sized ? physical->subgroup_size : physical->min_subgroup_size;
    return (wg + least - 1) / least;
}

static int create_handle(struct vkc_device *device, struct vkc_pipeline *pipeline, struct err *err,
                         VkPipeline *ret)
{
    const struct shader *shader = &shaders[pipeline->shader];
    VkShaderModuleCreateInfo module_info = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
        .codeSize = shader->size_bytes,
        .pCode = shader->words,
    };
    VkShaderModule module;
    int r = vkc_err(err, device->vk.CreateShaderModule(device->handle, &module_info, NULL, &module),
                    "vkCreateShaderModule");
    if (r < 0) {
        return r;
    }
    VkSpecializationMapEntry entries[VKC_SPEC_MAX];
    for (uint32_t i = 0; i < pipeline->n_spec; i++) {
        entries[i] = (VkSpecializationMapEntry){.constantID = i,
                                                .offset = i * (uint32_t)sizeof(uint32_t),
                                                .size = sizeof(uint32_t)};
    }
    VkSpecializationInfo spec = {
        .mapEntryCount = pipeline->n_spec,
        .pMapEntries = entries,
        .dataSize = pipeline->n_spec * sizeof(uint32_t),
        .pData = pipeline->spec,
    };
    /* Who counts subgroups must know their size: wave32 or wave64 is a driver's choice otherwise.
     */
    VkPipelineShaderStageRequiredSubgroupSizeCreateInfo size = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO,
        .requiredSubgroupSize = device->physical.subgroup_size,
    };
    bool sized = vkc_is_sized(&device->physical, pipeline->spec[SPEC_WG]);
    VkPipelineCreationFeedbackEXT feedback = {0}, stage_feedback = {0};
    VkPipelineCreationFeedbackCreateInfoEXT feedback_info = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_CREATION_FEEDBACK_CREATE_INFO_EXT,
        .pPipelineCreationFeedback = &feedback,
        .pipelineStageCreationFeedbackCount = 1,
        .pPipelineStageCreationFeedbacks = &stage_feedback,
    };
    VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .pNext = device->physical.has_cache_feedback ? &feedback_info : NULL,
        .stage =
            {
                .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                .pNext = sized ? &size : NULL,
                .flags = sized ? VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT : 0,
                .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                .module = module,
                .pName = "main",
                .pSpecializationInfo = &spec,
            },
        .layout = device->layout,
    };
    r = vkc_err(err,
                device->vk.CreateComputePipelines(device->handle, device->cache, 1, &info, NULL,
                                                  ret),
                "vkCreateComputePipelines");
    device->vk.DestroyShaderModule(device->handle, module, NULL);
    pipeline->is_new =
        !(feedback.flags & VK_PIPELINE_CREATION_FEEDBACK_VALID_BIT_EXT) ||
        !(feedback.flags & VK_PIPELINE_CREATION_FEEDBACK_APPLICATION_PIPELINE_CACHE_HIT_BIT_EXT);
    return r;
}

/* With the lock held. */
static struct vkc_pipeline *find(const struct vkc_device *device, const struct vkc_pipeline *wanted)
{
    for (struct vkc_pipeline *p = device->pipelines; p; p = p->next) {
        if (p->shader == wanted->shader && p->n_spec == wanted->n_spec &&
            memcmp(p->spec, wanted->spec, p->n_spec * sizeof *p->spec) == 0) {
            return p;
        }
    }
    return NULL;
}

/* What somebody else makes is waited for, and made here if it failed there. 1: *ret is in the list,
 * to be made by the caller. */
static int find_or_add(struct vkc_device *device, const struct vkc_pipeline *wanted,
                       struct vkc_pipeline **ret, struct err *err)
{
    int r = 0;
    pthread_mutex_lock(&device->pipelines_lock);
    struct vkc_pipeline *pipeline = find(device, wanted);
    while (pipeline && !pipeline->handle) {
        pthread_cond_wait(&device->pipelines_made, &device->pipelines_lock);
        pipeline = find(device, wanted);
    }
    if (!pipeline) {
        pipeline = malloc(sizeof *pipeline);
        r = pipeline ? 1 : err_set(err, -ENOMEM, "no memory for a pipeline");
    }
    if (r == 1) {
        *pipeline = *wanted;
        pipeline->next = device->pipelines;
        device->pipelines = pipeline;
    }
    pthread_mutex_unlock(&device->pipelines_lock);
    *ret = pipeline;
    return r;
}

/* made: what was added can be used; else it is gone. */
static void end_making(struct vkc_device *device, struct vkc_pipeline *pipeline, VkPipeline made)
{
    pthread_mutex_lock(&device->pipelines_lock);
    pipeline->handle = made;
    if (made) {
        device->cache_grew |= pipeline->is_new;
    } else {
        struct vkc_pipeline **p = &device->pipelines;
        while (*p != pipeline) {
            p = &(*p)->next;
        }
        *p = pipeline->next;
        free(pipeline);
    }
    pthread_cond_broadcast(&device->pipelines_made);
    pthread_mutex_unlock(&device->pipelines_lock);
}

int vkc_pipeline_get(struct vkc_device *device, enum shader_id shader, const uint32_t *spec,
                     uint32_t n_spec, struct err *err, VkPipeline *ret)
{
    assert(n_spec <= VKC_SPEC_MAX);
    struct vkc_pipeline wanted = {.shader = shader, .n_spec = n_spec};
    memcpy(wanted.spec, spec, n_spec * sizeof *spec);
    struct vkc_pipeline *pipeline;
    VkPipeline made = VK_NULL_HANDLE;
    int r = find_or_add(device, &wanted, &pipeline, err);
    if (r < 0) {
        return r;
    }
    if (r == 0) {
        *ret = pipeline->handle; /* does not change any more */
        return 0;
    }
    r = create_handle(device, pipeline, err, &made);
    if (r == 0) {
        vkc_name(device, VK_OBJECT_TYPE_PIPELINE, (uint64_t)made, shaders[shader].name);
    }
    made = r == 0 ? made : VK_NULL_HANDLE;
    end_making(device, pipeline, made);
    *ret = made;
    return r == 0 ? 0 : err_prefix(err, r, "shader %s", shaders[shader].name);
}

struct making {
    int (*make)(void *data, uint32_t i, struct err *err);
    void *data;
    pthread_mutex_t lock; /* of the rest */
    int r;
    struct err *err;
};

static void make_one(void *data, size_t i)
{
    struct making *making = data;
    struct err err;
    pthread_mutex_lock(&making->lock);
    int r = making->r;
    pthread_mutex_unlock(&making->lock);
    if (r == 0) {
        r = making->make(making->data, (uint32_t)i, &err);
        pthread_mutex_lock(&making->lock);
        if (r < 0 && making->r == 0) {
            making->r = r;
            *making->err = err;
        }
        pthread_mutex_unlock(&making->lock);
    }
}

int vkc_pipelines_make(struct vkc_device *device, uint32_t n,
                       int (*make)(void *data, uint32_t i, struct err *err), void *data,
                       struct err *err)
{
    struct making making = {.make = make,
                            .data = data,
                            .lock = PTHREAD_MUTEX_INITIALIZER,
                            .err = err};
    /* A CPU's compiler has threads of its own. */
    bool is_cpu = device->physical.props.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
    parallel_for(is_cpu ? 1 : 0, n, make_one, &making);
    pthread_mutex_destroy(&making.lock);
    return making.r;
}

void vkc_pipelines_destroy(struct vkc_device *device)
{
    while (device->pipelines) {
        struct vkc_pipeline *p = device->pipelines;
        device->pipelines = p->next;
        device->vk.DestroyPipeline(device->handle, p->handle, NULL);
        free(p);
    }
}
