/* SPDX-License-Identifier: MIT */
/* The keys of gttd.conf and how they are written: see config.h. */
#include "config.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "gttd_util.h"
#include "heap.h"
#include "quantity.h"

#define LINE_MAX_BYTES 1024

/* More than the memory of most machines' devices: a bound for who hands over what is none. */
#define ADOPTED_QUOTA_DEFAULT (256ull << 30)

void config_default(struct config *ret)
{
    *ret = (struct config){.heap = "auto",
                           .device = "auto",
                           .anchor = "auto",
                           .floor_bytes = admission_default_floor(),
                           .adopts = true,
                           .adopted_quota_bytes = ADOPTED_QUOTA_DEFAULT,
                           .pressure = PRESSURE_DEFAULT};
}

static int set_size(uint64_t *ret, const char *value, struct reason *why)
{
    int r = size_parse(value, ret);
    return r < 0 ? reason_set(why, -EINVAL, "%s: %s", value,
                              r == -ERANGE ? "too large" : "not a size such as 512M or 20G")
                 : 0;
}

/* A size, or "none", which is 0. */
static int set_limit(uint64_t *ret, const char *value, struct reason *why)
{
    uint64_t bytes = 0;
    int r = 0;
    if (strcmp(value, "none") != 0) {
        r = set_size(&bytes, value, why);
        if (r == 0 && !bytes) {
            r = reason_set(why, -EINVAL, "0 would let nobody have anything; none is no limit");
        }
    }
    if (r == 0) {
        *ret = bytes;
    }
    return r;
}

static int set_ms(uint32_t *ret, const char *value, struct reason *why)
{
    return duration_parse(value, ret) < 0
               ? reason_set(why, -EINVAL, "%s: not a time such as 150ms or 2s", value)
               : 0;
}

static int set_heap(struct config *config, const char *value, struct reason *why)
{
    if (!heap_choice_exists(value) || strlen(value) >= sizeof config->heap) {
        return reason_set(why, -EINVAL, "%s: there are auto, amdgpu, udmabuf and memfd", value);
    }
    strcpy(config->heap, value);
    return 0;
}

static int set_device(struct config *config, const char *value, struct reason *why)
{
    if (strcmp(value, "auto") != 0 && value[0] != '/') {
        return reason_set(why, -EINVAL, "%s: neither auto nor a path such as /dev/dri/renderD128",
                          value);
    }
    snprintf(config->device, sizeof config->device, "%s", value);
    return 0;
}

static int set_anchor(struct config *config, const char *value, struct reason *why)
{
    if (strcmp(value, "auto") != 0 && strcmp(value, "off") != 0 && value[0] != '/') {
        return reason_set(why, -EINVAL,
                          "%s: neither auto nor off nor a path such as /dev/accel/accel0", value);
    }
    snprintf(config->anchor, sizeof config->anchor, "%s", value);
    return 0;
}

static int set_pool(struct config *config, const char *value, struct reason *why)
{
    return set_limit(&config->pool_bytes, value, why);
}

static int set_quota(struct config *config, const char *value, struct reason *why)
{
    return set_limit(&config->quota_bytes, value, why);
}

static int set_floor(struct config *config, const char *value, struct reason *why)
{
    return set_size(&config->floor_bytes, value, why);
}

static int set_share(struct config *config, const char *value, struct reason *why)
{
    config->share_group = !strcmp(value, "group");
    return config->share_group || !strcmp(value, "user")
               ? 0
               : reason_set(why, -EINVAL, "%s: there are user and group", value);
}

static int set_adopt(struct config *config, const char *value, struct reason *why)
{
    bool adopts = strcmp(value, "off") != 0;
    int r = adopts ? set_limit(&config->adopted_quota_bytes, value, why) : 0;
    config->adopts = r < 0 ? config->adopts : adopts;
    return r;
}

static int set_pressure(struct config *config, const char *value, struct reason *why)
{
    static const char *const words[] =
        {[PRESSURE_OFF] = "off", [PRESSURE_SOME] = "some", [PRESSURE_FULL] = "full"};
    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        if (!strcmp(value, words[i])) {
            config->pressure.kind = (enum pressure_kind)i;
            return 0;
        }
    }
    return reason_set(why, -EINVAL, "%s: there are off, some and full", value);
}

static int set_pressure_stall(struct config *config, const char *value, struct reason *why)
{
    int r = set_ms(&config->pressure.stall_ms, value, why);
    if (r == 0 && (config->pressure.stall_ms < 1 || config->pressure.stall_ms > 10000)) {
        r = reason_set(why, -EINVAL, "%s: 1ms to 10s, and not above pressure.window", value);
    }
    return r;
}

