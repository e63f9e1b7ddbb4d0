"""Compiled kernels: sweeps of the Euler network, and epochs of gradient descent.

Every kernel calls kernels of this file alone (numba's cache does not see edits elsewhere) and those
of `hamshoot.dynamics._sigma_kernels` and `hamshoot.dynamics._loss_kernels`, and those that take
gradients again and again do so by the address of `gradient`, so that it is compiled once and not
once more with each of them. Arrays in, numbers out; the activation is an integer code with ε and α
(`hamshoot.problem.activations`), the loss a tuple (`hamshoot.problem.losses`); nothing is allocated
in a loop. Non-finite numbers must stay visible, so that of fastmath no more is used than sums in
another order and fused products. What each function computes is written down, readably, in
`hamshoot.theory.layers`; tests hold the two together.

`below` is None for the ReLU, its smooth form and the identity, whose loops are written out, and
`criterion` None for the mean squared error: compiled without all that the others need.

Products of narrow layers are loops of their own, two rows of the result at a time: a call of BLAS
takes as long as the product. At w = 16 the sweeps over blocks, which call BLAS, take 1.6 times as
long, at w = 32 the same (`demos/benchmarks/sweeps.py`). Either kind is compiled when a network of
such a width comes: `wide` is None or True, and numba leaves out what None excludes.

Arrays shared by the kernels (C-contiguous float64; c = w + 1 with a bias, else w):

    W, G     (L, w, c)     controls, ∂J/∂W           A  (L+1, w, N)  representations
    S        (L, c, N)     σ̂(A), ones in the last row of a biased network, set by the caller
    slope    (L, w, N)     σ′(A)                     D  (L+1, w, N)  ∂J/∂A = −λB
    T        (c, N)        scratch                   R  (d_out, N)   (N/2) ∂C/∂z, QA_L − Yᵀ
"""

from __future__ import annotations

import numpy as np

from hamshoot.dynamics._compiling import call, njit
from hamshoot.dynamics._loss_kernels import end
from hamshoot.dynamics._sigma_kernels import sigma

_OPTIONS = dict(cache=True, nogil=True, error_model="numpy")
# Sums in any order, so that they run in vector registers; NaN and infinity pass as without. Python
# never calls these.
_SUMS = dict(_OPTIONS, fastmath={"reassoc", "contract"}, no_cpython_wrapper=True,
             no_cfunc_wrapper=True)
_RELU, _SMOOTH_RELU = 1, 2  # as in hamshoot.problem.activations (a literal keeps the cache valid)


@njit(**_SUMS)
def _step(k, W, S, keep, rho, A):
    """A_{k+1} = keep A_k + ρ W_k S_k, two rows at a time."""
    w, columns = W.shape[1], W.shape[2]
    N = S.shape[2]
    for i in range(0, w - 1, 2):
        for j in range(N):
            A[k + 1, i, j] = keep * A[k, i, j]
            A[k + 1, i + 1, j] = keep * A[k, i + 1, j]
        fours = columns - columns % 4
        for q in range(0, fours, 4):
            a0, a1 = rho * W[k, i, q], rho * W[k, i, q + 1]
            a2, a3 = rho * W[k, i, q + 2], rho * W[k, i, q + 3]
            b0, b1 = rho * W[k, i + 1, q], rho * W[k, i + 1, q + 1]
            b2, b3 = rho * W[k, i + 1, q + 2], rho * W[k, i + 1, q + 3]
            for j in range(N):
                s0, s1, s2, s3 = S[k, q, j], S[k, q + 1, j], S[k, q + 2, j], S[k, q + 3, j]
                A[k + 1, i, j] += a0 * s0 + a1 * s1 + a2 * s2 + a3 * s3
                A[k + 1, i + 1, j] += b0 * s0 + b1 * s1 + b2 * s2 + b3 * s3
        for q in range(fours, columns):
            a0, b0 = rho * W[k, i, q], rho * W[k, i + 1, q]
            for j in range(N):
                A[k + 1, i, j] += a0 * S[k, q, j]
                A[k + 1, i + 1, j] += b0 * S[k, q, j]
    if w % 2:
        for j in range(N):
            A[k + 1, w - 1, j] = keep * A[k, w - 1, j]
        for q in range(columns):
            a0 = rho * W[k, w - 1, q]
            for j in range(N):
                A[k + 1, w - 1, j] += a0 * S[k, q, j]


