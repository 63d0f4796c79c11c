# The softmax family over any axes.

# Where the rows are side by side, as over the first axis: so many bytes of each class are copied to
# a block. (100 classes of 4096 rows on Zen 5: 247 microseconds with 128 bytes, 165 with 256, 115 with
# 512, 122 with 1024.)
cdef idx COLUMN_BYTES = 512
# Larger blocks are not made unless they must: 50257 classes of 256 rows, logsumexp 3.9 ms without a
# copy, 5.8 with one; softmax 9.3 and 8.7.
cdef idx COLUMNS_BYTES = 4 << 20


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
    cdef bint side_by_side  # rows, a vector of them at least, both in x and in out
    cdef bint in_place      # those of many classes are not copied
    cdef idx n, nb, c, xa, xb, xc, oa, ob, oc
    cdef idx step, rb, ldc, block_bytes
    cdef idx begun          # rows of a whole cache line of the result that are before the first

    def __init__(self, str isa, int mode, tuple shape, cnp.ndarray x, tuple x_strides,
                 cnp.ndarray out, tuple out_strides, cnp.ndarray lse):
        self.f64 = cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT64
        self.k = leaves_of(isa, self.f64)
        self.mode, self.x, self.out, self.lse = mode, x, out, lse
        self.n, self.nb, self.c = shape[0] * shape[1], shape[1], shape[2]
        self.xa, self.xb, self.xc = x_strides
        self.oa, self.ob, self.oc = out_strides

    def run(self, idx step, int threads):
        """All A*B rows, at least `step` to a slice."""
        cdef idx lanes = self.k.lanes, c = self.c, size = 8 if self.f64 else 4
        cdef bint rowwise = (self.xc == size and self.xb % size == 0 and
                             (self.mode == SMX_LSE or (self.oc == size and self.ob % size == 0)))
        cdef bint large
        self.small = c <= self.k.cols_max or c < lanes
        self.side_by_side = (self.xb == size and self.xc % size == 0 and self.nb >= lanes and
                             (self.mode == SMX_LSE or (self.ob == size and self.oc % size == 0)))
        if self.side_by_side:
            self.rb = COLUMN_BYTES // size
            large = c * odd_lines(self.rb, size) * size > COLUMNS_BYTES
            if large:
                self.rb //= 2
            self.in_place = large and not self.small and not crowded(16, self.xc) and (
                self.mode == SMX_LSE or not crowded(16, self.oc))
            step = round_up(step, self.rb)
        else:
            self.rb = max(rows_per_block(c, size, lanes), 128 // size if self.xb == size else 1)
        self.rb = min(self.rb, round_up(min(step, self.n), lanes))
        self.ldc = (odd_lines(self.rb, size) if self.side_by_side else self.rb if self.small
                    else odd_lines(c, size))
        if self.side_by_side:
            self.block_bytes = 0 if self.in_place else self.ldc * c * size
        else:
            self.block_bytes = (self.rb * c if self.small else 0 if rowwise
                                else self.rb * self.ldc) * size
        self.block_bytes = round_up(self.block_bytes, 64)
        self.step = step
        self.begun = 0
        if self.n > step:
            self.begun = self.before(cnp.PyArray_DATA(self.x if self.out is None else self.out))
        self.run_slices((self.begun + self.n + step - 1) // step, threads, SMX_MOST_SLOTS,
                        self.block_bytes + self.rb * size)

    cdef idx before(self, const void *p) noexcept nogil:
        """The rows side by side, copied to blocks, that are before p in a cache line."""
        cdef idx size = 8 if self.f64 else 4
        if not self.side_by_side or self.in_place or self.rb * size < 128:
            return 0
        return (<size_t>p & 63) // size

    cdef void slice(self, idx i, idx slot, size_t scratch) noexcept nogil:
        cdef idx lo = max(0, i * self.step - self.begun)
        cdef idx hi = min(self.n, (i + 1) * self.step - self.begun)
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
            xi = x + a * self.xa + b * self.xb
            oi = NULL if out == NULL else out + a * self.oa + b * self.ob
            # Blocks end where a cache line of the result does, lest two of them write to one.
            n = min(min(self.nb - b, hi - at), self.rb - self.before(xi if out == NULL else oi))
            if self.side_by_side:
                self.columns_block[real](n, xi, oi, block, self.ldc, ls)
            elif self.small:
                self.cols_block[real](n, xi, oi, block, self.ldc, ls)
            else:
                self.rows_block[real](n, xi, oi, block, self.ldc, ls)
            if lse != NULL:
                memcpy(lse + at, ls, n * sizeof(real))
            at += n

    cdef void columns_block(self, idx n, const char *x, char *out, real *block, idx ldc,
                            real *ls) noexcept nogil:
        """Rows side by side: by way of a block, unless that is a loss."""
        cdef idx size = sizeof(real), xc = self.xc, oc = self.oc
        cdef bint direct = self.in_place
        if self.small and not crowded(self.c, xc):
            direct = ((<size_t>x | <size_t>out | xc | oc) & 63) == 0
        if direct and self.small:
            self.k.softmax_cols(self.mode, n, self.c, x, xc // size, NULL, NULL, out, oc // size,
                                NULL, ls)
            return
        if direct:
            self.k.softmax_wide(self.mode, n, self.c, x, xc // size, NULL, out, oc // size, NULL, ls)
            return
        gather[real](self.k, n, self.c, x, size, xc, block, 1, ldc)
        if self.small:
            self.k.softmax_cols(self.mode, round_up(n, self.k.lanes), self.c, block, ldc, NULL, NULL,
                                block, ldc, NULL, ls)
        else:
            self.k.softmax_wide(self.mode, round_up(n, self.k.lanes), self.c, block, ldc, NULL,
                                block, ldc, NULL, ls)
        if self.mode != SMX_LSE:
            scatter[real](self.k, n, self.c, block, 1, ldc, out, size, oc)

    cdef void cols_block(self, idx n, const char *x, char *out, real *block, idx ldc,
                         real *ls) noexcept nogil:
        """Few classes: class-major, through scratch."""
        gather[real](self.k, n, self.c, x, self.xb, self.xc, block, 1, ldc)
        self.k.softmax_cols(self.mode, round_up(n, self.k.lanes), self.c, block, ldc, NULL, NULL,
                            block, ldc, NULL, ls)
        if self.mode != SMX_LSE:
            scatter[real](self.k, n, self.c, block, 1, ldc, out, self.ob, self.oc)

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
