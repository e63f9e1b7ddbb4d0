"""Each verdict of the second-order test on a network made for it, with J computed beside it.

The networks are made backwards. A_1 and B_2 of two layers are chosen, kinks and slopes where they
are wanted; W_2 and B_1 follow, A_0 solves A_1 = (1 − ρL̃)A_0 + ρL̃B_1σ̂(A_0)ᵀσ̂(A_0), and Y is what
makes B_2 the costate at the end. J is the loop below and nothing of the package.
"""

from itertools import product
from typing import NamedTuple

import numpy as np
import pytest
from problems import teacher
from scipy.optimize import root

import hamshoot as hs
from hamshoot.optimality import coupling
from hamshoot.optimality.second_order_layers import second_order

LEAK, DECAY = 1.0, 0.05
#: Of a solve that ends with two hidden neurons alive and one dead.
SHARED_SEED = 9
EQUAL = np.full(2, 0.5)


class Network(NamedTuple):
    """A problem and a stationary point of it."""

    problem: hs.TrainingProblem
    weights: np.ndarray
    slopes: np.ndarray
    steps: np.ndarray = EQUAL

    def test(self, **options):
        """The second-order test, with the slopes that the network was made with."""
        return second_order(self.problem, self.weights, self.steps, slopes=self.slopes, **options)

    def J(self, W):
        """J of some controls, by the definition."""
        return objective(self.problem, W, self.steps)

    def changes(self, direction, lengths):
        """J(W + t·direction) − J(W), the direction of length 1."""
        step = direction / np.linalg.norm(direction)
        return np.array([self.J(self.weights + t * step) - self.J(self.weights) for t in lengths])


def proved(result):
    """Whether the test proved a strict local minimum."""
    return result.verdict.startswith("strict local minimum")


def states(problem, W, steps):
    A, low = [problem.initial_state], problem.sigma.negative_slope
    for w, rho in zip(W, steps, strict=True):
        S = np.maximum(A[-1], low * A[-1])
        V = w[:, : len(S)] @ S + (w[:, len(S) :] if problem.bias else 0)
        A.append((1 - rho * problem.effective_depth) * A[-1] + rho * V)
    return A


def objective(problem, W, steps):
    error = problem.readout @ states(problem, W, steps)[-1] - problem.targets
    norm = sum(rho * np.sum(w**2) for w, rho in zip(W, steps, strict=True))
    return np.sum(error**2) / problem.n_samples \
        + problem.weight_decay / (2 * problem.effective_depth) * norm


def features(A, bias, low=0.0):
    S = np.maximum(A, low * A)
    return np.concatenate([S, np.ones((1, A.shape[1]))]) if bias else S


def backwards(A, B, slope, bias=True, seen=None, start=None, low=0.0):
    """Two stationary layers from A_1, B_2 and the slopes at A_1; `seen` neurons are read out.

    B must be 0 in the others. `start` is where the search for A_0 begins; `low` is the slope of a
    leaky ReLU.
    """
    A, B, slope = (np.array(given, float) for given in (A, B, slope))
    w, N = A.shape
    rho = 0.5
    W2 = LEAK * B @ features(A, bias, low).T
    B1 = (1 - rho * LEAK) * B + slope * (rho * W2[:, :w].T @ B)

    def missed(x):
        S = features(x.reshape(w, N), bias, low)
        return ((1 - rho * LEAK) * x.reshape(w, N) + rho * LEAK * B1 @ S.T @ S - A).ravel()

    A0 = root(missed, np.ravel(A if start is None else start), tol=1e-14).x
    assert np.abs(missed(A0)).max() < 1e-13
    A0 = A0.reshape(w, N)
    W = np.array([LEAK * B1 @ features(A0, bias, low).T, W2])
    A2 = (1 - rho * LEAK) * A + rho * W2 @ features(A, bias, low)
    Q = np.eye(w)[list(range(w) if seen is None else seen)]
    problem = hs.TrainingProblem(
        A0.T, (Q @ (A2 + DECAY * N / 2 * B)).T, effective_depth=LEAK, weight_decay=DECAY, width=w,
        bias=bias, lift=np.eye(w), readout=Q,
        **({"activation": "leaky_relu", "negative_slope": low} if low else {}))
    return Network(problem, W, np.array([np.where(A0 > 0, 1.0, low), slope]))


