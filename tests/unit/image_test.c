/* SPDX-License-Identifier: MIT */
/* Images: planned, filled, bound, and refused when one byte of their table lies. */
#include <errno.h>
#include <math.h>
#include <sys/mman.h>

#include "check.h"
#include "half.h"
#include "image.h"
#include "random_model.h"

static struct model_config small_config(bool tied)
{
    return (struct model_config){
        .n_layers = 3,
        .hidden = 128,
        .ffn = 256,
        .n_heads = 4,
        .n_kv_heads = 2,
        .head_dim = 32,
        .vocab = 320,
        .window = 16,
        .max_pos = 128,
        .rms_eps = 1e-6f,
        .query_scale = 0.25f,
        .rope_theta_local = 1e4f,
        .rope_theta_global = 1e6f,
        .rope_factor_global = 8,
        .tied_head = tied,
        .layer_is_global = {false, false, true},
    };
}

static void half_is_exact(void)
{
    for (uint32_t h = 0; h < 65536; h++) {
        float f = f16_to_f32((uint16_t)h);
        CHECK(isnan(f) ? isnan(f16_to_f32(f32_to_f16(f))) : f32_to_f16(f) == h);
        float b = bf16_to_f32((uint16_t)h);
        CHECK(isnan(b) ? isnan(bf16_to_f32(f32_to_bf16(b))) : f32_to_bf16(b) == h);
    }
    CHECK(f16_to_f32(0x3c00) == 1 && f16_to_f32(1) == 0x1p-24f && f16_to_f32(0x7bff) == 65504);
    CHECK_EQ(f32_to_f16(65519.996f), 0x7bff);
    CHECK_EQ(f32_to_f16(65520), 0x7c00);
    CHECK_EQ(f32_to_f16(0x1p-25f), 0);            /* tie to even */
    CHECK_EQ(f32_to_f16(0x1.8p-25f), 1);          /* above the tie */
    CHECK_EQ(f32_to_f16(1 + 0x1p-11f), 0x3c00);   /* tie to even */
    CHECK_EQ(f32_to_f16(1 + 0x1.8p-10f), 0x3c02); /* tie to even, upwards */
    CHECK_EQ(f32_to_bf16(1 + 0x1p-8f), 0x3f80);   /* tie to even */
    CHECK_EQ(f32_to_bf16(1 + 0x1.8p-7f), 0x3f82); /* tie to even, upwards */
    CHECK_EQ(f32_to_f16(-0x1.ff8p-15f), 0x83ff);  /* largest negative subnormal */
}

static void statistics(const struct model *model, const struct weight *w)
{
    float row[1024];
    double sum = 0, squares = 0, n = (double)w->rows * w->cols;
    for (uint32_t r = 0; r < w->rows; r++) {
        weight_dequant_row(w, model->memory.base, r, row);
        for (uint32_t k = 0; k < w->cols; k++) {
            CHECK(isfinite(row[k]));
            sum += row[k];
            squares += (double)row[k] * row[k];
        }
    }
    double want = 1 / sqrt(w->cols), std = sqrt(squares / n);
    CHECK(std > 0.8 * want && std < 1.3 * want);
    CHECK(fabs(sum / n) < 0.2 * want);
}

static void fills_and_binds(struct weight_format format, bool tied)
{
    struct model_config config = small_config(tied);
    struct image_formats formats;
    struct model model, again;
    void *base, *base_again;

    random_formats(&config, format, &formats);
    random_model_create(&config, &formats, 7, &model, &base);
    random_model_create(&config, &formats, 7, &again, &base_again);
    CHECK(memcmp(base, base_again, model.memory.size_bytes) == 0);
    CHECK((uintptr_t)base % IMAGE_CHUNK_ALIGN == 0);
    CHECK_EQ(model.memory.n_chunks, 1);
    CHECK_EQ(model.embed.data_off == model.head.data_off, tied);
    CHECK_EQ(model.layers[2].qkv.rows, (4 + 2 * 2) * 32);
    CHECK_EQ(!!model.layers[2].down.bias_off, format.affine);
    statistics(&model, &model.embed);
    statistics(&model, &model.layers[1].gate_up);
    statistics(&model, &model.layers[2].down);
    random_model_destroy(&again, base_again);

    /* other threads, same bytes; other seed, other bytes */
    random_model_create(&config, &formats, 8, &again, &base_again);
    CHECK(memcmp(base, base_again, model.memory.size_bytes) != 0);
    memset(base_again, 0, again.memory.size_bytes);
    image_fill_random(&again, base_again, 7, 5);
    CHECK(memcmp(base, base_again, model.memory.size_bytes) == 0);
    random_model_destroy(&again, base_again);
    random_model_destroy(&model, base);
}

static void many_chunks(void)
{
    struct model_config config = small_config(false);
    config.hidden = 512;
    config.ffn = 2048;
    config.vocab = 2000;
    struct image_formats formats;
    struct model model;
    void *base;

    random_formats(&config, (struct weight_format){.type = WEIGHT_Q8, .group = 32}, &formats);
    random_model_create_chunked(&config, &formats, IMAGE_CHUNK_ALIGN, 1, &model, &base);
    CHECK(model.memory.n_chunks > 4);
    CHECK_EQ(model.memory.chunk_bytes, IMAGE_CHUNK_ALIGN);
    for (uint32_t i = 0; i < image_n_slots(&config); i++) {
        struct image_slot slot;
        image_slot(&model, i, &slot);
        if (slot.matrix) {
            uint64_t end = slot.matrix->data_off + weight_data_bytes(slot.matrix);
            CHECK(slot.matrix->data_off / IMAGE_CHUNK_ALIGN == (end - 1) / IMAGE_CHUNK_ALIGN);
        }
    }
    random_model_destroy(&model, base);
}

