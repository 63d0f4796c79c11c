# The drivers for a sparse X in CSR form; included by _kernels.pyx.
#
# Only the two products differ from LinearPass. A row's logits are a sum of rows of W, its gradient
# goes to rows of dW; so here L and G are also row-major (row r, class c at L[r*padded + c]), and W
# and dW stay as they are, (D, C). The matrix is not trusted: of indptr and indices nothing is used
# but the value that was checked.

# An entry takes as long as so many multiplications, and so many more for each class: it waits for
# memory (7 ns at 2 classes, 13 at 20, 60 at 100).
cdef idx ENTRY_PRODUCTS = 200
cdef idx ENTRY_CLASS_PRODUCTS = 24
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


cdef Entries lay_out_entries(size_t *at, idx rows, idx size) noexcept nogil:
    cdef Entries e
    e.col = <idx *>place(at, (PIECE + SMX_SPARSE_AHEAD) * sizeof(idx))
    e.val = place(at, PIECE * size)
    e.at = <idx *>place(at, (rows + 1) * sizeof(idx))
    return e


cdef struct Place:
    # How far one has come: a row, and how many of its entries are done.
    idx row, done


cdef struct SparseBlock:
    # Work arrays for one block of rows of a SparsePass.
    Rows rows
    Entries e
    void *L
    void *R
    void *mx
    void *ls
    void *scale


