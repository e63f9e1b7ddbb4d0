"""A method of one's own, written as `hamshoot.solution.method` says, works with every verb."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import hamshoot as hs
from hamshoot.methods.common.starts import starting_weights, weights_of
from hamshoot.network.layer_steps import steps_of
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.solution.method import Method
from hamshoot.study.compare import CONTINUED, CONTROL, DESCENT


@dataclass(frozen=True)
class Asked:
    """A method that keeps what it was asked, and answers with the guess."""

    layers: int = 4
    steps: Any = "equidistant"
    asked: list[Any] = field(default_factory=list)

    def solve(self, problem, initial_guess=None, callback=None):
        """Answer with the guess, or with zero."""
        self.asked.append(initial_guess)
        steps = steps_of(self.steps, self.layers, problem.effective_depth)
        weights = np.zeros((self.layers, *problem.control_shape))
        if initial_guess is not None:
            weights = weights_of(initial_guess, problem, steps)
        if callback is not None:
            callback(hs.Record(1, 0.0, 0.0, 0.0))
        return solution_from_weights(problem, weights, steps, status=hs.Status.MAX_ITER,
                                     success=False, method="asked")


class Plain:
    """No dataclass, and its layers are attributes."""

    layers, steps = 4, "equidistant"

    def solve(self, problem, initial_guess=None, callback=None):
        """As `Asked`."""
        return Asked(self.layers, self.steps).solve(problem, initial_guess, callback)


class Bare:
    """A `solve` and nothing else: four layers, always."""

    def solve(self, problem, initial_guess=None, callback=None):
        """As `Asked`."""
        return Asked().solve(problem, initial_guess, callback)


@pytest.fixture
def problem():
    return hs.teacher_problem((3, 2, 3), 10, effective_depth=2.0, width=3, test_samples=0)


METHODS = [hs.DirectMultipleShooting, hs.DirectSingleShooting, hs.IndirectShooting]


@pytest.mark.parametrize("kind", [*METHODS, Asked, Plain, Bare])
def test_what_solves_is_a_method(kind):
    assert isinstance(kind(), Method)


@pytest.mark.parametrize("method", [Asked(), Plain()])
def test_solve_sets_its_layers(problem, method):
    records = []
    assert hs.solve(problem, method).layers == 4
    assert hs.solve(problem, method, layers=6, callback=records.append).layers == 6
    assert method.layers == 4
    assert len(records) == 1


def test_solve_hands_on_the_guess(problem):
    method, guess = Asked(), starting_weights(problem, np.full(4, 1 / 4), "path", 0)
    np.testing.assert_array_equal(hs.solve(problem, method, initial_guess=guess).weights, guess)
    assert method.asked == [guess]


def test_a_method_without_layers_is_taken_as_it_is(problem):
    assert hs.solve(problem, Bare()).layers == 4
    with pytest.raises(ValueError, match="layers: Bare has no such option"):
        hs.solve(problem, Bare(), layers=6)


def test_a_class_is_no_method(problem):
    for kind in (hs.DirectSingleShooting, Asked):
        with pytest.raises(ValueError, match="expected a name or a method object"):
            hs.solve(problem, kind)


@pytest.mark.parametrize("method", [Asked(), Plain()])
def test_polish_keeps_the_networks_layers_and_steps(problem, method):
    steps = np.array([0.1, 0.2, 0.3, 0.2, 0.1, 0.1])
    weights = starting_weights(problem, steps, "path", 0)
    network = solution_from_weights(problem, weights, steps, status=hs.Status.MAX_ITER,
                                    success=False, method="given").to_network()
    polished = network.polish(problem, method)
    np.testing.assert_array_equal(polished.weights, weights)
    np.testing.assert_array_equal(polished.steps, steps)
    with pytest.raises(ValueError, match="options layers and steps"):
        network.polish(problem, Bare())
    with pytest.raises(ValueError, match="expected a name or a method object"):
        network.polish(problem, Asked)


@pytest.mark.parametrize("method", [Asked(), Plain(), Bare()])
def test_compare_starts_it_where_descent_starts(problem, method):
    optimizer = hs.Adam(epochs=5, sgd_epochs=1, rates=(0.1,))
    comparison = hs.compare(problem, 4, method=method, optimizer=optimizer, start="identity",
                            seed=3, longer=False, same_seconds=False)
    assert [row.name for row in comparison.rows] == [CONTROL, DESCENT, CONTINUED]
    start = starting_weights(problem, np.full(4, 1 / 4), "identity", 3)
    np.testing.assert_array_equal(comparison.row(CONTROL).solution.weights, start)
    np.testing.assert_array_equal(comparison.row(CONTINUED).solution.weights,
                                  comparison.row(DESCENT).solution.weights)
    with pytest.raises(ValueError, match=r"starts: .* has no such option"):
        hs.compare(problem, 4, method=method, optimizer=optimizer, starts=2)


def test_compare_takes_indirect_shooting_as_an_object(problem):
    smooth = problem.replace(activation="linear")
    comparison = hs.compare(smooth, 6, method=hs.IndirectShooting(), longer=False,
                            optimizer=hs.Adam(epochs=5, sgd_epochs=1, rates=(0.1,)))
    assert comparison.row(CONTROL).solution.layers is None
    assert comparison.row(CONTROL).solution.success
