/* SPDX-License-Identifier: MIT */
/*
 * Model directories to images: every layout of files gives the same bytes, every defect gives one
 * sentence that names file, tensor and reason, and nothing is left behind.
 */
#include "load.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "half.h"
#include "model_dir.h"

struct image {
    struct model model;
    uint8_t *base;
};

static int load(const char *dir, struct image *ret, struct err *err)
{
    struct load_plan *plan;
    struct model_config config;
    int r = config_load(dir, &config, err);
    if (r == 0) {
        r = load_plan_create(dir, &config, IMAGE_CHUNK_MAX, err, &plan);
    }
    if (r < 0) {
        return r;
    }
    struct weight_memory memory = load_plan_model(plan)->memory;
    uint8_t *base = aligned_alloc(IMAGE_CHUNK_ALIGN, memory.size_bytes);
    CHECK(base);
    memset(base, 0, memory.size_bytes);
    r = load_fill(plan, base, 2, NULL, NULL, err);
    load_plan_destroy(plan);
    if (r < 0) {
        free(base);
        return r;
    }
    memory.base = ret->base = base;
    CHECK_EQ(image_bind(&config, &memory, &ret->model, err), 0);
    return 0;
}

static void load_ok(const char *dir, struct image *ret)
{
    struct err err;
    if (load(dir, ret, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
}

/* Load dir, compare with want, remove dir. */
static void same_image(const char *dir, const struct image *want)
{
    struct image image;
    load_ok(dir, &image);
    CHECK_EQ(image.model.memory.size_bytes, want->model.memory.size_bytes);
    CHECK(memcmp(image.base, want->base, want->model.memory.size_bytes) == 0);
    free(image.base);
    dir_remove(dir);
}

static void refused(const char *dir, int code, const char *const *wants)
{
    struct image image;
    struct err err = {""};
    CHECK_EQ(load(dir, &image, &err), code);
    CHECK(!strchr(err.text, '\n'));
    for (; *wants; wants++) {
        if (!strstr(err.text, *wants)) {
            fprintf(stderr, "\"%s\" does not say \"%s\"\n", err.text, *wants);
            exit(1);
        }
    }
    dir_remove(dir);
}
#define REFUSED(dir, code, ...) refused(dir, code, (const char *const[]){__VA_ARGS__, NULL})

static void compare_rows(const struct image *image, const struct weight *w, uint32_t first_row,
                         const struct dir_tensor *t)
{
    uint64_t row_bytes = weight_data_bytes(w) / w->rows;
    CHECK(memcmp(image->base + w->data_off + first_row * row_bytes, t->data, t->size) == 0);
    CHECK_EQ(t->size % row_bytes, 0);
}

static void compare_norm(const struct image *image, uint64_t off, const struct dir_tensor *t)
{
    const float *norm = (const float *)(image->base + off);
    for (uint64_t i = 0; i < t->shape[0]; i++) {
        float x;
        if (strcmp(t->dtype, "F32") == 0) {
            memcpy(&x, t->data + 4 * i, 4);
        } else {
            uint16_t half;
            memcpy(&half, t->data + 2 * i, 2);
            x = strcmp(t->dtype, "F16") == 0 ? f16_to_f32(half) : bf16_to_f32(half);
        }
        CHECK(norm[i] == x + 1);
    }
}

/* The exact values of the files are in the image. */
static void exact(const char *dtype, uint32_t type)
{
    struct model_config config;
    struct tensor_list list;
    struct image image;
    char dir[128];

    model_dir_config(&config);
    tensors_random(&config, "model.", dtype, 5, &list);
    dir_make(dir, sizeof dir);
    write_model(dir, &list);
    load_ok(dir, &image);
    const struct model *m = &image.model;
    CHECK_EQ(m->layers[1].qkv.type, type);
    CHECK_EQ(m->head.data_off, m->embed.data_off);
    compare_rows(&image, &m->embed, 0, tensors_find(&list, "model.embed_tokens.weight"));
    compare_norm(&image, m->final_norm_off, tensors_find(&list, "model.norm.weight"));
    for (uint32_t l = 0; l < 3; l++) {
        const struct model_layer *layer = &m->layers[l];
        char name[160];
#define T(what) \
    (snprintf(name, sizeof name, "model.layers.%u.%s.weight", l, what), tensors_find(&list, name))
        compare_rows(&image, &layer->qkv, 0, T("self_attn.q_proj"));
        compare_rows(&image, &layer->qkv, 128, T("self_attn.k_proj"));
        compare_rows(&image, &layer->qkv, 192, T("self_attn.v_proj"));
        compare_rows(&image, &layer->attn_out, 0, T("self_attn.o_proj"));
        compare_rows(&image, &layer->gate_up, 0, T("mlp.gate_proj"));
        compare_rows(&image, &layer->gate_up, 128, T("mlp.up_proj"));
        compare_rows(&image, &layer->down, 0, T("mlp.down_proj"));
        compare_norm(&image, layer->input_norm_off, T("input_layernorm"));
        compare_norm(&image, layer->q_norm_off, T("self_attn.q_norm"));
        compare_norm(&image, layer->k_norm_off, T("self_attn.k_norm"));
        compare_norm(&image, layer->post_attn_norm_off, T("post_attention_layernorm"));
        compare_norm(&image, layer->pre_ffn_norm_off, T("pre_feedforward_layernorm"));
        compare_norm(&image, layer->post_ffn_norm_off, T("post_feedforward_layernorm"));
#undef T
    }
    free(image.base);
    tensors_free(&list);
    dir_remove(dir);
}

static void write_index(const char *dir, const struct tensor_list *list, const char *const *files,
                        const size_t *ends, size_t n_files)
{
    char path[256];
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
    FILE *f = fopen(path, "w");
    CHECK(f);
    fprintf(f, "{\"metadata\":{\"total_size\":1},\"weight_map\":{");
    for (size_t i = 0, k = 0; i < list->n && k < n_files; i++) {
        k += i == ends[k];
        fprintf(f, "%s\"%s\":\"%s\"", i ? "," : "", list->v[i].name, files[k]);
    }
    fprintf(f, "}}");
    CHECK(fclose(f) == 0);
}

static void write_shards(const char *dir, const struct tensor_list *list, const char *const *files,
                         const size_t *ends, size_t n_files)
{
    write_text(dir, "config.json", model_dir_config_json);
    for (size_t k = 0, first = 0; k < n_files; first = ends[k++]) {
        write_tensors(dir, files[k], list, first, ends[k] - first);
    }
}

static void layouts(void)
{
    static const char *const prefixes[] = {"model.", "language_model.model.",
                                           "model.language_model."};
    static const char *const plain[] = {"model-00001-of-00003.safetensors",
                                        "model-00002-of-00003.safetensors",
                                        "model-00003-of-00003.safetensors"};
    static const char *const layers[] = {"model-00001-of-00003_shared.safetensors",
                                         "model-00002-of-00003_layer_0.safetensors",
                                         "model-00003-of-00003_layer_12.safetensors"};
    static const char *const odd[] = {"b.safetensors", "a.safetensors", "weights 3.safetensors"};
    struct model_config config;
    struct tensor_list list;
    struct image want;
    char dir[128];

    model_dir_config(&config);
    tensors_random(&config, "model.", "BF16", 9, &list);
    dir_make(dir, sizeof dir);
    write_model(dir, &list);
    load_ok(dir, &want);
    dir_remove(dir);
    tensors_free(&list);

    for (size_t i = 0; i < 3; i++) {
        tensors_random(&config, prefixes[i], "BF16", 9, &list);
        const size_t ends[] = {2, 20, list.n};
        dir_make(dir, sizeof dir);
        write_shards(dir, &list, plain, ends, 3);
        same_image(dir, &want);
        dir_make(dir, sizeof dir);
        write_shards(dir, &list, layers, ends, 3);
        same_image(dir, &want);
        dir_make(dir, sizeof dir);
        write_shards(dir, &list, odd, ends, 3);
        write_index(dir, &list, odd, ends, 3);
        same_image(dir, &want);

        /* what belongs to no text model, and the head of a tied model, are passed over */
        tensors_add(&list, "vision_tower.vision_model.head.weight", "F32", 3, 5, 1);
        tensors_add(&list, i == 1 ? "language_model.lm_head.weight" : "lm_head.weight", "BF16",
                    config.vocab, config.hidden, 1);
        dir_make(dir, sizeof dir);
        write_model(dir, &list);
        same_image(dir, &want);
        tensors_free(&list);
    }
    free(want.base);
}

static void untied_head(void)
{
    char dir[128], text[2048];
    struct model_config config;
    struct tensor_list list;
    struct image image;
    model_dir_config(&config);
    tensors_random(&config, "model.", "BF16", 1, &list);
    tensors_add(&list, "lm_head.weight", "BF16", config.vocab, config.hidden, 77);
    dir_make(dir, sizeof dir);
    write_model(dir, &list);
    snprintf(text, sizeof text, "{\"tie_word_embeddings\": false, %s", model_dir_config_json + 1);
    write_text(dir, "config.json", text);
    load_ok(dir, &image);
    CHECK(image.model.head.data_off != image.model.embed.data_off);
    compare_rows(&image, &image.model.head, 0, tensors_find(&list, "lm_head.weight"));
    free(image.base);
    tensors_remove(&list, "lm_head.weight");
    write_model(dir, &list);
    write_text(dir, "config.json", text);
    REFUSED(dir, -EINVAL, "model.safetensors", "lm_head.weight", "is in no weight file");
    tensors_free(&list);
}

/* Replace matrix `name` by random q4 or q8 parts with or without bias. */
static void quantize_randomly(struct tensor_list *list, const char *name, bool q4, uint64_t group,
                              bool affine)
{
    char part[200];
    struct dir_tensor *t = tensors_find(list, name);
    uint64_t rows = t->shape[0], cols = t->shape[1];
    tensors_remove(list, name);
    snprintf(part, sizeof part, "%s.%s", name, q4 ? "q4" : "q8");
    tensors_add(list, part, q4 ? "U8" : "I8", rows, q4 ? cols / 2 : cols, 31);
    snprintf(part, sizeof part, "%s.scale", name);
    tensors_add(list, part, "F16", rows, cols / group, 32);
    if (affine) {
        snprintf(part, sizeof part, "%s.bias", name);
        tensors_add(list, part, "F16", rows, cols / group, 33);
    }
}

static void quantized(void)
{
    static const char *const qkv[] = {"model.layers.1.self_attn.q_proj.weight",
                                      "model.layers.1.self_attn.k_proj.weight",
                                      "model.layers.1.self_attn.v_proj.weight"};
    char dir[128], name[200];
    struct model_config config;
    struct tensor_list list;
    struct image image;

    model_dir_config(&config);
    tensors_random(&config, "model.", "BF16", 1, &list);
    quantize_randomly(&list, "model.layers.2.mlp.down_proj.weight", false, 64, false);
    for (int i = 0; i < 3; i++) {
        quantize_randomly(&list, qkv[i], true, 32, true);
    }
    dir_make(dir, sizeof dir);
    write_model(dir, &list);
    load_ok(dir, &image);
    const struct weight *w = &image.model.layers[1].qkv;
    CHECK(w->type == WEIGHT_Q4 && w->group == 32 && w->bias_off);
    CHECK(image.model.layers[2].down.type == WEIGHT_Q8);
    uint32_t row = 0;
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%s.q4", qkv[i]);
        struct dir_tensor *t = tensors_find(&list, name);
        compare_rows(&image, w, row, t);
        snprintf(name, sizeof name, "%s.scale", qkv[i]);
        CHECK(memcmp(image.base + w->scale_off + row * 4, tensors_find(&list, name)->data,
                     t->shape[0] * 4) == 0);
        snprintf(name, sizeof name, "%s.bias", qkv[i]);
        CHECK(memcmp(image.base + w->bias_off + row * 4, tensors_find(&list, name)->data,
                     t->shape[0] * 4) == 0);
        row += (uint32_t)t->shape[0];
    }
    free(image.base);

    struct dir_tensor *t = tensors_find(&list, "model.layers.2.mlp.down_proj.weight.q8");
    t->data[77] = 0x80;
    write_model(dir, &list);
    REFUSED(dir, -EINVAL, "model.safetensors", "layers.2.mlp.down_proj.weight.q8", "-128");
    t->data[77] = 0;
    t = tensors_find(&list, "model.layers.2.mlp.down_proj.weight.scale");
    t->data[3] = 0x7c;
    dir_make(dir, sizeof dir);
    write_model(dir, &list);
    REFUSED(dir, -EINVAL, "layers.2.mlp.down_proj.weight.scale", "not finite");
    t->data[3] = 0;
    tensors_remove(&list, "model.layers.2.mlp.down_proj.weight.scale");
    dir_make(dir, sizeof dir);
    write_model(dir, &list);
    REFUSED(dir, -EINVAL, "layers.2.mlp.down_proj.weight.scale", "is in no weight file");
    tensors_add(&list, "model.layers.2.mlp.down_proj.weight.scale", "F16", 64, 3, 1);
    dir_make(dir, sizeof dir);
    write_model(dir, &list);
    REFUSED(dir, -EINVAL, "layers.2.mlp.down_proj.weight.scale", "3 scales");
    tensors_free(&list);
}

/* Spoil one thing in an otherwise good directory. */
static void spoilt(void (*spoil)(struct tensor_list *list), const char *const *wants)
{
    char dir[128];
    struct model_config config;
    struct tensor_list list;
    model_dir_config(&config);
    tensors_random(&config, "model.", "BF16", 1, &list);
    spoil(&list);
    dir_make(dir, sizeof dir);
    write_model(dir, &list);
    refused(dir, -EINVAL, wants);
    tensors_free(&list);
}
#define SPOILT(spoil, ...) \
    spoilt(spoil, (const char *const[]){"model.safetensors", __VA_ARGS__, NULL})

static void missing_matrix(struct tensor_list *list)
{
    tensors_remove(list, "model.layers.1.mlp.up_proj.weight");
}

static void missing_norm(struct tensor_list *list)
{
    tensors_remove(list, "model.layers.2.self_attn.k_norm.weight");
}

static void other_vocabulary(struct tensor_list *list)
{
    tensors_remove(list, "model.embed_tokens.weight");
    tensors_add(list, "model.embed_tokens.weight", "BF16", 161, 64, 1);
}

static void other_shape(struct tensor_list *list)
{
    struct dir_tensor *t = tensors_find(list, "model.layers.0.self_attn.o_proj.weight");
    t->shape[0] = 128;
    t->shape[1] = 64;
}

static void other_rank(struct tensor_list *list)
{
    struct dir_tensor *t = tensors_find(list, "model.layers.0.self_attn.o_proj.weight");
    t->n_dims = 3;
    t->shape[2] = 1;
}

static void other_norm_shape(struct tensor_list *list)
{
    tensors_find(list, "model.layers.0.self_attn.q_norm.weight")->n_dims = 2;
    tensors_find(list, "model.layers.0.self_attn.q_norm.weight")->shape[1] = 1;
}

static void other_type(struct tensor_list *list)
{
    tensors_find(list, "model.layers.0.mlp.down_proj.weight")->dtype = "I16";
}

static void unknown_type(struct tensor_list *list)
{
    tensors_find(list, "model.layers.0.mlp.down_proj.weight")->dtype = "BF17";
}

static void mixed_types(struct tensor_list *list)
{
    tensors_find(list, "model.layers.0.mlp.up_proj.weight")->dtype = "F16";
}

static void both_forms(struct tensor_list *list)
{
    quantize_randomly(list, "model.layers.0.mlp.down_proj.weight", true, 32, false);
    tensors_add(list, "model.layers.0.mlp.down_proj.weight", "BF16", 64, 128, 1);
}

static void same_name(struct tensor_list *list)
{
    tensors_add(list, "model.norm.weight", "BF16", 0, 64, 1);
}

static void two_models(struct tensor_list *list)
{
    tensors_add(list, "language_model.model.embed_tokens.weight", "BF16", 160, 64, 1);
}

static void bad_tensors(void)
{
    SPOILT(missing_matrix, "tensor model.layers.1.mlp.up_proj.weight", "in no weight file");
    SPOILT(missing_norm, "tensor model.layers.2.self_attn.k_norm.weight", "in no weight file");
    SPOILT(other_vocabulary, "tensor model.embed_tokens.weight", "161 rows", "vocab_size", "160");
    SPOILT(other_shape, "tensor model.layers.0.self_attn.o_proj.weight", "[128, 64]", "[64, 128]");
    SPOILT(other_rank, "tensor model.layers.0.self_attn.o_proj.weight", "3 dimensions");
    SPOILT(other_norm_shape, "tensor model.layers.0.self_attn.q_norm.weight", "vector of 32");
    SPOILT(other_type, "tensor model.layers.0.mlp.down_proj.weight", "is I16");
    SPOILT(unknown_type, "tensor model.layers.0.mlp.down_proj.weight", "unknown dtype BF17");
    SPOILT(mixed_types, "tensor model.layers.0.mlp.up_proj.weight", "another form", "gate_proj");
    SPOILT(both_forms, "tensor model.layers.0.mlp.down_proj.weight", "second time");
    SPOILT(same_name, "duplicate");
    spoilt(two_models, (const char *const[]){"two models", NULL});
}

static void bad_files(void)
{
    static const char *const files[] = {"model-00001-of-00003.safetensors",
                                        "model-00002-of-00003.safetensors",
                                        "model-00003-of-00003.safetensors"};
    struct model_config config;
    struct tensor_list list;
    char dir[128], path[256];

    model_dir_config(&config);
    tensors_random(&config, "model.", "BF16", 1, &list);
    const size_t ends[] = {2, 20, list.n};

#define START(n)   (dir_make(dir, sizeof dir), write_shards(dir, &list, files, ends, n))
#define PATH(file) (snprintf(path, sizeof path, "%s/%s", dir, file), path)
    START(0);
    REFUSED(dir, -ENOENT, "model.safetensors");
    START(2);
    REFUSED(dir, -ENOENT, "model-00003-of-00003", "missing");
    START(3);
    CHECK(unlink(PATH(files[1])) == 0);
    REFUSED(dir, -ENOENT, "model-00002-of-00003", "missing");
    START(3);
    CHECK(unlink(PATH(files[0])) == 0);
    REFUSED(dir, -ENOENT, "model-00001-of-00003", "missing");
    START(3);
    write_tensors(dir, "model-00002-of-00003_layer_1.safetensors", &list, 2, 1);
    REFUSED(dir, -EINVAL, "model-00002-of-00003", "too many");
    START(3);
    write_tensors(dir, "model-00004-of-00004.safetensors", &list, 2, 1);
    REFUSED(dir, -EINVAL, "different sets");
    START(3);
    write_tensors(dir, files[2], &list, 19, list.n - 19);
    REFUSED(dir, -EINVAL, files[1], files[2], list.v[19].name, "is also in");

    /* the index */
    START(3);
    write_index(dir, &list, files, ends, 3);
    CHECK(unlink(PATH(files[1])) == 0);
    REFUSED(dir, -ENOENT, files[1], "No such file");
    START(3);
    write_text(dir, "model.safetensors.index.json", "{\"weight_map\":{\"w\":\"../x\"}}");
    REFUSED(dir, -EINVAL, "index.json", "tensor w", "directory");
    START(3);
    write_text(dir, "model.safetensors.index.json", "{\"weight_map\":[]}");
    REFUSED(dir, -EINVAL, "index.json", "weight_map");
    START(3);
    write_text(dir, "model.safetensors.index.json",
               "{\"weight_map\":{\"w\":\"model-00001-of-00003.safetensors\"}}");
    REFUSED(dir, -EINVAL, files[0], "tensor w", "the index says so");

    /* bytes */
    START(3);
    CHECK(truncate(PATH(files[1]), 7) == 0);
    REFUSED(dir, -EINVAL, files[1], "truncated");
    START(3);
    CHECK(truncate(PATH(files[1]), 100) == 0);
    REFUSED(dir, -EINVAL, files[1], "truncated");
    START(3);
    struct stat st;
    CHECK(stat(PATH(files[2]), &st) == 0 && truncate(path, st.st_size - 1) == 0);
    REFUSED(dir, -EINVAL, files[2], "tensor model.norm.weight", "ends at byte");
    START(3);
    CHECK(stat(PATH(files[2]), &st) == 0 && truncate(path, st.st_size + 1) == 0);
    REFUSED(dir, -EINVAL, files[2], "after the last tensor");
    START(3);
    write_bytes(dir, files[0], "\0\0\0\x80\0\0\0\0{}", 10);
    REFUSED(dir, -EINVAL, files[0], "header of 2147483648 bytes");
    START(3);
    CHECK(unlink(PATH(files[0])) == 0 && mkfifo(path, 0600) == 0);
    REFUSED(dir, -EINVAL, files[0], "regular");
    START(3);
    CHECK(unlink(PATH(files[0])) == 0 && symlink("nowhere", path) == 0);
    REFUSED(dir, -ENOENT, files[0]);
    tensors_free(&list);
}

static void cut_while_reading(void)
{
    char dir[128], path[256];
    struct model_config config;
    struct tensor_list list;
    struct load_plan *plan;
    struct err err;
    struct stat st;

    model_dir_config(&config);
    tensors_random(&config, "model.", "BF16", 1, &list);
    dir_make(dir, sizeof dir);
    write_model(dir, &list);
    CHECK_EQ(load_plan_create(dir, &config, IMAGE_CHUNK_MAX, &err, &plan), 0);
    uint64_t size = load_plan_model(plan)->memory.size_bytes;
    uint8_t *base = aligned_alloc(IMAGE_CHUNK_ALIGN, size);
    CHECK(base);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    CHECK(stat(path, &st) == 0 && truncate(path, st.st_size - 3) == 0);
    CHECK_EQ(load_fill(plan, base, 2, NULL, NULL, &err), -EIO);
    CHECK(strstr(err.text, "model.safetensors: tensor model.norm.weight"));
    load_plan_destroy(plan);
    free(base);
    tensors_free(&list);
    dir_remove(dir);
}

struct seen {
    uint64_t done, total;
    int calls, cancel_at;
};

static int see(void *data, uint64_t done, uint64_t total)
{
    struct seen *seen = data;
    CHECK(done > seen->done && done <= total);
    seen->done = done;
    seen->total = total;
    return ++seen->calls == seen->cancel_at;
}

static void progress(void)
{
    char dir[128];
    struct model_config config;
    struct tensor_list list;
    struct load_plan *plan;
    struct err err;
    struct seen seen = {0}, cancelled = {.cancel_at = 1};
    uint64_t total = 0;

    model_dir_config(&config);
    tensors_random(&config, "model.", "BF16", 1, &list);
    for (size_t i = 0; i < list.n; i++) {
        total += list.v[i].size;
    }
    dir_make(dir, sizeof dir);
    write_model(dir, &list);
    CHECK_EQ(load_plan_create(dir, &config, IMAGE_CHUNK_MAX, &err, &plan), 0);
    uint8_t *base = aligned_alloc(IMAGE_CHUNK_ALIGN, load_plan_model(plan)->memory.size_bytes);
    CHECK(base);
    CHECK_EQ(load_fill(plan, base, 0, see, &seen, &err), 0);
    CHECK(seen.done == total && seen.total == total);
    CHECK_EQ(load_fill(plan, base, 1, see, &cancelled, &err), -ECANCELED);
    load_plan_destroy(plan);
    free(base);
    tensors_free(&list);
    dir_remove(dir);
}

static void identity(void)
{
    char dir[128], first[LOAD_NAME_MAX], again[LOAD_NAME_MAX];
    struct model_config config;
    struct tensor_list list;
    struct err err;

    model_dir_config(&config);
    tensors_random(&config, "model.", "BF16", 1, &list);
    dir_make(dir, sizeof dir);
    CHECK_EQ(load_identity(dir, first, &err), -ENOENT);
    write_text(dir, "config.json", model_dir_config_json);
    CHECK_EQ(load_identity(dir, first, &err), -ENOENT);
    write_model(dir, &list);
    CHECK_EQ(load_identity(dir, first, &err), 0);
    CHECK(strncmp(first, "gemma3-", 7) == 0 && strlen(first) == 7 + 64);
    CHECK_EQ(load_identity(dir, again, &err), 0);
    CHECK(strcmp(first, again) == 0);
    char path[256];
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    CHECK(utimensat(AT_FDCWD, path, (struct timespec[]){{1, 0}, {1, 1}}, 0) == 0);
    CHECK_EQ(load_identity(dir, again, &err), 0);
    CHECK(strcmp(first, again) != 0);
    snprintf(first, sizeof first, "%s", again);
    write_text(dir, "config.json", "{}");
    CHECK_EQ(load_identity(dir, again, &err), 0);
    CHECK(strcmp(first, again) != 0);
    tensors_free(&list);
    dir_remove(dir);
}

/* As a user without rights, in a child: root reads everything. */
static void no_permission(void)
{
    char dir[128], path[256];
    struct model_config config;
    struct tensor_list list;

    model_dir_config(&config);
    tensors_random(&config, "model.", "BF16", 1, &list);
    dir_make(dir, sizeof dir);
    write_model(dir, &list);
    tensors_free(&list);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    for (int file = 0; file < 2; file++) {
        CHECK(chmod(dir, file ? 0755 : 0) == 0 && chmod(path, 0) == 0);
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            struct image image;
            struct err err = {""};
            char name[LOAD_NAME_MAX];
            if (geteuid() == 0 && setresuid(65534, 65534, 65534) < 0) {
                _exit(2);
            }
            int r = load(dir, &image, &err);
            bool named = strstr(err.text, file ? "model.safetensors" : dir) &&
                         strstr(err.text, "Permission denied");
            int r_name = file ? -EACCES : load_identity(dir, name, &err);
            _exit(r == -EACCES && named && r_name == -EACCES ? 0 : 1);
        }
        int status;
        CHECK(waitpid(pid, &status, 0) == pid);
        CHECK_EQ(status, 0);
    }
    dir_remove(dir);
}

int main(void)
{
    int fds = count_fds(NULL);
    size_t used = 0;
    /* the first round warms allocators and caches; the second must leave nothing */
    for (int i = 0; i < 2; i++) {
        used = memory_used();
        exact("BF16", WEIGHT_BF16);
        exact("F16", WEIGHT_F16);
        exact("F32", WEIGHT_F32);
        layouts();
        untied_head();
        quantized();
        bad_tensors();
        bad_files();
        cut_while_reading();
        progress();
        identity();
        no_permission();
    }
    CHECK_EQ(memory_used(), used);
    CHECK_EQ(count_fds(NULL), fds);
    return 0;
}