HELD = dict(A=[[0.0, 0.7]], B=[[-0.6, 0.5]], slope=[[0.4, 1.0]])
CONCAVE = dict(A=[[0.0, 0.7]], B=[[0.6, 0.5]], slope=[[0.4, 1.0]])
# Four samples, of which three lie on the kink, and a row of two controls.
IN_PLACE = dict(A=[[0.0, 0.0, 0.9, 0.0]], B=[[-1.0, -0.9, 0.6, 0.05]],
                slope=[[0.5, 0.4, 1.0, 0.5]])


def pitchfork(p, activation="relu"):
    """Controls p = 1 − ρL̃ + ρW of two layers of one neuron, both the same, no bias, one sample.

    J = (pq − y)² + c((p − a)² + (q − a)²) with a = 1 − ρL̃ and c = λ/(2L̃ρ) is stationary at p = q
    where p² − y = c(a − p)/p. Its Hessian in (p, q) has the eigenvalues 2p² + 2c ± (4p² − 2y).
    """
    rho, a = 0.5, 1 - 0.5 * LEAK
    c = DECAY / (2 * LEAK * rho)
    y = p * p - c * (a - p) / p
    problem = hs.TrainingProblem([[1.0]], [[y]], effective_depth=LEAK, weight_decay=DECAY, width=1,
                                 bias=False, activation=activation)
    W = np.full((2, 1, 1), (p - a) / rho)
    eigenvalues = rho**2 * (2 * p * p + 2 * c + np.array([-1, 1]) * (4 * p * p - 2 * y))
    slopes = np.ones((2, 1, 1)) if activation == "relu" else None
    return Network(problem, W, slopes), eigenvalues


def switched_off(beta, alpha=0.8, low=0.0):
    """A living neuron that is lifted and read out, a dead one beside it, one sample, no bias.

    Switching the dead one on by u = W₁[1, 0] and c = W₂[0, 1] changes J to second order by
    (λρ/(2L̃))(u² + c²) − λρβcσ(ρux): the coupling against the weight decay is ρL̃βx.
    """
    network = backwards([[alpha], [0.0]], [[beta], [0.0]], [[1.0], [0.0]], bias=False, seen=[0],
                        low=low)
    return network, 0.5 * LEAK * beta * network.problem.initial_state[0, 0]


def lower(network, count=2000, seed=0):
    """Lowest J − J(W) over random directions of all kinds, at lengths from 1e-6 to 1e-3."""
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((count, *network.weights.shape))
    directions[::2] *= rng.random(directions[::2].shape) < 0.3
    directions = directions[np.any(directions, axis=(1, 2, 3))]
    return min(network.changes(h, [1e-6, 1e-5, 1e-4, 1e-3]).min() for h in directions)


