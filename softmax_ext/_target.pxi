# What the rows should be and what they count, and the rules that follow: labels, ignored rows,
# weights, smoothing, losses.

@cython.final
cdef class Target:
    """What the rows should be, and what they count.

    hard: labels, an integer array of the rows' shape (a, b); soft: probabilities (a, b, C), float32
    or float64. weight: float64, contiguous, (C,) or None; sample_weight: float32 or float64, the
    rows' shape, or None.
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
    cdef double smoothing, smooth_sum
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
        cdef idx n, i, r, step, bad = -1, ignored = 0
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
            elif self.plain and (self.na == 1 or self.nb == 1):
                step = self.sa if self.nb == 1 else self.sb
                for i in range(n):
                    y = load_int(self.data + (i if pick == NULL else pick[i]) * step, self.code)
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


@cython.final
cdef class Examples:
    """Rows of X and what they should be: what a pass reads, checked.

    X: (N, D) float32, float64, uint8, float16 or bfloat16, native, any strides. Or, in CSR form,
    (data, indices, indptr): (nnz,) of such a type, (nnz,) int32 or int64, (N + 1,) of any integer
    type, all native and contiguous. x_scale: what X is multiplied by. target: None for passes that
    want none.
    """
    cdef cnp.ndarray X, data, indices, indptr
    cdef Target target
    cdef double x_scale
    cdef idx n
    cdef bint count_one     # every row has a label that was checked, and counts 1

    def __init__(self, object X, double x_scale, Target target):
        self.x_scale, self.target, self.count_one = x_scale, target, False
        if isinstance(X, np.ndarray):
            self.X = X
            self.n = self.X.shape[0]
        else:
            self.data, self.indices, self.indptr = X[:3]
            self.n = self.indptr.shape[0] - 1

    def meet(self, cnp.ndarray a):
        """Whether the memory of an array meets what is read."""
        cdef Target t = self.target
        return (meet(a, self.X) or meet(a, self.data) or meet(a, self.indices)
                or meet(a, self.indptr)
                or (t is not None and (meet(a, t.array) or meet(a, t.weight_array)
                                       or meet(a, t.sample_array))))

    def weigh(self, cnp.ndarray rows=None):
        """Check the labels of all rows, or of those that are given and were not checked yet.

        Returns what `Target.scan` does.
        """
        if rows is not None and self.count_one:
            return <double>rows.shape[0], -1
        total, bad = self.target.scan(rows)
        if rows is None:
            self.count_one = bad < 0 and self.target.plain and total == self.n
        return total, bad


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

cdef Rows lay_out_rows(size_t *at, idx rb) noexcept nogil:
    cdef Rows r
    r.a = <idx *>place(at, rb * sizeof(idx))
    r.b = <idx *>place(at, rb * sizeof(idx))
    r.place = <idx *>place(at, rb * sizeof(idx))
    r.label = <int64_t *>place(at, rb * sizeof(int64_t))
    r.pick = <double *>place(at, rb * sizeof(double))
    r.smooth = <double *>place(at, rb * sizeof(double))
    r.sum = <double *>place(at, rb * sizeof(double))
    r.loss = <double *>place(at, rb * sizeof(double))
    r.arg = <int32_t *>place(at, rb * sizeof(int32_t))
    return r

cdef Rows later_rows(Rows r, idx i) noexcept nogil:
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

cdef void factors(Target t, double denominator, idx n, Rows *rows, real *scale) noexcept nogil:
    """Fill pick, smooth, sum and the softmax's factor for rows whose labels are loaded.

    denominator: what the gradient is divided by (1 for a sum).

    With hard labels a row's loss is pick (lse - o_y) + smooth sum_c u_c (lse - o_c), u_c the
    smoothing's shares; with soft ones sum_c T_c (lse - o_c) and `smooth` is the row's weight.
    """
    cdef idx r, c
    cdef double w, total
    cdef real share = <real>(1 / denominator)
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
        scale[r] = <real>(rows.sum[r] / denominator)


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


cdef void subtract_targets(Target t, double denominator, idx n, Rows *rows, real *G, idx sr,
                           idx sc) noexcept nogil:
    """G -= the targets' share: what turns scaled probabilities into the gradient."""
    cdef idx r, c
    cdef double u, w
    cdef real share = <real>(1 / denominator)
    if t.plain:
        for r in range(n):
            G[r * sr + rows.label[r] * sc] -= share
    elif t.hard:
        for r in range(n):
            G[r * sr + rows.label[r] * sc] -= <real>(rows.pick[r] / denominator)
        if t.smoothing > 0:
            for c in range(t.c):
                u = t.smooth(c)
                if isinf(u):
                    for r in range(n):
                        G[r * sr + c * sc] -= <real>(times(rows.smooth[r], u) / denominator)
                elif u != 0:
                    for r in range(n):
                        G[r * sr + c * sc] -= <real>(rows.smooth[r] * u / denominator)
    else:
        for r in range(n):
            w = rows.smooth[r] / denominator
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
