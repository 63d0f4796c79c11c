# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True
"""Coordinate descent on a quadratic model of the loss plus a penalty with corners.

A call is one sweep, milliseconds, so that whoever calls looks for Ctrl-C between them. What comes
is right by the callers, `solvers/moments.py` and `solvers/columns.py`: nothing is checked here.
"""

from libc.math cimport fabs, sqrt


cdef inline double shrink(double x, double by) noexcept nogil:
    if x > by:
        return x - by
    if x < -by:
        return x + by
    return 0.0


cdef inline double best_shift(const double* x, Py_ssize_t n, double l1, double l2) noexcept nogil:
    """What to take from all of x for the least l2/2 |x|^2 + l1 |x|_1: it changes no probability.

    The derivative of that in the shift only grows, and jumps at each x: looked for among those.
    0 if that is a best one, so that zeros stay.
    """
    cdef double below = 0, above = 0, total = 0, best = 0, least, value, t, slope
    cdef Py_ssize_t i, k, zeros = 0
    for i in range(n):
        total += x[i]
        if x[i] > 0:
            above += 1
        elif x[i] < 0:
            below += 1
        else:
            zeros += 1
    slope = l2 * total + l1 * (above - below)
    if fabs(slope) <= l1 * zeros + 1e-12 * (l2 * fabs(total) + l1 * n):
        return 0
    # Candidates: each x, and where the slope is 0 between them.
    least = 0
    for i in range(n):
        least += l2 / 2 * x[i] * x[i] + l1 * fabs(x[i])
    for k in range(2 * n):
        t = x[k % n]
        if k >= n:
            if l2 == 0:
                break
            above = 0
            for i in range(n):
                above += 1 if x[i] > t else -1
            t = (total + l1 / l2 * above) / n
        value = 0
        for i in range(n):
            value += l2 / 2 * (x[i] - t) * (x[i] - t) + l1 * fabs(x[i] - t)
        if value < least:
            least, best = value, t
    return best


ctypedef fused real:
    float
    double


def sweep_moments(
    const real[:, :, ::1] A, const double[::1] factors, const double[:, ::1] V,
    const double[:, :, ::1] B, const double[::1] bound, const double[:, ::1] G,
    double[:, ::1] X, real[:, ::1] H, const double[:, :, ::1] Y, const double[:, :, ::1] T,
    double[::1] v, const double[::1] l1, const double[::1] l2, bint grouped, int rounds,
    double[:, ::1] work,
):
    """Go through all features once; return the decrease that the steps' squares add up to.

    The model's Hessian is ``sum_r factors[r] A_r (x) V_r V_r^T`` less ``sum_k T_k Y_k^T``: of the
    features j and k, and the classes. B has its blocks (C, C) on the diagonal, `bound` their
    largest eigenvalues. G is the gradient where X began; H (R, w) is A times the change of X since
    then, rotated, and v (m,) the products of the change with Y. There may be one A for all r.
    """
    cdef Py_ssize_t w = G.shape[0], C = G.shape[1], R = H.shape[0], m = v.shape[0]
    cdef Py_ssize_t j, c, e, r, k, i
    cdef double* g = &work[0, 0]
    cdef double* d = &work[1, 0]
    cdef double* x = &work[2, 0]
    cdef double t, u, q, moved, diagonal, norm, decrease, total = 0
    cdef real f
    cdef real* h
    cdef const real* a
    cdef bint changed
    with nogil:
        for j in range(w):
            for c in range(C):
                t = G[j, c] + l2[j] * X[j, c]
                for r in range(R):
                    t += V[c, r] * H[r, j]
                for k in range(m):
                    t -= T[j, c, k] * v[k]
                g[c] = t
                d[c] = 0
                x[c] = X[j, c]
            changed, decrease = False, 0
            for i in range(rounds):
                q = 0
                if grouped and l1[j] > 0:
                    diagonal = bound[j] + l2[j]
                    norm = 0
                    for c in range(C):
                        t = x[c] - g[c] / diagonal
                        norm += t * t
                    norm = sqrt(norm)
                    norm = 1 - l1[j] / (diagonal * norm) if norm * diagonal > l1[j] else 0
                    for c in range(C):
                        work[3, c] = (x[c] - g[c] / diagonal) * norm - x[c]
                    for c in range(C):
                        moved = work[3, c]
                        if moved == 0:
                            continue
                        x[c] = 0 if norm == 0 else x[c] + moved
                        d[c] += moved
                        q += moved * moved * diagonal
                        for e in range(C):
                            g[e] += B[j, e, c] * moved
                        g[c] += l2[j] * moved
                else:
                    for c in range(C):
                        diagonal = B[j, c, c] + l2[j]
                        if diagonal <= 0:
                            continue
                        u = shrink(x[c] - g[c] / diagonal, l1[j] / diagonal)
                        moved = u - x[c]
                        if moved == 0:
                            continue
                        x[c] = u
                        d[c] += moved
                        q += moved * moved * diagonal
                        for e in range(C):
                            g[e] += B[j, e, c] * moved
                        g[c] += l2[j] * moved
                changed = changed or q > 0
                decrease += q
                if q <= 0.01 * decrease:
                    break
            if not changed:
                continue
            total += decrease
            if l1[j] > 0 and not grouped:
                t = best_shift(x, C, l1[j], l2[j])
                if t != 0:
                    for c in range(C):
                        x[c] -= t
                        d[c] -= t
            for c in range(C):
                X[j, c] = x[c]
            for r in range(R):
                t = 0
                for c in range(C):
                    t += V[c, r] * d[c]
                f = <real> (t * factors[r])
                h = &H[r, 0]
                a = &A[r if A.shape[0] > 1 else 0, j, 0]
                for k in range(w):
                    h[k] += f * a[k]
            for c in range(C):
                if d[c] != 0:
                    for k in range(m):
                        v[k] += Y[j, c, k] * d[c]
    return total


