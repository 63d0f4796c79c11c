# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: freethreading_compatible=True
"""The drivers: fused softmax-regression algorithms over blocks of rows.

They own the order of the work, the scratch memory, the rules for labels and weights, and the
float64 sums; the arithmetic on rows is in the leaves (src/). Arguments arrive checked and
normalised from ops.py; the only thing checked again is a label, on the very value that is used.

Vocabulary: a block is up to `rb` rows; L is its logits and then its gradient, class-major (row r,
class c at L[c*ldl + r]) or, with many classes, by rows (at L[r*ldr + c]) with G a part of it
class-major; Wt is W transposed, (C, ldw); acc is the gradient of W, likewise.
"""

cimport cython
cimport numpy as cnp
from cpython.long cimport PyLong_AsLongLongAndOverflow
from libc.math cimport NAN, isinf
from libc.stdint cimport (int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t,
                          uint64_t)
from libc.string cimport memcpy, memset

import numpy as np

cnp.import_array()

ctypedef fused real:
    float
    double

ctypedef Py_ssize_t idx

# ---------------------------------------------------------------------------------- tables


def compiled_isas():
    """Names of the instruction sets compiled in, best first."""
    return tuple(smx_tables[i].name.decode() for i in range(smx_n_tables))


def available_isas():
    """Names of those that this processor and operating system can run, best first."""
    return tuple(smx_tables[i].name.decode() for i in range(smx_n_tables)
                 if smx_can_run(smx_tables[i]))


cdef smx_leaves *leaves_of(str isa, bint f64) except NULL:
    cdef int i
    for i in range(smx_n_tables):
        if smx_tables[i].name.decode() == isa:
            return <smx_leaves *>(&smx_tables[i].f64 if f64 else &smx_tables[i].f32)
    raise ValueError(f"no instruction set {isa!r} in this build")


cdef extern from *:
    """
    #define SMX_STRING_(x) #x
    #define SMX_STRING(x) SMX_STRING_(x)
    #ifdef __clang__
    #define SMX_COMPILER "Clang " __clang_version__
    #else
    #define SMX_COMPILER "GCC " __VERSION__
    #endif
    """
    const char *SMX_COMPILER
    const char *SMX_LEAF_FLAGS

COMPILER = SMX_COMPILER.decode()
LEAF_FLAGS = SMX_LEAF_FLAGS.decode()


# ------------------------------------------------------------------------- scratch memory

# Buffers wait here between calls: taking memory from the system anew would cost a small call
# more than its work. Their sizes are 4, 6, 8, 12, 16, 24 KiB and so on, a list for each; pop and
# append are atomic, so no two calls ever hold the same buffer.
cdef idx POOL_SIZES = 25  # up to 16 MiB
cdef tuple _pool = tuple([] for _ in range(POOL_SIZES))
cdef idx POOL_BUFFERS = 4  # of each size


@cython.final
cdef class Scratch:
    """Aligned pieces of one buffer, borrowed from the pool while the object lives."""
    cdef cnp.ndarray buffer
    cdef list home
    cdef char *at

    def __cinit__(self, idx nbytes):
        cdef idx i = 0, size = 4096
        nbytes += 64
        while size < nbytes and i < POOL_SIZES:
            size += size // 3 if i & 1 else size // 2
            i += 1
        if i < POOL_SIZES:
            self.home = <list>_pool[i]
            try:
                self.buffer = <cnp.ndarray>self.home.pop()
            except IndexError:
                self.buffer = np.empty(size, np.uint8)
        else:
            self.buffer = np.empty(nbytes, np.uint8)
        self.at = <char *>((<size_t>cnp.PyArray_DATA(self.buffer) + 63) & ~<size_t>63)

    def __dealloc__(self):
        if self.home is not None and len(self.home) < POOL_BUFFERS:
            self.home.append(self.buffer)

    cdef void *take(self, idx nbytes) noexcept nogil:
        cdef char *p = self.at
        self.at += round_up(nbytes, 64)
        return p


cdef inline idx round_up(idx n, idx m) noexcept nogil:
    return (n + m - 1) // m * m


cdef inline idx odd_lines(idx n, idx size) noexcept nogil:
    """A leading dimension >= n of an odd number of cache lines: rows spread over all cache sets."""
    cdef idx per_line = 64 // size, lines = (n + per_line - 1) // per_line
    return (lines | 1) * per_line


# -------------------------------------------------------------------- one number of an array

cdef enum Code:  # element types an argument may have
    F32, F64, I8, U8, I16, U16, I32, U32, I64, U64

cdef int code_of(cnp.ndarray a) except -1:
    cdef int size = cnp.PyArray_ITEMSIZE(a), place = 0 if size == 1 else 1 if size == 2 else (
        2 if size == 4 else 3)
    if cnp.PyArray_ISFLOAT(a) and size >= 4:
        return F32 if size == 4 else F64
    if cnp.PyArray_ISSIGNED(a):
        return I8 + 2 * place
    if cnp.PyArray_ISUNSIGNED(a):
        return U8 + 2 * place
    raise TypeError(f"dtype {a.dtype}")


cdef inline int64_t load_int(const char *p, int code) noexcept nogil:
    """An integer of any type; memcpy, as it may be misaligned. uint64 past int64 wraps around, to
    a negative number."""
    cdef int8_t i8
    cdef uint8_t u8
    cdef int16_t i16
    cdef uint16_t u16
    cdef int32_t i32
    cdef uint32_t u32
    cdef int64_t i64
    if code == I64 or code == U64:
        memcpy(&i64, p, 8)
        return i64
    if code == U8:
        memcpy(&u8, p, 1)
        return u8
    if code == I32:
        memcpy(&i32, p, 4)
        return i32
    if code == I8:
        memcpy(&i8, p, 1)
        return i8
    if code == I16:
        memcpy(&i16, p, 2)
        return i16
    if code == U16:
        memcpy(&u16, p, 2)
        return u16
    memcpy(&u32, p, 4)
    return u32


cdef inline double load_real(const char *p, int code) noexcept nogil:
    cdef float f
    cdef double d
    if code == F32:
        memcpy(&f, p, 4)
        return f
    if code == U8:
        return (<const uint8_t *>p)[0]
    memcpy(&d, p, 8)
    return d


cdef inline double times(double a, double b) noexcept nogil:
    """a b, where 0 times infinity is 0: what counts 0 times counts nothing."""
    cdef double product = a * b
    return product if (product == product) | (a != a) | (b != b) else 0


# ---------------------------------------------------------------------- targets and weights

