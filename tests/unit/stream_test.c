/* SPDX-License-Identifier: MIT */
/* Text that grows token by token: characters cut in two, stop strings cut in two. */
#include "../../runtime/engine/stream.h"
#include "check.h"

static void expect(struct stream *s, const char *token, const char *final_text)
{
    CHECK(stream_add(s, token, strlen(token)) == 0);
    CHECK_EQ(s->n_final, strlen(final_text));
    CHECK(memcmp(s->text ? s->text : "", final_text, s->n_final) == 0);
}

static void test_plain(void)
{
    struct stream s;
    stream_init(&s, NULL, 0);
    expect(&s, "", "");
    expect(&s, "Hello", "Hello");
    expect(&s, " you", "Hello you");
    CHECK(stream_end(&s) == 0);
    CHECK(strcmp(s.text, "Hello you") == 0);
    stream_finish(&s);
}

static void test_empty(void)
{
    struct stream s;
    stream_init(&s, NULL, 0);
    CHECK(stream_end(&s) == 0);
    CHECK(s.text && s.text[0] == '\0' && s.size == 0);
    stream_finish(&s);
}

static void test_utf8(void)
{
    struct stream s;
    stream_init(&s, NULL, 0);
    expect(&s, "a\xf0\x9f", "a");
    expect(&s, "\x98", "a");
    expect(&s, "\x80", "a\xf0\x9f\x98\x80");
    /* ill-formed: a lone continuation, an overlong form, a surrogate, a cut character */
    expect(&s, "\x80", "a\xf0\x9f\x98\x80\xef\xbf\xbd");
    CHECK(stream_end(&s) == 0);
    stream_finish(&s);

    stream_init(&s, NULL, 0);
    expect(&s, "\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd");
    expect(&s, "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    stream_finish(&s);

    stream_init(&s, NULL, 0);
    expect(&s, "x\xe2\x82", "x");
    expect(&s, "y", "x\xef\xbf\xbdy");
    expect(&s, "\xe2", "x\xef\xbf\xbdy");
    CHECK(stream_end(&s) == 0);
    CHECK(strcmp(s.text, "x\xef\xbf\xbdy\xef\xbf\xbd") == 0);
    stream_finish(&s);
}

static void test_stops(void)
{
    static const char *const stops[] = {"STOP", "\n\n", ""};
    struct stream s;
    stream_init(&s, stops, 3);
    expect(&s, "one S", "one ");
    expect(&s, "TO", "one ");
    expect(&s, "RM ", "one STORM ");
    expect(&s, "two\n", "one STORM two");
    CHECK(!s.stopped);
    expect(&s, "\nthree", "one STORM two");
    CHECK(s.stopped);
    expect(&s, "more", "one STORM two");
    CHECK(stream_end(&s) == 0);
    CHECK(strcmp(s.text, "one STORM two") == 0);
    stream_finish(&s);

    /* what was held back is given out when nothing follows */
    stream_init(&s, stops, 3);
    expect(&s, "end STO", "end ");
    CHECK(stream_end(&s) == 0);
    CHECK(strcmp(s.text, "end STO") == 0);
    CHECK_EQ(s.n_final, 7);
    stream_finish(&s);

    /* the first of two stop strings in one token wins */
    stream_init(&s, stops, 3);
    expect(&s, "a\n\nbSTOP", "a");
    CHECK(s.stopped);
    stream_finish(&s);
}

int main(void)
{
    test_plain();
    test_empty();
    test_utf8();
    test_stops();
    return 0;
}
