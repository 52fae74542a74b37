/* SPDX-License-Identifier: MIT */
/*
 * Our allocations and the Vulkan calls that can fail, failing one after the other while a
 * small model is bound and decodes: the error is told, nothing stays open or allocated on the
 * device, and the same sessions go on afterwards as if it had not been. Memory is counted by the
 * sanitizer. With the argument "cpu": the same of the allocations there, where the engine draws.
 *
 * malloc() and its kin are wrapped by the linker, so only our own calls fail; Vulkan calls fail in
 * the device's table of functions and reach the driver otherwise. All of binding and decoding do;
 * of tuning and of copying weights, which call the same over and over, some. Not covered: opening a
 * device, memory's fds, the pipelines' file.
 */
#include <stdatomic.h>

#include "check.h"
#include "engine.h"
#include "random_model.h"
#include "vk_opened.h"

enum { VOCAB = 211, CONTEXT = 64, N = 3, N_STEPS = 3, KERNELS = 64 };

/* what fails */

static atomic_long left = -1;      /* calls until one fails; below 0: none does */
static const char *_Atomic failed; /* which one did */
static atomic_long n_objects;      /* of the device, alive, but for */
static atomic_long n_pipelines;    /* which the device keeps: tuning makes what it finds good */
static struct vkc_device_fn real;  /* the driver's */

