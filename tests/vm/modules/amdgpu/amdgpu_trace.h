/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The two tracepoints of the real driver that follow a buffer, with its fields in its order: BPF
 * programs read them by offset.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM amdgpu

#if !defined(AMDGPU_SIM_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define AMDGPU_SIM_TRACE_H

#include <linux/tracepoint.h>

#include "amdgpu.h"

/* clang-format off */
TRACE_EVENT(amdgpu_bo_create,
    TP_PROTO(struct amdgpu_bo *bo),
    TP_ARGS(bo),
    TP_STRUCT__entry(
        __field(struct amdgpu_bo *, bo)
        __field(u32, pages)
        __field(u32, type)
        __field(u32, prefer)
        __field(u32, allow)
        __field(u32, visible)
    ),
    TP_fast_assign(
        __entry->bo = bo;
        __entry->pages = PFN_UP(bo->tbo.resource->size);
        __entry->type = bo->tbo.resource->mem_type;
        __entry->prefer = bo->preferred_domains;
        __entry->allow = bo->allowed_domains;
        __entry->visible = bo->flags;
    ),
    TP_printk("bo=%p, pages=%u, type=%d, preferred=%d, allowed=%d, visible=%d",
              __entry->bo, __entry->pages, __entry->type,
              __entry->prefer, __entry->allow, __entry->visible)
);

TRACE_EVENT(amdgpu_bo_move,
    TP_PROTO(struct amdgpu_bo *bo, uint32_t new_placement, uint32_t old_placement),
    TP_ARGS(bo, new_placement, old_placement),
    TP_STRUCT__entry(
        __field(struct amdgpu_bo *, bo)
        __field(u64, bo_size)
        __field(u32, new_placement)
        __field(u32, old_placement)
    ),
    TP_fast_assign(
        __entry->bo = bo;
        __entry->bo_size = amdgpu_bo_size(bo);
        __entry->new_placement = new_placement;
        __entry->old_placement = old_placement;
    ),
    TP_printk("bo=%p, from=%d, to=%d, size=%lld",
              __entry->bo, __entry->old_placement,
              __entry->new_placement, __entry->bo_size)
);
/* clang-format on */

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE amdgpu_trace
#include <trace/define_trace.h>
