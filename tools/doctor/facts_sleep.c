/* SPDX-License-Identifier: MIT */
/* Whether this machine can hibernate, and where to. */
#include <string.h>

#include "reader.h"
#include "text.h"

/* /proc/swaps: "Filename Type Size Used Priority". Compressed RAM is none to hibernate to. */
static uint64_t disk_swap_bytes(char *text)
{
    uint64_t bytes = 0;
    text_line(&text); /* the headings */
    for (char *line; (line = text_line(&text));) {
        char *rest = line;
        const char *name = text_word(&rest), *type = text_word(&rest), *size = text_word(&rest);
        int64_t kib;
        if (type && size && strncmp(name, "/dev/zram", 9) != 0 && text_number(size, &kib) == 0 &&
            kib > 0 && kib < (int64_t)1 << 44) {
            bytes += (uint64_t)kib << 10;
        }
    }
    return bytes;
}

void read_hibernation(struct reader *reader)
{
    struct facts *facts = reader->facts;
    char word[FACTS_WORD_SIZE];
    bool disabled = text_has_word(facts->cmdline, "nohibernate") ||
                    (reader_text(reader, "sys/power/disk") && strstr(reader->text, "[disabled]"));
    reader_text(reader, "sys/power/state");
    reader->text[strcspn(reader->text, "\n")] = '\0';
    facts->can_hibernate = !disabled && text_has_word(reader->text, "disk");
    facts->has_resume =
        !text_has_word(facts->cmdline, "noresume") &&
        (text_option(facts->cmdline, "resume", word, sizeof word) ||
         (reader_word(reader, word, sizeof word, "sys/power/resume") && strcmp(word, "0:0") != 0));
    if (reader_text(reader, "proc/swaps")) {
        facts->swap_bytes = disk_swap_bytes(reader->text);
    }
}
