/* SPDX-License-Identifier: MIT */
/* tokenizer.json files that are wrong or odd: each is refused with a sentence that says why, or
 * read right; never anything else. */
#include <fcntl.h>
#include <sys/stat.h>

#include "buf.h"
#include "check.h"
#include "tokenizer.h"

/* A small good file, in parts that a case may replace. */
struct parts {
    const char *normalizer, *pre_tokenizer, *decoder, *added, *model, *vocab, *merges, *more;
};

#define VOCAB "{\"<unk>\": 0, \"a\": 1, \"b\": 2, \"ab\": 3, \"\\u2581\": 4}"
#define DECODER \
    "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"\\u2581\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}]}"
#define FLAGS \
    "\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":true"

static const struct parts good = {
    .normalizer = "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\\u2581\"}",
    .pre_tokenizer = "null",
    .decoder = DECODER,
    .added =
        "[{\"id\":0,\"content\":\"<unk>\"," FLAGS "},{\"id\":5,\"content\":\"<x>\"," FLAGS "}]",
    .model = "\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"dropout\":null",
    .vocab = VOCAB,
    .merges = "[[\"a\",\"b\"]]",
    .more = "",
};

static const char *or_good(const char *part, const char *fallback)
{
    return part ? part : fallback;
}

static char *compose(const struct parts *p)
{
    char *json;
    CHECK(asprintf(&json,
                   "{\"version\":\"1.0\",\n\"added_tokens\":%s,\n\"normalizer\":%s,\n"
                   "\"pre_tokenizer\":%s,\n\"decoder\":%s,\n\"model\":{%s,\"vocab\":%s,"
                   "\"merges\":%s}%s}",
                   or_good(p->added, good.added), or_good(p->normalizer, good.normalizer),
                   or_good(p->pre_tokenizer, good.pre_tokenizer), or_good(p->decoder, good.decoder),
                   or_good(p->model, good.model), or_good(p->vocab, good.vocab),
                   or_good(p->merges, good.merges), or_good(p->more, good.more)) > 0);
    return json;
}

/* says NULL: it must be read. */
static void check_bytes(const char *json, size_t size, const char *says)
{
    struct err err = {0};
    struct tokenizer *tok = NULL;
    int r = tokenizer_parse("t.json", json, size, &err, &tok);
    bool fine = says ? r == -EINVAL && strstr(err.text, says) && !strchr(err.text, '\n') &&
                           strncmp(err.text, "t.json: line ", 13) == 0
                     : r == 0;
    if (!fine) {
        fprintf(stderr, "%.*s\n  got %d: %s\n  want: %s\n", (int)size, json, r, err.text,
                says ? says : "no error");
        exit(1);
    }
    tokenizer_destroy(tok);
}

static void check_text(const char *json, const char *says)
{
    check_bytes(json, strlen(json), says);
}

static void check(struct parts parts, const char *says)
{
    char *json = compose(&parts);
    check_text(json, says);
    free(json);
}

static void test_vocabulary(void)
{
    check((struct parts){0}, NULL);
    check((struct parts){.vocab = "[[\"a\", -1.5]]"}, "model.vocab is not an object");
    check((struct parts){.vocab = "{}"}, "\"a\", which is not in the vocabulary");
    check((struct parts){.vocab = "{}", .merges = "[]", .model = "\"type\":\"BPE\"", .added = "[]"},
          "the vocabulary is empty");
    check((struct parts){.vocab = "{\"a\":1,\"a\":2}"}, "token \"a\" is there twice");
    check((struct parts){.vocab = "{\"a\":1,\"b\":1}"}, "\"b\": id 1 is taken by \"a\"");
    check((struct parts){.vocab = "{\"a\":-1}"}, "a token's id is not between 0 and");
    check((struct parts){.vocab = "{\"a\":99999999999999999999999}"}, "not between 0 and");
    check((struct parts){.vocab = "{\"a\":1048576}"}, "not between 0 and");
    check((struct parts){.vocab = "{\"a\":1.5}"}, "not a whole number");
    check((struct parts){.vocab = "{\"a\":1e3}"}, "not a whole number");
    check((struct parts){.vocab = "{\"a\":\"1\"}"}, "not a number");
    check((struct parts){.vocab = "{\"a\":01}"}, "not a number");
    check((struct parts){.vocab = "{\"a\":null}"}, "not a number");
    check((struct parts){.vocab = "{\"<unk>\": 0, \"a\": 1, \"b\": 2, \"ab\": 3, \"c\": 9}"},
          "has no token with id 4, but one with 9");
}

