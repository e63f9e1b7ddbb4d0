"""What a geodesic begins with, what it may end as, and what is left when it is stopped."""

import dataclasses
import logging
import re
from functools import cache

import numpy as np
import problems
import pytest

import hamshoot as hs
from hamshoot.methods.common.options import picked
from hamshoot.methods.common.watch import Best, Watch
from hamshoot.methods.indirect import search
from hamshoot.methods.indirect.continuation import extrapolated, read_guess, states_at
from hamshoot.methods.indirect.euler_networks import EulerNetworks
from hamshoot.methods.indirect.first_network import (
    FirstNetworkOptions,
    find_networks,
    search_layers,
)
from hamshoot.network.follow_path import equidistant_steps
from hamshoot.theory.layers import objective_of, trivial_objective


def narrow(effective_depth, **settings):
    """Eight samples through a bottleneck of two, where the identity start ends in other basins."""
    return hs.teacher_problem(dims=(4, 2, 4), samples=8, width=4, effective_depth=effective_depth,
                              weight_decay=1e-3, activation="smooth_relu", **settings)


@cache
def solved(effective_depth=3.0):
    return hs.IndirectShooting(effort="quick").solve(narrow(effective_depth))


# -- the search ----------------------------------------------------------------------------------


def test_a_geodesic_begins_with_the_search_of_all_methods():
    found = solved()
    assert found.success
    assert len(found.extra["start_objectives"]) >= 2
    single = hs.IndirectShooting(start="identity").solve(narrow(3.0))
    assert "start_objectives" not in single.extra
    assert found.objective <= single.objective * (1 + 1e-9)


def test_the_answer_does_not_depend_on_the_workers():
    one, two = (hs.IndirectShooting(effort="quick", workers=n).solve(problems.teacher(
        activation="relu", samples=6, weight_decay=0.03)) for n in (1, 2))
    np.testing.assert_array_equal(one.representations, two.representations)


def test_a_plain_relu_is_searched_for_as_it_stands_and_at_the_top_of_its_ladder():
    problem = problems.teacher(activation="relu", samples=6, weight_decay=0.03)
    networks = EulerNetworks(problem, Watch())
    top = problem.replace(activation="smooth_relu", epsilon=0.1)
    found = list(find_networks(FirstNetworkOptions(seed=0, effort="quick", workers=1),
                               networks.own(), top, search_layers(problem), Watch(), Best()))
    assert [one.search.problem.activation for one in found] == ["relu", "smooth_relu"]
    steps = equidistant_steps(search_layers(problem))
    for one in found:
        assert one.objective == pytest.approx(objective_of(problem, one.carried, steps), rel=1e-12)
    # Of a minimum at the top of the ladder the network itself is not one: it is carried on.
    assert found[1].objective < objective_of(problem, found[1].weights, steps)


def run_of(problem, **options):
    method = hs.IndirectShooting(effort="quick", workers=1, **options)
    return search.GeodesicSearch(picked(search.SearchOptions, method),
                                 picked(search.ShootingOptions, method), problem, Watch())


def stages_of(problem):
    run = run_of(problem)
    return [stage.epsilon for stage in run.first.stages(run._target())]


def test_a_network_is_handed_over_near_the_end_of_the_ladder_half_way_and_at_its_top():
    relu = problems.teacher(activation="relu")
    method = hs.IndirectShooting()
    near, first = 4 * method.epsilon_last, method.epsilon_first
    assert stages_of(relu) == [near, pytest.approx((near * first) ** 0.5), first]
    smooth = relu.replace(activation="smooth_relu", epsilon=0.01)
    assert stages_of(smooth) == [0.01, method.epsilon_first]
    assert stages_of(smooth.replace(epsilon=0.2)) == [0.2]
    assert stages_of(problems.teacher(activation="linear")) == [0.0]


def test_two_networks_point_to_their_geodesic_at_second_order():
    """Minima of 60 layers and twice and four times as many, carried on from each other."""
    run = run_of(problems.teacher(activation="smooth_relu", samples=6, weight_decay=0.03))
    run.solve(None)
    geodesic = run.solver.path
    flow = run.solver.shooting(geodesic.stage, accurate=True).flow
    weights, before, far = run.ways.weights(geodesic, 60), None, []
    for _ in range(3):
        path, least, _ = run.networks.descended(geodesic.stage, weights)
        exact = states_at(flow, geodesic.t, geodesic.y, path.t)
        far.append([np.abs(one.y - exact).max() for one in (path, extrapolated(before, path))])
        weights, before = np.repeat(least.weights, 2, axis=0), path
    (coarse, same), (fine, first), (finest, second) = far
    assert same == coarse  # there is nothing to extrapolate with
    assert 1.8 < coarse / fine < 2.2
    assert 1.8 < fine / finest < 2.2
    assert first < fine / 5
    assert first / second > 2.8


