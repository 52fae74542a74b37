/* SPDX-License-Identifier: MIT */
/* How much memory the user may lock: now, and as it is set. */
#include <stdlib.h>
#include <string.h>

#include "conf.h"
#include "gttd_util.h"
#include "text.h"

/* "Max locked memory  8388608  8388608  bytes": the soft limit. */
static void parse_own_limits(char *text, struct facts *facts)
{
    static const char key[] = "Max locked memory";
    for (char *line; (line = text_line(&text));) {
        if (strncmp(line, key, sizeof key - 1) != 0) {
            continue;
        }
        char *rest = line + sizeof key - 1, *word = text_word(&rest);
        int64_t bytes;
        if (word && strcmp(word, "unlimited") == 0) {
            facts->memlock_known = true;
            facts->memlock_bytes = UINT64_MAX;
        } else if (word && text_number(word, &bytes) == 0 && bytes >= 0) {
            facts->memlock_known = true;
            facts->memlock_bytes = (uint64_t)bytes;
        }
    }
}

/* Whether a domain of limits.conf is this user: a name, @group, *. */
static bool is_domain(struct reader *reader, const char *domain)
{
    const struct who *who = &reader->facts->who;
    if (strcmp(domain, "*") == 0) {
        return who->uid != 0; /* as limits.conf(5) has it */
    }
    return domain[0] == '@' ? who_in_group(reader, who, domain + 1)
                            : strcmp(domain, who->name) == 0;
}

enum { SOFT = 1, HARD = 2 };

/* Which of its limits a line lifts for this user. */
static int parse_line(struct reader *reader, char *line)
{
    char *rest = line, *domain = text_word(&rest), *type = text_word(&rest);
    const char *item = text_word(&rest), *value = text_word(&rest);
    if (!domain || domain[0] == '#' || !value || strcmp(item, "memlock") != 0 ||
        (strcmp(value, "unlimited") != 0 && strcmp(value, "infinity") != 0 &&
         strcmp(value, "-1") != 0) ||
        !is_domain(reader, domain)) {
        return 0;
    }
    return strcmp(type, "-") == 0      ? SOFT | HARD
           : strcmp(type, "soft") == 0 ? SOFT
           : strcmp(type, "hard") == 0 ? HARD
                                       : 0;
}

/* What reader->text, one of PAM's files, lifts. */
static int parse_pam_limits(struct reader *reader)
{
    int lifted = 0;
    AUTO_FREE char *copy = strdup(reader->text); /* looking up groups needs the buffer */
    char *text = copy;
    for (char *line; (line = text_line(&text));) {
        lifted |= parse_line(reader, line);
    }
    return lifted;
}

static bool systemd_lifts(struct reader *reader)
{
    char value[FACTS_WORD_SIZE];
    return text_setting(reader->text, "DefaultLimitMEMLOCK", value, sizeof value) &&
           (strcmp(value, "infinity") == 0 || strcmp(value, "infinity:infinity") == 0);
}

void read_limits(struct reader *reader)
{
    static const char *const pam_dirs[] = {"etc/security/limits.d"};
    static const char *const systemd_dirs[] = {"etc/systemd/system.conf.d"};
    struct facts *facts = reader->facts;
    char path[FACTS_PATH_SIZE];
    reader_text(reader, "proc/self/limits");
    parse_own_limits(reader->text, facts);

    reader_text(reader, "etc/security/limits.conf");
    int lifted = parse_pam_limits(reader);
    struct conf_files found = conf_find(reader, pam_dirs, ARRAY_SIZE(pam_dirs));
    for (size_t i = 0; i < found.n; i++) {
        conf_read(reader, &found.files[i], path);
        lifted |= parse_pam_limits(reader);
    }
    free(found.files);

    reader_text(reader, "etc/systemd/system.conf");
    bool by_systemd = systemd_lifts(reader);
    found = conf_find(reader, systemd_dirs, ARRAY_SIZE(systemd_dirs));
    for (size_t i = 0; i < found.n; i++) {
        conf_read(reader, &found.files[i], path);
        by_systemd |= systemd_lifts(reader);
    }
    free(found.files);
    facts->memlock_unlimited_set = lifted == (SOFT | HARD) || by_systemd;
}
