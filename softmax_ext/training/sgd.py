"""Stochastic gradient descent with momentum and weight decay."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..model import SoftmaxModel


class SGD:
    """The step rule of PyTorch's SGD; its buffers are made once."""

    def __init__(
        self, model: SoftmaxModel, momentum: float, weight_decay: float, decay_bias: bool
    ) -> None:
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.parameters = parameters_of(model)
        self.velocities = [np.zeros_like(p) if momentum else None for p in self.parameters]
        self._products = [
            np.empty_like(p) if weight_decay and (decay_bias or p is model.W) else None
            for p in self.parameters
        ]
        # If the weights are to be averaged: their sums over the epoch's steps.
        self.sums: list[NDArray[np.float64]] | None = None

    def start_averaging(self) -> None:
        self.sums = [np.zeros(p.shape) for p in self.parameters]

    def finish_averaging(self, n_steps: int) -> None:
        """Put the mean of the weights of so many steps in their place."""
        assert self.sums is not None
        for parameter, total in zip(self.parameters, self.sums, strict=True):
            parameter[...] = total / n_steps
        self.sums = None

    def step(self, gradients: tuple[NDArray[Any] | None, ...], rate: float) -> None:
        """Change the parameters in place; the gradients are used up."""
        for parameter, gradient, velocity, product in zip(
            self.parameters, gradients, self.velocities, self._products, strict=False
        ):
            assert gradient is not None
            if product is not None:
                np.multiply(parameter, self.weight_decay, out=product)
                gradient += product
            if velocity is not None:
                velocity *= self.momentum
                velocity += gradient
                np.multiply(velocity, rate, out=gradient)
            else:
                gradient *= rate
            parameter -= gradient
        if self.sums is not None:
            for total, parameter in zip(self.sums, self.parameters, strict=True):
                total += parameter


def parameters_of(model: SoftmaxModel) -> list[NDArray[Any]]:
    """Return the arrays that training changes in place."""
    return [model.W] if model.b is None else [model.W, model.b]
