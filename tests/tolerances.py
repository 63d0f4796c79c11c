"""How far a result may be from the right one: one table, and the bounds that scale it.

Everything is measured in units of `eps` of the dtype of the computation, and relative to the sizes
of the terms that are added up (not of their sum, in which they may cancel). A bound is derived, not
tuned: it holds for any order of the additions, and fails for one that is left out.
"""

from __future__ import annotations

import numpy as np
from problems import in_float64

from softmax_ext import reference

# (kernel, dtype) -> units of eps. The oracle computes in float64: it adds nothing to the error of
# a float32 result, and as much again to that of a float64 one.
UNITS = {
    # A sum of D products, in any order, is off by at most D eps / 2 of the sum of their sizes; the
    # bias, x_scale and the last rounding add three more roundings. 0.6 for 0.5: terms of eps^2.
    ("linear", "float32"): 0.6,
    ("linear", "float64"): 1.2,
    # The kernels keep within 4 ULP = 4 eps, the oracle within 4 (its exp, sum and quotient), and
    # `x - max` costs the oracle |x - max| eps / 2 more, see `softmax_slack`.
    ("softmax", "float16"): 0.51,  # computed in float32, then rounded once
    ("softmax", "float32"): 4,
    ("softmax", "float64"): 8,
    # (x - max) - log(sum): two terms of one sign, each within 2 eps, and two roundings.
    ("log_softmax", "float16"): 0.51,
    ("log_softmax", "float32"): 4,
    ("log_softmax", "float64"): 8,
    # max + log(sum), relative to |max| + log(sum), as these may cancel.
    ("logsumexp", "float16"): 0.51,
    ("logsumexp", "float32"): 3,
    ("logsumexp", "float64"): 6,
    # sum_j t_j (max - x_j) + log(sum) sum_j t_j: no term is negative. The log-sum is within 3 eps,
    # the targets (weighted, smoothed) within 3, their sums are accumulated in float64 by the
    # kernels, but in pairs in its own precision by the oracle.
    ("cross_entropy", "float32"): 8,
    ("cross_entropy", "float64"): 16,
    # scale (p sum(t) - t), relative to scale (p sum(t) + t): p within 4, the factors within 2 each.
    ("gradient", "float32"): 10,
    ("gradient", "float64"): 20,
    # Sums in float64 of p log p, each within 2 eps; float64 itself is added in pairs, after runs
    # of 16 numbers at most.
    ("entropy", "float16"): 0.52,
    ("entropy", "float32"): 4,
    ("entropy", "float64"): 16,
    # The same, relative to the sum of p |log(p / q)|, whose terms have both signs. Where p and q
    # are not near, log p - log q is less than either, and its relative error larger.
    ("kl_divergence", "float16"): 0.52,
    ("kl_divergence", "float32"): 16,
    ("kl_divergence", "float64"): 16,
}

# Units in the last place of the exact result, for softmax of numbers whose result is normal.
SOFTMAX_ULP = 4
# The reference subtracts the maximum in plain arithmetic: the rounding of that difference z alone
# costs up to |z| / 2 units (up to |z| just above a power of two), 40 or so in practice. The same
# error of the other terms of the sum, its additions and the quotient make up the rest.
REFERENCE_SOFTMAX_ULP = 8
REFERENCE_SOFTMAX_ULP_PER_UNIT_OF_Z = 1


def eps(dtype):
    return float(np.finfo(dtype).eps)


def tiny(dtype):
    """Where numbers become subnormal the relative error has no bound: a few of the smallest."""
    return 4 * float(np.finfo(dtype).smallest_subnormal)


def tiny_sum(dtype, n, scale):
    """The same of a sum of n subnormal terms, multiplied by a scale."""
    return tiny(dtype) * (1 + n * scale)


def units(kernel, dtype):
    return UNITS[kernel, np.dtype(dtype).name] * eps(dtype)


