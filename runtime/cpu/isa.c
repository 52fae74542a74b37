/* SPDX-License-Identifier: MIT */
/* Which kernels this CPU can run. */
#include "cpu_internal.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

static enum cpu_isa forced = CPU_ISA_BEST;

void cpu_isa_force(enum cpu_isa isa)
{
    forced = isa;
}

enum cpu_isa cpu_isa_forced(void)
{
    return forced;
}

#if defined(__x86_64__)

/* clang 14's builtin does not know this one. */
static bool has_f16c(void)
{
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && ecx & bit_F16C;
}

/* The builtin also asks whether the kernel saves the wide registers. */
static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

const struct cpu_kernels *cpu_isa_kernels(enum cpu_isa isa)
{
    switch (isa) {
    case CPU_ISA_BEST:
        return has_avx512() ? &cpu_kernels_avx512
               : has_avx2() ? &cpu_kernels_avx2
                            : &cpu_kernels_scalar;
    case CPU_ISA_AVX512:
        return has_avx512() ? &cpu_kernels_avx512 : NULL;
    case CPU_ISA_AVX2:
        return has_avx2() ? &cpu_kernels_avx2 : NULL;
    case CPU_ISA_SCALAR:
        break;
    }
    return &cpu_kernels_scalar;
}

#else

const struct cpu_kernels *cpu_isa_kernels(enum cpu_isa isa)
{
    return isa == CPU_ISA_BEST || isa == CPU_ISA_SCALAR ? &cpu_kernels_scalar : NULL;
}

#endif
