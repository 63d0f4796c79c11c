/* What every x86-64 has (SSE2), and plain 128-bit vectors elsewhere. */
#define SMX_ISA baseline
#define SMX_VBYTES 16
#if defined(__x86_64__)
#define SMX_X86 1
#define SMX_MM_PREFIX _mm_
#else
#define SMX_X86 0
#endif
/* 16 vector registers and no fused multiply-add: 8 sums leave room for the products. */
#define SMX_DOT_CB 2
#define SMX_OUT_MB 2
#define SMX_OUT_NV 4
#include "smx_table.inc"