static int set_pressure_window(struct config *config, const char *value, struct reason *why)
{
    int r = set_ms(&config->pressure.window_ms, value, why);
    if (r == 0 && (config->pressure.window_ms < 2000 || config->pressure.window_ms > 10000 ||
                   config->pressure.window_ms % 2000)) {
        r = reason_set(why, -EINVAL,
                       "%s: 2s, 4s, 6s, 8s or 10s, which is what the kernel lets everyone have",
                       value);
    }
    return r;
}

static int set_pressure_step(struct config *config, const char *value, struct reason *why)
{
    int r = set_size(&config->pressure.step_bytes, value, why);
    if (r == 0 && !config->pressure.step_bytes) {
        r = reason_set(why, -EINVAL, "0 would evict nothing; use pressure = off for that");
    }
    return r;
}

static const struct {
    const char *name;
    int (*set)(struct config *config, const char *value, struct reason *why);
} keys[] = {
    {"heap", set_heap},
    {"device", set_device},
    {"anchor", set_anchor},
    {"pool", set_pool},
    {"quota", set_quota},
    {"floor", set_floor},
    {"share", set_share},
    {"adopt", set_adopt},
    {"pressure", set_pressure},
    {"pressure.stall", set_pressure_stall},
    {"pressure.window", set_pressure_window},
    {"pressure.step", set_pressure_step},
};

static const char user_quota_prefix[] = "quota.";

/* All digits: a uid, but not the one that means none. */
static bool parse_uid(const char *text, uid_t *ret)
{
    uint64_t uid = 0;
    size_t n = strspn(text, "0123456789");
    if (!n || n > 10 || text[n]) {
        return false;
    }
    for (; *text; text++) {
        uid = uid * 10 + (uint64_t)(*text - '0');
    }
    *ret = (uid_t)uid;
    return uid < UINT32_MAX;
}

static int find_user(const char *name, uid_t *ret, struct reason *why)
{
    char buf[4096];
    struct passwd entry, *found = NULL;
    if (name[0] >= '0' && name[0] <= '9') {
        return parse_uid(name, ret) ? 0 : reason_set(why, -EINVAL, "%s: not a uid", name);
    }
    int r = name[0] ? getpwnam_r(name, &entry, buf, sizeof buf, &found) : 0;
    if (!found) {
        return reason_set(why, -ENOENT, "%s: %s", name[0] ? name : "nobody named",
                          r ? strerror(r) : "there is no such user");
    }
    *ret = found->pw_uid;
    return 0;
}

static int set_user_quota(struct config *config, const char *user, const char *value,
                          struct reason *why)
{
    struct user_quota quota = {0};
    int r = find_user(user, &quota.uid, why);
    if (r == 0) {
        r = set_limit(&quota.bytes, value, why);
    }
    if (r < 0) {
        return r;
    }
    for (uint32_t i = 0; i < config->n_user_quotas; i++) {
        if (config->user_quotas[i].uid == quota.uid) {
            return reason_set(why, -EINVAL, "uid %u has a quota of its own already", quota.uid);
        }
    }
    if (config->n_user_quotas == USER_QUOTAS_MAX) {
        return reason_set(why, -EINVAL, "there are at most %d users with quotas of their own",
                          USER_QUOTAS_MAX);
    }
    config->user_quotas[config->n_user_quotas++] = quota;
    return 0;
}

/* Index into keys; ARRAY_SIZE(keys) if it is none of them. */
static size_t find_key(const char *name)
{
    size_t i = 0;
    while (i < ARRAY_SIZE(keys) && strcmp(keys[i].name, name) != 0) {
        i++;
    }
    return i;
}