@njit(**_SUMS)
def _control_gradient(k, D, S, rho, share, W, G):
    """G_k = ρ (D_{k+1} S_kᵀ + share W_k), two rows at a time."""
    w, columns = W.shape[1], W.shape[2]
    N = S.shape[2]
    for i in range(0, w - 1, 2):
        fours = columns - columns % 4
        for q in range(0, fours, 4):
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = 0.0
            for j in range(N):
                a, b = D[k + 1, i, j], D[k + 1, i + 1, j]
                s0, s1, s2, s3 = S[k, q, j], S[k, q + 1, j], S[k, q + 2, j], S[k, q + 3, j]
                a0 += a * s0
                a1 += a * s1
                a2 += a * s2
                a3 += a * s3
                b0 += b * s0
                b1 += b * s1
                b2 += b * s2
                b3 += b * s3
            G[k, i, q], G[k, i, q + 1], G[k, i, q + 2], G[k, i, q + 3] = a0, a1, a2, a3
            i1 = i + 1
            G[k, i1, q], G[k, i1, q + 1], G[k, i1, q + 2], G[k, i1, q + 3] = b0, b1, b2, b3
        for q in range(fours, columns):
            a0 = b0 = 0.0
            for j in range(N):
                a0 += D[k + 1, i, j] * S[k, q, j]
                b0 += D[k + 1, i + 1, j] * S[k, q, j]
            G[k, i, q], G[k, i + 1, q] = a0, b0
    if w % 2:
        for q in range(columns):
            a0 = 0.0
            for j in range(N):
                a0 += D[k + 1, w - 1, j] * S[k, q, j]
            G[k, w - 1, q] = a0
    for i in range(w):
        for q in range(columns):
            G[k, i, q] = rho * (G[k, i, q] + share * W[k, i, q])


@njit(**_SUMS)
def _step_back(k, W, keep, rho, slope, T, D):
    """D_k = keep D_{k+1} + ρ σ′ ⊙ W_kᵀ D_{k+1}, two rows at a time; T is scratch."""
    w, N = W.shape[1], D.shape[2]
    for q in range(0, w - 1, 2):
        for j in range(N):
            T[0, j] = T[1, j] = 0.0
        fours = w - w % 4
        for i in range(0, fours, 4):
            a0, a1, a2, a3 = W[k, i, q], W[k, i + 1, q], W[k, i + 2, q], W[k, i + 3, q]
            r = q + 1
            b0, b1, b2, b3 = W[k, i, r], W[k, i + 1, r], W[k, i + 2, r], W[k, i + 3, r]
            for j in range(N):
                d0, d1 = D[k + 1, i, j], D[k + 1, i + 1, j]
                d2, d3 = D[k + 1, i + 2, j], D[k + 1, i + 3, j]
                T[0, j] += a0 * d0 + a1 * d1 + a2 * d2 + a3 * d3
                T[1, j] += b0 * d0 + b1 * d1 + b2 * d2 + b3 * d3
        for i in range(fours, w):
            a0, b0 = W[k, i, q], W[k, i, q + 1]
            for j in range(N):
                T[0, j] += a0 * D[k + 1, i, j]
                T[1, j] += b0 * D[k + 1, i, j]
        for j in range(N):
            D[k, q, j] = keep * D[k + 1, q, j] + rho * slope[k, q, j] * T[0, j]
            D[k, q + 1, j] = keep * D[k + 1, q + 1, j] + rho * slope[k, q + 1, j] * T[1, j]
    if w % 2:
        for j in range(N):
            T[0, j] = 0.0
        for i in range(w):
            a0 = W[k, i, w - 1]
            for j in range(N):
                T[0, j] += a0 * D[k + 1, i, j]
        for j in range(N):
            D[k, w - 1, j] = keep * D[k + 1, w - 1, j] + rho * slope[k, w - 1, j] * T[0, j]


