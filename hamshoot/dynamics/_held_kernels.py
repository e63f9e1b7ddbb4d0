"""Compiled sweeps of a network some of whose activations are held on the kink of ReLU.

An entry A_ℓ[i, j] = 0 that is held is one linear condition on row i of W_ℓ once A_{ℓ−1} is known,
so the conditions are met layer by layer, exactly, while the network is rolled out: row i is moved
as little as possible in the metric M_ℓ = R_ℓR_ℓᵀ of its layer,

    W̃_ℓ[i] ← W̃_ℓ[i] + Xᵀ(XXᵀ)⁻¹ c,    W̃ = WR,    X = (R⁻¹ σ̂(A_{ℓ−1})[:, held])ᵀ,

c what is missing. The adjoint of this elimination, layer by layer downwards, gives each entry held
the multiplier that takes the gradient of its row off the directions X, in place of the slope times
the force from above.

The entries held come as lists, in the order of ``np.nonzero(held)``, held of shape (L, w, N):

    ptr      (L+1,)       rows of the list that belong to layer k: ptr[k] to ptr[k+1]; they hold the
                          node to the right of that layer
    rows     (n_rows,)    neuron
    first    (n_rows+1,)  where a row's samples begin
    samples  (K,)
    at       (n_rows+1,)  where a row's factor begins in `factors`
    X        (K, c)       as above; filled by the roll-out
    factors               Cholesky factors of XXᵀ, lower, a row's after the other's

Everything else is laid out as in `hamshoot.dynamics._block_kernels`, with all samples in one block.
"""

from __future__ import annotations

import numpy as np

from hamshoot.dynamics._block_kernels import _OPTIONS, _activate, _misfit, _pull_back
from hamshoot.dynamics._compiling import njit

#: Share of the largest diagonal that is added to XXᵀ, by the bytes of a number: dependent
#: conditions then share their correction.
_RIDGE_8, _RIDGE_4 = 1e-14, 1e-6


@njit(**_OPTIONS)
def _factorise(X, factor):
    """Cholesky factor of XXᵀ, lower, to factor (m, m); pivots are never below the ridge.

    (LAPACK's gives up on dependent rows; m is small.)
    """
    m, largest = len(X), X.dtype.type(0)
    np.dot(X, X.T, factor)
    for a in range(m):
        largest = max(largest, factor[a, a])
    ridge = largest * X.dtype.type(_RIDGE_8 if X.itemsize == 8 else _RIDGE_4)
    for a in range(m):
        factor[a, a] += ridge
    for a in range(m):
        for b in range(a + 1):
            total = factor[a, b]
            for e in range(b):
                total -= factor[a, e] * factor[b, e]
            factor[a, b] = total / factor[b, b] if a > b else np.sqrt(max(total, ridge))
        if factor[a, a] == 0:  # no control of the row reaches this entry: nothing will be moved
            factor[a, a] = 1


@njit(**_OPTIONS)
def _solve(factor, y):
    """Overwrite y with (XXᵀ)⁻¹y."""
    m = len(y)
    for a in range(m):
        total = y[a]
        for b in range(a):
            total -= factor[a, b] * y[b]
        y[a] = total / factor[a, a]
    for a in range(m - 1, -1, -1):
        total = y[a]
        for b in range(a + 1, m):
            total -= factor[b, a] * y[b]
        y[a] = total / factor[a, a]


@njit(**_OPTIONS)
def _times(X, x, y):
    """Write Xx to y, for few rows."""
    for a in range(len(X)):
        total = X.dtype.type(0)
        for b in range(len(x)):
            total += X[a, b] * x[b]
        y[a] = total


@njit(**_OPTIONS)
def _add_combination(X, y, sign, x):
    """Add sign·Xᵀy to x."""
    for a in range(len(X)):
        share = sign * y[a]
        for b in range(len(x)):
            x[b] += share * X[a, b]


@njit(**_OPTIONS)
def _zero(values, k, ptr, rows, first, samples):
    """Set the entries held of a node to 0 in values (w or c, N); k is the layer before it."""
    for r in range(ptr[k], ptr[k + 1]):
        for n in range(first[r], first[r + 1]):
            values[rows[r], samples[n]] = 0


