"""The softmax family of `torch.nn.functional`: change the import, keep the program.

Functions and modules have PyTorch's signatures and meanings, and autograd works through them. The
kernels compute on CPU tensors of float32 and float64, which they view and never copy; a loss whose
gradient will be wanted computes it in the same pass. Whatever else comes (other devices and dtypes,
tensor subclasses, calls inside torch.compile, torch.func transforms, forward-mode differentiation,
tracing or autocast, gradients with respect to probability targets or class weights) is computed by
PyTorch itself, with one warning for each reason.

Where the two differ:

* The input of `linear_cross_entropy` may be uint8, images as they are stored; it is read without a
  floating copy. What they are to be divided by is a factor of the weights:
  ``linear_cross_entropy(images, weight / 255, labels)``.
* Labels may be of any integer dtype, not int64 and uint8 only. A `label_smoothing` below 0 is
  refused.
* An ignored row has gradient 0 even if its logits are NaN, and a probability of 0 counts nothing
  beside a logit of -inf.
* A label outside [0, C) is an IndexError that names the row. Other arguments that the kernels
  refuse are PyTorch's to judge: the errors are its own.
* The losses have no second derivatives: asking for them raises a RuntimeError. Those of `softmax`
  and `log_softmax` are there.

Calls use at most as many threads as `torch.get_num_threads()` says. PyTorch 2.4 or newer is needed:
``pip install softmax-ext[torch]``.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import Function
from torch.nn import functional as F  # noqa: N812

import softmax_ext

from .arguments import Array
from .errors import ArgumentError, ArgumentValueError
from .threads import get_num_threads, num_threads

__all__ = [
    "CrossEntropyLoss",
    "LinearCrossEntropyLoss",
    "cross_entropy",
    "linear_cross_entropy",
    "log_softmax",
    "softmax",
]

#: reduction, ignore_index (None: as if none was given), label_smoothing.
How: TypeAlias = tuple[str, int | None, float]
#: X, W (C, D), b.
Layer: TypeAlias = tuple[Tensor, Tensor, Tensor | None]

FLOATING = (torch.float32, torch.float64)
SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)

# A softmax of so many numbers takes PyTorch less time than a Function of Python's costs.
SMALL = 4096


# --------------------------------------------------------------------------------------- functions


def softmax(
    input: Tensor,
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Softmax along a dimension, as `torch.nn.functional.softmax`.

    Parameters
    ----------
    input : Tensor
        Logits of any shape.
    dim : int, optional
        Dimension along which the result sums to 1. Without it PyTorch chooses one, and warns.
    _stacklevel : int
        For that warning.
    dtype : torch.dtype, optional
        What `input` is cast to first.

    Returns
    -------
    Tensor
        input's shape; every normal number is within 4 ULP of the exact value.

    Raises
    ------
    IndexError
        If there is no such dimension.

    Examples
    --------
    >>> import torch
    >>> from softmax_ext.torch import softmax
    >>> softmax(torch.tensor([1000.0, 1000.0, -1000.0]), dim=0)
    tensor([0.5000, 0.5000, 0.0000])
    """
    return _softmax("softmax", input, dim, _stacklevel, dtype)