@njit(**_OPTIONS)
def gradient(W, wide, steps, leak, decay, code, epsilon, below, Q, targets, criterion, A, S, slope,
             D, R, T, G):
    """J = C(QA_L) + λ/(2L̃) Σρ‖W‖² and, in G, ∂J/∂W: one sweep forward, one back.

    Parameters
    ----------
    wide : True or None
        Whether products are calls of BLAS, or loops.
    below : float or None
        The negative slope of an activation beyond the first three, even where it has none.
    criterion : tuple or None
        A loss other than ‖QA_L − Yᵀ‖²/N (`hamshoot.dynamics._loss_kernels.end`).
    G :
        Of no layers, (0, w, c): the way back is left out.
    """
    layers, w, columns = W.shape
    N = A.shape[2]
    square, quarter = epsilon * epsilon, 0.25 * epsilon * epsilon
    norm = 0.0
    for k in range(layers):
        rho = steps[k]
        keep = 1 - rho * leak
        if below is not None:
            for i in range(w):
                for j in range(N):
                    S[k, i, j], slope[k, i, j], _ = sigma(code, square, below, A[k, i, j])
        elif code == _SMOOTH_RELU:  # without cancellation: for z < 0, σ = (ε²/4) / ((|z| + √)/2)
            for i in range(w):
                for j in range(N):
                    z = A[k, i, j]
                    root = np.sqrt(z * z + square)
                    upper = 0.5 * (abs(z) + root)
                    value = upper if z >= 0 else quarter / upper
                    S[k, i, j] = value
                    slope[k, i, j] = value / root
        elif code == _RELU:
            for i in range(w):
                for j in range(N):
                    z = A[k, i, j]
                    # The comparison is false for NaN; z − z keeps it visible.
                    S[k, i, j] = z if z > 0 else z - z
                    slope[k, i, j] = 1.0 if z > 0 else 0.0
        else:
            for i in range(w):
                for j in range(N):
                    S[k, i, j] = A[k, i, j]
                    slope[k, i, j] = 1.0
        if wide is None:
            _step(k, W, S, keep, rho, A)
        else:
            here, above = A[k], A[k + 1]
            np.dot(W[k], S[k], above)
            for i in range(w):
                for j in range(N):
                    above[i, j] = keep * here[i, j] + rho * above[i, j]
    np.dot(Q, A[-1], R)
    loss = 0.0
    if criterion is None:
        for i in range(R.shape[0]):
            for j in range(N):
                R[i, j] -= targets[i, j]
                loss += R[i, j] * R[i, j]
    else:
        loss = end(criterion, targets, R)
    for k in range(layers):
        squares = 0.0
        for i in range(w):
            for j in range(columns):
                squares += W[k, i, j] * W[k, i, j]
        norm += steps[k] * squares
    J = loss / N + decay / (2 * leak) * norm
    if len(G) == 0:
        return J
    # Adjoint sweep: D_L = (2/N) Qᵀ R, then G and D down to node 1 (D_0 has no use).
    scale, share = 2.0 / N, decay / leak
    last = D[layers]
    np.dot(Q.T, R, last)
    for i in range(w):
        for j in range(N):
            last[i, j] *= scale
    for k in range(layers - 1, -1, -1):
        rho = steps[k]
        keep = 1 - rho * leak
        if wide is None:
            _control_gradient(k, D, S, rho, share, W, G)
            if k > 0:
                _step_back(k, W, keep, rho, slope, T, D)
        else:
            above, here, x, g, slopes = D[k + 1], D[k], W[k], G[k], slope[k]
            np.dot(above, S[k].T, g)
            for i in range(w):
                for j in range(columns):
                    g[i, j] = rho * (g[i, j] + share * x[i, j])
            if k > 0:
                np.dot(x.T, above, T)
                for i in range(w):
                    for j in range(N):
                        here[i, j] = keep * above[i, j] + rho * slopes[i, j] * T[i, j]
    return J