static void test_merges(void)
{
    check((struct parts){.merges = "[\"a b\"]"}, NULL);
    check((struct parts){.merges = "[\"a b\",[\"a\",\"b\"]]"}, NULL);
    check((struct parts){.merges = "{}"}, "model.merges is not an array");
    check((struct parts){.merges = "[[\"a\",\"c\"]]"}, "names \"c\", which is not in");
    check((struct parts){.merges = "[\"c a\"]"}, "names \"c\", which is not in");
    check((struct parts){.merges = "[[\"b\",\"a\"]]"}, "makes \"ba\", which is not in");
    check((struct parts){.merges = "[[\"a\"]]"}, "fewer than two");
    check((struct parts){.merges = "[[\"a\",\"b\",\"a\"]]"}, "more than two");
    check((struct parts){.merges = "[\"ab\"]"}, "not two tokens");
    check((struct parts){.merges = "[\"a b a\"]"}, "not two tokens");
    check((struct parts){.merges = "[\"\"]"}, "not two tokens");
    check((struct parts){.merges = "[1]"}, "a merge is not an array");
    check((struct parts){.merges = "[[1,2]]"}, "a token of a merge is not a string");
    check((struct parts){.merges = "[[\"a\\n\\u0001\",\"b\"]]"}, "names \"a\\x0a\\x01\"");
}

static void test_model(void)
{
    check((struct parts){.model = "\"type\":\"Unigram\""},
          "model.type is Unigram: a tokenizer that is no BPE");
    check((struct parts){.model = "\"type\":\"WordPiece\",\"unk_token\":\"x\""}, "no BPE");
    check((struct parts){.model = "\"type\":\"Unigram\"", .vocab = "[[\"a\", -1.5]]"}, "no BPE");
    check((struct parts){.model = "\"type\":7"}, "model.type is not a string");
    check((struct parts){.model = "\"fuse_unk\":true"}, "model has no \"type\"");
    check((struct parts){.model = "\"type\":\"BPE\",\"unk_token\":\"zz\""}, "\"zz\" is not in the");
    check((struct parts){.model = "\"type\":\"BPE\",\"unk_token\":null"}, NULL);
    check((struct parts){.model = "\"type\":\"BPE\",\"dropout\":0.1"}, "dropout is not supported");
    check((struct parts){.model = "\"type\":\"BPE\",\"end_of_word_suffix\":\"</w>\""},
          "end_of_word_suffix is not supported");
    check((struct parts){.model = "\"type\":\"BPE\",\"continuing_subword_prefix\":\"##\""},
          "continuing_subword_prefix is not supported");
    check((struct parts){.model = "\"type\":\"BPE\",\"continuing_subword_prefix\":\"\""}, NULL);
    check((struct parts){.model = "\"type\":\"BPE\",\"fuse_unk\":1"}, "not true or false");
    check((struct parts){.model = "\"type\":\"BPE\",\"type\":\"BPE\""}, "\"type\" is there twice");
    check((struct parts){.model = "\"type\":\"BPE\",\"merges\":[]"}, "\"merges\" is there twice");
    check((struct parts){.model = "\"type\":\"BPE\",\"unknown\":{\"a\":[1,{}]}"}, NULL);
    check_text("{\"decoder\":" DECODER ",\"model\":{\"merges\":[[\"a\",\"b\"]],\"vocab\":"
               "{\"a\":0,\"b\":1,\"ab\":2},\"type\":\"BPE\"}}",
               NULL); /* any order */
    check_text("{\"decoder\":" DECODER ",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}",
               "model has no \"merges\"");
    check_text("{\"decoder\":" DECODER "}", "there is no \"model\"");
    check_text("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}",
               "no \"decoder\"");
    check((struct parts){.more = ",\"version\":\"1.0\""}, "\"version\" is there twice");
    check((struct parts){.more = ",\"model\":{}"}, "\"model\" is there twice");
    check_text("{\"version\":\"2.0\"}", "version is 2.0");
}

