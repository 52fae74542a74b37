/* SPDX-License-Identifier: MIT */
/*
 * What was found to be best on a device, kept in a text file beside the pipeline cache, a line per
 * shape; tune_*.c know their lines. Deleting the file makes the next start measure again.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "gttd_util.h"
#include "vk.h"

#define VERSION "tuned 10" /* of the file's format, the shaders and the candidates */

void vk_choices_name(const struct vkc_physical *physical, char name[static VK_CHOICES_NAME_SIZE])
{
    char uuid[2 * VK_UUID_SIZE + 1];
    for (size_t i = 0; i < VK_UUID_SIZE; i++) {
        snprintf(uuid + 2 * i, 3, "%02x", physical->uuid[i]);
    }
    snprintf(name, VK_CHOICES_NAME_SIZE, "vulkan-%s-%08x.tuned", uuid,
             physical->props.driverVersion);
}

void vk_choices_read(struct backend *backend, FILE *f)
{
    char line[512];
    bool is_ours = fgets(line, sizeof line, f) && strcmp(line, VERSION "\n") == 0;
    while (is_ours && fgets(line, sizeof line, f)) {
        vk_gemv_choice_read(backend, line);
        vk_gemm_choice_read(backend, line);
        vk_few_choice_read(backend, line);
        vk_layers_choice_read(backend, line);
    }
}

void vk_choices_load(struct backend *backend, const char *cache_dir)
{
    if (!cache_dir) {
        return;
    }
    char name[VK_CHOICES_NAME_SIZE];
    vk_choices_name(&backend->device->physical, name);
    if (asprintf(&backend->choices_path, "%s/%s", cache_dir, name) < 0) {
        backend->choices_path = NULL;
        return;
    }
    FILE *f = fopen(backend->choices_path, "re");
    if (f) {
        vk_choices_read(backend, f);
        fclose(f);
    }
}

void vk_choices_save(const struct backend *backend)
{
    if (!backend->choices_path) {
        return;
    }
    AUTO_FREE char *temp = NULL;
    if (asprintf(&temp, "%s.new", backend->choices_path) < 0) {
        temp = NULL;
        return;
    }
    FILE *f = fopen(temp, "we");
    bool ok = f && fprintf(f, "%s\n", VERSION) > 0;
    for (uint32_t i = 0; ok && i < backend->n_choices; i++) {
        char text[256];
        vk_gemv_choice_print(&backend->choices[i], text, sizeof text);
        ok = fprintf(f, "%s\n", text) > 0;
    }
    for (uint32_t i = 0; ok && i < backend->n_layers_choices; i++) {
        char text[VK_CHOICE_TEXT_SIZE];
        vk_layers_choice_print(&backend->layers_choices[i], text, sizeof text);
        ok = fprintf(f, "%s\n", text) > 0;
    }
    for (uint32_t i = 0; ok && i < backend->n_gemms; i++) {
        char text[256];
        vk_gemm_choice_print(&backend->gemms[i], text, sizeof text);
        ok = fprintf(f, "%s\n", text) > 0;
    }
    for (uint32_t i = 0; ok && i < backend->n_fews; i++) {
        char text[256];
        vk_few_choice_print(&backend->fews[i], text, sizeof text);
        ok = fprintf(f, "%s\n", text) > 0;
    }
    ok = (!f || fclose(f) == 0) && ok;
    if (!ok || rename(temp, backend->choices_path) < 0) {
        vkc_log(backend->instance, "%s: cannot write: %s", temp, strerror(errno));
    }
}