def softmax_slack(z, dtype):
    """Relative error of exp(z) from the rounding of z itself, in the oracle and the reference."""
    return np.where(np.isfinite(z), np.abs(z), 0) * eps(dtype)


def log_sum_slack(z, p, dtype):
    """The same for log(sum(exp(z))): each term's error, as its share p of the sum."""
    return (p * softmax_slack(z, dtype)).sum(axis=-1)


def linear_bound(problem):
    """For the logits, as (N, C)."""
    p = in_float64(problem.linear)
    sizes = abs(problem.x_scale) * np.abs(p["X"]) @ np.abs(p["W"])
    if p["b"] is not None:
        sizes = sizes + np.abs(p["b"])
    dtype = problem.case.dtype
    return (problem.case.d + 3) * units("linear", dtype) * sizes


def softmax_bound(x, dtype, error_of_x=0.0):
    """For probabilities of float64 logits (..., C)."""
    p, z = reference.softmax(x), below_maximum(x)
    relative = units("softmax", dtype) + softmax_slack(z, dtype) + 2 * np.asarray(error_of_x)
    return p * relative + tiny(dtype)


def log_softmax_bound(x, dtype):
    log_p, z = reference.log_softmax(x), below_maximum(x)
    slack = log_sum_slack(z, np.exp(log_p), dtype)[..., None]
    return np.abs(log_p) * units("log_softmax", dtype) + slack + tiny(dtype)


def logsumexp_bound(x, dtype):
    z, m, total = below_maximum(x), x.max(axis=-1), reference.logsumexp(x)
    sizes = np.abs(m) + np.abs(total - m)
    return sizes * units("logsumexp", dtype) + log_sum_slack(z, reference.softmax(x), dtype)


def below_maximum(x):
    return x - x.max(axis=-1, keepdims=True, initial=-np.inf)


class Terms:
    """The terms that make up the losses and gradients of logits and targets, in float64.

    T (n, C): effective targets, weighted and smoothed, 0 in ignored rows. P: probabilities. M: the
    size of the terms of the gradient of the reduced loss. `loss` and `gradient` are error bounds.
    """

    def __init__(self, logits, dtype, target, *, error_of_logits=0.0, weight=None,
                 sample_weight=None, ignore_index=-100, label_smoothing=0.0,
                 reduction="mean"):  # fmt: skip
        n, c = logits.shape
        class_weight = np.ones(c) if weight is None else np.asarray(weight, float)
        row_weight = np.ones(n) if sample_weight is None else np.asarray(sample_weight, float)
        if target.ndim == 2:
            t, self.kept, counts = target.astype(float), np.ones(n, bool), row_weight
        else:
            self.kept = target.astype(object) != ignore_index
            self.kept = self.kept.astype(bool)
            y = np.where(self.kept, target, 0).astype(int)
            t, counts = np.eye(c)[y], row_weight * class_weight[y]
        t = t * (1 - label_smoothing) + label_smoothing / c
        self.T = np.where(self.kept, row_weight, 0)[:, None] * class_weight * t
        self.total = counts[self.kept].sum()
        divisor = self.total if reduction == "mean" else 1.0
        sums = self.T.sum(axis=1, keepdims=True)
        wrong = np.broadcast_to(np.asarray(error_of_logits), logits.shape)
        worst = wrong.max(axis=1, keepdims=True, initial=0)

        log_p = reference.log_softmax(logits) if n else logits
        self.P = np.exp(log_p)
        z = below_maximum(logits)
        losses = -(self.T * log_p).sum(axis=1)
        self.losses = losses * units("cross_entropy", dtype) + (2 * worst * sums)[:, 0]
        self.losses += log_sum_slack(z, self.P, dtype) * sums[:, 0] + tiny(dtype)
        if reduction == "none":
            self.loss = self.losses
        else:
            self.loss = self.losses.sum() / divisor if divisor else 0.0

        divisor = divisor or 1.0
        slack = softmax_slack(z, dtype) + 2 * worst
        self.M = (self.P * sums + self.T) / divisor
        self.gradient = self.M * units("gradient", dtype) + self.P * sums / divisor * slack
        self.gradient += tiny(dtype)


