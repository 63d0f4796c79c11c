"""The statements of docs/math.md, one test for each; the page names them where they belong."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from softmax_ext import reference

PAGE = Path(__file__).resolve().parents[1] / "docs" / "math.md"


def probabilities(rng, *shape):
    """Distributions along the last axis, some of them nearly certain."""
    return reference.softmax(
        rng.normal(size=shape) * rng.choice([0.1, 1, 5], size=(*shape[:-1], 1))
    )


def derivative(function, at, step=1e-6):
    """Central differences in every direction."""
    slopes = np.empty_like(at)
    for place in np.ndindex(at.shape):
        moved = at.copy()
        moved[place] = at[place] + step
        above = function(moved)
        moved[place] = at[place] - step
        slopes[place] = (above - function(moved)) / (2 * step)
    return slopes


def hessian(p):
    return np.diag(p) - np.outer(p, p)


def smallest_eigenvalue(matrix):
    return np.linalg.eigvalsh(matrix).min()


def test_page_and_tests_name_each_other():
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text(encoding="utf-8")))
    tests = {name for name in globals() if name.startswith("test_")}
    tests -= {"test_page_and_tests_name_each_other"}
    assert tests <= named
    files = Path(__file__).parent.glob("test_*.py")
    everywhere = {
        name
        for file in files
        for name in re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert named <= everywhere


# The model, its loss, gradient and Hessian ----------------------------------------------------


def test_softmax_ignores_a_common_shift(kernels, rng):
    o = rng.normal(size=(20, 7))
    np.testing.assert_allclose(kernels.softmax(o + 3.0), kernels.softmax(o), rtol=1e-14)
    # The superfluous freedom of the weights: the same number in a whole row of W.
    X, W = rng.normal(size=(20, 4)), rng.normal(size=(4, 7))
    moved = W + rng.normal(size=(4, 1))
    np.testing.assert_allclose(
        kernels.predict_proba(X, moved), kernels.predict_proba(X, W), rtol=1e-12
    )


def test_gradient_is_softmax_minus_target(kernels, rng):
    o = rng.normal(size=(5, 4))
    y = probabilities(rng, 5, 4)
    G = kernels.softmax(o) - y
    slopes = derivative(lambda o: kernels.cross_entropy(o, y, reduction="sum"), o)
    np.testing.assert_allclose(slopes, G, atol=1e-8)
    got = kernels.cross_entropy_with_grad(o, y, reduction="sum").dlogits
    np.testing.assert_allclose(got, G, atol=1e-14)


def test_gradients_of_the_layer(kernels, rng):
    X, W, b = rng.normal(size=(7, 4)), rng.normal(size=(4, 3)), rng.normal(size=3)
    y = probabilities(rng, 7, 3)
    G = kernels.softmax(X @ W + b) - y
    got = kernels.linear_cross_entropy_with_grad(X, W, b, y, reduction="sum", with_dX=True)

    def loss(X, W, b):
        return kernels.linear_cross_entropy(X, W, b, y, reduction="sum")

    for gradient, formula, slopes in (
        (got.dW, X.T @ G, derivative(lambda W: loss(X, W, b), W)),
        (got.db, G.sum(axis=0), derivative(lambda b: loss(X, W, b), b)),
        (got.dX, G @ W.T, derivative(lambda X: loss(X, W, b), X)),
    ):
        np.testing.assert_allclose(slopes, formula, atol=1e-7)
        np.testing.assert_allclose(gradient, formula, atol=1e-13)


def test_gradient_of_the_weights_adds_up_to_zero(kernels, rng):
    X, W = rng.normal(size=(30, 6)), rng.normal(size=(6, 5))
    got = kernels.linear_cross_entropy_with_grad(X, W, np.zeros(5), rng.integers(5, size=30))
    np.testing.assert_allclose(got.dW.sum(axis=1), 0, atol=1e-14)
    np.testing.assert_allclose(got.db.sum(), 0, atol=1e-14)
    assert np.abs(got.dW).max() > 0.01


def test_hessian_is_the_variance(kernels, rng):
    o, v = rng.normal(size=6), rng.normal(size=6)
    y = np.eye(6)[2]
    p = kernels.softmax(o)
    H = np.stack(
        [
            derivative(lambda o, j=j: kernels.cross_entropy_with_grad(o, y)[1][j], o)
            for j in range(6)
        ]
    )
    np.testing.assert_allclose(H, hessian(p), atol=1e-8)
    variance = p @ (v - p @ v) ** 2
    np.testing.assert_allclose(v @ H @ v, variance, rtol=1e-6)
    assert smallest_eigenvalue(hessian(p)) > -1e-15


@pytest.mark.parametrize("C", [2, 3, 10, 50])
def test_bohning_bounds_the_hessian(C, rng):
    bound = (np.eye(C) - 1 / C) / 2
    for p in probabilities(rng, 200, C):
        assert smallest_eigenvalue(bound - hessian(p)) > -1e-14
    # It is tight: two classes of probability one half, and nothing else.
    half = np.zeros(C)
    half[:2] = 0.5
    v = np.zeros(C)
    v[:2] = 1, -1
    np.testing.assert_allclose(v @ bound @ v, v @ hessian(half) @ v, rtol=1e-14)


def test_bohning_bounds_the_hessian_of_the_weights(rng):
    X = np.column_stack([rng.normal(size=(40, 3)), np.ones(40)])
    P = reference.softmax(X @ rng.normal(size=(4, 5)) * 3)
    H = sum(np.kron(hessian(p), np.outer(x, x)) for p, x in zip(P, X, strict=True))
    bound = np.kron((np.eye(5) - 1 / 5) / 2, X.T @ X)
    assert smallest_eigenvalue(bound - H) > -1e-12 * np.abs(bound).max()
    assert smallest_eigenvalue(0.2 * bound - H) < -1  # less would not do


def test_step_within_the_bound_never_makes_the_loss_worse(kernels, rng):
    X = rng.normal(size=(50, 5)) * [1, 1, 1, 1, 10]
    y = rng.integers(4, size=50)
    ones = np.column_stack([X, np.ones(50)])
    step = 2 * 50 / np.linalg.eigvalsh(ones.T @ ones).max()
    W, b = rng.normal(size=(5, 4)), np.zeros(4)
    losses, least_gains = [], []
    for _ in range(50):
        got = kernels.linear_cross_entropy_with_grad(X, W, b, y)
        losses.append(got.loss)
        least_gains.append(step / 2 * ((got.dW**2).sum() + (got.db**2).sum()))
        W, b = W - step * got.dW, b - step * got.db
    assert (-np.diff(losses) >= least_gains[:-1]).all()
    assert min(least_gains) > 1e-6


# Information ----------------------------------------------------------------------------------


def cross_entropies(kernels, p, q):
    """H(p, q) for each row, by the kernel: softmax(log q) is q."""
    return kernels.cross_entropy(np.log(q), p, reduction="none")


def test_cross_entropy_less_divergence_is_the_entropy(kernels, rng):
    p, q = probabilities(rng, 50, 6), probabilities(rng, 50, 6)
    p[0] = np.eye(6)[1]
    difference = cross_entropies(kernels, p, q) - kernels.kl_divergence(p, q)
    np.testing.assert_allclose(difference, kernels.entropy(p), atol=1e-13)
    assert difference[0] == pytest.approx(0, abs=1e-15)  # a certain p has no entropy


def test_divergence_is_never_negative(kernels, rng):
    p, q = probabilities(rng, 500, 5), probabilities(rng, 500, 5)
    assert (kernels.kl_divergence(p, q) > 0).all()
    np.testing.assert_allclose(kernels.kl_divergence(p, p), 0, atol=1e-16)
    assert kernels.kl_divergence([0.5, 0.5], [1.0, 0.0]) == np.inf


def test_entropy_is_at_most_log_c(kernels, rng):
    p, u = probabilities(rng, 500, 5), np.full(5, 1 / 5)
    divergences = kernels.kl_divergence(p, np.broadcast_to(u, p.shape))
    np.testing.assert_allclose(divergences, np.log(5) - kernels.entropy(p), atol=1e-14)
    assert (kernels.entropy(p) < np.log(5)).all()
    assert kernels.entropy(u) == pytest.approx(np.log(5), rel=1e-15)


def test_gradient_of_kl_is_gradient_of_cross_entropy(kernels, rng):
    """Of the logits of q, by differences of the divergence, against the kernel's derivative."""
    p = probabilities(rng, 6, 5)
    o = rng.normal(size=(6, 5))
    of_divergence = derivative(lambda o: kernels.kl_divergence(p, kernels.softmax(o)).sum(), o)
    of_cross_entropy = kernels.cross_entropy_with_grad(o, p, reduction="sum").dlogits
    np.testing.assert_allclose(of_divergence, of_cross_entropy, atol=1e-8)
    # The other way round it is another gradient.
    reverse = derivative(lambda o: kernels.kl_divergence(kernels.softmax(o), p).sum(), o)
    assert np.abs(reverse - of_cross_entropy).max() > 0.01


