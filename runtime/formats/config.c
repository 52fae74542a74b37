/* SPDX-License-Identifier: MIT */
/*
 * config.json to struct model_config. Absent keys have the defaults of transformers'
 * Gemma3TextConfig, which the published multimodal configs rely on; what the engine does not
 * compute is refused by name. Knows no weights.
 * Source: transformers, models/gemma3/configuration_gemma3.py.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "gttd_util.h"
#include "json_file.h"

/* What one parse needs everywhere. */
struct parse {
    const char *file;
    const json_t *root;
    const json_t *text; /* the text model's object: root, or root's text_config */
    struct model_config *config;
    struct err *err;
};

static int get_u32(const struct parse *p, const char *key, uint32_t min, uint32_t max,
                   uint32_t fallback, uint32_t *ret)
{
    *ret = fallback;
    return json_get_u32(p->file, p->text, key, min, max, ret, p->err);
}

/* Find the text model's object, and refuse what is no Gemma 3. */
static int find_text_config(struct parse *p)
{
    const char *type = NULL;
    json_t *text = NULL;

    int r = json_get_string(p->file, p->root, "model_type", &type, p->err);
    if (r < 0) {
        return r;
    }
    if (!type) {
        return err_set(p->err, -EINVAL, "%s: has no model_type", p->file);
    }
    if (strcmp(type, "gemma3_text") == 0) {
        p->text = p->root;
        return 0;
    }
    if (strcmp(type, "gemma3") != 0) {
        return err_set(p->err, -EINVAL,
                       "%s: model_type %.40s is not supported, only gemma3_text and gemma3 are",
                       p->file, type);
    }
    r = json_get_object(p->file, p->root, "text_config", &text, p->err);
    if (r < 0) {
        return r;
    }
    if (!text) {
        return err_set(p->err, -EINVAL, "%s: has no text_config", p->file);
    }
    p->text = text;
    type = "gemma3_text";
    r = json_get_string(p->file, text, "model_type", &type, p->err);
    if (r == 0 && strcmp(type, "gemma3_text") != 0) {
        return err_set(p->err, -EINVAL, "%s: model_type %.40s of text_config is not gemma3_text",
                       p->file, type);
    }
    return r;
}

/* Things Gemma 3 configs can say that the engine does not compute. */
static int refuse_unsupported(const struct parse *p)
{
    static const char *const must_be_null[] = {"attn_logit_softcapping", "final_logit_softcapping"};
    static const char *const must_be_false[] = {"attention_bias", "use_bidirectional_attention"};
    const char *activation = "gelu_pytorch_tanh", *method = NULL;
    json_t *quantization = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(must_be_null); i++) {
        const json_t *value = json_object_get(p->text, must_be_null[i]);
        if (value && !json_is_null(value)) {
            return err_set(p->err, -EINVAL, "%s: %s is not supported", p->file, must_be_null[i]);
        }
    }
    for (size_t i = 0; i < ARRAY_SIZE(must_be_false); i++) {
        bool value = false;
        int r = json_get_bool(p->file, p->text, must_be_false[i], &value, p->err);
        if (r < 0) {
            return r;
        }
        if (value) {
            return err_set(p->err, -EINVAL, "%s: %s is not supported", p->file, must_be_false[i]);
        }
    }
    int r = json_get_string(p->file, p->text, "hidden_activation", &activation, p->err);
    if (r == 0 && strcmp(activation, "gelu_pytorch_tanh") != 0) {
        return err_set(p->err, -EINVAL, "%s: hidden_activation %.40s is not supported", p->file,
                       activation);
    }
    if (r == 0) {
        r = json_get_object(p->file, p->root, "quantization_config", &quantization, p->err);
    }
    if (r == 0 && !quantization) {
        r = json_get_object(p->file, p->text, "quantization_config", &quantization, p->err);
    }
    if (r < 0 || !quantization) {
        return r;
    }
    r = json_get_string(p->file, quantization, "quant_method", &method, p->err);
    if (r == 0 && (!method || strcmp(method, "gttd") != 0)) {
        return err_set(p->err, -EINVAL, "%s: weights quantized by %.40s are not supported", p->file,
                       method ? method : "an unnamed method");
    }
    return r;
}

