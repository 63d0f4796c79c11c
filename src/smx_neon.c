/* aarch64: Advanced SIMD, part of its baseline. Compiled from the same source; not run yet. */
#define SMX_ISA neon
#define SMX_VBYTES 16
#define SMX_X86 0
/* 24 sums and 7 operands of the 32 vector registers. */
#define SMX_DOT_CB 6
#define SMX_OUT_MB 6
#define SMX_OUT_NV 4
#include "smx_table.inc"
