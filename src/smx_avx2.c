/* x86-64-v3: AVX2, FMA and F16C. */
#define SMX_ISA avx2
#define SMX_VBYTES 32
#define SMX_X86 3
#define SMX_FMA 1
#define SMX_MM_PREFIX _mm256_
/* Classes of a dot tile, and the rows it takes. 16 vector registers: up to 12 sums. */
#define SMX_DOT_SHAPES(T) T(1) T(2) T(3) T(4) T(5) T(6)
#define SMX_DOT_ROWS(CB) (CB <= 3 ? 4 : 2)
/* Tiles of outer: rows x vectors whose sums, operands and one factor fit 16 registers. Up to six
   rows are one tile; more are split into tiles of at most four (10 classes: 77 GFLOP/s in place
   of 71 with two tiles of five). */
#define SMX_OUTER_ROWS 4
#define SMX_OUTER_WIDE 3
#define SMX_ALONE_WIDE 8 /* where one tile does all rows: as many vectors as fit */
/* The first tile over a strip keeps it for the others: 100 classes, 91 in place of 69 GFLOP/s on
   Zen 3, 104 in place of 76 on Zen 4. */
#define SMX_KEEP_FROM 2
/* Steps of a sum that starts from zero: a strip of 3 vectors takes 24 KiB of L1. */
#define SMX_CHUNK 256
#define SMX_OUTER_SHAPES(T)                                                                      \
    T(1, 1) T(1, 2) T(1, 3) T(1, 4) T(1, 5) T(1, 6)                                              \
    T(2, 1) T(2, 2) T(2, 3) T(2, 4)                                                              \
    T(3, 1) T(3, 2) T(3, 3) T(4, 1) T(4, 2) T(4, 3)                                              \
    T(5, 1) T(5, 2) T(6, 1) T(6, 2)
/* Softmax of more classes goes row by row: where the two ways cost the same (bench/). */
#define SMX_COLS_MAX 128
/* The fused loop goes by rows with blocks of 256 rows: 1000 classes in float64 620 ms, class-major
   715; in float32 310, 310, with 3 MiB less. With 16 and 32 classes both ways are equal. */
#define SMX_ROWS_FROM 65
#include "smx_table.inc"