static int parse_shape(const struct parse *p)
{
    struct model_config *c = p->config;
    float scalar = 256;
    int r;

    c->rms_eps = 1e-6f;
    if ((r = get_u32(p, "num_hidden_layers", 1, CONFIG_MAX_LAYERS, 26, &c->n_layers)) < 0 ||
        (r = get_u32(p, "hidden_size", 2, 1 << 16, 2304, &c->hidden)) < 0 ||
        (r = get_u32(p, "intermediate_size", 2, 1 << 20, 9216, &c->ffn)) < 0 ||
        (r = get_u32(p, "num_attention_heads", 1, 1024, 8, &c->n_heads)) < 0 ||
        (r = get_u32(p, "num_key_value_heads", 1, 1024, 4, &c->n_kv_heads)) < 0 ||
        (r = get_u32(p, "head_dim", 2, 1024, 256, &c->head_dim)) < 0 ||
        (r = get_u32(p, "vocab_size", 1, 1 << 24, 262208, &c->vocab)) < 0 ||
        (r = get_u32(p, "sliding_window", 1, 1 << 30, 4096, &c->window)) < 0 ||
        (r = get_u32(p, "max_position_embeddings", 1, 1 << 24, 131072, &c->max_pos)) < 0 ||
        (r = json_get_float(p->file, p->text, "rms_norm_eps", 1e-12, 1, &c->rms_eps, p->err)) < 0 ||
        (r = json_get_float(p->file, p->text, "query_pre_attn_scalar", 1e-3, 1e6, &scalar,
                            p->err)) < 0) {
        return r;
    }
    c->query_scale = (float)(1 / sqrt(scalar));
    if (c->n_heads % c->n_kv_heads != 0) {
        return err_set(p->err, -EINVAL,
                       "%s: num_key_value_heads %" PRIu32 " does not divide num_attention_heads "
                       "%" PRIu32,
                       p->file, c->n_kv_heads, c->n_heads);
    }
    if (c->head_dim % 2 != 0) {
        return err_set(p->err, -EINVAL, "%s: head_dim %" PRIu32 " is odd", p->file, c->head_dim);
    }
    c->tied_head = true;
    r = json_get_bool(p->file, p->root, "tie_word_embeddings", &c->tied_head, p->err);
    if (r == 0) {
        r = json_get_bool(p->file, p->text, "tie_word_embeddings", &c->tied_head, p->err);
    }
    return r;
}

/* Which layers are global: layer_types, or every n-th. */
static int parse_layer_types(const struct parse *p)
{
    struct model_config *c = p->config;
    const json_t *types = json_object_get(p->text, "layer_types");
    uint32_t pattern = 6;

    if (!types || json_is_null(types)) {
        int r = json_get_u32(p->file, p->text, "_sliding_window_pattern", 1, CONFIG_MAX_LAYERS,
                             &pattern, p->err);
        if (r == 0) {
            r = json_get_u32(p->file, p->text, "sliding_window_pattern", 1, CONFIG_MAX_LAYERS,
                             &pattern, p->err);
        }
        for (uint32_t i = 0; r == 0 && i < c->n_layers; i++) {
            c->layer_is_global[i] = (i + 1) % pattern == 0;
        }
        return r;
    }
    if (!json_is_array(types) || json_array_size(types) != c->n_layers) {
        return err_set(p->err, -EINVAL, "%s: layer_types is not a list of %" PRIu32 " layers",
                       p->file, c->n_layers);
    }
    for (uint32_t i = 0; i < c->n_layers; i++) {
        const char *type = json_string_value(json_array_get(types, i));
        if (!type || (strcmp(type, "full_attention") && strcmp(type, "sliding_attention"))) {
            return err_set(p->err, -EINVAL,
                           "%s: layer_types[%" PRIu32 "] is neither full_attention nor "
                           "sliding_attention",
                           p->file, i);
        }
        c->layer_is_global[i] = type[0] == 'f';
    }
    return 0;
}

