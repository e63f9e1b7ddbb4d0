"""What the direct methods share around the ε ladder."""

import pytest

import hamshoot as hs
from hamshoot.methods.common.options import picked
from hamshoot.methods.multiple_shooting.search import SearchOptions
from hamshoot.methods.search.ladder import epsilon_stages, starts_notes


def problem(activation, **options):
    return hs.teacher_problem(dims=(2, 1, 2), samples=3, width=2, effective_depth=2.0,
                              test_samples=0, activation=activation, **options)


@pytest.mark.parametrize(("activation", "options", "first", "last"), [
    ("relu", {}, 0.5, 1e-3), ("smooth_relu", {"epsilon": 0.1}, 0.5, 0.1),
    ("smooth_relu", {"epsilon": 0.9}, 0.9, 0.9), ("linear", {}, 0.0, 0.0),
])
def test_stages_end_at_the_last_epsilon_or_that_of_the_problem(activation, options, first, last):
    stages = epsilon_stages(problem(activation, **options), (0.5, 1e-3, 0.5))
    assert (stages[0], stages[-1]) == (first, last)
    assert list(stages) == sorted(stages, reverse=True)


def test_a_ladder_may_begin_elsewhere():
    assert epsilon_stages(problem("relu"), (0.5, 1e-3, 0.5), first=4e-3)[0] == 4e-3
    assert epsilon_stages(problem("relu"), (0.5, 1e-3, 0.5), first=0.0) == (1e-3,)


def test_several_starts_are_spoken_of():
    assert starts_notes([1.0]) == []
    assert starts_notes([2.0, 1.0]) == ["best of 2 starts, J from 1 to 2"]


def test_a_search_gets_the_options_it_has_fields_for():
    options = picked(SearchOptions, hs.DirectMultipleShooting(tol=1e-5, starts=3))
    assert (options.tol, options.starts, options.start) == (1e-5, 3, None)
    with pytest.raises(AttributeError):
        picked(SearchOptions, hs.Adam())
