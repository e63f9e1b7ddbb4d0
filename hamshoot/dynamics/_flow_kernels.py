"""Compiled Hamiltonian flow of the Leaky ResNet: DOP853 with variations, energy and ReLU events.

    ∂_pA = L̃ (B σ̂ᵀσ̂ − A),   ∂_pB = −L̃ (σ′(A) ⊙ [σ(A) BᵀB] − B),   e′ = ‖W‖²/(2L̃) = (L̃/2) ‖Bσ̂ᵀ‖²

is integrated over one segment or many by the explicit Runge–Kutta pair of order 8 of Dormand and
Prince (Hairer, Nørsett, Wanner, *Solving Ordinary Differential Equations I*, code DOP853), the step
chosen from the state alone. Directions (variations of the initial state) are carried along the same
steps by the same scheme, so they are the exact derivative of the computed end for the steps taken.
Readable forms of every formula, and what the kernels are tested against:
`hamshoot.theory.hamiltonian`.

**ReLU.** A step is taken with a frozen pattern of active entries, hence with a smooth field. When
an entry of A ends on the wrong side of 0, the step is shortened until it ends at the first
crossing; the entry changes sides there and the directions pass the saltation matrix. Where A
touches 0 without crossing (speed 0) the derivative does not exist and the segment returns the
status GRAZING. A linear network is the case of a pattern of ones that nothing changes.

Never N × N: σ̂ᵀσ̂ enters through M = Bσ̂ᵀ, so a right-hand side costs about 6w²N flops, and a
direction 12w²N. No fastmath: non-finite numbers must stay visible.

Arrays (C-contiguous float64; c = w + 1 with a bias, else w; D directions):

    y       (2, w, N)      A and B               z  (2, D, w, N)   directions in A and in B
    S       (c, N)         σ̂(A)                  M  (w, c)         Bσ̂ᵀ = W/L̃
    G       (3, w, N)      pattern, σ′, σ″       T  (c, N)         MᵀB, first w rows σBᵀB
    K       (14, 2, w, N)  start, stages         Z  (13, 2, D, w, N) the same for directions

Slices are copied by loops and workspaces come from outside, because numba spends most of its time
compiling assignments of slices, reshapes and allocations.
"""

from __future__ import annotations

import numpy as np

from hamshoot.dynamics._compiling import call, njit
from hamshoot.dynamics._sigma_kernels import sigma

_OPTIONS = dict(cache=True, nogil=True, error_model="numpy")
# Python never calls the inner kernels; without wrappers they compile in half the time. Short ones
# are put into the code of their callers before that is compiled.
_INNER = dict(_OPTIONS, no_cpython_wrapper=True, no_cfunc_wrapper=True)
_IN_LINE = dict(_OPTIONS, inline="always")
# Python's own, which no kernel calls by its address.
_OUTER = dict(_OPTIONS, no_cfunc_wrapper=True)
_SMOOTH_RELU = 2  # as in hamshoot.problem.activations (a literal keeps the cache valid)

#: Status of a segment.
DONE, NOT_FINITE, STEP_LIMIT, GRAZING, SKIPPED = 0, 1, 2, 3, 4