def test_minimisers_of_both_are_the_same(kernels, rng):
    """Over a family that does not contain p: softmax(theta a), for a grid of theta."""
    p, a = probabilities(rng, 5), rng.normal(size=5)
    family = kernels.softmax(np.linspace(-3, 3, 601)[:, None] * a)
    ps = np.broadcast_to(p, family.shape)
    divergences, losses = kernels.kl_divergence(ps, family), cross_entropies(kernels, ps, family)
    assert divergences.argmin() == losses.argmin()
    assert 0 < losses.argmin() < 600
    assert divergences.min() > 0.001
    np.testing.assert_allclose(losses - divergences, kernels.entropy(p), atol=1e-14)


def test_one_hot_divergence_is_the_loss(kernels, rng):
    o, y = rng.normal(size=(30, 4)), rng.integers(4, size=30)
    divergences = kernels.kl_divergence(reference.one_hot(y, 4), kernels.softmax(o))
    losses = kernels.cross_entropy(o, y, reduction="none")
    np.testing.assert_allclose(divergences, losses, rtol=1e-13)
    likelihood = np.prod(kernels.softmax(o)[np.arange(30), y])
    np.testing.assert_allclose(losses.sum(), -np.log(likelihood), rtol=1e-13)


# Label smoothing and weights ------------------------------------------------------------------