static void plan_refuses(void)
{
    struct model_config config = small_config(true);
    struct image_formats formats;
    struct model model;
    struct err err;

    random_formats(&config, (struct weight_format){.type = WEIGHT_Q4, .group = 32}, &formats);
    CHECK_EQ(image_plan(&config, &formats, 12345, &model, &err), -EINVAL);
    formats.layers[1].down.group = 48;
    CHECK_EQ(image_plan(&config, &formats, IMAGE_CHUNK_MAX, &model, &err), -EINVAL);
    CHECK(strstr(err.text, "1.down"));
    formats.layers[1].down.group = 128;
    CHECK_EQ(image_plan(&config, &formats, IMAGE_CHUNK_MAX, &model, &err), 0);
    config.ffn = 192;
    CHECK_EQ(image_plan(&config, &formats, IMAGE_CHUNK_MAX, &model, &err), -EINVAL);
    CHECK(strstr(err.text, "1.down"));
    random_formats(&config, (struct weight_format){.type = WEIGHT_BF16, .affine = true}, &formats);
    CHECK_EQ(image_plan(&config, &formats, IMAGE_CHUNK_MAX, &model, &err), -EINVAL);
    random_formats(&config, (struct weight_format){.type = WEIGHT_BF16}, &formats);
    config.vocab = 20000;
    CHECK_EQ(image_plan(&config, &formats, IMAGE_CHUNK_ALIGN, &model, &err), -E2BIG);
    CHECK(strstr(err.text, "embed"));
}

/* Every single-byte change of header and table is refused, or leaves an image that is in bounds. */
static void bind_refuses(void)
{
    struct model_config config = small_config(false);
    struct image_formats formats;
    struct model model, out;
    void *base;
    struct err err;
    int n_refused = 0;

    random_formats(&config, (struct weight_format){.type = WEIGHT_Q4, .group = 32, .affine = true},
                   &formats);
    random_model_create(&config, &formats, 3, &model, &base);
    uint8_t *bytes = base;
    size_t table =
        sizeof(struct image_header) + image_n_slots(&config) * sizeof(struct image_tensor);
    for (size_t i = 0; i < table; i++) {
        for (int bit = 0; bit < 8; bit++) {
            bytes[i] ^= (uint8_t)(1 << bit);
            int r = image_bind(&config, &model.memory, &out, &err);
            if (r < 0) {
                CHECK_EQ(r, -EINVAL);
                CHECK(err.text[0]);
                n_refused++;
            } else {
                CHECK(out.layers[2].down.data_off + weight_data_bytes(&out.layers[2].down) <=
                      out.memory.size_bytes);
            }
            bytes[i] ^= (uint8_t)(1 << bit);
        }
    }
    CHECK(n_refused > (int)table * 6);
    CHECK_EQ(image_bind(&config, &model.memory, &out, &err), 0);
    struct model_config other = config;
    other.vocab++;
    CHECK_EQ(image_bind(&other, &model.memory, &out, &err), -EINVAL);
    CHECK(strstr(err.text, "embed"));
    struct weight_memory memory = model.memory;
    memory.n_chunks = 2;
    CHECK_EQ(image_bind(&config, &memory, &out, &err), -EINVAL);
    random_model_destroy(&model, base);
}

static void true_shapes(void)
{
    static const char *const sizes[] = {"270m", "1b", "4b", "12b", "27b"};
    static const double billions[] = {0.268, 1.0, 3.88, 11.77, 27.0};
    struct model_config config;
    struct image_formats formats;
    struct model model;
    struct err err;

    CHECK_EQ(config_known("2b", &config), -ENOENT);
    for (int i = 0; i < 5; i++) {
        CHECK_EQ(config_known(sizes[i], &config), 0);
        random_formats(&config, (struct weight_format){.type = WEIGHT_Q4, .group = 32}, &formats);
        formats.embed = (struct weight_format){.type = WEIGHT_Q8, .group = 32};
        CHECK_EQ(image_plan(&config, &formats, IMAGE_CHUNK_MAX, &model, &err), 0);
        double n = (double)model.embed.rows * model.embed.cols;
        for (uint32_t l = 0; l < config.n_layers; l++) {
            const struct model_layer *layer = &model.layers[l];
            n += (double)layer->qkv.rows * layer->qkv.cols +
                 (double)layer->attn_out.rows * layer->attn_out.cols +
                 (double)layer->gate_up.rows * layer->gate_up.cols +
                 (double)layer->down.rows * layer->down.cols;
        }
        CHECK(fabs(n / 1e9 / billions[i] - 1) < 0.02);
        CHECK(model_bytes_per_token(&model) < model.memory.size_bytes);
        CHECK(model_bytes_per_token(&model) > 0.9 * model.memory.size_bytes);
    }
}

int main(void)
{
    half_is_exact();
    fills_and_binds((struct weight_format){.type = WEIGHT_F32}, true);
    fills_and_binds((struct weight_format){.type = WEIGHT_F16}, false);
    fills_and_binds((struct weight_format){.type = WEIGHT_BF16}, true);
    fills_and_binds((struct weight_format){.type = WEIGHT_Q4, .group = 32}, true);
    fills_and_binds((struct weight_format){.type = WEIGHT_Q4, .group = 64, .affine = true}, false);
    fills_and_binds((struct weight_format){.type = WEIGHT_Q8, .group = 128}, true);
    fills_and_binds((struct weight_format){.type = WEIGHT_Q8, .group = 32, .affine = true}, true);
    many_chunks();
    plan_refuses();
    bind_refuses();
    true_shapes();
    return 0;
}
