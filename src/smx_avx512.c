/* x86-64-v4: AVX-512 F, VL, DQ, BW. */
#define SMX_ISA avx512
#define SMX_VBYTES 64
#define SMX_X86 4
#define SMX_MM_PREFIX _mm512_
/* 24 sums and up to 8 operands fill the 32 vector registers. */
#define SMX_DOT_CB 6
#define SMX_OUT_MB 6
#define SMX_OUT_NV 4
#include "smx_table.inc"
