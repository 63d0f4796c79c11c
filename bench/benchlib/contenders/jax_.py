"""JAX: one jitted function per job, its inputs on the device beforehand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchlib.contenders import Builder, Job, arrays, dense, next_batch
from benchlib.data import LEARNING_RATE, Data, order_of
from benchlib.workloads import Workload


def _device(workload: Workload, *values: Any) -> list[jax.Array]:
    """Put arrays on the device; without the switch JAX would make float32 of float64."""
    jax.config.update("jax_enable_x64", workload.dtype == "float64")
    return [jnp.asarray(value) for value in values]


def _waiting(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    """JAX returns before the work is done: wait for it inside the timed call."""
    jitted = jax.jit(function)
    return lambda: jax.block_until_ready(jitted(*args))


def _of_logits(function: Any, workload: Workload, data: Data) -> Any:
    return _waiting(partial(function, axis=data.axis), *_device(workload, data.logits))


def _loss(logits: Any, y: Any) -> Any:
    picked = jnp.take_along_axis(logits, y[:, None], axis=1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - picked)


def _cross_entropy(function: Any, workload: Workload, data: Data) -> Any:
    return _waiting(function, *_device(workload, data.logits, data.y))


def _of_images(function: Any, workload: Workload, data: Data) -> Any:
    return _waiting(function, *_device(workload, data.X, data.W, data.b))


def _layer_loss(scale: float, W: Any, b: Any, X: Any, y: Any) -> Any:
    if X.dtype != W.dtype:
        X = X.astype(W.dtype) * W.dtype.type(scale)
    return _loss(X @ W + b, y)


def _labels(data: Data) -> Any:
    return data.y.astype(np.int32)


def _linear_cross_entropy(workload: Workload, data: Data) -> Any:
    args = _device(workload, data.W, data.b, data.X, _labels(data))
    return _waiting(partial(_layer_loss, data.x_scale), *args)


def _rows(array: Any, rows: Any) -> Any:
    """Gather without the bounds check that indexing with [] compiles in."""
    return array.at[rows].get(mode="promise_in_bounds")


def _gradient(workload: Workload, data: Data) -> Any:
    dense(workload)
    wanted = (0, 1, 2) if workload.with_dX else (0, 1)
    gradient = jax.value_and_grad(partial(_layer_loss, data.x_scale), argnums=wanted)
    args = _device(workload, data.W, data.b, data.X, _labels(data))
    if not data.batches:
        return _waiting(gradient, *args)
    rows = next_batch(data)
    jitted = jax.jit(lambda W, b, X, y, rows: gradient(W, b, _rows(X, rows), _rows(y, rows)))
    return lambda: jax.block_until_ready(jitted(*args, rows().astype(np.int32)))


def _hessian_product(workload: Workload, data: Data) -> Any:
    """Forward over reverse, as JAX's manual has it."""
    dense(workload)
    gradient = jax.grad(partial(_layer_loss, data.x_scale), argnums=(0, 1))
    W, b, V, v, X, y = _device(workload, data.W, data.b, data.V, data.v, data.X, _labels(data))

    def product(W: Any, b: Any, V: Any, v: Any, X: Any, y: Any) -> Any:
        return jax.jvp(lambda W, b: gradient(W, b, X, y), (W, b), (V, v))[1]

    return _waiting(product, W, b, V, v, X, y)


def _epoch(workload: Workload, data: Data) -> Any:
    gradient = jax.value_and_grad(partial(_layer_loss, data.x_scale), argnums=(0, 1))
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
        return jax.block_until_ready(epoch(X, y, order_of(workload).astype(np.int32)))

    return Job(run, lambda result: arrays(result[0]))


def _entropy(workload: Workload, data: Data) -> Any:
    return _waiting(lambda p: jax.scipy.special.entr(p).sum(axis=-1), *_device(workload, data.p))


def _kl_divergence(workload: Workload, data: Data) -> Any:
    function = jax.scipy.special.rel_entr
    return _waiting(lambda p, q: function(p, q).sum(axis=-1), *_device(workload, data.p, data.q))


CONTENDERS: dict[str, dict[str, Builder]] = {
    "JAX": {
        "softmax": partial(_of_logits, jax.nn.softmax),
        "log_softmax": partial(_of_logits, jax.nn.log_softmax),
        "logsumexp": partial(_of_logits, jax.nn.logsumexp),
        "cross_entropy": partial(_cross_entropy, _loss),
        "cross_entropy_with_grad": partial(_cross_entropy, jax.value_and_grad(_loss)),
        "linear": partial(_of_images, lambda X, W, b: X @ W + b),
        "predict": partial(_of_images, lambda X, W, b: jnp.argmax(X @ W + b, axis=1)),
        "predict_proba": partial(_of_images, lambda X, W, b: jax.nn.softmax(X @ W + b, axis=1)),
        "linear_cross_entropy": _linear_cross_entropy,
        "linear_cross_entropy_with_grad": _gradient,
        "linear_cross_entropy_hvp": _hessian_product,
        "entropy": _entropy,
        "kl_divergence": _kl_divergence,
        "epoch": _epoch,
    }
}