def test_smoothing_mixes_in_the_uniform_distribution(kernels, rng):
    o, y, e = rng.normal(size=(20, 5)), rng.integers(5, size=20), 0.2
    smoothed = kernels.cross_entropy(o, y, label_smoothing=e)
    usual = kernels.cross_entropy(o, y)
    uniform = kernels.cross_entropy(o, np.full((20, 5), 0.2))
    assert smoothed == pytest.approx((1 - e) * usual + e * uniform, rel=1e-14)


def floor(C, e):
    c = e / C
    return -(1 - e + c) * np.log(1 - e + c) - (C - 1) * c * np.log(c)


def test_smoothed_loss_has_a_floor(kernels, rng):
    C, e = 4, 0.1
    smoothed = (1 - e) * np.eye(C)[0] + e / C
    assert kernels.entropy(smoothed) == pytest.approx(floor(C, e), rel=1e-14)
    at_best = kernels.cross_entropy(np.log(smoothed), 0, label_smoothing=e)
    assert at_best == pytest.approx(floor(C, e), rel=1e-14)
    y = np.zeros(300, np.intp)
    elsewhere = kernels.cross_entropy(
        rng.normal(size=(300, C)) * 5, y, label_smoothing=e, reduction="none"
    )
    assert elsewhere.min() > floor(C, e)


def test_smoothed_optimum_is_finite(kernels):
    C, e = 4, 0.1
    gap = np.log((1 - e + e / C) / (e / C))
    best = np.array([gap, 0, 0, 0])
    there = kernels.cross_entropy_with_grad(best, 0, label_smoothing=e).dlogits
    np.testing.assert_allclose(there, 0, atol=1e-15)
    plain = [kernels.cross_entropy_with_grad(scale * best, 0).dlogits[0] for scale in (1, 2, 4)]
    assert plain[0] < plain[1] < plain[2] < 0  # always onwards


def test_weighted_targets_pull_to_their_share(kernels, rng):
    C, e, w = 3, 0.3, np.array([1.0, 2.0, 5.0])
    t = w * ((1 - e) * np.eye(C)[1] + e / C)
    o = rng.normal(size=C)
    options = {"weight": w, "label_smoothing": e, "reduction": "sum"}
    got = kernels.cross_entropy_with_grad(o, 1, **options)
    assert got.loss == pytest.approx(-t @ np.log(kernels.softmax(o)), rel=1e-13)
    np.testing.assert_allclose(got.dlogits, t.sum() * kernels.softmax(o) - t, atol=1e-14)
    at_share = kernels.cross_entropy_with_grad(np.log(t / t.sum()), 1, **options)
    np.testing.assert_allclose(at_share.dlogits, 0, atol=1e-14)


# Rounding -------------------------------------------------------------------------------------


