/* SPDX-License-Identifier: MIT */
/* Kernel modules: which there are, and their parameters as they are and as they are set. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf.h"
#include "gttd_util.h"
#include "text.h"

/* In the order of precedence: a file hides those of the same name further down. */
static const char *const modprobe_dirs[] = {"etc/modprobe.d", "run/modprobe.d",
                                            "usr/local/lib/modprobe.d", "usr/lib/modprobe.d",
                                            "lib/modprobe.d"};

/* A parameter and where to look for it. */
struct wanted {
    const char *module, *name;
    struct param_facts *param;
};

static void set_param(struct param_facts *param, const char *value, const char *where)
{
    if (text_number(value, &param->set) == 0) {
        param->is_set = true;
        param->set_by_us = strcmp(where, "/" OWN_MODPROBE_FILE) == 0;
        text_clean(param->set_in, sizeof param->set_in, where);
    }
}

/* "options MODULE name=value ..." */
static void parse_options_line(char *line, const char *where, const struct wanted *wanted,
                               size_t n_wanted)
{
    char value[FACTS_WORD_SIZE];
    char *rest = line, *word = text_word(&rest);
    if (!word || strcmp(word, "options") != 0 || !(word = text_word(&rest)) || !rest) {
        return;
    }
    for (size_t i = 0; i < n_wanted; i++) {
        if (strcmp(word, wanted[i].module) == 0 &&
            text_option(rest, wanted[i].name, value, sizeof value)) {
            set_param(wanted[i].param, value, where);
        }
    }
}

/* A backslash at the end of a line goes on on the next. */
static void join_lines(char *text)
{
    for (char *at = text; (at = strstr(at, "\\\n"));) {
        at[0] = at[1] = ' ';
    }
}

static void read_set_params(struct reader *reader, const struct wanted *wanted, size_t n_wanted)
{
    struct conf_files found = conf_find(reader, modprobe_dirs, ARRAY_SIZE(modprobe_dirs));
    for (size_t f = 0; f < found.n; f++) {
        char where[FACTS_PATH_SIZE];
        conf_read(reader, &found.files[f], where);
        join_lines(reader->text);
        char *text = reader->text;
        for (char *line; (line = text_line(&text));) {
            parse_options_line(line, where, wanted, n_wanted);
        }
    }
    free(found.files);
    for (size_t i = 0; i < n_wanted; i++) { /* modprobe puts these behind those of the files */
        char key[FACTS_WORD_SIZE], value[FACTS_WORD_SIZE];
        snprintf(key, sizeof key, "%s.%s", wanted[i].module, wanted[i].name);
        if (text_option(reader->facts->cmdline, key, value, sizeof value)) {
            set_param(wanted[i].param, value, "the kernel command line");
        }
    }
}

static bool has_module_dir(struct reader *reader, const char *dir)
{
    return reader->facts->kernel[0] &&
           reader_has(reader, "lib/modules/%s/kernel/drivers/%s", reader->facts->kernel, dir);
}

/* The kernel's own, or one that DKMS has built. */
static bool has_amdxdna_file(struct reader *reader)
{
    static const char *const suffixes[] = {"", ".xz", ".zst"};
    bool found = has_module_dir(reader, "accel/amdxdna");
    for (size_t i = 0; i < ARRAY_SIZE(suffixes) && !found; i++) {
        found = reader->facts->kernel[0] &&
                reader_has(reader, "lib/modules/%s/updates/dkms/amdxdna.ko%s",
                           reader->facts->kernel, suffixes[i]);
    }
    return found;
}

void read_modules(struct reader *reader)
{
    struct facts *facts = reader->facts;
    facts->has_amdttm = reader_has(reader, "sys/module/amdttm");
    facts->has_ttm = facts->has_amdttm || reader_has(reader, "sys/module/ttm");
    const char *ttm = facts->has_amdttm ? "amdttm" : "ttm";
    /* only what can be unloaded has a state */
    facts->ttm_builtin = facts->has_ttm && !reader_has(reader, "sys/module/%s/initstate", ttm);
    const struct wanted wanted[] = {{ttm, "pages_limit", &facts->pages_limit},
                                    {ttm, "page_pool_size", &facts->page_pool_size},
                                    {"amdgpu", "gttsize", &facts->gttsize}};
    for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
        wanted[i].param->is_known =
            reader_number(reader, &wanted[i].param->now, "sys/module/%s/parameters/%s",
                          wanted[i].module, wanted[i].name);
    }
    read_set_params(reader, wanted, ARRAY_SIZE(wanted));
    facts->has_vgem = reader_has(reader, "sys/module/vgem");
    facts->can_have_vgem = facts->has_vgem || has_module_dir(reader, "gpu/drm/vgem");
    facts->has_amdxdna = reader_has(reader, "sys/module/amdxdna");
    facts->can_have_amdxdna = facts->has_amdxdna || has_amdxdna_file(reader);
    facts->udmabuf_limit_known = reader_number(reader, &facts->udmabuf_limit_mb,
                                               "sys/module/udmabuf/parameters/size_limit_mb");
}
