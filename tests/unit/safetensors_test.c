/* SPDX-License-Identifier: MIT */
/* The header of a safetensors file: accepted, or refused with tensor and reason. */
#include "safetensors.h"

#include <errno.h>

#include "check.h"

static int parse(const char *json, uint64_t data_bytes, struct safetensors *ret, struct err *err)
{
    return safetensors_parse("f.safetensors", json, strlen(json), 8 + strlen(json) + data_bytes,
                             ret, err);
}

static void refused(const char *json, uint64_t data_bytes, const char *want)
{
    struct safetensors st;
    struct err err = {""};
    CHECK_EQ(parse(json, data_bytes, &st, &err), -EINVAL);
    if (!strstr(err.text, want) || !strstr(err.text, "f.safetensors: ")) {
        fprintf(stderr, "\"%s\" does not say \"%s\"\n", err.text, want);
        exit(1);
    }
}

static void accepted(void)
{
    static const char json[] =
        "{\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[4,16]},"
        "\"__metadata__\":{\"format\":\"pt\"},"
        "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
        "\"empty\":{\"dtype\":\"I64\",\"shape\":[0,9],\"data_offsets\":[4,4]}}   ";
    struct safetensors st;
    struct err err;
    CHECK_EQ(parse(json, 16, &st, &err), 0);
    CHECK_EQ(st.n, 3);
    CHECK(strcmp(st.tensors[0].name, "a") == 0 && strcmp(st.tensors[2].name, "b") == 0);
    CHECK(st.tensors[2].off == 8 + strlen(json) + 4 && st.tensors[2].size_bytes == 12);
    CHECK(st.tensors[2].dtype == DTYPE_BF16 && st.tensors[2].shape[1] == 3);
    safetensors_finish(&st);
    CHECK_EQ(parse("{}", 0, &st, &err), 0);
    CHECK_EQ(st.n, 0);
    safetensors_finish(&st);
}

static void refusals(void)
{
#define T(dtype, shape, offsets) \
    "{\"w\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
    refused("{", 0, "line 1");
    refused("{} x", 0, "line 1");
    refused("[1]", 0, "not a JSON object");
    refused("{\"w\":1}", 0, "tensor w: is not described");
    refused("{\"w\":{}}", 0, "tensor w: unknown dtype");
    refused("{\"w\":{},\"w\":{}}", 0, "duplicate");
    refused("{\"w\\n\":{}}", 0, "control characters");
    refused("{\"w\":\"\xff\"}", 0, "line 1");
    refused(T("\"F4\"", "[1]", "[0,4]"), 4, "tensor w: unknown dtype F4");
    refused(T("7", "[1]", "[0,4]"), 4, "tensor w: unknown dtype");
    refused(T("\"F32\"", "1", "[0,4]"), 4, "tensor w: shape");
    refused(T("\"F32\"", "[-1]", "[0,4]"), 4, "tensor w: shape");
    refused(T("\"F32\"", "[1.0]", "[0,4]"), 4, "tensor w: shape");
    refused(T("\"F32\"", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, "tensor w: shape");
    refused(T("\"F32\"", "[4294967296,4294967296]", "[0,0]"), 0, "tensor w: shape overflows");
    refused(T("\"F32\"", "[9223372036854775807,2]", "[0,4]"), 4, "tensor w: shape overflows");
    refused(T("\"F32\"", "[1]", "[0]"), 4, "tensor w: data_offsets");
    refused(T("\"F32\"", "[1]", "[4,0]"), 4, "tensor w: data_offsets");
    refused(T("\"F32\"", "[1]", "[-4,0]"), 4, "tensor w: data_offsets");
    refused(T("\"F32\"", "[1]", "{}"), 4, "tensor w: data_offsets");
    refused(T("\"F32\"", "[2]", "[0,4]"), 4, "tensor w: its shape needs 8 bytes");
    refused(T("\"F32\"", "[1]", "[0,4]"), 3, "tensor w: ends at byte");
    refused(T("\"F32\"", "[1]", "[0,4]"), 5, "1 bytes after the last tensor");
    refused(T("\"F32\"", "[1]", "[4,8]"), 8, "tensor w: 4 bytes before it");
    refused(T("\"U8\"", "[1]", "[9223372036854775806,9223372036854775807]"), 8, "before it");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
            "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[3,7]}}",
            7, "tensor b: overlaps tensor a");
    size_t depth = 10000;
    char *deep = malloc(depth + 1);
    CHECK(deep);
    memset(deep, '[', depth);
    deep[depth] = '\0';
    refused(deep, 0, "depth");
    free(deep);
}

static void lengths(void)
{
    uint8_t length[8] = {0, 0, 0, 0x80, 0, 0, 0, 0}; /* 2 GiB */
    size_t n;
    struct err err;
    CHECK_EQ(safetensors_header_size("f", length, UINT64_MAX, &n, &err), -EINVAL);
    CHECK(strstr(err.text, "2147483648"));
    memset(length, 0xff, 8);
    CHECK_EQ(safetensors_header_size("f", length, UINT64_MAX, &n, &err), -EINVAL);
    memset(length, 0, 8);
    length[0] = 100;
    CHECK_EQ(safetensors_header_size("f", length, 107, &n, &err), -EINVAL);
    CHECK(strstr(err.text, "truncated"));
    CHECK_EQ(safetensors_header_size("f", length, 7, &n, &err), -EINVAL);
    CHECK_EQ(safetensors_header_size("f", length, 108, &n, &err), 0);
    CHECK_EQ(n, 100);
}

int main(void)
{
    accepted();
    refusals();
    lengths();
    return 0;
}