def log_softmax(
    input: Tensor,
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Logarithm of the softmax, as `torch.nn.functional.log_softmax`.

    Parameters, result and errors as for `softmax`; in nats.

    Examples
    --------
    >>> import torch
    >>> from softmax_ext.torch import log_softmax
    >>> log_softmax(torch.tensor([1000.0, 1.0]), dim=0)
    tensor([   0., -999.])
    """
    return _softmax("log_softmax", input, dim, _stacklevel, dtype)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of logits, as `torch.nn.functional.cross_entropy`.

    Parameters
    ----------
    input : Tensor
        Logits (C,), (N, C) or (N, C, d1, ...).
    target : Tensor
        Class indices, integers of input's shape without the class dimension; or probabilities of
        its shape and dtype.
    weight : Tensor, optional
        (C,) factor per class.
    size_average, reduce : bool, optional
        Deprecated in PyTorch: they override `reduction`, with a warning.
    ignore_index : int
        Rows with this label count nothing.
    reduction : {"mean", "sum", "none"}
        "mean" divides by the sum of the weights of the rows that count (with probabilities: by
        their number).
    label_smoothing : float
        In [0, 1]: the part of each target that is spread evenly over the classes.

    Returns
    -------
    Tensor
        A scalar in nats, or the rows' losses with "none". With "mean" and "sum" the gradient is
        computed in the same pass if it may be wanted, and kept instead of the logits.

    Raises
    ------
    IndexError
        If a label is outside [0, C) and not `ignore_index`.
    ValueError
        If `label_smoothing` is below 0.
    RuntimeError and others
        PyTorch's, for what else does not fit.

    Examples
    --------
    >>> import torch
    >>> from softmax_ext.torch import cross_entropy
    >>> logits = torch.zeros(4, 10, requires_grad=True)
    >>> loss = cross_entropy(logits, torch.tensor([1, 2, 3, 4]))
    >>> loss.backward()
    >>> round(loss.item(), 4), round(logits.grad[0, 1].item(), 4)
    (2.3026, -0.225)
    """
    if size_average is not None or reduce is not None:
        reduction = _legacy_reduction(size_average, reduce)
    how = reduction, ignore_index, label_smoothing
    reason = _why_not(input, target, weight) or _why_not_gradients(target, weight)
    if reason:
        _warn("cross_entropy", reason)
        return _cross_entropy_by_pytorch(input, target, weight, how)
    try:
        return _our_cross_entropy(input, target, weight, how)
    except ArgumentError:
        if label_smoothing < 0:
            raise
        loss = _cross_entropy_by_pytorch(input, target, weight, how)
    _warn("cross_entropy", REFUSED)
    return loss


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: Any = None,
) -> Tensor:
    """Cross-entropy of a linear layer, as `torch.nn.functional.linear_cross_entropy`.

    The logits are never held as a whole, and one pass over `input` gives the loss and all
    gradients.

    Parameters
    ----------
    input : Tensor
        (N, D) or (D,), of the dtype of `linear_weight` or uint8.
    linear_weight : Tensor
        (C, D), as `torch.nn.Linear` has it; (C, d1, ..., D) is left to PyTorch.
    target : Tensor
        Class indices, integers (N,); or probabilities (N, C) of the dtype of `input`. Without the
        N if `input` is.
    linear_bias : Tensor, optional
        (C,).
    weight, reduction, label_smoothing
        As for `cross_entropy`.
    ignore_index : int, optional
        As for `cross_entropy`; may not be given with probabilities.
    options : torch.nn.LinearCrossEntropyOptions, optional
        How PyTorch cuts the rows into chunks; the kernels need no such advice.

    Returns
    -------
    Tensor
        A scalar in nats, or the rows' losses with "none".

    Raises
    ------
    IndexError, ValueError, RuntimeError and others
        As `cross_entropy`.

    Notes
    -----
    The function is new in PyTorch 2.13. With older ones it is `linear` and `cross_entropy` that
    compute what the kernels do not.

    Examples
    --------
    >>> import torch
    >>> from softmax_ext.torch import linear_cross_entropy
    >>> W = torch.zeros(10, 3, requires_grad=True)
    >>> loss = linear_cross_entropy(torch.ones(2, 3), W, torch.tensor([0, 1]))
    >>> loss.backward()
    >>> round(loss.item(), 4), W.grad[:3, 0]
    (2.3026, tensor([-0.4000, -0.4000,  0.1000]))
    """
    layer = input, linear_weight, linear_bias
    how = reduction, ignore_index, label_smoothing
    reason = _why_not(linear_weight, input, linear_bias, target, weight)
    reason = reason or _why_not_gradients(target, weight)
    if not reason and input.dtype not in (linear_weight.dtype, torch.uint8):
        reason = f"a tensor of {input.dtype} came as input"
    if not reason and linear_weight.dim() > 2:
        reason = "weights of more than two dimensions came"
    if reason:
        _warn("linear_cross_entropy", reason)
        return _linear_cross_entropy_by_pytorch(layer, target, weight, how, options)
    try:
        return _our_linear_cross_entropy(layer, target, weight, how)
    except ArgumentError:
        if label_smoothing < 0:
            raise
        loss = _linear_cross_entropy_by_pytorch(layer, target, weight, how, options)
    _warn("linear_cross_entropy", REFUSED)
    return loss