@njit(**_OPTIONS, no_cfunc_wrapper=True)
def epochs(
    evaluate, rates, adam, beta1, beta2, tiny, count, m, v, best, best_W, values,
    W, wide, steps, leak, decay, code, epsilon, below, Q, targets, criterion, A, S, slope, D, R, T,
    G,
):
    """len(rates) full-batch epochs of Adam (or SGD with momentum beta1), in place.

    values[e] is J before the update of epoch e. The best W so far is kept in best_W.

    Parameters
    ----------
    evaluate : tuple of int
        Where `gradient` is (`hamshoot.dynamics._compiling.place_of`).
    count : int
        Adam updates made before: its bias correction goes on from there.
    m, v : ndarray
        Moments, of W's shape; SGD keeps its velocity in m.
    best : float
        J of best_W.

    Returns
    -------
    int
        Epochs done; fewer than asked for when J is no longer finite.
    float
        J of best_W.
    """
    x, g = W.reshape(W.size), G.reshape(W.size)
    first, second, kept = m.reshape(W.size), v.reshape(W.size), best_W.reshape(W.size)
    for e in range(len(rates)):
        value = call(evaluate, (W, wide, steps, leak, decay, code, epsilon, below, Q, targets,
                                criterion, A, S, slope, D, R, T, G))
        values[e] = value
        if not np.isfinite(value):
            return e, best
        if value < best:
            best = value
            kept[:] = x
        rate = rates[e]
        if adam:
            t = count + e + 1
            step, root = rate / (1 - beta1**t), np.sqrt(1 - beta2**t)
            for i in range(g.size):
                first[i] += (1 - beta1) * (g[i] - first[i])
                second[i] = beta2 * second[i] + (1 - beta2) * g[i] * g[i]
                x[i] -= step * first[i] / (np.sqrt(second[i]) / root + tiny)
        else:
            for i in range(g.size):
                first[i] = beta1 * first[i] + g[i]
                x[i] -= rate * first[i]
    return len(rates), best


@njit(**_SUMS)
def _two_loops(g, S, Y, rho, alpha, head, used, shrink, d):
    """d = −H g, H the inverse Hessian of L-BFGS from the `used` pairs before `head`."""
    memory, n = S.shape
    for i in range(n):
        d[i] = -g[i]
    for k in range(used):
        j = (head - 1 - k) % memory
        a = 0.0
        for i in range(n):
            a += S[j, i] * d[i]
        a *= rho[j]
        alpha[j] = a
        for i in range(n):
            d[i] -= a * Y[j, i]
    if used:
        for i in range(n):
            d[i] *= shrink
    for k in range(used - 1, -1, -1):
        j = (head - 1 - k) % memory
        a = 0.0
        for i in range(n):
            a += Y[j, i] * d[i]
        a = alpha[j] - rho[j] * a
        for i in range(n):
            d[i] += a * S[j, i]