class LinearTerms(Terms):
    """The same for the fused functions, with bounds for dW, db and dX."""

    def __init__(self, problem, arguments):
        dtype, case = problem.case.dtype, problem.case
        X = arguments["X"].astype(float)
        wide = in_float64(problem.linear) | {"X": X}
        sizes = abs(problem.x_scale) * np.abs(X) @ np.abs(wide["W"])
        if wide["b"] is not None:
            sizes = sizes + np.abs(wide["b"])
        options = {k: v for k, v in arguments.items() if k not in ("X", "W", "b", "x_scale")}
        self.logits = reference.linear(**wide)
        self.error_of_logits = (case.d + 3) * units("linear", dtype) * sizes
        super().__init__(self.logits, dtype, error_of_logits=self.error_of_logits, **options)
        n, c = self.logits.shape
        # A sum over n rows (or C classes) of rounded terms, in any order. A sparse X may have more
        # entries in a column than rows, several at one place.
        self.additions = max(n, getattr(case, "most_in_a_column", 0))
        over_rows = self.gradient + (self.additions + 3) * units("linear", dtype) * self.M
        over_classes = self.gradient + (c + 3) * units("linear", dtype) * self.M
        scale = abs(problem.x_scale)
        self.dW = scale * np.abs(X).T @ over_rows + tiny_sum(dtype, self.additions, scale)
        self.db = over_rows.sum(axis=0)
        self.dX = scale * over_classes @ np.abs(wide["W"]).T + tiny_sum(dtype, c, scale)

    def undecided(self):
        """Rows whose largest logit is so close to another that rounding may choose either."""
        if self.logits.shape[1] < 2:
            return np.zeros(len(self.logits), bool)
        second, first = np.sort(self.logits, axis=1)[:, -2:].T
        return first - second < 2 * self.error_of_logits.max(axis=1)


class HessianTerms(LinearTerms):
    """Bounds for the product of the Hessian with a direction (V, v), as `dW` and `db`.

    A row's part is G_j = s p_j (r_j - sum_k p_k r_k), where r is x V + v less what the most likely
    class has of it.
    """

    def __init__(self, problem, arguments, V, v=None):
        super().__init__(problem, arguments)
        dtype, case, scale = problem.case.dtype, problem.case, abs(problem.x_scale)
        X, V = arguments["X"].astype(float), V.astype(float)
        u, sizes = problem.x_scale * X @ V, scale * np.abs(X) @ np.abs(V)
        if v is not None:
            u, sizes = u + v.astype(float), sizes + np.abs(v.astype(float))
        error_of_u = ((case.d + 3) * units("linear", dtype) * sizes).max(axis=1, initial=0)
        r = np.abs(u - np.take_along_axis(u, self.logits.argmax(axis=1)[:, None], axis=1))
        divisor = self.total if problem.options["reduction"] == "mean" else 1.0
        s = self.T.sum(axis=1, keepdims=True) / (divisor or 1.0)
        spread = s * (r + (self.P * r).sum(axis=1, keepdims=True))
        size = self.P * spread
        relative = units("gradient", dtype) + (case.c + 3) * units("linear", dtype)
        z = below_maximum(self.logits)
        slack = softmax_slack(z, dtype) + 2 * self.error_of_logits.max(axis=1, keepdims=True)
        # Another class may be the most likely one by a rounding error, which costs as much again.
        slack = slack.max(axis=1, keepdims=True, initial=0)
        error = 2 * size * (relative + 2 * slack) + 4 * s * self.P * error_of_u[:, None]
        error += (self.additions + 3) * units("linear", dtype) * size
        error += tiny(dtype) * (1 + spread)  # of a subnormal p
        self.dW = scale * np.abs(X).T @ error + tiny_sum(dtype, self.additions, scale)
        self.db = error.sum(axis=0) + tiny(dtype)
