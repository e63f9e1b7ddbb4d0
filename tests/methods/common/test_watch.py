"""What is kept of the iterations of a long solve."""

import numpy as np
import problems
import pytest

import hamshoot as hs
from hamshoot.methods.common.watch import HISTORY, Watch, thinned


def watched(objectives):
    watch = Watch()
    for value in objectives:
        watch.record(value)
    return watch.history


def test_a_history_that_is_no_longer_than_a_thousand_is_kept_whole():
    history = watched(np.random.default_rng(0).random(HISTORY))
    assert thinned(history) == tuple(history)
    assert thinned([]) == ()


@pytest.mark.parametrize("objectives", [
    np.random.default_rng(1).random(30_000),  # few that are lower than all before
    np.linspace(1.0, 0.0, 30_000),  # all of them
    np.where(np.arange(30_000) % 7, np.nan, 1 / (1.0 + np.arange(30_000))),
    np.ones(30_000),
    np.full(HISTORY + 1, np.inf),
])
def test_of_a_longer_one_first_last_and_lowest_are_kept_and_some_of_the_rest(objectives):
    history = watched(objectives)
    kept = thinned(history)
    assert 0.99 * HISTORY <= len(kept) <= HISTORY
    numbers = [record.iteration for record in kept]
    assert numbers == sorted(set(numbers))
    assert all(history[number - 1] is record for number, record in zip(numbers, kept, strict=True))
    assert numbers[0] == 1
    assert numbers[-50:] == list(range(len(history) - 49, len(history) + 1))
    if np.isfinite(objectives).any():
        assert np.nanmin(objectives) == np.nanmin([record.objective for record in kept])
    # No decade of iterations is without records.
    counts = np.histogram(np.log10(numbers), bins=np.arange(0, np.log10(len(history))))[0]
    assert (counts >= 5).all()


def test_every_new_low_is_kept_while_they_are_few():
    values = np.ones(20_000)
    lows = np.sort(np.random.default_rng(2).choice(np.arange(1, 20_000), 300, replace=False))
    values[lows] = np.linspace(0.9, 0.1, 300)
    numbers = {record.iteration for record in thinned(watched(values))}
    assert set(lows + 1) <= numbers


@pytest.mark.parametrize(("activation", "method"), [
    ("smooth_relu", hs.IndirectShooting(segments=20, effort="quick")),
    ("relu", hs.DirectSingleShooting(layers=5, effort="quick")),
    ("linear", hs.DirectMultipleShooting(layers=4, effort="quick")),
])
def test_a_solution_of_many_iterations_keeps_a_thousand_and_its_file_stays_small(
        activation, method, tmp_path):
    problem = problems.teacher(activation, samples=6, width=3, effective_depth=2.0, seed=0)
    solution = hs.solve(problem, method)
    assert solution.nit > HISTORY
    assert len(solution.history) <= HISTORY
    assert solution.history[0].iteration == 1
    assert solution.history[-1].iteration == solution.nit
    solution.save(tmp_path / "s.npz")
    arrays = sum(getattr(solution, name).nbytes for name in ("representations", "momenta",
                                                             "weights", "p"))
    assert (tmp_path / "s.npz").stat().st_size < 2 * arrays + 800 * HISTORY