# Row i: the nonzero a_ij of stage i as (j, a_ij); the last row of the table is b.
_TABLE = (
    (),
    ((0, 0.05260015195876773),),
    ((0, 0.0197250569845379), (1, 0.0591751709536137),),
    ((0, 0.02958758547680685), (2, 0.08876275643042054),),
    ((0, 0.2413651341592667), (2, -0.8845494793282861), (3, 0.924834003261792),),
    ((0, 0.037037037037037035), (3, 0.17082860872947386), (4, 0.12546768756682242),),
    ((0, 0.037109375), (3, 0.17025221101954405), (4, 0.06021653898045596),
     (5, -0.017578125),),
    ((0, 0.03709200011850479), (3, 0.17038392571223998), (4, 0.10726203044637328),
     (5, -0.015319437748624402), (6, 0.008273789163814023),),
    ((0, 0.6241109587160757), (3, -3.3608926294469414), (4, -0.868219346841726),
     (5, 27.59209969944671), (6, 20.154067550477894), (7, -43.48988418106996),),
    ((0, 0.47766253643826434), (3, -2.4881146199716677), (4, -0.590290826836843),
     (5, 21.230051448181193), (6, 15.279233632882423), (7, -33.28821096898486),
     (8, -0.020331201708508627),),
    ((0, -0.9371424300859873), (3, 5.186372428844064), (4, 1.0914373489967295),
     (5, -8.149787010746927), (6, -18.52006565999696), (7, 22.739487099350505),
     (8, 2.4936055526796523), (9, -3.0467644718982196),),
    ((0, 2.273310147516538), (3, -10.53449546673725), (4, -2.0008720582248625),
     (5, -17.9589318631188), (6, 27.94888452941996), (7, -2.8589982771350235),
     (8, -8.87285693353063), (9, 12.360567175794303), (10, 0.6433927460157636),),
)
_B = np.array((
    0.054293734116568765, 0.0, 0.0, 0.0, 0.0, 4.450312892752409, 1.8915178993145003,
    -5.801203960010585, 0.3111643669578199, -0.1521609496625161, 0.20136540080403034,
    0.04471061572777259,
))
_E3 = np.array((
    -0.18980075407240762, 0.0, 0.0, 0.0, 0.0, 4.450312892752409, 1.8915178993145003,
    -5.801203960010585, -0.4226823213237919, -0.1521609496625161, 0.20136540080403034,
    0.02265179219836082,
))
_E5 = np.array((
    0.01312004499419488, 0.0, 0.0, 0.0, 0.0, -1.2251564463762044, -0.4957589496572502,
    1.6643771824549864, -0.35032884874997366, 0.3341791187130175, 0.08192320648511571,
    -0.022355307863886294,
))
_A = np.zeros((12, 12))
for _i, _row in enumerate(_TABLE):
    for _j, _a in _row:
        _A[_i, _j] = _a
_TRIALS = 100  # of the search for a crossing


@njit(**_OPTIONS)
def field(code, epsilon, below, leak, y, G, S, M, T, k):
    """Write the flow at y into k (2, w, N), with σ̂, σ′, σ″, M, T on the way; return e′.

    G[0], the pattern of active entries, is given; G[1] = σ′, G[2] = σ″. below is None for the
    activations written out here, and else the negative slope, even of one that has none.
    """
    w, N = y.shape[1], y.shape[2]
    if below is not None:
        for i in range(w):
            for j in range(N):
                S[i, j], G[1, i, j], G[2, i, j] = sigma(code, epsilon * epsilon, below, y[0, i, j])
    elif code == _SMOOTH_RELU:
        square, quarter = epsilon * epsilon, 0.25 * epsilon * epsilon
        for i in range(w):
            for j in range(N):
                z = y[0, i, j]
                root = np.sqrt(z * z + square)
                upper = 0.5 * (abs(z) + root)  # no cancellation: σ(z) = (ε²/4)/σ(−z)
                value = upper if z >= 0 else quarter / upper
                S[i, j] = value
                G[1, i, j] = value / root
                G[2, i, j] = 0.5 * square / (root * root * root)
    else:
        for i in range(w):
            for j in range(N):
                S[i, j] = G[0, i, j] * y[0, i, j]
                G[1, i, j] = G[0, i, j]
                G[2, i, j] = 0.0
    np.dot(y[1], S.T, M)
    np.dot(M, S, k[0])
    np.dot(M.T, y[1], T)
    energy = 0.0
    for i in range(w):
        for j in range(M.shape[1]):
            energy += M[i, j] * M[i, j]
        for j in range(N):
            k[0, i, j] = leak * (k[0, i, j] - y[0, i, j])
            k[1, i, j] = leak * (y[1, i, j] - G[1, i, j] * T[i, j])
    return 0.5 * leak * energy