def test_a_ladder_to_a_plain_relu_may_end_early_and_says_so():
    problem = problems.teacher(activation="relu", samples=6, weight_decay=0.03)
    run = run_of(problem)
    run.solve(None)
    end, solved = run.solver.path, list(run.solver.solved)
    run.solver.options = dataclasses.replace(run.solver.options, max_iter=0)  # no step is taken
    for share, near in ((0.1, True), (0.01, False)):
        run.solver.path, run.solver.converged = end, True
        run.solver.solved[:] = solved
        thinner = end.stage._replace(epsilon=share * end.stage.epsilon)
        assert not run.ways.reach(thinner)
        assert run.ways.come_near(thinner) is near
        assert run.solver.path is end
        assert run.solver.converged is near
        assert run.extra.get("ladder_ended") == (end.stage.epsilon if near else None)


@cache
def two_basins():
    """The identity start ends in a basin above that of the search."""
    searched, single = run_of(narrow(3.0)), run_of(narrow(3.0), start="identity")
    for run in (searched, single):
        run.solve(None)
    return searched, single


def test_a_geodesic_of_another_basin_than_the_networks_is_noticed():
    searched, single = two_basins()
    own, other = searched.kept[-1], single.kept[-1]
    assert other.objective > 1.01 * own.objective
    network = searched.first.network
    assert not searched.basins.lost(own.path, network)
    assert not single.basins.lost(other.path, None)  # nothing was searched for
    single.basins.lowest.clear()
    assert single.basins.lower(other.path) is None
    assert single.basins.lost(other.path, network)
    known = single.basins.lower(other.path)
    layers = 2 * len(network.weights)
    assert known["layers"] == layers
    assert known["objective"] < known["built"] / 1.001
    steps = equidistant_steps(layers)
    finer = np.repeat(network.carried, 2, axis=0)
    assert known["objective"] <= objective_of(narrow(3.0), finer, steps)
    assert single.basins.lower(own.path) is None  # it is in that basin itself


def test_a_geodesic_above_a_network_that_is_known_says_so():
    """The geodesic of another basin as a guess, to a search that knows of a lower network."""
    searched, single = two_basins()
    found = single.solution(hs.Status.CONVERGED, "")
    assert single.basins.lost(single.kept[-1].path, searched.first.network)
    run = run_of(narrow(3.0))
    run.basins.lowest = single.basins.lowest
    again = run.solution(*run.solve(read_guess(found, narrow(3.0))))
    assert again.objective == pytest.approx(found.objective, rel=1e-8)
    known = again.extra["lower_network"]
    assert f"A network of {known['layers']} layers is known" in again.message
    assert f"{known['objective']:.8g}" in again.message


# -- how accurately it is solved -----------------------------------------------------------------


def test_a_geodesic_on_which_h_drifts_is_solved_more_accurately():
    """Its nodes are moved a little; where no step of Newton's is allowed they stay so."""
    run = run_of(problems.teacher(activation="linear"), start="identity")
    run.solve(None)
    solver, path, solved = run.solver, run.solver.path, list(run.solver.solved)
    assert solver.drift(path) < 50 * solver.options.tol
    assert not solver.sharpen()
    assert solver.path is path
    rng = np.random.default_rng(0)
    off = path._replace(y=path.y * (1 + 1e-7 * rng.standard_normal(path.y.shape)))
    solver.path = off
    drift = solver.drift(off)
    assert drift > 50 * solver.options.tol
    allowed = solver.options
    solver.options = dataclasses.replace(allowed, max_iter=0)
    assert not solver.sharpen()
    assert solver.path is off
    assert solver.solved == solved
    solver.options = allowed
    assert solver.sharpen()
    assert solver.drift(solver.path) < min(0.01 * drift, solver.options.tol)
    assert len(solver.solved) == len(solved)
    assert solver.options is allowed
    np.testing.assert_allclose(solver.path.y, path.y, rtol=0, atol=1e-8 * np.abs(path.y).max())


@pytest.mark.parametrize(("options", "word"), [
    ({"effort": "much"}, "effort"), ({"workers": 0}, "workers"),
])
def test_bad_options_of_the_search_are_named(options, word):
    with pytest.raises(ValueError, match=word):
        hs.IndirectShooting(**options)


# -- nothing above the trivial objective ---------------------------------------------------------


def heavy():
    """λ so large that a network costs more than it fits."""
    return problems.teacher(activation="smooth_relu", samples=8, effective_depth=6.0,
                            weight_decay=6.0)


def test_a_collapse_says_how_it_was_checked():
    problem = heavy()
    found = hs.IndirectShooting(effort="quick").solve(problem)
    assert found.status is hs.Status.COLLAPSED
    assert found.objective <= trivial_objective(problem) * (1 + 1e-9)
    assert "a hundredth of the weight decay" in found.message


