"""The distance of two solutions: planted changes of neurons are found, and by enumeration exact."""

import itertools
from functools import cache

import numpy as np
import problems
import pytest

import hamshoot as hs
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.solution.symmetry import Group, best_for_weights


def posed(activation="relu", width=6, seed=0, **options):
    """Two inputs and two outputs, so that all neurons but the first two are free."""
    return problems.random_data(activation, sizes=(7, 2, 2), data_seed=seed, width=width,
                                effective_depth=2.0, weight_decay=0.02, **options)


def network(problem, seed=0, layers=5, scale=1.0):
    rng = np.random.default_rng(seed)
    weights = scale * rng.standard_normal((layers, *problem.control_shape))
    return solution_from_weights(problem, weights, np.full(layers, 1 / layers), method="given",
                                 status=hs.Status.MAX_ITER, success=False)


def changed(solution, T):
    """The same network with its neurons changed, everything computed anew."""
    w = len(T)
    W = T @ solution.weights
    W[:, :, :w] = W[:, :, :w] @ T.T
    return solution_from_weights(solution.problem, W, solution.steps, method="given",
                                 status=hs.Status.MAX_ITER, success=False)


def permuting(order):
    T = np.zeros((len(order), len(order)))
    T[np.arange(len(order)), order] = 1.0
    return T


@pytest.mark.parametrize("by", ["representations", "weights"])
@pytest.mark.parametrize("activation", ["relu", "smooth_relu"])
def test_a_planted_permutation_of_free_neurons_is_found(activation, by):
    one = network(posed(activation))
    order = [0, 1, 4, 2, 5, 3]
    other = changed(one, permuting(order))
    assert other.objective == pytest.approx(one.objective, rel=1e-12)
    found = hs.distance(one, other, by=by)
    assert found.permutation.tolist() == order
    assert found.free == 4
    assert max(found.representations, found.weights, found.momenta, found.outputs) < 1e-12
    assert float(found) < 1e-12
    back = hs.distance(other, one, by=by)
    assert back.permutation[found.permutation].tolist() == list(range(6))


def test_a_neuron_that_lift_and_readout_know_stays_where_it_is():
    one = network(posed())
    swapped = changed(one, permuting([1, 0, 2, 3, 4, 5]))
    found = hs.distance(one, swapped)
    assert found.permutation[:2].tolist() == [0, 1]
    assert found.representations > 1e-2
    narrow = network(posed(width=2))
    assert hs.distance(narrow, narrow).free == 0
    assert "tell all neurons apart" in repr(hs.distance(narrow, narrow))


def brute(group_size, fixed, cost):
    """The least cost over all permutations of the free neurons, and its permutation."""
    orders = ([*range(fixed), *(fixed + np.array(tail))]
              for tail in itertools.permutations(range(group_size - fixed)))
    return min(((cost(permuting(order)), [int(i) for i in order]) for order in orders),
               key=lambda pair: pair[0])


@pytest.mark.parametrize("seed", range(6))
def test_for_states_of_strangers_the_assignment_is_the_best_of_all_permutations(seed):
    problem = posed()
    one, other = network(problem, seed), network(problem, seed + 50)
    found = hs.distance(one, other)
    p = found.p
    lengths = np.full(len(p), 1 / (len(p) - 1))
    lengths[[0, -1]] /= 2

    def cost(T):
        return np.sum(lengths[:, None, None] * (T @ one.representations - other.representations)**2)

    least, order = brute(6, 2, cost)
    assert found.permutation.tolist() == order
    assert cost(found.change) == pytest.approx(least, rel=1e-12)


def test_for_weights_of_strangers_the_local_search_finds_the_best_of_all_permutations():
    """Of 24 permutations, for 20 pairs of networks: a local search need not, this one does here."""
    problem = posed()
    exact = 0
    for seed in range(20):
        one, other = network(problem, seed), network(problem, seed + 50)

        def cost(T, one=one, other=other):
            return np.sum((changed(one, T).weights - other.weights) ** 2)

        least, _ = brute(6, 2, cost)
        found = hs.distance(one, other, by="weights")
        assert cost(found.change) >= least - 1e-9
        exact += cost(found.change) == pytest.approx(least, rel=1e-9)
        by_states = hs.distance(one, other)
        assert found.weights <= by_states.weights + 1e-12
        assert by_states.representations <= found.representations + 1e-12
    assert exact == 20