int config_set(struct config *config, const char *key, const char *value, struct reason *why)
{
    struct reason cause;
    int r;
    size_t i = find_key(key);
    if (!value[0]) {
        return reason_set(why, -EINVAL, "%s has no value", key);
    }
    if (strlen(value) > CONFIG_VALUE_MAX) {
        return reason_set(why, -EINVAL, "%s: a value has at most %d bytes", key, CONFIG_VALUE_MAX);
    }
    if (i < ARRAY_SIZE(keys)) {
        r = keys[i].set(config, value, &cause);
    } else if (!strncmp(key, user_quota_prefix, sizeof user_quota_prefix - 1)) {
        r = set_user_quota(config, key + sizeof user_quota_prefix - 1, value, &cause);
    } else {
        return reason_set(why, -EINVAL, "unknown key %s", key);
    }
    return r < 0 ? reason_set(why, r, "%s: %s", key, cause.text) : 0;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* The text without blanks at its ends. */
static char *trim(char *text)
{
    while (is_blank(*text)) {
        text++;
    }
    size_t n = strlen(text);
    while (n && is_blank(text[n - 1])) {
        n--;
    }
    text[n] = '\0';
    return text;
}

/* A # at the start of a line or behind a blank starts a comment. */
static void cut_comment(char *line)
{
    for (char *c = line; *c; c++) {
        if (*c == '#' && (c == line || is_blank(c[-1]))) {
            *c = '\0';
            return;
        }
    }
}

/* One line, of which nothing is left afterwards. set_on: where each key was set; 0: not yet. */
static int parse_line(struct config *config, char *line, uint32_t number, uint32_t *set_on,
                      struct reason *why)
{
    cut_comment(line);
    for (const char *c = line; *c; c++) {
        if ((*c < ' ' || *c > '~') && *c != '\t') {
            return reason_set(why, -EINVAL, "only comments may have other than printable ASCII");
        }
    }
    char *key = trim(line);
    char *equals = strchr(key, '=');
    if (!key[0]) {
        return 0;
    }
    if (!equals) {
        return reason_set(why, -EINVAL, "not of the form key = value: %s", key);
    }
    *equals = '\0';
    key = trim(key);
    size_t i = find_key(key);
    if (i < ARRAY_SIZE(keys) && set_on[i]) {
        return reason_set(why, -EINVAL, "%s was set on line %u already", key, set_on[i]);
    }
    int r = config_set(config, key, trim(equals + 1), why);
    if (r == 0 && i < ARRAY_SIZE(keys)) {
        set_on[i] = number;
    }
    return r;
}

/* What no single key can say. */
static int check_whole(const struct config *config, struct reason *why)
{
    const struct pressure_settings *p = &config->pressure;
    if (p->stall_ms > p->window_ms) {
        return reason_set(why, -EINVAL, "pressure.stall of %u ms is above pressure.window, %u ms",
                          p->stall_ms, p->window_ms);
    }
    return 0;
}

int config_parse(struct config *config, const char *name, const void *text, size_t size,
                 struct reason *why)
{
    const char *next = text, *end = next + size;
    uint32_t set_on[ARRAY_SIZE(keys)] = {0};
    struct reason cause;
    uint32_t number = 0;
    int r = 0;
    while (r == 0 && next < end) {
        const char *newline = memchr(next, '\n', (size_t)(end - next));
        size_t n = (size_t)((newline ? newline : end) - next);
        char line[LINE_MAX_BYTES + 1];
        number++;
        if (n > LINE_MAX_BYTES) {
            r = reason_set(&cause, -EINVAL, "a line has at most %d bytes", LINE_MAX_BYTES);
        } else if (memchr(next, '\0', n)) {
            r = reason_set(&cause, -EINVAL, "a byte that is 0");
        } else {
            memcpy(line, next, n);
            line[n] = '\0';
            r = parse_line(config, line, number, set_on, &cause);
        }
        next = newline ? newline + 1 : end;
    }
    if (r == 0) {
        r = check_whole(config, &cause);
    }
    return r < 0 ? reason_set(why, r, "%s:%u: %s", name, number, cause.text) : 0;
}

/* All of a regular file that is not too large. */
static int read_all(int fd, char *buf, size_t capacity, size_t *ret_size)
{
    struct stat st;
    size_t size = 0;
    if (fstat(fd, &st) < 0) {
        return -errno;
    }
    if (!S_ISREG(st.st_mode)) {
        return S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
    }
    for (;;) {
        ssize_t n = read(fd, buf + size, capacity - size);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        if (n == 0) {
            *ret_size = size;
            return 0;
        }
        size += n > 0 ? (size_t)n : 0;
        if (size == capacity) {
            return -EFBIG;
        }
    }
}

int config_read(struct config *config, const char *path, bool optional, struct reason *why)
{
    size_t size = 0;
    AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) {
        return optional && errno == ENOENT
                   ? 0
                   : reason_set(why, -errno, "%s: %s", path, strerror(errno));
    }
    AUTO_FREE char *text = malloc(CONFIG_MAX_BYTES + 1);
    int r = text ? read_all(fd, text, CONFIG_MAX_BYTES + 1, &size) : -ENOMEM;
    if (r < 0) {
        return reason_set(why, r, "%s: %s", path, r == -EINVAL ? "no regular file" : strerror(-r));
    }
    return config_parse(config, path, text, size, why);
}