/* One set of RoPE parameters: {rope_type (or type), factor, rope_theta}; what it lacks is left. */
static int parse_rope_set(const struct parse *p, const char *what, const json_t *set, float *theta,
                          float *factor)
{
    const char *type = "default";
    int r = json_get_string(p->file, set, "type", &type, p->err);
    if (r == 0) {
        r = json_get_string(p->file, set, "rope_type", &type, p->err);
    }
    if (r == 0) {
        r = json_get_float(p->file, set, "rope_theta", 1, 1e12, theta, p->err);
    }
    if (r < 0) {
        return r;
    }
    if (strcmp(type, "default") == 0) {
        return 0;
    }
    if (strcmp(type, "linear") != 0) {
        return err_set(p->err, -EINVAL, "%s: %s: rope_type %.40s is not supported", p->file, what,
                       type);
    }
    *factor = 0;
    r = json_get_float(p->file, set, "factor", 1, 1e6, factor, p->err);
    if (r == 0 && *factor == 0) {
        return err_set(p->err, -EINVAL, "%s: %s: linear scaling without a factor", p->file, what);
    }
    return r;
}

/*
 * Older files: rope_theta and rope_scaling for global layers, rope_local_base_freq for local ones.
 * Newer files: rope_parameters with a set per layer type. Where both stand, the newer form's values
 * count, except that rope_scaling is applied over it, as transformers does.
 */
static int parse_rope(const struct parse *p)
{
    struct model_config *c = p->config;
    json_t *parameters = NULL, *full = NULL, *sliding = NULL, *scaling = NULL;
    float local_factor = 1;
    int r;

    c->rope_theta_global = 1e6f;
    c->rope_theta_local = 1e4f;
    c->rope_factor_global = 1;
    if ((r = json_get_float(p->file, p->text, "rope_theta", 1, 1e12, &c->rope_theta_global,
                            p->err)) < 0 ||
        (r = json_get_float(p->file, p->text, "rope_local_base_freq", 1, 1e12, &c->rope_theta_local,
                            p->err)) < 0 ||
        (r = json_get_object(p->file, p->text, "rope_parameters", &parameters, p->err)) < 0 ||
        (r = json_get_object(p->file, p->text, "rope_scaling", &scaling, p->err)) < 0) {
        return r;
    }
    if (parameters) {
        if (json_object_get(parameters, "rope_type") || json_object_get(parameters, "rope_theta")) {
            return err_set(p->err, -EINVAL, "%s: rope_parameters is not given per layer type",
                           p->file);
        }
        if ((r = json_get_object(p->file, parameters, "full_attention", &full, p->err)) < 0 ||
            (r = json_get_object(p->file, parameters, "sliding_attention", &sliding, p->err)) < 0) {
            return r;
        }
    }
    if (full && (r = parse_rope_set(p, "full_attention", full, &c->rope_theta_global,
                                    &c->rope_factor_global)) < 0) {
        return r;
    }
    if (sliding && (r = parse_rope_set(p, "sliding_attention", sliding, &c->rope_theta_local,
                                       &local_factor)) < 0) {
        return r;
    }
    if (local_factor != 1) {
        return err_set(p->err, -EINVAL, "%s: scaled RoPE on local layers is not supported",
                       p->file);
    }
    return scaling ? parse_rope_set(p, "rope_scaling", scaling, &c->rope_theta_global,
                                    &c->rope_factor_global)
                   : 0;
}

/* A token id, checked against the vocabulary. */
static int check_token(const struct parse *p, const char *file, const char *key,
                       const json_t *value, int32_t *ret)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) >= p->config->vocab) {
        return err_set(p->err, -EINVAL, "%s: %s is no token id below %" PRIu32, file, key,
                       p->config->vocab);
    }
    *ret = (int32_t)json_integer_value(value);
    return 0;
}

static int add_eos(const struct parse *p, const char *file, const json_t *value)
{
    struct model_config *c = p->config;
    int32_t id;
    int r = check_token(p, file, "eos_token_id", value, &id);
    if (r < 0) {
        return r;
    }
    for (uint32_t i = 0; i < c->n_eos; i++) {
        if (c->eos[i] == id) {
            return 0;
        }
    }
    if (c->n_eos == CONFIG_MAX_EOS) {
        return err_set(p->err, -EINVAL, "%s: more than %d end tokens", file, CONFIG_MAX_EOS);
    }
    c->eos[c->n_eos++] = id;
    return 0;
}

