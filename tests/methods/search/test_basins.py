"""The shared search: what it finds, that workers and clocks do not matter, and idle networks."""

import logging
import threading
from dataclasses import replace

import numpy as np
import pytest
from problems import one_neuron, teacher

import hamshoot as hs
from hamshoot.methods.common.options import picked
from hamshoot.methods.common.watch import Best, Stop, Watch
from hamshoot.methods.search.basins import (
    AGREED,
    EFFORTS,
    WIDE,
    BasinOptions,
    BasinSearch,
    Settling,
    pairs_agreed,
)
from hamshoot.methods.search.side_by_side import side_by_side
from hamshoot.network.follow_path import equidistant_steps
from hamshoot.theory import layers as discrete


def search_of(problem, layers=8, callback=None, **options):
    method = hs.DirectSingleShooting(layers=layers, **options)
    best = Best()
    search = BasinSearch(picked(BasinOptions, method), problem, equidistant_steps(layers),
                         Watch(callback, method.time_limit), best)
    return search, best


def objective_of(problem, weights):
    steps = equidistant_steps(len(weights))
    end = discrete.roll_out(problem, weights, steps)[-1]
    return discrete.objective(problem, end, weights, steps)[0]


def test_it_ends_early_where_new_starts_agree_and_only_then():
    """A linear network has one minimum; of the teacher's, starts find several."""
    ended = {}
    for activation in ("linear", "relu"):
        searches = [search_of(teacher(activation=activation), workers=1)[0] for _ in range(2)]
        searches[1].options = replace(searches[1].options, settling=Settling(1))
        whole, early = (search.run().objective for search in searches)
        ended[activation] = searches[1].spent < searches[1].budget
        assert early >= whole * (1 - 1e-12)
        if ended[activation]:
            assert early == pytest.approx(whole, rel=1e-4)
    assert ended["linear"]


def settled_search(problem, settling, layers=8):
    search, _ = search_of(problem, layers, workers=1, effort="quick")
    search.options = replace(search.options, settling=settling)
    return search


def test_a_share_of_the_budget_is_spent_before_starts_that_agree_end_it():
    early, later = (settled_search(teacher(activation="linear"), Settling(1, least=least))
                    for least in (0.0, 0.5))
    for search in (early, later):
        search.run()
    assert early.spent < 0.5 * early.budget <= later.spent < later.budget


def test_where_no_pair_of_starts_agrees_it_goes_on_beyond_its_budget(monkeypatch):
    """Two starts of a linear network agree; none does where ends must differ by less than 0."""
    problem = teacher(activation="linear")
    whole, longer, none = (settled_search(problem, Settling(1, most=most))
                           for most in (1.0, 1.5, 1.5))
    found = [search.run().objective for search in (whole, longer)]
    assert found[0] == found[1]
    assert longer.spent == whole.spent < whole.budget
    monkeypatch.setattr("hamshoot.methods.search.basins.AGREED", -1.0)
    assert none.run().objective <= found[0] * (1 + 1e-12)
    assert 1.5 * none.budget <= none.spent < 2 * none.budget


def test_it_does_not_go_on_beyond_its_budget_where_time_is_short():
    search = settled_search(teacher(activation="linear"), Settling(1, most=4.0))
    for spent, agreed, short, goes_on in ((0.9, 0, True, True), (1.1, 0, True, False),
                                          (1.1, 0, False, True), (1.1, 1, False, False),
                                          (4.1, 0, False, False)):
        search.spent = spent * search.budget
        search.watch.time_limit = 1e-9 if short else None
        assert search._goes_on(agreed) is goes_on


def test_pairs_that_agree_count_anew_from_a_lower_basin():
    assert pairs_agreed(1.0, np.nan, 0) == 0  # the first has none to agree with
    assert pairs_agreed(1.0 + 0.5 * AGREED, 1.0, 1) == 2
    assert pairs_agreed(1.0 + 2 * AGREED, 1.0, 1) == 1
    assert pairs_agreed(1.0 - 2 * AGREED, 1.0, 1) == 0


