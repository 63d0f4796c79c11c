# The drivers for a sparse X in CSR form; included by _kernels.pyx.
#
# Only the two products differ from LinearPass. A row's logits are a sum of rows of W, its gradient
# goes to rows of dW; so here L and G are also row-major (row r, class c at L[r*width + c]), and W
# and dW stay as they are, (D, C). The matrix is not trusted: of indptr and indices nothing is used
# but the value that was checked.

# So many entries are taken at a time.
cdef idx PIECE = 2048
# Gradients of so many bytes wait for the second step of a part's work: many, because threads wait
# for each other twice a part.
cdef idx PART_BYTES = 4 << 20


cdef struct Entries:
    # Checked entries of rows: those of row r from at[r] to at[r + 1].
    idx *col
    void *val
    idx *at


cdef Entries take_entries(Scratch s, idx rows, idx size) noexcept:
    cdef Entries e
    e.col = <idx *>s.take((PIECE + SMX_SPARSE_AHEAD) * sizeof(idx))
    e.val = s.take(PIECE * size)
    e.at = <idx *>s.take((rows + 1) * sizeof(idx))
    return e


cdef idx entries_bytes(idx rows, idx size) noexcept:
    return (PIECE + SMX_SPARSE_AHEAD + rows + 1) * <idx>sizeof(idx) + PIECE * size + 256


cdef struct Place:
    # How far one has come: a row, and how many of its entries are done.
    idx row, done


