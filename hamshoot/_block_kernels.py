"""Compiled sweeps over a block of samples: loss, gradient, Gauss–Newton and Hessian products.

A block of T samples is small enough that one layer of it stays in the cache beside the weights, and
runs through all layers before the next block begins. The kernels release the GIL, so blocks run
side by side on threads. They are written once for float64 and float32.

All that is kept of a forward sweep are the features s = σ(A). They determine the rest: with
q = ε²/4 the smooth ReLU has z = s − q/s, σ′ = s²/(s² + q) and σ″ = 2q s³/(s² + q)³, free of
cancellation and of square roots.

Arrays, C-contiguous, all of one precision (c = w + 1 with a bias, else w):

    W, V, G  (L, w, c)    controls, a direction, and the gradient or product, added to
    A0, Y    (w, T), (d_out, T)
    S        (L, c, T)    σ̂(A); ones in the last row of a biased network, set by the caller
    D        (L, w, T)    ∂(scaled loss)/∂A at the nodes 1…L
    P        (L, c, T)    σ′ ⊙ δA; zeros in the last row of a biased network, set by the caller
    work     (4, c, T)    scratch; so are R (d_out, T) and grad (w, c)

What is computed is written down, readably, in `hamshoot.discrete`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

#: "contract" allows a·b + c in one rounding, nothing else: NaN and infinity stay visible.
_OPTIONS = dict(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
_RELU, _SMOOTH_RELU = 1, 2  # as in hamshoot.activations (a literal keeps the cache valid)


@njit(**_OPTIONS)
def _activate(code, q, a, s):
    """Write σ(a) to s, flat. For z < 0, σ_ε = q / ((|z| + √(z² + 4q))/2)."""
    if code == _SMOOTH_RELU:
        half, four_q = a.dtype.type(0.5), a.dtype.type(4) * q
        for i in range(a.size):
            z = a[i]
            upper = half * (abs(z) + np.sqrt(z * z + four_q))
            s[i] = upper if z >= 0 else q / upper
    elif code == _RELU:
        for i in range(a.size):
            z = a[i]
            s[i] = z if z > 0 else z - z  # z − z keeps NaN visible
    else:
        s[:] = a


@njit(**_OPTIONS)
def _times_slope(code, q, s, x, out):
    """Write σ′ ⊙ x to out, flat."""
    if code == _SMOOTH_RELU:
        for i in range(x.size):
            square = s[i] * s[i]
            out[i] = square / (square + q) * x[i]
    elif code == _RELU:
        for i in range(x.size):
            out[i] = x[i] if s[i] > 0 else s[i] - s[i]  # 0, or NaN where s is
    else:
        out[:] = x


@njit(**_OPTIONS)
def _pull_back(code, q, rho, keep, s, d, pulled, out):
    """Write (1 − ρL̃) D + ρ σ′ ⊙ WᵀD to out, flat."""
    if code == _SMOOTH_RELU:
        for i in range(d.size):
            square = s[i] * s[i]
            out[i] = keep * d[i] + rho * (square / (square + q) * pulled[i])
    elif code == _RELU:
        for i in range(d.size):
            out[i] = keep * d[i] + (rho * pulled[i] if s[i] > 0 else d[i] - d[i])
    else:
        for i in range(d.size):
            out[i] = keep * d[i] + rho * pulled[i]


@njit(**_OPTIONS)
def _add_curvature(q, rho, s, p, pulled, out):
    """Add ρ σ″ ⊙ δA ⊙ WᵀD to out, flat, of the smooth ReLU; p = σ′ ⊙ δA, σ″/σ′ = 2qs/(s² + q)²."""
    two_q_rho = p.dtype.type(2) * q * rho
    for i in range(p.size):
        r = s[i] * s[i] + q
        out[i] += two_q_rho * s[i] / (r * r) * p[i] * pulled[i]


@njit(**_OPTIONS)
def _add(rho, grad, G):
    """Add ρ·grad to G."""
    g, x = G.reshape(G.size), grad.reshape(grad.size)
    for i in range(g.size):
        g[i] += rho * x[i]


@njit(**_OPTIONS)
def forward(W, steps, leak, code, q, A0, S, work):
    """Features of every layer in S; returns the scratch that holds A_L."""
    layers, w, _ = W.shape
    size, one = A0.size, A0.dtype.type(1)
    here, there, product = work[0, :w], work[1, :w], work[2, :w]
    here[:] = A0
    u = product.reshape(size)
    for k in range(layers):
        rho = steps[k]
        keep = one - rho * leak
        a, b = here.reshape(size), there.reshape(size)
        _activate(code, q, a, S[k].reshape(S[k].size)[:size])
        np.dot(W[k], S[k], product)
        for i in range(size):
            b[i] = keep * a[i] + rho * u[i]
        here, there = there, here
    return here


@njit(**_OPTIONS)
def _misfit(Q, A, Y, R):
    """Write QA_L − Yᵀ to R; returns its square sum in double precision."""
    np.dot(Q, A, R)
    total = 0.0
    for i in range(R.shape[0]):
        for j in range(R.shape[1]):
            R[i, j] -= Y[i, j]
            total += np.float64(R[i, j]) ** 2
    return total


@njit(**_OPTIONS)
def _backward(W, steps, leak, code, q, Q, two_scale, R, S, D, work, grad, G):
    """Adjoint sweep from D_L = two_scale·QᵀR: fills D, adds to G."""
    layers, w, _ = W.shape
    size, one = w * R.shape[1], R.dtype.type(1)
    pulled = work[3]
    u = pulled.reshape(pulled.size)[:size]
    np.dot(Q.T, R, D[layers - 1])
    d = D[layers - 1].reshape(size)
    for i in range(size):
        d[i] *= two_scale
    for k in range(layers - 1, -1, -1):
        rho = steps[k]
        np.dot(D[k], S[k].T, grad)
        _add(rho, grad, G[k])
        if k > 0:
            np.dot(W[k].T, D[k], pulled)
            _pull_back(code, q, rho, one - rho * leak, S[k].reshape(S[k].size)[:size],
                       D[k].reshape(size), u, D[k - 1].reshape(size))


@njit(**_OPTIONS)
def loss(W, steps, leak, code, q, Q, A0, Y, S, work, R):
    """‖QA_L − Yᵀ‖²; fills S."""
    return _misfit(Q, forward(W, steps, leak, code, q, A0, S, work), Y, R)


@njit(**_OPTIONS)
def gradient(W, steps, leak, code, q, Q, A0, Y, two_scale, S, D, work, R, grad, G):
    """Add ∂(two_scale/2·‖QA_L − Yᵀ‖²)/∂W to G; fills S and D; returns ‖QA_L − Yᵀ‖²."""
    end = forward(W, steps, leak, code, q, A0, S, work)
    total = _misfit(Q, end, Y, R)
    _backward(W, steps, leak, code, q, Q, two_scale, R, S, D, work, grad, G)
    return total


@njit(**_OPTIONS)
def _tangent(W, V, steps, leak, code, q, S, P, work):
    """δA_L for δW = V; fills P."""
    layers, w, _ = W.shape
    size, one = w * S.shape[2], S.dtype.type(1)
    here, there, own, through = work[0, :w], work[1, :w], work[2, :w], work[3, :w]
    u, x = own.reshape(size), through.reshape(size)
    here[:] = 0
    for k in range(layers):
        rho = steps[k]
        keep = one - rho * leak
        t, o = here.reshape(size), there.reshape(size)
        np.dot(V[k], S[k], own)
        _times_slope(code, q, S[k].reshape(S[k].size)[:size], t, P[k].reshape(P[k].size)[:size])
        if k == 0:
            for i in range(size):
                o[i] = rho * u[i]
        else:
            np.dot(W[k], P[k], through)
            for i in range(size):
                o[i] = keep * t[i] + rho * (u[i] + x[i])
        here, there = there, here
    return here


@njit(**_OPTIONS)
def gauss_newton(W, V, steps, leak, code, q, Q, two_scale, S, D, P, work, R, grad, G):
    """Add the Gauss–Newton product two_scale·JᵀQᵀQJ V to G, J = ∂A_L/∂W; D is scratch.

    S as `forward` left it. Four matrix products a layer, where a gradient takes three.
    """
    np.dot(Q, _tangent(W, V, steps, leak, code, q, S, P, work), R)
    _backward(W, steps, leak, code, q, Q, two_scale, R, S, D, work, grad, G)


@njit(**_OPTIONS)
def hessian(W, V, steps, leak, code, q, Q, two_scale, S, D, P, work, R, grad, G):
    """Add the Hessian product with V to G; S and D as `gradient` left them.

    Seven matrix products a layer, where a gradient takes three.
    """
    layers, w, _ = W.shape
    size, one = w * S.shape[2], S.dtype.type(1)
    np.dot(Q, _tangent(W, V, steps, leak, code, q, S, P, work), R)
    here, there, pulled, second = work[0, :w], work[1, :w], work[2], work[3]
    u, x = pulled.reshape(pulled.size)[:size], second.reshape(second.size)[:size]
    np.dot(Q.T, R, here)
    h = here.reshape(size)
    for i in range(size):
        h[i] *= two_scale
    for k in range(layers - 1, -1, -1):
        rho = steps[k]
        np.dot(here, S[k].T, grad)
        _add(rho, grad, G[k])
        if k == 0:
            break
        np.dot(D[k], P[k].T, grad)
        _add(rho, grad, G[k])
        s, p = S[k].reshape(S[k].size)[:size], P[k].reshape(P[k].size)[:size]
        o = there.reshape(size)
        np.dot(W[k].T, here, pulled)
        np.dot(V[k].T, D[k], second)
        for i in range(size):
            u[i] += x[i]
        _pull_back(code, q, rho, one - rho * leak, s, here.reshape(size), u, o)
        if code == _SMOOTH_RELU:
            np.dot(W[k].T, D[k], second)
            _add_curvature(q, rho, s, p, x, o)
        here, there = there, here


@njit(**_OPTIONS)
def factors(W, steps, leak, code, q, Q, signs, S, work, square, grams, metrics):
    """Add SSᵀ of every layer to grams (L, c, c) and DDᵀ of the nodes 1…L to metrics (L, w, w).

    D is swept back from D_L = Qᵀ·signs, signs (d_out, T) random ±1, so that its mean is JᵀQᵀQJ with
    J = ∂A_L/∂A_l. S as `forward` left it; square (c + w, c) is scratch.
    """
    layers, w, c = W.shape
    size, one = w * S.shape[2], S.dtype.type(1)
    here, there, pulled = work[0, :w], work[1, :w], work[3]
    gram, metric = square[:c], square[c:].reshape(w * c)[: w * w].reshape((w, w))
    np.dot(Q.T, signs, here)
    for k in range(layers - 1, -1, -1):
        np.dot(S[k], S[k].T, gram)
        _add(one, gram, grams[k])
        np.dot(here, here.T, metric)
        _add(one, metric, metrics[k])
        if k > 0:
            np.dot(W[k].T, here, pulled)
            _pull_back(code, q, steps[k], one - steps[k] * leak,
                       S[k].reshape(S[k].size)[:size], here.reshape(size),
                       pulled.reshape(pulled.size)[:size], there.reshape(size))
            here, there = there, here


@njit(**{**_OPTIONS, "fastmath": {"contract", "reassoc"}})
def descend_pairs(S, Y, inverse, order, q, shares):
    """First loop of L-BFGS: takes the pairs' part out of q, newest first; shares get α."""
    for n in range(len(order) - 1, -1, -1):
        i = order[n]
        s, y, total = S[i], Y[i], q.dtype.type(0)
        for j in range(q.size):
            total += s[j] * q[j]
        total *= inverse[i]
        shares[i] = total
        for j in range(q.size):
            q[j] -= total * y[j]


@njit(**{**_OPTIONS, "fastmath": {"contract", "reassoc"}})
def ascend_pairs(S, Y, inverse, order, z, shares):
    """Second loop of L-BFGS: puts the pairs' part back into z, oldest first."""
    for n in range(len(order)):
        i = order[n]
        s, y, total = S[i], Y[i], z.dtype.type(0)
        for j in range(z.size):
            total += y[j] * z[j]
        total = shares[i] - inverse[i] * total
        for j in range(z.size):
            z[j] += total * s[j]
