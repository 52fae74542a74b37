/* SPDX-License-Identifier: MIT */
/*
 * Our Vulkan layer: the boilerplate, once. An instance (loader, validation), physical devices with
 * what they can do, a device with one queue, buffers with addresses, pipelines with a cache on
 * disk, command buffers with a timeline. It knows nothing about models: what it runs are shaders of
 * shaders.def, which get everything through push constants (no descriptors).
 *
 * libvulkan is loaded at run time, so that programs start without it. Every function converts
 * VkResult at the call (vkc_err) and names the call that failed. One thread per device at a time,
 * but for pipelines (made by any) and memory, commands and submissions (by one).
 */
#ifndef VKC_H
#define VKC_H

#define VK_NO_PROTOTYPES
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <vulkan/vulkan.h>

#include "coopmat.h"
#include "err.h"
#include "shaders.h"

/* errors */

/* The negative errno for a failed call's result; 0 for VK_SUCCESS. */
int vkc_errno(VkResult result);
/* The same, with the sentence "vkCall: VK_ERROR_..., what it means". */
int vkc_err(struct err *err, VkResult result, const char *call);

/* instance */

struct vkc_params {
    bool validate;
    void (*log)(void *data, const char *text); /* may be NULL */
    void *log_data;
};

struct vkc_instance {
    struct vkc_params params;
    void *lib; /* libvulkan.so.1 */
    VkInstance handle;
    VkDebugUtilsMessengerEXT messenger;
    pthread_mutex_t lock;       /* of the messages: any thread may cause one */
    uint32_t n_messages;        /* from the validation layers, not yet reported */
    char message[ERR_TEXT_MAX]; /* the first of them */
    struct vkc_instance_fn {
#define VK_FN_GLOBAL(name)            PFN_vk##name name;
#define VK_FN_INSTANCE(name)          PFN_vk##name name;
#define VK_FN_INSTANCE_OPTIONAL(name) PFN_vk##name name;
#include "vk_fn.def"
    } vk;
};

/*
 * Load libvulkan and create an instance. Errors: -ENODEV no loader or no driver at all, -ENOENT
 * validation was asked for and its layer is not installed.
 */
int vkc_instance_create(const struct vkc_params *params, struct err *err,
                        struct vkc_instance **ret);
void vkc_instance_destroy(struct vkc_instance *instance);

