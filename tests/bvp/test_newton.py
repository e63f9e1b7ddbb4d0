"""One iteration for exact linearisations and for models: what it keeps, cuts, mixes and says."""

import gc
import weakref
from itertools import pairwise

import numpy as np
import pytest
from reference_problems import linear_resnet, nonlinear_layer, one_sample

from hamshoot.bvp.field_flow import RightHandSideFlow
from hamshoot.bvp.linear_algebra import ExactSystems
from hamshoot.bvp.mesh import End, Mesh
from hamshoot.bvp.newton import Newton
from hamshoot.bvp.records import BVPStatus
from hamshoot.bvp.rules import Chord, ErrorOriented
from hamshoot.bvp.solve import solve_two_point
from hamshoot.bvp.staircase import StaircaseFactor

TOL = 1e-9


class Model:
    """Φ off by a share that falls with the cube of the segments' lengths, as a step's would."""

    growth = rcond = np.nan

    def __init__(self, problem, mesh, error):
        self.problem, self.mesh, self.error, self.made = problem, mesh, error, []

    def linearise(self, point, scale):
        point = self.mesh.completed(point)
        _, phi = self.problem.flow(point.t[:-1], point.t[1:], point.y[:-1], True)
        length = np.diff(point.t) / np.ptp(point.t)
        noise = np.random.default_rng(0).standard_normal(phi.shape)
        phi = phi + self.error * noise * length[:, None, None] ** 3
        solver = StaircaseFactor(phi, point.ga, point.gb, scale)
        self.made.append(point.t.size)
        return point, solver, solver.solve(*point.lack)


def size(y):
    return np.maximum(1.0, np.abs(y).max(0))


def unit(y):
    return np.ones(y.shape[1])


def steered(problem, rules, error=None, guess=None, callback=None, max_nodes=200, max_iter=60):
    """A solve by these rules: with exact systems, or with a model that is off."""
    mesh = Mesh(problem.flow, problem.boundary, 1e3, max_nodes)
    systems = ExactSystems(mesh) if error is None else Model(problem, mesh, error)
    newton = Newton(mesh, systems, rules, size, TOL, callback)
    guess = problem.guess() if guess is None else guess
    return newton, newton.solve(problem.t, guess, max_iter)


def count_factorisations(monkeypatch):
    made, plain = [], StaircaseFactor.__init__

    def counted(self, *arguments):
        made.append(1)
        plain(self, *arguments)

    monkeypatch.setattr(StaircaseFactor, "__init__", counted)
    return made


@pytest.mark.parametrize("problem", [one_sample(), nonlinear_layer(), linear_resnet()],
                         ids=lambda problem: problem.name)
def test_both_rules_find_the_same_solution(problem):
    """Chord's rules on exact systems: frozen where they contract, renewed where they do not."""
    for rules in (ErrorOriented(1e-6, TOL), Chord()):
        newton, end = steered(problem, rules)
        assert end.status is BVPStatus.CONVERGED
        assert abs(newton.point.y - problem.exact(newton.point.t)).max() <= problem.exact_tol
        assert max(newton.history[-1].defect, newton.history[-1].boundary) <= 10 * TOL


def test_a_linearisation_is_kept_while_it_contracts(monkeypatch):
    made, problem = count_factorisations(monkeypatch), one_sample()
    newton, _ = steered(problem, ErrorOriented(1e-6, TOL))
    assert len(made) == len(newton.history) >= 3
    made.clear()
    newton, end = steered(problem, Chord())
    assert end.status is BVPStatus.CONVERGED
    assert len(made) < len(newton.history) - 1
    assert all(b.correction == a.simplified for a, b in pairwise(newton.history)
               if a.damping == 1 and a.simplified <= 0.25 * a.correction)


def test_a_model_that_is_off_converges_to_the_solution_of_the_flow():
    problem = one_sample()
    newton, end = steered(problem, Chord(), error=5.0, guess=problem.solution + 1e-3)
    assert end.status is BVPStatus.CONVERGED
    assert newton.algebra.made == [problem.t.size]  # one factorisation
    assert abs(newton.point.y - problem.solution).max() <= 1e-8


def test_mixing_takes_corrections_away(monkeypatch):
    problem = one_sample()
    guess = problem.solution + 1e-3
    mixed, _ = steered(problem, Chord(), error=5.0, guess=guess)
    monkeypatch.setattr(Chord, "move", lambda self, step: step.correction)
    plain, end = steered(problem, Chord(), error=5.0, guess=guess)
    assert end.status is BVPStatus.CONVERGED
    assert len(mixed.history) < len(plain.history)


def test_segments_are_cut_where_the_model_falls_short():
    problem = one_sample()
    guess = problem.solution + 1e-3
    newton, end = steered(problem, Chord(), error=20.0, guess=guess)
    assert end.status is BVPStatus.CONVERGED
    assert newton.point.t.size > problem.t.size
    assert sum(r.inserted for r in newton.history) == newton.point.t.size - problem.t.size
    assert np.isin(problem.t, newton.point.t).all()
    fixed, end = steered(problem, Chord(), error=20.0, guess=guess, max_nodes=problem.t.size)
    assert end.status is not BVPStatus.CONVERGED
    assert fixed.point.t.size == problem.t.size