def test_the_search_is_local_and_ends_where_no_exchange_helps():
    problem = posed(width=12)
    one, other = network(problem, 3).weights, network(problem, 4).weights
    group = Group(problem, problem, rotations=False)
    lengths = np.full(len(one), 1 / len(one))

    def agreement(T):
        turned = T @ one
        turned[:, :, :12] = turned[:, :, :12] @ T.T
        return np.sum(lengths[:, None, None] * turned * other)

    T = best_for_weights(group, one, other, lengths, group.start)
    assert agreement(T) > agreement(group.start)
    for i, j in itertools.combinations(range(2, 12), 2):
        swap = np.eye(12)
        swap[[i, j]] = swap[[j, i]]
        assert agreement(swap @ T) <= agreement(T) + 1e-9


# -- linear networks -------------------------------------------------------------------------------


def rotation(width, fixed, seed):
    T = np.eye(width)
    noise = np.random.default_rng(seed).standard_normal((width - fixed, width - fixed))
    T[fixed:, fixed:] = np.linalg.qr(noise)[0]
    return T


@pytest.mark.parametrize("by", ["representations", "weights"])
def test_of_linear_networks_a_planted_rotation_is_found(by):
    one = network(posed("linear"))
    T = rotation(6, 2, 1)
    found = hs.distance(one, changed(one, T), by=by)
    assert found.permutation is None
    assert found.free == 4
    np.testing.assert_allclose(found.change, T, atol=1e-6)
    assert max(found.representations, found.weights) < 1e-6
    assert "rotation of 4 dimensions" in repr(found)


def test_a_rotation_keeps_what_random_maps_fix():
    problem = posed("linear", lift="orthonormal", readout="orthonormal", seed=2)
    one, other = network(problem, 1), network(problem, 2)
    T = hs.distance(one, other).change
    np.testing.assert_allclose(T @ T.T, np.eye(6), atol=1e-12)
    np.testing.assert_allclose(T @ problem.lift, problem.lift, atol=1e-10)
    np.testing.assert_allclose(problem.readout @ T.T, problem.readout, atol=1e-10)


# -- two problems, two meshes ----------------------------------------------------------------------


def test_neurons_that_two_problems_number_otherwise_are_matched():
    problem = posed()
    order = [5, 2, 0, 1, 4, 3]
    T = permuting(order)
    one = network(problem)
    renamed = problem.replace(lift=T @ problem.lift, readout=problem.readout @ T.T)
    W = T @ one.weights
    W[:, :, :6] = W[:, :, :6] @ T.T
    other = solution_from_weights(renamed, W, one.steps, method="given",
                                  status=hs.Status.MAX_ITER, success=False)
    found = hs.distance(one, other)
    assert found.permutation.tolist() == order
    assert found.representations < 1e-12


@cache
def solved():
    problem = posed("smooth_relu", width=3, seed=3)
    path = hs.IndirectShooting(tol=1e-10, effort="quick", layers=30).solve(problem)
    assert path.success
    return path


def test_networks_of_more_layers_come_closer_to_the_geodesic():
    path, apart = solved(), []
    for layers in (10, 20, 40):
        near = hs.DirectSingleShooting(layers=layers, effort="quick").solve(path.problem, path)
        apart.append(float(hs.distance(near, path)))
    assert apart[0] > apart[1] > apart[2] > 0
    assert np.log2(apart[1] / apart[2]) == pytest.approx(1, abs=0.35)


def test_a_solution_is_no_distance_from_itself_and_distance_is_symmetric():
    path = solved()
    same = hs.distance(path, path)
    assert max(same.representations, same.momenta, same.weights, same.outputs) < 1e-12
    other = path.replace(representations=path.representations * 1.1, momenta=path.momenta * 1.1)
    assert hs.distance(path, other).outputs == pytest.approx(0.1 / 1.05, rel=1e-6)
    assert hs.distance(path, other).outputs == pytest.approx(hs.distance(other, path).outputs)


def test_what_cannot_be_compared_is_refused_in_a_sentence():
    one = network(posed())
    with pytest.raises(TypeError, match="b: expected a Solution"):
        hs.distance(one, one.to_network())
    with pytest.raises(ValueError, match="the same width, got 6 and 5"):
        hs.distance(one, network(posed(width=5)))
    with pytest.raises(ValueError, match="by: expected one of representations, weights"):
        hs.distance(one, one, by="momenta")
    other = network(posed(lift="orthonormal"))
    with pytest.raises(ValueError, match="the same up to a permutation of neurons, got others"):
        hs.distance(one, other)