def test_lse_neither_overflows_nor_vanishes(kernels):
    with np.errstate(over="ignore", divide="ignore"):
        assert np.log(np.exp([100.0, 1000.0]).sum()) == np.inf
        assert np.log(np.exp([-1000.0, -1001.0]).sum()) == -np.inf
    right = np.log(1 + np.exp(-1))
    assert kernels.logsumexp([1000.0, 999.0]) == pytest.approx(1000 + right, rel=1e-15)
    assert kernels.logsumexp([-1000.0, -1001.0]) == pytest.approx(right - 1000, rel=1e-15)


def ulps(got, right):
    """Distance from the right answer, in units of the last place of it."""
    return np.abs(got - right) / np.spacing(right.astype(got.dtype)).astype(right.dtype)


def wide_logits(rng):
    return (rng.normal(size=(20_000, 10)) * 20).astype(np.float32)


def test_reduced_argument_is_exact(rng):
    x = wide_logits(rng).astype(np.float64)
    m = x.max(axis=1, keepdims=True)
    k = np.rint(m / np.log(2) * 64) / 64
    n = np.rint(x / np.log(2) - k)
    ln2_hi = float.fromhex("0x1.62e4p-1")
    r = x - (k + n) * ln2_hi  # exact in float64: 24, 16 and 15 bits of similar size
    assert (np.abs(r) < 0.36).all()
    rounded = r.astype(np.float32)
    assert (r == rounded)[np.abs(x) >= 0.25].all()
    assert (np.abs(r - rounded) <= 2.0**-26).all()
    # The difference that other libraries form is not.
    assert np.count_nonzero(x - m != (x - m).astype(np.float32)) > 0.3 * x.size


def test_far_differences_are_exact(rng):
    m = np.float32(256) * np.exp2(rng.uniform(0, 20, 1000)).astype(np.float32)
    below = rng.uniform(0, 104, 1000).astype(np.float32)
    for m_, x in ((m, m - below), (-m, -m - below)):
        assert (x - m_ == x.astype(np.float64) - m_).all()


def test_reduction_keeps_softmax_within_4_ulp(compiled, rng):
    x = wide_logits(rng)
    right = reference.softmax(x.astype(np.float64))
    seen = right > np.finfo(np.float32).tiny
    assert ulps(compiled.softmax(x), right)[seen].max() <= 4
    # A perfect exp of the rounded difference, everything else in float64.
    d = x - x.max(axis=1, keepdims=True)
    e = np.exp(d.astype(np.float64))
    rounded = e / e.sum(axis=1, keepdims=True)
    wrong = ulps(rounded.astype(np.float32), right)
    assert wrong[seen].max() > 15
    # |d| for the number itself, and a few for its sum and the last rounding.
    assert (wrong <= np.abs(d) + 8)[seen].all()


def test_sums_keep_what_rounding_loses(compiled, rng):
    C = 4096
    x = rng.normal(size=(50, C)).astype(np.float32)
    assert ulps(compiled.softmax(x), reference.softmax(x.astype(np.float64))).max() <= 4
    # One after the other, and no other error than that of the sum.
    e = np.exp((x - x.max(axis=1, keepdims=True)).astype(np.float64))
    plain = np.add.accumulate(e.astype(np.float32), axis=1)[:, -1]
    lost = np.abs(plain / e.sum(axis=1) - 1) / 2.0**-24
    assert 10 < lost.max() < C - 1


def test_tiny_losses_survive(kernels):
    loss = kernels.cross_entropy(np.array([[40.0, 0.0]]), [0])
    assert loss == pytest.approx(np.exp(-40), rel=1e-14)
    assert np.log(np.exp(40.0) + np.exp(0.0)) - 40 == 0


# One pass -------------------------------------------------------------------------------------


def test_parts_add_up(kernels, rng):
    X, y = rng.normal(size=(100, 6)), rng.integers(4, size=100)
    W, b = rng.normal(size=(6, 4)), rng.normal(size=4)

    def summed(rows):
        return kernels.linear_cross_entropy_with_grad(X[rows], W, b, y[rows], reduction="sum")

    whole = summed(slice(None))
    parts = [summed(slice(start, start + 30)) for start in range(0, 100, 30)]
    assert sum(part.loss for part in parts) == pytest.approx(whole.loss, rel=1e-13)
    np.testing.assert_allclose(sum(part.dW for part in parts), whole.dW, atol=1e-12)
    np.testing.assert_allclose(sum(part.db for part in parts), whole.db, atol=1e-12)


