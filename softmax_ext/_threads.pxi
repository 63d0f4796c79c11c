# Work in slices, done by the threads of the native pool (src/smx_pool.c).

from threading import get_ident, main_thread

cdef extern from "smx_pool.h":
    enum: SMX_DONE, SMX_STOPPED, SMX_FORKED
    enum: SMX_MOST_SLOTS, SMX_MOST_THREADS
    ctypedef struct smx_work:
        smx_idx n
        int threads
        smx_idx slots
        void slice(void *job, smx_idx i, smx_idx slot, int worker) noexcept nogil
        int merge(void *job, smx_idx i, smx_idx slot) noexcept nogil
        int check(void *job) noexcept nogil
    int smx_run(const smx_work *work, void *job) nogil
    int smx_pool_size() nogil


def pool_size():
    """How many threads wait for work, the calling ones not counted."""
    return smx_pool_size()


cdef class Job:
    """What is done in slices, on one thread or on several at a time, with the same bits.

    A subclass says what slice i is, and how its result is merged into the whole: in the order of
    the slices, one at a time.
    """
    cdef Scratch scratch
    cdef idx scratch_bytes  # of each thread
    cdef object error

    cdef void slice(self, idx i, idx slot, size_t scratch) noexcept nogil:
        """Slice i, in a thread's scratch memory; the result goes to `slot`."""

    cdef bint merge(self, idx i, idx slot) noexcept nogil:
        """Add the result of slice i, in `slot`, to the whole; True: stop."""
        return False

    cdef run_slices(self, idx n, int threads, idx slots, idx scratch_bytes):
        """Do slices 0 to n - 1, of which results of up to `slots` wait to be merged."""
        cdef smx_work work
        cdef int end
        work.n = n
        work.slots = max(1, min(slots, SMX_MOST_SLOTS))
        work.threads = <int>max(1, min(min(threads, SMX_MOST_THREADS), min(n, work.slots)))
        work.slice, work.merge = do_slice, do_merge
        # Only the main thread has signals to handle. Another would wait for the GIL in vain, and
        # would be ended there when Python ends, while threads of the pool are at its call.
        work.check = NULL
        if n > 1 and get_ident() == main_thread().ident:
            work.check = check_signals
        self.scratch_bytes = round_up(scratch_bytes, 128)
        self.scratch = Scratch(work.threads * self.scratch_bytes)
        with nogil:
            end = smx_run(&work, <void *>self)
        self.scratch = None
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        if end == SMX_FORKED:
            raise RuntimeError(
                "a signal handler forked this process in the middle of a call, which its child "
                "cannot finish")


cdef void do_slice(void *job, idx i, idx slot, int worker) noexcept nogil:
    (<Job>job).slice(i, slot, <size_t>(<Job>job).scratch.at + worker * (<Job>job).scratch_bytes)


cdef int do_merge(void *job, idx i, idx slot) noexcept nogil:
    return (<Job>job).merge(i, slot)


cdef int check_signals(void *job) noexcept with gil:
    """Ctrl-C, and whatever else Python's signal handlers have to say; on the calling thread."""
    try:
        PyErr_CheckSignals()
    except BaseException as error:
        (<Job>job).error = error
        return 1
    return 0


cdef struct Result:
    # Of a slice of rows: of each group of classes its loss and how many rows are right; and the
    # position of a bad label, of a bad row (or -1).
    double *loss
    idx *n_correct
    idx bad, bad_row


cdef Result lay_out_result(size_t *at, idx groups) noexcept nogil:
    cdef Result r
    r.bad = r.bad_row = -1
    r.loss = <double *>place(at, groups * sizeof(double))
    r.n_correct = <idx *>place(at, groups * sizeof(idx))
    return r


cdef void clear_result(Result *r, idx groups) noexcept nogil:
    memset(r.loss, 0, groups * sizeof(double))
    memset(r.n_correct, 0, groups * sizeof(idx))
    r.bad = r.bad_row = -1


cdef void add_result(Result *total, const Result *part, idx groups) noexcept nogil:
    cdef idx g
    for g in range(groups):
        total.loss[g] += part.loss[g]
        total.n_correct[g] += part.n_correct[g]
    total.bad, total.bad_row = part.bad, part.bad_row


cdef tuple outcome(const Result *r, idx groups):
    """(losses, n_correct, position of a bad label or -1, of a bad row or -1), the first two lists with
    a number for each group."""
    return ([r.loss[g] for g in range(groups)], [r.n_correct[g] for g in range(groups)],
            r.bad, r.bad_row)


cdef class RowsJob(Job):
    """A job over slices of rows whose losses are added up, in `groups` sums."""
    cdef Scratch results_scratch
    cdef Result *results    # by slot
    cdef Result total       # valid until the next run
    cdef idx groups

    cdef run_rows(self, idx n, int threads, idx slots, idx scratch_bytes):
        """`run_slices` with results; slots = 0: as many as there are."""
        cdef size_t at = 0
        cdef idx i
        slots = max(1, min(slots or n, SMX_MOST_SLOTS))
        lay_out_result(&at, self.groups)
        self.results_scratch = Scratch(round_up(slots * sizeof(Result), 64) + (slots + 1) * at)
        at = <size_t>self.results_scratch.at
        self.results = <Result *>place(&at, slots * sizeof(Result))
        for i in range(slots):
            self.results[i] = lay_out_result(&at, self.groups)
        self.total = lay_out_result(&at, self.groups)
        clear_result(&self.total, self.groups)
        self.run_slices(n, threads, slots, scratch_bytes)

    cdef Result *begin(self, idx slot) noexcept nogil:
        """The result of a slot, cleared."""
        clear_result(&self.results[slot], self.groups)
        return &self.results[slot]

    cdef bint merge(self, idx i, idx slot) noexcept nogil:
        cdef Result *r = &self.results[slot]
        add_result(&self.total, r, self.groups)
        return r.bad >= 0 or r.bad_row >= 0


# Results that may wait for an earlier one: one for each thread, and more while they take no more
# than so many bytes, for a busy machine may keep a thread from its work for many slices.
cdef idx WAITING_BYTES = 1 << 20
cdef idx WAITING = 8


cdef idx slots_for(int threads, idx n, idx nbytes) noexcept:
    """How many results, of n with so many bytes each, may wait."""
    cdef idx most = min(n, SMX_MOST_SLOTS)
    if threads <= 1:
        return 1
    return min(most, max(threads, min(WAITING * threads, WAITING_BYTES // max(1, nbytes))))
