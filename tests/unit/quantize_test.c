/* SPDX-License-Identifier: MIT */
/* Quantizing: rows against a plain search, whole directories against the rows, and no half output.
 */
#include "quantize.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <unistd.h>

#include "check.h"
#include "half.h"
#include "image.h"
#include "load.h"
#include "model_dir.h"
#include "quantize_row.h"

static void dequantize(uint32_t type, uint32_t group, const uint8_t *q, const uint16_t *scale,
                       uint32_t cols, float *ret)
{
    uint8_t image[4096] = {0};
    struct weight w =
        {.type = type, .rows = 1, .cols = cols, .group = group, .data_off = 256, .scale_off = 2048};
    memcpy(image + w.data_off, q, weight_data_bytes(&w));
    memcpy(image + w.scale_off, scale, weight_scale_bytes(&w));
    weight_dequant_row(&w, image, 0, ret);
}

static double error(const float *a, const float *b, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    }
    return sum;
}

/* The best that any f16 scale could do for a group, by trying very many. */
static double best_possible(const float *w, uint32_t group)
{
    double best = INFINITY;
    for (uint32_t h = 0; h < 0x7c00; h += 3) {
        for (int sign = -1; sign <= 1; sign += 2) {
            double s = sign * (double)f16_to_f32((uint16_t)h), sum = 0;
            for (uint32_t i = 0; i < group && sum < best; i++) {
                double q = s != 0 ? fmin(7, fmax(-8, rint(w[i] / s))) : 0;
                sum += (w[i] - q * s) * (w[i] - q * s);
            }
            best = sum < best ? sum : best;
        }
    }
    return best;
}

static void rows(void)
{
    enum { COLS = 256 };
    float w[COLS], back[COLS];
    uint8_t q[COLS];
    uint16_t scale[COLS / 32];
    uint64_t state = 12345;
    double q4_sum = 0, best_sum = 0;

    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < COLS; i++) {
            double sum = 0; /* near enough to normal */
            for (int k = 0; k < 6; k++) {
                state = state * 6364136223846793005 + 1442695040888963407;
                sum += (double)(int32_t)(state >> 32) * 0x1p-31;
            }
            w[i] = (float)(sum * 0.02);
        }
        CHECK_EQ(quantize_row(WEIGHT_Q8, 64, w, COLS, q, scale), 0);
        dequantize(WEIGHT_Q8, 64, q, scale, COLS, back);
        for (int i = 0; i < COLS; i++) {
            CHECK(fabsf(w[i] - back[i]) <=
                  0.502f * f16_to_f32(scale[i / 64]) + 127 * 0x1p-11f * f16_to_f32(scale[i / 64]));
            CHECK((int8_t)q[i] != -128);
        }
        CHECK_EQ(quantize_row(WEIGHT_Q4, 32, w, COLS, q, scale), 0);
        dequantize(WEIGHT_Q4, 32, q, scale, COLS, back);
        q4_sum += error(w, back, COLS);
        for (int i = 0; i < COLS; i += 32) {
            best_sum += best_possible(w + i, 32);
        }
    }
    /* 25 scales, refitted, come within some percent of all of them */
    CHECK(q4_sum < 1.1 * best_sum);

    /* corners */
    memset(w, 0, sizeof w);
    CHECK_EQ(quantize_row(WEIGHT_Q4, 128, w, COLS, q, scale), 0);
    dequantize(WEIGHT_Q4, 128, q, scale, COLS, back);
    CHECK(error(w, back, COLS) == 0 && q[0] == 0x88);
    CHECK_EQ(quantize_row(WEIGHT_Q8, 128, w, COLS, q, scale), 0);
    CHECK(q[0] == 0 && scale[0] == 0);
    w[5] = -1;
    w[6] = 0.875f; /* -8 and 7 steps of one scale */
    CHECK_EQ(quantize_row(WEIGHT_Q4, 64, w, COLS, q, scale), 0);
    dequantize(WEIGHT_Q4, 64, q, scale, COLS, back);
    CHECK(error(w, back, COLS) == 0);
    w[7] = 1e-30f; /* too small for any scale: becomes 0 */
    w[5] = w[6] = 0;
    CHECK_EQ(quantize_row(WEIGHT_Q4, 64, w, COLS, q, scale), 0);
    CHECK_EQ(quantize_row(WEIGHT_Q8, 64, w, COLS, q, scale), 0);
    dequantize(WEIGHT_Q8, 64, q, scale, COLS, back);
    CHECK(back[7] == 0);
    const float bad[] = {NAN, INFINITY, -INFINITY, 65536, -1e38f};
    for (int i = 0; i < 5; i++) {
        w[200] = bad[i];
        CHECK_EQ(quantize_row(WEIGHT_Q4, 32, w, COLS, q, scale), -EDOM);
        CHECK_EQ(quantize_row(WEIGHT_Q8, 32, w, COLS, q, scale), -EDOM);
    }
}

