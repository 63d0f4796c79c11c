"""JAX: one jitted function per job, its inputs on the device beforehand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchlib.contenders.base import Builder, Job, batches, classes_along, one, one_from
from benchlib.data import Data, draw_order
from benchlib.truth import LEARNING_RATE, Answer
from benchlib.workloads import Workload


def _device(workload: Workload, *arrays: Any) -> list[jax.Array]:
    """Put arrays on the device; without the switch JAX would make float32 of float64."""
    jax.config.update("jax_enable_x64", workload.dtype == "float64")
    return [jnp.asarray(array) for array in arrays]


def _job(function: Callable[..., Any], args: list[Any], read: Any = one) -> Job:
    """JAX returns before the work is done: wait for it inside the timed call."""
    jitted = jax.jit(function)
    return Job(lambda: jax.block_until_ready(jitted(*args)), read)


def _read_tuple(result: Any) -> Answer:
    return tuple(np.asarray(array) for array in result)


def _of_logits(function: Callable[..., Any]) -> Builder:
    def build(workload: Workload, data: Data) -> Job:
        x, axis = classes_along(workload, data)
        return _job(lambda x: function(x, axis=axis), _device(workload, x), one_from(workload))

    return build


def _loss(logits: Any, y: Any) -> Any:
    picked = jnp.take_along_axis(logits, y[:, None], axis=1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - picked)


def _cross_entropy(workload: Workload, data: Data) -> Job:
    return _job(_loss, _device(workload, data.logits, data.y))


def _cross_entropy_with_grad(workload: Workload, data: Data) -> Job:
    return _job(jax.value_and_grad(_loss), _device(workload, data.logits, data.y), _read_tuple)


def _of_images(function: Callable[..., Any]) -> Builder:
    """Jobs of X, W, b."""
    return lambda workload, data: _job(function, _device(workload, data.X, data.W, data.b))


def _layer_loss(scale: float) -> Callable[..., Any]:
    def loss(W: Any, b: Any, X: Any, y: Any) -> Any:
        if X.dtype != W.dtype:
            X = X.astype(W.dtype) * W.dtype.type(scale)
        return _loss(X @ W + b, y)

    return loss


def _linear_cross_entropy(workload: Workload, data: Data) -> Job:
    return _job(_layer_loss(data.x_scale), _device(workload, data.W, data.b, data.X, _labels(data)))


def _linear_cross_entropy_with_grad(workload: Workload, data: Data) -> Job:
    wanted = (0, 1, 2) if workload.with_dX else (0, 1)
    gradient = jax.value_and_grad(_layer_loss(data.x_scale), argnums=wanted)
    args = _device(workload, data.W, data.b, data.X, _labels(data))

    def read(result: Any) -> Answer:
        loss, arrays = result
        return _read_tuple((loss, *arrays))

    if not data.batches:
        return _job(gradient, args, read)
    next_batch = batches(data)
    jitted = jax.jit(lambda W, b, X, y, rows: gradient(W, b, _rows(X, rows), _rows(y, rows)))
    return Job(lambda: jax.block_until_ready(jitted(*args, next_batch().astype(np.int32))), read)


def _rows(array: Any, rows: Any) -> Any:
    """Gather without the bounds check that indexing with [] compiles in."""
    return array.at[rows].get(mode="promise_in_bounds")


def _labels(data: Data) -> Any:
    return data.y.astype(np.int32)


def _epoch(workload: Workload, data: Data) -> Job:
    gradient = jax.value_and_grad(_layer_loss(data.x_scale), argnums=(0, 1))
    X, y = _device(workload, data.X, _labels(data))
    whole = workload.rows - workload.rows % workload.batch
    shape = (workload.features, workload.classes)

    @jax.jit
    def epoch(X: Any, y: Any, order: Any) -> Any:
        def step(state: Any, rows: Any) -> Any:
            W, b = state
            loss, (dW, db) = gradient(W, b, _rows(X, rows), _rows(y, rows))
            return (W - LEARNING_RATE * dW, b - LEARNING_RATE * db), loss

        state = jnp.zeros(shape, workload.dtype), jnp.zeros(shape[1:], workload.dtype)
        state, losses = jax.lax.scan(step, state, order[:whole].reshape(-1, workload.batch))
        last = jnp.zeros(())
        if whole < workload.rows:
            state, last = step(state, order[whole:])
        return state, losses, last

    def run() -> Any:
        return jax.block_until_ready(epoch(X, y, draw_order(workload).astype(np.int32)))

    return Job(run, lambda result: _read_tuple(result[0]))


CONTENDERS: dict[str, dict[str, Builder]] = {
    "JAX": {
        "softmax": _of_logits(jax.nn.softmax),
        "log_softmax": _of_logits(jax.nn.log_softmax),
        "logsumexp": _of_logits(jax.nn.logsumexp),
        "cross_entropy": _cross_entropy,
        "cross_entropy_with_grad": _cross_entropy_with_grad,
        "linear": _of_images(lambda X, W, b: X @ W + b),
        "predict": _of_images(lambda X, W, b: jnp.argmax(X @ W + b, axis=1)),
        "predict_proba": _of_images(lambda X, W, b: jax.nn.softmax(X @ W + b, axis=1)),
        "linear_cross_entropy": _linear_cross_entropy,
        "linear_cross_entropy_with_grad": _linear_cross_entropy_with_grad,
        "entropy": lambda workload, data: _job(
            lambda p: jax.scipy.special.entr(p).sum(axis=-1), _device(workload, data.p)
        ),
        "kl_divergence": lambda workload, data: _job(
            lambda p, q: jax.scipy.special.rel_entr(p, q).sum(axis=-1),
            _device(workload, data.p, data.q),
        ),
        "epoch": _epoch,
    }
}
