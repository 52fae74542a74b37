// SPDX-License-Identifier: GPL-2.0-only
/* The bodies of the tracepoints in amdgpu_trace.h. */
#include "amdgpu.h"

#define CREATE_TRACE_POINTS
#include "amdgpu_trace.h"