static void load(const char *dir, struct model *ret, uint8_t **ret_base)
{
    struct model_config config;
    struct load_plan *plan;
    struct err err;
    if (config_load(dir, &config, &err) < 0 ||
        load_plan_create(dir, &config, IMAGE_CHUNK_MAX, &err, &plan) < 0) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    *ret = *load_plan_model(plan);
    *ret_base = aligned_alloc(IMAGE_CHUNK_ALIGN, ret->memory.size_bytes);
    CHECK(*ret_base);
    memset(*ret_base, 0, ret->memory.size_bytes);
    CHECK_EQ(load_fill(plan, *ret_base, 1, NULL, NULL, &err), 0);
    load_plan_destroy(plan);
}

/* Matrix a, quantized directly, is matrix b as loaded. */
static void compare(const struct weight *a, const uint8_t *base_a, const struct weight *b,
                    const uint8_t *base_b)
{
    float w[512];
    uint8_t q[512];
    uint16_t scale[16];
    CHECK(a->cols <= 512 && b->group);
    for (uint32_t r = 0; r < a->rows; r++) {
        uint64_t row_bytes = weight_data_bytes(b) / b->rows;
        uint64_t scale_bytes = weight_scale_bytes(b) / b->rows;
        weight_dequant_row(a, base_a, r, w);
        CHECK_EQ(quantize_row(b->type, b->group, w, a->cols, q, scale), 0);
        CHECK(memcmp(q, base_b + b->data_off + r * row_bytes, row_bytes) == 0);
        CHECK(memcmp(scale, base_b + b->scale_off + r * scale_bytes, scale_bytes) == 0);
    }
}

/* Files of dir whose names contain `part`. */
static int count_files(const char *dir, const char *part)
{
    int n = 0;
    DIR *stream = opendir(dir);
    struct dirent *entry;
    CHECK(stream);
    while ((entry = readdir(stream))) {
        n += strstr(entry->d_name, part) != NULL;
    }
    closedir(stream);
    return n;
}

