# Entropy and divergence, summed over any axes or element by element.

@cython.final
cdef class Divergence(Job):
    """The sums over C of SMX_ENTROPY of x, or of SMX_DIVERGENCE of x and y, walked as (A, B, C).

    x, y: native float32 or float64, each with its strides in bytes for the walk; y is x for
    SMX_ENTROPY. out: (A*B,) contiguous, of the same type.
    """
    cdef cnp.ndarray x, y, out
    cdef smx_leaves *k
    cdef int what
    cdef bint f64, small
    cdef idx n, nb, c, xa, xb, xc, ya, yb, yc
    cdef idx step, rb, ldc, block_bytes

    def __init__(self, str isa, int what, tuple shape, cnp.ndarray x, tuple x_strides,
                 cnp.ndarray y, tuple y_strides, cnp.ndarray out):
        self.f64 = cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT64
        self.k = leaves_of(isa, self.f64)
        self.what, self.x, self.y, self.out = what, x, y, out
        self.n, self.nb, self.c = shape[0] * shape[1], shape[1], shape[2]
        self.xa, self.xb, self.xc = x_strides
        self.ya, self.yb, self.yc = y_strides

    def run(self, idx step, int threads):
        """All A*B rows, `step` to a slice."""
        cdef idx lanes = self.k.lanes, c = self.c, size = 8 if self.f64 else 4
        self.step = step
        self.small = c <= self.k.cols_max or c < lanes
        self.rb = min(max(rows_per_block(c, size, lanes), 4 * lanes),
                      round_up(min(step, self.n), lanes))
        self.ldc = self.rb if self.small else odd_lines(c, size)
        self.block_bytes = round_up(self.rb * (c if self.small else self.ldc) * size, 64)
        self.run_slices((self.n + step - 1) // step, threads, SMX_MOST_SLOTS,
                        2 * self.block_bytes)

    cdef void slice(self, idx i, idx slot, size_t scratch) noexcept nogil:
        cdef idx lo = i * self.step, hi = min(self.n, lo + self.step)
        if self.f64:
            self.rows[double](lo, hi, <double *>scratch, <double *>(scratch + self.block_bytes))
        else:
            self.rows[float](lo, hi, <float *>scratch, <float *>(scratch + self.block_bytes))

    cdef void rows(self, idx lo, idx hi, real *x_block, real *y_block) noexcept nogil:
        cdef const char *x = <const char *>cnp.PyArray_DATA(self.x)
        cdef const char *y = <const char *>cnp.PyArray_DATA(self.y)
        cdef real *out = <real *>cnp.PyArray_DATA(self.out)
        cdef const real *xs
        cdef const real *ys = NULL
        cdef idx at = lo, a, b, n, ldx, ldy = 0
        while at < hi:
            a, b = at // self.nb, at % self.nb
            n = min(min(self.nb - b, hi - at), self.rb)
            xs = self.block[real](n, x + a * self.xa + b * self.xb, self.xb, self.xc, x_block, &ldx)
            if self.what == SMX_DIVERGENCE:
                ys = self.block[real](n, y + a * self.ya + b * self.yb, self.yb, self.yc, y_block,
                                      &ldy)
            if self.small:
                self.k.divergence_cols(self.what, n, self.c, xs, ldx, ys, ldy, out + at)
            else:
                self.k.divergence_rows(self.what, n, self.c, xs, ldx, ys, ldy, out + at)
            at += n

    cdef const real *block(self, idx n, const char *p, idx pb, idx pc, real *block,
                           idx *ld) noexcept nogil:
        """n rows as the leaves take them: class-major if C is small, or a row's classes side by
        side. Through scratch unless they are so already."""
        cdef idx size = sizeof(real)
        cdef idx inner = pb if self.small else pc, outer = pc if self.small else pb
        if (inner == size and outer % size == 0
                and not (self.small and crowded(self.c, outer))):
            ld[0] = outer // size
            return <const real *>p
        ld[0] = self.ldc
        if self.small:
            gather[real](self.k, n, self.c, p, pb, pc, block, 1, self.ldc)
        else:
            gather[real](self.k, n, self.c, p, pb, pc, block, self.ldc, 1)
        return block