# ----------------------------------------------------------------------------------------- modules


class CrossEntropyLoss(torch.nn.CrossEntropyLoss):
    """Cross-entropy of logits as a module, as `torch.nn.CrossEntropyLoss`.

    Parameters
    ----------
    weight, size_average, ignore_index, reduce, reduction, label_smoothing
        As for `cross_entropy`, in this order.

    Examples
    --------
    >>> import torch
    >>> from softmax_ext.torch import CrossEntropyLoss
    >>> criterion = CrossEntropyLoss(label_smoothing=0.1)
    >>> round(criterion(torch.zeros(4, 10), torch.tensor([1, 2, 3, 4])).item(), 4)
    2.3026
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(
            input, target, self.weight, None, self.ignore_index, None, self.reduction,
            self.label_smoothing,
        )  # fmt: skip


class LinearCrossEntropyLoss(torch.nn.CrossEntropyLoss):
    """A linear layer and its cross-entropy as a module, as `torch.nn.LinearCrossEntropyLoss`.

    Parameters
    ----------
    in_features, num_classes : int
        D and C of the layer ``linear``, a `torch.nn.Linear`.
    out_features : tuple of int
        (d1, ...) of losses of more dimensions.
    bias : bool
        Whether the layer has one.
    device, dtype
        Of the layer.
    reduction, weight, ignore_index, label_smoothing, options
        As for `linear_cross_entropy`.

    Raises
    ------
    RuntimeError
        If `weight` has another shape than (C,), or `label_smoothing` is outside [0, 1].

    Notes
    -----
    State dictionaries are exchangeable with PyTorch's module, which is new in 2.13.

    Examples
    --------
    >>> import torch
    >>> from softmax_ext.torch import LinearCrossEntropyLoss
    >>> head = LinearCrossEntropyLoss(3, 10, bias=True)
    >>> head(torch.ones(2, 3), torch.tensor([0, 1])).backward()
    >>> head.linear.weight.grad.shape
    torch.Size([10, 3])
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: tuple[int, ...] = (),
        bias: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        reduction: str = "mean",
        weight: Tensor | None = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        options: Any = None,
    ) -> None:
        if weight is not None and tuple(weight.shape) != (num_classes,):
            raise RuntimeError(
                f"weight: shape {tuple(weight.shape)} came, ({num_classes},) was wanted"
            )
        if not 0 <= label_smoothing <= 1:
            raise RuntimeError(
                f"label_smoothing: {label_smoothing} came, a number from 0 to 1 was wanted"
            )
        super().__init__(weight, reduction=reduction, label_smoothing=label_smoothing)
        self.num_classes, self.out_features = num_classes, tuple(out_features)
        self.ignore_index, self.options = ignore_index, options
        self.linear = torch.nn.Linear(
            in_features, math.prod(out_features, start=num_classes), bias, device, dtype
        )

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        shape = (self.num_classes, *self.out_features)
        bias = self.linear.bias
        return linear_cross_entropy(
            input,
            self.linear.weight.reshape(*shape, self.linear.in_features),
            target,
            linear_bias=None if bias is None else bias.reshape(shape),
            weight=self.weight,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            options=self.options,
        )

    def extra_repr(self) -> str:
        return (
            f"in_features={self.linear.in_features}, num_classes={self.num_classes}, "
            f"out_features={self.out_features}, bias={self.linear.bias is not None}, "
            f"reduction={self.reduction}, ignore_index={self.ignore_index}, "
            f"label_smoothing={self.label_smoothing}, options={self.options}"
        )


# -------------------------------------------------------------------------------- what PyTorch does

_warned: set[str] = set()

REFUSED = "the kernels refuse its arguments"

_tracing_state = torch._C._get_tracing_state
_functorch_stack = torch._C._functorch.peek_interpreter_stack
_dispatch_modes = torch._C._len_torch_dispatch_stack
_any_autocast = torch._C._is_any_autocast_enabled


@torch.compiler.assume_constant_result
def _warn(function: str, reason: str, stacklevel: int = 3) -> None:
    """Say once why PyTorch computes; in compiled code, when it is compiled."""
    if reason not in _warned:
        _warned.add(reason)
        warnings.warn(
            f"softmax_ext.torch.{function} leaves this call to PyTorch: {reason}",
            stacklevel=stacklevel,
        )


