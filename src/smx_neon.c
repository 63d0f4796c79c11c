/* aarch64: Advanced SIMD, part of its baseline. Run under emulation only, so what follows is not measured. */
#define SMX_ISA neon
#define SMX_VBYTES 16
#define SMX_X86 0
#define SMX_NEON 1
#define SMX_FMA 1
/* Classes of a dot tile, and the rows it takes. 32 vector registers: 20 sums; with 24 GCC has no
   register left for what it loads, and puts sums on the stack. */
#define SMX_DOT_SHAPES(T) T(1) T(2) T(3) T(4) T(5)
#define SMX_DOT_ROWS(CB) 4
/* Tiles of outer: rows x vectors whose sums, operands and one factor fit 32 registers. Up to six
   rows are one tile; more are split into tiles of at most five. */
#define SMX_OUTER_ROWS 5
#define SMX_OUTER_WIDE 5
#define SMX_ALONE_WIDE 8 /* where one tile does all rows: as many vectors as fit */
/* The first tile over a strip keeps it for the others: not measured, as the baseline. */
#define SMX_KEEP_FROM 2
/* Steps of a sum that starts from zero: a strip of 5 vectors takes 20 KiB of L1. */
#define SMX_CHUNK 256
#define SMX_OUTER_SHAPES(T)                                                                      \
    T(1, 1) T(1, 2) T(1, 3) T(1, 4) T(1, 5) T(1, 6) T(1, 7) T(1, 8)                              \
    T(2, 1) T(2, 2) T(2, 3) T(2, 4) T(2, 5) T(2, 6) T(2, 7) T(2, 8)                              \
    T(3, 1) T(3, 2) T(3, 3) T(3, 4) T(3, 5) T(3, 6)                                              \
    T(4, 1) T(4, 2) T(4, 3) T(4, 4) T(4, 5)                                                      \
    T(5, 1) T(5, 2) T(5, 3) T(5, 4) T(6, 1) T(6, 2) T(6, 3)
/* Softmax of more classes goes row by row: not measured, as the baseline. */
#define SMX_COLS_MAX 64
/* The fused loop never goes by rows: not measured. */
#define SMX_ROWS_FROM (1 << 30)
#include "smx_table.inc"
