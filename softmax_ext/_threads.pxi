# Work in slices, done by the threads of the native pool (src/smx_pool.c).

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
        work.threads = <int>max(1, min(min(threads, n), SMX_MOST_THREADS))
        work.slots = max(1, min(slots, SMX_MOST_SLOTS))
        work.slice, work.merge, work.check = do_slice, do_merge, check_signals
        self.scratch_bytes = round_up(scratch_bytes, 128)
        self.scratch = Scratch(work.threads * self.scratch_bytes)
        with nogil:
            end = smx_run(&work, <void *>self)
        self.scratch = None
        if end == SMX_FORKED:
            raise RuntimeError(
                "a signal handler forked this process in the middle of a call, which its child "
                "cannot finish")
        if self.error is not None:
            error, self.error = self.error, None
            raise error


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
    # Of a slice of rows: its loss and how many rows are right, or the position of a bad label, of a
    # bad row (or -1).
    double loss
    idx n_correct, bad, bad_row


cdef class RowsJob(Job):
    """A job over slices of rows whose losses are added up."""
    cdef Scratch results_scratch
    cdef Result *results    # by slot
    cdef Result total

    cdef run_rows(self, idx n, int threads, idx slots, idx scratch_bytes):
        """`run_slices` with results; slots = 0: as many as there are."""
        slots = max(1, min(slots or n, SMX_MOST_SLOTS))
        self.results_scratch = Scratch(slots * sizeof(Result))
        self.results = <Result *>self.results_scratch.at
        self.run_slices(n, threads, slots, scratch_bytes)
        self.results_scratch = None

    cdef void begin(self) noexcept:
        self.total.loss, self.total.n_correct = 0, 0
        self.total.bad = self.total.bad_row = -1

    cdef bint merge(self, idx i, idx slot) noexcept nogil:
        cdef Result *r = &self.results[slot]
        self.total.loss += r.loss
        self.total.n_correct += r.n_correct
        self.total.bad, self.total.bad_row = r.bad, r.bad_row
        return r.bad >= 0 or r.bad_row >= 0


# Bytes of results that may wait for an earlier one, and how many for each thread if they are small:
# on a busy machine a thread may be kept from its work for as long as many slices take.
cdef idx WAITING_BYTES = 1 << 20
cdef idx WAITING = 8


cdef idx slots_for(int threads, idx nbytes) noexcept:
    """How many results of so many bytes may wait."""
    if threads <= 1:
        return 1
    return max(min(threads, 2), min(WAITING * threads, WAITING_BYTES // nbytes))