def _why_not(*tensors: Any) -> str | None:
    """What keeps the kernels from computing on these tensors (None for those left out).

    It is asked in every call, so it asks PyTorch in the ways that cost least.
    """
    if torch.compiler.is_compiling():
        return "the code is compiled"
    if _tracing_state() is not None:
        return "the code is traced"
    if _functorch_stack() is not None:
        return "a transform of torch.func is at work"
    if _dispatch_modes():
        return "a dispatch mode is at work"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation is at work"
    if _any_autocast() and torch.is_autocast_enabled("cpu"):
        return "autocast is on"
    dtype = getattr(tensors[0], "dtype", None)
    for t in tensors:
        if t is None:
            continue
        if type(t) is not Tensor and type(t) is not torch.nn.Parameter:
            return f"a {type(t).__name__} came, not a plain tensor"
        if not t.is_cpu:
            return f"a tensor on the device {t.device.type} came"
        if t.layout is not torch.strided:
            return f"a tensor of layout {t.layout} came"
        if t.dtype is not dtype and t.is_floating_point():
            return "tensors of several floating dtypes came"
    return None if dtype in FLOATING else f"a tensor of {dtype} came"


def _why_not_gradients(target: Tensor, weight: Tensor | None) -> str | None:
    if torch.is_grad_enabled():
        if target.requires_grad:
            return "the gradient with respect to the target is wanted"
        if weight is not None and weight.requires_grad:
            return "the gradient with respect to the class weights is wanted"
    return None


def _legacy_reduction(size_average: bool | None, reduce: bool | None) -> str:
    """What PyTorch makes of the arguments that it has given up, with its warning."""
    if reduce is not None and not reduce:
        reduction = "none"
    else:
        reduction = "mean" if size_average is None or size_average else "sum"
    warnings.warn(
        "size_average and reduce args will be deprecated, "
        f"please use reduction='{reduction}' instead.",
        stacklevel=3,
    )
    return reduction


def _cross_entropy_by_pytorch(
    input: Tensor, target: Tensor, weight: Tensor | None, how: How
) -> Tensor:
    reduction, ignore_index, label_smoothing = how
    index = -100 if ignore_index is None else ignore_index
    return F.cross_entropy(input, target, weight, None, index, None, reduction, label_smoothing)


def _linear_cross_entropy_by_pytorch(
    layer: Layer, target: Tensor, weight: Tensor | None, how: How, options: Any
) -> Tensor:
    X, W, b = layer
    if X.dtype is torch.uint8:
        X = X.to(W.dtype)
    reduction, ignore_index, label_smoothing = how
    if hasattr(F, "linear_cross_entropy"):
        return F.linear_cross_entropy(
            X, W, target, linear_bias=b, weight=weight, reduction=reduction,
            ignore_index=ignore_index, label_smoothing=label_smoothing, options=options,
        )  # fmt: skip
    logits = F.linear(X, W.reshape(-1, W.shape[-1]), None if b is None else b.reshape(-1))
    return _cross_entropy_by_pytorch(
        logits.reshape(*X.shape[:-1], *W.shape[:-1]), target, weight, how
    )


# ----------------------------------------------------------------------------- what the kernels do


def _array(t: Tensor | None) -> Any:
    """A view of a tensor's memory."""
    if t is None:
        return None
    return t.numpy(force=True) if t.requires_grad or t.is_neg() else t.numpy()


def _call(kernel: str, *args: Any, **options: Any) -> Any:
    """A kernel on no more threads than PyTorch may use."""
    f, n = getattr(softmax_ext.kernels, kernel), torch.get_num_threads()
    if n >= get_num_threads():
        return f(*args, **options)
    with num_threads(n):
        return f(*args, **options)


def _loss(like: Tensor, loss: Any) -> Tensor:
    """A reduced loss (a float) or the rows' losses as a tensor."""
    if isinstance(loss, float):  # of the ways to make a tensor of a number the quickest
        loss = np.array(loss, SINGLE if like.dtype is torch.float32 else DOUBLE)
    return torch.from_numpy(np.asarray(loss))


