/* Which tables are compiled in, and which of them may run here. */
#include "smx.h"
#if defined(__x86_64__)
#include <cpuid.h>
#endif

extern const smx_table smx_table_baseline;
#if defined(__x86_64__)
extern const smx_table smx_table_avx2, smx_table_avx512;
const smx_table *const smx_tables[] = {&smx_table_avx512, &smx_table_avx2, &smx_table_baseline};
#elif defined(__aarch64__)
extern const smx_table smx_table_neon;
const smx_table *const smx_tables[] = {&smx_table_neon, &smx_table_baseline};
#else
const smx_table *const smx_tables[] = {&smx_table_baseline};
#endif
const int smx_n_tables = sizeof smx_tables / sizeof *smx_tables;

#if defined(__x86_64__)
/* Not every Clang's __builtin_cpu_supports knows it. */
static int has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

/* __builtin_cpu_supports also asks whether the system saves the wide registers (XCR0). */
int smx_can_run(const smx_table *table) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (table == &smx_table_avx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (table == &smx_table_avx2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
#endif
    (void)table;
    return 1;
}