# A preconditioner -----------------------------------------------------------------------------


def test_centring_and_scaling_is_a_change_of_variables(kernels, rng):
    X = rng.normal(3, 2, size=(30, 4))
    W, b = rng.normal(size=(4, 3)), rng.normal(size=3)
    m, s = X.mean(axis=0), X.std(axis=0)
    turned = kernels.linear((X - m) / s, s[:, None] * W, b + m @ W)
    np.testing.assert_allclose(turned, kernels.linear(X, W, b), atol=1e-12)


def test_centred_and_scaled_features_are_round(rng):
    X = rng.normal(3, [1, 2, 30], size=(50, 3))
    Z = np.column_stack([(X - X.mean(axis=0)) / X.std(axis=0), np.ones(50)])
    products = Z.T @ Z
    np.testing.assert_allclose(np.diagonal(products), 50, rtol=1e-13)
    np.testing.assert_allclose(products[-1, :-1], 0, atol=1e-12)


@pytest.mark.parametrize("C", [2, 3, 10])
def test_mean_eigenvalue_of_the_softmax_hessian(C, rng):
    for p in probabilities(rng, 50, C):
        values = np.linalg.eigvalsh(hessian(p))
        mean = (1 - p @ p) / (C - 1)
        np.testing.assert_allclose(values.sum() / (C - 1), mean, atol=1e-15)
        np.testing.assert_allclose(hessian(p) @ np.ones(C), 0, atol=1e-15)
    equal = np.linalg.eigvalsh(hessian(np.full(C, 1 / C)))
    np.testing.assert_allclose(equal[1:], 1 / C, rtol=1e-13)


def test_one_factor_is_newtons_step_at_equal_probabilities(kernels, rng):
    """Against the whole Hessian, of (D + 1) C rows, at weights of 0 and with a penalty."""
    N, D, C, strength = 60, 5, 4, 0.7
    Z = np.column_stack([rng.normal(size=(N, D)), np.ones(N)])
    y = rng.integers(C, size=N)
    G = kernels.linear_cross_entropy_with_grad(Z, np.zeros((D + 1, C)), None, y, reduction="sum").dW
    equal = np.full(C, 1 / C)
    whole = np.kron(Z.T @ Z, hessian(equal)) + strength * np.eye((D + 1) * C)
    newton = np.linalg.solve(whole, G.reshape(-1)).reshape(D + 1, C)
    kappa = (1 - equal @ equal) / (C - 1)
    L = np.linalg.cholesky(kappa * Z.T @ Z + strength * np.eye(D + 1))
    one_factor = np.linalg.solve(L.T, np.linalg.solve(L, G))
    np.testing.assert_allclose(one_factor, newton, atol=1e-12)


def test_turned_classes_come_closer(rng):
    """By the spread of the eigenvalues of what a preconditioner leaves of the Hessian."""
    N, D, C, strength = 300, 4, 4, 0.1
    Z = np.column_stack([rng.normal(size=(N, D)), np.ones(N)])
    P = reference.softmax(rng.normal([3, 3, 0, 0], size=(N, C)))  # two of them are confused
    K = np.stack([hessian(p) for p in P])
    penalty = strength * np.eye(D + 1)
    whole = sum(np.kron(zz, k) for zz, k in zip(Z[:, :, None] * Z[:, None, :], K, strict=True))
    whole += np.kron(penalty, np.eye(C))

    kappa = (1 - (P**2).sum(axis=1)) / (C - 1)
    one = np.kron((Z.T * kappa) @ Z + penalty, np.eye(C))
    turned = np.zeros_like(whole)
    for axis in np.linalg.eigh(K.mean(axis=0))[1].T:
        along = np.einsum("i,nij,j->n", axis, K, axis)
        turned += np.kron((Z.T * along) @ Z + penalty, np.outer(axis, axis))

    # No gradient points along the direction of ones, so it is left out.
    seen = np.kron(np.eye(D + 1), np.linalg.svd(np.ones((1, C)))[2][1:])

    def spread(preconditioner):
        left = np.linalg.solve(seen @ preconditioner @ seen.T, seen @ whole @ seen.T)
        values = np.linalg.eigvals(left).real
        return values.max() / values.min()

    assert spread(turned) < 2 < 5 < spread(one) < spread(np.eye(len(whole)))