@cython.final
cdef class Target:
    """What the rows should be, and what they count.

    hard: labels, an integer array of the rows' shape (a, b); soft: probabilities (a, b, C), float32
    or float64. weight: float64, contiguous, (C,) or None; sample_weight: float32 or float64, the
    rows' shape, or None.
    total: the denominator of the gradient (1 for a sum).
    """
    cdef cnp.ndarray array, weight_array, sample_array
    cdef bint hard, plain   # plain: labels, and every row counts 1
    cdef const char *data
    cdef const char *sample
    cdef idx sa, sb, sc, na, nb, sample_a, sample_b
    cdef int code, sample_code
    cdef bint ignores   # whether there may be a label to ignore
    cdef int64_t ignore
    cdef const double *weight
    cdef double smoothing, smooth_sum, total
    cdef idx c

    def __init__(self, cnp.ndarray array, bint hard, idx n_classes, cnp.ndarray weight,
                 cnp.ndarray sample_weight, object ignore_index, double label_smoothing):
        cdef idx j
        cdef int overflow
        self.array, self.weight_array, self.sample_array = array, weight, sample_weight
        self.hard = hard
        self.data = <const char *>cnp.PyArray_DATA(array)
        self.code = code_of(array)
        self.sa = array.strides[0]
        self.sb = array.strides[1]
        self.sc = 0 if hard else array.strides[2]
        self.na, self.nb = array.shape[0], array.shape[1]
        # As `load_int` gives it, if the labels' type may have such a number at all.
        self.ignore = PyLong_AsLongLongAndOverflow(ignore_index, &overflow)
        self.ignores = overflow == 0 and (self.code != U64 or self.ignore >= 0)
        if self.code == U64 and overflow > 0 and ignore_index < 1 << 64:
            self.ignores, self.ignore = True, <int64_t><uint64_t>ignore_index
        self.weight = NULL if weight is None else <const double *>cnp.PyArray_DATA(weight)
        self.sample = NULL
        if sample_weight is not None:
            self.sample = <const char *>cnp.PyArray_DATA(sample_weight)
            self.sample_code = code_of(sample_weight)
            self.sample_a, self.sample_b = sample_weight.strides[0], sample_weight.strides[1]
        self.smoothing = label_smoothing
        self.plain = hard and weight is None and sample_weight is None and label_smoothing == 0
        self.c = n_classes
        self.total = 1
        self.smooth_sum = 0
        for j in range(n_classes):
            self.smooth_sum += self.smooth(j)

    @property
    def arrays(self):
        """What is read."""
        return [a for a in (self.array, self.weight_array, self.sample_array) if a is not None]

    cdef inline double smooth(self, idx c) noexcept nogil:
        """The smoothing's share of class c for a hard label: (eps / C) w_c."""
        if self.smoothing == 0 or self.weight == NULL:
            return self.smoothing / self.c
        return self.smoothing / self.c * self.weight[c]

    cdef inline int64_t label(self, idx a, idx b) noexcept nogil:
        return load_int(self.data + a * self.sa + b * self.sb, self.code)

    cdef inline bint ignored(self, int64_t label) noexcept nogil:
        return label == self.ignore and self.ignores

    cdef inline double row_weight(self, idx a, idx b) noexcept nogil:
        if self.sample == NULL:
            return 1
        return load_real(self.sample + a * self.sample_a + b * self.sample_b, self.sample_code)

    cdef inline double soft(self, idx a, idx b, idx c) noexcept nogil:
        """w_c (t_c (1 - eps) + eps / C), the effective probability of a soft target."""
        cdef double t = load_real(self.data + a * self.sa + b * self.sb + c * self.sc, self.code)
        t = t * (1 - self.smoothing) + self.smoothing / self.c
        return t if self.weight == NULL else times(t, self.weight[c])

    def scan(self, cnp.ndarray rows=None):
        """Check every label before anything is written.

        Returns (total, n_bad): the rows' weights added up, and the position of the first label
        that is neither in [0, C) nor ignored, or -1.
        """
        cdef idx n, i, r, bad = -1, ignored = 0
        cdef int64_t y
        cdef double total = 0
        cdef const int64_t *pick = NULL
        n = self.na * self.nb
        if rows is not None:
            n = rows.shape[0]
            pick = <const int64_t *>cnp.PyArray_DATA(rows)
        with nogil:
            if not self.hard and self.sample == NULL:
                total = n
            elif self.plain and self.nb == 1:
                for i in range(n):
                    y = self.label(i if pick == NULL else pick[i], 0)
                    if self.ignored(y):
                        ignored += 1
                    elif y < 0 or y >= self.c:
                        bad = i
                        break
                total = n - ignored
            else:
                for i in range(n):
                    r = i if pick == NULL else pick[i]
                    if self.hard:
                        y = self.label(r // self.nb, r % self.nb)
                        if self.ignored(y):
                            continue
                        if y < 0 or y >= self.c:
                            bad = i
                            break
                        if self.weight == NULL:
                            total += self.row_weight(r // self.nb, r % self.nb)
                        else:
                            total += times(self.weight[y],
                                           self.row_weight(r // self.nb, r % self.nb))
                    else:
                        total += self.row_weight(r // self.nb, r % self.nb)
        return total, bad

    def set_total(self, double total):
        """What gradients are divided by."""
        self.total = total


def wrap_rows(cnp.ndarray rows, idx n):
    """Negative indices counted from the end, in place; the first outside [-n, n), or -1."""
    cdef int64_t *r = <int64_t *>cnp.PyArray_DATA(rows)
    cdef idx i, bad = -1
    with nogil:
        for i in range(rows.shape[0]):
            if r[i] < -n or r[i] >= n:
                bad = i
                break
            if r[i] < 0:
                r[i] += n
    return bad


def following(object rows, idx n):
    """What comes after a slice of an array of int64 indices in [0, n), up to 64 of them, or None.

    Minibatches are mostly slices of one permutation, so these are likely the next one's rows.
    """
    cdef cnp.ndarray part, whole, found
    cdef idx i, most
    cdef int64_t *after
    cdef object base
    if not cnp.PyArray_CheckExact(rows):
        return None
    base = rows.base
    if not cnp.PyArray_CheckExact(base):
        return None
    part, whole = <cnp.ndarray>rows, <cnp.ndarray>base
    if (not plain(part, 1) or not plain(whole, 1) or cnp.PyArray_TYPE(part) != cnp.NPY_INT64
            or cnp.PyArray_TYPE(whole) != cnp.NPY_INT64):
        return None
    after = <int64_t *>cnp.PyArray_DATA(part) + part.shape[0]
    most = min(64, <int64_t *>cnp.PyArray_DATA(whole) + whole.shape[0] - after)
    if most <= 0:
        return None
    found = np.empty(most, np.int64)
    memcpy(cnp.PyArray_DATA(found), after, most * 8)
    for i in range(most):
        if not 0 <= (<int64_t *>cnp.PyArray_DATA(found))[i] < n:
            return found[:i]
    return found


def overlap(cnp.ndarray a, *others):
    """Whether the memory from a's first to its last byte meets that of another array."""
    cdef char *a_low
    cdef char *a_high
    cdef char *b_low
    cdef char *b_high
    bounds(a, &a_low, &a_high)
    for b in others:
        bounds(b, &b_low, &b_high)
        if a_low < b_high and b_low < a_high:
            return True
    return False


cdef void bounds(cnp.ndarray a, char **low, char **high) noexcept:
    cdef idx i, reach
    low[0] = high[0] = <char *>cnp.PyArray_DATA(a)
    for i in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_DIMS(a)[i] == 0:
            high[0] = low[0]
            return
        reach = (cnp.PyArray_DIMS(a)[i] - 1) * cnp.PyArray_STRIDES(a)[i]
        if reach < 0:
            low[0] += reach
        else:
            high[0] += reach
    high[0] += cnp.PyArray_ITEMSIZE(a)


cdef struct Rows:
    # Per-row work arrays of a block, and where its rows come from.
    idx *a
    idx *b
    idx *place          # position in the caller's order, for results per row
    int64_t *label
    double *pick        # factor of the label's own term
    double *smooth      # factor of the smoothing term
    double *sum         # all factors of the row: what multiplies log-sum-exp
    double *loss
    int32_t *arg


cdef Rows take_rows(Scratch s, idx rb) noexcept:
    cdef Rows r
    r.a = <idx *>s.take(rb * sizeof(idx))
    r.b = <idx *>s.take(rb * sizeof(idx))
    r.place = <idx *>s.take(rb * sizeof(idx))
    r.label = <int64_t *>s.take(rb * sizeof(int64_t))
    r.pick = <double *>s.take(rb * sizeof(double))
    r.smooth = <double *>s.take(rb * sizeof(double))
    r.sum = <double *>s.take(rb * sizeof(double))
    r.loss = <double *>s.take(rb * sizeof(double))
    r.arg = <int32_t *>s.take(rb * sizeof(int32_t))
    return r


cdef idx ROWS_BYTES = 8 * 8 + 4  # per row, of take_rows


cdef void factors(Target t, idx n, Rows *rows, real *scale) noexcept nogil:
    """Fill pick, smooth, sum and the softmax's factor for rows whose labels are loaded.

    With hard labels a row's loss is pick (lse - o_y) + smooth sum_c u_c (lse - o_c), u_c the
    smoothing's shares; with soft ones sum_c T_c (lse - o_c) and `smooth` is the row's weight.
    """
    cdef idx r, c
    cdef double w, total
    cdef real share = <real>(1 / t.total)
    if t.plain:
        for r in range(n):
            rows.pick[r] = rows.smooth[r] = rows.sum[r] = 1
            scale[r] = share
        return
    for r in range(n):
        w = t.row_weight(rows.a[r], rows.b[r])
        rows.smooth[r] = w
        if t.hard:
            rows.pick[r] = w * (1 - t.smoothing) if t.smoothing < 1 else 0
            if t.weight != NULL:
                rows.pick[r] = times(rows.pick[r], t.weight[rows.label[r]])
            rows.sum[r] = rows.pick[r]
            if t.smoothing > 0:
                rows.sum[r] += times(w, t.smooth_sum)
        else:
            total = 0
            for c in range(t.c):
                total += t.soft(rows.a[r], rows.b[r], c)
            rows.pick[r] = 0
            rows.sum[r] = times(w, total)
        scale[r] = <real>(rows.sum[r] / t.total)


cdef void deviations(Target t, idx n, Rows *rows, const real *L, idx sr, idx sc,
                     const real *mx) noexcept nogil:
    """loss = the rows' losses less their logsum term: sums of factor * (max - o_c), in float64."""
    cdef idx r, c
    cdef double u, t_c, m
    if t.hard:
        for r in range(n):
            rows.loss[r] = rows.pick[r] * (<double>mx[r] - <double>L[r * sr + rows.label[r] * sc])
        if t.smoothing > 0:
            for c in range(t.c):
                u = t.smooth(c)
                if u != 0:
                    for r in range(n):
                        rows.loss[r] += rows.smooth[r] * u * (<double>mx[r] -
                                                              <double>L[r * sr + c * sc])
    else:
        for r in range(n):
            rows.loss[r] = 0
            m = mx[r]
            for c in range(t.c):
                t_c = t.soft(rows.a[r], rows.b[r], c)
                if t_c != 0:
                    rows.loss[r] += rows.smooth[r] * t_c * (m - <double>L[r * sr + c * sc])
    if not t.plain:
        for r in range(n):
            if rows.loss[r] != rows.loss[r]:  # perhaps 0 times infinity
                rows.loss[r] = deviation[real](t, r, rows, L + r * sr, sc, mx[r])


cdef double deviation(Target t, idx r, Rows *rows, const real *o, idx sc, double m) noexcept nogil:
    """The same for one row, where 0 times infinity is 0."""
    cdef idx c
    cdef double u, total = 0
    if t.hard:
        total = times(rows.pick[r], m - <double>o[rows.label[r] * sc])
    for c in range(t.c):
        u = t.smooth(c) if t.hard else t.soft(rows.a[r], rows.b[r], c)
        if u != 0:
            total += times(times(rows.smooth[r], u), m - <double>o[c * sc])
    return total


cdef void subtract_targets(Target t, idx n, Rows *rows, real *G, idx sr, idx sc) noexcept nogil:
    """G -= the targets' share: what turns scaled probabilities into the gradient."""
    cdef idx r, c
    cdef double u, w
    cdef real share = <real>(1 / t.total)
    if t.plain:
        for r in range(n):
            G[r * sr + rows.label[r] * sc] -= share
    elif t.hard:
        for r in range(n):
            G[r * sr + rows.label[r] * sc] -= <real>(rows.pick[r] / t.total)
        if t.smoothing > 0:
            for c in range(t.c):
                u = t.smooth(c)
                if isinf(u):
                    for r in range(n):
                        G[r * sr + c * sc] -= <real>(times(rows.smooth[r], u) / t.total)
                elif u != 0:
                    for r in range(n):
                        G[r * sr + c * sc] -= <real>(rows.smooth[r] * u / t.total)
    else:
        for r in range(n):
            w = rows.smooth[r] / t.total
            if w != 0:
                for c in range(t.c):
                    u = t.soft(rows.a[r], rows.b[r], c)
                    if u != 0:
                        G[r * sr + c * sc] -= <real>(w * u)


cdef double finish_losses(idx n, Rows *rows, const real *logsum) noexcept nogil:
    """loss += factors * logsum; returns the block's sum."""
    cdef idx r
    cdef double total = 0
    for r in range(n):
        if logsum[r] != 0:  # beside an infinite factor, too
            rows.loss[r] += rows.sum[r] * <double>logsum[r]
        total += rows.loss[r]
    return total


cdef idx count_correct(Target t, idx n, Rows *rows) noexcept nogil:
    """Rows whose first largest logit is the label's (soft: the largest probability's)."""
    cdef idx r, c, best, total = 0
    cdef double p, q
    for r in range(n):
        if t.hard:
            best = rows.label[r]
        else:
            best = 0
            p = load_real(t.data + rows.a[r] * t.sa + rows.b[r] * t.sb, t.code)
            for c in range(1, t.c):
                q = load_real(t.data + rows.a[r] * t.sa + rows.b[r] * t.sb + c * t.sc, t.code)
                if q > p:
                    p = q
                    best = c
        total += rows.arg[r] == best
    return total


# -------------------------------------------------------------------------- softmax family

@cython.final
cdef class Softmax:
    """softmax, log_softmax or logsumexp over C of arrays walked as (A, B, C), for a range of the
    A*B rows.

    x: native float32 or float64. out: same type (PROB, LOG), may be x. Each with its strides in
    bytes for the walk. lse: (A*B,) contiguous for LSE.
    """
    cdef cnp.ndarray x, out, lse
    cdef smx_leaves *k
    cdef int mode
    cdef bint f64
    cdef idx nb, c, xa, xb, xc, oa, ob, oc

    def __init__(self, str isa, int mode, tuple shape, cnp.ndarray x, tuple x_strides,
                 cnp.ndarray out, tuple out_strides, cnp.ndarray lse):
        self.f64 = cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT64
        self.k = leaves_of(isa, self.f64)
        self.mode, self.x, self.out, self.lse = mode, x, out, lse
        self.nb, self.c = shape[1], shape[2]
        self.xa, self.xb, self.xc = x_strides
        self.oa, self.ob, self.oc = out_strides

    def run(self, idx lo, idx hi):
        if self.f64:
            self._run[double](lo, hi, NULL)
        else:
            self._run[float](lo, hi, NULL)

    cdef _run(self, idx lo, idx hi, real *tag):
        cdef bint small = self.c <= self.k.cols_max or self.c < self.k.lanes
        cdef idx lanes = self.k.lanes, c = self.c
        # Of rows that are side by side, two whole cache lines, which come together.
        cdef idx line = 128 // <idx>sizeof(real) if self.xb == sizeof(real) else 1
        cdef idx most = max(rows_per_block(c, sizeof(real), lanes), line)
        cdef idx rb = min(most, round_up(hi - lo, lanes))
        cdef idx ldc = rb if small else odd_lines(c, sizeof(real))
        cdef bint rowwise = (self.xc == sizeof(real) and self.xb % <idx>sizeof(real) == 0 and
                             (self.mode == SMX_LSE or
                              (self.oc == sizeof(real) and self.ob % <idx>sizeof(real) == 0)))
        cdef idx block_bytes = (rb * c if small else 0 if rowwise else rb * ldc) * sizeof(real)
        cdef Scratch s = Scratch(block_bytes + rb * sizeof(real) + 256)
        cdef real *block = <real *>s.take(block_bytes)
        cdef real *ls = NULL if self.lse is None else <real *>s.take(rb * sizeof(real))
        cdef const char *x = <const char *>cnp.PyArray_DATA(self.x)
        cdef char *out = NULL if self.out is None else <char *>cnp.PyArray_DATA(self.out)
        cdef real *lse = NULL if self.lse is None else <real *>cnp.PyArray_DATA(self.lse)
        cdef const char *xi
        cdef char *oi
        cdef idx at = lo, a, b, n
        with nogil:
            while at < hi:
                a, b = at // self.nb, at % self.nb
                n = min(min(self.nb - b, hi - at), rb)
                xi = x + a * self.xa + b * self.xb
                oi = out + a * self.oa + b * self.ob
                if small:
                    self.cols_block[real](n, xi, oi, block, ldc, ls)
                else:
                    self.rows_block[real](n, xi, oi, block, ldc, ls)
                if lse != NULL:
                    memcpy(lse + at, ls, n * sizeof(real))
                at += n

    cdef void cols_block(self, idx n, const char *x, char *out, real *block, idx ldc,
                         real *ls) noexcept nogil:
        """Few classes: class-major, through scratch unless the array is class-major already."""
        cdef idx xb = self.xb, xc = self.xc, ob = self.ob, oc = self.oc
        if (xb == sizeof(real) and xc % <idx>sizeof(real) == 0 and xc >= 0
                and not crowded(self.c, xc)
                and (self.mode == SMX_LSE
                     or (ob == sizeof(real) and oc % <idx>sizeof(real) == 0))):
            self.k.softmax_cols(self.mode, n, self.c, x, xc // <idx>sizeof(real), NULL, NULL,
                                out, oc // <idx>sizeof(real), NULL, ls)
            return
        gather[real](self.k, n, self.c, x, xb, xc, block, 1, ldc)
        self.k.softmax_cols(self.mode, round_up(n, self.k.lanes), self.c, block, ldc, NULL, NULL,
                            block, ldc, NULL, ls)
        if self.mode != SMX_LSE:
            scatter[real](self.k, n, self.c, block, 1, ldc, out, ob, oc)

    cdef void rows_block(self, idx n, const char *x, char *out, real *block, idx ldc,
                         real *ls) noexcept nogil:
        """Many classes: row by row, through scratch unless a row's classes are side by side."""
        cdef idx xb = self.xb, xc = self.xc, ob = self.ob, oc = self.oc
        cdef idx size = sizeof(real), ldx, ldo
        cdef const real *src = <const real *>x
        cdef real *dst = <real *>out
        ldx, ldo = xb // size, ob // size
        if xc != size or xb % size:
            gather[real](self.k, n, self.c, x, xb, xc, block, ldc, 1)
            src, ldx = block, ldc
        if self.mode != SMX_LSE and (oc != size or ob % size):
            dst, ldo = block, ldc
        self.k.softmax_rows(self.mode, n, self.c, src, ldx, NULL, dst, ldo, NULL, ls)
        if dst == block:
            scatter[real](self.k, n, self.c, block, ldc, 1, out, ob, oc)


@cython.final
cdef class SmallSoftmax:
    """softmax (PROB), log_softmax (LOG) or logsumexp (LSE) of the plainest arguments at the least
    cost.

    Returns None, having done nothing, unless x is a plain float32 or float64 ndarray
    of at most 4096 numbers and axis its last one, None for all, or the first of two.
    """
    cdef smx_leaves *f32
    cdef smx_leaves *f64

    def __init__(self, str isa):
        self.f32, self.f64 = leaves_of(isa, False), leaves_of(isa, True)

    def __call__(self, int mode, object given, object axis):
        cdef cnp.ndarray x, out
        cdef idx n, c, ndim, kept
        cdef int kind
        cdef bint first = False
        cdef smx_leaves *k
        if not cnp.PyArray_CheckExact(given) or (type(axis) is not int and axis is not None):
            return None
        x = <cnp.ndarray>given
        kind, ndim = cnp.PyArray_TYPE(x), cnp.PyArray_NDIM(x)
        if (kind != cnp.NPY_FLOAT32 and kind != cnp.NPY_FLOAT64) or ndim == 0:
            return None
        if axis is not None and axis != -1 and axis != ndim - 1:
            first = ndim == 2 and (axis == 0 or axis == -2)
            if not first:
                return None
        if not plain(x, ndim) or cnp.PyArray_SIZE(x) > 4096 or cnp.PyArray_SIZE(x) == 0:
            return None
        k = self.f32 if kind == cnp.NPY_FLOAT32 else self.f64
        c = cnp.PyArray_SIZE(x) if axis is None else cnp.PyArray_DIMS(x)[0 if first else ndim - 1]
        n = cnp.PyArray_SIZE(x) // c
        if first and c > k.cols_max and c >= k.lanes:
            return None
        kept = ndim
        if mode == SMX_LSE:
            if c == 1:  # the number itself, to the bit
                return None
            kept = 0 if axis is None else ndim - 1
        out = cnp.PyArray_EMPTY(kept, cnp.PyArray_DIMS(x) + (ndim - kept if first else 0), kind, 0)
        if kind == cnp.NPY_FLOAT32:
            small_softmax[float](k, mode, n, c, first, <const float *>cnp.PyArray_DATA(x),
                                 <float *>cnp.PyArray_DATA(out))
        else:
            small_softmax[double](k, mode, n, c, first, <const double *>cnp.PyArray_DATA(x),
                                  <double *>cnp.PyArray_DATA(out))
        return out if kept else out[()]


cdef void small_softmax(smx_leaves *k, int mode, idx n, idx c, bint first, const real *x,
                        real *out) noexcept nogil:
    """n contiguous rows, by the same leaves on the same numbers as Softmax; first: n columns."""
    cdef double block[SMX_SMALL_BLOCK]
    cdef double sums[64]
    cdef real *b = <real *>block
    cdef real *ls = <real *>sums if mode == SMX_LSE else NULL
    cdef idx rb, at, m, j
    if c > k.cols_max and c >= k.lanes:
        k.softmax_rows(mode, n, c, x, c, NULL, out, c, NULL, out if mode == SMX_LSE else NULL)
        return
    rb = min(rows_per_block(c, sizeof(real), k.lanes), round_up(n, k.lanes))
    if n < rb:
        memset(b, 0, rb * c * sizeof(real))
    at = 0
    while at < n:
        m = min(n - at, rb)
        if first:
            for j in range(c):
                memcpy(b + j * rb, x + j * n + at, m * sizeof(real))
        else:
            k.transpose(m, c, x + at * c, c, b, rb)
        k.softmax_cols(mode, round_up(m, k.lanes), c, b, rb, NULL, NULL, b, rb, NULL, ls)
        if mode == SMX_LSE:
            memcpy(out + at, ls, m * sizeof(real))
        elif first:
            for j in range(c):
                memcpy(out + j * n + at, b + j * rb, m * sizeof(real))
        else:
            k.transpose(c, m, b, rb, out + at * c, c)
        at += m


cdef inline bint crowded(idx n, idx step) noexcept nogil:
    """Whether n lines, so many bytes apart, share so few of an L1 cache's 64 sets that passes over
    them miss: as in a class-major array whose rows are a power of two. (64 x 4096 over its first
    axis took 3.2 times as long as over its last; through scratch it is as quick.)"""
    return n * (step & -step) > 4 * 64 * 64


cdef idx rows_per_block(idx c, idx size, idx lanes) noexcept nogil:
    """So many rows that a block of c classes takes 4 KiB, a multiple of lanes. (Beside it in L1 are
    the rows it comes from and goes to; with 16 KiB 65536 x 32 took 3.1 ms, with 4 KiB 1.8.)"""
    cdef idx n = (4 << 10) // (c * size) if c else 64
    return max(lanes, min(64, n // lanes * lanes))


cdef void gather(smx_leaves *k, idx n, idx c, const char *x, idx xb, idx xc,
                 real *dst, idx dr, idx dc) noexcept nogil:
    """dst[r*dr + j*dc] = element (r, j) of an array with byte strides xb, xc."""
    cdef idx r, j, size = sizeof(real)
    if xc == size and xb % size == 0 and dr == 1:
        k.transpose(n, c, x, xb // size, dst, dc)
    elif xb == size and xc % size == 0 and dc == 1:
        k.transpose(c, n, x, xc // size, dst, dr)
    elif xc == size and dc == 1:
        for r in range(n):
            memcpy(dst + r * dr, x + r * xb, c * size)
    elif xb == size and dr == 1:
        for j in range(c):
            memcpy(dst + j * dc, x + j * xc, n * size)
    else:
        for r in range(n):
            for j in range(c):
                memcpy(dst + r * dr + j * dc, x + r * xb + j * xc, sizeof(real))


cdef void scatter(smx_leaves *k, idx n, idx c, const real *src, idx sr, idx sc,
                  char *out, idx ob, idx oc) noexcept nogil:
    """The way back: element (r, j) of out = src[r*sr + j*sc]."""
    cdef idx r, j, size = sizeof(real)
    if oc == size and ob % size == 0 and sr == 1:
        k.transpose(c, n, src, sc, out, ob // size)
    elif ob == size and oc % size == 0 and sc == 1:
        k.transpose(n, c, src, sr, out, oc // size)
    elif oc == size and sc == 1:
        for r in range(n):
            memcpy(out + r * ob, src + r * sr, c * size)
    elif ob == size and sr == 1:
        for j in range(c):
            memcpy(out + j * oc, src + j * sc, n * size)
    else:
        for r in range(n):
            for j in range(c):
                memcpy(out + r * ob + j * oc, src + r * sr + j * sc, sizeof(real))


# --------------------------------------------------------------- cross-entropy of given logits

@cython.final
cdef class CrossEntropy:
    """Cross-entropy of (A, B, C) logits for a range of rows; the gradient if out is given.

    out must not overlap the logits. losses: (A*B,) of the logits' type, or None.
    """
    cdef cnp.ndarray x, out, losses
    cdef Target t
    cdef smx_leaves *k
    cdef bint f64
    cdef idx nb, c

    def __init__(self, str isa, cnp.ndarray x, Target t, cnp.ndarray out, cnp.ndarray losses):
        self.f64 = cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT64
        self.k = leaves_of(isa, self.f64)
        self.x, self.out, self.losses, self.t = x, out, losses, t
        self.nb, self.c = x.shape[1], x.shape[2]

    def run(self, idx lo, idx hi):
        """The sum of the range's losses, and the first bad row (only if a label has changed
        since the scan) or -1."""
        if self.f64:
            return self._run[double](lo, hi, NULL)
        return self._run[float](lo, hi, NULL)

    cdef _run(self, idx lo, idx hi, real *tag):
        cdef bint small = self.c <= self.k.cols_max or self.c < self.k.lanes
        cdef idx c = self.c, lanes = self.k.lanes, rb = rows_per_block(c, sizeof(real), lanes)
        cdef idx ldl = rb if small else odd_lines(c, sizeof(real))
        cdef idx nbytes = ldl * (c if small else rb) * sizeof(real)
        cdef Scratch s = Scratch(nbytes + rb * (ROWS_BYTES + 3 * sizeof(real)) + 1024)
        cdef real *block = <real *>s.take(nbytes)
        cdef real *mx = <real *>s.take(rb * sizeof(real))
        cdef real *ls = <real *>s.take(rb * sizeof(real))
        cdef real *scale = <real *>s.take(rb * sizeof(real))
        cdef Rows rows = take_rows(s, rb)
        cdef char *x = <char *>cnp.PyArray_DATA(self.x)
        cdef char *out = NULL if self.out is None else <char *>cnp.PyArray_DATA(self.out)
        cdef real *losses = NULL
        cdef idx xa = self.x.strides[0], xb = self.x.strides[1], xc = self.x.strides[2]
        cdef idx oa = 0, ob = 0, oc = 0, bad = -1
        cdef idx at = lo, a, b, n, r
        cdef const char *src
        cdef char *dst
        cdef double total = 0
        cdef Target t = self.t
        cdef int mode = SMX_STATS if self.out is None else SMX_PROB
        if self.out is not None:
            oa, ob, oc = self.out.strides[0], self.out.strides[1], self.out.strides[2]
        if self.losses is not None:
            losses = <real *>cnp.PyArray_DATA(self.losses)
        with nogil:
            while at < hi and bad < 0:
                a, b = at // self.nb, at % self.nb
                n = min(min(self.nb - b, hi - at), rb)
                src = x + a * xa + b * xb
                dst = out + a * oa + b * ob
                for r in range(n):
                    rows.a[r], rows.b[r] = a, b + r
                    rows.label[r] = 0
                    if t.hard:
                        rows.label[r] = t.label(a, b + r)
                        if t.ignored(rows.label[r]):
                            rows.label[r] = -1
                        elif rows.label[r] < 0 or rows.label[r] >= c:
                            bad = at + r
                            break
                if bad >= 0:
                    break
                total += self.block[real](n, small, mode, &rows, src, xb, xc, dst, ob, oc,
                                          block, ldl, mx, ls, scale)
                if losses != NULL:
                    for r in range(n):
                        losses[at + r] = <real>rows.loss[r]
                at += n
        return total, bad

    cdef double block(self, idx n, bint small, int mode, Rows *rows, const char *x, idx xb, idx xc,
                      char *out, idx ob, idx oc, real *block, idx ldl, real *mx, real *ls,
                      real *scale) noexcept nogil:
        cdef idx c = self.c, r, j, lanes, kept = 0
        cdef idx sr = 1 if small else ldl, sc = ldl if small else 1
        cdef real zero = 0
        cdef double total = 0
        # Only the kept rows enter the block; `place` says where each belongs.
        for r in range(n):
            if rows.label[r] >= 0:
                rows.place[kept] = r
                rows.label[kept] = rows.label[r]
                rows.a[kept], rows.b[kept] = rows.a[r], rows.b[r]
                kept += 1
        if (not small and kept == n and xc == sizeof(real) and xb % <idx>sizeof(real) == 0 and
                (mode == SMX_STATS or (oc == sizeof(real) and ob % <idx>sizeof(real) == 0))):
            # Long rows, classes side by side: straight from the logits to the gradient.
            sr = xb // <idx>sizeof(real)
            sc = 1
            factors[real](self.t, n, rows, scale)
            self.k.softmax_rows(mode, n, c, x, sr, scale, out, ob // <idx>sizeof(real), mx, ls)
            deviations[real](self.t, n, rows, <const real *>x, sr, sc, mx)
            if mode == SMX_PROB:
                subtract_targets[real](self.t, n, rows, <real *>out, ob // <idx>sizeof(real), sc)
            return finish_losses[real](n, rows, ls)
        if kept == n:
            gather[real](self.k, n, c, x, xb, xc, block, sr, sc)
        else:
            for r in range(kept):
                for j in range(c):
                    memcpy(block + r * sr + j * sc, x + rows.place[r] * xb + j * xc, sizeof(real))
        factors[real](self.t, kept, rows, scale)
        lanes = round_up(kept, self.k.lanes)
        if kept:
            if small:
                self.k.argmax_cols(kept, c, block, ldl, mx, rows.arg)
                deviations[real](self.t, kept, rows, block, sr, sc, mx)
                self.k.softmax_cols(mode, lanes, c, block, ldl, mx, scale, block, ldl, NULL, ls)
            else:
                self.k.argmax_rows(kept, c, block, ldl, mx, rows.arg)
                deviations[real](self.t, kept, rows, block, sr, sc, mx)
                self.k.softmax_rows(mode, kept, c, block, ldl, scale, block, ldl, NULL, ls)
            total = finish_losses[real](kept, rows, ls)
        if mode == SMX_PROB:
            subtract_targets[real](self.t, kept, rows, block, sr, sc)
            if kept == n:
                scatter[real](self.k, n, c, block, sr, sc, out, ob, oc)
            else:
                for r in range(n):
                    for j in range(c):
                        memcpy(out + r * ob + j * oc, &zero, sizeof(real))
                for r in range(kept):
                    for j in range(c):
                        memcpy(out + rows.place[r] * ob + j * oc, block + r * sr + j * sc,
                               sizeof(real))
        if kept != n:  # losses back to their rows, from the last to the first
            for r in range(kept, n):
                rows.loss[r] = 0
            for r in range(kept - 1, -1, -1):
                if rows.place[r] != r:
                    rows.loss[rows.place[r]] = rows.loss[r]
                    rows.loss[r] = 0
        return total


@cython.final
cdef class SmallCrossEntropy:
    """cross_entropy of the plainest arguments at the least cost: (loss, gradient or None).

    Returns None, having done nothing, unless logits are a native C-contiguous float32 or float64
    ndarray (N, C) of at most 4096 numbers and target labels one of int64 (N,), all of which are
    in [0, C) or ignored.
    """
    cdef str isa

    def __init__(self, str isa):
        self.isa = isa

    def __call__(self, object logits, object target, object reduction, object ignore_index,
                 object label_smoothing, bint with_grad):
        cdef cnp.ndarray x, y, g = None, losses = None
        cdef int kind
        cdef Target t
        if not (cnp.PyArray_CheckExact(logits) and cnp.PyArray_CheckExact(target)
                and type(ignore_index) is int and type(label_smoothing) is float
                and label_smoothing == 0 and reduction in ("mean", "sum", "none")):
            return None
        x, y = <cnp.ndarray>logits, <cnp.ndarray>target
        kind = cnp.PyArray_TYPE(x)
        if (not plain(x, 2) or not plain(y, 1) or cnp.PyArray_TYPE(y) != cnp.NPY_INT64
                or (kind != cnp.NPY_FLOAT32 and kind != cnp.NPY_FLOAT64)
                or x.shape[0] != y.shape[0] or cnp.PyArray_SIZE(x) > 4096
                or cnp.PyArray_SIZE(x) == 0):
            return None
        t = Target(y[None], True, x.shape[1], None, None, ignore_index, 0.0)
        kept, bad = t.scan()
        if bad >= 0:
            return None
        if reduction == "mean":
            t.total = kept
        elif reduction == "none":
            losses = cnp.PyArray_ZEROS(1, x.shape, kind, 0)
        if with_grad:
            g = cnp.PyArray_EMPTY(2, x.shape, kind, 0)
        loss, bad = CrossEntropy(
            self.isa, x[None], t, None if g is None else g[None], losses
        ).run(0, x.shape[0])
        if bad >= 0:  # a label has changed meanwhile
            return None
        if reduction == "mean":
            loss = loss / kept if kept else NAN
        return loss if losses is None else losses, g


# -------------------------------------------------------------------------- the linear layer

cdef enum Job:  # what a pass over X is for
    LINEAR, PROBA, PREDICT, LOSS, GRADIENT

# Up to this size W transposed stays whole; above, panels of classes are transposed as they come.
cdef idx RESIDENT_BYTES = 8 << 20
cdef idx PANEL_BYTES = 512 << 10


# Classes of a gradient that are turned at a time to be added to one in another layout.
cdef idx FLIPPED = 32

# By rows, so many classes of the gradient at a time are turned class-major: with 256 rows 272 KiB
# of float32, which stay in L2.
cdef idx TURNED = 256


@cython.final
cdef class Block:
    """Work arrays for one block of rows of a LinearPass."""
    cdef Scratch s
    cdef Rows rows
    cdef void *L
    cdef void *G
    cdef void *mx
    cdef void *ls
    cdef void *scale
    cdef void *xs           # copies of rows that the leaves cannot read as they are
    cdef void *dxs          # gradient of the rows
    cdef void *Wt           # one panel of W transposed
    cdef const void **xp    # where the rows are
    cdef const void **ahead  # where the next ones are
    cdef const void **wp    # where the rows of Wt are
    cdef const void **wr    # by rows: where the rows of W are
    cdef smx_ahead coming
    cdef idx ld, ldg

    def __cinit__(self, LinearPass p, idx n_dxs, bint own_Wt):
        cdef idx rb = p.row_block, c = p.c, size = p.size, ldw = p.ldw, r
        cdef idx panel_bytes = p.panel_bytes if own_Wt else 0, L_bytes, G_bytes = 0
        self.ldg = rb + (16 if c > 64 else 0)  # a stride of 1 KiB would meet 4 cache sets only
        self.ld = p.ldr if p.by_rows else self.ldg
        L_bytes = self.ld * (rb if p.by_rows else c) * size
        if p.by_rows and p.job == GRADIENT:
            G_bytes = self.ldg * min(c, TURNED) * size
        self.s = Scratch(L_bytes + G_bytes + rb * (ROWS_BYTES + 3 * size)
                         + (2 * (rb + 4) + p.panel + p.d) * <idx>sizeof(void *)
                         + (0 if p.direct else rb * ldw * size) + n_dxs * rb * ldw * size
                         + panel_bytes + 2048)
        self.L = self.s.take(L_bytes)
        self.G = self.s.take(G_bytes) if p.by_rows else self.L
        if not p.by_rows:  # rows up to a whole vector are computed with
            memset(self.L, 0, L_bytes)
        self.mx = self.s.take(rb * size)
        self.ls = self.s.take(rb * size)
        self.scale = self.s.take(rb * size)
        self.rows = take_rows(self.s, rb)
        self.xp = <const void **>self.s.take((rb + 4) * sizeof(void *))
        self.ahead = <const void **>self.s.take((rb + 4) * sizeof(void *))
        self.wp = <const void **>self.s.take(p.panel * sizeof(void *))
        self.wr = <const void **>self.s.take(p.d * sizeof(void *)) if own_Wt else p.wr
        self.xs = self.s.take(0 if p.direct else rb * ldw * size)
        self.dxs = self.s.take(n_dxs * rb * ldw * size)
        self.Wt = self.s.take(panel_bytes) if own_Wt else p.Wt
        for r in range(p.panel):
            self.wp[r] = <char *>self.Wt + r * ldw * size


cdef class LinearPass:
    """One pass over the rows of X, block by block, logits never whole.

    X: (N, D) float32, float64 or uint8, native, any strides. W: (D, C) of the compute type, any
    strides. b: (C,) contiguous or None. rows: contiguous int64 in [0, N), or None.
    out: (n, C) for LINEAR and PROBA, (n,) intp for PREDICT. For LOSS and GRADIENT: losses (n,) or
    None; dX (n, D) or None; both start as zeros and stay so where a row is ignored.
    """
    cdef cnp.ndarray X, W, b, rows, out, losses, dX
    cdef Scratch wt_scratch
    cdef Target t
    cdef smx_leaves *k
    cdef int job, x_code
    cdef bint f64, direct, by_rows, w_direct
    cdef public bint shared        # several threads take parts of this pass
    cdef public cnp.ndarray then   # rows of X that will be wanted after this pass, or None
    cdef readonly bint panelled
    cdef readonly idx row_block
    cdef idx n_rows, d, de, c, ldw, ldr, panel, n_panels, panel_bytes, size
    cdef double x_scale
    cdef void *Wt
    cdef const void **wr
    cdef const char *x_data
    cdef const char *w_data
    cdef idx xr, xc, wd, wc
    cdef const int64_t *pick

    def __init__(self, str isa, int job, cnp.ndarray X, cnp.ndarray W, cnp.ndarray b,
                 double x_scale, cnp.ndarray rows, Target target, cnp.ndarray out,
                 cnp.ndarray losses, cnp.ndarray dX):
        cdef idx w_bytes
        self.f64 = cnp.PyArray_TYPE(W) == cnp.NPY_FLOAT64
        self.k = leaves_of(isa, self.f64)
        self.job, self.x_scale = job, x_scale
        self.X, self.W, self.b, self.rows = X, W, b, rows
        self.t, self.out, self.losses, self.dX = target, out, losses, dX
        self.size = 8 if self.f64 else 4
        self.x_code = code_of(X)
        self.x_data, self.w_data = <const char *>cnp.PyArray_DATA(X), <const char *>cnp.PyArray_DATA(W)
        self.xr, self.xc = X.strides[0], X.strides[1]
        self.wd, self.wc = W.strides[0], W.strides[1]
        self.pick = NULL if rows is None else <const int64_t *>cnp.PyArray_DATA(rows)
        self.n_rows = X.shape[0] if rows is None else rows.shape[0]
        self.shared = False
        self.d, self.c = W.shape[0], W.shape[1]
        # Fewer features than lanes: rows are copied and padded with zeros to a full vector.
        self.de = max(self.d, self.k.lanes)
        self.ldw = odd_lines(round_up(self.de, self.k.lanes), self.size)
        self.by_rows = self.c >= self.k.rows_from
        self.ldr = odd_lines(self.c, self.size)
        self.direct = (self.d >= self.k.lanes and
                       ((self.x_code == (F64 if self.f64 else F32) and self.xc == self.size) or
                        (self.x_code == U8 and self.xc == 1 and self.c <= 32)))
        self.w_direct = self.wc == self.size and x_scale == 1
        w_bytes = self.c * self.ldw * self.size
        self.panelled = w_bytes > RESIDENT_BYTES
        self.n_panels = 1
        if self.panelled:  # by rows, none narrower than a vector
            self.n_panels = max(1, min(w_bytes // PANEL_BYTES + 1,
                                       self.c // self.k.lanes if self.by_rows else self.c))
        self.panel = (self.c + self.n_panels - 1) // self.n_panels
        self.panel_bytes = max(self.panel * self.ldw,
                               self.d * odd_lines(self.panel, self.size)) * self.size
        self.row_block = (self.k.row_block if self.c <= 64 else
                          128 if self.c <= 256 and not self.by_rows else 256)
        if not self.panelled:
            self.keep_W(dX is not None)

    cdef keep_W(self, bint turned):
        """W whole: transposed, if `turned` or class-major, and by rows."""
        cdef idx w_bytes = self.c * self.ldw * self.size if turned or not self.by_rows else 0
        cdef idx r_bytes = self.d * self.ldr * self.size
        if not self.by_rows or self.w_direct:
            r_bytes = 0
        self.wt_scratch = Scratch(w_bytes + r_bytes + (self.d + 8) * sizeof(void *))
        self.Wt = self.wt_scratch.take(w_bytes)
        self.wr = <const void **>self.wt_scratch.take(self.d * sizeof(void *))
        cdef void *whole = self.wt_scratch.take(r_bytes)
        with nogil:
            if self.f64:
                if w_bytes:
                    self.pack[double](0, self.c, <double *>self.Wt)
                if self.by_rows:
                    self.rows_of_W[double](0, self.c, <double *>whole, self.wr)
            else:
                if w_bytes:
                    self.pack[float](0, self.c, <float *>self.Wt)
                if self.by_rows:
                    self.rows_of_W[float](0, self.c, <float *>whole, self.wr)

    cdef idx first_of(self, idx panel) noexcept nogil:
        """The first class of a panel."""
        return panel * self.c // self.n_panels

    cdef void rows_of_W(self, idx c0, idx c1, real *to, const void **wr) noexcept nogil:
        """wr = where the rows of x_scale * W[:, c0:c1] are: in W itself if they can be."""
        cdef idx i, j, ld = odd_lines(c1 - c0, sizeof(real))
        cdef real s = <real>self.x_scale
        cdef const char *w = self.w_data + c0 * self.wc
        if self.w_direct:
            for j in range(self.d):
                wr[j] = w + j * self.wd
            return
        gather[real](self.k, self.d, c1 - c0, w, self.wd, self.wc, to, ld, 1)
        for j in range(self.d):
            wr[j] = to + j * ld
            if s != 1:
                for i in range(c1 - c0):
                    to[j * ld + i] *= s

    cdef void pack(self, idx c0, idx c1, real *Wt) noexcept nogil:
        """Wt[c - c0] = x_scale * W[:, c], zeros behind."""
        cdef idx c, j
        cdef real s = <real>self.x_scale
        gather[real](self.k, self.d, c1 - c0, self.w_data + c0 * self.wc, self.wd, self.wc,
                     Wt, 1, self.ldw)
        for c in range(c1 - c0):
            for j in range(self.d, self.ldw):
                Wt[c * self.ldw + j] = 0
            if self.x_scale != 1:
                for j in range(self.d):
                    Wt[c * self.ldw + j] *= s

    def run(self, idx lo, idx hi, Accumulator acc=None):
        """Rows lo to hi of the selection, the gradients added to acc.

        Returns (loss sum, n_correct, position of a bad label or -1).
        """
        if self.f64:
            return self._run[double](lo, hi, acc, NULL)
        return self._run[float](lo, hi, acc, NULL)

    cdef _run(self, idx lo, idx hi, Accumulator acc, real *tag):
        cdef Block w = Block(self, self.dX is not None, self.panelled)
        cdef idx c = self.c, at = lo, n, p, c0, c1, bad = -1, n_correct = 0
        # Where nobody else does what comes after hi, its first rows are fetched too.
        cdef idx end = hi if self.shared else self.n_rows
        cdef real *L = <real *>w.L
        cdef real *losses = NULL if self.losses is None else <real *>cnp.PyArray_DATA(self.losses)
        cdef double total = 0
        cdef smx_ahead *ahead
        with nogil:
            while at < hi and bad < 0:
                n = self.next_block(&at, hi, &w.rows, &bad)
                if bad >= 0 or n == 0:
                    continue
                self.point[real](n, &w.rows, w.xp, <real *>w.xs)
                ahead = self.look_ahead(at, end, w)
                for p in range(self.n_panels):
                    c0, c1 = self.first_of(p), self.first_of(p + 1)
                    if self.panelled:
                        self.take_panel[real](c0, c1, <real *>w.Wt, w.wr)
                    self.logits_of[real](n, c0, c1, w.xp, <real *>w.Wt, w.wr, L, w.ld, ahead)
                if self.job < LOSS:
                    self.emit[real](at - n, n, L, w.ld, <real *>w.mx, &w.rows)
                    continue
                total += self.losses_of[real](n, w.rows, L, w.ld, <real *>w.mx, <real *>w.ls,
                                              <real *>w.scale, losses)
                n_correct += count_correct(self.t, n, &w.rows)
                if self.job == GRADIENT:
                    self.add_outer[real](n, 0, c, L, w.ld, <real *>w.G, w.ldg, w.xp, acc.db,
                                         <real *>acc.at, ahead)
                    if self.dX is not None:
                        memset(w.dxs, 0, n * self.ldw * sizeof(real))
                        self.k.outer(n, c, self.de, L, w.ld if self.by_rows else 1,
                                     1 if self.by_rows else w.ld, w.wp, w.dxs, self.ldw, NULL)
                        self.emit_dX[real](n, &w.rows, <real *>w.dxs)
        return total, n_correct, bad

    cdef idx next_block(self, idx *at, idx hi, Rows *rows, idx *bad) noexcept nogil:
        """Up to row_block rows that are not ignored, from *at on, with their labels."""
        cdef idx n = 0, i
        cdef int64_t y
        while n < self.row_block and at[0] < hi:
            i = at[0] if self.pick == NULL else self.pick[at[0]]
            rows.a[n], rows.b[n], rows.place[n] = i, 0, at[0]
            if self.job >= LOSS and self.t.hard:
                y = self.t.label(i, 0)
                if not self.t.ignored(y):
                    if y < 0 or y >= self.c:
                        bad[0] = at[0]
                        return 0
                    rows.label[n] = y
                    n += 1
            else:
                n += 1
            at[0] += 1
        return n

    cdef void point(self, idx n, const Rows *rows, const void **xp, real *xs) noexcept nogil:
        """xp = where the block's rows are, the last repeated up to a multiple of 4; rows that the
        leaves cannot read as they are go to xs first."""
        cdef idx r, j, ldw = self.ldw, d = self.d
        cdef const char *x
        for r in range(n):
            xp[r] = self.x_data + rows.a[r] * self.xr
        if not self.direct:
            if self.x_code == U8 and self.xc == 1:
                self.k.widen_u8(n, d, xp, xs, ldw)
            elif self.x_code == (F64 if sizeof(real) == 8 else F32):
                if self.pick == NULL and rows.place[n - 1] - rows.place[0] == n - 1:
                    gather[real](self.k, n, d, <const char *>xp[0], self.xr, self.xc, xs, ldw, 1)
                else:
                    for r in range(n):
                        gather[real](self.k, 1, d, <const char *>xp[r], self.xr, self.xc,
                                     xs + r * ldw, ldw, 1)
            else:
                for r in range(n):
                    x = <const char *>xp[r]
                    for j in range(d):
                        xs[r * ldw + j] = <real>load_real(x + j * self.xc, self.x_code)
            for r in range(n):
                for j in range(d, self.de):
                    xs[r * ldw + j] = 0
                xp[r] = xs + r * ldw
        for r in range(n, round_up(n, 4)):
            xp[r] = xp[n - 1]

    cdef smx_ahead *look_ahead(self, idx at, idx hi, Block w) noexcept nogil:
        """The rows of the next block (some may turn out to be ignored), for fetching ahead; after the
        last block those of the next pass, if they are known."""
        cdef const int64_t *pick = self.pick
        cdef idx r, i
        if at >= self.n_rows and self.then is not None:
            pick = <const int64_t *>cnp.PyArray_DATA(self.then)
            at, hi = 0, self.then.shape[0]
        if not self.direct or at >= hi:
            return NULL
        w.coming.n = min(self.row_block, hi - at)
        for r in range(w.coming.n):
            i = at + r if pick == NULL else pick[at + r]
            w.ahead[r] = self.x_data + i * self.xr
        w.coming.rows = w.ahead
        w.coming.bytes = self.d * (1 if self.x_code == U8 else self.size)
        w.coming.row, w.coming.at = 0, NULL
        w.coming.calls = self.n_panels
        if self.job == GRADIENT:
            w.coming.calls += (self.c + TURNED - 1) // TURNED if self.by_rows else 1
        return &w.coming

    cdef void take_panel(self, idx c0, idx c1, real *Wt, const void **wr) noexcept nogil:
        """What logits_of wants of the classes c0 to c1, in Wt (where the rows can stay in W, in wr
        only)."""
        if self.by_rows:
            self.rows_of_W[real](c0, c1, Wt, wr)
        else:
            self.pack[real](c0, c1, Wt)

    cdef void logits_of(self, idx n, idx c0, idx c1, const void **xp, const real *Wt,
                        const void **wr, real *L, idx ld, smx_ahead *ahead) noexcept nogil:
        """Logits of the classes c0 to c1."""
        cdef const real *b = NULL if self.b is None else <const real *>cnp.PyArray_DATA(self.b) + c0
        if self.by_rows:
            self.k.logits_rows(n, self.d, c1 - c0, xp, wr, b, L + c0, ld, ahead)
        elif self.direct and self.x_code == U8:
            self.k.logits_u8(round_up(n, 4), self.de, c1 - c0, xp, Wt, self.ldw, b, L + c0 * ld,
                             ld, ahead)
        else:
            self.k.logits(round_up(n, 4), self.de, c1 - c0, xp, Wt, self.ldw, b, L + c0 * ld,
                          ld, ahead)

    cdef double losses_of(self, idx n, Rows all_rows, real *L, idx ld, real *mx, real *ls,
                          real *scale, real *losses) noexcept nogil:
        """The rows' losses, summed and (if wanted) one by one; L becomes the gradient if one is
        wanted."""
        cdef Rows *rows = &all_rows
        cdef double total
        cdef idx r, padded = round_up(n, self.k.lanes)
        cdef idx sr = ld if self.by_rows else 1, sc = 1 if self.by_rows else ld
        cdef int mode = SMX_PROB if self.job == GRADIENT else SMX_STATS
        if self.by_rows:
            self.k.argmax_rows(n, self.c, L, ld, mx, rows.arg)
        else:
            self.k.argmax_cols(n, self.c, L, ld, mx, rows.arg)
        factors[real](self.t, n, rows, scale)
        deviations[real](self.t, n, rows, L, sr, sc, mx)
        if self.by_rows:
            self.k.softmax_rows(mode, n, self.c, L, ld, scale, L, ld, NULL, ls)
        else:
            self.k.softmax_cols(mode, padded, self.c, L, ld, mx, scale, L, ld, NULL, ls)
        if self.job == GRADIENT:
            subtract_targets[real](self.t, n, rows, L, sr, sc)
        total = finish_losses[real](n, rows, ls)
        if losses != NULL:
            for r in range(n):
                losses[rows.place[r]] = <real>rows.loss[r]
        return total

    cdef void add_outer(self, idx n, idx c0, idx c1, real *L, idx ld, real *G, idx ldg,
                        const void **xp, double *db, real *acc, smx_ahead *ahead) noexcept nogil:
        """acc (c1 - c0, ldw), and db unless NULL, += the block's gradient of W and b, for the
        classes c0 to c1."""
        cdef idx c = c0, m, step = TURNED if self.by_rows else c1 - c0
        cdef real *g = G
        while c < c1:
            m = min(step, c1 - c)
            if self.by_rows:
                self.k.transpose(n, m, L + c, ld, G, ldg)
            else:
                g = L + c * ld
            if db != NULL:
                self.k.add_sums(n, m, g, ldg, db + c)
            if self.direct and self.x_code == U8:
                self.k.outer_u8(m, n, self.de, g, ldg, 1, xp, acc, self.ldw, ahead)
            else:
                self.k.outer(m, n, self.de, g, ldg, 1, xp, acc, self.ldw, ahead)
            acc += m * self.ldw
            c += m

    cdef void flip(self, idx c, real *acc, char *dW, idx sd, idx sc) noexcept nogil:
        """dW[:, :c] = x_scale * acc.T"""
        cdef idx i
        if self.x_scale != 1:
            for i in range(c * self.ldw):
                acc[i] *= <real>self.x_scale
        scatter[real](self.k, self.d, c, acc, 1, self.ldw, dW, sd, sc)

    cdef void add_panel(self, idx c0, idx c1, real *tile, real *flipped,
                        cnp.ndarray dW) noexcept nogil:
        """dW[:, c0:c1] += x_scale * tile.T"""
        cdef idx c = c1 - c0, j, i, size = sizeof(real)
        cdef idx sd = cnp.PyArray_STRIDES(dW)[0], sc = cnp.PyArray_STRIDES(dW)[1]
        cdef char *out = <char *>cnp.PyArray_DATA(dW) + c0 * sc
        if sd == size:  # class-major already
            self.flip[real](c, tile, <char *>flipped, size, self.d * size)
            for j in range(c):
                for i in range(self.d):
                    (<real *>(out + j * sc))[i] += flipped[j * self.d + i]
        else:
            self.flip[real](c, tile, <char *>flipped, c * size, size)
            for i in range(self.d):
                if sc == size:
                    for j in range(c):
                        (<real *>(out + i * sd))[j] += flipped[i * c + j]
                else:
                    for j in range(c):
                        (<real *>(out + i * sd + j * sc))[0] += flipped[i * c + j]

    cdef void emit(self, idx lo, idx n, real *L, idx ld, real *mx, Rows *rows) noexcept nogil:
        """The block's logits, probabilities or predictions to out[lo : lo + n]."""
        cdef char *out = <char *>cnp.PyArray_DATA(self.out)
        cdef idx r, so = cnp.PyArray_STRIDES(self.out)[0], padded = round_up(n, self.k.lanes)
        if self.job == PREDICT:
            if self.by_rows:
                self.k.argmax_rows(n, self.c, L, ld, mx, rows.arg)
            else:
                self.k.argmax_cols(n, self.c, L, ld, mx, rows.arg)
            for r in range(n):
                (<idx *>(out + (lo + r) * so))[0] = rows.arg[r]
            return
        if self.job == PROBA and self.by_rows:
            self.k.softmax_rows(SMX_PROB, n, self.c, L, ld, NULL, L, ld, NULL, NULL)
        elif self.job == PROBA:
            self.k.softmax_cols(SMX_PROB, padded, self.c, L, ld, NULL, NULL, L, ld, NULL, NULL)
        scatter[real](self.k, n, self.c, L, ld if self.by_rows else 1, 1 if self.by_rows else ld,
                      out + lo * so, so, cnp.PyArray_STRIDES(self.out)[1])

    cdef void emit_dX(self, idx n, const Rows *rows, const real *dxs) noexcept nogil:
        cdef idx r, sr = cnp.PyArray_STRIDES(self.dX)[0], sc = cnp.PyArray_STRIDES(self.dX)[1]
        for r in range(n):
            scatter[real](self.k, 1, self.d, dxs + r * self.ldw, self.ldw, 1,
                          <char *>cnp.PyArray_DATA(self.dX) + rows.place[r] * sr, sr, sc)

    def finish(self, Accumulator acc, cnp.ndarray dW, cnp.ndarray db):
        """dW and db from an accumulator, whose sums are used up."""
        cdef char *out = <char *>cnp.PyArray_DATA(dW)
        with nogil:
            if self.f64:
                self.flip[double](self.c, <double *>acc.at, out, cnp.PyArray_STRIDES(dW)[0],
                                  cnp.PyArray_STRIDES(dW)[1])
            else:
                self.flip[float](self.c, <float *>acc.at, out, cnp.PyArray_STRIDES(dW)[0],
                                 cnp.PyArray_STRIDES(dW)[1])
        if db is not None:
            self.finish_db(acc, db)

    def add_to(self, Accumulator acc, cnp.ndarray dW):
        """dW += the gradient of W in an accumulator, whose sums are used up."""
        cdef Scratch s = Scratch(FLIPPED * self.d * self.size)
        cdef idx c0 = 0, c1
        with nogil:
            while c0 < self.c:
                c1 = min(c0 + FLIPPED, self.c)
                if self.f64:
                    self.add_panel[double](c0, c1, <double *>acc.at + c0 * self.ldw,
                                           <double *>s.at, dW)
                else:
                    self.add_panel[float](c0, c1, <float *>acc.at + c0 * self.ldw,
                                          <float *>s.at, dW)
                c0 = c1

    def finish_db(self, Accumulator acc, cnp.ndarray db):
        """db from an accumulator."""
        cdef idx j
        for j in range(self.c):
            if self.f64:
                (<double *>cnp.PyArray_GETPTR1(db, j))[0] = acc.db[j]
            else:
                (<float *>cnp.PyArray_GETPTR1(db, j))[0] = <float>acc.db[j]


@cython.final
cdef class SmallForward:
    """linear, predict_proba or predict of a few rows and the plainest arguments at the least cost.

    Returns None, having done nothing, unless X, W and b are native C-contiguous ndarrays of one
    floating type (X may be uint8), X has at most 4 rows, and W at most 64 classes.
    """
    cdef smx_leaves *f32
    cdef smx_leaves *f64

    def __init__(self, str isa):
        self.f32, self.f64 = leaves_of(isa, False), leaves_of(isa, True)

    def __call__(self, int job, object X, object W, object b, object x_scale):
        cdef cnp.ndarray x, w, bias = None, out
        cdef double scale
        cdef cnp.npy_intp[2] shape
        cdef int kind
        if not (cnp.PyArray_CheckExact(X) and cnp.PyArray_CheckExact(W)
                and type(x_scale) is float):
            return None
        scale = x_scale
        x, w = <cnp.ndarray>X, <cnp.ndarray>W
        kind = cnp.PyArray_TYPE(w)
        if (not plain(x, 2) or not plain(w, 2)
                or (kind != cnp.NPY_FLOAT32 and kind != cnp.NPY_FLOAT64)
                or (cnp.PyArray_TYPE(x) != kind and cnp.PyArray_TYPE(x) != cnp.NPY_UINT8)
                or x.shape[0] > 4 or x.shape[0] == 0 or w.shape[1] > 64 or w.shape[1] == 0
                or x.shape[1] != w.shape[0] or not scale - scale == 0):
            return None
        if not plain_bias(b, kind, w.shape[1]):
            return None
        bias = b
        shape[0], shape[1] = x.shape[0], w.shape[1]
        if job == PREDICT:
            out = cnp.PyArray_EMPTY(1, shape, cnp.NPY_INTP, 0)
        else:
            out = cnp.PyArray_EMPTY(2, shape, kind, 0)
        if kind == cnp.NPY_FLOAT32:
            small_forward[float](self.f32, job, x, w, bias, scale, out, NULL)
        else:
            small_forward[double](self.f64, job, x, w, bias, scale, out, NULL)
        return out


cdef inline bint plain(cnp.ndarray a, int ndim) noexcept:
    """Whether an array is C-contiguous, aligned and native."""
    return cnp.PyArray_NDIM(a) == ndim and cnp.PyArray_ISCARRAY_RO(a)


cdef inline bint plain_bias(object b, int kind, idx c):
    return b is None or (
        cnp.PyArray_CheckExact(b) and plain(<cnp.ndarray>b, 1)
        and cnp.PyArray_TYPE(<cnp.ndarray>b) == kind and (<cnp.ndarray>b).shape[0] == c)


cdef void small_forward(smx_leaves *k, int job, cnp.ndarray x, cnp.ndarray w, cnp.ndarray bias,
                        double scale, cnp.ndarray out, real *tag) noexcept:
    # 64 classes of rows that fill up to SMX_MOST_BYTES, and the maxima.
    cdef double block[64 * 8 + 24]
    cdef real *L = <real *>block
    cdef real *mx = <real *>(block + 512)
    cdef int32_t arg[16]
    cdef idx n = x.shape[0], d = x.shape[1], c = w.shape[1], ldl = max(k.lanes, 4), r
    memset(block, 0, sizeof(block))
    k.logits_few(cnp.PyArray_TYPE(x) == cnp.NPY_UINT8, n, d, c, cnp.PyArray_DATA(x), d,
                 cnp.PyArray_DATA(w), scale, NULL if bias is None else cnp.PyArray_DATA(bias),
                 L, ldl)
    if job == PREDICT:
        k.argmax_cols(n, c, L, ldl, mx, arg)
        for r in range(n):
            (<idx *>cnp.PyArray_DATA(out))[r] = arg[r]
        return
    if job == PROBA:
        k.softmax_cols(SMX_PROB, ldl, c, L, ldl, NULL, NULL, L, ldl, NULL, NULL)
    k.transpose(c, n, L, ldl, cnp.PyArray_DATA(out), c)


@cython.final
cdef class Accumulator:
    """Sums of gradients over a range of rows: of W (class-major) and of b (float64)."""
    cdef Scratch scratch
    cdef char *at
    cdef double *db
    cdef idx n, c
    cdef bint f64

    def __init__(self, LinearPass job, bint with_dW, bint with_db):
        self.n = job.c * job.ldw if with_dW else 0
        self.c, self.f64 = job.c, job.f64
        self.scratch = Scratch(self.n * job.size + (self.c * 8 if with_db else 0) + 128)
        self.at = <char *>self.scratch.take(self.n * job.size)
        self.db = <double *>self.scratch.take(self.c * 8) if with_db else NULL
        memset(self.at, 0, self.n * job.size)
        if with_db:
            memset(self.db, 0, self.c * 8)

    def add(self, Accumulator other):
        """Add the sums of the rows that follow."""
        cdef idx i
        with nogil:
            if self.f64:
                for i in range(self.n):
                    (<double *>self.at)[i] += (<double *>other.at)[i]
            else:
                for i in range(self.n):
                    (<float *>self.at)[i] += (<float *>other.at)[i]
            if self.db != NULL:
                for i in range(self.c):
                    self.db[i] += other.db[i]


@cython.final
cdef class SmallGradient:
    """linear_cross_entropy_with_grad of a minibatch and the plainest arguments at the least cost.

    Returns None, having done nothing that counts, unless X, W and b are native C-contiguous ndarrays
    of one floating type (X may be uint8), target and rows such arrays of integers and of int64, with
    1 to 1024 rows whose labels and indices are right, and `out` is None or a tuple (or an earlier
    result) whose arrays for W and b fit in the same way and overlap nothing.
    """
    cdef str isa
    cdef type result

    def __init__(self, str isa, type result):
        self.isa, self.result = isa, result

    def __call__(self, object X, object W, object b, object target, object ignore_index,
                 object label_smoothing, object reduction, object x_scale, object rows, object out):
        cdef cnp.ndarray x, w, y, picked, bias = None, dW = None, db = None
        cdef int kind
        cdef Target t
        cdef LinearPass p
        cdef Accumulator acc
        cdef double total
        cdef idx bad
        if not (cnp.PyArray_CheckExact(rows) and cnp.PyArray_CheckExact(X)
                and cnp.PyArray_CheckExact(W) and cnp.PyArray_CheckExact(target)
                and type(ignore_index) is int and type(label_smoothing) is float
                and label_smoothing == 0 and type(x_scale) is float and x_scale - x_scale == 0
                and (reduction == "mean" or reduction == "sum")):
            return None
        x, w, y, picked = <cnp.ndarray>X, <cnp.ndarray>W, <cnp.ndarray>target, <cnp.ndarray>rows
        kind = cnp.PyArray_TYPE(w)
        if (not plain(x, 2) or not plain(w, 2) or not plain(y, 1) or not plain(picked, 1)
                or (kind != cnp.NPY_FLOAT32 and kind != cnp.NPY_FLOAT64)
                or (cnp.PyArray_TYPE(x) != kind and cnp.PyArray_TYPE(x) != cnp.NPY_UINT8)
                or not cnp.PyArray_ISINTEGER(y) or cnp.PyArray_TYPE(picked) != cnp.NPY_INT64
                or x.shape[1] != w.shape[0] or x.shape[0] != y.shape[0] or w.shape[1] == 0
                or not 1 <= picked.shape[0] <= 1024):
            return None
        if not plain_bias(b, kind, w.shape[1]):
            return None
        bias = b
        if out is None:
            dW = cnp.PyArray_EMPTY(2, w.shape, kind, 0)
            db = None if bias is None else cnp.PyArray_EMPTY(1, bias.shape, kind, 0)
        else:
            if type(out) is self.result:
                out = out[1:3]
            if (type(out) is not tuple or len(out) != 2
                    or not fits(out[0], w) or (bias is None) != (out[1] is None)
                    or (bias is not None and not fits(out[1], bias))
                    or overlap(out[0], x, w, y)):
                return None
            dW, db = out
            if bias is not None and (overlap(dW, bias, db) or overlap(db, x, w, y, bias)):
                return None
        picked = cnp.PyArray_NewCopy(picked, cnp.NPY_CORDER)
        if wrap_rows(picked, x.shape[0]) >= 0:
            return None
        t = Target(y.reshape(-1, 1), True, w.shape[1], None, None, ignore_index, 0.0)
        total, bad = t.scan(picked)
        if bad >= 0:
            return None
        if reduction == "mean":
            t.total = total
        p = LinearPass(self.isa, GRADIENT, x, w, bias, x_scale, picked, t, None, None, None)
        if p.panelled:
            return None
        p.then = following(rows, x.shape[0])
        acc = Accumulator(p, True, bias is not None)
        loss, n_correct, bad = p.run(0, picked.shape[0], acc)
        if bad >= 0:  # a label has changed meanwhile
            return None
        p.finish(acc, dW, db)
        if reduction == "mean":
            loss = loss / total if total != 0 else NAN
        return self.result(loss, dW, db, None, total, n_correct)


cdef bint fits(object given, cnp.ndarray like) except -1:
    """Whether a result can go there: an array of the same type, shape and layout."""
    cdef cnp.ndarray a
    cdef idx i
    if not cnp.PyArray_CheckExact(given):
        return False
    a = <cnp.ndarray>given
    if (not plain(a, cnp.PyArray_NDIM(like)) or cnp.PyArray_TYPE(a) != cnp.PyArray_TYPE(like)
            or not cnp.PyArray_ISWRITEABLE(a)):
        return False
    for i in range(cnp.PyArray_NDIM(like)):
        if cnp.PyArray_DIMS(a)[i] != cnp.PyArray_DIMS(like)[i]:
            return False
    return True


@cython.final
cdef class PanelGradient:
    """The gradient pass where W is too large to keep transposed: classes in panels.

    A block of rows goes through three steps, each of which may run on several threads: logits by
    groups of panels, losses by strips of rows, gradients by groups again. Groups and strips are
    set by the shape, and a gradient of W has one group only: the same bits on any number of
    threads. dW starts as zeros.
    """
    cdef LinearPass p
    cdef Block w
    cdef Accumulator acc
    cdef cnp.ndarray dW
    cdef idx at, hi, n
    cdef readonly idx n_groups, bad

    def __init__(self, LinearPass p, cnp.ndarray dW, bint with_db):
        self.p, self.dW = p, dW
        self.n_groups = min(8, p.n_panels)
        self.w = Block(p, self.n_groups if p.dX is not None else 0, False)
        self.acc = Accumulator(p, False, with_db)
        self.at, self.bad = 0, -1
        self.hi = p.n_rows

    def next_block(self):
        """Take the next block; False when there is none (or a label is bad: see `bad`)."""
        self.n = 0
        while self.n == 0 and self.at < self.hi and self.bad < 0:
            self.n = self.p.next_block(&self.at, self.hi, &self.w.rows, &self.bad)
        if self.n == 0 or self.bad >= 0:
            return False
        if self.p.f64:
            self.p.point[double](self.n, &self.w.rows, self.w.xp, <double *>self.w.xs)
        else:
            self.p.point[float](self.n, &self.w.rows, self.w.xp, <float *>self.w.xs)
        return True

    @property
    def n_strips(self):
        return (self.n + 63) // 64

    def logits(self, idx group):
        if self.p.f64:
            self._logits[double](group, NULL)
        else:
            self._logits[float](group, NULL)

    cdef _logits(self, idx group, real *tag):
        cdef LinearPass p = self.p
        cdef Scratch s = Scratch(p.panel_bytes + (p.d + 8) * sizeof(void *))
        cdef real *Wt = <real *>s.take(p.panel_bytes)
        cdef const void **wr = <const void **>s.take(p.d * sizeof(void *))
        cdef idx i, c0, c1
        with nogil:
            for i in range(group * p.n_panels // self.n_groups,
                           (group + 1) * p.n_panels // self.n_groups):
                c0, c1 = p.first_of(i), p.first_of(i + 1)
                p.take_panel[real](c0, c1, Wt, wr)
                p.logits_of[real](self.n, c0, c1, self.w.xp, Wt, wr, <real *>self.w.L, self.w.ld,
                                  NULL)

    def losses(self, idx strip):
        """Loss sum and number of correct rows of a strip of 64 rows; logits become gradients."""
        if self.p.f64:
            return self._losses[double](strip, NULL)
        return self._losses[float](strip, NULL)

    cdef _losses(self, idx strip, real *tag):
        cdef idx r = strip * 64, n = min(self.n - r, 64), n_correct
        cdef Rows rows = later_rows(self.w.rows, r)
        cdef double total
        cdef LinearPass p = self.p
        cdef real *losses = NULL if p.losses is None else <real *>cnp.PyArray_DATA(p.losses)
        cdef real *L = <real *>self.w.L + r * (self.w.ld if p.by_rows else 1)
        with nogil:
            total = p.losses_of[real](n, rows, L, self.w.ld,
                                      <real *>self.w.mx + r, <real *>self.w.ls + r,
                                      <real *>self.w.scale + r, losses)
            n_correct = count_correct(p.t, n, &rows)
        return total, n_correct

    def gradients(self, idx group):
        if self.p.f64:
            self._gradients[double](group, NULL)
        else:
            self._gradients[float](group, NULL)

    cdef _gradients(self, idx group, real *tag):
        cdef LinearPass p = self.p
        cdef idx G_bytes = self.w.ldg * min(p.panel, TURNED) * sizeof(real) if p.by_rows else 0
        cdef Scratch s = Scratch(3 * p.panel_bytes + G_bytes + p.panel * sizeof(void *) + 320)
        cdef real *Wt = <real *>s.take(p.panel_bytes)
        cdef real *tile = <real *>s.take(p.panel_bytes)
        cdef real *flipped = <real *>s.take(p.panel_bytes)
        cdef real *G = <real *>s.take(G_bytes)
        cdef const void **wp = <const void **>s.take(p.panel * sizeof(void *))
        cdef real *L = <real *>self.w.L
        cdef idx i, j, c0, c1, n = self.n, ld = self.w.ld
        cdef bint dx = p.dX is not None
        cdef real *dxs = <real *>self.w.dxs + (group * p.row_block * p.ldw if dx else 0)
        for j in range(p.panel):
            wp[j] = Wt + j * p.ldw
        with nogil:
            if dx:
                memset(dxs, 0, n * p.ldw * sizeof(real))
            for i in range(group * p.n_panels // self.n_groups,
                           (group + 1) * p.n_panels // self.n_groups):
                c0, c1 = p.first_of(i), p.first_of(i + 1)
                if dx:
                    p.pack[real](c0, c1, Wt)
                    p.k.outer(n, c1 - c0, p.de, L + c0 * (1 if p.by_rows else ld),
                              ld if p.by_rows else 1, 1 if p.by_rows else ld, wp, dxs, p.ldw, NULL)
                memset(tile, 0, (c1 - c0) * p.ldw * sizeof(real))
                p.add_outer[real](n, c0, c1, L, ld, G, self.w.ldg, self.w.xp, self.acc.db, tile,
                                  NULL)
                p.add_panel[real](c0, c1, tile, flipped, self.dW)

    def finish_block(self):
        """The block's part of dX: the groups' sums added in order."""
        if self.p.dX is not None:
            if self.p.f64:
                self._finish_block[double](NULL)
            else:
                self._finish_block[float](NULL)

    cdef _finish_block(self, real *tag):
        cdef real *dxs = <real *>self.w.dxs
        cdef idx g, i, size = self.p.row_block * self.p.ldw, used = self.n * self.p.ldw
        with nogil:
            for g in range(1, self.n_groups):
                for i in range(used):
                    dxs[i] += dxs[g * size + i]
            self.p.emit_dX[real](self.n, &self.w.rows, dxs)

    def finish(self, cnp.ndarray db):
        """db, after the last block."""
        if db is not None:
            self.p.finish_db(self.acc, db)


cdef Rows later_rows(Rows r, idx i) noexcept:
    """The same work arrays from row i on."""
    r.a += i
    r.b += i
    r.place += i
    r.label += i
    r.pick += i
    r.smooth += i
    r.sum += i
    r.loss += i
    r.arg += i
    return r


# ------------------------------------------------------------- what the machine allows at most


def run_arithmetic(str isa, bint f64, idx steps):
    """Multiply and add in registers, `steps` times; the operations that this was."""
    cdef smx_leaves *leaf = leaves_of(isa, f64)
    with nogil:
        leaf.ceiling_arithmetic(steps)
    return steps * leaf.ceiling_flops


def run_memory(str isa, cnp.ndarray src, cnp.ndarray to, idx repeats):
    """Read a contiguous array, or copy it to another (None: only read), so many times."""
    cdef smx_leaves *leaf = leaves_of(isa, False)
    cdef idx i, n = cnp.PyArray_NBYTES(src)
    cdef bint copied = to is not None
    with nogil:
        for i in range(repeats):
            if copied:
                memcpy(cnp.PyArray_DATA(to), cnp.PyArray_DATA(src), n)
            else:
                leaf.ceiling_read(n // 4, cnp.PyArray_DATA(src))


include "_sparse.pxi"
