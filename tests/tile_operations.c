/* The tile operations for test_tiles.py: C += A B of whole tiles, emulated, or by the processor. */
#include "smx_tiles.h"

#define OPERATION(op, form)                                                                      \
    void op##_##form(void *c, const void *a, const void *b) {                                    \
        smx_tiles tiles;                                                                         \
        tile_begin_##form(&tiles);                                                               \
        tile_zero_##form(&tiles, 3);                                                             \
        tile_load_##form(&tiles, 0, c, 64);                                                      \
        tile_load_##form(&tiles, 1, a, 64);                                                      \
        tile_load_##form(&tiles, 2, b, 64);                                                      \
        tile_##op##_##form(&tiles, 0, 1, 2);                                                     \
        tile_store_##form(&tiles, 0, c, 64);                                                     \
        tile_end_##form(&tiles);                                                                 \
    }
#define OPERATIONS(form) OPERATION(dot_us, form) OPERATION(dot_su, form) OPERATION(dot_bf16, form)
OPERATIONS(emulated)
#ifdef __x86_64__
OPERATIONS(amx)
#endif
