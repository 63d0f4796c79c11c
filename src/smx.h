/* The contract between the drivers (Cython) and the leaves (C).

   A table holds, for one instruction set, the leaves for float32 and for float64.
   A leaf works on a block of rows and knows nothing of Python. Rules for all of them:

   * `real` is float in table->f32 and double in table->f64; pointers to it are void * here so
     that one struct serves both.
   * Every size and leading dimension (ld...) counts elements, not bytes, and may be 0.
   * Pointers need the alignment of a byte only. Nothing may overlap unless a leaf says so.
   * Leaves allocate nothing, keep nothing and cannot fail.
   * "Class-major" means element (row r, class c) at L[c*ldl + r]: the lanes of a vector are rows,
     so a softmax needs no sum across lanes, whatever the number of classes.
   * NaN and infinity travel as IEEE arithmetic lets them; a row never touches another row.
   * The result of a row (or of a column of a gradient) depends on its own numbers and on D and C,
     never on its neighbours, its place in the block or the memory layout. */
#ifndef SMX_H
#define SMX_H

#include <stddef.h>
#include <stdint.h>

typedef ptrdiff_t smx_idx;

enum smx_mode {
    SMX_STATS = 0, /* only mx and logsum */
    SMX_PROB = 1,  /* out = scale * softmax(x) */
    SMX_LOG = 2,   /* out = log_softmax(x) */
    SMX_LSE = 3    /* logsum = logsumexp(x), the maximum included */
};

enum smx_term {
    SMX_ENTROPY = 0,    /* -x log x; 0 for x = 0, NaN for x < 0 */
    SMX_DIVERGENCE = 1, /* x log(x / y); 0 for x = 0, inf for y = 0 < x, NaN for others < 0 */
    SMX_ENTR = 2,       /* the same as SciPy has them: -inf for x < 0 */
    SMX_REL_ENTR = 3,   /* 0 for x = 0 <= y, else inf where x <= 0 or y <= 0 */
    SMX_KL_DIV = 4      /* x log(x / y) - x + y; y for x = 0 <= y, else as REL_ENTR */
};

/* What the drivers' arrays on the stack are made for: bytes of a vector and cols_max of any table,
   and with them the doubles of the largest class-major block of one vector of rows. */
#define SMX_MOST_BYTES 64
#define SMX_MOST_LANES (SMX_MOST_BYTES / 4)
#define SMX_MOST_COLS 256
#define SMX_SMALL_BLOCK (SMX_MOST_BYTES / 8 * SMX_MOST_COLS)
/* Most rows of such a block. */
#define SMX_SMALL_ROWS 64

/* What is small enough for the quick ways: logits of a softmax or cross-entropy; rows and classes
   of a product, whose logits, a vector of rows, take so many doubles; rows of a minibatch. */
#define SMX_QUICK_LOGITS 4096
#define SMX_QUICK_ROWS 4
#define SMX_QUICK_CLASSES 64
#define SMX_QUICK_BLOCK (SMX_QUICK_CLASSES * SMX_MOST_BYTES / 8)
#define SMX_QUICK_BATCH 1024

/* How the numbers of X are stored. A leaf takes those that it names, as they lie. */
enum smx_type { SMX_REAL, SMX_U8, SMX_F16, SMX_BF16, SMX_F32 };

/* How many entries ahead the leaves for a sparse X fetch. */
#define SMX_SPARSE_AHEAD 16

/* Rows that will be wanted soon; leaves that get one fetch them towards L2 while they work. */
typedef struct {
    const void *const *rows; /* n rows of so many bytes */
    smx_idx n, bytes;
    smx_idx calls; /* of leaves still to come, which share what is left */
    /* The leaves' own, 0 at first: how far it has come, the bytes of a step, and the steps that are
       left of the row. */
    smx_idx row;
    const char *at;
    smx_idx step, left;
} smx_ahead;

/* Products of a dense X by tile instructions, beside a table's own, for what smx_by_tiles says. They
   are exact, or more so than a sum in float32, and fetch ahead likewise. A block of rows has up to
   row_block_most. */
typedef struct {
    /* D from .. to .., and so many columns of W at least, by type: 0: never. */
    smx_idx least_d, most_d;
    smx_idx least_c[SMX_F32 + 1];
    /* Whether the system lets this process use them. It is asked once, at the first call. */
    int (*allowed)(void);

    /* W as logits wants it beside Wt, (c, ldw), whose numbers may also be such that it is not used: the
       bytes, and making it. Type: that of X, REAL or U8. */
    smx_idx (*packed_bytes)(int type, smx_idx d, smx_idx c);
    void (*pack)(int type, smx_idx d, smx_idx c, const void *Wt, smx_idx ldw, void *packed);

    /* The bytes of `room`, aligned to 64, for blocks of up to n rows. */
    smx_idx (*room_bytes)(int type, smx_idx n, smx_idx d, smx_idx c);

    /* The same as in smx_leaves, but that U8 wants ak = 1, and ldo be at least d up to a multiple of
       16, where what is behind d stays as it is if it is finite. */
    void (*logits)(int type, smx_idx n, smx_idx d, smx_idx c, const void *const *x,
                   const void *Wt, smx_idx ldw, const void *packed, const void *b, void *L,
                   smx_idx ldl, smx_ahead *ahead, void *room);
    void (*outer)(int type, smx_idx m, smx_idx k, smx_idx d, const void *A, smx_idx ai,
                  smx_idx ak, const void *const *B, void *out, smx_idx ldo, smx_ahead *ahead,
                  void *room);

    /* For benchmarks: as in smx_leaves, operations on bytes. */
    smx_idx ceiling_ops;
    void (*ceiling)(smx_idx steps);
} smx_tile_leaves;