/* eos_token_id is a number, a list of numbers, null or absent. */
static int parse_eos(const struct parse *p, const char *file, const json_t *object)
{
    const json_t *value = json_object_get(object, "eos_token_id");
    if (!value || json_is_null(value)) {
        return 0;
    }
    if (!json_is_array(value)) {
        return add_eos(p, file, value);
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        int r = add_eos(p, file, json_array_get(value, i));
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

/* bos_token_id or pad_token_id: of the text model, else of the whole, else Gemma's if it is in the
 * vocabulary; null or -1 is none. */
static int parse_token(const struct parse *p, const char *key, int32_t fallback, int32_t *ret)
{
    const json_t *value = json_object_get(p->text, key);
    value = value ? value : json_object_get(p->root, key);
    if (!value) {
        *ret = (uint32_t)fallback < p->config->vocab ? fallback : -1;
        return 0;
    }
    if (json_is_null(value) || (json_is_integer(value) && json_integer_value(value) == -1)) {
        *ret = -1;
        return 0;
    }
    return check_token(p, p->file, key, value, ret);
}

static int parse_tokens(const struct parse *p)
{
    struct model_config *c = p->config;
    int r = parse_token(p, "bos_token_id", 2, &c->bos);
    if (r == 0) {
        r = parse_token(p, "pad_token_id", 0, &c->pad);
    }
    if (r == 0) {
        r = parse_eos(p, p->file, p->root);
    }
    if (r == 0) {
        r = parse_eos(p, p->file, p->text);
    }
    if (r == 0 && c->n_eos == 0 && !json_object_get(p->root, "eos_token_id") &&
        !json_object_get(p->text, "eos_token_id") && c->vocab > 1) {
        c->eos[c->n_eos++] = 1;
    }
    return r;
}

int config_parse(const char *name, const void *json, size_t size, struct model_config *ret,
                 struct err *err)
{
    json_auto_t *root = NULL;
    struct model_config config = {0};
    struct parse p = {.file = name, .config = &config, .err = err};

    int r = json_parse_object(name, json, size, &root, err);
    if (r < 0) {
        return r;
    }
    p.root = root;
    if ((r = find_text_config(&p)) < 0 || (r = refuse_unsupported(&p)) < 0 ||
        (r = parse_shape(&p)) < 0 || (r = parse_layer_types(&p)) < 0 || (r = parse_rope(&p)) < 0 ||
        (r = parse_tokens(&p)) < 0) {
        return r;
    }
    *ret = config;
    return 0;
}

/* Further end tokens, which chat models have there. Its absence is no error. */
static int load_generation_config(int dir_fd, const char *dir, struct model_config *config,
                                  struct err *err)
{
    static const char file[] = "generation_config.json";
    char path[4096];
    AUTO_FREE char *text = NULL;
    json_auto_t *root = NULL;
    size_t size;

    snprintf(path, sizeof path, "%s/%s", dir, file);
    int r = json_read_file(dir_fd, file, path, &text, &size, err);
    if (r < 0) {
        return r == -ENOENT ? 0 : r;
    }
    r = json_parse_object(path, text, size, &root, err);
    if (r < 0) {
        return r;
    }
    struct parse p = {.file = path, .config = config, .err = err};
    return parse_eos(&p, path, root);
}

int config_load(const char *dir, struct model_config *ret, struct err *err)
{
    char path[4096];
    AUTO_FREE char *text = NULL;
    size_t size;
    struct model_config config;

    AUTO_FD dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0) {
        int r = -errno;
        return err_set(err, r, "%s: cannot open: %s", dir, strerror(-r));
    }
    snprintf(path, sizeof path, "%s/config.json", dir);
    int r = json_read_file(dir_fd, "config.json", path, &text, &size, err);
    if (r == 0) {
        r = config_parse(path, text, size, &config, err);
    }
    if (r == 0) {
        r = load_generation_config(dir_fd, dir, &config, err);
    }
    if (r == 0) {
        *ret = config;
    }
    return r;
}
