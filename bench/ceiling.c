/* The two ceilings a kernel can meet on this machine: arithmetic and copying.
 *
 * benchlib/ceiling.py compiles this file once per instruction set, with
 * -DVECTOR_BYTES=16, 32 or 64 and the matching -m flags, and calls it through ctypes.
 *
 * fma_*:  twelve independent chains acc = acc * m + a that never leave the registers: enough
 *         chains to cover the latency of two multiply-add units (5 cycles x 2), few enough to
 *         leave room for the two operands in 16 registers. Where the instruction set has no
 *         fused multiply-add (the x86-64 baseline) it is a multiplication and an addition.
 * copy:   memcpy of one buffer, again and again.
 */
#include <stddef.h>
#include <string.h>

#define CHAINS 12

#define DEFINE_FMA(name, type)                                                                  \
    typedef type name##_vector __attribute__((vector_size(VECTOR_BYTES)));                      \
    /* Run `steps` steps of all chains; the sum is returned so that nothing is optimised away. */ \
    double name(long steps)                                                                     \
    {                                                                                           \
        name##_vector acc[CHAINS], m, a;                                                        \
        const int lanes = VECTOR_BYTES / sizeof(type);                                          \
        for (int lane = 0; lane < lanes; lane++) {                                              \
            m[lane] = (type)0.999;                                                              \
            a[lane] = (type)0.001;                                                              \
        }                                                                                       \
        for (int chain = 0; chain < CHAINS; chain++)                                            \
            acc[chain] = m * (type)chain;                                                       \
        for (long step = 0; step < steps; step++) {                                             \
            _Pragma("GCC unroll 12")                                                            \
            for (int chain = 0; chain < CHAINS; chain++)                                        \
                acc[chain] = acc[chain] * m + a;                                                \
        }                                                                                       \
        double sum = 0;                                                                         \
        for (int chain = 0; chain < CHAINS; chain++)                                            \
            for (int lane = 0; lane < lanes; lane++)                                            \
                sum += (double)acc[chain][lane];                                                \
        return sum;                                                                             \
    }

DEFINE_FMA(fma_float32, float)
DEFINE_FMA(fma_float64, double)

/* Floating-point operations of one step: a multiplication and an addition per lane and chain. */
long fma_float32_flops(void) { return 2L * CHAINS * (VECTOR_BYTES / (long)sizeof(float)); }
long fma_float64_flops(void) { return 2L * CHAINS * (VECTOR_BYTES / (long)sizeof(double)); }

void copy(char *to, const char *from, size_t bytes, long repeats)
{
    for (long i = 0; i < repeats; i++) {
        memcpy(to, from, bytes);
        __asm__ volatile("" : : "r"(to), "r"(from) : "memory");
    }
}

/* Asked of the build with the fewest demands, before another one is loaded. */
int can_run_avx2(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return 0;
#endif
}

int can_run_avx512(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f");
#else
    return 0;
#endif
}
