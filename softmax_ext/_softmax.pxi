# The softmax family over any axes.

@cython.final
cdef class Softmax(Job):
    """softmax, log_softmax or logsumexp over C of arrays walked as (A, B, C).

    x: native float32 or float64. out: same type (PROB, LOG), may be x. Each with its strides in
    bytes for the walk. lse: (A*B,) contiguous for LSE.
    """
    cdef cnp.ndarray x, out, lse
    cdef smx_leaves *k
    cdef int mode
    cdef bint f64, small
    cdef idx n, nb, c, xa, xb, xc, oa, ob, oc
    cdef idx step, rb, ldc, block_bytes

    def __init__(self, str isa, int mode, tuple shape, cnp.ndarray x, tuple x_strides,
                 cnp.ndarray out, tuple out_strides, cnp.ndarray lse):
        self.f64 = cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT64
        self.k = leaves_of(isa, self.f64)
        self.mode, self.x, self.out, self.lse = mode, x, out, lse
        self.n, self.nb, self.c = shape[0] * shape[1], shape[1], shape[2]
        self.xa, self.xb, self.xc = x_strides
        self.oa, self.ob, self.oc = out_strides

    def run(self, idx step, int threads):
        """All A*B rows, `step` to a slice."""
        cdef idx lanes = self.k.lanes, c = self.c, size = 8 if self.f64 else 4
        # Of rows that are side by side, two whole cache lines, which come together.
        cdef idx line = 128 // size if self.xb == size else 1
        cdef idx most = max(rows_per_block(c, size, lanes), line)
        cdef bint rowwise = (self.xc == size and self.xb % size == 0 and
                             (self.mode == SMX_LSE or (self.oc == size and self.ob % size == 0)))
        self.step = step
        self.small = c <= self.k.cols_max or c < lanes
        self.rb = min(most, round_up(min(step, self.n), lanes))
        self.ldc = self.rb if self.small else odd_lines(c, size)
        self.block_bytes = round_up(
            (self.rb * c if self.small else 0 if rowwise else self.rb * self.ldc) * size, 64)
        self.run_slices((self.n + step - 1) // step, threads, SMX_MOST_SLOTS,
                        self.block_bytes + self.rb * size)

    cdef void slice(self, idx i, idx slot, size_t scratch) noexcept nogil:
        cdef idx lo = i * self.step, hi = min(self.n, lo + self.step)
        if self.f64:
            self.rows[double](lo, hi, <double *>scratch, <double *>(scratch + self.block_bytes))
        else:
            self.rows[float](lo, hi, <float *>scratch, <float *>(scratch + self.block_bytes))

    cdef void rows(self, idx lo, idx hi, real *block, real *ls) noexcept nogil:
        cdef const char *x = <const char *>cnp.PyArray_DATA(self.x)
        cdef char *out = NULL if self.out is None else <char *>cnp.PyArray_DATA(self.out)
        cdef real *lse = NULL if self.lse is None else <real *>cnp.PyArray_DATA(self.lse)
        cdef const char *xi
        cdef char *oi
        cdef idx at = lo, a, b, n
        if lse == NULL:
            ls = NULL
        while at < hi:
            a, b = at // self.nb, at % self.nb
            n = min(min(self.nb - b, hi - at), self.rb)
            xi = x + a * self.xa + b * self.xb
            oi = NULL if out == NULL else out + a * self.oa + b * self.ob
            if self.small:
                self.cols_block[real](n, xi, oi, block, self.ldc, ls)
            else:
                self.rows_block[real](n, xi, oi, block, self.ldc, ls)
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
