# Scratch memory: buffers that wait between calls, and the laying out of work arrays in them.

# Buffers wait here between calls: taking memory from the system anew would cost a small call
# more than its work. Their sizes are 4, 6, 8, 12, 16, 24 KiB and so on, a list for each; pop and
# append are atomic, so no two calls ever hold the same buffer.
cdef idx POOL_SIZES = 25  # up to 16 MiB
cdef tuple _pool = tuple([] for _ in range(POOL_SIZES))
cdef idx POOL_BUFFERS = 4  # of each size

@cython.final
cdef class Scratch:
    """A buffer, aligned to a cache line, borrowed from the pool while the object lives."""
    cdef cnp.ndarray buffer
    cdef list home
    cdef char *at

    def __cinit__(self, idx nbytes):
        cdef idx i = 0, size = 4096
        nbytes += 64
        while size < nbytes and i < POOL_SIZES:
            size += size // 3 if i & 1 else size // 2
            i += 1
        if i < POOL_SIZES:
            self.home = <list>_pool[i]
            try:
                self.buffer = <cnp.ndarray>self.home.pop()
            except IndexError:
                self.buffer = np.empty(size, np.uint8)
        else:
            self.buffer = np.empty(nbytes, np.uint8)
        self.at = <char *>((<size_t>cnp.PyArray_DATA(self.buffer) + 63) & ~<size_t>63)

    def __dealloc__(self):
        if self.home is not None and len(self.home) < POOL_BUFFERS:
            self.home.append(self.buffer)

# Work arrays are laid out by functions that take an address and return the one behind them: once
# from 0, to learn how much memory they want, and then in that memory.
cdef inline void *place(size_t *at, idx nbytes) noexcept nogil:
    """Where the next array of so many bytes is."""
    cdef void *p = <void *>at[0]
    at[0] += round_up(nbytes, 64)
    return p

cdef inline idx round_up(idx n, idx m) noexcept nogil:
    return (n + m - 1) // m * m

cdef inline idx odd_lines(idx n, idx size) noexcept nogil:
    """A leading dimension >= n of an odd number of cache lines: rows spread over all cache sets."""
    cdef idx per_line = 64 // size, lines = (n + per_line - 1) // per_line
    return (lines | 1) * per_line