@cython.final
cdef class Terms(Job):
    """SMX_ENTR of x, or SMX_REL_ENTR or SMX_KL_DIV of x and y, element by element.

    x, y, out: dense arrays of one type and layout, float32 or float64; y is x for SMX_ENTR. out may
    be x or y.
    """
    cdef cnp.ndarray x, y, out
    cdef smx_leaves *k
    cdef int what
    cdef idx n, step, size

    def __init__(self, str isa, int what, cnp.ndarray x, cnp.ndarray y, cnp.ndarray out):
        self.k = leaves_of(isa, cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT64)
        self.what, self.x, self.y, self.out = what, x, y, out
        self.n, self.size = cnp.PyArray_SIZE(x), cnp.PyArray_ITEMSIZE(x)

    def run(self, idx step, int threads):
        """All elements, `step` to a slice."""
        self.step = step
        self.run_slices((self.n + step - 1) // step, threads, SMX_MOST_SLOTS, 0)

    cdef void slice(self, idx i, idx slot, size_t scratch) noexcept nogil:
        cdef idx at = i * self.step, n = min(self.n - at, self.step)
        at *= self.size
        self.k.divergence_each(self.what, n, <const char *>cnp.PyArray_DATA(self.x) + at,
                               <const char *>cnp.PyArray_DATA(self.y) + at,
                               <char *>cnp.PyArray_DATA(self.out) + at)


# The same of small plain arguments at the least cost: None, having done nothing, if unsure of them.

cdef inline bint small_plain(object given) noexcept:
    """Whether it is a plain float32 or float64 ndarray of 1 to 4096 numbers."""
    cdef cnp.ndarray a
    if not cnp.PyArray_CheckExact(given):
        return False
    a = <cnp.ndarray>given
    return (plain(a, cnp.PyArray_NDIM(a)) and 0 < cnp.PyArray_SIZE(a) <= 4096
            and (cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT32 or cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT64))

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
cdef class SmallDivergence:
    """entropy of x, or kl_divergence of x and y, of small plain arrays of one type and shape.

    axis: the last one, None for all, or the first of two. y is x for SMX_ENTROPY.
    """
    cdef smx_leaves *f32
    cdef smx_leaves *f64

    def __init__(self, str isa):
        self.f32, self.f64 = leaves_of(isa, False), leaves_of(isa, True)

    def __call__(self, int what, object given_x, object given_y, object axis):
        cdef cnp.ndarray x, y, out
        cdef idx n, c, ndim, kept
        cdef bint first = False
        cdef smx_leaves *k
        if not small_plain(given_x) or (type(axis) is not int and axis is not None):
            return None
        x = <cnp.ndarray>given_x
        if given_y is not given_x and not (small_plain(given_y) and alike(x, given_y)):
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


@cython.final
cdef class SmallTerms:
    """SMX_ENTR of x, or SMX_REL_ENTR or SMX_KL_DIV of x and y, of small plain arrays of one type and
    shape, or of Python's floats. y is x for SMX_ENTR."""
    cdef smx_leaves *f32
    cdef smx_leaves *f64
    cdef object float64

    def __init__(self, str isa):
        self.f32, self.f64 = leaves_of(isa, False), leaves_of(isa, True)
        self.float64 = np.float64

    def __call__(self, int what, object given_x, object given_y):
        cdef cnp.ndarray x, y, out
        cdef smx_leaves *k
        cdef double fx, fy, result
        if isinstance(given_x, float) and isinstance(given_y, float):
            fx, fy = given_x, given_y
            self.f64.divergence_each(what, 1, &fx, &fy, &result)
            return self.float64(result)
        if not small_plain(given_x):
            return None
        x = <cnp.ndarray>given_x
        if given_y is not given_x and not (small_plain(given_y) and alike(x, given_y)):
            return None
        y = <cnp.ndarray>given_y
        k = self.f32 if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32 else self.f64
        out = cnp.PyArray_EMPTY(cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), cnp.PyArray_TYPE(x), 0)
        k.divergence_each(what, cnp.PyArray_SIZE(x), cnp.PyArray_DATA(x), cnp.PyArray_DATA(y),
                          cnp.PyArray_DATA(out))
        return out if cnp.PyArray_NDIM(out) else out[()]