def _softmax(
    name: str, input: Tensor, dim: int | None, stacklevel: int, dtype: torch.dtype | None
) -> Tensor:
    theirs = getattr(F, name)
    if dim is None:
        return theirs(input, dim, stacklevel + 2, dtype)
    x = input if dtype is None or not isinstance(input, Tensor) else input.to(dtype)
    if reason := _why_not(x):
        _warn(name, reason, 4)
        return theirs(input, dim, stacklevel, dtype)
    if x.numel() == 0:  # an error in NumPy's world, and nothing to compute
        return theirs(x, dim)
    if torch.is_grad_enabled() and x.requires_grad:
        if x.numel() > SMALL:
            return _Softmax.apply(x, dim, name)
        # PyTorch's own node with our numbers: it costs less than a Function of Python's.
        out = theirs(x, dim)
        np.copyto(_array(out), _call(name, _array(x), dim))
        return out
    return _softmax_of(name, x, dim)


def _softmax_of(name: str, x: Tensor, dim: int) -> Tensor:
    return torch.from_numpy(np.asarray(_call(name, _array(x), dim)))


class _Softmax(Function):
    """softmax and log_softmax; the derivatives are PyTorch's, of every order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, name: str) -> Tensor:
        out = _softmax_of(name, x, dim)
        ctx.save_for_backward(out)
        ctx.dim, ctx.derivative = dim, getattr(torch, f"_{name}_backward_data")
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (out,) = ctx.saved_tensors
        return ctx.derivative(grad, out, ctx.dim, out.dtype), None, None


def _our_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None, how: How) -> Tensor:
    if torch.is_grad_enabled() and input.requires_grad:
        return _apply_cross_entropy(input, target, weight, how, _links(input))
    return _loss(input, _cross_entropy("cross_entropy", input, target, weight, how))


def _our_linear_cross_entropy(
    layer: Layer, target: Tensor, weight: Tensor | None, how: How
) -> Tensor:
    X, W, b = layer
    if X.dim() == 1:
        layer = X.unsqueeze(0), W, b
        return _our_linear_cross_entropy(layer, target.unsqueeze(0), weight, how).squeeze(0)
    reduction, ignore_index, label_smoothing = how
    if ignore_index is None:
        how = reduction, -100, label_smoothing
    elif target.is_floating_point():
        raise ArgumentValueError(f"ignore_index: {ignore_index} came with probabilities as target")
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in layer):
        return _apply_linear_cross_entropy(*layer, target, weight, how, _links(*layer))
    return _loss(W, _linear_cross_entropy("linear_cross_entropy", layer, target, weight, how))


def _cross_entropy(
    kernel: str, logits: Tensor, target: Tensor, weight: Tensor | None, how: How, **more: Any
) -> Any:
    reduction, ignore_index, label_smoothing = how
    return _call(
        kernel, _array(logits), _array(target), weight=_array(weight), reduction=reduction,
        ignore_index=ignore_index, label_smoothing=label_smoothing, **more,
    )  # fmt: skip


def _linear_cross_entropy(
    kernel: str, layer: Layer, target: Tensor, weight: Tensor | None, how: How, **more: Any
) -> Any:
    X, W, b = map(_array, layer)
    reduction, ignore_index, label_smoothing = how
    return _call(
        kernel, X, W.T, b, _array(target), weight=_array(weight), reduction=reduction,
        ignore_index=ignore_index, label_smoothing=label_smoothing, **more,
    )  # fmt: skip


def _factors(grad: Tensor) -> Any:
    """The gradient that comes from above to the rows' losses, as factors of the rows."""
    try:
        return _array(grad)
    except RuntimeError as error:
        raise RuntimeError(
            "softmax_ext.torch: losses with reduction='none' take one gradient at a time, "
            "not many at once (is_grads_batched=True, vectorize=True)"
        ) from error


def _scaled(gradient: Tensor, factor: Tensor) -> Tensor:
    """The gradient times the scalar that comes from above, mostly 1."""
    try:
        plain = factor.item() == 1
    except RuntimeError:  # many factors at once: autograd.grad(is_grads_batched=True)
        plain = False
    return gradient if plain else gradient * factor