static void test_steps(void)
{
    check((struct parts){.normalizer = "null"}, NULL);
    check((struct parts){.normalizer = "{\"type\":\"NFC\"}"}, "normalizer NFC is not supported");
    check((struct parts){.normalizer = "{\"type\":\"Sequence\",\"normalizers\":[]}"}, NULL);
    check((struct parts){.normalizer = "{\"type\":\"Sequence\"}"}, "has no \"normalizers\"");
    check((struct parts){.normalizer =
                             "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Lowercase\"}]}"},
          "normalizer Lowercase is not");
    check((struct parts){.normalizer = "{\"type\":\"Prepend\",\"prepend\":\"_\"}"}, NULL);
    check((struct parts){.normalizer = "{\"type\":\"Prepend\"}"}, "Prepend has no \"prepend\"");
    check(
        (struct parts){
            .normalizer = "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" +\"},\"content\":\"\"}"},
        "only patterns of the form");
    check(
        (struct parts){.normalizer =
                           "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"\"}"},
        "the pattern is empty");
    check((struct parts){.normalizer = "{\"type\":\"Replace\",\"content\":\"\"}"},
          "has no \"pattern\"");
    check((struct parts){.normalizer = "{\"type\":\"Replace\",\"pattern\":{},\"content\":\"\"}"},
          "only patterns of the form");
    check((struct parts){.normalizer = "{}"}, "normalizer has no \"type\"");
    check((struct parts){.normalizer = "[]"}, "normalizer is not an object");
    check((struct parts){.normalizer = "{\"type\":\"NFC\",\"type\":\"NFD\"}"}, "there twice");
    check((struct parts){.pre_tokenizer = "{\"type\":\"Metaspace\",\"replacement\":\"_\"}"},
          "pre_tokenizer Metaspace is not supported");
    check((struct parts){.pre_tokenizer = "{\"type\":\"ByteLevel\"}"},
          "ByteLevel is not supported");
    check(
        (struct parts){
            .pre_tokenizer =
                "{\"type\":\"Split\",\"pattern\":{\"String\":\" \"},\"behavior\":\"Removed\",\"invert\":false}"},
        "only MergedWithPrevious");
    check(
        (struct parts){
            .pre_tokenizer =
                "{\"type\":\"Split\",\"pattern\":{\"String\":\" \"},\"behavior\":\"MergedWithPrevious\",\"invert\":true}"},
        "only MergedWithPrevious");
    check((struct parts){.decoder = "null"}, "decoder is null");
    check((struct parts){.decoder = "{\"type\":\"ByteLevel\"}"},
          "decoder ByteLevel is not supported");
    check((struct parts){.decoder = "{\"type\":\"Fuse\"}"}, NULL);
    check((struct parts){.decoder =
                             "{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}"},
          "decoder Strip is not supported");
    check(
        (struct parts){
            .decoder =
                "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\"ab\",\"start\":1,\"stop\":0}]}"},
        "not one character");
    check(
        (struct parts){
            .decoder =
                "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\"a\",\"start\":-1,\"stop\":0}]}"},
        "start is not between");
    check(
        (struct parts){
            .decoder =
                "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"ByteFallback\"}]}"},
        "not supported in this place");
}

static void test_added(void)
{
    check((struct parts){.added = "[]"}, NULL);
    check((struct parts){.added = "{}"}, "added_tokens is not an array");
    check((struct parts){.added = "[{\"id\":5,\"content\":\"\"," FLAGS "}]"}, "is empty");
    check((struct parts){.added = "[{\"id\":5," FLAGS "}]"}, "has no \"content\"");
    check((struct parts){.added = "[{\"content\":\"x\"," FLAGS "}]"}, "has no \"id\"");
    check((struct parts){.added = "[{\"id\":5,\"content\":\"x\"}]"}, "has no \"special\"");
    check((struct parts){.added = "[{\"id\":1,\"content\":\"x\"," FLAGS "}]"},
          "id 1 is taken by \"a\"");
    check((struct parts){.added = "[{\"id\":5,\"content\":\"a\"," FLAGS "}]"},
          "\"a\" has id 5, in the vocabulary it has 1");
    check((struct parts){.added = "[{\"id\":5,\"content\":\"x\"," FLAGS
                                  "},{\"id\":5,\"content\":\"x\"," FLAGS "}]"},
          "\"x\" is there twice");
    check((struct parts){.added = "[{\"id\":5,\"id\":6,\"content\":\"x\"," FLAGS "}]"},
          "there twice");
    check((struct parts){.added = "[{\"id\":1000000,\"content\":\"x\"," FLAGS "}]"},
          "has no token with id 5");
    check(
        (struct parts){
            .normalizer = "{\"type\":\"Replace\",\"pattern\":{\"String\":\"x\"},\"content\":\"\"}",
            .added =
                "[{\"id\":5,\"content\":\"xx\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":true,\"special\":false}]"},
        "empty once normalized");
}

