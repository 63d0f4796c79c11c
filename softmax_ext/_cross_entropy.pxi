# Cross-entropy of given logits.

cdef struct CrossEntropyBlock:
    # Work arrays for a block of rows.
    void *block
    void *mx
    void *ls
    void *scale
    Rows rows


@cython.final
cdef class CrossEntropy(RowsJob):
    """Cross-entropy of (A, B, C) logits; the gradient, divided by `denominator`, if out is given.

    out must not overlap the logits. losses: (A*B,) of the logits' type, or None.
    """
    cdef cnp.ndarray x, out, losses
    cdef Target t
    cdef smx_leaves *k
    cdef bint f64, small
    cdef double denominator
    cdef idx n, nb, c, step, rb, ldl

    def __init__(self, str isa, cnp.ndarray x, Target t, double denominator,
                 cnp.ndarray out, cnp.ndarray losses):
        self.f64 = cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT64
        self.k = leaves_of(isa, self.f64)
        self.x, self.out, self.losses, self.t = x, out, losses, t
        self.denominator = denominator
        self.n, self.nb, self.c = x.shape[0] * x.shape[1], x.shape[1], x.shape[2]
        self.groups = 1
        self.small = self.c <= self.k.cols_max or self.c < self.k.lanes
        self.rb = rows_per_block(self.c, 8 if self.f64 else 4, self.k.lanes)
        self.ldl = self.rb if self.small else odd_lines(self.c, 8 if self.f64 else 4)

    def run(self, idx step, int threads):
        """All rows, `step` to a slice. Returns the sum of the losses, and the first bad row (only if
        a label has changed since the scan) or -1."""
        self.step = step
        cdef CrossEntropyBlock w
        self.run_rows((self.n + step - 1) // step, threads, 0, self.lay_out(0, &w))
        return self.total.loss[0], self.total.bad

    cdef idx lay_out(self, size_t at, CrossEntropyBlock *w) noexcept nogil:
        """The work arrays of a block, from `at` on; their size if that is 0."""
        cdef idx size = 8 if self.f64 else 4, rb = self.rb
        w.block = place(&at, self.ldl * (self.c if self.small else rb) * size)
        w.mx = place(&at, rb * size)
        w.ls = place(&at, rb * size)
        w.scale = place(&at, rb * size)
        w.rows = lay_out_rows(&at, rb)
        return at

    cdef void slice(self, idx i, idx slot, size_t scratch) noexcept nogil:
        cdef CrossEntropyBlock w
        cdef Result *result = self.begin(slot)
        cdef idx lo = i * self.step, hi = min(self.n, lo + self.step)
        self.lay_out(scratch, &w)
        if self.f64:
            self.run_blocks[double](lo, hi, &w, result, NULL)
        else:
            self.run_blocks[float](lo, hi, &w, result, NULL)

    cdef void run_blocks(self, idx lo, idx hi, CrossEntropyBlock *w, Result *result,
                         real *tag) noexcept nogil:
        cdef Rows *rows = &w.rows
        cdef char *x = <char *>cnp.PyArray_DATA(self.x)
        cdef char *out = NULL if self.out is None else <char *>cnp.PyArray_DATA(self.out)
        cdef real *losses = NULL
        cdef cnp.npy_intp *xs = cnp.PyArray_STRIDES(self.x)
        cdef cnp.npy_intp *os
        cdef idx oa = 0, ob = 0, oc = 0
        cdef idx at = lo, a, b, n, r
        cdef const char *src
        cdef char *dst
        cdef int mode = SMX_STATS if self.out is None else SMX_PROB
        if self.out is not None:
            os = cnp.PyArray_STRIDES(self.out)
            oa, ob, oc = os[0], os[1], os[2]
        if self.losses is not None:
            losses = <real *>cnp.PyArray_DATA(self.losses)
        while at < hi:
            a, b = at // self.nb, at % self.nb
            n = min(min(self.nb - b, hi - at), self.rb)
            src = x + a * xs[0] + b * xs[1]
            dst = out + a * oa + b * ob
            for r in range(n):
                rows.a[r], rows.b[r] = a, b + r
                rows.label[r] = 0
                if self.t.hard:
                    rows.label[r] = self.t.label(a, b + r)
                    if self.t.ignored(rows.label[r]):
                        rows.label[r] = -1
                    elif rows.label[r] < 0 or rows.label[r] >= self.c:
                        result.bad = at + r
                        return
            result.loss[0] += self.block[real](n, mode, rows, src, xs[1], xs[2], dst, ob, oc,
                                            <real *>w.block, <real *>w.mx, <real *>w.ls,
                                            <real *>w.scale)
            if losses != NULL:
                for r in range(n):
                    losses[at + r] = <real>rows.loss[r]
            at += n

    cdef double block(self, idx n, int mode, Rows *rows, const char *x, idx xb, idx xc, char *out,
                      idx ob, idx oc, real *block, real *mx, real *ls, real *scale) noexcept nogil:
        cdef bint small = self.small
        cdef idx c = self.c, ldl = self.ldl, r, j, lanes, kept = 0
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
            factors[real](self.t, self.denominator, n, rows, scale)
            self.k.softmax_rows(mode, n, c, x, sr, scale, out, ob // <idx>sizeof(real), mx, ls)
            deviations[real](self.t, n, rows, <const real *>x, sr, sc, mx)
            if mode == SMX_PROB:
                subtract_targets[real](self.t, self.denominator, n, rows, <real *>out,
                                       ob // <idx>sizeof(real), sc)
            return finish_losses[real](n, rows, ls)
        if kept == n:
            gather[real](self.k, n, c, x, xb, xc, block, sr, sc)
        else:
            for r in range(kept):
                for j in range(c):
                    memcpy(block + r * sr + j * sc, x + rows.place[r] * xb + j * xc, sizeof(real))
        factors[real](self.t, self.denominator, kept, rows, scale)
        lanes = round_up(kept, self.k.lanes)
        if kept:
            if mode == SMX_PROB:  # the logits are gone after it
                if small:
                    self.k.argmax_cols(kept, c, block, ldl, mx, rows.arg)
                else:
                    self.k.argmax_rows(kept, c, block, ldl, mx, rows.arg)
                deviations[real](self.t, kept, rows, block, sr, sc, mx)
            if small:
                self.k.softmax_cols(mode, lanes, c, block, ldl, mx if mode == SMX_PROB else NULL,
                                    scale, block, ldl, mx, ls)
            else:
                self.k.softmax_rows(mode, kept, c, block, ldl, scale, block, ldl, mx, ls)
            if mode == SMX_STATS:
                deviations[real](self.t, kept, rows, block, sr, sc, mx)
            total = finish_losses[real](kept, rows, ls)
        if mode == SMX_PROB:
            subtract_targets[real](self.t, self.denominator, kept, rows, block, sr, sc)
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