def test_an_old_linearisation_that_fails_is_renewed_in_the_same_iteration():
    class Tired(Model):
        """Its first factorisation solves twice; what it says then is of no use."""

        def linearise(self, point, scale):
            point, solver, correction = super().linearise(point, scale)
            return point, self if len(self.made) == 1 else solver, correction

        def solve(self, r, g):
            self.asked += 1
            factor = StaircaseFactor(self.problem.flow(*self.first, True)[1], *self.ends)
            return factor.solve(r, g) if self.asked < 2 else np.ones((len(r) + 1, len(g)))

    problem = one_sample()
    guess = problem.solution + 1e-3
    mesh = Mesh(problem.flow, problem.boundary, 1e3, 20)
    algebra = Tired(problem, mesh, 0.0)
    algebra.asked, algebra.ends = 0, problem.boundary(guess[0], guess[-1])[1:]
    algebra.first = problem.t[:-1], problem.t[1:], guess[:-1]
    newton = Newton(mesh, algebra, Chord(), size, TOL)
    end = newton.solve(problem.t, guess, 20)
    assert end.status is BVPStatus.CONVERGED
    assert len(algebra.made) == 2
    assert algebra.asked > 2
    assert [r.damping for r in newton.history] == [1.0] * len(newton.history)
    assert newton.history[0].simplified <= 0.25 * newton.history[0].correction  # it was kept


def test_corrections_that_do_not_shrink_end_the_solve():
    """Each new linearisation says that the solution is as far as before."""
    class Elusive(Model):
        def linearise(self, point, scale):
            point = self.mesh.completed(point)
            self.made.append(point.t.size)
            self.left = 0.06  # small steps, over which the flow stays finite
            return point, self, np.full_like(point.y, self.left)

        def solve(self, r, g):
            self.left *= 0.5
            return np.full((len(r) + 1, len(g)), self.left)

    problem = one_sample()
    mesh = Mesh(problem.flow, problem.boundary, 1e3, 20)
    newton = Newton(mesh, Elusive(problem, mesh, 0.0), Chord(), unit, TOL)
    end = newton.solve(problem.t, problem.guess(), 60)
    assert end.status is BVPStatus.SLOW
    assert len(newton.history) == 7


def test_the_callback_sees_iterates_and_may_raise():
    problem, seen = one_sample(), []

    def watch(record, point):
        seen.append((record.iteration, point))
        if record.iteration == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        steered(problem, Chord(), callback=watch)
    assert [iteration for iteration, _ in seen] == [1, 2]
    assert abs(seen[1][1].y - problem.solution).max() < abs(seen[0][1].y - problem.solution).max()
    _, end = steered(problem, Chord(), callback=lambda record, point: True)
    assert end.status is BVPStatus.STOPPED


def test_a_correction_that_is_not_finite_is_a_singular_system():
    class Lost(Model):
        def linearise(self, point, scale):
            point, solver, correction = super().linearise(point, scale)
            return point, solver, np.nan * correction

    problem = one_sample()
    mesh = Mesh(problem.flow, problem.boundary, 1e3, 20)
    end = Newton(mesh, Lost(problem, mesh, 0.0), Chord(), size, TOL).solve(
        problem.t, problem.guess(), 5)
    assert isinstance(end, End)
    assert end.status is BVPStatus.SINGULAR


def test_nothing_of_a_solve_outlives_it():
    """No cycle of references: the factorisation is large, and freed with the solve."""
    problem = one_sample()
    for iterations, status in ((60, BVPStatus.CONVERGED), (2, BVPStatus.ITERATION_LIMIT)):
        newton, end = steered(problem, Chord(), max_iter=iterations)
        assert end.status is status
        gone = weakref.ref(newton)
        gc.disable()
        try:
            del newton
            assert gone() is None
        finally:
            gc.enable()


def test_an_iterate_is_integrated_once():
    """With a preconditioner: the guess, and a trial in each iteration."""
    problem, calls = linear_resnet(w=3, n_samples=6), []

    class Counted(RightHandSideFlow):
        def __call__(self, t0, t1, y, jacobian):
            calls.append(y.copy())
            return super().__call__(t0, t1, y, jacobian)

    def exact(t, y):
        _, phi = problem.flow(t[:-1], t[1:], y[:-1], True)
        return StaircaseFactor(phi, *problem.boundary(y[0], y[-1])[1:])

    result = solve_two_point(Counted(problem.rhs, problem.jacobian), problem.boundary, problem.t,
                             problem.guess(), preconditioner=exact)
    assert result.success
    assert len(calls) == len({y.tobytes() for y in calls})