/* One line for the user's log. */
void vkc_log(const struct vkc_instance *instance, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/*
 * What a call should return when the validation layers may have spoken: -EPROTO with their first
 * message if they have since the last time, else r.
 */
int vkc_checked(struct vkc_instance *instance, int r, struct err *err);

/* physical devices */

struct vkc_physical {
    VkPhysicalDevice handle;
    VkPhysicalDeviceProperties props;
    VkPhysicalDeviceMemoryProperties memory;
    char driver[VK_MAX_DRIVER_NAME_SIZE + VK_MAX_DRIVER_INFO_SIZE + 2]; /* "radv Mesa 25.0.1" */
    uint8_t uuid[VK_UUID_SIZE];
    uint8_t driver_uuid[VK_UUID_SIZE];
    uint32_t subgroup_size;
    uint32_t min_subgroup_size; /* what a driver may choose for a shader; 1 if it does not say */
    uint32_t queue_family;
    uint32_t compute_units;  /* SMs, CUs; a guess where the driver does not say */
    bool has_int_dot;        /* integer dot products: dot4.glsl */
    bool has_shuffle;        /* subgroup shuffles in compute shaders */
    bool has_16bit_storage;  /* f16 in buffers; asked for only with cooperative matrices */
    uint32_t max_subgroups;  /* in a workgroup of such a pipeline */
    bool has_cache_feedback; /* a driver tells whether it found a pipeline in the cache */
    bool has_size_control;   /* pipelines can ask for subgroup_size and whole subgroups */
    struct {
        uint32_t m, n, k; /* f16 times f16 to f32 by one subgroup; 0: cannot */
    } coopmat;
    uint32_t timestamp_bits; /* 0: no timestamps */
    uint64_t max_alloc_bytes;
    uint64_t host_pointer_align; /* 0: host memory cannot be imported */
    bool has_dmabuf;
    bool has_opaque_fd;       /* memory can be exported as an opaque fd, and imported again */
    bool opaque_fd_dedicated; /* only memory allocated for one buffer */
    char missing[256]; /* what we need and the device lacks, separated by ", "; "" if nothing */
};

/* All devices in the loader's order; *ret is malloc'ed. No device at all is -ENODEV. */
int vkc_physical_list(struct vkc_instance *instance, struct err *err, struct vkc_physical **ret,
                      uint32_t *ret_n);

/*
 * The index of the wanted device: by index if want is a number, by part of its name (any case), or
 * if want is NULL the first usable of integrated, discrete, virtual, cpu. Errors: -ENODEV none
 * matches, -ENOTSUP it lacks something, which is named.
 */
int vkc_physical_choose(const struct vkc_physical *list, uint32_t n, const char *want,
                        struct err *err, uint32_t *ret);

const char *vkc_type_name(VkPhysicalDeviceType type); /* "integrated", "discrete", ... */
/* The device reads the CPU's memory at full speed: importing weights beats copying them. */
bool vkc_is_unified(const struct vkc_physical *physical);

/* device */

struct vkc_pipeline;

struct vkc_device {
    struct vkc_instance *instance; /* borrowed */
    struct vkc_physical physical;
    VkDevice handle;
    VkQueue queue;
    VkCommandPool pool;
    VkSemaphore timeline;
    uint64_t submitted; /* the timeline reaches this when all submissions are done */
    VkPipelineLayout layout;
    VkPipelineCache cache;
    char *cache_path;               /* NULL: none on disk */
    uint64_t cache_hash;            /* of the data that is on disk; 0: none */
    bool cache_grew;                /* since then, as far as the driver tells */
    pthread_mutex_t pipelines_lock; /* of the list only: they are made outside */
    struct vkc_pipeline *pipelines;
    pthread_cond_t pipelines_made; /* one of the list was, or could not be */
    /* Asked when the device is out of memory: true: some has become free. NULL: nobody can. */
    bool (*reclaim)(void *data);
    void *reclaim_data;
    struct vkc_device_fn {
#define VK_FN_DEVICE(name)          PFN_vk##name name;
#define VK_FN_DEVICE_OPTIONAL(name) PFN_vk##name name;
#include "vk_fn.def"
    } vk;
};

/* cache_dir: where compiled pipelines are kept, NULL for nowhere. instance must outlive it. */
int vkc_device_create(struct vkc_instance *instance, const struct vkc_physical *physical,
                      const char *cache_dir, struct err *err, struct vkc_device **ret);
/* Waits until the device is idle. Everything made from it must be gone. */
void vkc_device_destroy(struct vkc_device *device);

/* Name a handle in validation messages; does nothing without validation. */
void vkc_name(struct vkc_device *device, VkObjectType type, uint64_t handle, const char *name);

/* memory */

enum vkc_memory {
    VKC_DEVICE,   /* fast for the device; not mapped */
    VKC_UPLOAD,   /* written by the CPU, read once by the device */
    VKC_SHARED,   /* small, written by the CPU, read often by the device */
    VKC_READBACK, /* written by the device, read by the CPU */
};

struct vkc_buffer {
    VkBuffer handle;
    VkDeviceMemory memory;
    VkDeviceAddress address;
    uint64_t size_bytes;
    uint64_t alloc_bytes; /* of memory */
    uint32_t memory_type;
    void *map; /* NULL for VKC_DEVICE and imported memory; coherent */
};

/* Device memory is not zeroed. A failed call leaves *ret as vkc_buffer_finish() leaves it. */
int vkc_buffer_init(struct vkc_device *device, enum vkc_memory kind, uint64_t size_bytes,
                    const char *name, struct err *err, struct vkc_buffer *ret);

/* The first size_bytes of a dma-buf, without a copy. fd is borrowed. */
int vkc_buffer_import_dmabuf(struct vkc_device *device, int fd, uint64_t size_bytes,
                             const char *name, struct err *err, struct vkc_buffer *ret);

/* This process's memory, without a copy; it must stay mapped while the buffer exists. base and
 * size_bytes are multiples of physical.host_pointer_align. It is only read. */
int vkc_buffer_import_host(struct vkc_device *device, const void *base, uint64_t size_bytes,
                           const char *name, struct err *err, struct vkc_buffer *ret);

/* As VKC_DEVICE, in memory that vkc_buffer_export_fd() can export: what another process imports is
 * the same memory. physical.has_opaque_fd. */
int vkc_buffer_init_exportable(struct vkc_device *device, uint64_t size_bytes, const char *name,
                               struct err *err, struct vkc_buffer *ret);
/* *ret_fd is the caller's, CLOEXEC. */
int vkc_buffer_export_fd(struct vkc_device *device, const struct vkc_buffer *buffer,
                         struct err *err, int *ret_fd);
/* What such an fd was exported from, by the same driver for the same device; alloc_bytes,
 * memory_type and dedicated as there. fd is borrowed. */
int vkc_buffer_import_opaque(struct vkc_device *device, int fd, uint64_t size_bytes,
                             uint64_t alloc_bytes, uint32_t memory_type, bool dedicated,
                             const char *name, struct err *err, struct vkc_buffer *ret);

void vkc_buffer_finish(struct vkc_device *device, struct vkc_buffer *buffer);

/* pipelines */

#define VKC_SPEC_MAX   28
#define VKC_PUSH_BYTES 128

/* Whether a pipeline of workgroups of wg invocations has whole subgroups of the device's usual size
 * and, in any case, how many subgroups such a workgroup falls into at most. */
bool vkc_is_sized(const struct vkc_physical *physical, uint32_t wg);
uint32_t vkc_subgroups(const struct vkc_physical *physical, uint32_t wg);

/* The pipeline of a shader with spec[i] as its specialization constant i; made on first use, owned
 * by the device. */
int vkc_pipeline_get(struct vkc_device *device, enum shader_id shader, const uint32_t *spec,
                     uint32_t n_spec, struct err *err, VkPipeline *ret);

/* Call make(data, i), which gets pipelines and nothing else, for every i below n, on as many
 * threads as there are cores (a CPU's compiler has its own: there on one). After an error, which is
 * the first one's, no further call begins. */
int vkc_pipelines_make(struct vkc_device *device, uint32_t n,
                       int (*make)(void *data, uint32_t i, struct err *err), void *data,
                       struct err *err);

/* All of them; nobody uses one any more. */
void vkc_pipelines_destroy(struct vkc_device *device);

/* The cache of compiled pipelines: read the file (a missing or damaged one is an empty cache, the
 * latter logged), write it if it has changed (failure is logged: it costs only time). */
int vkc_cache_load(struct vkc_device *device, const char *cache_dir, struct err *err);
void vkc_cache_save(struct vkc_device *device);

/* commands */

int vkc_cmd_begin(struct vkc_device *device, struct err *err, VkCommandBuffer *ret);
/* One that may be submitted again while it is in flight. */
int vkc_cmd_begin_shared(struct vkc_device *device, struct err *err, VkCommandBuffer *ret);
int vkc_cmd_end(struct vkc_device *device, VkCommandBuffer cmd, struct err *err);
void vkc_cmd_free(struct vkc_device *device, VkCommandBuffer cmd); /* not in flight; accepts NULL */

void vkc_dispatch(struct vkc_device *device, VkCommandBuffer cmd, VkPipeline pipeline,
                  const void *push, uint32_t push_bytes, uint32_t x, uint32_t y, uint32_t z);
void vkc_copy(struct vkc_device *device, VkCommandBuffer cmd, const struct vkc_buffer *src,
              uint64_t src_off, const struct vkc_buffer *dst, uint64_t dst_off,
              uint64_t size_bytes);

/* Zeros everywhere. The size is a multiple of 4. */
void vkc_clear(struct vkc_device *device, VkCommandBuffer cmd, const struct vkc_buffer *buffer);

/* Timestamps: a pool of n, reset, written when all commands before are done, read as nanoseconds
 * since the first. */
int vkc_timer_create(struct vkc_device *device, uint32_t n, struct err *err, VkQueryPool *ret);
void vkc_timer_destroy(struct vkc_device *device, VkQueryPool pool); /* accepts NULL */
void vkc_timer_reset(struct vkc_device *device, VkCommandBuffer cmd, VkQueryPool pool, uint32_t n);
void vkc_timer_write(struct vkc_device *device, VkCommandBuffer cmd, VkQueryPool pool, uint32_t i);
int vkc_timer_read(struct vkc_device *device, VkQueryPool pool, uint32_t n, struct err *err,
                   double *ret_ns);

/* Who wrote what must be visible, and to whom. */
enum vkc_hazard {
    VKC_SHADER_TO_SHADER, /* also orders later writes after earlier reads */
    VKC_SHADER_TO_COPY,
    VKC_SHADER_TO_HOST,
    VKC_COPY_TO_SHADER,
    VKC_COPY_TO_HOST,
};
void vkc_barrier(struct vkc_device *device, VkCommandBuffer cmd, enum vkc_hazard hazard);

/* Submit recorded command buffers, each as a unit of work of its own (a GPU's lock-up timer sees
 * them apart). They run in order; *ret_done is what to wait for. */
int vkc_submit(struct vkc_device *device, const VkCommandBuffer *cmds, uint32_t n, struct err *err,
               uint64_t *ret_done);
/* Sleep until the timeline has reached a value. Whatever it returns, nothing is in flight then that
 * was submitted up to that value. */
int vkc_wait(struct vkc_device *device, uint64_t done, struct err *err);

#endif