# -- the identity ----------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [HELD, CONCAVE, IN_PLACE])
@pytest.mark.parametrize("size", [1e-3, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("low", [0.0, 0.3])
def test_the_identity_holds_for_steps_of_any_length(made, size, low):
    network = backwards(**made, low=low)
    problem, W, rho, leak, lam = network.problem, network.weights, 0.5, LEAK, DECAY
    h = size * np.random.default_rng(3).standard_normal(W.shape)
    A, moved = (states(problem, w, network.steps) for w in (W, W + h))
    B2 = -2 / (lam * problem.n_samples) * problem.readout.T @ (
        problem.readout @ A[2] - problem.targets)
    B1 = (1 - rho * leak) * B2 + network.slopes[1] * (rho * W[1][:, :1].T @ B2)
    B = [None, B1, B2]
    change = lam / (2 * leak) * rho * np.sum(h**2) \
        + np.sum((problem.readout @ (moved[2] - A[2])) ** 2) / problem.n_samples
    for k in (0, 1):
        d_sigma = np.maximum(moved[k], low * moved[k]) - np.maximum(A[k], low * A[k])
        r = d_sigma - network.slopes[k] * (moved[k] - A[k])
        v = rho * W[k][:, :1].T @ B[k + 1]
        assert np.all(r >= -1e-15 * size)
        change -= lam * rho * np.sum(B[k + 1] * (h[k][:, :1] @ d_sigma)) + lam * np.sum(v * r)
    assert network.J(W + h) - network.J(W) == pytest.approx(change, rel=1e-9, abs=1e-15)


# -- entries on the kink ---------------------------------------------------------------------------


@pytest.mark.parametrize("low", [0.0, 0.3])
def test_a_convex_kink_holds(low):
    network = backwards(**HELD, low=low)
    verdict = network.test()
    assert proved(verdict)
    assert int(verdict.kinks.held.sum()) == 1
    assert lower(network) > 0
    # Towards either side J rises to first order, by λ|v| times the slope on that side.
    A0 = network.problem.initial_state
    rows = features(A0, True, low).T * 0.5
    moves = np.zeros(network.weights.shape)
    moves[0, 0] = np.linalg.solve(rows, [1.0, 0.0])
    v = verdict.kinks.force[1, 0, 0]
    for side, slope in ((1, 0.6), (-1, 0.4 - low)):
        t = 1e-6 * np.linalg.norm(moves)
        assert network.changes(side * moves, [t])[0] / 1e-6 == pytest.approx(
            -DECAY * v * slope, rel=1e-3)


@pytest.mark.parametrize("low", [0.0, 0.3])
def test_a_concave_kink_is_a_way_down_to_first_order(low):
    network = backwards(**CONCAVE, low=low)
    verdict = network.test()
    assert verdict.verdict.startswith("concave kink")
    assert verdict.refuted
    assert not proved(verdict)
    lengths = np.array([1e-3, 1e-4, 1e-5, 1e-6])
    falls = network.changes(verdict.direction, lengths) / lengths
    assert np.all(falls < 0)
    assert falls[-1] == pytest.approx(falls[-2], rel=1e-2)  # of first order: the same at every t
    assert network.J(verdict.lowest) < network.J(network.weights)


def test_a_concave_kink_that_other_entries_hold_in_place_is_a_minimum():
    network = backwards(**IN_PLACE)
    verdict = network.test()
    kinks = verdict.kinks
    assert int(kinks.concave.sum()) == 1
    assert int(kinks.held.sum()) == 2
    assert proved(verdict)
    assert lower(network) > 0
    # All directions of the row's two controls, the only ones that move A_1.
    for angle in np.linspace(0, 2 * np.pi, 721):
        h = np.zeros(network.weights.shape)
        h[0, 0] = np.cos(angle), np.sin(angle)
        assert network.changes(h, [1e-5])[0] > 0


@pytest.mark.parametrize(("low", "slope"), [(0.0, 1.0), (0.3, 1.0), (0.3, 0.3)])
def test_a_slope_at_an_end_leaves_one_side_free(low, slope):
    made = dict(HELD, slope=[[slope, 1.0]])
    network = backwards(**made, low=low)
    verdict = network.test()
    assert int(verdict.kinks.edge.sum()) == 1
    assert proved(verdict)
    assert f"on the edge of [{low:g}, 1]" in verdict.verdict
    assert lower(network) > 0


def test_an_entry_that_is_read_without_a_force_is_not_decided():
    network = backwards(A=[[0.0, 0.7]], B=[[0.0, 0.5]], slope=[[0.4, 1.0]])
    assert network.test().verdict.startswith("not decided: 1 idle activations")


def test_a_sample_that_no_control_moves_decides_nothing():
    """Without bias a sample with A_0 = 0 stays 0: its kinks are neither held nor concave."""
    for target in (-1.0, 0.0, 1.0):
        network, eigenvalues = pitchfork(0.4)
        problem = network.problem
        wider = hs.TrainingProblem(
            [[1.0], [0.0]], [[problem.targets[0, 0]], [target]], effective_depth=LEAK,
            weight_decay=DECAY / 2, width=1, bias=False)  # the mean over two halves the loss
        verdict = second_order(wider, network.weights, network.steps)
        assert proved(verdict)
        assert not verdict.kinks.on_kink.any()
        assert verdict.min_eigenvalue == pytest.approx(0.5 * eigenvalues[0], rel=1e-9)


@pytest.mark.parametrize("target", [0.1, 0.5, 1.0, 2.0])
def test_a_sample_of_size_1e_18_holds_no_direction(target):
    network, _ = pitchfork(0.125)
    problem = network.problem
    wider = hs.TrainingProblem(
        [[1.0], [1e-18]], [[problem.targets[0, 0]], [target]], effective_depth=LEAK,
        weight_decay=DECAY / 2, width=1, bias=False)
    verdict = second_order(wider, network.weights, network.steps)
    assert verdict.verdict.startswith("saddle")
    J = [objective(wider, W, network.steps) for W in (network.weights, verdict.lowest)]
    assert J[1] < J[0] - 1e-3


# -- the Hessian -----------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["relu", "linear"])
@pytest.mark.parametrize("p", [0.4, 0.26, 0.24, 0.125])
def test_eigenvalues_and_verdicts_of_two_scalar_layers(activation, p):
    network, eigenvalues = pitchfork(p, activation)
    verdict = network.test()
    assert verdict.min_eigenvalue == pytest.approx(eigenvalues[0], rel=1e-9)
    opposite = np.array([1.0, -1.0]).reshape(2, 1, 1)
    change = network.changes(opposite, [1e-3])[0]
    assert change == pytest.approx(0.5 * eigenvalues[0] * 1e-6, rel=1e-3)
    assert proved(verdict) == (p > 0.25) == (change > 0)
    assert verdict.verdict.startswith("saddle" if p < 0.25 else "strict local minimum")
    if p < 0.25:
        assert network.J(verdict.lowest) < network.J(network.weights)
        for length, fall in verdict.descent:
            assert fall < 0
            assert length > 0


@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_a_flat_direction_is_not_decided(activation):
    """At p = a/2 the two layers begin to differ: an eigenvalue is 0 there."""
    network, eigenvalues = pitchfork(0.25, activation)
    assert abs(eigenvalues[0]) < 1e-15
    verdict = network.test()
    assert verdict.verdict.startswith("not decided: smallest eigenvalue")
    assert verdict.verdict.endswith("zero to rounding")
    assert not proved(verdict)
    assert not verdict.refuted


def test_what_is_not_stationary_or_too_large_is_not_decided():
    network, _ = pitchfork(0.4)
    moved = second_order(network.problem, network.weights + 0.01, network.steps)
    assert moved.verdict.startswith("not decided: not a stationary point")
    assert network.test(max_controls=1).verdict == "not decided: 2 controls, the dense test takes 1"
    for verdict in (moved, network.test(max_controls=1)):
        assert not proved(verdict)
        assert not verdict.refuted


# -- dead neurons ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("beta", "low"), [(0.3, 0.0), (0.8, 0.0), (1.2, 0.0), (0.8, 0.3)])
def test_the_coupling_of_a_dead_neuron_in_closed_form(beta, low):
    """Of a leaky ReLU it is the same: the other side couples α times as much."""
    network, kappa = switched_off(beta, low=low)
    verdict = network.test()
    assert verdict.coupling == pytest.approx(kappa, rel=1e-9)
    assert verdict.coupling_bound >= kappa * (1 - 1e-12)
    assert kappa < 1
    assert proved(verdict)
    h = np.zeros(network.weights.shape)
    h[0, 1, 0] = h[1, 0, 1] = np.sqrt(0.5)
    change = network.changes(h, [1e-4])[0]
    assert change == pytest.approx(DECAY * 0.5 / (2 * LEAK) * 1e-8 * (1 - kappa), rel=1e-3)
    h[0, 1, 0] *= -1  # the neuron goes to the negative side
    h[1, 0, 1] *= -1
    change = network.changes(h, [1e-4])[0]
    assert change == pytest.approx(DECAY * 0.5 / (2 * LEAK) * 1e-8 * (1 - low * kappa), rel=1e-3)
    assert lower(network) > 0


def test_a_dead_neuron_that_couples_above_the_weight_decay_is_switched_on():
    network = backwards(
        A=[[0.5, 1.0, 1.5], [0.0, 0.0, 0.0]], B=[[6.0, -8.0, 6.0], [0.0, 0.0, 0.0]],
        slope=[[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]], seen=[0])
    verdict = network.test()
    assert verdict.verdict.startswith("descent found")
    assert verdict.coupling == pytest.approx(2.0, rel=1e-6)
    lengths = np.array([1e-3, 1e-4, 1e-5])
    falls = network.changes(verdict.direction, lengths) / lengths**2
    # ½(‖y‖² + ‖c‖²) − κ‖y‖‖c‖ times the weight decay λρ/L̃, with ‖c‖ = κ‖y‖ in a unit step.
    kappa = verdict.coupling
    assert falls[1] == pytest.approx(
        DECAY * 0.5 / (2 * LEAK) * (1 - kappa**2) / (1 + kappa**2), rel=1e-3)
    off = verdict.direction.copy()
    off[:, 1] = off[:, :, 1] = 0.0
    assert np.linalg.norm(off) < 1e-6  # it is the dead neuron that lowers J
    assert network.J(verdict.lowest) < network.J(network.weights)


def test_without_a_proof_no_descent_was_found():
    network, _ = switched_off(0.8)
    verdict = network.test(prove=False)
    assert verdict.verdict.startswith("no descent found in")
    assert not proved(verdict)
    assert not verdict.refuted


def test_a_share_of_a_living_neuron_leaves_J_as_it_is_and_is_not_decided():
    problem = teacher(dims=(1, 1, 2), samples=4, width=5, effective_depth=2.0, weight_decay=1e-3,
                      seed=SHARED_SEED)
    solution = hs.solve(problem, hs.DirectSingleShooting(layers=4, start="path", seed=SHARED_SEED))
    verdict = second_order(problem, solution.weights, solution.steps)
    assert verdict.verdict.startswith("not decided: a dead neuron that takes a share")
    A = np.array(states(problem, solution.weights, solution.steps))
    size = np.abs(A).max(axis=(0, 2))
    dead = int(np.flatnonzero(size < 1e-9)[0])
    hidden = [i for i in range(2, problem.width) if size[i] > 1e-3]  # neither lifted nor read out
    W, living, angle = solution.weights.copy(), hidden[0], 0.3
    W[:, dead] = np.sin(angle) * W[:, living]
    W[:, living] *= np.cos(angle)
    W[:, :, dead] = np.sin(angle) * W[:, :, living]
    W[:, :, living] *= np.cos(angle)
    assert objective(problem, W, solution.steps) == pytest.approx(solution.objective, rel=1e-12)


# -- coupling --------------------------------------------------------------------------------------


def pieces(T, E, samples=20_000, seed=0, low=0.0):
    """Largest ‖Eσ(Tᵀy)‖ over random y and over the maxima of all pieces that lie on their piece."""
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((samples, len(T)))
    for signs in product((low, 1.0), repeat=T.shape[1]):
        own = np.linalg.svd(E * signs @ T.T)[2][0]
        y = np.concatenate([y, [own, -own]])
    y /= np.linalg.norm(y, axis=1)[:, None]
    a = y @ T
    return float(np.linalg.norm(np.maximum(a, low * a) @ E.T, axis=1).max())


@pytest.mark.parametrize(("seed", "low"), [
    *((seed, 0.0) for seed in range(12)), *((seed, 0.3) for seed in range(4))])
def test_no_coupling_exceeds_the_bound(seed, low):
    rng = np.random.default_rng(seed)
    r, k, m = (int(rng.integers(1, most)) for most in (5, 8, 4))
    T, E = rng.standard_normal((r, k)), rng.standard_normal((m, k))
    if seed % 3 == 1:
        T[:, rng.random(k) < 0.3] = 0.0
    if seed % 3 == 2:
        T = np.abs(T)
    largest = pieces(T, E, low=low)
    assert coupling.bound(T, E, enough=0.0, low=low) >= largest * (1 - 1e-9)
    found = coupling.search(T, E, low=low)
    assert found.coupling >= largest * (1 - 1e-5)  # maxima on ridges are met from beside them
    a = T.T @ found.y
    assert np.linalg.norm(E @ np.maximum(a, low * a)) == pytest.approx(found.coupling)
    assert np.linalg.norm(found.y) == pytest.approx(1.0) or found.coupling == 0.0


@pytest.mark.parametrize("seed", [13, 133])
def test_the_search_comes_close_to_the_bound_where_plain_steps_do_not(seed):
    """Steps to the gradient's own direction go down here, and end 2 to 3 per cent lower."""
    rng = np.random.default_rng(seed)
    r, k, m = (int(rng.integers(1, most)) for most in (5, 8, 4))
    T, E = rng.standard_normal((r, k)), rng.standard_normal((m, k))
    assert coupling.search(T, E).coupling >= 0.995 * coupling.bound(T, E, enough=0.0)


def test_many_entries_of_low_rank_are_compressed_without_loss():
    rng = np.random.default_rng(0)
    T = rng.standard_normal((40, 6)) @ rng.standard_normal((6, 90))
    T[:, 30:60], T[:, 80:] = T[:, :30], 0.0
    basis, inside = coupling._compressed(T)
    assert basis.shape == (40, 6)
    assert inside.shape == (6, 90)
    np.testing.assert_allclose(basis.T @ basis, np.eye(6), atol=1e-12)
    np.testing.assert_allclose(basis @ inside, T, atol=1e-11)


@pytest.mark.parametrize(("seed", "low"), [*((seed, 0.0) for seed in range(4)), (0, 0.3), (1, 0.1)])
def test_in_the_plane_search_and_bound_enclose_all_angles(seed, low):
    rng = np.random.default_rng(100 + seed)
    T, E = rng.standard_normal((2, 7)), rng.standard_normal((3, 7))
    angle = np.linspace(0, 2 * np.pi, 200_001)
    y = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    a = y @ T
    largest = np.linalg.norm(np.maximum(a, low * a) @ E.T, axis=1).max()
    assert coupling.search(T, E, low=low).coupling == pytest.approx(largest, rel=1e-8)
    assert largest * (1 - 1e-12) <= coupling.bound(T, E, enough=0.0, low=low) <= 1.05 * largest


# -- a stationary point that only the test of dead neurons refutes --------------------------------


def test_the_solver_leaves_a_dead_neuron_behind():
    problem = teacher(dims=(2, 2, 2), effective_depth=2.0, weight_decay=1e-2, seed=106)
    solution = hs.solve(problem, hs.DirectSingleShooting(layers=6, start="path", seed=106))
    J = solution.extra["escape_objectives"]
    assert len(J) > 1
    assert J[-1] < 0.999 * J[0]
    assert "of dead neurons" in solution.message
    assert np.all(np.diff(J) < 0)
    assert objective(problem, solution.weights, solution.steps) == pytest.approx(J[-1], rel=1e-12)
    assert not second_order(problem, solution.weights, solution.steps).refuted
