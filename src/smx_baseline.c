/* What every x86-64 has (SSE2), and plain 128-bit vectors elsewhere. */
#define SMX_ISA baseline
#define SMX_VBYTES 16
#if defined(__x86_64__)
#define SMX_X86 1
#define SMX_MM_PREFIX _mm_
#else
#define SMX_X86 0
#endif
#define SMX_FMA 0
/* Classes of a dot tile, and the rows it takes. 16 vector registers, and no fused multiply-add:
   8 sums leave room for the products; 12 cost a fifth of the speed. */
#define SMX_DOT_SHAPES(T) T(1) T(2)
#define SMX_DOT_ROWS(CB) 4
/* Tiles of outer: rows x vectors. */
#define SMX_OUTER_ROWS 2
#define SMX_OUTER_WIDE 4
#define SMX_ALONE_WIDE 8 /* where one tile does all rows: as many vectors as fit */
/* The first tile over a strip keeps it for the others: 1000 classes, 650 in place of 845 ms. */
#define SMX_KEEP_FROM 2
/* Steps of a sum that starts from zero: a strip of 4 vectors takes 16 KiB of L1. */
#define SMX_CHUNK 256
#define SMX_OUTER_SHAPES(T) T(1, 1) T(1, 2) T(1, 3) T(1, 4) T(2, 1) T(2, 2) T(2, 3) T(2, 4)
/* Softmax of more classes goes row by row: where the two ways cost the same (bench/). */
#define SMX_COLS_MAX 64
/* The fused loop never goes by rows: not measured. */
#define SMX_ROWS_FROM (1 << 30)
/* No instruction converts a half: once a row, and not once a tile. */
#define SMX_HALVES_MOST 0
#include "smx_table.inc"

#define SMX_TILE_EMULATION smx_table_baseline_emulated
#include "smx_tile_emulation.inc"
