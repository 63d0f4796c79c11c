# The linear layer over a dense X.

cdef enum Purpose:  # what a pass over X is for
    LINEAR, PROBA, PREDICT, LOSS, GRADIENT, HESSIAN

# Classes of a gradient that are turned at a time to be added to one in another layout.
cdef idx FLIPPED = 32

# Slices of rows without gradients: at least so many multiplications, some 20 microseconds, and a
# 64th of the rows, for the first ones of a slice are not fetched ahead.
cdef idx SLICE_PRODUCTS = 1 << 20
# With gradients they have sums of their own, to be cleared and merged: at least so many
# multiplications and rows.
cdef idx GRADIENT_PRODUCTS = 1 << 22
cdef idx GRADIENT_ROWS = 1024
# And at most so many rows, for more would lose float32's small gradients in their large sum.
cdef idx MOST_ROWS = 1 << 16
# A slice is some 10 milliseconds' work at most, where it may be: Ctrl-C waits for the end of one.
cdef idx MOST_PRODUCTS = 1 << 29
# Work that is worth a second thread: a minibatch of 256 x 784 x 10.
cdef idx THREADED_PRODUCTS = 3 << 19
# A gradient of W of more bytes is added up in the result, for want of memory, and by more rows.
cdef idx LARGE_BYTES = 1 << 20


