# The gradient pass where W is too large to keep transposed.

cdef enum Step:
    LOGITS, LOSSES, GRADIENTS

# Rows of a strip, whose losses are one slice.
cdef idx STRIP = 64


cdef struct PanelScratch:
    # What a thread works in.
    void *Wt
    void *packed
    void *room
    void *tile
    void *flipped
    void *G
    const void **wr
    const void **wp


@cython.final
cdef class PanelGradient(RowsJob):
    """The gradient pass of a LinearPass in panels of classes.

    A block of rows goes through three steps, each of which may run on several threads: logits by
    groups of panels, losses by strips of rows, gradients by groups again. Groups and strips are
    set by the shape, and a gradient of W has one group only: the same bits on any number of
    threads.
    """
    cdef LinearPass p
    cdef Scratch block_scratch
    cdef Block w
    cdef double *db     # sums
    cdef Result whole   # of all blocks
    cdef cnp.ndarray dW
    cdef idx n, n_groups
    cdef Step step

    def __init__(self, LinearPass p, cnp.ndarray dW):
        cdef idx bytes
        cdef size_t at = 0
        self.p, self.dW, self.groups = p, dW, p.groups
        self.n_groups = min(8, p.n_panels)
        lay_out_result(&at, p.groups)
        bytes = p.lay_out(at, self.n_groups if p.dX is not None else 0, False, &self.w)
        self.block_scratch = Scratch(bytes + p.width * 8)
        at = <size_t>self.block_scratch.at
        self.whole = lay_out_result(&at, p.groups)
        clear_result(&self.whole, p.groups)
        at = p.lay_out(at, self.n_groups if p.dX is not None else 0, False, &self.w)
        if not p.by_rows:  # rows up to a whole vector are computed with
            memset(self.w.L, 0, p.ld * p.width * p.size)
        self.db = <double *>place(&at, p.width * 8)
        memset(self.db, 0, p.width * 8)

    def run(self, int threads, cnp.ndarray db):
        """All rows. Returns what `outcome` does."""
        cdef idx at = 0, hi = self.p.n
        self.p.db = db
        self.dW[...] = 0
        while at < hi:
            self.n = self.p.next_block(&at, hi, &self.w.rows, &self.whole.bad)
            if self.whole.bad >= 0:
                return outcome(&self.whole, self.groups)
            if self.n == 0:
                continue
            if self.p.f64:
                self.p.point[double](self.n, &self.w.rows, self.w.xp, <double *>self.w.xs)
            else:
                self.p.point[float](self.n, &self.w.rows, self.w.xp, <float *>self.w.xs)
            self.go(LOGITS, self.n_groups, threads)
            self.go(LOSSES, (self.n + STRIP - 1) // STRIP, threads)
            add_result(&self.whole, &self.total, self.groups)
            self.go(GRADIENTS, self.n_groups, threads)
            if self.p.dX is not None:
                if self.p.f64:
                    self.put_dX[double](NULL)
                else:
                    self.put_dX[float](NULL)
        if db is not None:
            put_bias_gradient(self.p, self.db, db)
        return outcome(&self.whole, self.groups)

    cdef go(self, Step step, idx n_slices, int threads):
        cdef PanelScratch w
        self.step = step
        self.run_rows(n_slices, threads, 0, self.lay_out(0, &w))

    cdef idx lay_out(self, size_t at, PanelScratch *w) noexcept nogil:
        """What a slice works in, from `at` on; its size if that is 0."""
        cdef bint gradients = self.step == GRADIENTS
        if self.step == LOSSES:
            return at
        w.Wt = place(&at, self.p.panel_bytes)
        w.packed = place(&at, 0 if gradients else self.p.packed_bytes)
        w.room = place(&at, self.p.room_bytes(self.p.row_block))
        w.wr = <const void **>place(&at, self.p.d * sizeof(void *))
        w.tile = place(&at, self.p.panel_bytes if gradients else 0)
        w.flipped = place(&at, self.p.panel_bytes if gradients else 0)
        w.G = place(&at, self.p.ldg * min(self.p.panel, self.p.k.turned) * self.p.size
                    if gradients and self.p.by_rows else 0)
        w.wp = <const void **>place(&at, self.p.panel * sizeof(void *) if gradients else 0)
        return at

    cdef void slice(self, idx i, idx slot, size_t scratch) noexcept nogil:
        cdef PanelScratch w
        cdef Result *result = self.begin(slot)
        self.lay_out(scratch, &w)
        if self.step == LOGITS:
            if self.p.f64:
                self.logits[double](i, &w, NULL)
            else:
                self.logits[float](i, &w, NULL)
        elif self.step == LOSSES:
            if self.p.f64:
                self.losses[double](i, result, NULL)
            else:
                self.losses[float](i, result, NULL)
        elif self.p.f64:
            self.gradients[double](i, &w, NULL)
        else:
            self.gradients[float](i, &w, NULL)

    cdef void logits(self, idx group, PanelScratch *w, real *tag) noexcept nogil:
        cdef idx i, c0, c1
        for i in range(group * self.p.n_panels // self.n_groups,
                       (group + 1) * self.p.n_panels // self.n_groups):
            c0, c1 = self.p.first_of(i), self.p.first_of(i + 1)
            self.p.take_panel[real](c0, c1, <real *>w.Wt, w.packed, w.wr)
            self.p.logits_of[real](self.n, c0, c1, self.w.xp, <real *>w.Wt, w.packed, w.wr,
                                   <real *>self.w.L, NULL, w.room)

    cdef void losses(self, idx strip, Result *result, real *tag) noexcept nogil:
        """Of a strip of rows; logits become gradients."""
        cdef idx r = strip * STRIP, n = min(self.n - r, STRIP)
        cdef Rows rows = later_rows(self.w.rows, r)
        cdef real *L = <real *>self.w.L + r * (self.p.ld if self.p.by_rows else 1)
        take_block[real](self.p, n, &rows, self.p.by_rows, L, self.p.ld, <real *>self.w.mx + r,
                         <real *>self.w.ls + r, <real *>self.w.scale + r, result)

    cdef void gradients(self, idx group, PanelScratch *w, real *tag) noexcept nogil:
        cdef real *Wt = <real *>w.Wt
        cdef real *L = <real *>self.w.L
        cdef idx i, j, c0, c1, n = self.n, ld = self.p.ld, ldw = self.p.ldw
        cdef idx n_panels = self.p.n_panels * self.p.dw_width // self.p.width
        cdef bint by_rows = self.p.by_rows, dx = self.p.dX is not None
        cdef real *dxs = <real *>self.w.dxs + (group * self.p.row_block * ldw if dx else 0)
        for j in range(self.p.panel):
            w.wp[j] = Wt + j * ldw
        if dx:
            memset(dxs, 0, n * ldw * sizeof(real))
        for i in range(group * n_panels // self.n_groups, (group + 1) * n_panels // self.n_groups):
            c0, c1 = self.p.first_of(i), self.p.first_of(i + 1)
            if dx:
                self.p.pack[real](c0, c1, Wt)
                self.p.add_dX[real](n, c0, c1, L, w.wp, dxs, w.room)
            memset(w.tile, 0, (c1 - c0) * ldw * sizeof(real))
            self.p.add_outer[real](n, c0, c1, L, <real *>w.G, self.w.xp,
                                   self.db if self.p.db is not None else NULL, <real *>w.tile, NULL,
                                   w.room)
            self.p.add_panel[real](c0, c1, <real *>w.tile, <real *>w.flipped, self.dW)

    cdef void put_dX(self, real *tag) noexcept:
        """The block's part of dX: the groups' sums added in order."""
        cdef real *dxs = <real *>self.w.dxs
        cdef idx g, i, size = self.p.row_block * self.p.ldw, used = self.n * self.p.ldw
        for g in range(1, self.n_groups):
            for i in range(used):
                dxs[i] += dxs[g * size + i]
        self.p.emit_dX[real](self.n, &self.w.rows, dxs)
