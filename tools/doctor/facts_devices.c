/* SPDX-License-Identifier: MIT */
/* GPUs and the NPU, as sysfs shows them. */
#include <stdio.h>
#include <string.h>

#include "gttd_util.h"
#include "reader.h"
#include "text.h"

#define AMD 0x1002 /* the vendor of GPUs; NPUs have the CPUs' */

/* APUs by device id: for their names, and where the driver does not say what it is. */
static const struct {
    uint16_t id;
    const char *name;
} apus[] = {
    {0x1636, "Renoir"},
    {0x1638, "Cezanne"},
    {0x164c, "Lucienne"},
    {0x15e7, "Barcelo"},
    {0x1681, "Radeon 680M (Rembrandt)"},
    {0x163f, "Van Gogh"},
    {0x1435, "Sephiroth"},
    {0x164e, "Raphael"},
    {0x1506, "Mendocino"},
    {0x15bf, "Radeon 780M (Phoenix)"},
    {0x15c8, "Phoenix 2"},
    {0x1900, "Radeon 780M (Hawk Point)"},
    {0x1901, "Hawk Point 2"},
    {0x150e, "Radeon 890M (Strix Point)"},
    {0x1114, "Radeon 860M (Krackan Point)"},
    {0x1586, "Radeon 8060S (Strix Halo)"},
    {0x13c0, "Granite Ridge"},
};

/* The format of the driver's metrics: 1 for cards, 2 and 3 for APUs. */
static enum gpu_kind kind_by_metrics(struct reader *reader, const char *device)
{
    char path[256];
    size_t n;
    snprintf(path, sizeof path, "%s/gpu_metrics", device);
    if (tree_read(reader->tree, path, reader->text, sizeof reader->text, &n) < 0 || n < 4) {
        return GPU_UNKNOWN;
    }
    switch (reader->text[2]) {
    case 1:
        return GPU_DISCRETE;
    case 2:
    case 3:
        return GPU_APU;
    default:
        return GPU_UNKNOWN;
    }
}

static void name_gpu(struct gpu_facts *gpu)
{
    snprintf(gpu->name, sizeof gpu->name, "AMD GPU 0x%04x", gpu->device_id);
    for (size_t i = 0; i < ARRAY_SIZE(apus); i++) {
        if (apus[i].id == gpu->device_id) {
            snprintf(gpu->name, sizeof gpu->name, "%s", apus[i].name);
            gpu->kind = gpu->kind == GPU_UNKNOWN ? GPU_APU : gpu->kind;
        }
    }
}

static uint64_t device_bytes(struct reader *reader, const char *device, const char *name)
{
    int64_t bytes;
    return reader_number(reader, &bytes, "%s/%s", device, name) && bytes > 0 ? (uint64_t)bytes : 0;
}

/* DRIVER and PCI_SLOT_NAME of a device. */
static void read_uevent(struct reader *reader, const char *device, char driver[FACTS_WORD_SIZE],
                        char pci[FACTS_WORD_SIZE])
{
    char value[FACTS_WORD_SIZE];
    reader_text(reader, "%s/uevent", device);
    if (text_setting(reader->text, "DRIVER", value, sizeof value)) {
        text_clean(driver, FACTS_WORD_SIZE, value);
    }
    if (text_setting(reader->text, "PCI_SLOT_NAME", value, sizeof value)) {
        text_clean(pci, FACTS_WORD_SIZE, value);
    }
}

static void read_gpu(struct reader *reader, const char *node, struct gpu_facts *gpu)
{
    char device[FACTS_PATH_SIZE], path[FACTS_PATH_SIZE];
    int64_t vendor = 0, id = 0;
    *gpu = (struct gpu_facts){0};
    snprintf(device, sizeof device, "sys/class/drm/%s/device", node);
    snprintf(path, sizeof path, "dev/dri/%s", node);
    read_uevent(reader, device, gpu->driver, gpu->pci);
    read_node(reader, path, &gpu->node);
    reader_number(reader, &vendor, "%s/vendor", device);
    if (reader_number(reader, &id, "%s/device", device)) {
        gpu->device_id = (uint16_t)id;
    }
    gpu->amdgpu = strcmp(gpu->driver, "amdgpu") == 0;
    if (!gpu->amdgpu) {
        snprintf(gpu->name, sizeof gpu->name, vendor == AMD ? "AMD GPU 0x%04x" : "GPU 0x%04x",
                 gpu->device_id);
        return;
    }
    gpu->vram_bytes = device_bytes(reader, device, "mem_info_vram_total");
    gpu->gtt_bytes = device_bytes(reader, device, "mem_info_gtt_total");
    gpu->gtt_used_bytes = device_bytes(reader, device, "mem_info_gtt_used");
    gpu->kind = kind_by_metrics(reader, device);
    name_gpu(gpu);
}

