/* SPDX-License-Identifier: GPL-2.0-only */
/* The module's parameters. */
#ifndef AMDGPU_SIM_DRV_H
#define AMDGPU_SIM_DRV_H

extern int amdgpu_gtt_mib; /* 0 or less: what the real driver would take, ttm.pages_limit */
extern uint amdgpu_vram_mib;

#endif
