/* SPDX-License-Identifier: MIT */
/* Short texts for tables: see format.h. */
#include "format.h"

#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>

char *age_text(uint64_t ms, char buf[static TEXT_MAX])
{
    uint64_t s = ms / 1000;
    if (s < 120) {
        snprintf(buf, TEXT_MAX, "%" PRIu64 " s", s);
    } else if (s < 7200) {
        snprintf(buf, TEXT_MAX, "%" PRIu64 " min", s / 60);
    } else if (s < 48 * 3600) {
        snprintf(buf, TEXT_MAX, "%" PRIu64 " h", s / 3600);
    } else {
        snprintf(buf, TEXT_MAX, "%" PRIu64 " d", s / 86400);
    }
    return buf;
}

char *user_text(uint32_t uid, char buf[static TEXT_MAX])
{
    const struct passwd *user = getpwuid(uid);
    if (user) {
        snprintf(buf, TEXT_MAX, "%s", user->pw_name);
    } else {
        snprintf(buf, TEXT_MAX, "%u", uid);
    }
    return buf;
}

char *hex_text(const uint8_t *digest, int n, char buf[static TEXT_MAX])
{
    for (int i = 0; i < n; i++) {
        snprintf(buf + 2 * i, 3, "%02x", digest[i]);
    }
    return buf;
}

char *cut_text(const char *text, int width, char buf[static GTT_NAME_MAX + 1])
{
    width = width > GTT_NAME_MAX ? GTT_NAME_MAX : width;
    if ((int)strlen(text) <= width) {
        snprintf(buf, GTT_NAME_MAX + 1, "%s", text);
    } else {
        snprintf(buf, GTT_NAME_MAX + 1, "%.*s..", width - 2, text);
    }
    return buf;
}

const char *state_text(enum gtt_state state)
{
    switch (state) {
    case GTT_CLAIMED:
        return "claimed";
    case GTT_POPULATING:
        return "populating";
    case GTT_FILLING:
        return "filling";
    case GTT_SEALING:
        return "sealing";
    case GTT_SEALED:
        return "sealed";
    }
    return "unknown";
}

const char *event_text(enum gtt_event_kind kind)
{
    switch (kind) {
    case GTT_EVENT_CREATED:
        return "created";
    case GTT_EVENT_SEALED:
        return "sealed";
    case GTT_EVENT_OPENED:
        return "opened";
    case GTT_EVENT_CLOSED:
        return "closed";
    case GTT_EVENT_DROPPED:
        return "dropped";
    case GTT_EVENT_EVICTED:
        return "evicted";
    case GTT_EVENT_CLIENT_GONE:
        return "client-gone";
    case GTT_EVENT_LOST:
        return "lost";
    }
    return "unknown";
}

char *hold_text(const struct gtt_info *info, const struct gtt_entry *entry,
                char buf[static TEXT_MAX])
{
    if (entry->size_bytes == 0) {
        return strcpy(buf, "-");
    }
    if (entry->adopted) {
        return strcpy(buf, "device");
    }
    if (entry->pinned_bytes == entry->size_bytes) {
        return strcpy(buf, "pinned");
    }
    if (entry->pinned_bytes > 0) {
        snprintf(buf, TEXT_MAX, "%.0f%% pin",
                 100.0 * (double)entry->pinned_bytes / (double)entry->size_bytes);
        return buf;
    }
    return strcpy(buf, strcmp(info->heap, "memfd") == 0 ? "swappable" : "resident");
}