@cython.final
cdef class SparsePass(Pass):
    """A pass over a CSR matrix."""
    cdef cnp.ndarray data, indices, indptr
    cdef Scratch w_scratch
    cdef const void *w_rows
    cdef int number_type, ptr_code
    cdef bint wide
    cdef idx nnz, entries, ld_w, ldl, index_size, data_size
    cdef idx padded, dw_padded      # columns of W and of dW, a vector at least

    def __init__(self, str isa, int purpose, Examples examples, cnp.ndarray W, cnp.ndarray b,
                 cnp.ndarray rows, double denominator):
        cdef cnp.ndarray data = examples.data, indices = examples.indices
        cdef cnp.ndarray indptr = examples.indptr
        Pass.__init__(self, isa, purpose, examples, W, b, rows, denominator)
        self.data, self.indices, self.indptr = data, indices, indptr
        self.nnz = indices.shape[0]
        self.entries = (self.nnz + examples.n - 1) // max(1, examples.n)
        self.number_type = type_of(code_of(data), self.f64)
        self.data_size, self.index_size = data.itemsize, indices.itemsize
        self.wide = self.index_size == 8
        self.ptr_code = code_of(indptr)
        self.row_block = self.k.row_block if self.width <= 64 else self.k.row_block_most
        self.padded = max(self.width, self.k.lanes)
        self.dw_padded = max(self.dw_width, self.k.lanes)
        self.ldl = self.row_block + (16 if self.width > 64 else 0)
        if self.as_rows(W, self.width):
            self.w_rows = cnp.PyArray_DATA(W)
            self.ld_w = W.strides[0] // self.size
        else:
            self.w_scratch = Scratch(self.d * self.padded * self.size)
            self.w_rows = self.w_scratch.at
            self.ld_w = self.padded
            with nogil:
                if self.f64:
                    self.copy_W[double](NULL)
                else:
                    self.copy_W[float](NULL)

    cpdef idx work(self) noexcept:
        return self.entries * (ENTRY_PRODUCTS + self.width * ENTRY_CLASS_PRODUCTS)

    cdef bint as_rows(self, cnp.ndarray W, idx width) noexcept:
        """Whether the leaves can take rows of such an array as they are."""
        return (width >= self.k.lanes and cnp.PyArray_STRIDES(W)[1] == self.size
                and cnp.PyArray_STRIDES(W)[0] % self.size == 0)

    cdef void copy_W(self, real *tag) noexcept nogil:
        cdef real *w = <real *>self.w_rows
        cdef idx j, i
        gather[real](self.k, self.d, self.width, <const char *>cnp.PyArray_DATA(self.W),
                     cnp.PyArray_STRIDES(self.W)[0], cnp.PyArray_STRIDES(self.W)[1],
                     w, self.padded, 1)
        if self.width < self.padded:
            for j in range(self.d):
                for i in range(self.width, self.padded):
                    w[j * self.padded + i] = 0

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
        """R (n, padded) = the rows' logits; False if the matrix is wrong, at row *bad of n."""
        cdef const real *b = NULL if self.b is None else <const real *>cnp.PyArray_DATA(self.b)
        cdef Place at
        cdef idx r, j, first
        at.row = at.done = 0
        for r in range(n):
            for j in range(self.padded):
                R[r * self.padded + j] = b[j] if b != NULL and j < self.width else 0
        while at.row < n:
            first = at.row
            r = self.load(rows.a, n, &at, 0, self.d, True, e, bad)
            if bad[0] >= 0:
                return False
            self.k.sparse_logits(r, self.padded, e.at, e.col, e.val, self.w_rows, self.ld_w,
                                 R + first * self.padded, self.padded)
        return True

    cdef idx lay_out(self, size_t at, SparseBlock *w) noexcept nogil:
        """The work arrays of a block, from `at` on; their size if that is 0."""
        cdef idx rb = self.row_block, size = self.size
        w.L = place(&at, self.ldl * self.width * size)
        w.R = place(&at, rb * self.padded * size)
        w.mx = place(&at, rb * size)
        w.ls = place(&at, rb * size)
        w.scale = place(&at, rb * size)
        w.rows = lay_out_rows(&at, rb)
        w.e = lay_out_entries(&at, rb, size)
        return at

    def run(self, int threads, cnp.ndarray out, cnp.ndarray losses):
        """All rows, without gradients. Returns what `outcome` does."""
        cdef SparseBlock w
        self.out, self.losses = out, losses
        self.step = self.forward_step()
        self.run_rows((self.n + self.step - 1) // self.step, self.worth(threads), 0,
                      self.lay_out(0, &w))
        return outcome(&self.total, self.groups)

    cdef void slice(self, idx i, idx slot, size_t scratch) noexcept nogil:
        cdef SparseBlock w
        cdef Result *result = self.begin(slot)
        cdef idx lo = i * self.step, hi = min(self.n, lo + self.step)
        self.lay_out(scratch, &w)
        memset(w.L, 0, self.ldl * self.width * self.size)
        if self.f64:
            self.run_blocks[double](lo, hi, &w, result, NULL)
        else:
            self.run_blocks[float](lo, hi, &w, result, NULL)

    cdef void run_blocks(self, idx lo, idx hi, SparseBlock *w, Result *result,
                         real *tag) noexcept nogil:
        cdef idx at = lo, n
        while at < hi:
            n = self.next_block(&at, hi, &w.rows, &result.bad)
            if result.bad >= 0:
                return
            if n == 0:
                continue
            if not self.logits_rows[real](n, &w.rows, &w.e, <real *>w.R, &result.bad_row):
                result.bad_row = w.rows.place[result.bad_row]
                return
            self.k.transpose(n, self.width, w.R, self.padded, w.L, self.ldl)
            if self.purpose < LOSS:
                emit[real](self, at - n, n, False, <real *>w.L, self.ldl, <real *>w.mx, &w.rows)
                continue
            add_losses[real](self, n, &w.rows, False, <real *>w.L, self.ldl, <real *>w.mx,
                             <real *>w.ls, <real *>w.scale, result)

    def first_bad(self):
        """Go over indptr and indices of the selected rows.

        Returns (row, entry): the first row that is wrong, and which entry's index is, or -1 if it
        is indptr; (-1, -1) if all is well.
        """
        cdef size_t at_entries = 0
        cdef Entries e = lay_out_entries(&at_entries, 1, self.size)
        cdef Scratch s = Scratch(at_entries)
        cdef idx n = self.n
        cdef idx i, row, bad = -1
        cdef Place at
        cdef int64_t begin, end, c
        cdef idx ptr_size = cnp.PyArray_ITEMSIZE(self.indptr)
        cdef const char *ptr = <const char *>cnp.PyArray_DATA(self.indptr)
        at_entries = <size_t>s.at
        e = lay_out_entries(&at_entries, 1, self.size)
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
cdef class SparseGradient(RowsJob):
    """The gradient pass over a CSR matrix, in parts of several strips of rows.

    A part goes through two steps, each of which may run on several threads: losses and their
    gradients G by strips, then X^T G by ranges of columns. The strips are set by the shape. The
    ranges are as many as threads work at a time, and make no difference: each number of dW is a sum
    over the rows in their order, whoever adds it up. Every
    `most_rows` rows that sum starts anew, for it would lose float32's small gradients.
    """
    cdef SparsePass p
    cdef cnp.ndarray dW, db
    cdef Scratch s, g_scratch, total_scratch, acc_scratch
    cdef char *G
    cdef idx *kept          # the rows of each strip that count, and how many there are
    cdef idx *n_kept
    cdef idx *bounds        # of the ranges of columns
    cdef double *sums       # of G: of each strip, and then of all
    cdef Result whole       # of all parts
    cdef char *total_dW
    cdef char *acc
    cdef idx ld_total, strip_rows, strips_at_once, at, most, n_strips, n_ranges
    cdef Step step
    cdef readonly bint in_parts  # whether there is more than one

    def __init__(self, SparsePass p, cnp.ndarray losses, cnp.ndarray dW, cnp.ndarray db,
                 idx strip_rows, idx most_rows, list bounds):
        cdef idx padded = p.dw_padded, size = p.size, g_bytes, i
        cdef size_t at
        self.p, self.dW, self.db, self.strip_rows = p, dW, db, strip_rows
        self.groups, p.losses = p.groups, losses
        g_bytes = strip_rows * padded * size
        self.strips_at_once = min(max(1, PART_BYTES // g_bytes),
                                  (p.n + strip_rows - 1) // strip_rows)
        self.most = max(1, most_rows // strip_rows) * strip_rows
        self.in_parts = p.n > min(self.most, self.strips_at_once * strip_rows)
        self.at = self.n_strips = 0
        self.n_ranges = len(bounds) - 1
        self.g_scratch = Scratch(self.strips_at_once * g_bytes)
        self.G = self.g_scratch.at
        self.s = Scratch(self.lay_out_rows_kept(0))
        self.lay_out_rows_kept(<size_t>self.s.at)
        for i in range(self.n_ranges + 1):
            self.bounds[i] = bounds[i]
        clear_result(&self.whole, p.groups)
        memset(self.sums, 0, (self.strips_at_once + 1) * p.dw_width * 8)
        if p.as_rows(dW, p.dw_width):
            self.total_dW = <char *>cnp.PyArray_DATA(dW)
            self.ld_total = dW.strides[0] // size
        else:
            self.total_scratch = Scratch(p.d * padded * size)
            self.total_dW = self.total_scratch.at
            memset(self.total_dW, 0, p.d * padded * size)
            self.ld_total = padded
        if p.n > self.most:
            self.acc_scratch = Scratch(p.d * padded * size)
            self.acc = self.acc_scratch.at
            memset(self.acc, 0, p.d * padded * size)

    cdef idx lay_out_rows_kept(self, size_t at) noexcept:
        self.kept = <idx *>place(&at, self.strips_at_once * self.strip_rows * sizeof(idx))
        self.n_kept = <idx *>place(&at, self.strips_at_once * sizeof(idx))
        self.sums = <double *>place(&at, (self.strips_at_once + 1) * self.p.dw_width
                                       * sizeof(double))
        self.bounds = <idx *>place(&at, (self.n_ranges + 1) * sizeof(idx))
        self.whole = lay_out_result(&at, self.groups)
        return at

    def run(self, int threads):
        """All rows. Returns what `outcome` does."""
        cdef idx strip, j, width = self.p.dw_width
        cdef double *all_sums = self.sums + self.strips_at_once * width
        while self.next_part():
            self.go(LOSSES, self.n_strips, threads)
            add_result(&self.whole, &self.total, self.groups)
            if self.total.bad < 0 and self.total.bad_row < 0:
                if self.at == 0 and self.total_scratch is None:  # the first rows are right
                    self.dW[...] = 0
                self.go(GRADIENTS, self.n_ranges, threads)
            if self.total.bad >= 0 or self.total.bad_row >= 0:
                return outcome(&self.total, self.groups)
            for strip in range(self.n_strips):
                for j in range(width):
                    all_sums[j] += self.sums[strip * width + j]
        if self.total_scratch is not None:
            if self.p.f64:
                self.put_dW[double](NULL)
            else:
                self.put_dW[float](NULL)
        elif self.p.n == 0:
            self.dW[...] = 0
        if self.db is not None:
            put_bias_gradient(self.p, all_sums, self.db)
        return outcome(&self.whole, self.groups)

    cdef bint next_part(self) noexcept:
        """Go on to the next part; False when there is none."""
        cdef idx end
        self.at += self.n_strips * self.strip_rows
        if self.at >= self.p.n:
            return False
        end = min(self.p.n, self.at + self.strips_at_once * self.strip_rows)
        end = min(end, (self.at // self.most + 1) * self.most)
        self.n_strips = (end - self.at + self.strip_rows - 1) // self.strip_rows
        return True

    cdef go(self, Step step, idx n_slices, int threads):
        cdef SparseBlock w
        cdef size_t at = 0
        self.step = step
        if step == LOSSES:
            at = self.p.lay_out(0, &w)
        else:
            lay_out_entries(&at, self.strip_rows, self.p.size)
        self.run_rows(n_slices, threads, 0, at)

    cdef void slice(self, idx i, idx slot, size_t scratch) noexcept nogil:
        cdef SparseBlock w
        cdef Entries e
        cdef Result *result = self.begin(slot)
        if self.step == LOSSES:
            self.p.lay_out(scratch, &w)
            memset(w.L, 0, self.p.ldl * self.p.width * self.p.size)
            if self.p.f64:
                self.losses[double](i, &w, result, NULL)
            else:
                self.losses[float](i, &w, result, NULL)
            return
        e = lay_out_entries(&scratch, self.strip_rows, self.p.size)
        if self.p.f64:
            self.gradients[double](self.bounds[i], self.bounds[i + 1], &e, result, NULL)
        else:
            self.gradients[float](self.bounds[i], self.bounds[i + 1], &e, result, NULL)

    cdef void losses(self, idx strip, SparseBlock *w, Result *result, real *tag) noexcept nogil:
        """Losses of a strip of rows, their gradients to G, and the rows that count to `kept`."""
        cdef idx width = self.p.dw_width, padded = self.p.dw_padded, ldl = self.p.ldl
        cdef real *L = <real *>w.L
        cdef real *G
        cdef double *sums = self.sums + strip * width
        cdef idx *kept = self.kept + strip * self.strip_rows
        cdef idx at = self.at + strip * self.strip_rows, hi = min(self.p.n, at + self.strip_rows)
        cdef idx n, r, j, count = 0
        memset(sums, 0, width * 8)
        while at < hi:
            n = self.p.next_block(&at, hi, &w.rows, &result.bad)
            if result.bad >= 0:
                break
            if n == 0:
                continue
            G = <real *>self.G + (strip * self.strip_rows + count) * padded
            if not self.p.logits_rows[real](n, &w.rows, &w.e, <real *>w.R, &result.bad_row):
                result.bad_row = w.rows.place[result.bad_row]
                break
            self.p.k.transpose(n, self.p.width, w.R, self.p.padded, L, ldl)
            take_block[real](self.p, n, &w.rows, False, L, ldl, <real *>w.mx, <real *>w.ls,
                             <real *>w.scale, result)
            if self.db is not None:
                self.p.k.add_sums(n, width, L, ldl, sums)
            self.p.k.transpose(width, n, L, ldl, G, padded)
            for r in range(n):
                kept[count + r] = w.rows.a[r]
                for j in range(width, padded):
                    G[r * padded + j] = 0
            count += n
        self.n_kept[strip] = count

    cdef void gradients(self, idx lo, idx hi, Entries *e, Result *result,
                        real *tag) noexcept nogil:
        """The part's gradient for the features lo to hi."""
        cdef idx padded = self.p.dw_padded
        cdef real *total = <real *>self.total_dW
        cdef real *acc = total if self.acc == NULL else <real *>self.acc
        cdef idx ld = self.ld_total if self.acc == NULL else padded
        cdef idx strip, first, n, i, j
        cdef idx end = self.at + self.n_strips * self.strip_rows
        cdef Place at
        for strip in range(self.n_strips):
            at.row, at.done = 0, 0
            while at.row < self.n_kept[strip] and result.bad_row < 0:
                first = at.row
                n = self.p.load(self.kept + strip * self.strip_rows, self.n_kept[strip], &at, lo,
                                hi, False, e, &result.bad_row)
                self.p.k.sparse_outer(
                    n, padded, e.at, e.col, e.val,
                    <real *>self.G + (strip * self.strip_rows + first) * padded, padded, acc, ld)
        if self.acc != NULL and (end % self.most == 0 or end >= self.p.n):
            for i in range(lo, hi):
                for j in range(self.p.dw_width):
                    total[i * self.ld_total + j] += acc[i * padded + j]
                for j in range(padded):
                    acc[i * padded + j] = 0

    cdef void put_dW(self, real *tag) noexcept:
        scatter[real](self.p.k, self.p.d, self.p.dw_width, <real *>self.total_dW, self.p.dw_padded, 1,
                      <char *>cnp.PyArray_DATA(self.dW), cnp.PyArray_STRIDES(self.dW)[0],
                      cnp.PyArray_STRIDES(self.dW)[1])
