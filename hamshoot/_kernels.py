"""Compiled kernels: sweeps of the Euler network, and epochs of gradient descent.

All numba code of the package is in this file (numba's cache does not see edits elsewhere). Arrays
in, numbers out; the activation is an integer code (`hamshoot.activations`); nothing is allocated in
a loop. No fastmath: non-finite numbers must stay visible. What each function computes is written
down, readably, in `hamshoot.discrete`; tests hold the two together.

Arrays shared by the kernels (C-contiguous float64; c = w + 1 with a bias, else w):

    W, G     (L, w, c)     controls, ∂J/∂W           A  (L+1, w, N)  representations
    S        (L, c, N)     σ̂(A), ones in the last row of a biased network, set by the caller
    slope    (L, w, N)     σ′(A)                     D  (L+1, w, N)  ∂J/∂A = −λB
    T        (c, N)        scratch                   R  (d_out, N)   QA_L − Yᵀ
"""

from __future__ import annotations

import numpy as np
from numba import njit

_OPTIONS = dict(cache=True, nogil=True, error_model="numpy")
_RELU, _SMOOTH_RELU = 1, 2  # as in hamshoot.activations (a literal keeps the cache valid)


@njit(**_OPTIONS)
def _activate(code, epsilon, a, s, slope):
    """σ and σ′ of one node, flat, without cancellation: for z < 0, σ = (ε²/4) / ((|z| + √)/2)."""
    if code == _SMOOTH_RELU:
        square, quarter = epsilon * epsilon, 0.25 * epsilon * epsilon
        for i in range(a.size):
            z = a[i]
            root = np.sqrt(z * z + square)
            upper = 0.5 * (abs(z) + root)
            value = upper if z >= 0 else quarter / upper
            s[i] = value
            slope[i] = value / root
    elif code == _RELU:
        for i in range(a.size):
            z = a[i]
            # The comparison is false for NaN; z − z keeps it visible.
            s[i] = z if z > 0 else z - z
            slope[i] = 1.0 if z > 0 else 0.0
    else:
        for i in range(a.size):
            s[i] = a[i]
            slope[i] = 1.0


@njit(**_OPTIONS)
def forward(W, steps, leak, code, epsilon, A, S, slope):
    """Roll the network out from A[0]: A_l = (1 − ρL̃) A_{l−1} + ρ W σ̂(A_{l−1})."""
    layers, w, _ = W.shape
    size = w * A.shape[2]
    for k in range(layers):
        rho = steps[k]
        keep = 1 - rho * leak
        a, b = A[k].reshape(size), A[k + 1].reshape(size)
        _activate(code, epsilon, a, S[k].reshape(S[k].size)[:size], slope[k].reshape(size))
        np.dot(W[k], S[k], A[k + 1])
        for i in range(size):
            b[i] = keep * a[i] + rho * b[i]


@njit(**_OPTIONS)
def cost(W, steps, leak, decay, Q, targets, A, R):
    """J = ‖QA_L − Yᵀ‖²/N + λ/(2L̃) Σρ‖W‖² of a network rolled out; R gets QA_L − Yᵀ."""
    np.dot(Q, A[-1], R)
    loss = 0.0
    for i in range(R.shape[0]):
        for j in range(R.shape[1]):
            R[i, j] -= targets[i, j]
            loss += R[i, j] * R[i, j]
    norm = 0.0
    for k in range(W.shape[0]):
        square = 0.0
        for i in range(W.shape[1]):
            for j in range(W.shape[2]):
                square += W[k, i, j] * W[k, i, j]
        norm += steps[k] * square
    return loss / A.shape[2] + decay / (2 * leak) * norm


@njit(**_OPTIONS)
def backward(W, steps, leak, decay, Q, A, S, slope, D, R, T, G):
    """Adjoint sweep: D_L = (2/N) Qᵀ R, then G = ∂J/∂W and D down to node 1 (D_0 has no use)."""
    layers, w, columns = W.shape
    size, scale, share = w * A.shape[2], 2.0 / A.shape[2], decay / leak
    d = D[layers].reshape(size)
    np.dot(Q.T, R, D[layers])
    for i in range(size):
        d[i] *= scale
    for k in range(layers - 1, -1, -1):
        rho = steps[k]
        g, x = G[k].reshape(w * columns), W[k].reshape(w * columns)
        np.dot(D[k + 1], S[k].T, G[k])
        for i in range(w * columns):
            g[i] = rho * (g[i] + share * x[i])
        if k == 0:
            break
        keep = 1 - rho * leak
        np.dot(W[k].T, D[k + 1], T)
        above, here = D[k + 1].reshape(size), D[k].reshape(size)
        slopes, t = slope[k].reshape(size), T.reshape(T.size)
        for i in range(size):
            here[i] = keep * above[i] + rho * slopes[i] * t[i]


@njit(**_OPTIONS)
def gradient(W, steps, leak, decay, code, epsilon, Q, targets, A, S, slope, D, R, T, G):
    """J and, in G, ∂J/∂W: one sweep forward, one back."""
    forward(W, steps, leak, code, epsilon, A, S, slope)
    value = cost(W, steps, leak, decay, Q, targets, A, R)
    backward(W, steps, leak, decay, Q, A, S, slope, D, R, T, G)
    return value


@njit(**_OPTIONS)
def epochs(
    rates, adam, beta1, beta2, tiny, count, m, v, best, best_W, values,
    W, steps, leak, decay, code, epsilon, Q, targets, A, S, slope, D, R, T, G,
):
    """len(rates) full-batch epochs of Adam (or SGD with momentum beta1), in place.

    values[e] is J before the update of epoch e. The best W so far is kept in best_W.

    Parameters
    ----------
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
        value = gradient(
            W, steps, leak, decay, code, epsilon, Q, targets, A, S, slope, D, R, T, G
        )
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
