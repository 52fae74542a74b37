/* SPDX-License-Identifier: MIT */
/* Small Hugging Face model directories: see model_dir.h. */
#include "model_dir.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "half.h"

const char model_dir_config_json[] =
    "{\"architectures\": [\"Gemma3ForCausalLM\"], \"model_type\": \"gemma3_text\",\n"
    " \"num_hidden_layers\": 3, \"hidden_size\": 64, \"intermediate_size\": 128,\n"
    " \"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"head_dim\": 32,\n"
    " \"vocab_size\": 160, \"sliding_window\": 8, \"max_position_embeddings\": 64,\n"
    " \"query_pre_attn_scalar\": 16, \"sliding_window_pattern\": 3, \"rms_norm_eps\": 1e-06,\n"
    " \"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 8.0},\n"
    " \"bos_token_id\": 2, \"eos_token_id\": 1, \"pad_token_id\": 0}\n";

void model_dir_config(struct model_config *ret)
{
    struct err err;
    CHECK_EQ(config_parse("config.json", model_dir_config_json, strlen(model_dir_config_json), ret,
                          &err),
             0);
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static uint32_t dtype_bytes(const char *dtype)
{
    return strcmp(dtype, "F32") == 0 ? 4 : strstr(dtype, "16") ? 2 : 1;
}

static void fill(struct dir_tensor *t, uint64_t seed)
{
    uint64_t state = seed * 0x9e3779b97f4a7c15 + 88172645463325252;
    uint64_t n = t->size / dtype_bytes(t->dtype);
    for (uint64_t i = 0; i < n; i++) {
        float x = (float)(int32_t)(next_random(&state) >> 32) * 0x1p-33f;
        uint16_t half;
        if (strcmp(t->dtype, "F32") == 0) {
            memcpy(t->data + 4 * i, &x, 4);
        } else if (strcmp(t->dtype, "F16") == 0) {
            half = f32_to_f16(x);
            memcpy(t->data + 2 * i, &half, 2);
        } else if (strcmp(t->dtype, "BF16") == 0) {
            half = f32_to_bf16(x);
            memcpy(t->data + 2 * i, &half, 2);
        } else {
            t->data[i] = (uint8_t)(1 + (uint32_t)state % 100);
        }
    }
}

void tensors_add(struct tensor_list *list, const char *name, const char *dtype, uint64_t rows,
                 uint64_t cols, uint64_t seed)
{
    struct dir_tensor t = {.dtype = dtype, .n_dims = rows ? 2 : 1, .shape = {rows, cols}};
    if (!rows) {
        t.shape[0] = cols;
        t.shape[1] = 1;
    }
    snprintf(t.name, sizeof t.name, "%s", name);
    t.size = t.shape[0] * t.shape[1] * dtype_bytes(dtype);
    t.data = malloc(t.size);
    list->v = realloc(list->v, (list->n + 1) * sizeof *list->v);
    CHECK(t.data && list->v);
    fill(&t, seed + list->n);
    list->v[list->n++] = t;
}

void tensors_random(const struct model_config *c, const char *prefix, const char *dtype,
                    uint64_t seed, struct tensor_list *ret)
{
    uint32_t q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    const struct {
        const char *name;
        uint32_t rows, cols;
    } layer[] =
        {{"input_layernorm", 0, c->hidden},           {"mlp.down_proj", c->hidden, c->ffn},
         {"mlp.gate_proj", c->ffn, c->hidden},        {"mlp.up_proj", c->ffn, c->hidden},
         {"post_attention_layernorm", 0, c->hidden},  {"post_feedforward_layernorm", 0, c->hidden},
         {"pre_feedforward_layernorm", 0, c->hidden}, {"self_attn.k_norm", 0, c->head_dim},
         {"self_attn.k_proj", kv, c->hidden},         {"self_attn.o_proj", c->hidden, q},
         {"self_attn.q_norm", 0, c->head_dim},        {"self_attn.q_proj", q, c->hidden},
         {"self_attn.v_proj", kv, c->hidden}};
    char name[160];

    *ret = (struct tensor_list){0};
    snprintf(name, sizeof name, "%sembed_tokens.weight", prefix);
    tensors_add(ret, name, dtype, c->vocab, c->hidden, seed);
    for (uint32_t l = 0; l < c->n_layers; l++) {
        for (size_t i = 0; i < sizeof layer / sizeof layer[0]; i++) {
            snprintf(name, sizeof name, "%slayers.%" PRIu32 ".%s.weight", prefix, l, layer[i].name);
            tensors_add(ret, name, dtype, layer[i].rows, layer[i].cols, seed);
        }
    }
    snprintf(name, sizeof name, "%snorm.weight", prefix);
    tensors_add(ret, name, dtype, 0, c->hidden, seed);
}

void tensors_free(struct tensor_list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        free(list->v[i].data);
    }
    free(list->v);
    *list = (struct tensor_list){0};
}