@cython.final
cdef class SparsePass(LinearPass):
    """One pass over the rows of a CSR matrix, block by block, logits never whole.

    data: (nnz,) float32, float64 or uint8. indices: (nnz,) int32 or int64. indptr: (N + 1,) of any
    integer dtype. All native and contiguous. The rest is as for LinearPass, without dX.
    """
    cdef cnp.ndarray data, indices, indptr
    cdef Scratch w_scratch
    cdef const void *w_rows
    cdef int number_type, ptr_code
    cdef bint wide
    cdef idx n_rows, nnz, width, ld_w, index_size, data_size

    def __init__(self, str isa, int job, cnp.ndarray data, cnp.ndarray indices, cnp.ndarray indptr,
                 cnp.ndarray W, cnp.ndarray b, double x_scale, cnp.ndarray rows, Target target,
                 cnp.ndarray out, cnp.ndarray losses):
        cdef int code = code_of(data)
        self.f64 = cnp.PyArray_TYPE(W) == cnp.NPY_FLOAT64
        self.k = leaves_of(isa, self.f64)
        self.job, self.x_scale = job, x_scale
        self.W, self.b, self.rows = W, b, rows
        self.data, self.indices, self.indptr = data, indices, indptr
        self.t, self.out, self.losses = target, out, losses
        self.size = 8 if self.f64 else 4
        self.d, self.c = W.shape[0], W.shape[1]
        self.pick = NULL if rows is None else <const int64_t *>cnp.PyArray_DATA(rows)
        self.n_rows, self.nnz = indptr.shape[0] - 1, indices.shape[0]
        self.number_type = (SMX_U8 if code == U8 else SMX_F32 if code == F32 and self.f64
                            else SMX_REAL)
        self.data_size, self.index_size = data.itemsize, indices.itemsize
        self.wide = self.index_size == 8
        self.ptr_code = code_of(indptr)
        self.panelled = False
        self.row_block = self.k.row_block if self.c <= 64 else 256
        self.width = max(self.c, self.k.lanes)
        if self.as_rows(W):
            self.w_rows = cnp.PyArray_DATA(W)
            self.ld_w = W.strides[0] // self.size
        else:
            self.w_scratch = Scratch(self.d * self.width * self.size)
            self.w_rows = self.w_scratch.take(self.d * self.width * self.size)
            self.ld_w = self.width
            with nogil:
                if self.f64:
                    self.copy_W[double](NULL)
                else:
                    self.copy_W[float](NULL)

    cdef bint as_rows(self, cnp.ndarray W) noexcept:
        """Whether the leaves can take rows of such an array as they are."""
        return (self.c >= self.k.lanes and cnp.PyArray_STRIDES(W)[1] == self.size
                and cnp.PyArray_STRIDES(W)[0] % self.size == 0)

    cdef void copy_W(self, real *tag) noexcept nogil:
        cdef real *w = <real *>self.w_rows
        cdef idx j, i
        gather[real](self.k, self.d, self.c, <const char *>cnp.PyArray_DATA(self.W),
                     cnp.PyArray_STRIDES(self.W)[0], cnp.PyArray_STRIDES(self.W)[1],
                     w, self.width, 1)
        if self.c < self.width:
            for j in range(self.d):
                for i in range(self.c, self.width):
                    w[j * self.width + i] = 0

    cdef idx load(self, const idx *row, idx n, Place *at, idx lo, idx hi, bint all_of_them,
                  Entries *e, idx *bad) noexcept nogil:
        """Entries with a column in [lo, hi), from `at` on: as many as fit, of n rows at most.

        Returns how many rows have a part in them. Sets bad to the first row whose part of indptr
        is wrong, or (all_of_them) that has another column.
        """
        cdef const char *ptr = <const char *>cnp.PyArray_DATA(self.indptr)
        cdef idx ptr_size = cnp.PyArray_ITEMSIZE(self.indptr)
        cdef idx first = at.row, used = 0, r, m, kept, i
        cdef int64_t begin, end
        e.at[0] = 0
        while at.row < n:
            r = at.row - first
            begin = load_int(ptr + row[at.row] * ptr_size, self.ptr_code)
            end = load_int(ptr + (row[at.row] + 1) * ptr_size, self.ptr_code)
            # In this order: of the least int64, end - begin would be positive.
            if begin < 0 or end < begin or end > self.nnz or end - begin < at.done:
                bad[0] = at.row
                return 0
            begin += at.done
            m = min(<idx>(end - begin), PIECE - used)
            kept = self.k.sparse_pick(
                self.wide, self.number_type, m,
                <const char *>cnp.PyArray_DATA(self.indices) + begin * self.index_size,
                <const char *>cnp.PyArray_DATA(self.data) + begin * self.data_size,
                self.x_scale, lo, hi, e.col + used, <char *>e.val + used * self.size)
            if all_of_them and kept < m:
                bad[0] = at.row
                return 0
            used += kept
            e.at[r + 1] = used
            if m < end - begin:
                at.done += m
                first -= 1  # this row has its part, and is the next one's first
                break
            at.row += 1
            at.done = 0
        for i in range(used, used + SMX_SPARSE_AHEAD):  # for the leaves to look ahead at
            e.col[i] = e.col[used - 1] if used else 0
        return at.row - first

    cdef bint logits_rows(self, idx n, Rows *rows, Entries *e, real *R, idx *bad) noexcept nogil:
        """R (n, width) = the rows' logits; False if the matrix is wrong, at row *bad of n."""
        cdef const real *b = NULL if self.b is None else <const real *>cnp.PyArray_DATA(self.b)
        cdef Place at
        cdef idx r, j, first
        at.row = at.done = 0
        for r in range(n):
            for j in range(self.width):
                R[r * self.width + j] = b[j] if b != NULL and j < self.c else 0
        while at.row < n:
            first = at.row
            r = self.load(rows.a, n, &at, 0, self.d, True, e, bad)
            if bad[0] >= 0:
                return False
            self.k.sparse_logits(r, self.width, e.at, e.col, e.val, self.w_rows, self.ld_w,
                                 R + first * self.width, self.width)
        return True

    def run(self, idx lo, idx hi, Accumulator acc=None):
        """Rows lo to hi of the selection, without gradients.

        Returns (loss sum, n_correct, position of a bad label or -1, of a bad row or -1).
        """
        if self.f64:
            return self._run_forward[double](lo, hi, NULL)
        return self._run_forward[float](lo, hi, NULL)

    cdef _run_forward(self, idx lo, idx hi, real *tag):
        cdef SparseBlock w = SparseBlock(self)
        cdef LinearPass base = self  # Cython finds inherited fused methods only so
        cdef real *losses = NULL if self.losses is None else <real *>cnp.PyArray_DATA(self.losses)
        cdef idx at = lo, n, n_correct = 0, bad = -1, bad_row = -1
        cdef double total = 0
        with nogil:
            while at < hi:
                n = self.next_block(&at, hi, &w.rows, &bad)
                if bad >= 0:
                    break
                if n == 0:
                    continue
                if not self.logits_rows[real](n, &w.rows, &w.e, <real *>w.R, &bad_row):
                    bad_row = w.rows.place[bad_row]
                    break
                self.k.transpose(n, self.c, w.R, self.width, w.L, w.ldl)
                if self.job < LOSS:
                    base.emit[real](at - n, n, <real *>w.L, w.ldl, <real *>w.mx, &w.rows)
                    continue
                total += base.losses_of[real](n, w.rows, <real *>w.L, w.ldl, <real *>w.mx,
                                              <real *>w.ls, <real *>w.scale, losses)
                n_correct += count_correct(self.t, n, &w.rows)
        return total, n_correct, bad, bad_row

    def first_bad(self):
        """Go over indptr and indices of the selected rows.

        Returns (row, entry): the first row that is wrong, and which entry's index is, or -1 if it
        is indptr; (-1, -1) if all is well.
        """
        cdef idx n = self.n_rows if self.rows is None else self.rows.shape[0]
        cdef Scratch s = Scratch(entries_bytes(1, self.size))
        cdef Entries e = take_entries(s, 1, self.size)
        cdef idx i, row, bad = -1
        cdef Place at
        cdef int64_t begin, end, c
        cdef idx ptr_size = cnp.PyArray_ITEMSIZE(self.indptr)
        cdef const char *ptr = <const char *>cnp.PyArray_DATA(self.indptr)
        with nogil:
            for i in range(n):
                row = i if self.pick == NULL else self.pick[i]
                at.row, at.done = 0, 0
                while at.row < 1 and bad < 0:
                    self.load(&row, 1, &at, 0, self.d, True, &e, &bad)
                if bad >= 0:
                    break
        if bad < 0:
            return -1, -1
        begin = load_int(ptr + row * ptr_size, self.ptr_code)
        end = load_int(ptr + (row + 1) * ptr_size, self.ptr_code)
        if 0 <= begin <= end <= self.nnz:
            for i in range(begin, end):
                c = load_int(<const char *>cnp.PyArray_DATA(self.indices) + i * self.index_size,
                             I64 if self.wide else I32)
                if c < 0 or c >= self.d:
                    return row, i
        return row, -1