@njit(**_OPTIONS, no_cfunc_wrapper=True)
def lbfgs(
    evaluate, count, tol, window, decrease, scale, S, Y, rho, alpha, pairs, shrink, before, g, d,
    new, trial, values, stationarities,
    W, wide, steps, leak, decay, code, epsilon, below, Q, targets, criterion, A, slope_S, slope, D,
    R, T, G,
):
    """At most `count` iterations of L-BFGS on J in v = scale·W, in place; goes on where it left.

    A step satisfies the weak Wolfe conditions (sufficient decrease 1e-4, curvature 0.9), found by
    expansion and bisection, which smoothed kinks do not mislead; where J changes by less than it
    rounds, the approximate ones of Hager and Zhang (2005). G, D and A are those of the last
    network tried, which need not be the one accepted.

    Parameters
    ----------
    evaluate : tuple of int
        Where `gradient` is (`hamshoot.dynamics._compiling.place_of`).
    tol : float
        Ends where the stationarity is within it.
    window, decrease : int, float
        Ends where J fell by less than the share `decrease` over `window` iterations, or neither J
        beyond its rounding nor the stationarity by half.
    scale : ndarray, shape (n,)
        Of every control.
    S, Y, rho, alpha : ndarray, shapes (memory, n), (memory, n), (memory,), (memory,)
        Pairs v_{k+1} − v_k and differences of gradients, a ring; 1/sᵀy; scratch.
    pairs : ndarray of int, shape (3,)
        Place of the next pair, pairs held, and iterations done before.
    shrink, before : float
        sᵀy/yᵀy of the last pair, and J at W.
    g : ndarray, shape (n,)
        ∂J/∂v at W.
    d, new, trial : ndarray, shapes (n,), (n,), W's
        Scratch.
    values, stationarities : ndarray
        Of all iterations; those of this call are added.
    W, ..., G
        As everywhere; `slope_S` is S there.

    Returns
    -------
    int
        0: did `count` iterations; 1: within tol; 2: J hardly falls; 3: no step lowers J.
    float, float
        The new `shrink`, and J at W.
    """
    n = W.size
    x, xt, gt = W.reshape(n), trial.reshape(n), G.reshape(n)
    memory = S.shape[0]
    done = 0
    while done < count:
        _two_loops(g, S, Y, rho, alpha, pairs[0], pairs[1], shrink, d)
        descent = np.dot(d, g)
        t = 1.0 if pairs[1] else 1.0 / np.sqrt(np.dot(g, g))
        t = 1.0 if t > 1 else t
        low, high, found, value = 0.0, np.inf, False, before
        for _ in range(25 if descent < 0 else 0):
            for i in range(n):
                xt[i] = x[i] + t * d[i] / scale[i]
            value = call(evaluate, (trial, wide, steps, leak, decay, code, epsilon, below, Q,
                                    targets, criterion, A, slope_S, slope, D, R, T, G))
            for i in range(n):
                new[i] = gt[i] / scale[i]
            along = np.dot(new, d)
            # Where J changes by less than it rounds, the slopes alone tell (approximate Wolfe).
            level = value <= before + 2e-15 * abs(before) and along <= -0.9998 * descent
            if not (value <= before + 1e-4 * t * descent or level):
                high = t
                if low == 0.0 and np.isfinite(value):  # least point of the parabola
                    least = -0.5 * descent * t * t / (value - before - descent * t)
                    least = 0.1 * t if least < 0.1 * t else least
                    t = 0.5 * t if least > 0.5 * t else least
                else:
                    t = 0.5 * (low + high)
                continue
            if along >= 0.9 * descent:
                found = True
                break
            low = t
            t = 2 * t if high == np.inf else 0.5 * (low + high)
        if not found:
            if pairs[1] == 0:
                return 3, shrink, before
            pairs[0] = pairs[1] = 0  # once more along the gradient
            continue
        s, y = S[pairs[0]], Y[pairs[0]]
        curvature, square = 0.0, 0.0
        for i in range(n):
            s[i] = t * d[i]
            y[i] = new[i] - g[i]
            curvature += s[i] * y[i]
            square += y[i] * y[i]
            x[i] = xt[i]
            g[i] = new[i]
        before = value
        if curvature > 1e-16 * square:
            rho[pairs[0]] = 1.0 / curvature
            shrink = curvature / square
            pairs[0] = (pairs[0] + 1) % memory
            pairs[1] += 1 if pairs[1] < memory else 0
        largest = 0.0  # stationarity, max_l (L̃/(λρ_l)) ‖G_l‖/max(1, ‖W_l‖)
        for k in range(W.shape[0]):
            square, size = 0.0, 0.0
            for i in range(W.shape[1]):
                for j in range(W.shape[2]):
                    square += G[k, i, j] * G[k, i, j]
                    size += W[k, i, j] * W[k, i, j]
            size = np.sqrt(size)
            measure = leak / (decay * steps[k]) * np.sqrt(square) / (size if size > 1 else 1.0)
            if not measure <= largest:  # also where it is NaN
                largest = measure
        k = pairs[2]
        values[k], stationarities[k] = value, largest
        pairs[2] += 1
        done += 1
        if stationarities[k] <= tol:
            return 1, shrink, before
        if k >= window:
            fall = values[k - window] - value
            # At the rounding of J steps go on for ever; only the gradient can still be gained.
            still = stationarities[k] > 0.5 * stationarities[k - window]
            if (still and fall <= 1e-14 * abs(value)) or fall < decrease * abs(value):
                return 2, shrink, before
    return 0, shrink, before