class _Once(Function):
    """Gradients, linked to what they depend on: differentiating them is an error, not a zero."""

    @staticmethod
    def forward(ctx: Any, n_links: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(t.view_as(t) for t in tensors[n_links:])

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(
            "softmax_ext.torch: the losses have no second derivatives; "
            "those of torch.nn.functional have"
        )


def _links(*tensors: Tensor | None) -> list[Tensor]:
    """Tensors that depend on these for autograd, and do not keep numbers that nobody else keeps.

    To be made where gradients are on: not in `Function.forward`.
    """
    return [
        t if t.is_leaf else torch.narrow_copy(t, 0, 0, 0)
        for t in tensors
        if t is not None and t.requires_grad
    ]


def _once(ctx: Any, gradients: list[Tensor | None]) -> list[Tensor | None]:
    """The gradients, guarded by `_Once` where they may be differentiated (create_graph=True)."""
    if not torch.is_grad_enabled():
        return gradients
    guarded = _Once.apply(len(ctx.links), *ctx.links, *(g for g in gradients if g is not None))
    left = iter(guarded)
    return [None if g is None else next(left) for g in gradients]


class _CrossEntropy(Function):
    """A reduced loss keeps its gradient for backward. The rows' losses keep their arguments: the
    gradient that comes from above is their sample weight in a second pass."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, weight: Any, how: How, links: list[Tensor]
    ) -> Tensor:
        ctx.how, ctx.links = how, links
        if how[0] == "none":
            ctx.save_for_backward(logits, target, weight)
            return _loss(logits, _cross_entropy("cross_entropy", logits, target, weight, how))
        loss, dlogits = _cross_entropy("cross_entropy_with_grad", logits, target, weight, how)
        ctx.save_for_backward(torch.from_numpy(dlogits))
        return _loss(logits, loss)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        if ctx.how[0] == "none":
            logits, target, weight = ctx.saved_tensors
            result = _cross_entropy(
                "cross_entropy_with_grad", logits, target, weight, ("sum", *ctx.how[1:]),
                sample_weight=_factors(grad),
            )  # fmt: skip
            dlogits = torch.from_numpy(result.dlogits)
        else:
            dlogits = _scaled(ctx.saved_tensors[0], grad)
        return (*_once(ctx, [dlogits]), None, None, None, None)


# `Function.apply` without its asking for transforms of torch.func, which `_why_not` has done: a
# microsecond of a small call.
_apply_cross_entropy = super(Function, _CrossEntropy).apply


class _LinearCrossEntropy(Function):
    """As `_CrossEntropy`."""

    @staticmethod
    def forward(
        ctx: Any,
        X: Tensor,
        W: Tensor,
        b: Any,
        target: Tensor,
        weight: Any,
        how: How,
        links: list[Tensor],
    ) -> Tensor:
        ctx.how, ctx.links = how, links
        if how[0] == "none":
            ctx.save_for_backward(X, W, b, target, weight)
            losses = _linear_cross_entropy("linear_cross_entropy", (X, W, b), target, weight, how)
            return _loss(W, losses)
        result = _linear_cross_entropy(
            "linear_cross_entropy_with_grad", (X, W, b), target, weight, how,
            with_dX=ctx.needs_input_grad[0],
        )  # fmt: skip
        ctx.save_for_backward(*_gradients(ctx, result))
        return _loss(W, result.loss)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        if ctx.how[0] == "none":
            X, W, b, target, weight = ctx.saved_tensors
            result = _linear_cross_entropy(
                "linear_cross_entropy_with_grad", (X, W, b), target, weight,
                ("sum", *ctx.how[1:]), sample_weight=_factors(grad),
                with_dX=ctx.needs_input_grad[0],
            )  # fmt: skip
            gradients = _gradients(ctx, result)
        else:
            gradients = [None if g is None else _scaled(g, grad) for g in ctx.saved_tensors]
        return (*_once(ctx, gradients), None, None, None, None)


_apply_linear_cross_entropy = super(Function, _LinearCrossEntropy).apply


def _gradients(ctx: Any, result: Any) -> list[Tensor | None]:
    """Those of X, W (C, D) and b that are wanted."""
    found: tuple[Array | None, ...] = result.dX, result.dW.T, result.db
    return [
        torch.from_numpy(g) if wanted else None
        for g, wanted in zip(found, ctx.needs_input_grad, strict=False)
    ]