static void test_not_json(void)
{
    check_text("", "the text ends here");
    check_text(" \n\n ", "line 3: the tokenizer: the text ends here");
    check_text("[]", "the tokenizer is not an object");
    check_text("{", "a key: the text ends here");
    check_text("{\"a\":1", "the text ends before its '}'");
    check_text("{,}", "a key is not a string");
    check_text("{\"a\"}", "':' expected");
    check_text("{\"a\":1 \"b\":2}", "',' or '}' expected");
    check_text("{\"a\":1,}", "a key is not a string");
    check_text("{\"a\":[1,]}", "not JSON");
    check_text("{\"a\":[1 2]}", "',' or ']' expected");
    check_text("{\"a\":tru}", "not JSON");
    check_text("{\"a\":-}", "not a number");
    check_text("{\"a\":1.}", "not a number");
    check_text("{\"a\":1e}", "not a number");
    check_text("{\"a\":\"x", "ends inside a string");
    check_text("{\"a\":\"\\", "ends inside a string");
    check_text("{\"a\":\"\\u12", "four hexadecimal digits");
    check_text("{\"a\":\"\\ud800x\"}", "half a surrogate pair");
    check_text("{\"a\":\"\\udc00\"}", "half a surrogate pair");
    check_text("{\"a\":\"\\q\"}", "unknown escape");
    check_text("{\"a\":\"\t\"}", "bare control character");
    check_text("{\"a\":\"\xff\"}", "not UTF-8");
    check_text("{\"a\":\"\xc0\xaf\"}", "not UTF-8");
    check_text("{\"a\":\"\xed\xa0\x80\"}", "not UTF-8");
    check_bytes("{\"a\":1}\0", 8, "more than one JSON value");
    check((struct parts){.more = "} {"}, "more than one JSON value");

    char deep[2 * 200 + 16];
    size_t n = (size_t)snprintf(deep, sizeof deep, "{\"a\":");
    memset(deep + n, '[', 200);
    check_bytes(deep, n + 200, "nested deeper than 64");

    /* normalizers in normalizers */
    struct buf nested = {0};
    for (int i = 0; i < 100; i++) {
        static const char open[] = "{\"type\":\"Sequence\",\"normalizers\":[";
        CHECK_EQ(buf_add(&nested, open, sizeof open - 1), 0);
    }
    CHECK_EQ(buf_add(&nested, "", 1), 0);
    check((struct parts){.normalizer = nested.bytes}, "nested deeper than 64");
    buf_finish(&nested);
}

/* Cut off anywhere, or with any byte changed: an error or a tokenizer, nothing else. */
static void test_damaged(void)
{
    char *json = compose(&good);
    size_t size = strlen(json);
    for (size_t n = 0; n < size; n++) {
        char *exact = malloc(n + 1);
        CHECK(exact);
        memcpy(exact, json, n);
        struct err err;
        struct tokenizer *tok;
        CHECK_EQ(tokenizer_parse("t.json", exact, n, &err, &tok), -EINVAL);
        free(exact);
    }
    for (size_t i = 0; i < size; i++) {
        for (int flip = 1; flip < 256; flip <<= 1) {
            struct err err;
            struct tokenizer *tok;
            json[i] ^= (char)flip;
            if (tokenizer_parse("t.json", json, size, &err, &tok) == 0) {
                tokenizer_destroy(tok);
            }
            json[i] ^= (char)flip;
        }
    }
    free(json);
}

static void test_files(void)
{
    struct err err = {0};
    struct tokenizer *tok;
    int fds = count_fds(NULL);
    CHECK_EQ(tokenizer_load("tests/no-such-model", &err, &tok), -ENOENT);
    CHECK(strstr(err.text, "tests/no-such-model: No such file"));
    CHECK_EQ(tokenizer_load("tests", &err, &tok), -ENOENT);
    CHECK(strstr(err.text, "tests/tokenizer.json: No such file"));
    CHECK_EQ(tokenizer_load("/dev/null", &err, &tok), -EINVAL);
    CHECK(strstr(err.text, "not a regular file"));
    CHECK_EQ(count_fds(NULL), fds);
}

int main(void)
{
    test_vocabulary();
    test_merges();
    test_model();
    test_steps();
    test_added();
    test_not_json();
    test_damaged();
    test_files();
    return 0;
}