@njit(**_OPTIONS)
def _meet(W, rho, keep, A, S, R, inverse, k, ptr, rows, first, at, samples, X, factors, gathered,
          turned, y):
    """Move rows of W (w, c) so that the entries held after layer k become 0; fills X, factors."""
    begin, end, c = first[ptr[k]], first[ptr[k + 1]], len(S)
    columns = gathered[:c * (end - begin)].reshape((c, end - begin))
    for a in range(c):
        for n in range(begin, end):
            columns[a, n - begin] = S[a, samples[n]]
    np.dot(columns.T, inverse.T, X[begin:end])
    np.dot(W, R, turned)
    for r in range(ptr[k], ptr[k + 1]):
        f, e = first[r], first[r + 1]
        m = e - f
        factor, mine, left = factors[at[r]:at[r + 1]].reshape((m, m)), turned[rows[r]], y[:m]
        _factorise(X[f:e], factor)
        _times(X[f:e], mine, left)
        for n in range(m):
            left[n] = -keep / rho * A[rows[r], samples[f + n]] - left[n]
        _solve(factor, left)
        _add_combination(X[f:e], left, W.dtype.type(1), mine)
    np.dot(turned, inverse, W)


@njit(**_OPTIONS)
def forward(W, steps, leak, code, constants, A0, R, inverse, held, S, X, factors, nodes, gathered,
            turned, y):
    """Features of every layer in S, W corrected in place; returns the scratch that holds A_L.

    held is (ptr, rows, first, at, samples); nodes (2, w, N), gathered (c·K), turned (w, c) and
    y (most entries of a row) are scratch.
    """
    ptr, rows, first, at, samples = held
    layers, size, one = len(W), A0.size, A0.dtype.type(1)
    here, there = nodes[0], nodes[1]
    here[:] = A0
    for k in range(layers):
        rho = steps[k]
        keep = one - rho * leak
        if k > 0:
            _zero(here, k - 1, ptr, rows, first, samples)
        a, b = here.reshape(size), there.reshape(size)
        _activate(code, constants, a, S[k].reshape(S[k].size)[:size])
        if k > 0:
            _zero(S[k], k - 1, ptr, rows, first, samples)
        if ptr[k + 1] > ptr[k]:
            _meet(W[k], rho, keep, here, S[k], R[k], inverse[k], k, ptr, rows, first, at, samples,
                  X, factors, gathered, turned, y)
        np.dot(W[k], S[k], there)
        for i in range(size):
            b[i] = keep * a[i] + rho * b[i]
        here, there = there, here
    return here


@njit(**_OPTIONS)
def gradient(W, steps, leak, code, constants, A0, R, inverse, held, S, X, factors, nodes, gathered,
             turned, y, Q, Y, two_scale, share, misfit, D, force, multipliers, G):
    """J's gradient in the controls that are left, to G (L, w, c), with the weight decay's part.

    Corrects W as `forward` does. force and multipliers (K,) get v and m of the entries held, in
    units of D = ∂(two_scale/2·‖QA_L − Yᵀ‖²)/∂A; share is λ/L̃, D (2, c, N) scratch. Returns
    ‖QA_L − Yᵀ‖².
    """
    ptr, rows, first, at, samples = held
    layers, w, c = W.shape
    size, one = A0.size, A0.dtype.type(1)
    end = forward(W, steps, leak, code, constants, A0, R, inverse, held, S, X, factors, nodes,
                  gathered, turned, y)
    total = _misfit(Q, end, Y, misfit)
    np.dot(Q.T, misfit, D[(layers - 1) % 2, :w])
    D[(layers - 1) % 2, :w] *= two_scale
    for k in range(layers - 1, -1, -1):
        rho, here = steps[k], D[k % 2, :w]
        np.dot(here, S[k].T, G[k])
        g, x = G[k].reshape(w * c), W[k].reshape(w * c)
        for i in range(w * c):
            g[i] += share * x[i]
        if ptr[k + 1] > ptr[k]:
            np.dot(G[k], inverse[k].T, turned)
            for r in range(ptr[k], ptr[k + 1]):
                f, e = first[r], first[r + 1]
                m = e - f
                left = y[:m]
                _times(X[f:e], turned[rows[r]], left)
                _solve(factors[at[r]:at[r + 1]].reshape((m, m)), left)
                _add_combination(X[f:e], left, -one, turned[rows[r]])
                for n in range(m):
                    multipliers[f + n] = -left[n]
                    here[rows[r], samples[f + n]] -= left[n]
            np.dot(turned, R[k].T, G[k])
        for i in range(w * c):
            g[i] *= rho
        if k > 0:
            below = D[(k - 1) % 2]
            np.dot(W[k].T, here, below)
            for r in range(ptr[k - 1], ptr[k]):
                for n in range(first[r], first[r + 1]):
                    force[n] = rho * below[rows[r], samples[n]]
            _zero(below, k - 1, ptr, rows, first, samples)
            _pull_back(code, constants, rho, one - rho * leak, S[k].reshape(S[k].size)[:size],
                       here.reshape(size), below.reshape(below.size)[:size])
    return total
