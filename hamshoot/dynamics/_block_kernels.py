"""Compiled sweeps over a block of samples: loss, gradient, Gauss–Newton and Hessian products.

A block of T samples is small enough that one layer of it stays in the cache beside the weights, and
runs through all layers before the next block begins. The kernels release the GIL, so blocks run
side by side on threads. They are written once for float64 and float32.

All that is kept of a forward sweep are the features s = σ(A). They determine the rest: with
q = ε²/4 the smooth ReLU has z = s − q/s, σ′ = s²/(s² + q) and σ″ = 2q s³/(s² + q)³, free of
cancellation and of square roots. Activations beyond these three (codes above 2) keep A as well, in
another L layers of S; what is written `states` below is A there, and s elsewhere. `constants` are
(ε²/4, α).

Arrays, C-contiguous, all of one precision (c = w + 1 with a bias, else w):

    W, V     (L, w, c)    controls, a direction
    G        (L, w, c)    gradient or product of layer ℓ divided by ρ_ℓ (`add_decay` puts it back);
                          written by the first block, where `fresh`, added to by the others
    A0, Y    (w, T), (d_out, T)
    S        (L, c, T)    σ̂(A); ones in the last row of a biased network, set by the caller; or
                          (2L, c, T), A in the first w rows of the second half
    D        (L, c, T)    ∂(scaled loss)/∂A at the nodes 1…L in the first w rows; or (2, c, T),
                          where it is not kept
    P        (L, c, T)    σ′ ⊙ δA; zeros in the last row of a biased network, set by the caller; or
                          (1, c, T), where it is not kept
    work     (3, c, T)    scratch; so are R (d_out, T) and grad (w, c)

Products are updated in place and what is not kept has two layers of memory, not L: a sweep then
runs in the cache, and only S streams through the memory.

What is computed is written down, readably, in `hamshoot.theory.layers`.
"""

from __future__ import annotations

import numpy as np

from hamshoot.dynamics._compiling import njit
from hamshoot.dynamics._sigma_kernels import sigma

