# The public kernels on small plain arguments, at the least cost.

cdef cnp.ndarray DOUBLE = np.zeros(())

cdef int FLOATING = -1  # float32 or float64
cdef int INTEGER = -2

cdef inline bint passes(object given, int ndim, int kind) noexcept:
    """The gate: whether a driver can take it as it is, so that nothing needs to be converted.

    An ndarray, and of no subclass, C-contiguous, aligned and native, of so many axes and of a
    NumPy type or one of the two above.
    """
    cdef cnp.ndarray a
    cdef int found
    if not cnp.PyArray_CheckExact(given):
        return False
    a = <cnp.ndarray>given
    found = cnp.PyArray_TYPE(a)
    return plain(a, ndim) and (
        found == kind
        or (kind == FLOATING and (found == cnp.NPY_FLOAT32 or found == cnp.NPY_FLOAT64))
        or (kind == INTEGER and cnp.PyArray_ISINTEGER(a)))


cdef inline int gate_of_X(object X, int kind) except -2:
    """The smx_type of an X (N, D) that comes through the gate, for computing in `kind`; or -1."""
    if passes(X, 2, kind):
        return SMX_REAL
    if passes(X, 2, cnp.NPY_UINT8):
        return SMX_U8
    if passes(X, 2, cnp.NPY_FLOAT16):
        return SMX_F16
    if (cnp.PyArray_CheckExact(X) and cnp.PyTypeNum_ISUSERDEF(cnp.PyArray_TYPE(<cnp.ndarray>X))
            and plain(<cnp.ndarray>X, 2) and code_of(<cnp.ndarray>X) == BF16):
        return SMX_BF16
    return -1


cdef inline bint passes_bias(object b, int kind, idx c) noexcept:
    return b is None or (passes(b, 1, kind) and (<cnp.ndarray>b).shape[0] == c)


cdef inline bint fits(object given, cnp.ndarray like) noexcept:
    """Whether a result can go there: an array of the same type, shape and layout."""
    cdef cnp.ndarray a
    cdef idx i
    if not passes(given, cnp.PyArray_NDIM(like), cnp.PyArray_TYPE(like)):
        return False
    a = <cnp.ndarray>given
    for i in range(cnp.PyArray_NDIM(like)):
        if cnp.PyArray_DIMS(a)[i] != cnp.PyArray_DIMS(like)[i]:
            return False
    return cnp.PyArray_ISWRITEABLE(a)


cdef inline bint small_floating(object given) noexcept:
    """Whether it comes through the gate with 1 to 4096 floating numbers, of any number of axes."""
    cdef idx n
    if not (cnp.PyArray_CheckExact(given)
            and passes(given, cnp.PyArray_NDIM(<cnp.ndarray>given), FLOATING)):
        return False
    n = cnp.PyArray_SIZE(<cnp.ndarray>given)
    return 0 < n <= SMX_QUICK_LOGITS


