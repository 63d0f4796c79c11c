/* x86-64-v3: AVX2 and FMA. */
#define SMX_ISA avx2
#define SMX_VBYTES 32
#define SMX_X86 3
#define SMX_MM_PREFIX _mm256_
/* 12 sums and 4 operands fill the 16 vector registers. */
#define SMX_DOT_CB 3
#define SMX_OUT_MB 3
#define SMX_OUT_NV 4
#include "smx_table.inc"
