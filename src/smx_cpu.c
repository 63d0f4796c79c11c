/* Which tables are compiled in, and which of them may run here. */
#include "smx.h"
#include <stdatomic.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

extern const smx_table smx_table_baseline, smx_table_baseline_emulated;
#if defined(__x86_64__)
extern const smx_table smx_table_avx2, smx_table_avx512, smx_table_amx, smx_table_amx_emulated;
/* The first that can run is the default. Tiles come last: they are for those who ask for them until
   the tests have been run on a processor that has them. */
const smx_table *const smx_tables[] = {&smx_table_avx512, &smx_table_avx2, &smx_table_baseline,
                                       &smx_table_amx, &smx_table_amx_emulated,
                                       &smx_table_baseline_emulated};
#elif defined(__aarch64__)
extern const smx_table smx_table_neon;
const smx_table *const smx_tables[] = {&smx_table_neon, &smx_table_baseline,
                                       &smx_table_baseline_emulated};
#else
const smx_table *const smx_tables[] = {&smx_table_baseline, &smx_table_baseline_emulated};
#endif
const int smx_n_tables = sizeof smx_tables / sizeof *smx_tables;

#if defined(__x86_64__)
/* Not every Clang's __builtin_cpu_supports knows it. */
static int has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static int has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#endif

#if defined(__x86_64__) && defined(__linux__)
__attribute__((target("xsave"))) static int tiles_are_saved(void) {
    enum { OSXSAVE = 1 << 27, TILE_STATE = 3 << 17 };
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & OSXSAVE) &&
           (_xgetbv(0) & TILE_STATE) == TILE_STATE;
}
#endif

const char *smx_why_no_tiles(void) {
#if defined(__x86_64__) && defined(__linux__)
    enum { BF16 = 1 << 22, TILES = 1 << 24, INT8 = 1 << 25, ALL = BF16 | TILES | INT8 };
    unsigned a, b, c, d;
    __builtin_cpu_init();
    if (!has_avx512()) return "no AVX-512";
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & ALL) != ALL)
        return "the processor has no AMX";
    if (!tiles_are_saved()) return "the system does not save tiles";
    /* Some hypervisors show the flags and not the rest: palette 1 is 8 tiles of 16 rows of 64 bytes. */
    if (!__get_cpuid_count(0x1d, 1, &a, &b, &c, &d) || a >> 16 != 1024 || b != (8 << 16 | 64) ||
        (c & 0xffff) != 16)
        return "the processor does not say what its tiles are";
    return 0;
#else
    return "AMX is for Linux on x86-64";
#endif
}

/* The kernel makes room for tiles in a process's signal frames when it is asked; it refuses where a
   thread has an alternative stack too small for that, or where a policy forbids it. Children and
   later threads have what their process had. */
int smx_tiles_allowed(void) {
    static atomic_int answer; /* 0: not asked yet, 1: yes, 2: no */
#if defined(__x86_64__) && defined(__linux__)
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    if (!atomic_load_explicit(&answer, memory_order_relaxed)) {
        const int no = smx_why_no_tiles() ||
                       syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) != 0;
        atomic_store_explicit(&answer, no ? 2 : 1, memory_order_relaxed);
    }
#endif
    return atomic_load_explicit(&answer, memory_order_relaxed) == 1;
}

/* __builtin_cpu_supports also asks whether the system saves the wide registers (XCR0). */
int smx_can_run(const smx_table *table) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (table == &smx_table_amx) return !smx_why_no_tiles();
    if (table == &smx_table_avx512 || table == &smx_table_amx_emulated) return has_avx512();
    if (table == &smx_table_avx2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
#endif
    (void)table;
    return 1;
}

int smx_by_tiles(const smx_leaves *leaves, int type, smx_idx d, smx_idx c) {
    const smx_tile_leaves *t = leaves->tiles;
    return t && t->least_c[type] && c >= t->least_c[type] && d >= t->least_d && d <= t->most_d &&
           t->allowed();
}