cdef class Pass(RowsJob):
    """One pass over the rows of X, block by block, logits never whole; what dense and sparse X share.

    W: (D, width) of the compute type, any strides. b: (width,) contiguous or None. rows: contiguous
    int64 in [0, N), or None. denominator: what gradients are divided by. For LOSS and GRADIENT the
    width may be that of several weight matrices (D, C) side by side, each a group of C classes with
    a loss of its own: softmax and losses go by group, the products know the width only. For HESSIAN
    the second half of W is the direction V.

    What a run fills: out (n, width) for LINEAR and PROBA, (n,) intp for PREDICT; losses (n,) or
    None for LOSS and GRADIENT of one group, which start as zeros and stay so where a row is ignored.
    """
    cdef cnp.ndarray W, b, rows, out, losses
    cdef Target t
    cdef smx_leaves *k
    cdef int purpose
    cdef bint f64
    cdef readonly idx row_block, n
    cdef idx d, size, step
    cdef idx width      # columns of W: what the product has for a row
    cdef idx c          # classes of a group, of which the width has self.groups
    cdef idx dw_width   # columns of dW: the width, but not of a direction
    cdef double x_scale, denominator
    cdef const int64_t *pick

    def __init__(self, str isa, int purpose, Examples examples, cnp.ndarray W, cnp.ndarray b,
                 cnp.ndarray rows, double denominator):
        self.f64 = cnp.PyArray_TYPE(W) == cnp.NPY_FLOAT64
        self.k = leaves_of(isa, self.f64)
        self.purpose, self.x_scale, self.denominator = purpose, examples.x_scale, denominator
        self.W, self.b, self.rows = W, b, rows
        self.t = examples.target
        self.size = 8 if self.f64 else 4
        self.d, self.width = W.shape[0], W.shape[1]
        self.c = self.width if self.t is None else self.t.c
        self.dw_width = self.c if purpose == HESSIAN else self.width
        self.groups = self.dw_width // self.c
        self.pick = NULL if rows is None else <const int64_t *>cnp.PyArray_DATA(rows)
        self.n = examples.n if rows is None else rows.shape[0]

    cpdef idx work(self) noexcept:
        """Multiplications that take as long as a row."""
        return self.d * self.width

    cdef int worth(self, int threads) noexcept:
        """How many of the threads are worth their while."""
        return threads if self.n * self.work() >= THREADED_PRODUCTS else 1

    cpdef idx forward_step(self) noexcept:
        """Rows of a slice without gradients."""
        cdef idx work = max(1, self.work())
        return round_up(max(1, SLICE_PRODUCTS // work, min((self.n + 63) // 64, MOST_PRODUCTS // work)),
                        self.row_block)

    cdef idx next_block(self, idx *at, idx hi, Rows *rows, idx *bad) noexcept nogil:
        """Up to row_block rows that are not ignored, from *at on, with their labels."""
        cdef idx n = 0, i
        cdef int64_t y
        while n < self.row_block and at[0] < hi:
            i = at[0] if self.pick == NULL else self.pick[at[0]]
            rows.a[n], rows.b[n], rows.place[n] = i, 0, at[0]
            if self.purpose >= LOSS and self.t.hard:
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


cdef void take_block(Pass p, idx n, Rows *rows, bint by_rows, real *L, idx ld, real *mx, real *ls,
                     real *scale, Result *result) noexcept nogil:
    """What a block's logits are for: losses, and gradients or products with the Hessian in L."""
    if p.purpose == HESSIAN:
        directions_of[real](p, n, rows, by_rows, L, ld, mx, scale)
    else:
        add_losses[real](p, n, rows, by_rows, L, ld, mx, ls, scale, result)


cdef void directions_of(Pass p, idx n, Rows *rows, bint by_rows, real *L, idx ld, real *mx,
                        real *scale) noexcept nogil:
    """In the first half of L, in place of the logits: what their gradient changes by along the
    direction, whose part is in the second half."""
    cdef idx padded = round_up(n, p.k.lanes)
    factors[real](p.t, p.denominator, n, rows, scale)
    if by_rows:
        p.k.argmax_rows(n, p.c, L, ld, mx, rows.arg)
        p.k.softmax_rows(SMX_PROB, n, p.c, L, ld, NULL, L, ld, NULL, NULL)
        p.k.hessian_rows(n, p.c, L + p.c, ld, rows.arg, scale, L, ld)
    else:
        p.k.argmax_cols(n, p.c, L, ld, mx, rows.arg)
        p.k.softmax_cols(SMX_PROB, padded, p.c, L, ld, mx, NULL, L, ld, NULL, NULL)
        p.k.hessian_cols(n, p.c, L + p.c * ld, ld, rows.arg, scale, L, ld)


cdef void add_losses(Pass p, idx n, Rows *rows, bint by_rows, real *L, idx ld, real *mx, real *ls,
                     real *scale, Result *result) noexcept nogil:
    """Each group's losses of a block, and its rows that are right, to the result; L becomes the
    gradient if one is wanted."""
    cdef idx g
    for g in range(p.groups):
        result.loss[g] += losses_of[real](p, n, rows, by_rows, L, ld, mx, ls, scale)
        result.n_correct[g] += count_correct(p.t, n, rows)
        L += p.c if by_rows else p.c * ld


cdef double losses_of(Pass p, idx n, Rows *rows, bint by_rows, real *L, idx ld, real *mx, real *ls,
                      real *scale) noexcept nogil:
    """The rows' losses in one group, summed and (if wanted) one by one; L becomes the gradient if
    one is wanted."""
    cdef double total
    cdef idx r, padded = round_up(n, p.k.lanes)
    cdef idx sr = ld if by_rows else 1, sc = 1 if by_rows else ld
    cdef int mode = SMX_PROB if p.purpose == GRADIENT else SMX_STATS
    cdef real *losses
    if by_rows:
        p.k.argmax_rows(n, p.c, L, ld, mx, rows.arg)
    else:
        p.k.argmax_cols(n, p.c, L, ld, mx, rows.arg)
    factors[real](p.t, p.denominator, n, rows, scale)
    deviations[real](p.t, n, rows, L, sr, sc, mx)
    if by_rows:
        p.k.softmax_rows(mode, n, p.c, L, ld, scale, L, ld, NULL, ls)
    else:
        p.k.softmax_cols(mode, padded, p.c, L, ld, mx, scale, L, ld, NULL, ls)
    if p.purpose == GRADIENT:
        subtract_targets[real](p.t, p.denominator, n, rows, L, sr, sc)
    total = finish_losses[real](n, rows, ls)
    if p.losses is not None:
        losses = <real *>cnp.PyArray_DATA(p.losses)
        for r in range(n):
            losses[rows.place[r]] = <real>rows.loss[r]
    return total


cdef void emit(Pass p, idx lo, idx n, bint by_rows, real *L, idx ld, real *mx,
               Rows *rows) noexcept nogil:
    """The block's logits, probabilities or predictions to out[lo : lo + n]."""
    cdef char *out = <char *>cnp.PyArray_DATA(p.out)
    cdef idx r, so = cnp.PyArray_STRIDES(p.out)[0], padded = round_up(n, p.k.lanes)
    if p.purpose == PREDICT:
        if by_rows:
            p.k.argmax_rows(n, p.c, L, ld, mx, rows.arg)
        else:
            p.k.argmax_cols(n, p.c, L, ld, mx, rows.arg)
        for r in range(n):
            (<idx *>(out + (lo + r) * so))[0] = rows.arg[r]
        return
    if p.purpose == PROBA and by_rows:
        p.k.softmax_rows(SMX_PROB, n, p.c, L, ld, NULL, L, ld, NULL, NULL)
    elif p.purpose == PROBA:
        p.k.softmax_cols(SMX_PROB, padded, p.c, L, ld, NULL, NULL, L, ld, NULL, NULL)
    scatter[real](p.k, n, p.c, L, ld if by_rows else 1, 1 if by_rows else ld,
                  out + lo * so, so, cnp.PyArray_STRIDES(p.out)[1])


cdef void put_bias_gradient(Pass p, const double *sums, cnp.ndarray db):
    """db from its float64 sums."""
    cdef idx j
    for j in range(p.dw_width):
        if p.f64:
            (<double *>cnp.PyArray_GETPTR1(db, j))[0] = sums[j]
        else:
            (<float *>cnp.PyArray_GETPTR1(db, j))[0] = <float>sums[j]


cdef struct Block:
    # Work arrays for one block of rows of a LinearPass.
    Rows rows
    void *L
    void *G
    void *mx
    void *ls
    void *scale
    void *xs            # copies of rows that the leaves cannot read as they are
    void *dxs           # gradient of the rows
    void *Wt            # W transposed, or one panel of it
    const void **xp     # where the rows are
    const void **ahead  # where the next ones are
    const void **wp     # where the rows of Wt are
    const void **wr     # by rows: where the rows of W are
    void *packed        # what tiles want beside Wt
    void *room          # and work in
    smx_ahead coming


cdef struct Sums:
    # Gradients added up over a range of rows: of W, class-major, and of b (NULL: not wanted).
    void *dW
    double *db


@cython.final
cdef class LinearPass(Pass):
    """A pass over a dense X."""
    cdef cnp.ndarray X, dX, dW, db
    cdef Scratch w_scratch, sums_scratch
    cdef int x_code, x_type             # in memory; and of the rows that the leaves get
    cdef bint direct, by_rows, w_direct
    cdef bint tiled, dX_tiled           # products with X, and with W for dX, go by tiles
    cdef bint in_rows                   # rows of X are read as they lie, perhaps to be widened
    cdef public cnp.ndarray next_rows   # rows of X that will be wanted after this pass, or None
    cdef readonly bint panelled
    cdef bint shared                    # several threads take parts of this pass
    cdef idx de, ldw, ldr, ld, ldg, panel, n_panels, panel_bytes, packed_bytes
    cdef void *Wt
    cdef void *packed
    cdef const void **wr
    cdef const char *x_data
    cdef const char *w_data
    cdef idx xr, xc, wd, wc
    # The gradients' sums of each slot and of all of them, and memory to turn some of them in.
    cdef size_t sums_at
    cdef idx sums_bytes
    cdef Sums all_sums
    cdef void *turned
    cdef bint in_place                  # gradients of W are added up in dW itself
    cdef bint one_slice

    def __init__(self, str isa, int purpose, Examples examples, cnp.ndarray W, cnp.ndarray b,
                 cnp.ndarray rows, double denominator):
        cdef idx w_bytes
        cdef int stored
        cdef cnp.ndarray X = examples.X
        Pass.__init__(self, isa, purpose, examples, W, b, rows, denominator)
        self.X = X
        self.x_code = code_of(X)
        self.x_data, self.w_data = <const char *>cnp.PyArray_DATA(X), <const char *>cnp.PyArray_DATA(W)
        self.xr, self.xc = X.strides[0], X.strides[1]
        self.wd, self.wc = W.strides[0], W.strides[1]
        # Fewer features than lanes: rows are copied and padded with zeros to a full vector.
        self.de = max(self.d, self.k.lanes)
        self.ldw = odd_lines(round_up(self.de, self.k.lanes), self.size)
        self.by_rows = self.width >= self.k.rows_from and self.c >= self.k.lanes
        self.ldr = odd_lines(self.width, self.size)
        stored = type_of(self.x_code, self.f64)
        self.x_type = SMX_REAL
        if smx_by_tiles(self.k, stored, self.d, self.width):
            self.x_type = stored
        self.dX_tiled = smx_by_tiles(self.k, SMX_REAL, self.d, self.width)
        # Halves are widened where float32 goes by tiles, whatever their layout.
        self.direct = self.d >= self.k.lanes and self.xc == X.itemsize and (
            self.x_type == stored
            or (self.width <= self.k.direct_most[stored] and not self.dX_tiled))
        if self.direct:
            self.x_type = stored
        self.tiled = smx_by_tiles(self.k, self.x_type, self.d, self.width)
        self.in_rows = self.direct or (stored != SMX_REAL and self.xc == X.itemsize)
        self.w_direct = self.wc == self.size and self.x_scale == 1
        w_bytes = self.width * self.ldw * self.size
        self.panelled = w_bytes > self.k.resident_bytes
        self.n_panels = 1
        if self.panelled:  # by rows, none narrower than a vector
            self.n_panels = max(1, min(w_bytes // self.k.panel_bytes + 1,
                                       self.width // self.k.lanes if self.by_rows
                                       else self.width))
            if purpose == HESSIAN:  # the first half of them are those of dW
                self.n_panels = max(2, self.n_panels // 2 * 2)
        self.panel = (self.width + self.n_panels - 1) // self.n_panels
        self.panel_bytes = max(self.panel * self.ldw,
                               self.d * odd_lines(self.panel, self.size)) * self.size
        self.packed_bytes = (self.k.tiles.packed_bytes(self.x_type, self.de, self.panel)
                             if self.tiled else 0)
        self.row_block = (self.k.row_block_most if self.tiled else
                          self.k.row_block if self.width <= 64 else
                          self.k.row_block_wide if self.width <= 256 and not self.by_rows else
                          self.k.row_block_most)
        # A stride of 1 KiB would meet 4 cache sets only.
        self.ldg = self.row_block + (16 if self.width > 64 else 0)
        self.ld = self.ldr if self.by_rows else self.ldg

    cdef keep_W(self):
        """W whole, unless in panels: transposed, if class-major or for dX, and by rows."""
        cdef bint turned = self.dX is not None or not self.by_rows
        cdef idx w_bytes = self.width * self.ldw * self.size if turned else 0
        cdef idx r_bytes = self.d * self.ldr * self.size
        cdef size_t at
        cdef void *whole
        if self.panelled:
            return
        if not self.by_rows or self.w_direct:
            r_bytes = 0
        self.w_scratch = Scratch(round_up(w_bytes, 64) + r_bytes + round_up(self.packed_bytes, 64)
                                 + (self.d + 8) * sizeof(void *))
        at = <size_t>self.w_scratch.at
        self.Wt = place(&at, w_bytes)
        self.packed = place(&at, self.packed_bytes)
        self.wr = <const void **>place(&at, self.d * sizeof(void *))
        whole = place(&at, r_bytes)
        with nogil:
            if self.f64:
                if w_bytes:
                    self.pack[double](0, self.width, <double *>self.Wt)
                if self.by_rows:
                    self.rows_of_W[double](0, self.width, <double *>whole, self.wr)
            else:
                if w_bytes:
                    self.pack[float](0, self.width, <float *>self.Wt)
                if self.tiled:
                    self.k.tiles.pack(self.x_type, self.de, self.width, self.Wt, self.ldw,
                                      self.packed)
                if self.by_rows:
                    self.rows_of_W[float](0, self.width, <float *>whole, self.wr)

    cdef idx first_of(self, idx panel) noexcept nogil:
        """The first class of a panel."""
        return panel * self.width // self.n_panels

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

    cdef idx lay_out(self, size_t at, idx n_dxs, bint own_panel, Block *w) noexcept nogil:
        """The work arrays of a block, from `at` on; their size if that is 0.

        n_dxs: gradients of the rows, to be added up. own_panel: with memory for a panel of W.
        """
        cdef idx rb = self.row_block, size = self.size, rows_bytes = rb * self.ldw * size
        w.L = place(&at, self.ld * (rb if self.by_rows else self.width) * size)
        w.G = w.L
        if self.by_rows and self.purpose >= GRADIENT:
            w.G = place(&at, self.ldg * min(self.dw_width, self.k.turned) * size)
        w.mx = place(&at, rb * size)
        w.ls = place(&at, rb * size)
        w.scale = place(&at, rb * size)
        w.rows = lay_out_rows(&at, rb)
        w.xp = <const void **>place(&at, (rb + 4) * sizeof(void *))
        w.ahead = <const void **>place(&at, (rb + 4) * sizeof(void *))
        w.wp = <const void **>place(&at, self.panel * sizeof(void *))
        w.wr = <const void **>place(&at, self.d * sizeof(void *)) if own_panel else self.wr
        w.xs = place(&at, 0 if self.direct else rows_bytes)
        w.dxs = place(&at, n_dxs * rows_bytes)
        w.Wt = place(&at, self.panel_bytes) if own_panel else self.Wt
        w.packed = place(&at, self.packed_bytes) if own_panel else self.packed
        w.room = place(&at, 0 if self.panelled and not own_panel else self.room_bytes(rb))
        return at

    cdef idx room_bytes(self, idx n) noexcept nogil:
        """What products by tiles work in, for blocks of n rows."""
        cdef idx most = 0
        if self.tiled:
            most = self.k.tiles.room_bytes(self.x_type, n, self.de, self.panel)
        if self.dX is not None and self.dX_tiled:
            most = max(most, self.k.tiles.room_bytes(SMX_REAL, n, self.de, self.panel))
        return most

    cdef void prepare(self, Block *w) noexcept nogil:
        """What work arrays hold before their first block."""
        cdef idx r
        if not self.by_rows:  # rows up to a whole vector are computed with
            memset(w.L, 0, self.ld * self.width * self.size)
        for r in range(self.panel):
            w.wp[r] = <char *>w.Wt + r * self.ldw * self.size

    cdef idx lay_out_sums(self, size_t at, bint with_dW, Sums *sums) noexcept nogil:
        sums.dW = place(&at, self.dw_width * self.ldw * self.size if with_dW else 0)
        sums.db = <double *>place(&at, self.dw_width * 8) if self.db is not None else NULL
        return at

    cdef void clear(self, Sums *sums, bint with_dW) noexcept nogil:
        if with_dW:
            memset(sums.dW, 0, self.dw_width * self.ldw * self.size)
        if sums.db != NULL:
            memset(sums.db, 0, self.dw_width * 8)

    def run(self, int threads, cnp.ndarray out, cnp.ndarray losses):
        """All rows, without gradients. Returns what `outcome` does."""
        self.out, self.losses = out, losses
        self.keep_W()
        return self.run_all(self.row_block if self.panelled else self.forward_step(),
                            self.worth(threads), 0)

    def run_gradient(self, int threads, cnp.ndarray losses, cnp.ndarray dW, cnp.ndarray db,
                     cnp.ndarray dX):
        """The same with gradients of W, and of b (width,) and X (n, D) unless None.

        dX starts as zeros and stays so where a row is ignored.
        """
        cdef idx step = self.gradient_step(), slots, own_slots, turned_bytes, at
        cdef Sums sums
        threads = self.worth(threads)
        self.losses, self.dX = losses, dX
        self.keep_W()
        if self.panelled:
            return PanelGradient(self, dW).run(threads, db)
        self.dW, self.db = dW, db
        self.one_slice = self.n <= step
        self.in_place = not self.one_slice and self.is_large()
        # First all sums, then those of each slot, then memory to turn some of them in. A single
        # slice adds to the first; if they are added up in dW, they are those of b only.
        turned_bytes = FLIPPED * self.d * self.size if self.in_place else 0
        self.sums_bytes = self.lay_out_sums(0, True, &sums)
        slots = slots_for(threads, (self.n + step - 1) // step, self.sums_bytes)
        own_slots = 0 if self.one_slice else slots
        at = self.lay_out_sums(0, not self.in_place, &sums)
        self.sums_scratch = Scratch(at + own_slots * self.sums_bytes + turned_bytes)
        self.sums_at = self.lay_out_sums(<size_t>self.sums_scratch.at, not self.in_place,
                                         &self.all_sums)
        self.turned = <void *>(self.sums_at + own_slots * self.sums_bytes)
        self.clear(&self.all_sums, not self.in_place)
        if self.in_place:
            dW[...] = 0
        result = self.run_all(step, threads, slots)
        if self.total.bad < 0:
            if not self.in_place:
                with nogil:
                    if self.f64:
                        self.put_dW[double](NULL)
                    else:
                        self.put_dW[float](NULL)
            if db is not None:
                put_bias_gradient(self, self.all_sums.db, db)
        self.sums_scratch = None
        return result

    cdef bint is_large(self) noexcept:
        return self.dw_width * self.d * self.size > LARGE_BYTES

    cpdef idx gradient_step(self) noexcept:
        """Rows of a slice with gradients, set by the shape alone: slices of one size, and at least
        two of them if that is worth a second thread."""
        cdef idx n = self.n, work = max(1, self.work()), n_slices
        cdef idx step = max(2 * GRADIENT_ROWS if self.is_large() else GRADIENT_ROWS,
                            GRADIENT_PRODUCTS // work, min((n + 63) // 64, MOST_PRODUCTS // work))
        step = min(step, MOST_ROWS)
        n_slices = (n + step - 1) // step
        if n_slices == 1 and n * work >= THREADED_PRODUCTS:
            n_slices = 2
        step = (n + n_slices - 1) // max(1, n_slices)
        return max(self.row_block, round_up(step, self.row_block))

    cdef run_all(self, idx step, int threads, idx slots):
        cdef Block w
        self.step = step
        cdef idx n_slices = (self.n + step - 1) // step
        self.shared = threads > 1 and n_slices > 1
        self.run_rows(n_slices, threads, slots,
                      self.lay_out(0, self.dX is not None, self.panelled, &w))
        return outcome(&self.total, self.groups)

    cdef void slice(self, idx i, idx slot, size_t scratch) noexcept nogil:
        cdef Block w
        cdef Sums sums
        cdef Result *result = self.begin(slot)
        cdef idx lo = i * self.step, hi = min(self.n, lo + self.step)
        self.lay_out(scratch, self.dX is not None, self.panelled, &w)
        self.prepare(&w)
        sums = self.all_sums
        if self.purpose >= GRADIENT and not self.one_slice:
            self.lay_out_sums(self.sums_at + slot * self.sums_bytes, True, &sums)
            self.clear(&sums, True)
        if self.f64:
            self.run_blocks[double](lo, hi, &w, &sums, result, NULL)
        else:
            self.run_blocks[float](lo, hi, &w, &sums, result, NULL)

    cdef bint merge(self, idx i, idx slot) noexcept nogil:
        cdef Sums sums
        cdef idx j
        if RowsJob.merge(self, i, slot):
            return True
        if self.purpose >= GRADIENT and not self.one_slice:
            self.lay_out_sums(self.sums_at + slot * self.sums_bytes, True, &sums)
            if self.f64:
                self.merge_dW[double](<double *>sums.dW)
            else:
                self.merge_dW[float](<float *>sums.dW)
            if sums.db != NULL:
                for j in range(self.dw_width):
                    self.all_sums.db[j] += sums.db[j]
        return False

    cdef void merge_dW(self, real *dW) noexcept nogil:
        """Add the gradient of W of the rows that follow, whose sums are used up, to all."""
        cdef idx i, c0 = 0, c1
        cdef real *all = <real *>self.all_sums.dW
        if not self.in_place:
            for i in range(self.dw_width * self.ldw):
                all[i] += dW[i]
            return
        while c0 < self.dw_width:
            c1 = min(c0 + FLIPPED, self.dw_width)
            self.add_panel[real](c0, c1, dW + c0 * self.ldw, <real *>self.turned, self.dW)
            c0 = c1

    cdef void put_dW(self, real *tag) noexcept nogil:
        """dW from all sums, which are used up."""
        self.flip[real](self.dw_width, <real *>self.all_sums.dW, <char *>cnp.PyArray_DATA(self.dW),
                        cnp.PyArray_STRIDES(self.dW)[0], cnp.PyArray_STRIDES(self.dW)[1])

    cdef void run_blocks(self, idx lo, idx hi, Block *w, Sums *sums, Result *result,
                         real *tag) noexcept nogil:
        cdef idx width = self.dw_width, at = lo, n, p, c0, c1
        # Where nobody else does what comes after hi, its first rows are fetched too.
        cdef idx end = hi if self.shared else self.n
        cdef real *L = <real *>w.L
        cdef smx_ahead *ahead
        while at < hi:
            n = self.next_block(&at, hi, &w.rows, &result.bad)
            if result.bad >= 0:
                return
            if n == 0:
                continue
            self.point[real](n, &w.rows, w.xp, <real *>w.xs)
            ahead = self.look_ahead(at, end, w)
            for p in range(self.n_panels):
                c0, c1 = self.first_of(p), self.first_of(p + 1)
                if self.panelled:
                    self.take_panel[real](c0, c1, <real *>w.Wt, w.packed, w.wr)
                self.logits_of[real](n, c0, c1, w.xp, <real *>w.Wt, w.packed, w.wr, L, ahead, w.room)
            if self.purpose < LOSS:
                emit[real](self, at - n, n, self.by_rows, L, self.ld, <real *>w.mx, &w.rows)
                continue
            take_block[real](self, n, &w.rows, self.by_rows, L, self.ld, <real *>w.mx,
                             <real *>w.ls, <real *>w.scale, result)
            if self.purpose >= GRADIENT:
                self.add_outer[real](n, 0, width, L, <real *>w.G, w.xp, sums.db, <real *>sums.dW,
                                     ahead, w.room)
                if self.dX is not None:
                    memset(w.dxs, 0, n * self.ldw * sizeof(real))
                    self.add_dX[real](n, 0, width, L, w.wp, <real *>w.dxs, w.room)
                    self.emit_dX[real](n, &w.rows, <real *>w.dxs)

    cdef void point(self, idx n, const Rows *rows, const void **xp, real *xs) noexcept nogil:
        """xp = where the block's rows are, the last repeated up to a multiple of 4; rows that the
        leaves cannot read as they are go to xs first."""
        cdef idx r, j, ldw = self.ldw, d = self.d
        cdef const char *x
        cdef char *row
        cdef int stored
        for r in range(n):
            xp[r] = self.x_data + rows.a[r] * self.xr
        if not self.direct:
            stored = type_of(self.x_code, sizeof(real) == 8)
            if self.in_rows and self.x_type == SMX_REAL:
                self.k.widen(stored, n, d, xp, xs, ldw)
            elif self.x_type == SMX_U8:  # bytes whose columns are apart
                for r in range(n):
                    x = <const char *>xp[r]
                    row = <char *>(xs + r * ldw)
                    for j in range(self.de):
                        row[j] = x[j * self.xc] if j < d else 0
                    xp[r] = row
            elif stored == SMX_REAL:
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
            if self.x_type == SMX_REAL:
                for r in range(n):
                    for j in range(d, self.de):
                        xs[r * ldw + j] = 0
                    xp[r] = xs + r * ldw
        for r in range(n, round_up(n, 4)):
            xp[r] = xp[n - 1]

    cdef smx_ahead *look_ahead(self, idx at, idx hi, Block *w) noexcept nogil:
        """The rows of the next block (some may turn out to be ignored), for fetching ahead; after the
        last block those of the next pass, if they are known."""
        cdef const int64_t *pick = self.pick
        cdef idx r, i
        if at >= self.n and self.next_rows is not None:
            pick = <const int64_t *>cnp.PyArray_DATA(self.next_rows)
            at, hi = 0, cnp.PyArray_DIMS(self.next_rows)[0]
        if not self.in_rows or at >= hi:
            return NULL
        w.coming.n = min(self.row_block, hi - at)
        for r in range(w.coming.n):
            i = at + r if pick == NULL else pick[at + r]
            w.ahead[r] = self.x_data + i * self.xr
        w.coming.rows = w.ahead
        w.coming.bytes = self.d * cnp.PyArray_ITEMSIZE(self.X)
        w.coming.row, w.coming.at = 0, NULL
        w.coming.calls = self.n_panels
        if self.purpose >= GRADIENT:
            w.coming.calls += (
                (self.dw_width + self.k.turned - 1) // self.k.turned if self.by_rows else 1)
        return &w.coming

    cdef void take_panel(self, idx c0, idx c1, real *Wt, void *packed,
                         const void **wr) noexcept nogil:
        """What logits_of wants of the classes c0 to c1, in Wt and packed (where the rows can stay in W,
        in wr only)."""
        if self.by_rows:
            self.rows_of_W[real](c0, c1, Wt, wr)
            return
        self.pack[real](c0, c1, Wt)
        if self.tiled:
            self.k.tiles.pack(self.x_type, self.de, c1 - c0, Wt, self.ldw, packed)

    cdef void logits_of(self, idx n, idx c0, idx c1, const void **xp, const real *Wt,
                        const void *packed, const void **wr, real *L, smx_ahead *ahead,
                        void *room) noexcept nogil:
        """Logits of the classes c0 to c1."""
        cdef idx ld = self.ld
        cdef const real *b = NULL if self.b is None else <const real *>cnp.PyArray_DATA(self.b) + c0
        if self.by_rows:
            self.k.logits_rows(n, self.d, c1 - c0, xp, wr, b, L + c0, ld, ahead)
        elif self.tiled:
            self.k.tiles.logits(self.x_type, round_up(n, 4), self.de, c1 - c0, xp, Wt, self.ldw,
                                packed, b, L + c0 * ld, ld, ahead, room)
        else:
            self.k.logits(self.x_type, round_up(n, 4), self.de, c1 - c0, xp, Wt, self.ldw, b,
                          L + c0 * ld, ld, ahead)

    cdef void add_outer(self, idx n, idx c0, idx c1, real *L, real *G, const void **xp, double *db,
                        real *acc, smx_ahead *ahead, void *room) noexcept nogil:
        """acc (c1 - c0, ldw), and db unless NULL, += the block's gradient of W and b, for the
        classes c0 to c1."""
        cdef idx c = c0, m, step = self.k.turned if self.by_rows else c1 - c0, ld = self.ld, ldg = self.ldg
        cdef real *g = G
        while c < c1:
            m = min(step, c1 - c)
            if self.by_rows:
                self.k.transpose(n, m, L + c, ld, G, ldg)
            else:
                g = L + c * ld
            if db != NULL:
                self.k.add_sums(n, m, g, ldg, db + c)
            if self.tiled:
                self.k.tiles.outer(self.x_type, m, n, self.de, g, ldg, 1, xp, acc, self.ldw, ahead,
                                   room)
            else:
                self.k.outer(self.x_type, m, n, self.de, g, ldg, 1, xp, acc, self.ldw, ahead)
            acc += m * self.ldw
            c += m

    cdef void add_dX(self, idx n, idx c0, idx c1, real *L, const void **wp, real *dxs,
                     void *room) noexcept nogil:
        """dxs (n, ldw) += the part of the rows' gradient that the classes c0 to c1 make; wp: their rows
        of Wt."""
        cdef idx lr = self.ld if self.by_rows else 1, lc = 1 if self.by_rows else self.ld
        if self.dX_tiled:
            self.k.tiles.outer(SMX_REAL, n, c1 - c0, self.de, L + c0 * lc, lr, lc, wp, dxs, self.ldw,
                               NULL, room)
        else:
            self.k.outer(SMX_REAL, n, c1 - c0, self.de, L + c0 * lc, lr, lc, wp, dxs, self.ldw, NULL)

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

    cdef void emit_dX(self, idx n, const Rows *rows, const real *dxs) noexcept nogil:
        cdef idx r, sr = cnp.PyArray_STRIDES(self.dX)[0], sc = cnp.PyArray_STRIDES(self.dX)[1]
        for r in range(n):
            scatter[real](self.k, 1, self.d, dxs + r * self.ldw, self.ldw, 1,
                          <char *>cnp.PyArray_DATA(self.dX) + rows.place[r] * sr, sr, sc)
