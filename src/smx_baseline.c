/* What every x86-64 has (SSE2), and plain 128-bit vectors elsewhere. */
#define SMX_ISA baseline
#define SMX_VBYTES 16
#if defined(__x86_64__)
#define SMX_X86 1
#define SMX_MM_PREFIX _mm_
#else
#define SMX_X86 0
#endif
/* Rows a dot tile of CB classes takes. 16 vector registers, some of them for products: no fused multiply-add. */
#define SMX_DOT_ROWS(CB) (CB <= 2 ? 4 : CB <= 4 ? 2 : 1)
/* Tiles of outer: rows x vectors whose sums, operands and one factor fit 16 registers. */
#define SMX_OUTER_SHAPES(T)                                                                      \
    T(1, 1) T(1, 2) T(1, 3) T(1, 4) T(1, 5) T(1, 6)                                              \
    T(2, 1) T(2, 2) T(2, 3) T(2, 4)                                                              \
    T(3, 1) T(3, 2) T(3, 3)                                                                      \
    T(4, 1) T(4, 2) T(5, 1) T(5, 2) T(6, 1) T(6, 2)
/* Softmax of more classes goes row by row: where the two ways cost the same (bench/). */
#define SMX_COLS_MAX 64
#include "smx_table.inc"
