/* SPDX-License-Identifier: MIT */
/* The facts, all of them, in order; and the system's own: see facts.h. */
#include "facts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gttd_util.h"
#include "reader.h"
#include "text.h"

static void read_kernel(struct reader *reader)
{
    struct facts *facts = reader->facts;
    unsigned major, minor;
    reader_word(reader, facts->kernel, sizeof facts->kernel, "proc/sys/kernel/osrelease");
    if (sscanf(facts->kernel, "%4u.%4u", &major, &minor) == 2) {
        facts->kernel_major = major;
        facts->kernel_minor = minor;
    }
    reader_word(reader, facts->cmdline, sizeof facts->cmdline, "proc/cmdline");
}

static void read_distribution(struct reader *reader)
{
    struct facts *facts = reader->facts;
    char name[FACTS_WORD_SIZE];
    if ((reader_text(reader, "etc/os-release") || reader_text(reader, "usr/lib/os-release")) &&
        text_setting(reader->text, "PRETTY_NAME", name, sizeof name)) {
        text_clean(facts->distribution, sizeof facts->distribution, name);
    }
    if (reader_has(reader, "usr/sbin/update-initramfs")) {
        facts->initramfs = INITRAMFS_TOOLS;
    } else if (reader_has(reader, "usr/bin/dracut") || reader_has(reader, "usr/sbin/dracut")) {
        facts->initramfs = INITRAMFS_DRACUT;
    } else if (reader_has(reader, "usr/bin/mkinitcpio")) {
        facts->initramfs = INITRAMFS_MKINITCPIO;
    }
}

/* "Key: 123 kB", as bytes; 0 if it is not there or is nonsense. */
static uint64_t meminfo_bytes(const char *text, const char *key)
{
    uint64_t kib;
    return text_field(text, key, &kib) && kib < 1ull << 44 ? kib << 10 : 0;
}

void read_system(struct reader *reader)
{
    struct facts *facts = reader->facts;
    read_kernel(reader);
    read_distribution(reader);
    if (reader_text(reader, "proc/meminfo")) {
        facts->ram_bytes = meminfo_bytes(reader->text, "MemTotal");
        facts->available_bytes = meminfo_bytes(reader->text, "MemAvailable");
    }
    facts->has_psi =
        reader_text(reader, "proc/pressure/memory") && strncmp(reader->text, "some ", 5) == 0;
}

int facts_read(struct facts *facts, struct tree *tree, const struct who *who, const char *name,
               struct err *err)
{
    AUTO_FREE struct reader *reader = malloc(sizeof *reader);
    if (!reader) {
        return err_set(err, -ENOMEM, "out of memory");
    }
    reader->tree = tree;
    reader->facts = facts;
    *facts = (struct facts){0};
    if (who) {
        facts->who = *who;
    } else if (!read_who(reader, name, &facts->who)) {
        return err_set(err, -ENOENT, "/etc/passwd: there is no user %s", name ? name : "root");
    }
    facts->has_service_user = read_who(reader, "gttd", &facts->service);
    read_system(reader);
    read_modules(reader); /* after the system: of the kernel that runs */
    read_gpus(reader);
    read_npu(reader);
    read_node(reader, "dev/udmabuf", &facts->udmabuf);
    read_limits(reader);
    read_hibernation(reader);
    return 0;
}

const struct gpu_facts *facts_gpu(const struct facts *facts)
{
    const struct gpu_facts *best = NULL;
    for (size_t i = 0; i < facts->n_gpus; i++) {
        const struct gpu_facts *gpu = &facts->gpus[i];
        if (gpu->amdgpu && (!best || (gpu->kind == GPU_APU && best->kind != GPU_APU))) {
            best = gpu;
        }
    }
    return best;
}