#: "contract" allows a·b + c in one rounding, nothing else: NaN and infinity stay visible.
_OPTIONS = dict(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
# As in hamshoot.problem.activations (a literal keeps the cache valid).
_RELU, _SMOOTH_RELU, _LEAKY_RELU = 1, 2, 3


@njit(**_OPTIONS)
def _states(S, layers, k):
    """What slopes at the left node of layer k are computed from, (c, T)."""
    return S[len(S) - layers + k]


@njit(**_OPTIONS)
def _activate(code, constants, a, s):
    """Write σ(a) to s, flat. For z < 0, σ_ε = q / ((|z| + √(z² + 4q))/2)."""
    q = constants[0]
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
    elif code > _SMOOTH_RELU:
        for i in range(a.size):
            s[i] = sigma(code, 4 * q, constants[1], a[i])[0]
    else:
        s[:] = a


@njit(**_OPTIONS)
def _times_slope(code, constants, s, x, out):
    """Write σ′ ⊙ x to out, flat; s are the `states`."""
    q = constants[0]
    if code == _SMOOTH_RELU:
        for i in range(x.size):
            square = s[i] * s[i]
            out[i] = square / (square + q) * x[i]
    elif code == _RELU:
        for i in range(x.size):
            out[i] = x[i] if s[i] > 0 else s[i] - s[i]  # 0, or NaN where s is
    elif code > _SMOOTH_RELU:
        for i in range(x.size):
            out[i] = sigma(code, 4 * q, constants[1], s[i])[1] * x[i]
    else:
        out[:] = x


@njit(**_OPTIONS)
def _pull_back(code, constants, rho, keep, s, d, out):
    """Write (1 − ρL̃) D + ρ σ′ ⊙ out to out, flat; out holds WᵀD, s the `states`."""
    q = constants[0]
    if code == _SMOOTH_RELU:
        for i in range(d.size):
            square = s[i] * s[i]
            out[i] = keep * d[i] + rho * (square / (square + q) * out[i])
    elif code == _RELU:
        for i in range(d.size):
            out[i] = keep * d[i] + (rho * out[i] if s[i] > 0 else d[i] - d[i])
    elif code > _SMOOTH_RELU:
        for i in range(d.size):
            out[i] = keep * d[i] + rho * (sigma(code, 4 * q, constants[1], s[i])[1] * out[i])
    else:
        for i in range(d.size):
            out[i] = keep * d[i] + rho * out[i]


@njit(**_OPTIONS)
def _add_curvature(code, constants, rho, s, p, pulled, out):
    """Add ρ σ″ ⊙ δA ⊙ WᵀD to out, flat; p = σ′ ⊙ δA, of the smooth ReLU σ″/σ′ = 2qs/(s² + q)²."""
    q = constants[0]
    if code > _SMOOTH_RELU:
        for i in range(p.size):
            _, slope, curvature = sigma(code, 4 * q, constants[1], s[i])
            if slope != 0:  # p is then σ′ times δA to rounding, however small σ′
                out[i] += rho * (curvature / slope) * p[i] * pulled[i]
        return
    two_q_rho = p.dtype.type(2) * q * rho
    for i in range(p.size):
        r = s[i] * s[i] + q
        out[i] += two_q_rho * s[i] / (r * r) * p[i] * pulled[i]


@njit(**_OPTIONS)
def _add(grad, G):
    """Add grad to G."""
    g, x = G.reshape(G.size), grad.reshape(grad.size)
    for i in range(g.size):
        g[i] += x[i]


@njit(**_OPTIONS)
def _add_product(D, S, fresh, grad, G):
    """G = D Sᵀ, or G += D Sᵀ by way of grad."""
    if fresh:
        np.dot(D, S.T, G)
    else:
        np.dot(D, S.T, grad)
        _add(grad, G)


@njit(**_OPTIONS)
def forward(W, steps, leak, code, constants, A0, S, work):
    """Features of every layer in S; returns the scratch that holds A_L."""
    layers, w, _ = W.shape
    size, one = A0.size, A0.dtype.type(1)
    here, there = work[0, :w], work[1, :w]
    here[:] = A0
    for k in range(layers):
        rho = steps[k]
        keep = one - rho * leak
        a, b = here.reshape(size), there.reshape(size)
        _activate(code, constants, a, S[k].reshape(S[k].size)[:size])
        if code > _SMOOTH_RELU:
            states = S[layers + k].reshape(S[k].size)
            for i in range(size):
                states[i] = a[i]
        np.dot(W[k], S[k], there)
        for i in range(size):
            b[i] = keep * a[i] + rho * b[i]
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
def _backward(W, steps, leak, code, constants, Q, two_scale, R, S, D, fresh, grad, G):
    """Adjoint sweep from D_L = two_scale·QᵀR: fills D, or two layers of it in turn; G as above."""
    layers, w, _ = W.shape
    size, one, room = w * R.shape[1], R.dtype.type(1), len(D)
    here = D[(layers - 1) % room, :w]
    np.dot(Q.T, R, here)
    d = here.reshape(size)
    for i in range(size):
        d[i] *= two_scale
    for k in range(layers - 1, -1, -1):
        rho, here = steps[k], D[k % room, :w]
        _add_product(here, S[k], fresh, grad, G[k])
        if k > 0:
            below = D[(k - 1) % room]
            np.dot(W[k].T, here, below)
            _pull_back(code, constants, rho, one - rho * leak,
                       _states(S, layers, k).reshape(S[k].size)[:size],
                       here.reshape(size), below.reshape(below.size)[:size])


@njit(**_OPTIONS)
def loss(W, steps, leak, code, constants, Q, A0, Y, S, work, R):
    """‖QA_L − Yᵀ‖²; fills S."""
    return _misfit(Q, forward(W, steps, leak, code, constants, A0, S, work), Y, R)


@njit(**_OPTIONS)
def gradient(W, steps, leak, code, constants, Q, A0, Y, two_scale, S, D, work, R, fresh, grad, G):
    """∂(two_scale/2·‖QA_L − Yᵀ‖²)/∂W to G; fills S and D; returns ‖QA_L − Yᵀ‖²."""
    end = forward(W, steps, leak, code, constants, A0, S, work)
    total = _misfit(Q, end, Y, R)
    _backward(W, steps, leak, code, constants, Q, two_scale, R, S, D, fresh, grad, G)
    return total


@njit(**_OPTIONS)
def _tangent(W, V, steps, leak, code, constants, S, P, work):
    """δA_L for δW = V; fills P."""
    layers, w, _ = W.shape
    size, one, room = w * S.shape[2], S.dtype.type(1), len(P)
    here, there, through = work[0, :w], work[1, :w], work[2, :w]
    x = through.reshape(size)
    here[:] = 0
    for k in range(layers):
        rho = steps[k]
        keep = one - rho * leak
        t, o = here.reshape(size), there.reshape(size)
        np.dot(V[k], S[k], there)
        p = P[k % room]
        _times_slope(code, constants, _states(S, layers, k).reshape(S[k].size)[:size], t,
                     p.reshape(p.size)[:size])
        if k == 0:
            for i in range(size):
                o[i] = rho * o[i]
        else:
            np.dot(W[k], p, through)
            for i in range(size):
                o[i] = keep * t[i] + rho * (o[i] + x[i])
        here, there = there, here
    return here


@njit(**_OPTIONS)
def gauss_newton(W, V, steps, leak, code, constants, Q, two_scale, S, D, P, work, R, fresh, grad,
                 G):
    """The Gauss–Newton product two_scale·JᵀQᵀQJ V to G, J = ∂A_L/∂W; D is scratch.

    S as `forward` left it; P is scratch too. Four matrix products a layer, where a gradient takes
    three.
    """
    np.dot(Q, _tangent(W, V, steps, leak, code, constants, S, P, work), R)
    _backward(W, steps, leak, code, constants, Q, two_scale, R, S, D, fresh, grad, G)


@njit(**_OPTIONS)
def hessian(W, V, steps, leak, code, constants, Q, two_scale, S, D, P, work, R, fresh, grad, G):
    """The Hessian product with V to G; S and D as `gradient` left them.

    Seven matrix products a layer, where a gradient takes three.
    """
    layers, w, _ = W.shape
    size, one = w * S.shape[2], S.dtype.type(1)
    np.dot(Q, _tangent(W, V, steps, leak, code, constants, S, P, work), R)
    here, there, second = work[0], work[1], work[2]
    x = second.reshape(second.size)[:size]
    np.dot(Q.T, R, here[:w])
    h = here.reshape(here.size)[:size]
    for i in range(size):
        h[i] *= two_scale
    for k in range(layers - 1, -1, -1):
        rho = steps[k]
        _add_product(here[:w], S[k], fresh, grad, G[k])
        if k == 0:
            break
        _add_product(D[k, :w], P[k], False, grad, G[k])
        s = _states(S, layers, k).reshape(S[k].size)[:size]
        p = P[k].reshape(P[k].size)[:size]
        o = there.reshape(there.size)[:size]
        np.dot(W[k].T, here[:w], there)
        np.dot(V[k].T, D[k, :w], second)
        for i in range(size):
            o[i] += x[i]
        _pull_back(code, constants, rho, one - rho * leak, s, here.reshape(here.size)[:size], o)
        if code == _SMOOTH_RELU or code > _LEAKY_RELU:
            np.dot(W[k].T, D[k, :w], second)
            _add_curvature(code, constants, rho, s, p, x, o)
        here, there = there, here


@njit(**_OPTIONS)
def factors(W, steps, leak, code, constants, Q, signs, S, work, square, grams, metrics):
    """Add SSᵀ of every layer to grams (L, c, c) and DDᵀ of the nodes 1…L to metrics (L, w, w).

    D is swept back from D_L = Qᵀ·signs, signs (d_out, T) random ±1, so that its mean is JᵀQᵀQJ with
    J = ∂A_L/∂A_l. S as `forward` left it; square (c + w, c) is scratch.
    """
    layers, w, c = W.shape
    size, one = w * S.shape[2], S.dtype.type(1)
    here, there = work[0], work[1]
    gram, metric = square[:c], square[c:].reshape(w * c)[: w * w].reshape((w, w))
    np.dot(Q.T, signs, here[:w])
    for k in range(layers - 1, -1, -1):
        np.dot(S[k], S[k].T, gram)
        _add(gram, grams[k])
        np.dot(here[:w], here[:w].T, metric)
        _add(metric, metrics[k])
        if k > 0:
            np.dot(W[k].T, here[:w], there)
            _pull_back(code, constants, steps[k], one - steps[k] * leak,
                       _states(S, layers, k).reshape(S[k].size)[:size],
                       here.reshape(here.size)[:size], there.reshape(there.size)[:size])
            here, there = there, here


@njit(**{**_OPTIONS, "fastmath": {"contract", "reassoc"}})
def add_decay(total, W, steps, share, out):
    """Write ρ·total + ρ·share·W to out; returns Σ ρ_ℓ share‖W_ℓ‖²/2. One pass."""
    decay = 0.0
    for k in range(len(W)):
        w, t, o = W[k].reshape(W[k].size), total[k].reshape(W[k].size), out[k].reshape(W[k].size)
        rho, s = steps[k], steps[k] * share
        square = 0.0
        for i in range(w.size):
            square += np.float64(w[i]) * np.float64(w[i])
            o[i] = rho * t[i] + s * w[i]
        decay += 0.5 * s * square
    return decay


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