ctypedef fused index:
    int
    long long


def transpose(
    const real[::1] data, const index[::1] indices, const long long[::1] indptr,
    long long[::1] begins, real[::1] values, int[::1] rows,
):
    """Fill the columns of a matrix in CSR form: begins (D + 1,), zeros at first, values and rows."""
    cdef Py_ssize_t i, j, D = begins.shape[0] - 1
    cdef long long k, place
    with nogil:
        for k in range(indices.shape[0]):
            begins[indices[k] + 1] += 1
        for j in range(D):
            begins[j + 1] += begins[j]
        # Each begin is moved to its end while it is filled, and then back.
        for i in range(indptr.shape[0] - 1):
            for k in range(indptr[i], indptr[i + 1]):
                place = begins[indices[k]]
                begins[indices[k]] = place + 1
                values[place] = data[k]
                rows[place] = <int> i
        for j in range(D, 0, -1):
            begins[j] = begins[j - 1]
        begins[0] = 0


def column_curvatures(
    const real[::1] values, const int[::1] rows, const long long[::1] begins,
    const double[:, ::1] SP, const double[:, ::1] P, double[:, ::1] Q,
):
    """Fill Q (n, C): the sums over a column's rows of its squares times the diagonal of s K_i."""
    cdef Py_ssize_t n, c
    cdef long long k
    cdef double t
    with nogil:
        for n in range(Q.shape[0]):
            for c in range(Q.shape[1]):
                t = 0
                for k in range(begins[n], begins[n + 1]):
                    t += (<double> values[k]) * values[k] * SP[c, rows[k]] * (1 - P[c, rows[k]])
                Q[n, c] = t


def sweep_columns(
    const real[::1] values, const int[::1] rows, const long long[::1] begins, const double[:, ::1] SP, const double[:, ::1] P,
    const double[:, ::1] G, const double[:, ::1] Q, double[:, ::1] X, double[:, ::1] moved,
    double[::1] mean, const double[::1] l1, const double[::1] l2, bint grouped,
    unsigned char[:, ::1] active, double[:, ::1] work,
):
    """Go through the columns of some features once, and the classes of each.

    The model's Hessian is that of the loss: ``sum_i x_ij x_ik K_i``. Arrays of rows have the classes
    first: SP (C, N) are the probabilities times the rows' weights, `moved` (C, N) the change of the
    logits since X began, and mean (N,) its mean by the probabilities. G, Q and X are (features, C):
    the gradient where X began, the diagonal of the Hessian, and the weights. Elements that are not
    active are left alone, in groups whole rows. Returns the decrease that the steps' squares add up
    to.
    """
    cdef Py_ssize_t C = G.shape[1], n, j, c, e, k
    cdef double t, u, d, diagonal, total = 0, norm
    cdef long long begin, end
    cdef double* step = &work[0, 0]
    cdef double* x = &work[1, 0]
    cdef bint changed
    with nogil:
        for n in range(G.shape[0]):
            begin, end = begins[n], begins[n + 1]
            if grouped and l1[n] > 0:
                if not active[n, 0]:
                    continue
                # Twice the largest element of the diagonal is no less than any eigenvalue of a
                # matrix with the form of K_i: Gershgorin's circles.
                diagonal = 0
                for c in range(C):
                    diagonal = max(diagonal, 2 * Q[n, c])
                diagonal += l2[n]
                if diagonal <= 0:
                    continue
                norm = 0
                for c in range(C):
                    t = G[n, c] + l2[n] * X[n, c]
                    for k in range(begin, end):
                        t += values[k] * SP[c, rows[k]] * (moved[c, rows[k]] - mean[rows[k]])
                    step[c] = X[n, c] - t / diagonal
                    norm += step[c] * step[c]
                norm = sqrt(norm)
                norm = 1 - l1[n] / (diagonal * norm) if norm * diagonal > l1[n] else 0
                for c in range(C):
                    u = step[c] * norm
                    d = u - X[n, c]
                    if d == 0:
                        continue
                    X[n, c] = u
                    total += d * d * diagonal
                    for k in range(begin, end):
                        moved[c, rows[k]] += values[k] * d
                        mean[rows[k]] += P[c, rows[k]] * values[k] * d
                continue
            changed = False
            for c in range(C):
                if not active[n, c]:
                    continue
                diagonal = Q[n, c] + l2[n]
                if diagonal <= 0:
                    continue
                t = G[n, c] + l2[n] * X[n, c]
                for k in range(begin, end):
                    t += values[k] * SP[c, rows[k]] * (moved[c, rows[k]] - mean[rows[k]])
                u = shrink(X[n, c] - t / diagonal, l1[n] / diagonal)
                d = u - X[n, c]
                if d == 0:
                    continue
                changed = True
                X[n, c] = u
                total += d * d * diagonal
                for k in range(begin, end):
                    moved[c, rows[k]] += values[k] * d
                    mean[rows[k]] += P[c, rows[k]] * values[k] * d
            if changed and l1[n] > 0:
                # All classes' logits move by as much: nothing else changes.
                for c in range(C):
                    x[c] = X[n, c]
                t = best_shift(x, C, l1[n], l2[n])
                if t != 0:
                    for c in range(C):
                        X[n, c] -= t
                        active[n, c] = 1
    return total