@njit(**_INNER)
def tangent(leak, B, G, S, M, T, z, zf, out, outf, s, sf, dM, dMf, X, Xf, R, P):
    """Derivative of the flow along every direction of z, into out; `field` was called before.

    An array and the same name with f are two views of one memory: (D, w, ·) and (D·w, ·).
    s holds σ′a, dM the change of M, X first (Bsᵀ)ᵀ and then dMᵀ; R is M without its last column.
    """
    D, w, N = s.shape
    for d in range(D):
        for i in range(w):
            for j in range(N):
                s[d, i, j] = G[1, i, j] * z[0, d, i, j]
    for i in range(w):
        for j in range(w):
            R[i, j] = M[i, j]
    np.dot(zf[1], S.T, dMf)
    np.dot(sf, B.T, Xf)
    for d in range(D):
        for j in range(w):
            for i in range(w):
                X[d, i, j] += dM[d, j, i]
                dM[d, j, i] = X[d, i, j]
    np.dot(dMf, S, outf[0])
    np.dot(Xf, B, outf[1])
    for d in range(D):
        np.dot(R, s[d], P)
        for i in range(w):
            for j in range(N):
                out[0, d, i, j] = leak * (out[0, d, i, j] + P[i, j] - z[0, d, i, j])
        np.dot(R.T, z[1, d], P)
        for i in range(w):
            for j in range(N):
                change = G[2, i, j] * z[0, d, i, j] * T[i, j] \
                    + G[1, i, j] * (out[1, d, i, j] + P[i, j])
                out[1, d, i, j] = leak * (z[1, d, i, j] - change)


@njit(**_IN_LINE)
def _combine(h, i, K, out):
    """out = K[0] + h Σ_j a_ij K[1 + j] over the rows of a flat K, or with the weights b for i = 12.

    Row 0 of K is the value at the start, row 1 + j stage j.
    """
    for x in range(out.size):
        out[x] = K[0, x]
    for j in range(i):
        a = h * (_A[i, j] if i < 12 else _B[j])
        if a != 0:
            for x in range(out.size):
                out[x] += a * K[1 + j, x]


@njit(**_INNER)
def _first_wrong(K, at, G, slack):
    """Entry of A that leaves its side of 0 first (straight line) and by more than slack, or −1."""
    w, N = G.shape[1], G.shape[2]
    found, earliest = -1, 2.0
    for i in range(w):
        for j in range(N):
            a, b = K[0, 0, i, j], at[0, i, j]
            if (G[0, i, j] == 1.0 and b < -slack) or (G[0, i, j] == 0.0 and b > slack):
                when = a / (a - b)
                if when < earliest:
                    earliest, found = when, i * N + j
    return found


@njit(**_IN_LINE)
def _error(h, Kf, atf, rtol, atol):
    """Scaled error estimate of DOP853; accept at most 1."""
    five, three = 0.0, 0.0
    for x in range(atf.size):
        e5, e3 = 0.0, 0.0
        for j in range(12):
            e5 += _E5[j] * Kf[1 + j, x]
            e3 += _E3[j] * Kf[1 + j, x]
        scale = atol + rtol * max(abs(Kf[0, x]), abs(atf[x]))
        e5 /= scale
        e3 /= scale
        five += e5 * e5
        three += e3 * e3
    if five == 0 and three == 0:
        return 0.0
    return abs(h) * five / np.sqrt((five + 0.01 * three) * atf.size)


@njit(**_IN_LINE)
def _begin(q, starts, patterns, Kf, G):
    """State and pattern at the start of segment q."""
    for x in range(Kf.shape[1]):
        Kf[0, x] = starts[q, x]
    for i in range(G.shape[1]):
        for j in range(G.shape[2]):
            G[0, i, j] = patterns[q, i, j]