typedef struct {
    smx_idx lanes;     /* numbers in a vector; class-major leading dimensions are multiples of it */
    smx_idx cols_max;  /* up to so many classes softmax goes class-major, above row by row */
    smx_idx rows_from; /* from so many classes (> 64) the fused loop has a row's side by side */
    /* Rows of a block of the fused loop: with up to 64 classes, with up to 256, and with more, whose
       W has to be read again for each block. */
    smx_idx row_block, row_block_wide, row_block_most;
    /* By smx_type of X: up to so many columns of W the products read its rows as they lie. For more,
       rows are widened first, where each tile of columns would do it again. */
    smx_idx direct_most[SMX_F32 + 1];
    /* Up to so many bytes W stays in memory as the leaves like it; of more, panels of about so many
       bytes are packed as they come. */
    smx_idx resident_bytes, panel_bytes;
    /* By rows, so many classes of the gradient at a time are turned class-major. */
    smx_idx turned;

    /* dst[j*ldd + i] = src[i*lds + j] for i < n, j < m. */
    void (*transpose)(smx_idx n, smx_idx m, const void *src, smx_idx lds, void *dst, smx_idx ldd);

    /* n rows of real from n rows of any other type: dst[i*ldd + j] = src[i][j], j < d. */
    void (*widen)(int type, smx_idx n, smx_idx d, const void *const *src, void *dst, smx_idx ldd);

    /* Class-major softmax of n rows and c classes.
       mx_in: the rows' maxima if known, else NULL. scale: a factor per row, or NULL for 1.
       out (PROB, LOG) may be x itself. mx, logsum: per row, or NULL; the log-sum-exp is
       mx + logsum. Where a row's maximum is infinite, logsum is NaN. */
    void (*softmax_cols)(int mode, smx_idx n, smx_idx c, const void *x, smx_idx ldx,
                         const void *mx_in, const void *scale, void *out, smx_idx ldo,
                         void *mx, void *logsum);

    /* The same with each row's c >= lanes classes side by side: element (r, c) at x[r*ldx + c]. */
    void (*softmax_rows)(int mode, smx_idx n, smx_idx c, const void *x, smx_idx ldx,
                         const void *scale, void *out, smx_idx ldo, void *mx, void *logsum);

    /* softmax_rows, to the bit, with the rows side by side: element (r, c) at x[c*ldx + r]. Any mode
       but STATS. */
    void (*softmax_wide)(int mode, smx_idx n, smx_idx c, const void *x, smx_idx ldx,
                         const void *scale, void *out, smx_idx ldo, void *mx, void *logsum);

    /* Class-major: mx[r] = the largest of the row, arg[r] = the first class that has it; a NaN
       counts as largest, as in numpy.argmax. n is rounded up to lanes. */
    void (*argmax_cols)(smx_idx n, smx_idx c, const void *x, smx_idx ldx, void *mx, int32_t *arg);

    /* The same with each row's c >= lanes classes side by side. */
    void (*argmax_rows)(smx_idx n, smx_idx c, const void *x, smx_idx ldx, void *mx, int32_t *arg);

    /* Class-major logits: L[c*ldl + r] = x[r] . Wt[c] + b[c] for r < n (n a multiple of 4), c < C.
       x: n pointers to rows of d >= lanes numbers, REAL or U8, and in table->f32 F16 or BF16. Wt: C
       rows of ldw. b may be NULL. ahead may be NULL; a share of what is left of its rows is
       fetched. */
    void (*logits)(int type, smx_idx n, smx_idx d, smx_idx c, const void *const *x,
                   const void *Wt, smx_idx ldw, const void *b, void *L, smx_idx ldl,
                   smx_ahead *ahead);

    /* Rows of logits: L[r*ldl + c] = x[r] . W[:, c] + b[c]. W: d pointers to rows of c >= lanes
       numbers; x: pointers to rows of real only. A sum is in chunks, each from zero, over d. */
    void (*logits_rows)(smx_idx n, smx_idx d, smx_idx c, const void *const *x,
                        const void *const *W, const void *b, void *L, smx_idx ldl,
                        smx_ahead *ahead);

    /* The same as logits, to the bit, for a few rows where turning W would cost more than the work:
       x (n, d) of REAL, U8, F16 or BF16, ldx apart; W (d, c) contiguous, times scale; n lanes of L
       written. */
    void (*logits_few)(int type, smx_idx n, smx_idx d, smx_idx c, const void *x, smx_idx ldx,
                       const void *W, double scale, const void *b, void *L, smx_idx ldl);

    /* out[i*ldo + j] += sum over l < k of A[i*ai + l*ak] * B[l][j], for i < m, j < d (d >= lanes).
       A sum is in chunks, each from zero, over k.
       Gradient of W: A = G class-major, B = rows of X. Gradient of X: A = G, B = rows of Wt.
       B's type and ahead as above. */
    void (*outer)(int type, smx_idx m, smx_idx k, smx_idx d, const void *A, smx_idx ai,
                  smx_idx ak, const void *const *B, void *out, smx_idx ldo, smx_ahead *ahead);

    /* sums[j] += sum over r < n of G[j*ldg + r] for j < c, in float64. */
    void (*add_sums)(smx_idx n, smx_idx c, const void *G, smx_idx ldg, double *sums);

    /* Class-major: P = scale * p (v - sum of p v) of each row, with v = u - u[arg], p the row of P,
       u that of U: the Hessian of the row's cross-entropy in its logits, times u. n is rounded up to
       lanes. */
    void (*hessian_cols)(smx_idx n, smx_idx c, const void *U, smx_idx ldu, const int32_t *arg,
                         const void *scale, void *P, smx_idx ldp);
    /* The same with each row's c >= lanes classes side by side. */
    void (*hessian_rows)(smx_idx n, smx_idx c, const void *U, smx_idx ldu, const int32_t *arg,
                         const void *scale, void *P, smx_idx ldp);

    /* The sum of a row's terms, class-major and with each row's classes side by side: out[r] = sum
       over j < c of ENTROPY of x, or of DIVERGENCE of x and y. y may be NULL for ENTROPY. A sum is
       in float64, and float32 results are rounded once. */
    void (*divergence_cols)(int what, smx_idx n, smx_idx c, const void *x, smx_idx ldx,
                            const void *y, smx_idx ldy, void *out);
    void (*divergence_rows)(int what, smx_idx n, smx_idx c, const void *x, smx_idx ldx,
                            const void *y, smx_idx ldy, void *out);
    /* out[i] = ENTR of x[i], or REL_ENTR or KL_DIV of x[i] and y[i], for i < n. y may be NULL for
       ENTR. */
    void (*divergence_each)(int what, smx_idx n, const void *x, const void *y, void *out);

    /* Of n entries of a CSR matrix those whose index is in [lo, hi), in their order: indices to
       col, numbers times scale to val; returns how many. index: int32, or (wide) int64; data: n
       numbers of a smx_type. col and val have room for n. */
    smx_idx (*sparse_pick)(int wide, int type, smx_idx n, const void *index, const void *data,
                           double scale, smx_idx lo, smx_idx hi, smx_idx *col, void *val);

    /* Rows of entries from sparse_pick: row r has those from at[r] to at[r + 1]; none, columns in
       any order, and a column that comes more than once, are all right. Only entries take part:
       what is not stored is 0 also beside infinity. c >= lanes; behind the entries, col can be
       read (and is not used as more than a hint) for another SMX_SPARSE_AHEAD.
       sparse_logits: L[r*ldl + j] += sum of val * W[col*ldw + j] for j < c, one entry after the
       other. sparse_outer: dW[col*ldw + j] += val * G[r*ldg + j], rows and entries in order. */
    void (*sparse_logits)(smx_idx n, smx_idx c, const smx_idx *at, const smx_idx *col,
                          const void *val, const void *W, smx_idx ldw, void *L, smx_idx ldl);
    void (*sparse_outer)(smx_idx n, smx_idx c, const smx_idx *at, const smx_idx *col,
                         const void *val, const void *G, smx_idx ldg, void *dW, smx_idx ldw);

    /* For benchmarks: `steps` steps of multiply-adds that never leave the registers (a product and
       a sum where the instruction set has no such operation), each of ceiling_flops operations;
       and reading n numbers once. What they return means nothing. */
    smx_idx ceiling_flops;
    double (*ceiling_arithmetic)(smx_idx steps);
    double (*ceiling_read)(smx_idx n, const void *src);

    const smx_tile_leaves *tiles; /* or NULL */
} smx_leaves;

typedef struct {
    const char *name;
    int emulated; /* for tests of what this processor may lack: never chosen, never offered */
    smx_leaves f32, f64;
} smx_table;

/* The tables compiled in, best first, and whether this processor and system can run one. */
extern const smx_table *const smx_tables[];
extern const int smx_n_tables;
int smx_can_run(const smx_table *table);

/* Whether products of X of a type, D features and c columns of W go by tiles: set by these alone, so
   that a row's bits do not depend on the others. */
int smx_by_tiles(const smx_leaves *leaves, int type, smx_idx d, smx_idx c);

/* Why there are no tile instructions here, in a few words; NULL: there are, as far as is known. */
const char *smx_why_no_tiles(void);
/* What the system says to this process's use of them; asked once. */
int smx_tiles_allowed(void);

#endif
