/* SPDX-License-Identifier: MIT */
/* config.json: every form Gemma 3's configs come in, and what is refused with its key named. */
#include <errno.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "config.h"
#include "model_dir.h"

static int parse(const char *text, struct model_config *ret, struct err *err)
{
    return config_parse("config.json", text, strlen(text), ret, err);
}

static void refused(const char *text, const char *want)
{
    struct model_config config;
    struct err err = {""};
    CHECK_EQ(parse(text, &config, &err), -EINVAL);
    if (!strstr(err.text, want) || !strstr(err.text, "config.json")) {
        fprintf(stderr, "\"%s\" does not say \"%s\"\n", err.text, want);
        exit(1);
    }
}

static void text_model(void)
{
    struct model_config c;
    model_dir_config(&c);
    CHECK(c.n_layers == 3 && c.hidden == 64 && c.ffn == 128 && c.n_heads == 4);
    CHECK(c.n_kv_heads == 2 && c.head_dim == 32 && c.vocab == 160 && c.window == 8);
    CHECK(c.query_scale == 0.25f && c.rms_eps == 1e-6f && c.tied_head);
    CHECK(c.rope_theta_local == 1e4f && c.rope_theta_global == 1e6f && c.rope_factor_global == 8);
    CHECK(!c.layer_is_global[0] && !c.layer_is_global[1] && c.layer_is_global[2]);
    CHECK(c.bos == 2 && c.pad == 0 && c.n_eos == 1 && c.eos[0] == 1);
}

/* What google/gemma-3-4b-it and -27b-it have; the rest are transformers' defaults. */
static void multimodal(void)
{
    struct model_config c, known;
    struct err err;
    CHECK_EQ(parse("{\"architectures\":[\"Gemma3ForConditionalGeneration\"],"
                   "\"eos_token_id\":[1,106],\"model_type\":\"gemma3\",\"text_config\":{"
                   "\"hidden_size\":2560,\"intermediate_size\":10240,"
                   "\"model_type\":\"gemma3_text\",\"num_hidden_layers\":34,"
                   "\"rope_scaling\":{\"factor\":8.0,\"rope_type\":\"linear\"},"
                   "\"sliding_window\":1024},\"vision_config\":{\"hidden_size\":1152}}",
                   &c, &err),
             0);
    CHECK_EQ(config_known("4b", &known), 0);
    CHECK(memcmp(&c, &known, sizeof c) == 0);
    CHECK_EQ(parse("{\"eos_token_id\":[1,106],\"model_type\":\"gemma3\",\"text_config\":{"
                   "\"head_dim\":128,\"hidden_size\":5376,\"intermediate_size\":21504,"
                   "\"num_attention_heads\":32,\"num_hidden_layers\":62,"
                   "\"num_key_value_heads\":16,\"query_pre_attn_scalar\":168,"
                   "\"rope_scaling\":{\"factor\":8.0,\"rope_type\":\"linear\"},"
                   "\"sliding_window\":1024}}",
                   &c, &err),
             0);
    CHECK_EQ(config_known("27b", &known), 0);
    CHECK(memcmp(&c, &known, sizeof c) == 0);
}

static void rope_forms(void)
{
    struct model_config c;
    struct err err;
    CHECK_EQ(parse("{\"model_type\":\"gemma3_text\",\"rope_theta\":5,\"rope_local_base_freq\":6}",
                   &c, &err),
             0);
    CHECK(c.rope_theta_global == 5 && c.rope_theta_local == 6 && c.rope_factor_global == 1);
    CHECK_EQ(parse("{\"model_type\":\"gemma3_text\",\"rope_theta\":5,\"rope_parameters\":{"
                   "\"full_attention\":{\"rope_type\":\"linear\",\"factor\":4,"
                   "\"rope_theta\":500000.0},"
                   "\"sliding_attention\":{\"rope_type\":\"default\",\"rope_theta\":20000}}}",
                   &c, &err),
             0);
    CHECK(c.rope_theta_global == 5e5f && c.rope_theta_local == 2e4f && c.rope_factor_global == 4);
    CHECK_EQ(parse("{\"model_type\":\"gemma3_text\",\"rope_parameters\":{\"full_attention\":{}},"
                   "\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}",
                   &c, &err),
             0);
    CHECK(c.rope_factor_global == 2 && c.rope_theta_global == 1e6f && c.rope_theta_local == 1e4f);
    refused("{\"model_type\":\"gemma3_text\",\"rope_scaling\":{\"rope_type\":\"yarn\"}}", "yarn");
    refused("{\"model_type\":\"gemma3_text\",\"rope_scaling\":{\"rope_type\":\"linear\"}}",
            "without a factor");
    refused("{\"model_type\":\"gemma3_text\",\"rope_scaling\":7}", "rope_scaling");
    refused("{\"model_type\":\"gemma3_text\",\"rope_parameters\":{\"rope_theta\":7}}",
            "rope_parameters");
    refused("{\"model_type\":\"gemma3_text\",\"rope_parameters\":{\"sliding_attention\":{"
            "\"rope_type\":\"linear\",\"factor\":2}}}",
            "local layers");
}

