# Arrays of any type and layout: reading one number, gathering and scattering blocks, overlap.

cdef enum Code:  # element types an argument may have
    F32, F64, F16, BF16, I8, U8, I16, U16, I32, U32, I64, U64

cdef int code_of(cnp.ndarray a) except -1:
    cdef int size = cnp.PyArray_ITEMSIZE(a), place = 0 if size == 1 else 1 if size == 2 else (
        2 if size == 4 else 3)
    if cnp.PyArray_ISFLOAT(a) and size <= 8:
        return F16 if size == 2 else F32 if size == 4 else F64
    if cnp.PyTypeNum_ISUSERDEF(cnp.PyArray_TYPE(a)) and a.dtype.name == "bfloat16":
        return BF16
    if cnp.PyArray_ISSIGNED(a):
        return I8 + 2 * place
    if cnp.PyArray_ISUNSIGNED(a):
        return U8 + 2 * place
    raise TypeError(f"dtype {a.dtype}")


cdef inline int64_t load_int(const char *p, int code) noexcept nogil:
    """An integer of any type; memcpy, as it may be misaligned. uint64 past int64 wraps around, to
    a negative number."""
    cdef int8_t i8
    cdef uint8_t u8
    cdef int16_t i16
    cdef uint16_t u16
    cdef int32_t i32
    cdef uint32_t u32
    cdef int64_t i64
    if code == I64 or code == U64:
        memcpy(&i64, p, 8)
        return i64
    if code == U8:
        memcpy(&u8, p, 1)
        return u8
    if code == I32:
        memcpy(&i32, p, 4)
        return i32
    if code == I8:
        memcpy(&i8, p, 1)
        return i8
    if code == I16:
        memcpy(&i16, p, 2)
        return i16
    if code == U16:
        memcpy(&u16, p, 2)
        return u16
    memcpy(&u32, p, 4)
    return u32


cdef inline int type_of(int code, bint f64) noexcept nogil:
    """How the leaves name numbers that are computed with in float64, or (else) in float32."""
    if code == U8:
        return SMX_U8
    if code == F16:
        return SMX_F16
    if code == BF16:
        return SMX_BF16
    return SMX_F32 if code == F32 and f64 else SMX_REAL


cdef inline double load_real(const char *p, int code) noexcept nogil:
    cdef float f
    cdef double d
    if code == F16 or code == BF16:
        return smx_number(SMX_F16 if code == F16 else SMX_BF16, p, 0)
    if code == F32:
        memcpy(&f, p, 4)
        return f
    if code == U8:
        return (<const uint8_t *>p)[0]
    memcpy(&d, p, 8)
    return d


cdef inline double times(double a, double b) noexcept nogil:
    """a b, where 0 times infinity is 0: what counts 0 times counts nothing."""
    cdef double product = a * b
    return product if (product == product) | (a != a) | (b != b) else 0

def overlap(cnp.ndarray a, *others):
    """Whether `meet` holds for an array and one of the others."""
    for b in others:
        if meet(a, b):
            return True
    return False

cdef bint meet(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether the memory from a's first to its last byte meets that of b; never, if b is None."""
    cdef char *a_low
    cdef char *a_high
    cdef char *b_low
    cdef char *b_high
    if b is None:
        return False
    bounds(a, &a_low, &a_high)
    bounds(b, &b_low, &b_high)
    return a_low < b_high and b_low < a_high

cdef void bounds(cnp.ndarray a, char **low, char **high) noexcept:
    cdef idx i, reach
    low[0] = high[0] = <char *>cnp.PyArray_DATA(a)
    for i in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_DIMS(a)[i] == 0:
            high[0] = low[0]
            return
        reach = (cnp.PyArray_DIMS(a)[i] - 1) * cnp.PyArray_STRIDES(a)[i]
        if reach < 0:
            low[0] += reach
        else:
            high[0] += reach
    high[0] += cnp.PyArray_ITEMSIZE(a)

cdef inline bint plain(cnp.ndarray a, int ndim) noexcept:
    """Whether an array is C-contiguous, aligned and native."""
    return cnp.PyArray_NDIM(a) == ndim and cnp.PyArray_ISCARRAY_RO(a)

cdef inline bint crowded(idx n, idx step) noexcept nogil:
    """Whether n lines, so many bytes apart, share so few of an L1 cache's 64 sets that passes over
    them miss: as in a class-major array whose rows are a power of two. (64 x 4096 over its first
    axis took 3.2 times as long as over its last; through scratch it is as quick.)"""
    return n * (step & -step) > 4 * 64 * 64

cdef idx rows_per_block(idx c, idx size, idx lanes) noexcept nogil:
    """So many rows that a block of c classes takes 4 KiB, a multiple of lanes. (Beside it in L1 are
    the rows it comes from and goes to; with 16 KiB 65536 x 32 took 3.1 ms, with 4 KiB 1.8.)"""
    cdef idx n = (4 << 10) // (c * size) if c else SMX_SMALL_ROWS
    return max(lanes, min(SMX_SMALL_ROWS, n // lanes * lanes))

cdef void gather(smx_leaves *k, idx n, idx c, const char *x, idx xb, idx xc,
                 real *dst, idx dr, idx dc) noexcept nogil:
    """dst[r*dr + j*dc] = element (r, j) of an array with byte strides xb, xc."""
    cdef idx r, j, size = sizeof(real)
    if xc == size and xb % size == 0 and dr == 1:
        k.transpose(n, c, x, xb // size, dst, dc)
    elif xb == size and xc % size == 0 and dc == 1:
        k.transpose(c, n, x, xc // size, dst, dr)
    elif xc == size and dc == 1:
        for r in range(n):
            memcpy(dst + r * dr, x + r * xb, c * size)
    elif xb == size and dr == 1:
        for j in range(c):
            memcpy(dst + j * dc, x + j * xc, n * size)
    else:
        for r in range(n):
            for j in range(c):
                memcpy(dst + r * dr + j * dc, x + r * xb + j * xc, sizeof(real))

cdef void scatter(smx_leaves *k, idx n, idx c, const real *src, idx sr, idx sc,
                  char *out, idx ob, idx oc) noexcept nogil:
    """The way back: element (r, j) of out = src[r*sr + j*sc]."""
    cdef idx r, j, size = sizeof(real)
    if oc == size and ob % size == 0 and sr == 1:
        k.transpose(c, n, src, sc, out, ob // size)
    elif ob == size and oc % size == 0 and sc == 1:
        k.transpose(n, c, src, sr, out, oc // size)
    elif oc == size and sc == 1:
        for r in range(n):
            memcpy(out + r * ob, src + r * sr, c * size)
    elif ob == size and sr == 1:
        for j in range(c):
            memcpy(out + j * oc, src + j * sc, n * size)
    else:
        for r in range(n):
            for j in range(c):
                memcpy(out + r * ob + j * oc, src + r * sr + j * sc, sizeof(real))
