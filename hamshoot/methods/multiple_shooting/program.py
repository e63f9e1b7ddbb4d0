"""The nonlinear program of one solve and its iterate: begun at controls, run at one ε, watched."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.methods.common.kept import Midway, Step, kept
from hamshoot.methods.common.watch import Stop, Watch, deferred_interrupts
from hamshoot.methods.multiple_shooting.child import Answer, Child, called
from hamshoot.methods.multiple_shooting.nlp import build_nlp, iteration_callback
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.status import Status
from hamshoot.theory import layers as discrete
from hamshoot.theory import learned

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Seconds that a call of a solver without a clock gets at least, and the iterations it is taken to
#: make; see `hamshoot.methods.multiple_shooting.method.SHORT`.
LEAST_PATIENCE, ITERATIONS = 20.0, 30


class Counter:
    """Iterations of all parts of a solve, told to the watch and held against their limit."""

    def __init__(self, watch: Watch, most: int):
        self.watch, self.most = watch, most
        self.iterations = 0  # of the program

    def count(self, objective: float, stationarity: float) -> None:
        """Count an iteration and tell the callback.

        Raises
        ------
        Stop
            When the limit is reached, or the watch says so.
        """
        self.iterations += 1
        self.watch.record(objective, stationarity)
        if self.watch.iterations >= self.most:
            raise Stop(Status.MAX_ITER)


class Program:
    """The program with its iterate: controls, nodes and multipliers.

    Parameters
    ----------
    problem : TrainingProblem
    steps : ndarray, shape (L,)
    integrator, nlp_solver : str
    solver_options : dict
        All that `casadi.nlpsol` gets.
    given : dict or None
        Those among them that the user gave, for messages.
    counter : Counter
    offer : callable
        Receives the controls of every iterate.

    Attributes
    ----------
    smooth : TrainingProblem
        The problem with the activation of the stage.
    x, lam : ndarray
        The iterate, None before `begin_at`.
    """

    def __init__(
        self, problem: TrainingProblem, steps: NDArray, integrator: str, nlp_solver: str,
        solver_options: dict[str, Any], given: dict[str, Any] | None, counter: Counter,
        offer: Callable[[NDArray], Any],
    ):
        self.problem, self.steps, self.smooth = problem, steps, problem
        self.integrator, self.nlp_solver, self.given = integrator, nlp_solver, given
        self.counter, self.offer = counter, offer
        self.x: NDArray | None = None
        self.lam: NDArray | None = None
        self.monitor = Monitor(self)
        self.stats: dict[str, Any] = {}
        self.calls = self.called_iterations = 0
        layers = len(steps)
        if nlp_solver != "fatrop":  # which has no iteration callback
            states = layers * problem.initial_state.size
            controls = learned.count(problem, layers)
            ends = problem.initial_state.size if problem.hard_endpoint else 0
            # Kept here, since CasADi does not keep it alive.
            self.callback = iteration_callback(self.monitor, states + controls, states + ends)
            solver_options = {**solver_options, "iteration_callback": self.callback}
        self.nlp = build_nlp(problem, layers, integrator, nlp_solver, solver_options)
        self.child: Child | None = None
        if nlp_solver == "fatrop" and sys.executable:  # it cannot be interrupted: it can be ended
            self.child = Child(problem, layers, integrator, nlp_solver, solver_options)

    @property
    def weights(self) -> NDArray:
        """Controls of the iterate, (L, w, w+1); stacked with learned maps."""
        return self.controls_in(self.x)

    def controls_in(self, x: Any) -> NDArray:
        """Those of any x."""
        weights, maps = self.nlp.unpack(x)[0], self.nlp.maps(x)
        if not maps:
            return weights
        problem = self.problem.with_maps(maps.get("P", self.problem.lift),
                                         maps.get("Q", self.problem.readout))
        return learned.stacked(problem, weights)

    @property
    def momenta(self) -> NDArray | None:
        """Multipliers of the iterate as momenta, (L, w, N); None before there is one."""
        return None if self.lam is None else self.nlp.momenta(self.lam)

    def statistics(self) -> dict[str, Any]:
        """What the solver counted in its last call, and how often it was called; {} before one."""
        if not self.calls:
            return {}
        return {"solver": self.nlp_solver, "calls": self.calls,
                "total_iterations": self.called_iterations, **self.stats}

    def smooth_by(self, epsilon: float) -> None:
        """Take the smooth ReLU of some ε for the activation of the stage, or what needs none."""
        sigma = self.problem.sigma.at(epsilon)
        self.smooth = self.problem if sigma == self.problem.sigma else \
            self.problem.replace(activation=sigma)

    def begin_at(self, weights: NDArray, multiplier: NDArray | None = None) -> None:
        """Roll controls out and sweep back: a feasible x, and the adjoint for multipliers.

        With a hard endpoint the sweep begins at its multiplier (w, N), 0 by default.
        """
        at, weights = learned.settled(self.smooth, weights)
        A = discrete.roll_out(at, weights, self.steps, self.integrator)
        terminal = None
        if self.problem.hard_endpoint:
            terminal = np.zeros_like(A[0]) if multiplier is None else multiplier
        B, _ = discrete.costates(at, A, weights, self.steps, self.integrator, terminal)
        self.x = self.nlp.pack(weights, A, at.lift, at.readout)
        self.lam = self.nlp.multipliers(B)

    def converge(self, epsilon: float, limit: int) -> bool:
        """Run the NLP solver for at most `limit` iterations, or take what an earlier run did."""
        begun = self.counter.iterations, self.calls, self.called_iterations

        def compute(_: Midway) -> Step:
            success = self._converge(epsilon, limit)
            now = self.counter.iterations, self.calls, self.called_iterations
            assert self.x is not None
            assert self.lam is not None
            return {"x": self.x, "lam": self.lam}, {
                "success": bool(success), "stats": self.stats,
                "counts": [after - before for after, before in zip(now, begun, strict=True)]}

        inputs = (self.steps, self.integrator, self.nlp_solver, self.given, epsilon, limit,
                  self.x, self.lam)
        arrays, numbers = kept(self.counter.watch, self.problem, "program", inputs, compute)
        self.x, self.lam, self.stats = arrays["x"], arrays["lam"], numbers["stats"]
        self.counter.iterations, self.calls, self.called_iterations = (
            before + more for before, more in zip(begun, numbers["counts"], strict=True))
        self.offer(self.weights)
        return numbers["success"]

    def _converge(self, epsilon: float, limit: int) -> bool:
        end = self.counter.iterations + limit
        while self.counter.iterations < end:
            self.monitor.end, before = end, self.counter.iterations
            if self._run(epsilon):
                return True
            if self.counter.iterations <= before + 1:
                return False  # it gives up where it stands: so does another call
        return False

    def _run(self, epsilon: float) -> bool:
        """One call of the NLP solver; keep its iterate when it is finite."""
        parameters = self.nlp.parameters(self.problem, self.steps, epsilon)
        before = self.counter.iterations
        answer = self._call(parameters)
        self.monitor.raise_if_stopped()
        if answer is None:  # it was ended: it does not come back from where it is
            if self.counter.watch.remaining <= 0:
                raise Stop(Status.TIME_LIMIT)
            return False
        self.calls += 1
        self.called_iterations += answer.iterations
        self.stats = answer.stats
        if answer.status == "Invalid_Option":
            raise ValueError(f"solver_options: {self.nlp_solver} refuses one of {self.given!r}")
        if np.all(np.isfinite(answer.x)) and np.all(np.isfinite(answer.lam)):
            self.x, self.lam = answer.x, answer.lam
        if self.nlp_solver == "fatrop":  # one record for the round
            self.counter.iterations = before + answer.iterations - 1
            assert self.x is not None  # a run begins at an iterate
            self.monitor.record(self.x)
        return answer.success

    def _call(self, parameters: NDArray) -> Answer | None:
        """Call the solver, in its child where it has one; None where it had to be ended."""
        assert self.x is not None
        assert self.lam is not None
        with deferred_interrupts() as self.monitor.interrupts:
            if self.child is not None:
                return self.child.call(self.x, self.lam, parameters, self._patience(),
                                       self._over)
            return called(self.nlp, self.x, self.lam, parameters)

    def _over(self) -> bool:
        """Whether a solver that cannot look at the clock itself is to be ended."""
        return bool(self.monitor.interrupts) or self.counter.watch.remaining <= 0

    def _patience(self) -> float:
        """Seconds for a call without a clock: a hundred times what its iterations cost on paper."""
        node = self.problem.initial_state.size
        return max(LEAST_PATIENCE, 1e-8 * ITERATIONS * len(self.steps) * float(node) ** 3)

    def adjoint(self, weights: NDArray, momenta: NDArray | None
                 ) -> tuple[NDArray, NDArray, float]:
        """Roll-out, costates and stationarity for the activation of the stage."""
        integrator = self.integrator
        if self.problem.learns:
            A, B, G = learned.scaled_gradient(self.smooth, weights, self.steps, integrator)
            return A, B, learned.stationarity_of(self.smooth, weights, G)
        A = discrete.roll_out(self.smooth, weights, self.steps, integrator)
        terminal = None
        if self.problem.hard_endpoint:
            terminal = np.zeros_like(A[0]) if momenta is None else momenta[-1]
        B, G = discrete.costates(self.smooth, A, weights, self.steps, integrator, terminal)
        return A, B, discrete.stationarity(weights, G)


class Monitor:
    """Records iterates and stops the solver, without ever raising through it.

    An exception must not cross CasADi, which would print it and carry on; it is kept and raised
    when the solver has come back.
    """

    def __init__(self, program: Program):
        self.program = program
        self.end = 0  # iteration at which the stage has had its share
        self.interrupts: list[int] = []
        self.exception: BaseException | None = None

    def record(self, x: NDArray) -> None:
        """Report the network that the controls of an iterate roll out to; keep it if best."""
        program = self.program
        weights = program.controls_in(x)
        with np.errstate(all="ignore"):
            A, _, stationarity = program.adjoint(weights, program.momenta)
            at, own = learned.settled(program.smooth, weights)
            J = discrete.objective(at, A[-1], own, program.steps)[0]
        program.offer(weights)
        program.counter.count(J, stationarity)

    def raise_if_stopped(self) -> None:
        """Raise what was kept, or the Ctrl-C that came meanwhile."""
        if self.interrupts:
            raise KeyboardInterrupt
        if self.exception is not None:
            exception, self.exception = self.exception, None
            raise exception

    def __call__(self, x: NDArray) -> bool:
        """Whether the solver should stop."""
        try:
            if self.exception is None:
                self.record(x)
        except BaseException as exception:
            self.exception = exception
        stopped = self.exception is not None or bool(self.interrupts)
        return stopped or self.program.counter.iterations >= self.end