static void directories(void)
{
    char top[128], in[192], out[192], out2[192];
    struct model_config config;
    struct tensor_list list;
    struct model plain, quantized, sharded;
    uint8_t *base_plain, *base_quantized, *base_sharded;
    struct quantize_params params;
    struct err err;
    const struct quantize_override overrides[] = {
        {.name = "layers.1.mlp.down_proj", .type = WEIGHT_Q8, .group = 128},
        {.name = "layers.2.self_attn.o_proj", .type = 0},
    };

    dir_make(top, sizeof top);
    dir_make(in, sizeof in);
    snprintf(out, sizeof out, "%s/out", top);
    snprintf(out2, sizeof out2, "%s/out2", top);
    model_dir_config(&config);
    tensors_random(&config, "language_model.model.", "BF16", 4, &list);
    tensors_add(&list, "vision_tower.x", "F32", 2, 2, 1);
    write_model(in, &list);
    write_text(in, "tokenizer.json", "{\"some\": \"tokenizer\"}");
    write_text(in, "generation_config.json", "{\"eos_token_id\": [1, 106]}");

    quantize_params_init(&params, WEIGHT_Q4);
    params.overrides = overrides;
    params.n_overrides = 2;
    if (quantize_directory(in, out, &params, NULL, NULL, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    params.shard_max_bytes = 10000;
    params.n_threads = 3;
    CHECK_EQ(quantize_directory(in, out2, &params, NULL, NULL, &err), 0);
    CHECK_EQ(count_files(out, "model-00001-of-00001.safetensors"), 1);
    CHECK(count_files(out2, "model-000") > 5);
    CHECK_EQ(count_files(out, "tokenizer.json") + count_files(out, "generation_config.json"), 2);
    CHECK_EQ(count_files(top, "partial"), 0);

    load(in, &plain, &base_plain);
    load(out, &quantized, &base_quantized);
    load(out2, &sharded, &base_sharded);
    CHECK_EQ(quantized.config.n_eos, 2);
    CHECK_EQ(quantized.memory.size_bytes, sharded.memory.size_bytes);
    CHECK(memcmp(base_quantized, base_sharded, sharded.memory.size_bytes) == 0);
    CHECK(quantized.embed.type == WEIGHT_Q8 && quantized.layers[0].qkv.type == WEIGHT_Q4);
    CHECK(quantized.layers[1].down.type == WEIGHT_Q8 && quantized.layers[1].down.group == 128);
    CHECK_EQ(quantized.layers[2].attn_out.type, WEIGHT_BF16);
    CHECK(memcmp(base_quantized + quantized.layers[1].q_norm_off,
                 base_plain + plain.layers[1].q_norm_off, 4 * config.head_dim) == 0);
    compare(&plain.embed, base_plain, &quantized.embed, base_quantized);
    for (uint32_t l = 0; l < config.n_layers; l++) {
        compare(&plain.layers[l].qkv, base_plain, &quantized.layers[l].qkv, base_quantized);
        compare(&plain.layers[l].gate_up, base_plain, &quantized.layers[l].gate_up, base_quantized);
        compare(&plain.layers[l].down, base_plain, &quantized.layers[l].down, base_quantized);
    }
    free(base_plain);
    free(base_quantized);
    free(base_sharded);

    /* refusals: an existing output, a source that is quantized, formats that are none */
    CHECK_EQ(quantize_directory(in, out, &params, NULL, NULL, &err), -EEXIST);
    dir_remove(out2);
    CHECK_EQ(quantize_directory(out, out2, &params, NULL, NULL, &err), -EINVAL);
    CHECK(strstr(err.text, "quantized already"));
    params.group = 16;
    CHECK_EQ(quantize_directory(in, out2, &params, NULL, NULL, &err), -EINVAL);
    params.group = 128;
    CHECK_EQ(quantize_directory(in, out2, &params, NULL, NULL, &err), -EINVAL);
    CHECK(strstr(err.text, "do not divide into groups of 128"));
    dir_remove(out);
    dir_remove(in);
    tensors_free(&list);
    CHECK(rmdir(top) == 0);
}

static int cancel(void *data, uint64_t done, uint64_t total)
{
    (void)data;
    return done > total / 2;
}

/* Whatever stops it, nothing is left. */
static void nothing_left(void)
{
    char top[128], in[192], out[192];
    struct model_config config;
    struct tensor_list list;
    struct quantize_params params;
    struct err err;

    dir_make(top, sizeof top);
    dir_make(in, sizeof in);
    snprintf(out, sizeof out, "%s/out", top);
    model_dir_config(&config);
    tensors_random(&config, "model.", "BF16", 4, &list);
    write_model(in, &list);
    quantize_params_init(&params, WEIGHT_Q8);
    CHECK_EQ(quantize_directory(in, out, &params, cancel, NULL, &err), -ECANCELED);
    CHECK_EQ(count_files(top, "out"), 0);

    struct quantize_override wrong = {.name = "layers.9.mlp.down_proj",
                                      .type = WEIGHT_Q8,
                                      .group = 32};
    params.overrides = &wrong;
    params.n_overrides = 1;
    CHECK_EQ(quantize_directory(in, out, &params, NULL, NULL, &err), -EINVAL);
    CHECK(strstr(err.text, "layers.9.mlp.down_proj"));
    wrong.name = "layers.1.mlp.up_proj";
    wrong.group = 64; /* gate_proj has groups of 32: they could not be fused */
    CHECK_EQ(quantize_directory(in, out, &params, NULL, NULL, &err), -EINVAL);
    CHECK(strstr(err.text, "another form"));
    params.n_overrides = 0;

    uint16_t nan = 0x7fc0;
    struct dir_tensor *t = tensors_find(&list, "model.layers.2.mlp.down_proj.weight");
    memcpy(t->data + 2 * (128 * 30 + 5), &nan, 2);
    write_model(in, &list);
    CHECK_EQ(quantize_directory(in, out, &params, NULL, NULL, &err), -EINVAL);
    CHECK(strstr(err.text, "layers.2.mlp.down_proj.weight: row 30"));
    CHECK_EQ(count_files(top, "out"), 0);

    snprintf(out, sizeof out, "%s/no/out", top);
    CHECK_EQ(quantize_directory(in, out, &params, NULL, NULL, &err), -ENOENT);
    tensors_free(&list);
    dir_remove(in);
    CHECK(rmdir(top) == 0);
}

int main(void)
{
    int fds = count_fds(NULL);
    size_t used = 0;
    rows();
    for (int i = 0; i < 2; i++) {
        used = memory_used();
        directories();
        nothing_left();
    }
    CHECK_EQ(memory_used(), used);
    CHECK_EQ(count_fds(NULL), fds);
    return 0;
}