def test_a_geodesic_above_the_trivial_objective_is_no_success_from_a_guess():
    """The geodesic of a small λ continued to a large one stays where the path costs too much."""
    problem = problems.teacher(activation="linear", samples=6, seed=1)
    found = hs.IndirectShooting(effort="quick", start="path").solve(problem)
    for decay in np.geomspace(problem.weight_decay, 20, 40)[1:]:
        larger = problem.replace(weight_decay=decay)
        found = hs.IndirectShooting().solve(larger, initial_guess=found)
        above = found.objective > trivial_objective(larger) * (1 + 1e-12)
        assert above != found.success, found.message
        if above:
            break
    assert found.status is hs.Status.ABOVE_TRIVIAL, found.message


def test_an_answer_above_the_trivial_objective_is_named(monkeypatch):
    """Whatever is found counts as above when the trivial objective is said to be 0."""
    guess = solved()
    monkeypatch.setattr(search.discrete, "trivial_objective", lambda problem: 0.0)
    found = hs.IndirectShooting().solve(guess.problem, initial_guess=guess)
    assert found.status is hs.Status.ABOVE_TRIVIAL
    assert not found.success


# -- saddles -------------------------------------------------------------------------------------


def test_a_saddle_on_the_way_is_left_and_the_message_says_so():
    """Continued from L̃ = 1 the branch of minima ends; its continuation is a saddle."""
    found, left = hs.IndirectShooting(effort="quick").solve(narrow(1.0)), 0
    for depth in np.arange(1.5, 5.01, 0.5):
        found = hs.IndirectShooting().solve(narrow(depth), initial_guess=found)
        assert found.success
        assert found.extra["definite"]
        left += "no minimum" in found.message
    assert left
    assert found.objective < 0.01649  # of the saddle: 0.016500
    assert hs.certify(found).holds


def test_a_saddle_that_cannot_be_left_says_so_in_status_and_message(monkeypatch):
    monkeypatch.setattr(search.Saddles, "below", lambda self, path: None)
    found = hs.IndirectShooting(effort="quick").solve(narrow(1.0))
    for depth in np.arange(1.5, 5.01, 0.5):
        found = hs.IndirectShooting().solve(narrow(depth), initial_guess=found)
        if found.status is hs.Status.SADDLE:
            break
    assert found.status is hs.Status.SADDLE
    assert not found.success
    assert not found.extra["definite"]
    assert "saddle of the path" in found.message
    assert "saddle" in repr(found)


# -- what a stopped one is -----------------------------------------------------------------------


def stop_at(iteration):
    return lambda record: record.iteration >= iteration


@pytest.mark.parametrize("iteration", [20, 300, 1200])
def test_a_stopped_geodesic_is_the_best_network_seen_and_can_be_continued(iteration):
    problem = narrow(3.0)
    method = hs.IndirectShooting(effort="quick", workers=1)
    stopped = method.solve(problem, callback=stop_at(iteration))
    assert stopped.status is hs.Status.INTERRUPTED
    assert not stopped.success
    assert stopped.objective < 2 * trivial_objective(problem)
    assert stopped.to_network().weights.shape == stopped.weights.shape
    further = hs.IndirectShooting().solve(problem, initial_guess=stopped)
    assert further.success
    assert further.objective < 1.2 * solved().objective


def test_out_of_time_the_answer_is_the_best_network_seen():
    hs.IndirectShooting(time_limit=0.2).solve(narrow(2.5))  # compiles, on the first use of all
    stopped = hs.IndirectShooting(time_limit=0.2).solve(narrow(3.0))
    assert stopped.status is hs.Status.TIME_LIMIT
    assert stopped.history
    # At ε = 0.5, where the search begins, J is another; by far it is not.
    assert stopped.objective < 2 * min(r.objective for r in stopped.history) + 1


def test_the_message_of_a_failure_is_a_whole_sentence():
    guess = tuple(np.random.default_rng(0).standard_normal((2, 61, 4, 8)))
    found = hs.IndirectShooting(max_iter=3).solve(narrow(3.0), initial_guess=guess)
    assert re.search(r"Newton's method failed \(from the guess, [^)]*\): .+\.", found.message)


# -- what is said --------------------------------------------------------------------------------


def test_the_residuals_that_were_solved_are_told():
    found = solved()
    defect, boundary = found.residuals["defect"], found.residuals["boundary_residual"]
    assert f"defect {defect:.1e}, boundary {boundary:.1e}" in found.message
    assert f"defect {defect:.2e}" in repr(found)
    assert "stationarity" not in repr(found)
    assert found.summary()["defect"] == defect


def test_nothing_is_silent(caplog):
    stages = []
    with caplog.at_level(logging.INFO, logger="hamshoot"):
        hs.IndirectShooting(effort="quick").solve(narrow(2.0),
                                                  callback=lambda r: stages.append(r.stage))
    assert any(r.getMessage().startswith("geodesic: J") for r in caplog.records)
    assert any("layers" in stage for stage in stages)