def test_wide_starts_reach_basins_behind_a_turn_where_others_never_do():
    """At L̃ = 0.5 the others begin with controls too small to turn two neurons around."""
    problem = hs.teacher_problem(dims=(2, 2, 2), samples=12, width=2, effective_depth=0.5,
                                 weight_decay=2.5e-3, activation="smooth_relu", epsilon=0.3, seed=3)
    search = settled_search(problem, Settling(wide=2), layers=12)
    tasks = {kind: [search._start_task(start, seed, "", noise) for seed in range(16)]
             for kind, start, noise in (("path", "path", None), ("identity", "identity", None),
                                        ("wide", "identity", WIDE / 0.5))}
    least = {kind: min(end.objective for end in search._walks(walks))
             for kind, walks in tasks.items()}
    assert least["wide"] < 0.95 * min(least["path"], least["identity"])


def test_a_gain_that_is_too_small_counts_as_none():
    """Where no gain is large enough new starts come whenever patience is spent; else later."""
    problem, patience = teacher(activation="smooth_relu", samples=6), EFFORTS["quick"].patience
    fine, coarse = (settled_search(problem, Settling(gain=gain)) for gain in (1e-12, 0.99))
    for search in (fine, coarse):
        search.run()
    anew = [(len(search.start_objectives) - 2) // 2 for search in (fine, coarse)]
    assert anew[1] == (len(coarse.rounds) - 1) // patience > 0
    assert anew[0] < (len(fine.rounds) - 1) // patience


def test_wide_starts_join_each_new_pair():
    pairs, wider = (settled_search(teacher(activation="linear"), Settling(1, wide=wide))
                    for wide in (0, 2))
    for search in (pairs, wider):
        search.run()
    assert len(pairs.start_objectives) == 2 + 2
    assert len(wider.start_objectives) == 2 + 4


def test_the_tolerance_of_the_finisher_does_not_choose_the_basin():
    """Walks that ended at the tolerance asked for would end elsewhere with another one."""
    loose, tight = (search_of(teacher(), workers=1, tol=tol)[0] for tol in (1e-2, 1e-9))
    np.testing.assert_array_equal(loose.run().weights, tight.run().weights)
    assert loose.rounds == tight.rounds


def test_what_it_returns_is_the_best_it_saw_and_its_objective_is_right():
    problem = teacher()
    search, best = search_of(problem)
    basin = search.run()
    assert basin.objective == pytest.approx(objective_of(problem, basin.weights), rel=1e-12)
    assert basin.objective == min(search.start_objectives + search.reheat_objectives)
    assert best.objective <= basin.objective
    assert not basin.collapsed
    assert len(search.start_objectives) % 2 == 0  # a path fit and an identity each time
    assert len(search.reheat_objectives) == 4 * len(search.rounds) > 0
    assert np.all(np.diff(search.rounds) <= 0)
    assert search.spent >= search.budget


def test_where_reheats_gain_nothing_the_search_begins_anew():
    """A network of one neuron has one minimum: every round is idle, starts follow starts."""
    search, _ = search_of(one_neuron(1.7, "relu"), layers=3)
    search.run()
    assert len(search.start_objectives) > 2
    assert np.ptp(search.rounds) < 1e-3 * search.rounds[0]


def test_the_search_lowers_what_single_starts_find():
    """Over five teachers: never above the best of its starts, and below it by a percent in some."""
    gains = []
    for seed in range(5):
        search, _ = search_of(teacher(dims=(4, 2, 4), samples=12, width=4, seed=seed))
        gains.append(1 - search.run().objective / min(search.start_objectives))
    assert min(gains) >= 0
    assert max(gains) > 0.01


@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_workers_change_nothing_but_the_time(activation):
    problem, records = teacher(activation), {}
    found = []
    for workers in (1, 2, 5):
        search, _ = search_of(problem, workers=workers, seed=3)
        found.append(search.run())
        records[workers] = [(r.objective, r.stationarity, r.stage) for r in search.watch.history]
    for other in found[1:]:
        np.testing.assert_array_equal(other.weights, found[0].weights)
    assert records[1] == records[2] == records[5]
    solutions = [hs.solve(problem, layers=8, workers=workers) for workers in (1, 2)]
    np.testing.assert_array_equal(solutions[0].weights, solutions[1].weights)
    assert solutions[0].nit == solutions[1].nit


def test_efforts_search_longer(monkeypatch):
    monkeypatch.setitem(EFFORTS, "default", replace(EFFORTS["default"], seconds=0.8))
    problem = teacher(dims=(4, 2, 4), samples=12, width=4)
    spent = []
    for effort in ("quick", "default"):
        search, _ = search_of(problem, effort=effort)
        search.run()
        spent.append((search.spent, len(search.rounds)))
    assert spent[0] < spent[1]


def test_a_named_start_is_a_single_local_solve():
    search, _ = search_of(teacher(), start="identity", seed=2)
    search.run()
    assert len(search.start_objectives) == 1
    assert search.reheat_objectives == []
    assert search.notes() == []


@pytest.mark.parametrize("workers", [1, 3])
def test_an_interrupted_search_leaves_its_best_iterate(workers):
    def callback(record):
        return record.iteration == 300

    problem, threads = teacher(), threading.active_count()
    search, best = search_of(problem, callback=callback, workers=workers)
    with pytest.raises(Stop):
        search.run()
    assert best.objective == pytest.approx(objective_of(problem, best.weights), rel=1e-12)
    assert threading.active_count() == threads


@pytest.mark.parametrize("workers", [1, 2])
def test_a_time_limit_ends_it(workers):
    problem = teacher(dims=(8, 3, 8), samples=60, width=8)
    method = hs.DirectSingleShooting(layers=20, time_limit=0.4, workers=workers,
                                     effort="thorough")
    solution = method.solve(problem)
    assert solution.status is hs.Status.TIME_LIMIT


def test_an_error_in_one_thread_comes_through():
    def task(number, tape):
        if number == 1:
            raise RuntimeError("mine")
        for _ in range(10):
            tape.record(1.0)
        return number

    watch = Watch()
    with pytest.raises(RuntimeError, match="mine"):
        side_by_side(task, 3, watch, 2)
    assert watch.iterations == 10  # the first was heard of before the second failed


def test_what_each_part_gained_is_logged(caplog):
    with caplog.at_level(logging.INFO, logger="hamshoot"):
        search_of(teacher())[0].run()
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith("search: 2 starts, J ")
    assert any("reheats, round 1: J" in line for line in lines)


# -- idle networks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["single_shooting", "multiple_shooting"])
def test_where_collapse_is_best_it_is_said_and_how_it_was_checked(method):
    problem = teacher(samples=6).replace(weight_decay=50.0)
    solution = hs.solve(problem, method, layers=6)
    assert solution.status is hs.Status.COLLAPSED
    assert not solution.success
    assert "carried down from a hundredth of the weight decay" in solution.message
    assert "second order: " in solution.message
    assert "minimum" in solution.extra["second_order"]


@pytest.mark.parametrize("method", ["single_shooting", "multiple_shooting"])
@pytest.mark.parametrize("weight_decay", [0.2, 0.5, 1.0, 2.0, 5.0])
def test_no_success_lies_above_the_trivial_objective(method, weight_decay):
    problem = teacher(samples=6, seed=1).replace(weight_decay=weight_decay)
    solution = hs.solve(problem, method, layers=6)
    trivial = discrete.trivial_objective(problem, equidistant_steps(6))
    assert solution.objective <= trivial * (1 + 1e-12)
    assert trivial == pytest.approx(objective_of(problem, np.zeros_like(solution.weights)))


@pytest.mark.parametrize("method", ["single_shooting", "multiple_shooting"])
def test_a_local_minimum_above_the_trivial_network_is_no_success(method):
    """Continued in λ the network survives beyond the point where the idle one is lower."""
    problem = teacher(samples=6, seed=1)
    solution = hs.solve(problem, layers=6)
    seen = []
    for decay in np.geomspace(problem.weight_decay, 20.0, 60):
        solution = hs.solve(problem.replace(weight_decay=decay), method, layers=6,
                            initial_guess=solution)
        trivial = discrete.trivial_objective(solution.problem, equidistant_steps(6))
        seen.append(solution.status)
        if solution.objective > trivial * (1 + 1e-12):
            assert solution.status is hs.Status.ABOVE_TRIVIAL, solution.message
            assert not solution.success
            assert "has a lower objective" in solution.message
        else:
            assert solution.status is not hs.Status.ABOVE_TRIVIAL
    assert hs.Status.ABOVE_TRIVIAL in seen


def test_what_was_not_tried_is_not_told():
    """Only a search whose starts all collapse carries one down from a smaller weight decay."""
    problem = teacher(samples=6)
    idle, _ = search_of(problem.replace(weight_decay=50.0), layers=6)
    assert idle.run().collapsed
    assert "hundredth of the weight decay" in idle.checked()
    found, _ = search_of(problem, layers=6)
    assert not found.run().collapsed
    assert found.checked() == ""
