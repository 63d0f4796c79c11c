"""The C side as Cython sees it; src/smx.h says what each leaf does."""

from libc.stdint cimport int32_t

cdef extern from "smx_half.inc":
    float smx_number(int type, const void *row, Py_ssize_t i) noexcept nogil

cdef extern from "smx.h":
    ctypedef Py_ssize_t smx_idx
    enum: SMX_STATS, SMX_PROB, SMX_LOG, SMX_LSE
    enum: SMX_ENTROPY, SMX_DIVERGENCE, SMX_ENTR, SMX_REL_ENTR, SMX_KL_DIV
    enum: SMX_REAL, SMX_U8, SMX_F16, SMX_BF16, SMX_F32, SMX_SPARSE_AHEAD
    enum: SMX_SMALL_BLOCK, SMX_SMALL_ROWS
    enum: SMX_QUICK_LOGITS, SMX_QUICK_ROWS, SMX_QUICK_CLASSES, SMX_QUICK_BATCH, SMX_QUICK_BLOCK
    enum: SMX_MOST_LANES

    ctypedef struct smx_ahead:
        const void *const *rows
        smx_idx n, bytes, calls, row
        const char *at

    ctypedef struct smx_tile_leaves:
        int allowed() noexcept nogil
        smx_idx packed_bytes(int type, smx_idx d, smx_idx c) noexcept nogil
        void pack(int type, smx_idx d, smx_idx c, const void *Wt, smx_idx ldw,
                  void *packed) noexcept nogil
        smx_idx room_bytes(int type, smx_idx n, smx_idx d, smx_idx c) noexcept nogil
        void logits(int type, smx_idx n, smx_idx d, smx_idx c, const void *const *x,
                    const void *Wt, smx_idx ldw, const void *packed, const void *b, void *L,
                    smx_idx ldl, smx_ahead *ahead, void *room) noexcept nogil
        void outer(int type, smx_idx m, smx_idx k, smx_idx d, const void *A, smx_idx ai,
                   smx_idx ak, const void *const *B, void *out, smx_idx ldo, smx_ahead *ahead,
                   void *room) noexcept nogil
        smx_idx ceiling_ops
        void ceiling(smx_idx steps) noexcept nogil

    ctypedef struct smx_leaves:
        smx_idx lanes
        smx_idx cols_max
        smx_idx rows_from
        smx_idx row_block, row_block_wide, row_block_most
        smx_idx direct_most[5]
        smx_idx resident_bytes, panel_bytes
        smx_idx turned
        void transpose(smx_idx n, smx_idx m, const void *src, smx_idx lds,
                       void *dst, smx_idx ldd) noexcept nogil
        void widen(int type, smx_idx n, smx_idx d, const void *const *src,
                   void *dst, smx_idx ldd) noexcept nogil
        void softmax_cols(int mode, smx_idx n, smx_idx c, const void *x, smx_idx ldx,
                          const void *mx_in, const void *scale, void *out, smx_idx ldo,
                          void *mx, void *logsum) noexcept nogil
        void softmax_rows(int mode, smx_idx n, smx_idx c, const void *x, smx_idx ldx,
                          const void *scale, void *out, smx_idx ldo,
                          void *mx, void *logsum) noexcept nogil
        void softmax_wide(int mode, smx_idx n, smx_idx c, const void *x, smx_idx ldx,
                          const void *scale, void *out, smx_idx ldo,
                          void *mx, void *logsum) noexcept nogil
        void argmax_cols(smx_idx n, smx_idx c, const void *x, smx_idx ldx,
                         void *mx, int32_t *arg) noexcept nogil
        void argmax_rows(smx_idx n, smx_idx c, const void *x, smx_idx ldx,
                         void *mx, int32_t *arg) noexcept nogil
        void logits(int type, smx_idx n, smx_idx d, smx_idx c, const void *const *x,
                    const void *Wt, smx_idx ldw, const void *b, void *L, smx_idx ldl,
                    smx_ahead *ahead) noexcept nogil
        void logits_rows(smx_idx n, smx_idx d, smx_idx c, const void *const *x,
                         const void *const *W, const void *b, void *L, smx_idx ldl,
                         smx_ahead *ahead) noexcept nogil
        void logits_few(int type, smx_idx n, smx_idx d, smx_idx c, const void *x, smx_idx ldx,
                        const void *W, double scale, const void *b, void *L,
                        smx_idx ldl) noexcept nogil
        void outer(int type, smx_idx m, smx_idx k, smx_idx d, const void *A, smx_idx ai,
                   smx_idx ak, const void *const *B, void *out, smx_idx ldo,
                   smx_ahead *ahead) noexcept nogil
        void add_sums(smx_idx n, smx_idx c, const void *G, smx_idx ldg,
                      double *sums) noexcept nogil
        void hessian_cols(smx_idx n, smx_idx c, const void *U, smx_idx ldu, const int32_t *arg,
                          const void *scale, void *P, smx_idx ldp) noexcept nogil
        void hessian_rows(smx_idx n, smx_idx c, const void *U, smx_idx ldu, const int32_t *arg,
                          const void *scale, void *P, smx_idx ldp) noexcept nogil
        void divergence_cols(int what, smx_idx n, smx_idx c, const void *x, smx_idx ldx,
                             const void *y, smx_idx ldy, void *out) noexcept nogil
        void divergence_rows(int what, smx_idx n, smx_idx c, const void *x, smx_idx ldx,
                             const void *y, smx_idx ldy, void *out) noexcept nogil
        void divergence_each(int what, smx_idx n, const void *x, const void *y,
                             void *out) noexcept nogil
        smx_idx sparse_pick(int wide, int type, smx_idx n, const void *index, const void *data,
                            double scale, smx_idx lo, smx_idx hi, smx_idx *col,
                            void *val) noexcept nogil
        void sparse_logits(smx_idx n, smx_idx c, const smx_idx *at, const smx_idx *col,
                           const void *val, const void *W, smx_idx ldw,
                           void *L, smx_idx ldl) noexcept nogil
        void sparse_outer(smx_idx n, smx_idx c, const smx_idx *at, const smx_idx *col,
                          const void *val, const void *G, smx_idx ldg,
                          void *dW, smx_idx ldw) noexcept nogil
        smx_idx ceiling_flops
        double ceiling_arithmetic(smx_idx steps) noexcept nogil
        double ceiling_read(smx_idx n, const void *src) noexcept nogil
        const smx_tile_leaves *tiles

    ctypedef struct smx_table:
        const char *name
        int emulated
        smx_leaves f32
        smx_leaves f64

    const smx_table *const smx_tables[]
    const int smx_n_tables
    int smx_can_run(const smx_table *table) nogil
    int smx_by_tiles(const smx_leaves *leaves, int type, smx_idx d, smx_idx c) noexcept nogil
    const char *smx_why_no_tiles() nogil
    int smx_tiles_allowed() nogil
