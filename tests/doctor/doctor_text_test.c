/* SPDX-License-Identifier: MIT */
/* The small parsers, and how much GTT doctor advises. */
#include <inttypes.h>

#include "check.h"
#include "plan.h"
#include "size.h"
#include "text.h"

#define GIB ((uint64_t)1 << 30)

static void test_numbers(void)
{
    static const struct {
        const char *text;
        int64_t value;
    } good[] = {{"0", 0},      {"42\n", 42},
                {"-1", -1},    {"0x15bf\n", 0x15bf},
                {"7 \t\n", 7}, {"9223372036854775807", INT64_MAX}};
    static const char *const bad[] = {"",    "\n", "x",  "+1", " 1",
                                      "1 2", "-",  "0x", "1x", "9223372036854775808",
                                      "--1"};
    int64_t value;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        CHECK_EQ(text_number(good[i].text, &value), 0);
        CHECK_EQ(value, good[i].value);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK(text_number(bad[i], &value) < 0);
    }
}

static void test_fields(void)
{
    static const char text[] = "MemTotalX: 1 kB\nMemTotal:    123 kB\nMemFree: -5 kB\nEnd: 7";
    uint64_t value;
    CHECK(text_field(text, "MemTotal", &value) && value == 123);
    CHECK(text_field(text, "End", &value) && value == 7);
    CHECK(!text_field(text, "MemFree", &value));
    CHECK(!text_field(text, "Mem", &value));
    CHECK(!text_field("", "Mem", &value));
}

static void test_options(void)
{
    char value[8];
    CHECK(text_option("a=1 b=2 a=3", "a", value, sizeof value) && strcmp(value, "3") == 0);
    CHECK(text_option("\tlong=123456789\n", "long", value, sizeof value));
    CHECK(strcmp(value, "1234567") == 0);
    CHECK(text_option("a= b", "a", value, sizeof value) && !*value);
    CHECK(!text_option("aa=1 xa=2 a", "a", value, sizeof value));
    CHECK(text_has_word("ro quiet amd_iommu=off", "amd_iommu=off"));
    CHECK(!text_has_word("ro amd_iommu=offf xamd_iommu=off", "amd_iommu=off"));
    CHECK(!text_has_word("", "x"));
    CHECK(text_setting("\nA=1\nB=\"two words\"\nC='x\n", "B", value, sizeof value));
    CHECK(strcmp(value, "two wor") == 0);
    CHECK(text_setting("C='x", "C", value, sizeof value) && strcmp(value, "'x") == 0);
    CHECK(!text_setting("AB=1\n", "B", value, sizeof value));
}

static void test_lines(void)
{
    char text[] = "one two\n\nthree", *rest = text;
    char *line = text_line(&rest), *words = line;
    CHECK(strcmp(text_word(&words), "one") == 0 && strcmp(text_word(&words), "two") == 0);
    CHECK(!text_word(&words));
    CHECK(!*text_line(&rest) && strcmp(text_line(&rest), "three") == 0 && !text_line(&rest));
    char clean[8];
    text_clean(clean, sizeof clean, "a\x1b[1m\xff  \n");
    CHECK(strcmp(clean, "a?[1m?") == 0);
}

/* All but an eighth, of which at least 4 and at most 16 GiB. */
static void test_advice(void)
{
    static const struct {
        uint64_t ram, gtt;
    } table[] = {{0, 0},
                 {4 * GIB, 0},
                 {8 * GIB, 0},
                 {15 * GIB + GIB / 2, 11 * GIB},
                 {31 * GIB, 27 * GIB},
                 {64 * GIB, 56 * GIB},
                 {92 * GIB, 80 * GIB},
                 {125 * GIB, 109 * GIB},
                 {500 * GIB, 484 * GIB}};
    char text[SIZE_TEXT_MAX];
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        CHECK_EQ(plan_gtt_bytes(table[i].ram), table[i].gtt);
    }
    CHECK(strcmp(size_text(0, text), "0") == 0);
    CHECK(strcmp(size_text(1536 << 20, text), "1.5 GiB") == 0);
    CHECK(strcmp(size_text(UINT64_MAX, text), "16777216.0 TiB") == 0);
}

int main(void)
{
    test_numbers();
    test_fields();
    test_options();
    test_lines();
    test_advice();
    return 0;
}
