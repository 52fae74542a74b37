/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The part of amdxdna's user space interface that is answered. Kernel 6.12 has no header for it,
 * and both kernels are to give the same answers.
 */
#ifndef AMDXDNA_SIM_ABI_H
#define AMDXDNA_SIM_ABI_H

#include <drm/drm.h>
#include <linux/types.h>

enum {
    DRM_AMDXDNA_CREATE_BO = 3,
    DRM_AMDXDNA_GET_BO_INFO = 4,
    DRM_AMDXDNA_SYNC_BO = 5,
    DRM_AMDXDNA_GET_INFO = 7,
    DRM_AMDXDNA_GET_ARRAY = 10,
};

enum {
    AMDXDNA_BO_SHARE = 1,
    AMDXDNA_BO_DEV_HEAP = 2,
    AMDXDNA_BO_DEV = 3,
    AMDXDNA_BO_CMD = 4,
};

struct amdxdna_drm_create_bo {
    __u64 flags;
    __u64 vaddr;
    __u64 size;
    __u32 type;
    __u32 handle; /* out */
};

struct amdxdna_drm_get_bo_info {
    __u64 ext;
    __u64 ext_flags;
    __u32 handle;
    __u32 pad;
    __u64 map_offset; /* out, as the next two */
    __u64 vaddr;
    __u64 xdna_addr;
};

struct amdxdna_drm_sync_bo {
    __u32 handle;
    __u32 direction;
    __u64 offset;
    __u64 size;
};

struct amdxdna_drm_get_info {
    __u32 param;
    __u32 buffer_size;
    __u64 buffer;
};

struct amdxdna_drm_get_array {
    __u32 param;
    __u32 element_size;
    __u32 num_element; /* in and out */
    __u32 pad;
    __u64 buffer;
};

/* GET_INFO */
enum {
    DRM_AMDXDNA_QUERY_AIE_METADATA = 1,
    DRM_AMDXDNA_QUERY_AIE_VERSION = 2,
    DRM_AMDXDNA_QUERY_CLOCK_METADATA = 3,
    DRM_AMDXDNA_QUERY_SENSORS = 4,
    DRM_AMDXDNA_QUERY_HW_CONTEXTS = 5,
    DRM_AMDXDNA_QUERY_FIRMWARE_VERSION = 8,
    DRM_AMDXDNA_GET_POWER_MODE = 9,
    DRM_AMDXDNA_QUERY_RESOURCE_INFO = 12,
};

/* GET_ARRAY */
enum {
    DRM_AMDXDNA_HW_CONTEXT_ALL = 0,
};

struct amdxdna_version {
    __u32 major;
    __u32 minor;
};

struct amdxdna_tile {
    __u16 row_count;
    __u16 row_start;
    __u16 dma_channel_count;
    __u16 lock_count;
    __u16 event_reg_count;
    __u16 pad[3];
};

struct amdxdna_metadata {
    __u32 col_size;
    __u16 cols;
    __u16 rows;
    struct amdxdna_version version;
    struct amdxdna_tile core;
    struct amdxdna_tile mem;
    struct amdxdna_tile shim;
};

struct amdxdna_clock {
    __u8 name[16];
    __u32 freq_mhz;
    __u32 pad;
};

struct amdxdna_clocks {
    struct amdxdna_clock mp_npu;
    struct amdxdna_clock h;
};

struct amdxdna_firmware {
    __u32 major;
    __u32 minor;
    __u32 patch;
    __u32 build;
};

struct amdxdna_power_mode {
    __u8 power_mode;
    __u8 pad[7];
};

struct amdxdna_resources {
    __u64 npu_clk_max;
    __u64 npu_tops_max;
    __u64 npu_task_max;
    __u64 npu_tops_curr;
    __u64 npu_task_curr;
};

#define DRM_IOCTL_AMDXDNA_CREATE_BO \
    DRM_IOWR(DRM_COMMAND_BASE + DRM_AMDXDNA_CREATE_BO, struct amdxdna_drm_create_bo)
#define DRM_IOCTL_AMDXDNA_GET_BO_INFO \
    DRM_IOWR(DRM_COMMAND_BASE + DRM_AMDXDNA_GET_BO_INFO, struct amdxdna_drm_get_bo_info)
#define DRM_IOCTL_AMDXDNA_SYNC_BO \
    DRM_IOWR(DRM_COMMAND_BASE + DRM_AMDXDNA_SYNC_BO, struct amdxdna_drm_sync_bo)
#define DRM_IOCTL_AMDXDNA_GET_INFO \
    DRM_IOWR(DRM_COMMAND_BASE + DRM_AMDXDNA_GET_INFO, struct amdxdna_drm_get_info)
#define DRM_IOCTL_AMDXDNA_GET_ARRAY \
    DRM_IOWR(DRM_COMMAND_BASE + DRM_AMDXDNA_GET_ARRAY, struct amdxdna_drm_get_array)

#endif
