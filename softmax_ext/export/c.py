"""A model as a C99 header that predicts, and includes nothing but <math.h> and <stddef.h>."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .._files import writing_text

_Array: TypeAlias = NDArray[Any]

_COLUMNS = 96

# Rows of W one after the other: the inner loop runs over the classes, which compilers vectorise
# without being allowed to reorder a sum.
_HEADER = """\
/* Softmax regression of {D} features and {C} classes, written by softmax_ext {version}.
 *
 *     {real} p[{PREFIX}_CLASSES];
 *     {prefix}_proba(x, p);            probabilities of one example x[{PREFIX}_FEATURES]
 *     size_t k = {prefix}_predict(x);  index of the most probable class{label_hint}
 *
 * _u8 takes an example of unsigned char. Nothing is allocated and nothing is shared, so that
 * threads may call at once. C99 or newer, or C++; link with -lm.
 */
#ifndef {PREFIX}_H
#define {PREFIX}_H

#include <math.h>
#include <stddef.h>

#define {PREFIX}_FEATURES {D}
#define {PREFIX}_CLASSES {C}

/* Weights, row by row: those of feature d and class c are at [d * {PREFIX}_CLASSES + c]. */
static const {real} {prefix}_weights[{n_weights}] = {{
{weights}
}};
{arrays}
/* Softmax of logits, in place. The largest is taken off first: no exponential overflows. */
static inline void {prefix}_softmax({real} *z)
{{
    {real} top = z[0], sum = 0;
    for (size_t c = 1; c < {PREFIX}_CLASSES; c++)
        if (!(z[c] <= top))
            top = z[c];
    for (size_t c = 0; c < {PREFIX}_CLASSES; c++)
        sum += z[c] = {exp}(z[c] - top);
    for (size_t c = 0; c < {PREFIX}_CLASSES; c++)
        z[c] /= sum;
}}

/* The first of the largest; NaN counts as the largest, as in NumPy. */
static inline size_t {prefix}_argmax(const {real} *z)
{{
    size_t best = 0;
    for (size_t c = 1; c < {PREFIX}_CLASSES; c++)
        if (z[best] == z[best] && !(z[c] <= z[best]))
            best = c;
    return best;
}}
{functions}
#endif
"""

_FUNCTIONS = """
static inline void {prefix}_logits{suffix}(const {type} *x, {real} *z)
{{
    for (size_t c = 0; c < {PREFIX}_CLASSES; c++)
        z[c] = 0;
    for (size_t d = 0; d < {PREFIX}_FEATURES; d++)
        for (size_t c = 0; c < {PREFIX}_CLASSES; c++)
            z[c] += ({real})x[d] * {prefix}_weights[d * {PREFIX}_CLASSES + c];
{finish}}}

static inline void {prefix}_proba{suffix}(const {type} *x, {real} *p)
{{
    {prefix}_logits{suffix}(x, p);
    {prefix}_softmax(p);
}}

static inline size_t {prefix}_predict{suffix}(const {type} *x)
{{
    {real} z[{PREFIX}_CLASSES];
    {prefix}_logits{suffix}(x, z);
    return {prefix}_argmax(z);
}}
"""

_FINISH = """\
    for (size_t c = 0; c < {PREFIX}_CLASSES; c++)
        z[c] = {value};
"""


def write(
    path: str | os.PathLike[str],
    W: _Array,
    b: _Array | None,
    classes: _Array | None,
    x_scale: float,
    prefix: str,
) -> None:
    """Write the header of a model to a file; see `SoftmaxModel.to_c`."""
    import softmax_ext

    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", prefix):
        raise ValueError(f"prefix: {prefix!r} came, letters, digits and _ were wanted")
    if W.size == 0:
        raise ValueError(f"W: shape {W.shape} came, at least one feature was wanted, for C")
    names = {"prefix": prefix, "PREFIX": prefix.upper(), "real": _c_type(W.dtype)}
    arrays, value = "", "z[c]"
    if x_scale != 1:
        value = f"{_literal(W.dtype.type(x_scale))} * {value}"
    if b is not None:
        arrays += _array(f"{names['real']} {prefix}_bias", b)
        value += f" + {prefix}_bias[c]"
    if classes is not None:
        arrays += _array(f"{_c_type(classes.dtype)} {prefix}_labels", classes)
    finish = "" if value == "z[c]" else _FINISH.format(value=value, **names)
    functions = "".join(
        _FUNCTIONS.format(suffix=suffix, type=kind, finish=finish, **names)
        for suffix, kind in (("", names["real"]), ("_u8", "unsigned char"))
    )
    D, C = W.shape
    text = _HEADER.format(
        D=D,
        C=C,
        version=softmax_ext.__version__,
        n_weights=W.size,
        weights=_wrapped(W.ravel()),
        label_hint="" if classes is None else f", of {prefix}_labels",
        arrays=arrays,
        functions=functions,
        exp="expf" if W.dtype == np.float32 else "exp",
        **names,
    )
    with writing_text(path) as file:
        file.write(text)


def _c_type(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "f":
        return "float" if dtype == np.float32 else "double"
    return {"U": "char *const", "b": "int", "i": "long long", "u": "unsigned long long"}[dtype.kind]


def _array(declaration: str, values: _Array) -> str:
    return f"\nstatic const {declaration}[{len(values)}] = {{\n{_wrapped(values)}\n}};\n"


def _wrapped(values: _Array) -> str:
    return "\n".join(_lines(map(_literal, values)))


def _lines(words: Iterator[str]) -> Iterator[str]:
    line = ""
    for word in words:
        if line and len(line) + len(word) + 6 > _COLUMNS:
            yield f"    {line}"
            line = ""
        line += f"{' ' if line else ''}{word},"
    yield f"    {line}"


def _literal(value: Any) -> str:
    """Return a number or string of NumPy as C writes it: numbers to the last bit."""
    if isinstance(value, str):
        return '"' + "".join(map(_character, value.encode())) + '"'
    if isinstance(value, np.float32):
        return f"{np.format_float_scientific(value, trim='0')}f"
    if isinstance(value, np.floating):
        return repr(float(value))
    if isinstance(value, np.bool_):
        return str(int(value))
    if isinstance(value, np.unsignedinteger):
        return f"{value}u"
    # C has no negative literals, and none of its types holds 2 ** 63.
    number = int(value)
    return str(number) if number > -(2**63) else f"{number + 1} - 1"


def _character(byte: int) -> str:
    """Return a byte of a string literal; ? is escaped because ??/ once was a backslash."""
    plain = 32 <= byte < 127 and chr(byte) not in '"\\?'
    return chr(byte) if plain else f"\\{byte:03o}"