@njit(**_OUTER)
def segments(place, events, code, epsilon, below, leak, t0, t1, rtol, atol, max_steps, floor, bail,
             ends, patterns, energies, statuses, steps, crossings, record, K, Kf, E, at, atf, G, S,
             M, T):
    """Integrate every segment from t0 to t1; `ends` holds the starts, then the ends.

    Parameters
    ----------
    place : tuple of int
        Where `field` is (`hamshoot.dynamics._compiling.place_of`): compiled by itself, it is not
        optimised once more here.
    events : True or None
        Whether entries of A that cross 0 are looked for: for a ReLU. Compiled for None without
        all that.
    bail : bool
        Give up all that follow a segment that fails.
    ends : ndarray, shape (segments, n)
        NaN where a segment fails.
    patterns : ndarray, shape (segments, w, N)
        1 for the active entries of a ReLU at the starts (see `hamshoot.dynamics.flow`), else 1.
    energies, statuses, steps, crossings : ndarray, shape (segments,)
        Written: ∫‖W‖²/(2L̃), how it ended, steps taken, entries of A that crossed 0.
    record : ndarray, shape (capacity, 3)
        For `carry`, a row each accepted step: its length, the entry that crosses 0 at its end (or
        −1), and what the saltation takes from B there per unit of A.
    K, … T :
        Workspaces.

    Returns
    -------
    int
        Rows written, or that would have been had there been room.
    """
    N = G.shape[2]
    rows, h, lost = 0, 0.0, False
    for q in range(len(ends)):
        _begin(q, ends, patterns, Kf, G)
        span, sign = abs(t1[q] - t0[q]), 1.0 if t1[q] >= t0[q] else -1.0
        least = 1e-14 * max(abs(t0[q]), abs(t1[q]))
        done, energy, count, crossed = 0.0, 0.0, 0, 0
        status = SKIPPED if lost and bail else DONE
        h = span if h <= 0 else min(h, span)
        fresh, entry, cut, final, before = True, -1, False, False, rows
        # The search for a crossing, `entry` ≥ 0: it lies between the steps low and high.
        low, high, at_low, at_high, kept, trials, slack = 0.0, 0.0, 0.0, 0.0, 0, 0, 0.0
        step = 0.0
        while status == DONE and (done < span or final):
            if events is not None and fresh:
                E[0] = call(place, (code, epsilon, below, leak, K[0], G, S, M, T, K[1]))
                fresh = False
                if final:  # the entry has arrived at 0: it changes sides
                    i, j = entry // N, entry % N
                    speed = abs(K[1, 0, i, j])
                    if speed < floor:
                        status = GRAZING
                        break
                    if rows <= len(record):
                        record[rows - 1, 1] = entry
                        record[rows - 1, 2] = sign * leak * T[i, j] / speed
                    G[0, i, j] = 1.0 - G[0, i, j]
                    fresh, final, entry = True, False, -1
                    continue
            if count == max_steps:
                status = STEP_LIMIT
                break
            if entry < 0:
                count += 1
                rest = span - done
                cut = h >= rest * (1 - 1e-12)
                step = rest if cut else h
            # The stages, stage 0 unless it is there.
            inside, gain, signed = False, 0.0, sign * step
            for stage in range(0 if fresh else 1, 13):
                _combine(signed, stage, Kf, atf)
                if stage < 12:
                    E[stage] = call(place, (code, epsilon, below, leak, at, G, S, M, T,
                                            K[1 + stage]))
                if events is not None:
                    inside = inside or (0 < stage < 11 and _first_wrong(K, at, G, 1e-9) >= 0)
            for stage in range(12):
                gain += signed * _B[stage] * E[stage]
            fresh = False
            if entry < 0:
                error = _error(step, Kf, atf, rtol, atol)
                if not error <= 1:
                    h = step * (max(0.2, 0.9 * error ** (-0.125)) if np.isfinite(error) else 0.2)
                    if h < least:
                        status = NOT_FINITE
                        break
                    continue
                if events is None:
                    h = step * (min(8.0, 0.9 * error ** (-0.125)) if error > 0 else 8.0)
            if events is not None:
                if entry < 0:
                    wrong = _first_wrong(K, at, G, 0.0)
                    if wrong < 0 and inside and step > 1e-5 * span:
                        h = 0.5 * step  # there and back within one step: look closer
                        continue
                    h = step * (min(8.0, 0.9 * error ** (-0.125)) if error > 0 else 8.0)
                    slack, trials = 0.0, 0
                    if wrong >= 0:
                        for x in range(atf.size // 2):
                            slack = max(slack, abs(Kf[0, x]))
                        slack = 2e-15 * (1.0 + slack)
                else:
                    wrong = _first_wrong(K, at, G, slack)
                    wrong = entry if wrong < 0 else wrong
                if wrong >= 0:
                    # Shorten the step until it ends at the first crossing. Each trial is a whole
                    # step, so the crossing is as accurate as the steps are.
                    trials += 1
                    i, j = wrong // N, wrong % N
                    side, value = 2.0 * G[0, i, j] - 1.0, at[0, i, j]
                    found = wrong == entry and (abs(value) <= slack or abs(high - low) <= 1e-16)
                    if wrong != entry:
                        entry, low, high, kept = wrong, 0.0, step, 0
                        at_low, at_high = K[0, 0, i, j], value
                    elif not found and side * value > 0:  # Illinois: an end kept twice counts half
                        low, at_low = step, value
                        at_high *= 0.5 if kept == 1 else 1.0
                        kept = 1
                    elif not found:
                        high, at_high = step, value
                        at_low *= 0.5 if kept == -1 else 1.0
                        kept = -1
                    if not found and trials < _TRIALS:
                        if low == 0 and side * at_low <= slack:  # it starts at 0
                            at_once = side * sign * K[1, 0, i, j] <= 0 or high < 1e-15
                            step = 0.0 if at_once else 0.5 * high
                            if at_once:
                                slack = max(slack, abs(at_low))
                        else:
                            step = low + (high - low) * at_low / (at_low - at_high)
                        continue
                    cut, final = False, True
            if rows < len(record):
                record[rows, 0], record[rows, 1], record[rows, 2] = sign * step, -1.0, 0.0
            rows += 1
            for x in range(atf.size):
                Kf[0, x] = atf[x]
            done = span if cut else done + step
            energy += sign * gain
            fresh = True
            if final:
                crossed += 1
                K[0, 0, entry // N, entry % N] = 0.0
        for x in range(atf.size):
            ends[q, x] = Kf[0, x] if status == DONE else np.nan
        statuses[q], steps[q], crossings[q], energies[q] = status, rows - before, crossed, energy
        if status != DONE:
            h, lost = 0.0, True
    return rows


@njit(**_OUTER)
def carry(code, epsilon, below, leak, starts, patterns, rows, record, V, K, Kf, E, at, atf, G, S, M,
          T, Z, Zf, Zr, z, zf, zr, s, sf, dM, dMf, X, Xf, R, P):
    """Carry the directions V (segments, 2 D w N), in place, over the steps that were recorded.

    Segment q, from starts[q], took the steps rows[q] to rows[q + 1] of `record`.
    """
    N = G.shape[2]
    for q in range(len(starts)):
        _begin(q, starts, patterns, Kf, G)
        for x in range(zf.size):
            Zf[0, x] = V[q, x]
        for r in range(rows[q], rows[q + 1]):
            for i in range(13):
                _combine(record[r, 0], i, Kf, atf)
                _combine(record[r, 0], i, Zf, zf)
                if i < 12:
                    field(code, epsilon, below, leak, at, G, S, M, T, K[1 + i])
                    tangent(leak, at[1], G, S, M, T, z, zr, Z[1 + i], Zr[1 + i], s, sf, dM, dMf,
                            X, Xf, R, P)
            for x in range(atf.size):
                Kf[0, x] = atf[x]
            for x in range(zf.size):
                Zf[0, x] = zf[x]
            entry = int(record[r, 1])
            if entry >= 0:
                i, j = entry // N, entry % N
                K[0, 0, i, j] = 0.0
                G[0, i, j] = 1.0 - G[0, i, j]
                for d in range(s.shape[0]):
                    Z[0, 1, d, i, j] -= record[r, 2] * Z[0, 0, d, i, j]
        for x in range(zf.size):
            V[q, x] = Zf[0, x]


@njit(**_OUTER)
def pull(code, epsilon, below, leak, starts, patterns, rows, record, V, path, K, Kf, E, at, atf, G,
         S, M, T, Z, Zf, Zr, z, zf, zr, s, sf, dM, dMf, X, Xf, R, P):
    """Carry the directions V back, from the ends to the starts: the transpose of `carry`.

    The stages of a step, κ_i = h(b_i μ + Σ_{j>i} a_ji l_j), l_i = f′(Y_i)ᵀκ_i, μ + Σ l_i, run
    backwards. As the field is Hamiltonian, f′ = −J f′ᵀ J⁻¹ with J(a, b) = (b, −a): in the
    coordinates Jμ the transposed product is `tangent` with its sign changed, so nothing is derived
    twice. V comes and goes in these coordinates (`hamshoot.dynamics.flow` turns them).

    Parameters
    ----------
    path : ndarray, shape (most steps of a segment, n)
        Workspace: where each step of a segment started. Stages are computed anew from there.
    """
    N = G.shape[2]
    for q in range(len(starts)):
        _begin(q, starts, patterns, Kf, G)
        for r in range(rows[q], rows[q + 1]):
            for x in range(atf.size):
                path[r - rows[q], x] = Kf[0, x]
            for i in range(13):
                _combine(record[r, 0], i, Kf, atf)
                if i < 12:
                    field(code, epsilon, below, leak, at, G, S, M, T, K[1 + i])
            for x in range(atf.size):
                Kf[0, x] = atf[x]
            entry = int(record[r, 1])
            if entry >= 0:
                K[0, 0, entry // N, entry % N] = 0.0
                G[0, entry // N, entry % N] = 1.0 - G[0, entry // N, entry % N]
        for x in range(zf.size):
            Zf[0, x] = V[q, x]
        for r in range(rows[q + 1] - 1, rows[q] - 1, -1):
            entry = int(record[r, 1])
            if entry >= 0:
                i, j = entry // N, entry % N
                G[0, i, j] = 1.0 - G[0, i, j]
                for d in range(s.shape[0]):
                    Z[0, 1, d, i, j] += record[r, 2] * Z[0, 0, d, i, j]
            h = record[r, 0]
            for x in range(atf.size):
                Kf[0, x] = path[r - rows[q], x]
            for i in range(12):
                _combine(h, i, Kf, atf)
                field(code, epsilon, below, leak, at, G, S, M, T, K[1 + i])
            for i in range(11, -1, -1):
                for x in range(zf.size):
                    zf[x] = -h * _B[i] * Zf[0, x]
                for j in range(i + 1, 12):
                    if _A[j, i] != 0:
                        for x in range(zf.size):
                            zf[x] -= h * _A[j, i] * Zf[1 + j, x]
                _combine(h, i, Kf, atf)
                field(code, epsilon, below, leak, at, G, S, M, T, K[1 + i])
                tangent(leak, at[1], G, S, M, T, z, zr, Z[1 + i], Zr[1 + i], s, sf, dM, dMf,
                        X, Xf, R, P)
            for j in range(12):
                for x in range(zf.size):
                    Zf[0, x] += Zf[1 + j, x]
        for x in range(zf.size):
            V[q, x] = Zf[0, x]
