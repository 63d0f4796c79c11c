/* x86-64-v4: AVX-512 F, VL, DQ, BW. */
#define SMX_ISA avx512
#define SMX_VBYTES 64
#define SMX_X86 4
#define SMX_FMA 1
#define SMX_MM_PREFIX _mm512_
/* Classes of a dot tile, and the rows it takes. 32 vector registers: up to 24 sums. */
#define SMX_DOT_SHAPES(T) T(1) T(2) T(3) T(4) T(5) T(6)
#define SMX_DOT_ROWS(CB) 4
/* Tiles of outer: rows x vectors whose sums, operands and one factor fit 32 registers. */
#define SMX_OUTER_ROWS 6
#define SMX_OUTER_WIDE 5
/* Vectors where one tile does all rows: more ask for more lines ahead at a step, and wait. 60000 x 784
   from memory, Zen 5, 2, 3 and 5 classes: 7.4, 7.5 and 7.3 ms with 2, 7.9, 8.2 and 8.0 with 8. Not
   measured on Zen 4 and Intel. */
#define SMX_ALONE_WIDE 2
/* From so many tiles on, the first over a strip keeps it for the others: rows of 768 numbers meet in
   few cache sets, and 1000 classes take 50 in place of 66 ms (Zen 5), 100 of 784 11 in place of 12.
   For 16 and 32 classes, 3 and 6 tiles, the copy costs 10 and 6 %. */
#define SMX_KEEP_FROM 8
/* Steps of a sum that starts from zero: with 128, the sums of 1000 classes come from L3 more often,
   which costs up to 10 %. */
#define SMX_CHUNK 256
#define SMX_OUTER_SHAPES(T)                                                                      \
    T(1, 1) T(1, 2) T(2, 1) T(2, 2) T(3, 1) T(3, 2) T(3, 3) T(3, 4) T(3, 5)                      \
    T(4, 1) T(4, 2) T(4, 3) T(4, 4) T(4, 5)                                                      \
    T(5, 1) T(5, 2) T(5, 3) T(5, 4) T(6, 1) T(6, 2) T(6, 3) T(6, 4)
/* Softmax of more classes goes row by row: where the two ways cost the same (bench/). */
#define SMX_COLS_MAX 160
/* The fused loop never goes by rows: 98 where dot tiles reach 104 GFLOP/s at 1000 classes. */
#define SMX_ROWS_FROM (1 << 30)
#include "smx_table.inc"

/* The same with products by tile instructions: from where they win by their unit costs (see
   docs/measurements.md). Below 64 features a tile is not full. */
#define SMX_TILE_FORM amx
#define SMX_TILE_TABLE smx_table_amx
#define SMX_TILE_NAME "amx"
#define SMX_TILE_EMULATED 0
#define SMX_TILE_ALLOWED smx_tiles_allowed
#define SMX_TILE_LEAST_D 64
#define SMX_TILE_LEAST_C 65
#include "smx_tile_linear.inc"

#define SMX_TILE_EMULATION smx_table_amx_emulated
#include "smx_tile_emulation.inc"
