/* What src/smx_cpu.c says of a processor and a system that are made up, for test_tiles.py. Arguments:
   the flags of CPUID leaf 7, XCR0, the rows of leaf 1D, and whether the system refuses. Prints why there
   are no tiles ("-": there are), what permission three calls find, and how often the system was asked. */
#include <cpuid.h>
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static unsigned flags, rows, refused, asked;
static unsigned long long saved;

static int count(unsigned leaf, unsigned sub, unsigned *a, unsigned *b, unsigned *c, unsigned *d) {
    if (leaf == 0x1d && sub == 1)
        return *a = 1024u << 16 | 8192, *b = 8 << 16 | 64, *c = rows, *d = 0, rows > 0;
    return *a = *b = *c = 0, *d = flags, 1;
}
static long ask(long number, long request, long feature) {
    asked++;
    return number == SYS_arch_prctl && request == 0x1023 && feature == 18 && !refused ? 0 : -1;
}
#undef __builtin_cpu_supports
#define __builtin_cpu_supports(name) 1
#define __get_cpuid_count count
#define _xgetbv(i) saved
#define syscall ask
#include "smx_cpu.c"

const smx_table smx_table_baseline, smx_table_baseline_emulated, smx_table_avx2, smx_table_avx512,
    smx_table_amx, smx_table_amx_emulated;

int main(int n, char **text) {
    if (n != 5) return 2;
    flags = strtoul(text[1], NULL, 0), saved = strtoul(text[2], NULL, 0);
    rows = strtoul(text[3], NULL, 0), refused = strtoul(text[4], NULL, 0);
    const char *why = smx_why_no_tiles();
    printf("%s, %d", why ? why : "-", smx_can_run(&smx_table_amx));
    for (int i = 0; i < 3; i++) printf(" %d", smx_tiles_allowed());
    printf(" %u\n", asked);
    return 0;
}
