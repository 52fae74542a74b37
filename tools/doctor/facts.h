/* SPDX-License-Identifier: MIT */
/*
 * What there is to know about a machine that matters to gttd, read from a tree once. Plain data:
 * judging it is the topics' part. Every byte comes from outside; what cannot be read is unknown,
 * and what is not what it should be is named in odd[].
 */
#ifndef DOCTOR_FACTS_H
#define DOCTOR_FACTS_H

#include <stdbool.h>
#include <stdint.h>

#include "tree.h"

#define FACTS_GPUS_MAX   8
#define FACTS_GROUPS_MAX 64
#define FACTS_ODD_MAX    8
#define FACTS_PATH_SIZE  192
#define FACTS_WORD_SIZE  64
#define PAGE_BYTES       4096u /* of ttm's parameters, on every machine with such a GPU */

/* Who is to use it: a user's groups decide what they may open. */
struct who {
    char name[FACTS_WORD_SIZE];
    uid_t uid;
    gid_t groups[FACTS_GROUPS_MAX]; /* of the user database */
    size_t n_groups;
    /* of the running session, where there is one to look at: groups come in at log-in */
    bool has_session;
    gid_t session_groups[FACTS_GROUPS_MAX];
    size_t n_session_groups;
};

enum gpu_kind { GPU_UNKNOWN, GPU_APU, GPU_DISCRETE };

/* A device node, and whether the user may read and write it. */
struct node_facts {
    bool there;
    bool usable;
    bool service_usable;     /* the same for the user gttd */
    bool usable_after_login; /* by the user database, but not in the running session */
    mode_t mode;
    char group[FACTS_WORD_SIZE];
    char path[FACTS_PATH_SIZE];
};

struct gpu_facts {
    bool amdgpu;
    char driver[FACTS_WORD_SIZE];
    char pci[FACTS_WORD_SIZE];
    char name[FACTS_WORD_SIZE];
    uint16_t device_id;
    enum gpu_kind kind;
    uint64_t vram_bytes, gtt_bytes, gtt_used_bytes; /* 0: unknown */
    struct node_facts node;
};

/* A module's parameter: as it is now, and as it is set for the next start. */
struct param_facts {
    bool is_known;
    int64_t now;
    bool is_set;
    int64_t set;
    char set_in[FACTS_PATH_SIZE]; /* a file, or "the kernel command line" */
    bool set_by_us;               /* by doctor's own file and nothing after it */
};

struct npu_facts {
    bool there;
    uint16_t device_id;
    char pci[FACTS_WORD_SIZE];
    char driver[FACTS_WORD_SIZE]; /* empty: none has taken it */
    char firmware_dir[FACTS_PATH_SIZE];
    bool has_firmware;
    char fw_version[FACTS_WORD_SIZE]; /* as the driver says; empty: it does not */
    struct node_facts node;
};

enum initramfs_tool { INITRAMFS_UNKNOWN, INITRAMFS_TOOLS, INITRAMFS_DRACUT, INITRAMFS_MKINITCPIO };

struct facts {
    struct who who;

    /* the machine */
    char kernel[FACTS_WORD_SIZE];
    unsigned kernel_major, kernel_minor; /* 0.0: unknown */
    char distribution[FACTS_WORD_SIZE];
    enum initramfs_tool initramfs;
    char cmdline[4096];
    uint64_t ram_bytes, available_bytes; /* MemTotal: without the carve-out */
    bool has_psi;

    /* GPUs and the memory manager */
    struct gpu_facts gpus[FACTS_GPUS_MAX];
    size_t n_gpus;
    bool has_ttm, has_amdttm; /* loaded or built in; amdttm is AMD's DKMS driver's */
    bool ttm_builtin;
    struct param_facts pages_limit, page_pool_size, gttsize;
    bool has_vgem, can_have_vgem;

    /* the NPU */
    struct npu_facts npu;
    bool has_iommu; /* one is in use */
    bool has_amdxdna, can_have_amdxdna;

    /* udmabuf */
    struct node_facts udmabuf;
    bool udmabuf_limit_known;
    int64_t udmabuf_limit_mb;

    /* users and limits */
    bool has_service_user;
    struct who service;
    uint64_t memlock_bytes; /* UINT64_MAX: no limit */
    bool memlock_known;
    bool memlock_unlimited_set; /* for this user, by a file in limits.d */

    /* hibernation */
    bool can_hibernate;
    bool has_resume;     /* the system would resume from somewhere */
    uint64_t swap_bytes; /* on disk */

    char odd[FACTS_ODD_MAX][FACTS_PATH_SIZE + 32]; /* "PATH: why it was not used" */
    size_t n_odd;
};

/*
 * Read everything. who NULL: take it from the tree: the named user, or with name NULL its first
 * ordinary one. -ENOENT: there is no such user. Otherwise it does not fail: what is missing is
 * unknown.
 */
int facts_read(struct facts *facts, struct tree *tree, const struct who *who, const char *name,
               struct err *err);

/* The GPU that gttd would use: an APU's if there is one; NULL: none of AMD's driver. */
const struct gpu_facts *facts_gpu(const struct facts *facts);

/* The files that doctor itself writes. */
#define OWN_MODPROBE_FILE "etc/modprobe.d/gttd.conf"
#define OWN_LIMITS_FILE   "etc/security/limits.d/60-gttd.conf"
#define OWN_TMPFILES_FILE "etc/tmpfiles.d/gttd-udmabuf.conf"

#endif