struct dir_tensor *tensors_find(struct tensor_list *list, const char *name)
{
    for (size_t i = 0; i < list->n; i++) {
        if (strcmp(list->v[i].name, name) == 0) {
            return &list->v[i];
        }
    }
    fprintf(stderr, "no tensor %s\n", name);
    exit(1);
}

void tensors_remove(struct tensor_list *list, const char *name)
{
    struct dir_tensor *t = tensors_find(list, name);
    free(t->data);
    memmove(t, t + 1, (size_t)(list->v + list->n - (t + 1)) * sizeof *t);
    list->n--;
}

void dir_make(char *path, size_t size)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(path, size, "%s/gttd-test-XXXXXX", tmp ? tmp : "/tmp");
    CHECK(mkdtemp(path));
}

void dir_remove(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    CHECK(dir);
    while ((entry = readdir(dir))) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            CHECK(unlinkat(dirfd(dir), entry->d_name, 0) == 0);
        }
    }
    closedir(dir);
    CHECK(rmdir(path) == 0);
}

static FILE *create(const char *dir, const char *file)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    FILE *f = fopen(path, "wb");
    CHECK(f);
    return f;
}

void write_bytes(const char *dir, const char *file, const void *data, size_t size)
{
    FILE *f = create(dir, file);
    CHECK(fwrite(data, 1, size, f) == size);
    CHECK(fclose(f) == 0);
}

void write_text(const char *dir, const char *file, const char *text)
{
    write_bytes(dir, file, text, strlen(text));
}

void write_tensors(const char *dir, const char *file, const struct tensor_list *list, size_t first,
                   size_t n)
{
    char *json = NULL;
    size_t json_size = 0;
    uint64_t off = 0;
    FILE *text = open_memstream(&json, &json_size);
    CHECK(text);
    fprintf(text, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = first; i < first + n; i++) {
        const struct dir_tensor *t = &list->v[i];
        fprintf(text, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name, t->dtype);
        for (uint32_t k = 0; k < t->n_dims; k++) {
            fprintf(text, "%s%" PRIu64, k ? "," : "", t->shape[k]);
        }
        fprintf(text, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", off, off + t->size);
        off += t->size;
    }
    fprintf(text, "}");
    CHECK(fclose(text) == 0);

    FILE *f = create(dir, file);
    uint64_t length = json_size;
    CHECK(fwrite(&length, 8, 1, f) == 1);
    CHECK(fwrite(json, 1, json_size, f) == json_size);
    for (size_t i = first; i < first + n; i++) {
        CHECK(fwrite(list->v[i].data, 1, list->v[i].size, f) == list->v[i].size);
    }
    CHECK(fclose(f) == 0);
    free(json);
}

void write_model(const char *dir, const struct tensor_list *list)
{
    write_text(dir, "config.json", model_dir_config_json);
    write_tensors(dir, "model.safetensors", list, 0, list->n);
}

size_t memory_used(void)
{
    return getenv("GLIBC_TUNABLES") ? mallinfo2().uordblks : 0;
}
