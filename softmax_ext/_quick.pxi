# The public kernels on small plain arguments, at the least cost. Each says None, having done nothing
# that counts, unless it is sure of its arguments.

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
        if reduction == "none":
            losses = cnp.PyArray_ZEROS(1, x.shape, kind, 0)
        if with_grad:
            g = cnp.PyArray_EMPTY(2, x.shape, kind, 0)
        loss, bad = CrossEntropy(
            self.isa, x[None], t, kept if reduction == "mean" else 1,
            None if g is None else g[None], losses
        ).run(x.shape[0], 1)
        if bad >= 0:  # a label has changed meanwhile
            return None
        if reduction == "mean":
            loss = loss / kept if kept else NAN
        return loss if losses is None else losses, g

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
                 object label_smoothing, object reduction, object x_scale, object rows, object out,
                 int threads):
        cdef cnp.ndarray x, w, y, picked, bias = None, dW = None, db = None
        cdef int kind
        cdef Target t
        cdef LinearPass p
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
        p = LinearPass(self.isa, GRADIENT, Examples(x, x_scale, t), w, bias, picked,
                       total if reduction == "mean" else 1)
        if p.panelled:
            return None
        p.next_rows = following(rows, x.shape[0])
        (loss,), (n_correct,), bad, _ = p.run_gradient(threads, None, dW, db, None)
        if bad >= 0:  # a label has changed meanwhile
            return None
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