static void tokens(void)
{
    struct model_config c;
    struct err err;
    CHECK_EQ(parse("{\"model_type\":\"gemma3_text\",\"vocab_size\":200,\"bos_token_id\":null,"
                   "\"pad_token_id\":-1,\"eos_token_id\":[5,6,5]}",
                   &c, &err),
             0);
    CHECK(c.bos == -1 && c.pad == -1 && c.n_eos == 2 && c.eos[0] == 5 && c.eos[1] == 6);
    CHECK_EQ(parse("{\"model_type\":\"gemma3_text\"}", &c, &err), 0);
    CHECK(c.bos == 2 && c.pad == 0 && c.n_eos == 1 && c.eos[0] == 1 && c.vocab == 262208);
    refused("{\"model_type\":\"gemma3_text\",\"vocab_size\":200,\"eos_token_id\":200}",
            "eos_token_id");
    refused("{\"model_type\":\"gemma3_text\",\"eos_token_id\":[1,\"2\"]}", "eos_token_id");
    refused("{\"model_type\":\"gemma3_text\",\"bos_token_id\":1.0}", "bos_token_id");
    refused("{\"model_type\":\"gemma3_text\",\"eos_token_id\":[1,2,3,4,5,6,7,8,9]}", "end tokens");
}

static void refusals(void)
{
    refused("", "line");
    refused("[]", "not a JSON object");
    refused("{\"model_type\":\"gemma3_text\",\"model_type\":\"gemma3_text\"}", "duplicate");
    refused("{}", "model_type");
    refused("{\"model_type\":7}", "model_type");
    refused("{\"model_type\":\"llama\"}", "llama");
    refused("{\"model_type\":\"\\u001b[31m\"}", "printable");
    refused("{\"model_type\":\"gemma3\"}", "text_config");
    refused("{\"model_type\":\"gemma3\",\"text_config\":{\"model_type\":\"gemma2\"}}", "gemma2");
    static const char *const bad[][2] = {
        {"\"num_hidden_layers\":0", "num_hidden_layers"},
        {"\"num_hidden_layers\":257", "num_hidden_layers"},
        {"\"num_hidden_layers\":12.0", "num_hidden_layers"},
        {"\"hidden_size\":\"64\"", "hidden_size"},
        {"\"hidden_size\":-1", "hidden_size"},
        {"\"hidden_size\":9223372036854775807", "hidden_size"},
        {"\"hidden_size\":9223372036854775808", "too big"},
        {"\"num_key_value_heads\":3", "num_key_value_heads"},
        {"\"head_dim\":33", "head_dim"},
        {"\"vocab_size\":true", "vocab_size"},
        {"\"rms_norm_eps\":0", "rms_norm_eps"},
        {"\"rms_norm_eps\":1e999", "real number overflow"},
        {"\"query_pre_attn_scalar\":0", "query_pre_attn_scalar"},
        {"\"tie_word_embeddings\":1", "tie_word_embeddings"},
        {"\"attention_bias\":true", "attention_bias"},
        {"\"use_bidirectional_attention\":true", "use_bidirectional_attention"},
        {"\"final_logit_softcapping\":30.0", "final_logit_softcapping"},
        {"\"attn_logit_softcapping\":50", "attn_logit_softcapping"},
        {"\"hidden_activation\":\"silu\"", "silu"},
        {"\"layer_types\":[\"full_attention\"]", "layer_types"},
        {"\"num_hidden_layers\":1,\"layer_types\":[\"chunked_attention\"]", "layer_types[0]"},
        {"\"sliding_window_pattern\":0", "sliding_window_pattern"},
        {"\"quantization_config\":{\"quant_method\":\"awq\"}", "awq"},
        {"\"quantization_config\":{}", "unnamed"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[256];
        snprintf(text, sizeof text, "{\"model_type\":\"gemma3_text\",%s}", bad[i][0]);
        refused(text, bad[i][1]);
    }
    size_t depth = 100000;
    char *deep = malloc(depth + 1);
    CHECK(deep);
    memset(deep, '[', depth);
    deep[depth] = '\0';
    refused(deep, "depth");
    free(deep);
}

static void files(void)
{
    char dir[128], path[256];
    struct model_config c;
    struct err err;

    dir_make(dir, sizeof dir);
    CHECK_EQ(config_load(dir, &c, &err), -ENOENT);
    CHECK(strstr(err.text, "config.json"));
    write_text(dir, "config.json", model_dir_config_json);
    CHECK_EQ(config_load(dir, &c, &err), 0);
    CHECK_EQ(c.n_eos, 1);
    write_text(dir, "generation_config.json", "{\"eos_token_id\": [1, 106]}");
    CHECK_EQ(config_load(dir, &c, &err), 0);
    CHECK(c.n_eos == 2 && c.eos[1] == 106);
    write_text(dir, "generation_config.json", "{\"eos_token_id\": 160}");
    CHECK_EQ(config_load(dir, &c, &err), -EINVAL);
    CHECK(strstr(err.text, "generation_config.json: eos_token_id"));
    snprintf(path, sizeof path, "%s/generation_config.json", dir);
    CHECK(unlink(path) == 0 && mkfifo(path, 0600) == 0);
    CHECK_EQ(config_load(dir, &c, &err), -EINVAL);
    CHECK(strstr(err.text, "regular"));
    dir_remove(dir);
    CHECK_EQ(config_load(dir, &c, &err), -ENOENT);
}

int main(void)
{
    int fds = count_fds(NULL);
    text_model();
    multimodal();
    rope_forms();
    tokens();
    refusals();
    files();
    CHECK_EQ(count_fds(NULL), fds);
    return 0;
}