void read_gpus(struct reader *reader)
{
    struct facts *facts = reader->facts;
    struct tree_names names;
    reader_list(reader, "sys/class/drm", &names);
    for (size_t i = 0; i < names.n && facts->n_gpus < FACTS_GPUS_MAX; i++) {
        /* vgem has a render node, but no device behind it */
        if (strncmp(names.names[i], "renderD", 7) == 0 && strlen(names.names[i]) < 32 &&
            reader_has(reader, "sys/class/drm/%s/device/vendor", names.names[i])) {
            read_gpu(reader, names.names[i], &facts->gpus[facts->n_gpus++]);
        }
    }
    tree_names_free(&names);
}

/* By its id, or because the driver has taken it: there will be others. */
static bool is_npu(struct reader *reader, const char *pci, struct npu_facts *npu)
{
    char path[FACTS_PATH_SIZE], slot[FACTS_WORD_SIZE] = "";
    int64_t vendor = 0, device = 0, revision = 0;
    *npu = (struct npu_facts){0};
    snprintf(path, sizeof path, "sys/bus/pci/devices/%.64s", pci);
    reader_number(reader, &vendor, "%s/vendor", path);
    reader_number(reader, &device, "%s/device", path);
    read_uevent(reader, path, npu->driver, slot);
    if (strcmp(npu->driver, "amdxdna") != 0 &&
        (vendor != 0x1022 || (device != 0x1502 && device != 0x17f0))) {
        return false;
    }
    reader_number(reader, &revision, "%s/revision", path);
    npu->there = true;
    npu->device_id = (uint16_t)device;
    text_clean(npu->pci, sizeof npu->pci, pci);
    snprintf(npu->firmware_dir, sizeof npu->firmware_dir, "lib/firmware/amdnpu/%04x_%02x",
             npu->device_id, (unsigned)revision & 0xff);
    return true;
}

static void read_firmware(struct reader *reader, struct npu_facts *npu)
{
    struct tree_names names;
    reader_list(reader, npu->firmware_dir, &names);
    for (size_t i = 0; i < names.n; i++) { /* npu.sbin, npu_7.sbin, also compressed */
        npu->has_firmware |=
            strncmp(names.names[i], "npu", 3) == 0 && strstr(names.names[i], ".sbin");
    }
    tree_names_free(&names);
}

/* The accel node of the NPU's driver. */
static void read_accel(struct reader *reader, struct npu_facts *npu)
{
    struct tree_names names;
    char driver[FACTS_WORD_SIZE] = "", pci[FACTS_WORD_SIZE] = "", path[FACTS_PATH_SIZE];
    reader_list(reader, "sys/class/accel", &names);
    for (size_t i = 0; i < names.n && !npu->node.there; i++) {
        snprintf(path, sizeof path, "sys/class/accel/%.32s/device", names.names[i]);
        read_uevent(reader, path, driver, pci);
        if (strcmp(pci, npu->pci) != 0) {
            continue;
        }
        reader_word(reader, npu->fw_version, sizeof npu->fw_version, "%s/fw_version", path);
        snprintf(path, sizeof path, "dev/accel/%.32s", names.names[i]);
        read_node(reader, path, &npu->node);
    }
    tree_names_free(&names);
}

void read_npu(struct reader *reader)
{
    struct npu_facts *npu = &reader->facts->npu;
    struct tree_names names;
    bool found = false;
    reader_list(reader, "sys/bus/pci/devices", &names);
    for (size_t i = 0; i < names.n && !found; i++) {
        found = is_npu(reader, names.names[i], npu);
    }
    tree_names_free(&names);
    reader_list(reader, "sys/class/iommu", &names);
    reader->facts->has_iommu = names.n > 0;
    tree_names_free(&names);
    if (found) {
        read_firmware(reader, npu);
        read_accel(reader, npu);
    } else {
        *npu = (struct npu_facts){0};
    }
}