cdef inline bint alike(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two arrays have one type and shape."""
    cdef int i
    if cnp.PyArray_TYPE(a) != cnp.PyArray_TYPE(b) or cnp.PyArray_NDIM(a) != cnp.PyArray_NDIM(b):
        return False
    for i in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_DIMS(a)[i] != cnp.PyArray_DIMS(b)[i]:
            return False
    return True


@cython.final
cdef class Quick:
    """The public kernels of one instruction set on small plain arguments.

    A method returns None, having done nothing that counts, unless every array comes through the
    gate, every option is a plain number of a right value, and the work is small: at most 4096
    logits; 4 rows and 64 classes; minibatches of 1024 rows and no panels. It repeats no rule and no
    message of the general way, which does the rest, with the same bits.
    """
    cdef smx_leaves *f32
    cdef smx_leaves *f64
    cdef str isa
    cdef type result

    def __init__(self, str isa, type result):
        """result: what `gradient` returns, a LinearCrossEntropyResult."""
        self.f32, self.f64 = leaves_of(isa, False), leaves_of(isa, True)
        self.isa, self.result = isa, result

    def softmax(self, int mode, object given, object axis):
        """softmax (PROB), log_softmax (LOG) or logsumexp (LSE) over the last axis, over all (None),
        or over the first of two."""
        cdef cnp.ndarray x, out
        cdef idx n, c, ndim, kept
        cdef int kind
        cdef bint first = False
        cdef smx_leaves *k
        if not cnp.PyArray_CheckExact(given) or (type(axis) is not int and axis is not None):
            return None
        x = <cnp.ndarray>given
        kind, ndim = cnp.PyArray_TYPE(x), cnp.PyArray_NDIM(x)
        if axis is not None and axis != -1 and axis != ndim - 1:
            first = ndim == 2 and (axis == 0 or axis == -2)
            if not first:
                return None
        if (ndim == 0 or not passes(x, ndim, FLOATING) or cnp.PyArray_SIZE(x) == 0
                or cnp.PyArray_SIZE(x) > SMX_QUICK_LOGITS):
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

    def divergence(self, int what, object given_x, object given_y, object axis):
        """entropy of x, or kl_divergence of x and y, of one type and shape; y is x for SMX_ENTROPY.

        axis: the last one, None for all, or the first of two.
        """
        cdef cnp.ndarray x, y, out
        cdef idx n, c, ndim, kept
        cdef bint first = False
        cdef smx_leaves *k
        if not small_floating(given_x) or (type(axis) is not int and axis is not None):
            return None
        x = <cnp.ndarray>given_x
        if given_y is not given_x and not (small_floating(given_y) and alike(x, given_y)):
            return None
        y, ndim = <cnp.ndarray>given_y, cnp.PyArray_NDIM(x)
        if ndim == 0:
            return None
        if axis is not None and axis != -1 and axis != ndim - 1:
            first = ndim == 2 and (axis == 0 or axis == -2)
            if not first:
                return None
        k = self.f32 if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32 else self.f64
        c = cnp.PyArray_SIZE(x) if axis is None else cnp.PyArray_DIMS(x)[0 if first else ndim - 1]
        n = cnp.PyArray_SIZE(x) // c
        if first and c > k.cols_max and c >= k.lanes:
            return None
        kept = 0 if axis is None else ndim - 1
        out = cnp.PyArray_EMPTY(kept, cnp.PyArray_DIMS(x) + (1 if first else 0),
                                cnp.PyArray_TYPE(x), 0)
        small_divergence(k, what, n, c, first, cnp.PyArray_ITEMSIZE(x),
                         <const char *>cnp.PyArray_DATA(x), <const char *>cnp.PyArray_DATA(y),
                         <char *>cnp.PyArray_DATA(out))
        return out if kept else out[()]

    def terms(self, int what, object given_x, object given_y):
        """SMX_ENTR of x, or SMX_REL_ENTR or SMX_KL_DIV of x and y, arrays of one type and shape, or
        Python's floats; y is x for SMX_ENTR."""
        cdef cnp.ndarray x, y, out
        cdef smx_leaves *k
        cdef double fx, fy, result
        if isinstance(given_x, float) and isinstance(given_y, float):
            fx, fy = given_x, given_y
            self.f64.divergence_each(what, 1, &fx, &fy, &result)
            return cnp.PyArray_ToScalar(&result, DOUBLE)  # half the time of np.float64(result)
        if not small_floating(given_x):
            return None
        x = <cnp.ndarray>given_x
        if given_y is not given_x and not (small_floating(given_y) and alike(x, given_y)):
            return None
        y = <cnp.ndarray>given_y
        k = self.f32 if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32 else self.f64
        out = cnp.PyArray_EMPTY(cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), cnp.PyArray_TYPE(x), 0)
        k.divergence_each(what, cnp.PyArray_SIZE(x), cnp.PyArray_DATA(x), cnp.PyArray_DATA(y),
                          cnp.PyArray_DATA(out))
        return out if cnp.PyArray_NDIM(out) else out[()]

    def cross_entropy(self, object logits, object target, object reduction, object ignore_index,
                      object label_smoothing, bint with_grad):
        """(loss, gradient or None) of logits (N, C) and labels (N,) of int64."""
        cdef cnp.ndarray x, y, g = None, losses = None
        cdef int kind
        cdef Target t
        if not (passes(logits, 2, FLOATING) and passes(target, 1, cnp.NPY_INT64)
                and type(ignore_index) is int and type(label_smoothing) is float
                and label_smoothing == 0 and reduction in ("mean", "sum", "none")):
            return None
        x, y = <cnp.ndarray>logits, <cnp.ndarray>target
        kind = cnp.PyArray_TYPE(x)
        if (x.shape[0] != y.shape[0] or cnp.PyArray_SIZE(x) > SMX_QUICK_LOGITS
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

    def forward(self, int job, object X, object W, object b, object x_scale):
        """linear, predict_proba or predict of a few rows."""
        cdef cnp.ndarray x, w, bias = None, out
        cdef cnp.npy_intp[2] shape
        cdef int kind, stored
        if not (passes(W, 2, FLOATING) and type(x_scale) is float and x_scale - x_scale == 0):
            return None
        w = <cnp.ndarray>W
        kind = cnp.PyArray_TYPE(w)
        stored = gate_of_X(X, kind)
        if stored < 0 or not passes_bias(b, kind, w.shape[1]):
            return None
        x, bias = <cnp.ndarray>X, b
        if (x.shape[0] > SMX_QUICK_ROWS or x.shape[0] == 0 or x.shape[1] != w.shape[0]
                or w.shape[1] > SMX_QUICK_CLASSES or w.shape[1] == 0):
            return None
        if kind == cnp.NPY_FLOAT32 and (
                smx_by_tiles(self.f32, stored, x.shape[1], w.shape[1])
                or smx_by_tiles(self.f32, SMX_REAL, x.shape[1], w.shape[1])):
            return None  # logits_few has not their bits
        shape[0], shape[1] = x.shape[0], w.shape[1]
        if job == PREDICT:
            out = cnp.PyArray_EMPTY(1, shape, cnp.NPY_INTP, 0)
        else:
            out = cnp.PyArray_EMPTY(2, shape, kind, 0)
        if kind == cnp.NPY_FLOAT32:
            small_forward[float](self.f32, job, stored, x, w, bias, x_scale, out, NULL)
        else:
            small_forward[double](self.f64, job, stored, x, w, bias, x_scale, out, NULL)
        return out

    def examples(self, object X, object W, object target, object weight, object sample_weight,
                 object ignore_index, object label_smoothing, object x_scale):
        """The `Examples` of dense X and labels or probabilities, for `gradient` with this W."""
        cdef cnp.ndarray x, t, sample = None
        cdef bint hard = passes(target, 1, INTEGER)
        cdef idx c
        if not (passes(W, 2, FLOATING) and (passes(X, 2, FLOATING) or gate_of_X(X, cnp.NPY_FLOAT32) >= 0)
                and (hard or passes(target, 2, FLOATING))
                and type(ignore_index) is int and (hard or ignore_index < 0)
                and type(label_smoothing) is float and 0 <= label_smoothing <= 1
                and type(x_scale) is float and x_scale - x_scale == 0):
            return None
        x, t, c = <cnp.ndarray>X, <cnp.ndarray>target, (<cnp.ndarray>W).shape[1]
        if (t.shape[0] != x.shape[0] or (not hard and t.shape[1] != c)
                or not (weight is None or (passes(weight, 1, cnp.NPY_FLOAT64)
                                           and (<cnp.ndarray>weight).shape[0] == c))):
            return None
        if sample_weight is not None:
            if (not passes(sample_weight, 1, FLOATING)
                    or (<cnp.ndarray>sample_weight).shape[0] != x.shape[0]):
                return None
            sample = sample_weight[:, None]
        return Examples(x, x_scale, Target(t[:, None], hard, c, weight, sample, ignore_index,
                                           label_smoothing))

    def gradient(self, Examples examples, object W, object b, object reduction, object rows,
                 object out, int threads):
        """linear_cross_entropy_with_grad of a minibatch of a dense X.

        rows: int64. out: None, a tuple or an earlier result.
        """
        cdef cnp.ndarray x = examples.X, w, picked, bias, dW, db
        cdef int kind
        cdef LinearPass p
        cdef double total
        cdef idx bad
        if not (x is not None and passes(W, 2, FLOATING) and passes(rows, 1, cnp.NPY_INT64)
                and (reduction == "mean" or reduction == "sum")):
            return None
        w, picked = <cnp.ndarray>W, <cnp.ndarray>rows
        kind = cnp.PyArray_TYPE(w)
        if (not passes_bias(b, kind, w.shape[1]) or x.shape[1] != w.shape[0]
                or w.shape[1] != examples.target.c or w.shape[1] == 0
                or (kind == cnp.NPY_FLOAT32 and cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT64)
                or not 1 <= picked.shape[0] <= SMX_QUICK_BATCH):
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
                    or (bias is not None and not fits(out[1], bias))):
                return None
            dW, db = out
            if examples.meet(dW) or meet(dW, w) or (bias is not None and (
                    examples.meet(db) or meet(dW, bias) or meet(dW, db) or meet(db, w)
                    or meet(db, bias))):
                return None
        picked = cnp.PyArray_NewCopy(picked, cnp.NPY_CORDER)
        if wrap_rows(picked, x.shape[0]) >= 0:
            return None
        total, bad = examples.weigh(picked)
        if bad >= 0:
            return None
        p = LinearPass(self.isa, GRADIENT, examples, w, bias, picked,
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


cdef void small_divergence(smx_leaves *k, int what, idx n, idx c, bint first, idx size,
                           const char *x, const char *y, char *out) noexcept nogil:
    """n contiguous rows, by the same leaves on the same numbers as Divergence; first: n columns."""
    cdef double x_block[SMX_SMALL_BLOCK]
    cdef double y_block[SMX_SMALL_BLOCK]
    cdef idx at = 0, m, most
    if first:
        k.divergence_cols(what, n, c, x, n, y, n, out)
        return
    if c > k.cols_max and c >= k.lanes:
        k.divergence_rows(what, n, c, x, c, y, c, out)
        return
    most = min(64, <idx>sizeof(x_block) // (c * size))
    while at < n:
        m = min(n - at, most)
        k.transpose(m, c, x + at * c * size, c, x_block, most)
        if what == SMX_DIVERGENCE:
            k.transpose(m, c, y + at * c * size, c, y_block, most)
        k.divergence_cols(what, m, c, x_block, most, y_block, most, out + at * size)
        at += m


cdef void small_softmax(smx_leaves *k, int mode, idx n, idx c, bint first, const real *x,
                        real *out) noexcept nogil:
    """n contiguous rows, by the same leaves on the same numbers as Softmax; first: n columns."""
    cdef double block[SMX_SMALL_BLOCK]
    cdef double sums[SMX_SMALL_ROWS]
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


cdef void small_forward(smx_leaves *k, int job, int stored, cnp.ndarray x, cnp.ndarray w,
                        cnp.ndarray bias, double scale, cnp.ndarray out, real *tag) noexcept:
    cdef double block[SMX_QUICK_BLOCK]
    cdef double maxima[SMX_MOST_LANES]
    cdef int32_t arg[SMX_MOST_LANES]
    cdef real *L = <real *>block
    cdef real *mx = <real *>maxima
    cdef idx n = x.shape[0], d = x.shape[1], c = w.shape[1], ldl = max(k.lanes, SMX_QUICK_ROWS), r
    memset(block, 0, sizeof(block))
    k.logits_few(stored, n, d, c, cnp.PyArray_DATA(x), d, cnp.PyArray_DATA(w), scale,
                 NULL if bias is None else cnp.PyArray_DATA(bias), L, ldl)
    if job == PREDICT:
        k.argmax_cols(n, c, L, ldl, mx, arg)
        for r in range(n):
            (<idx *>cnp.PyArray_DATA(out))[r] = arg[r]
        return
    if job == PROBA:
        k.softmax_cols(SMX_PROB, ldl, c, L, ldl, NULL, NULL, L, ldl, NULL, NULL)
    k.transpose(c, n, L, ldl, cnp.PyArray_DATA(out), c)
