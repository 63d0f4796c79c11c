/* The tile operations: eight registers of 16 rows of 64 bytes, and products of two of them added to
   a third. Each in two forms with the same bits: `_amx`, the processor's (AMX), and `_emulated`, in
   C for any processor. A tile's number is a constant; `tiles` is what the emulation keeps them in.

   A is 16 rows, B is 16 rows of groups of four bytes or two bfloat16, one for each column of the sum:
   C[i][j] += sum over l < 16 and the members e of a group of A[i][group l, e] * B[l][group j, e].

   An address needs no alignment, but rows that begin on cache lines are read five times as fast. */
#ifndef SMX_TILES_H
#define SMX_TILES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define TILE_OP static inline __attribute__((always_inline))

typedef struct {
    uint8_t tile[8][16][64];
} smx_tiles;

#if defined(__x86_64__)
/* GCC 12's intrinsics for these let it drop the stores to what they read: hence the clobbers. */
TILE_OP void tile_begin_amx(smx_tiles *tiles) {
    (void)tiles;
    const struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
    _Static_assert(sizeof config == 64, "as the processor reads it");
    __asm__ volatile("ldtilecfg %0" ::"m"(config) : "memory");
}
TILE_OP void tile_end_amx(smx_tiles *tiles) {
    (void)tiles;
    __asm__ volatile("tilerelease" ::: "memory");
}
TILE_OP void tile_zero_amx(smx_tiles *tiles, const int t) {
    (void)tiles;
    __asm__ volatile("tilezero %%tmm%c0" ::"i"(t));
}
TILE_OP void tile_load_amx(smx_tiles *tiles, const int t, const void *from, ptrdiff_t pitch) {
    (void)tiles;
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(pitch), "i"(t) : "memory");
}
TILE_OP void tile_store_amx(const smx_tiles *tiles, const int t, void *to, ptrdiff_t pitch) {
    (void)tiles;
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(pitch), "i"(t) : "memory");
}
#define TILE_DOT(name, instruction)                                                              \
    TILE_OP void tile_##name##_amx(smx_tiles *tiles, const int c, const int a, const int b) {    \
        (void)tiles;                                                                             \
        __asm__ volatile(instruction " %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(c), "i"(a), "i"(b));  \
    }
TILE_DOT(dot_us, "tdpbusd")
TILE_DOT(dot_su, "tdpbsud")
TILE_DOT(dot_bf16, "tdpbf16ps")
#endif

TILE_OP void tile_begin_emulated(smx_tiles *tiles) { memset(tiles, 0, sizeof *tiles); }
TILE_OP void tile_end_emulated(smx_tiles *tiles) { memset(tiles, 0, sizeof *tiles); }
TILE_OP void tile_zero_emulated(smx_tiles *tiles, const int t) {
    memset(tiles->tile[t], 0, sizeof tiles->tile[t]);
}
TILE_OP void tile_load_emulated(smx_tiles *tiles, const int t, const void *from, ptrdiff_t pitch) {
    for (int i = 0; i < 16; i++) memcpy(tiles->tile[t][i], (const char *)from + i * pitch, 64);
}
TILE_OP void tile_store_emulated(const smx_tiles *tiles, const int t, void *to, ptrdiff_t pitch) {
    for (int i = 0; i < 16; i++) memcpy((char *)to + i * pitch, tiles->tile[t][i], 64);
}

/* Sums of products of bytes modulo 2^32, of one sign each. */
static void tile_bytes_emulated(smx_tiles *tiles, int c, int a, int b, int a_signed, int b_signed) {
    int32_t factors[16][4][16];
    for (int l = 0; l < 16; l++)
        for (int e = 0; e < 4; e++)
            for (int j = 0; j < 16; j++) {
                const uint8_t byte = tiles->tile[b][l][4 * j + e];
                factors[l][e][j] = b_signed ? (int8_t)byte : byte;
            }
    for (int i = 0; i < 16; i++) {
        uint32_t sums[16];
        memcpy(sums, tiles->tile[c][i], 64);
        for (int l = 0; l < 16; l++)
            for (int e = 0; e < 4; e++) {
                const uint8_t byte = tiles->tile[a][i][4 * l + e];
                const int32_t x = a_signed ? (int8_t)byte : byte;
                for (int j = 0; j < 16; j++) sums[j] += (uint32_t)(x * factors[l][e][j]);
            }
        memcpy(tiles->tile[c][i], sums, 64);
    }
}
TILE_OP void tile_dot_us_emulated(smx_tiles *tiles, const int c, const int a, const int b) {
    tile_bytes_emulated(tiles, c, a, b, 0, 1);
}
TILE_OP void tile_dot_su_emulated(smx_tiles *tiles, const int c, const int a, const int b) {
    tile_bytes_emulated(tiles, c, a, b, 1, 0);
}

/* A float32 sum as the tile unit rounds it: to nearest, and to 0 where it is subnormal then. `exact`
   has been rounded to double, which is more than twice as long, so that this rounds as once. It does
   not ask MXCSR, but for the direction of rounding, which is to be the usual one. */
TILE_OP float tile_rounded(double exact) {
    const double size = __builtin_fabs(exact);
    if (size < 0x1p-126) exact = __builtin_copysign(size < 0x1.ffffffp-127 ? 0 : 0x1p-126, exact);
    return (float)exact;
}
/* A bfloat16, or a float32, with 0 for subnormal numbers. */
TILE_OP double tile_number(uint32_t bits) {
    float f;
    if (!(bits & 0x7f800000)) bits &= 0x80000000;
    memcpy(&f, &bits, 4);
    return f;
}
/* The products of even members and those of odd ones have a sum each, which starts from 0 and is
   rounded at each of the 16 steps; then these are added up, and then added to C. NaN as IEEE has it,
   but for which of two NaNs is kept. */
static void tile_dot_bf16_emulated(smx_tiles *tiles, int c, int a, int b) {
    double factors[16][2][16];
    for (int l = 0; l < 16; l++)
        for (int j = 0; j < 16; j++) {
            uint32_t pair;
            memcpy(&pair, &tiles->tile[b][l][4 * j], 4);
            factors[l][0][j] = tile_number(pair << 16);
            factors[l][1][j] = tile_number(pair & 0xffff0000);
        }
    for (int i = 0; i < 16; i++) {
        double sums[2][16] = {{0}};
        for (int l = 0; l < 16; l++) {
            uint32_t pair;
            memcpy(&pair, &tiles->tile[a][i][4 * l], 4);
            const double x[2] = {tile_number(pair << 16), tile_number(pair & 0xffff0000)};
            for (int e = 0; e < 2; e++)
                for (int j = 0; j < 16; j++)
                    sums[e][j] = tile_rounded(sums[e][j] + x[e] * factors[l][e][j]);
        }
        for (int j = 0; j < 16; j++) {
            uint32_t old;
            memcpy(&old, &tiles->tile[c][i][4 * j], 4);
            const float sum = tile_rounded(tile_number(old) + tile_rounded(sums[0][j] + sums[1][j]));
            memcpy(&tiles->tile[c][i][4 * j], &sum, 4);
        }
    }
}

#endif