static bool fails(const char *what)
{
    if (atomic_load(&left) < 0 || atomic_fetch_sub(&left, 1) != 0) {
        return false;
    }
    atomic_store(&failed, what);
    return true;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
/* visible: the linker takes them for what shared libraries look for */
__attribute__((visibility("default"))) void *__wrap_malloc(size_t size);
__attribute__((visibility("default"))) void *__wrap_calloc(size_t n, size_t size);
__attribute__((visibility("default"))) void *__wrap_realloc(void *old, size_t size);

void *__wrap_malloc(size_t size)
{
    return fails("malloc") ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fails("calloc") ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return fails("realloc") ? NULL : __real_realloc(old, size);
}

/* A call that makes `made` of what is counted there if it succeeds. */
#define FAILING(name, error, made, params, args) \
    FAILING_OF(name, error, n_objects, made, params, args)
#define FAILING_OF(name, error, count, made, params, args)      \
    static VKAPI_ATTR VkResult VKAPI_CALL failing_##name params \
    {                                                           \
        if (fails("vk" #name)) {                                \
            return error;                                       \
        }                                                       \
        VkResult result = real.name args;                       \
        if (result == VK_SUCCESS) {                             \
            atomic_fetch_add(&(count), made);                   \
        }                                                       \
        return result;                                          \
    }

#define NO_MEMORY VK_ERROR_OUT_OF_DEVICE_MEMORY
#define OWNED     const VkAllocationCallbacks *owner

FAILING(AllocateMemory, NO_MEMORY, 1,
        (VkDevice device, const VkMemoryAllocateInfo *info, OWNED, VkDeviceMemory *ret),
        (device, info, owner, ret))
FAILING(AllocateCommandBuffers, NO_MEMORY, info->commandBufferCount,
        (VkDevice device, const VkCommandBufferAllocateInfo *info, VkCommandBuffer *ret),
        (device, info, ret))
FAILING(BeginCommandBuffer, NO_MEMORY, 0,
        (VkCommandBuffer cmd, const VkCommandBufferBeginInfo *info), (cmd, info))
FAILING(BindBufferMemory, NO_MEMORY, 0,
        (VkDevice device, VkBuffer buffer, VkDeviceMemory memory, VkDeviceSize off),
        (device, buffer, memory, off))
FAILING(CreateBuffer, NO_MEMORY, 1,
        (VkDevice device, const VkBufferCreateInfo *info, OWNED, VkBuffer *ret),
        (device, info, owner, ret))
FAILING_OF(CreateComputePipelines, NO_MEMORY, n_pipelines, n,
           (VkDevice device, VkPipelineCache cache, uint32_t n,
            const VkComputePipelineCreateInfo *info, OWNED, VkPipeline *ret),
           (device, cache, n, info, owner, ret))
FAILING(CreateQueryPool, NO_MEMORY, 1,
        (VkDevice device, const VkQueryPoolCreateInfo *info, OWNED, VkQueryPool *ret),
        (device, info, owner, ret))
FAILING(CreateShaderModule, NO_MEMORY, 1,
        (VkDevice device, const VkShaderModuleCreateInfo *info, OWNED, VkShaderModule *ret),
        (device, info, owner, ret))
FAILING(GetMemoryHostPointerPropertiesEXT, VK_ERROR_INVALID_EXTERNAL_HANDLE, 0,
        (VkDevice device, VkExternalMemoryHandleTypeFlagBits type, const void *base,
         VkMemoryHostPointerPropertiesEXT *ret),
        (device, type, base, ret))
FAILING(EndCommandBuffer, NO_MEMORY, 0, (VkCommandBuffer cmd), (cmd))
FAILING(GetQueryPoolResults, VK_ERROR_DEVICE_LOST, 0,
        (VkDevice device, VkQueryPool pool, uint32_t first, uint32_t n, size_t size, void *data,
         VkDeviceSize stride, VkQueryResultFlags flags),
        (device, pool, first, n, size, data, stride, flags))
FAILING(MapMemory, VK_ERROR_MEMORY_MAP_FAILED, 0,
        (VkDevice device, VkDeviceMemory memory, VkDeviceSize off, VkDeviceSize size,
         VkMemoryMapFlags flags, void **ret),
        (device, memory, off, size, flags, ret))
FAILING(QueueSubmit, NO_MEMORY, 0,
        (VkQueue queue, uint32_t n, const VkSubmitInfo *infos, VkFence fence),
        (queue, n, infos, fence))
FAILING(WaitSemaphores, VK_ERROR_DEVICE_LOST, 0,
        (VkDevice device, const VkSemaphoreWaitInfo *info, uint64_t timeout_ns),
        (device, info, timeout_ns))

#define ENDING(name, type, count)                                                        \
    static VKAPI_ATTR void VKAPI_CALL ending_##name(VkDevice device, type object, OWNED) \
    {                                                                                    \
        atomic_fetch_sub(&(count), object ? 1 : 0);                                      \
        real.name(device, object, owner);                                                \
    }

ENDING(FreeMemory, VkDeviceMemory, n_objects)
ENDING(DestroyBuffer, VkBuffer, n_objects)
ENDING(DestroyPipeline, VkPipeline, n_pipelines)
ENDING(DestroyQueryPool, VkQueryPool, n_objects)
ENDING(DestroyShaderModule, VkShaderModule, n_objects)

static VKAPI_ATTR void VKAPI_CALL ending_FreeCommandBuffers(VkDevice device, VkCommandPool pool,
                                                            uint32_t n, const VkCommandBuffer *cmds)
{
    atomic_fetch_sub(&n_objects, n);
    real.FreeCommandBuffers(device, pool, n, cmds);
}

static void take_over(struct vkc_device *device)
{
    struct vkc_device_fn *vk = &device->vk;
    vkc_pipelines_destroy(device); /* what opening made is not counted */
    real = *vk;
    vk->AllocateMemory = failing_AllocateMemory;
    vk->AllocateCommandBuffers = failing_AllocateCommandBuffers;
    vk->BeginCommandBuffer = failing_BeginCommandBuffer;
    vk->BindBufferMemory = failing_BindBufferMemory;
    vk->CreateBuffer = failing_CreateBuffer;
    vk->CreateComputePipelines = failing_CreateComputePipelines;
    vk->CreateQueryPool = failing_CreateQueryPool;
    vk->CreateShaderModule = failing_CreateShaderModule;
    vk->EndCommandBuffer = failing_EndCommandBuffer;
    if (vk->GetMemoryHostPointerPropertiesEXT) {
        vk->GetMemoryHostPointerPropertiesEXT = failing_GetMemoryHostPointerPropertiesEXT;
    }
    vk->GetQueryPoolResults = failing_GetQueryPoolResults;
    vk->MapMemory = failing_MapMemory;
    vk->QueueSubmit = failing_QueueSubmit;
    vk->WaitSemaphores = failing_WaitSemaphores;
    vk->FreeMemory = ending_FreeMemory;
    vk->DestroyBuffer = ending_DestroyBuffer;
    vk->DestroyPipeline = ending_DestroyPipeline;
    vk->DestroyQueryPool = ending_DestroyQueryPool;
    vk->DestroyShaderModule = ending_DestroyShaderModule;
    vk->FreeCommandBuffers = ending_FreeCommandBuffers;
}

/* what runs meanwhile */

static struct llm_engine engine;
static const struct llm_logit_bias bias = {.id = 5, .add = 1};
static const struct llm_sampling ways[N] = {
    {.top_p = 1, .repetition_penalty = 1},
    {.temperature = 0.8f, .top_k = 20, .top_p = 0.9f, .repetition_penalty = 1.1f, .seed = 7},
    {.temperature = 1.2f,
     .top_p = 1,
     .min_p = 0.05f,
     .repetition_penalty = 1,
     .seed = 8,
     .bias = &bias,
     .n_bias = 1},
};
static const int32_t prompt[] = {2, 105, 200, 77, 31};

enum { N_PROMPT = sizeof prompt / sizeof *prompt };

/* What one run gives. */
struct drawn {
    int32_t ids[N_STEPS][N];
};

static int open_sessions(struct llm_session **sessions, uint32_t n, struct err *err)
{
    int r = 0;
    for (uint32_t i = 0; i < n && r == 0; i++) {
        r = llm_session_create(&engine, CONTEXT, err, &sessions[i]);
        if (r == 0) {
            r = llm_session_sync(sessions[i], prompt, N_PROMPT, NULL, NULL, NULL, err, NULL);
        }
    }
    return r;
}

static int decode(struct llm_session *const *sessions, uint32_t n, struct err *err,
                  struct drawn *ret)
{
    static const int32_t firsts[N] = {9, 10, 11};
    static const uint32_t steps[N];
    struct llm_decoder *decoder;
    int r = llm_decoder_start(sessions, firsts, n, ways, steps, err, &decoder);
    if (r < 0) {
        return r;
    }
    for (int i = 0; i < N_STEPS && r == 0; i++) {
        r = llm_decoder_next(decoder, 2, ret->ids[i], err);
    }
    llm_decoder_stop(decoder);
    return r;
}

static int profile(struct llm_session *const *sessions, uint32_t n, struct err *err)
{
    static const int32_t firsts[N] = {9, 10, 11};
    static const uint32_t steps[N];
    struct kernel_time times[KERNELS];
    struct llm_decoder *decoder;
    size_t n_times;
    if (!engine.ops->profile) {
        return 0;
    }
    int r = llm_session_profile(sessions[0], prompt, N_PROMPT, 2, times, KERNELS, &n_times, err);
    if (r == 0) {
        r = llm_decoder_start(sessions, firsts, n, ways, steps, err, &decoder);
    }
    if (r < 0) {
        return r;
    }
    r = llm_decoder_profile(decoder, times, KERNELS, &n_times, err);
    llm_decoder_stop(decoder);
    return r;
}

/* What follows a failure is done again; a profile leaves no timeline. */
static void check_goes_on(struct llm_session *const *sessions, uint32_t n,
                          const struct drawn *expected)
{
    struct drawn again;
    struct err err = {""};
    for (uint32_t i = 0; i < n; i++) {
        CHECK_EQ(llm_session_sync(sessions[i], prompt, N_PROMPT, NULL, NULL, NULL, &err, NULL), 0);
    }
    CHECK_EQ(decode(sessions, n, &err, &again), 0);
    for (int i = 0; i < N_STEPS; i++) {
        CHECK(memcmp(again.ids[i], expected->ids[i], n * sizeof **again.ids) == 0);
    }
}

/* What is made to fail. */
struct scenario {
    const char *name;
    int (*run)(const struct scenario *scenario, struct err *err);
    uint32_t n_sequences;
    long every; /* call number i fails if i is about so many per cent more than the one before */
    long least; /* so many fail, or something is wrong with making them */
};

static struct drawn want, got; /* of the last run that was left alone; of the last one */

static int bind_and_decode(const struct scenario *scenario, struct err *err)
{
    uint32_t n = scenario->n_sequences;
    struct llm_session *sessions[N] = {NULL};
    int r = engine.ops->bind(engine.backend, &engine.model, err, &engine.bound, &engine.path);
    if (r < 0) {
        return r;
    }
    r = open_sessions(sessions, n, err);
    bool has_opened = r == 0;
    if (r == 0) {
        r = decode(sessions, n, err, &got);
    }
    if (r == 0) {
        r = profile(sessions, n, err);
    }
    if (r < 0 && has_opened) {
        check_goes_on(sessions, n, &want);
    }
    for (uint32_t i = 0; i < n; i++) {
        llm_session_destroy(sessions[i]);
    }
    engine.ops->unbind(engine.bound);
    return r;
}

/* Every pipeline is made anew; the other scenarios find those of their first run. */
static int bind_alone(const struct scenario *scenario, struct err *err)
{
    (void)scenario;
    int r = engine.ops->bind(engine.backend, &engine.model, err, &engine.bound, &engine.path);
    if (r == 0) {
        engine.ops->unbind(engine.bound);
    }
    vkc_pipelines_destroy(engine.backend->device);
    CHECK_EQ(atomic_load(&n_pipelines), 0);
    return r;
}

static void forget_choices(struct backend *backend)
{
    free(backend->choices);
    free(backend->gemms);
    free(backend->fews);
    free(backend->layers_choices);
    backend->choices = NULL;
    backend->gemms = NULL;
    backend->fews = NULL;
    backend->layers_choices = NULL;
    backend->n_choices = backend->n_gemms = backend->n_fews = backend->n_layers_choices = 0;
}

/* What binding does on a GPU. */
static int bind_and_tune(const struct scenario *scenario, struct err *err)
{
    (void)scenario;
    struct backend_state *state;
    uint32_t rewind_max;
    uint64_t kv_bytes;
    int r = engine.ops->bind(engine.backend, &engine.model, err, &engine.bound, &engine.path);
    if (r < 0) {
        forget_choices(engine.backend); /* a GPU's binding tunes by itself */
        return r;
    }
    r = engine.ops->state_create(engine.bound, CONTEXT, err, &state, &rewind_max, &kv_bytes);
    if (r == 0) {
        r = vk_tune(state, err);
        engine.ops->state_destroy(state);
    }
    engine.ops->unbind(engine.bound);
    forget_choices(engine.backend);
    return r;
}

/* Whether what failed may do so and nothing comes of it: the end of steps that nobody wants, which
 * counts, weights that are copied since they cannot be imported, one of several kinds of memory. */
static bool is_in_vain(const char *what, enum weight_path usual, long *n_ends)
{
    bool is_end = strcmp(what, "vkWaitSemaphores") == 0;
    *n_ends += is_end;
    return is_end || engine.path != usual ||
           (strcmp(what, "vkAllocateMemory") == 0 &&
            engine.backend->device->physical.memory.memoryTypeCount > 1);
}

static void test_each_fails(const struct scenario *scenario)
{
    struct err err = {""};
    got = (struct drawn){0};
    CHECK_EQ(scenario->run(scenario, &err), 0);
    want = got;
    enum weight_path path = engine.path;
    int n_fds = count_fds(NULL);
    long objects = atomic_load(&n_objects), n = 0, n_ends = 0;
    for (long at = 0;; at += 1 + at * scenario->every / 100, n++) {
        err.text[0] = '\0';
        atomic_store(&failed, NULL);
        atomic_store(&left, at);
        int r = scenario->run(scenario, &err);
        atomic_store(&left, -1);
        const char *what = atomic_load(&failed);
        if (!what) {
            CHECK_EQ(r, 0);
            break;
        }
        bool ignored = r == 0 && is_in_vain(what, path, &n_ends);
        if ((!ignored && (r >= 0 || err.text[0] == '\0')) || count_fds(NULL) != n_fds ||
            atomic_load(&n_objects) != objects) {
            fprintf(stderr, "call %ld, %s, failed: %d, \"%s\", %d fds more, %ld objects more\n", at,
                    what, r, err.text, count_fds(NULL) - n_fds, atomic_load(&n_objects) - objects);
            exit(1);
        }
    }
    CHECK(memcmp(&got, &want, sizeof got) == 0);
    CHECK(n_ends <= 1);
    printf("%s, %u sequences: %ld calls failed\n", scenario->name, scenario->n_sequences, n);
    CHECK(n >= scenario->least);
}

static void open_model(const struct model_config *config, void **ret_base)
{
    struct image_formats formats;
    random_formats(config, (struct weight_format){WEIGHT_Q4, 32, false}, &formats);
    random_model_create(config, &formats, 1, &engine.model, ret_base);
}

static void test_small(const struct backend_params *params, const struct scenario *scenarios,
                       size_t n)
{
    struct model_config config = vk_small_config(VOCAB);
    struct err err;
    void *base;
    open_model(&config, &base);
    CHECK_EQ(engine.ops->open(params, &err, &engine.backend), 0);
    if (engine.ops == &vulkan_backend) {
        take_over(engine.backend->device);
    }
    for (size_t i = 0; i < n; i++) {
        test_each_fails(&scenarios[i]);
    }
    engine.ops->close(engine.backend);
    CHECK_EQ(atomic_load(&n_pipelines), 0);
    random_model_destroy(&engine.model, base);
}

static void test_tuning(const struct backend_params *params)
{
    struct model_config config = vk_small_config(4096);
    struct err err;
    void *base;
    config.hidden = 160; /* so large that matrices are worth it */
    config.ffn = 4096;
    open_model(&config, &base);
    CHECK_EQ(engine.ops->open(params, &err, &engine.backend), 0);
    take_over(engine.backend->device);
    test_each_fails(&(struct scenario){"tuning", bind_and_tune, 0, 200, 6});
    engine.ops->close(engine.backend);
    CHECK_EQ(atomic_load(&n_pipelines), 0);
    random_model_destroy(&engine.model, base);
}

int main(int argc, char **argv)
{
    static const struct scenario binding = {"binding", bind_alone, 0, 0, 50},
                                 copying = {"copying", bind_alone, 0, 20, 12},
                                 decoding[] = {{"decoding", bind_and_decode, 1, 0, 90},
                                               {"decoding", bind_and_decode, N, 0, 200}},
                                 of_a_cpu[] = {{"decoding", bind_and_decode, 1, 0, 5},
                                               {"decoding", bind_and_decode, N, 0, 15}};
    bool on_cpu = argc > 1 && strcmp(argv[1], "cpu") == 0;
    struct backend_params params = {.n_threads = 2};
    if (!on_cpu && !vk_can_open(&params)) {
        return SKIP;
    }
    engine.ops = on_cpu ? &cpu_backend : &vulkan_backend;
    engine.max_batch = 32;
    if (on_cpu) {
        test_small(&params, of_a_cpu, 2);
        return 0;
    }
    test_small(&params, &binding, 1);
    test_small(&params, decoding, 2);
    test_tuning(&params);
    params.copy_weights = true;
    test_small(&params, &copying, 1);
    return 0;
}
