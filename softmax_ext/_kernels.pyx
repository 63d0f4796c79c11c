# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: freethreading_compatible=True
"""The drivers: fused softmax-regression algorithms over blocks of rows.

They own the order of the work, the scratch memory, the rules for labels and weights, and the
float64 sums; the arithmetic on rows is in the leaves (src/). Arguments arrive checked and
normalised from ops/ and problem.py; the only thing checked again is a label, on the very value that is used.

Vocabulary: a block is up to `rb` rows; L is its logits and then its gradient, class-major (row r,
class c at L[c*ldl + r]) or, with many classes, by rows (at L[r*ldr + c]) with G a part of it
class-major; Wt is W transposed, (C, ldw); acc is the gradient of W, likewise.
"""

cimport cython
cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from cpython.long cimport PyLong_AsLongLongAndOverflow
from libc.math cimport NAN, isinf
from libc.stdint cimport (int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t,
                          uint64_t)
from libc.string cimport memcpy, memset

import numpy as np

cnp.import_array()

ctypedef fused real:
    float
    double

ctypedef Py_ssize_t idx

# ---------------------------------------------------------------------------------- tables


def compiled_isas():
    """Names of the instruction sets compiled in, the best first and amx last: see smx_cpu.c."""
    return tuple(smx_tables[i].name.decode() for i in range(smx_n_tables)
                 if not smx_tables[i].emulated)


def available_isas():
    """Names of those that this processor and operating system can run, the default first."""
    return tuple(smx_tables[i].name.decode() for i in range(smx_n_tables)
                 if not smx_tables[i].emulated and smx_can_run(smx_tables[i]))


def emulated_isas():
    """Names of those that are emulated, in part, on whatever can run here: for tests."""
    return tuple(dict.fromkeys(smx_tables[i].name.decode() for i in range(smx_n_tables)
                               if smx_tables[i].emulated))


def why_no_tiles():
    """Why there are no tile instructions here; '' if there are. Asks for the system's permission."""
    cdef const char *why = smx_why_no_tiles()
    if why != NULL:
        return why.decode()
    return "" if smx_tiles_allowed() else "the system refused them to this process"


cdef smx_leaves *leaves_of(str isa, bint f64) except NULL:
    """Those of the first table of that name that can run here."""
    cdef int i
    for i in range(smx_n_tables):
        if smx_tables[i].name.decode() == isa and smx_can_run(smx_tables[i]):
            return <smx_leaves *>(&smx_tables[i].f64 if f64 else &smx_tables[i].f32)
    raise ValueError(f"no instruction set {isa!r} in this build")


cdef extern from *:
    """
    #define SMX_STRING_(x) #x
    #define SMX_STRING(x) SMX_STRING_(x)
    #ifdef __clang__
    #define SMX_COMPILER "Clang " __clang_version__
    #else
    #define SMX_COMPILER "GCC " __VERSION__
    #endif
    """
    const char *SMX_COMPILER
    const char *SMX_LEAF_FLAGS

COMPILER = SMX_COMPILER.decode()
LEAF_FLAGS = SMX_LEAF_FLAGS.decode()


include "_memory.pxi"
include "_threads.pxi"
include "_layout.pxi"
include "_target.pxi"
include "_softmax.pxi"
include "_divergence.pxi"
include "_cross_entropy.pxi"
include "_dense.pxi"
include "_panels.pxi"
include "_sparse.pxi"
include "_quick.pxi"


# ------------------------------------------------------------- what the machine allows at most


def run_arithmetic(str isa, bint f64, idx steps):
    """Multiply and add in registers, `steps` times; the operations that this was."""
    cdef smx_leaves *leaf = leaves_of(isa, f64)
    with nogil:
        leaf.ceiling_arithmetic(steps)
    return steps * leaf.ceiling_flops


def run_tiles(str isa, idx steps):
    """Multiply and add bytes in tiles, `steps` times; the operations that this was, 0 without tiles."""
    cdef const smx_tile_leaves *tiles = leaves_of(isa, False).tiles
    if tiles == NULL or not tiles.allowed():
        return 0
    with nogil:
        tiles.ceiling(steps)
    return steps * tiles.ceiling_ops


def tile_cost(str isa, bint f64, bint of_bytes, idx d, idx c):
    """The products of bytes, in time, that one of X (N, d) and W (d, c) takes at least; 0: it does not
    go by tiles. Of bytes four digits, of float32 six products of pieces, which take twice as long."""
    if not smx_by_tiles(leaves_of(isa, f64), SMX_U8 if of_bytes else SMX_REAL, d, c):
        return 0
    return 4 if of_bytes else 12


def run_memory(str isa, cnp.ndarray src, cnp.ndarray to, idx repeats):
    """Read a contiguous array, or copy it to another (None: only read), so many times."""
    cdef smx_leaves *leaf = leaves_of(isa, False)
    cdef idx i, n = cnp.PyArray_NBYTES(src)
    cdef bint copied = to is not None
    with nogil:
        for i in range(repeats):
            if copied:
                memcpy(cnp.PyArray_DATA(to), cnp.PyArray_DATA(src), n)
            else:
                leaf.ceiling_read(n // 4, cnp.PyArray_DATA(src))