@cython.final
cdef class SparseBlock:
    """Work arrays for one block of rows of a SparsePass."""
    cdef Scratch s
    cdef Rows rows
    cdef Entries e
    cdef void *L
    cdef void *R
    cdef void *mx
    cdef void *ls
    cdef void *scale
    cdef idx ldl

    def __cinit__(self, SparsePass p):
        cdef idx rb = p.row_block, size = p.size
        self.ldl = rb + (16 if p.c > 64 else 0)
        self.s = Scratch((self.ldl * p.c + rb * p.width) * size + rb * (ROWS_BYTES + 3 * size)
                         + entries_bytes(rb, size) + 2048)
        self.L = self.s.take(self.ldl * p.c * size)
        memset(self.L, 0, self.ldl * p.c * size)
        self.R = self.s.take(rb * p.width * size)
        self.mx = self.s.take(rb * size)
        self.ls = self.s.take(rb * size)
        self.scale = self.s.take(rb * size)
        self.rows = take_rows(self.s, rb)
        self.e = take_entries(self.s, rb, size)


@cython.final
cdef class SparseGradient:
    """The gradient pass over a CSR matrix, in parts of several strips of rows.

    A part goes through two steps, each of which may run on several threads: losses and their
    gradients G by strips, then X^T G by ranges of columns. The strips are set by the shape. The
    ranges are as many as there are threads, and make no difference: each number of dW is a sum
    over the rows in their order, whoever adds it up. Every
    `most_rows` rows that sum starts anew, for it would lose float32's small gradients.
    """
    cdef SparsePass p
    cdef cnp.ndarray dW
    cdef Scratch s, g_scratch, total_scratch, acc_scratch
    cdef char *G
    cdef idx *kept          # the rows of each strip that count, and how many there are
    cdef idx *n_kept
    cdef double *db         # a sum for each strip, and the sum of all
    cdef char *total
    cdef char *acc
    cdef idx ld_total, n, strip_rows, strips_at_once, at, most
    cdef bint with_db
    cdef list bounds
    cdef readonly idx n_strips
    cdef readonly bint in_parts  # whether there is more than one

    def __init__(self, SparsePass p, cnp.ndarray dW, bint with_db, idx strip_rows, idx most_rows,
                 list bounds):
        cdef idx width = p.width, size = p.size, g_bytes
        self.p, self.dW, self.with_db, self.strip_rows = p, dW, with_db, strip_rows
        self.bounds = bounds
        self.n = p.n_rows if p.rows is None else p.rows.shape[0]
        g_bytes = strip_rows * width * size
        self.strips_at_once = min(max(1, PART_BYTES // g_bytes),
                                  (self.n + strip_rows - 1) // strip_rows)
        self.most = max(1, most_rows // strip_rows) * strip_rows
        self.in_parts = self.n > min(self.most, self.strips_at_once * strip_rows)
        self.at = self.n_strips = 0
        self.g_scratch = Scratch(self.strips_at_once * g_bytes)
        self.G = <char *>self.g_scratch.take(self.strips_at_once * g_bytes)
        self.s = Scratch((self.strips_at_once * (strip_rows + 1 + p.c) + p.c) * 8 + 512)
        self.kept = <idx *>self.s.take(self.strips_at_once * strip_rows * 8)
        self.n_kept = <idx *>self.s.take(self.strips_at_once * 8)
        self.db = <double *>self.s.take((self.strips_at_once + 1) * p.c * 8)
        memset(self.db, 0, (self.strips_at_once + 1) * p.c * 8)
        if p.as_rows(dW):
            self.total = <char *>cnp.PyArray_DATA(dW)
            self.ld_total = dW.strides[0] // size
        else:
            self.total_scratch = Scratch(p.d * width * size)
            self.total = <char *>self.total_scratch.take(p.d * width * size)
            memset(self.total, 0, p.d * width * size)
            self.ld_total = width
        if self.n > self.most:
            self.acc_scratch = Scratch(p.d * width * size)
            self.acc = <char *>self.acc_scratch.take(p.d * width * size)
            memset(self.acc, 0, p.d * width * size)

    def clear(self):
        """Set dW to 0, after the losses of the first part: its rows are well."""
        if self.at == 0 and self.total_scratch is None:
            self.dW[...] = 0

    def next_part(self):
        """Go on to the next part; False when there is none."""
        self.at += self.n_strips * self.strip_rows
        if self.at >= self.n:
            return False
        cdef idx end = min(self.n, self.at + self.strips_at_once * self.strip_rows)
        end = min(end, (self.at // self.most + 1) * self.most)
        self.n_strips = (end - self.at + self.strip_rows - 1) // self.strip_rows
        return True

    def losses(self, idx strip):
        """Loss sum and number of correct rows of a strip, position of a bad label or -1, of a bad
        row or -1."""
        if self.p.f64:
            return self._losses[double](strip, NULL)
        return self._losses[float](strip, NULL)

    cdef _losses(self, idx strip, real *tag):
        cdef SparsePass p = self.p
        cdef LinearPass base = p
        cdef SparseBlock w = SparseBlock(p)
        cdef real *losses = NULL if p.losses is None else <real *>cnp.PyArray_DATA(p.losses)
        cdef real *L = <real *>w.L
        cdef real *G
        cdef double *db = self.db + strip * p.c
        cdef idx *kept = self.kept + strip * self.strip_rows
        cdef idx at = self.at + strip * self.strip_rows, hi = min(self.n, at + self.strip_rows)
        cdef idx n, r, j, count = 0, n_correct = 0, bad = -1, bad_row = -1
        cdef double total = 0
        with nogil:
            memset(db, 0, p.c * 8)
            while at < hi:
                n = p.next_block(&at, hi, &w.rows, &bad)
                if bad >= 0:
                    break
                if n == 0:
                    continue
                G = <real *>self.G + (strip * self.strip_rows + count) * p.width
                if not p.logits_rows[real](n, &w.rows, &w.e, G, &bad_row):
                    bad_row = w.rows.place[bad_row]
                    break
                p.k.transpose(n, p.c, G, p.width, L, w.ldl)
                total += base.losses_of[real](n, w.rows, L, w.ldl, <real *>w.mx, <real *>w.ls,
                                              <real *>w.scale, losses)
                n_correct += count_correct(p.t, n, &w.rows)
                if self.with_db:
                    p.k.add_sums(n, p.c, L, w.ldl, db)
                p.k.transpose(p.c, n, L, w.ldl, G, p.width)
                for r in range(n):
                    kept[count + r] = w.rows.a[r]
                    for j in range(p.c, p.width):
                        G[r * p.width + j] = 0
                count += n
            self.n_kept[strip] = count
        return total, n_correct, bad, bad_row

    def gradients(self, idx i):
        """The part's gradient for the features of a range; False if the matrix has changed."""
        if self.p.f64:
            return self._gradients[double](self.bounds[i], self.bounds[i + 1], NULL)
        return self._gradients[float](self.bounds[i], self.bounds[i + 1], NULL)

    cdef _gradients(self, idx lo, idx hi, real *tag):
        cdef SparsePass p = self.p
        cdef Scratch s = Scratch(entries_bytes(self.strip_rows, p.size))
        cdef Entries e = take_entries(s, self.strip_rows, p.size)
        cdef real *total = <real *>self.total
        cdef real *acc = total if self.acc == NULL else <real *>self.acc
        cdef idx ld = self.ld_total if self.acc == NULL else p.width
        cdef idx strip, first, n, i, j, bad = -1
        cdef idx end = self.at + self.n_strips * self.strip_rows
        cdef Place at
        with nogil:
            for strip in range(self.n_strips):
                at.row, at.done = 0, 0
                while at.row < self.n_kept[strip] and bad < 0:
                    first = at.row
                    n = p.load(self.kept + strip * self.strip_rows, self.n_kept[strip], &at, lo, hi,
                               False, &e, &bad)
                    p.k.sparse_outer(
                        n, p.width, e.at, e.col, e.val,
                        <real *>self.G + (strip * self.strip_rows + first) * p.width, p.width,
                        acc, ld)
            if self.acc != NULL and (end % self.most == 0 or end >= self.n):
                for i in range(lo, hi):
                    for j in range(p.c):
                        total[i * self.ld_total + j] += acc[i * p.width + j]
                    for j in range(p.width):
                        acc[i * p.width + j] = 0
        return bad < 0

    def finish_part(self):
        """The strips' parts of db."""
        cdef idx strip, j
        for strip in range(self.n_strips):
            for j in range(self.p.c):
                self.db[self.strips_at_once * self.p.c + j] += self.db[strip * self.p.c + j]

    def finish(self, cnp.ndarray db):
        """dW, where it is not there yet, and db, after the last part."""
        cdef idx j
        cdef double *sums = self.db + self.strips_at_once * self.p.c
        if self.total_scratch is not None:
            if self.p.f64:
                self._finish[double](NULL)
            else:
                self._finish[float](NULL)
        elif self.n == 0:
            self.dW[...] = 0
        if db is not None:
            for j in range(self.p.c):
                if self.p.f64:
                    (<double *>cnp.PyArray_GETPTR1(db, j))[0] = sums[j]
                else:
                    (<float *>cnp.PyArray_GETPTR1(db, j))[0] = <float>sums[j]

    cdef void _finish(self, real *tag) noexcept:
        cdef SparsePass p = self.p
        scatter[real](p.k, p.d, p.c, <real *>self.total, p.width, 1,
                      <char *>cnp.PyArray_DATA(self.dW), cnp.PyArray_STRIDES(self.dW)[0],
                      cnp.PyArray_STRIDES(self.dW)[1])
