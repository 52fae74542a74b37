/* SPDX-License-Identifier: MIT */
/* Lines, words, numbers: see text.h. */
#include "text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BLANKS " \t\r\n\v\f"

char *text_line(char **text)
{
    char *line = *text;
    if (!line || !*line) {
        return NULL;
    }
    char *end = strchr(line, '\n');
    *text = end ? end + 1 : NULL;
    if (end) {
        *end = '\0';
    }
    return line;
}

char *text_word(char **text)
{
    if (!*text) {
        return NULL;
    }
    char *word = *text + strspn(*text, BLANKS);
    if (!*word) {
        return NULL;
    }
    char *end = word + strcspn(word, BLANKS);
    *text = *end ? end + 1 : NULL;
    *end = '\0';
    return word;
}

int text_number(const char *text, int64_t *ret)
{
    char *end;
    size_t sign = *text == '-';
    bool hex = text[sign] == '0' && (text[sign + 1] == 'x' || text[sign + 1] == 'X');
    if (text[sign] < '0' || text[sign] > '9') {
        return -EINVAL;
    }
    errno = 0;
    long long value = strtoll(text, &end, hex ? 16 : 10);
    if (errno || end[strspn(end, BLANKS)]) {
        return -EINVAL;
    }
    *ret = value;
    return 0;
}

bool text_field(const char *text, const char *key, uint64_t *ret)
{
    size_t n = strlen(key);
    for (const char *line = text; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, n) == 0 && (line[n] == ':' || line[n] == ' ' || line[n] == '\t')) {
            const char *number = line + n + 1;
            number += strspn(number, " \t");
            if (*number < '0' || *number > '9') {
                return false;
            }
            errno = 0;
            *ret = strtoull(number, NULL, 10);
            return errno == 0;
        }
    }
    return false;
}

/* The first word from at on, and how long it is; NULL: none. */
static const char *next_word(const char *at, size_t *ret_n)
{
    at += strspn(at, BLANKS);
    *ret_n = strcspn(at, BLANKS);
    return *ret_n ? at : NULL;
}

static void copy(char *ret, size_t size, const char *from, size_t n)
{
    n = n < size - 1 ? n : size - 1;
    memcpy(ret, from, n);
    ret[n] = '\0';
}

bool text_option(const char *line, const char *key, char *ret, size_t size)
{
    size_t n, n_key = strlen(key);
    bool found = false;
    for (const char *word = next_word(line, &n); word; word = next_word(word + n, &n)) {
        if (n > n_key && strncmp(word, key, n_key) == 0 && word[n_key] == '=') {
            copy(ret, size, word + n_key + 1, n - n_key - 1);
            found = true;
        }
    }
    return found;
}

bool text_has_word(const char *line, const char *word)
{
    size_t n;
    for (const char *w = next_word(line, &n); w; w = next_word(w + n, &n)) {
        if (n == strlen(word) && strncmp(w, word, n) == 0) {
            return true;
        }
    }
    return false;
}

bool text_setting(const char *text, const char *key, char *ret, size_t size)
{
    size_t n_key = strlen(key);
    for (const char *line = text; line && *line; line = strchr(line, '\n')) {
        line += strspn(line, "\n");
        if (strncmp(line, key, n_key) == 0 && line[n_key] == '=') {
            const char *value = line + n_key + 1;
            size_t n = strcspn(value, "\n");
            if (n >= 2 && (*value == '"' || *value == '\'') && value[n - 1] == *value) {
                value++;
                n -= 2;
            }
            copy(ret, size, value, n);
            return true;
        }
    }
    return false;
}

void text_clean(char *ret, size_t size, const char *text)
{
    size_t n = strlen(text);
    while (n && strchr(BLANKS, text[n - 1])) {
        n--;
    }
    copy(ret, size, text, n);
    for (char *c = ret; *c; c++) {
        *c = *c >= ' ' && *c <= '~' ? *c : '?';
    }
}
