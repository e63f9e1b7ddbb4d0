"""`sweep`: optima over L̃, λ, ε and width by continuation, as one call.

Some points are searched, all others are reached from a neighbour, along the minimum spanning forest
of the lattice (`hamshoot.study.sweep_grid`), by steps that a predictor begins and that are halved
where they fail (`hamshoot.study.sweep_steps`). Then the lower envelope: across every edge of the
lattice whose ends lie on different branches, or where the neighbour's network costs less than what
was found, the point is solved from that neighbour too, and the lower J stays, until nothing
changes. So a better basin that one search has found goes as far as it is better. Points lie on one
branch where steps lead from one to the other without a jump, and where they meet in the same
solution.

Solves are kept as they come, and the order in which they are made has no part in the result: it is
the same in one process, in a pool and on a cluster, and after a kill.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hamshoot.methods.indirect.arclength import can_follow
from hamshoot.problem.saved import key as problem_key
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.solution import Callback
from hamshoot.study.crew import CUT_SHORT, Crew, StudyStopped, WorkersLost, crew
from hamshoot.study.forecast import TriesForecast
from hamshoot.study.kept_solves import keep, method_key, recall, solution_key, without_who
from hamshoot.study.progress import begin, named, shown
from hamshoot.study.sweep_account import Account, State, Trial
from hamshoot.study.sweep_files import JOURNAL, Index, Store, end, load
from hamshoot.study.sweep_files import begin as begin_files
from hamshoot.study.sweep_grid import Grid, changed
from hamshoot.study.sweep_plan import Plan, can_search_far, check, in_order, method_of, searches
from hamshoot.study.sweep_points import LOWER, Point, lower, numbers_of
from hamshoot.study.sweep_predictor import check_predictor, network_objective
from hamshoot.study.sweep_steps import (
    JUMP,
    Arrival,
    Errand,
    arrive,
    change,
    followed,
    good,
    same,
    stationary,
)
from hamshoot.study.swept import Sweep
from hamshoot.study.validate import rescaled
from hamshoot.support.journal import Journal, current, kept_in, key_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from hamshoot.solution.method import Method
    from hamshoot.support.names import MethodName, PredictorName, StudyOptions

#: Rounds of the lower envelope at most.
MOST_ROUNDS = 100


def sweep(
    problem: TrainingProblem,
    over: Mapping[str, Sequence[float]],
    method: MethodName | Method = "auto",
    *,
    layers: int | None = None,
    search: int | str = 3,
    folds: bool = True,
    predictor: PredictorName = "secant",
    seed: int = 0,
    directory: str | PathLike | None = None,
    executor: Any = None,
    scheduler: str | None = None,
    callback: Callback | None = None,
    on_point: Callable[[Point], None] | None = None,
    verbose: bool = False,
    **options: Unpack[StudyOptions],
) -> Sweep:
    """Solve a problem over a lattice of its parameters, each point from its neighbours.

    Parameters
    ----------
    problem : TrainingProblem
    over : dict of str to sequence of float
        Values of "effective_depth", "weight_decay", "epsilon" (of a smooth ReLU) and "width", all
        with all. Between widths nothing is carried over: each has searches of its own.
    method : str or method object
        As in `solve`; "auto" chooses once for all points.
    layers : int, optional
        L of every network; by default 20, or enough for the largest L̃. ("indirect" has none.)
    search : int or "all"
        How many points begin with a search (of each width): the one nearest to the problem's own
        parameters, then those farthest from the ones before. More of them find more basins.
    folds : bool
        Whether branches of geodesics are followed by pseudo-arclength where they end, and over one
        parameter where another one gets lower, for smooth activations and small problems
        (`hamshoot.methods.indirect.arclength`).
    predictor : {"secant", "tangent", "none"}
        What a step from a neighbour begins with: along the secant of the last two solutions, along
        the tangent that `hamshoot.sensitivity` has, inside its interval (where it refuses, the
        secant), or where the last one is. The tangent saves iterations and no seconds, see
        `hamshoot.study.sweep_predictor`.
    seed : int
        Of the searches.
    directory : path, optional
        Gets every solution as it comes, ``sweep-points/0007.npz``, with ``index.json`` and
        ``index.csv``. The same call with the same directory goes on from what is there, after a
        kill too, and reads a sweep that is complete. See also `Sweep.load`.
    executor : distributed.Client or concurrent.futures.Executor, optional
        Makes the solves, as many at a time as it has workers for; what is in memory of the data
        travels with each. The result does not depend on it.
    scheduler : str, optional
        Address of a scheduler of Dask (extra ``dask``), in place of an executor.
    callback : callable, optional
        Receives the records of every solve, the point in `stage`; where they are made elsewhere,
        one a second that says how many are under way. Returning True stops.
    on_point : callable, optional
        Receives each `Point` as it is solved, and again where a lower solution takes its place.
    verbose : bool
        Show the progress on standard error.
    **options
        Of the method; `time_limit` is for each solve.

    Returns
    -------
    Sweep
        Stopped midway, by Ctrl-C or the loss of all workers, with the points that are finished.

    Raises
    ------
    ValueError
        For parameters and values that fit neither problem nor method, before anything is solved;
        for a directory that holds another sweep.

    Notes
    -----
    Costs the searches, and for every other point a solve from its neighbour, more where the branch
    bends or ends; then about two for every edge of the lattice between branches.
    """
    grid = Grid.of(over, problem)
    count = searches(search)
    chosen, layers = method_of(problem, grid, method, layers, dict(options))
    given: dict[str, Any] = {"seed": seed, **options} if isinstance(chosen, str) else {**options}
    check(problem, grid, chosen, layers, given)
    settings = {"method": method_key(chosen), "layers": layers,
                "search": search, "folds": bool(folds),
                **({} if check_predictor(predictor) == "secant" else {"predictor": predictor}),
                **without_who(given)}
    key = key_of("sweep", problem_key(problem), grid.names, grid.axes, settings)
    folder = None if directory is None else Path(directory)
    if folder is not None and begin_files(folder, key) == "complete":
        return load(folder, Sweep)
    kept = None if folder is None or current() is not None else Journal(folder / JOURNAL)
    own = {name: problem.sigma.epsilon if name == "epsilon" else getattr(problem, name)
           for name in grid.names}
    with crew(executor, scheduler) as makers, shown(callback, verbose) as call, kept_in(kept):
        plan = Plan(problem, grid, chosen, layers, given, bool(folds),
                     grid.searched(problem, count), settings, predictor)
        run = _Sweeping(plan=plan, makers=makers, store=Store(folder),
                        index=Index(folder, key, own), on_point=on_point)
        found = run.run(call)
    if folder is not None and found.complete:
        end(folder)
    return found


# -- sweeping --------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Sweeping(Account):
    """One call of `sweep`, under way."""

    makers: Crew
    index: Index
    on_point: Callable[[Point], None] | None
    tried: set[tuple[int, int, int]] = field(default_factory=set)
    recalled: deque[tuple[Hashable, Arrival]] = field(default_factory=deque)
    keys: dict[Hashable, str] = field(default_factory=dict)
    labels: int = 0

    def run(self, call: Callback | None) -> Sweep:
        """The forest, then the envelope; or what there is when it is stopped."""
        reason = ""
        if self.makers.far:
            self.plan = self.plan.elsewhere()
        try:
            self.forest(call)
            self.envelope(call)
            self.beyond(call)
        except (StudyStopped, KeyboardInterrupt):
            reason = "It was stopped before all was done; the same call goes on from what is kept."
            if self.index.directory is None:
                reason = "It was stopped before all was done."
        except WorkersLost as lost:
            reason = f"The workers were lost before all was done ({lost})."
        found = self.sweep(reason)
        self.index.write(found, now=True)
        return found

    def forest(self, call: Callback | None) -> None:
        """Every point once, from its neighbour in the tree."""
        before = self.plan.grid.forest(self.plan.roots)
        after: dict[int, list[int]] = {}
        for number, parent in enumerate(before):
            if parent is not None:
                after.setdefault(parent, []).append(number)
        total = len(before)
        forecast = None if self.makers.far else TriesForecast(in_order(self.plan.roots, after))
        begin(call, "searching", forecast, self.plan.options.get("time_limit"))
        for root in self.plan.roots:
            self.submit(("root", None, root), self.plan.errand(root))
        while self.recalled or len(self.makers):
            (_, parent, number), arrival = self.take(named(
                f"point {len(self.states) + 1} of {total}", call))
            if forecast is not None:
                forecast.ended(arrival.seconds)
            if parent is None or not arrival.continued:
                label = self.labels = self.labels + 1
            else:
                label = self.states[parent].label
            self.settle(number, arrival, label)
            if parent is not None:
                self.note(parent, number, arrival)
            for child in after.get(number, []):
                self.submit(("tree", number, child), self.step(number, child, parent))

    def envelope(self, call: Callback | None) -> None:
        """Steps across the borders of branches, until they change nothing."""
        edges = list(self.plan.grid.edges())
        ways = [*edges, *((b, a) for a, b in edges)]
        begin(call, "comparing branches", None, self.plan.options.get("time_limit"))
        for turn in range(MOST_ROUNDS):
            chosen = [way for way in ways if self.wanted(*way)]
            if not chosen:
                return
            for a, b in chosen:
                self.tried.add((a, self.states[a].version, b))
                errand = replace(self.step(a, b, None), trial=True)
                # What leads through folds from one side leads back from the other.
                if (b, a) in self.trials and self.trials[b, a].arrival.curves:
                    errand = replace(errand, folds=False)
                self.submit(("way", a, b), errand)
            found: dict[tuple[int, int], Arrival] = {}
            while self.recalled or len(self.makers):
                (_, a, b), arrival = self.take(named(
                    f"branches, round {turn + 1}, {len(found) + 1} of {len(chosen)}", call))
                found[a, b] = arrival
            # All at once, in the order of the ways: whoever was faster makes no difference.
            for a, b in chosen:
                self.trials[a, b] = Trial(self.states[a].version, found[a, b])
            labels = {number: state.label for number, state in self.states.items()}
            for a, b in chosen:
                self.compare(b, found[a, b], labels[a])

    def beyond(self, call: Callback | None) -> None:
        """Follow geodesics from where their branch is no longer the lowest, to its folds.

        Of a sweep over one parameter, from each crossing to the end of the values on that side.
        """
        if not self.plan.folds or len(self.plan.grid.names) != 1:
            return
        (name,), (axis,) = self.plan.grid.names, self.plan.grid.axes
        for a, b in self.plan.grid.edges():
            solution = self.store.get(a)
            if not self.apart(a, b) or self.crossing(a, b).kind != "crossing":
                continue
            if solution.steps is not None or not stationary(solution) \
                    or not can_follow(solution.problem, name):
                continue
            key = self.keys["curve", None, a] = key_of("curve", solution_key(solution), name, axis)
            found = recall(key, solution.problem)
            if found is not None:
                self.recalled.append((("curve", None, a), Arrival.of(*found)))
            else:
                self.makers.submit(("curve", None, a), followed, solution, name, axis[-1],
                                   self.plan.options.get("time_limit"))
        begin(call, "following branches", None, None)
        while self.recalled or len(self.makers):
            token, arrival = self.take(call)
            if arrival.curves[0].reason == "stopped":
                raise StudyStopped
            if token not in self.followed:
                self.followed[token] = arrival

    def wanted(self, a: int, b: int) -> bool:
        """Whether a point is to be solved from a neighbour, as that one is now."""
        here, there = self.states[a], self.states[b]
        if (a, here.version, b) in self.tried or not stationary(self.store.get(a)):
            return False
        if self.branch(here.label) != self.branch(there.label) or not good(self.store.get(b)):
            return True
        solution = self.store.get(a)
        # Two sheets may be one branch, around the place where they part.
        if not self.smooth(b, a) and change(solution, self.store.get(b)) > JUMP:
            return True
        if solution.steps is None:
            return False
        problem = changed(self.plan.problem, self.plan.grid.values(b))
        bound = network_objective(rescaled(solution, problem.effective_depth), problem)
        return bound < self.store.get(b).objective * (1 - LOWER)

    def compare(self, number: int, arrival: Arrival, label: int) -> None:
        """Take a solution in place of one that is higher; see whether it is the same one."""
        state, present = self.states[number], self.store.get(number)
        state.steps += arrival.steps
        state.seconds += arrival.seconds
        if arrival.continued and same(present, arrival.solution):
            self.same_as[self.branch(label)] = self.branch(state.label)
        elif lower(arrival.solution, present):
            if not arrival.continued:
                label = self.labels = self.labels + 1
            self.settle(number, arrival, label)

    def step(self, a: int, b: int, earlier: int | None) -> Errand:
        """Steps from one point to another; `earlier` is where the first one comes from."""
        values = self.plan.grid.values
        more: dict[str, Any] = {}
        if earlier is not None and self.states[a].arrival.continued:
            more = {"before": self.store.get(earlier), "earlier": values(earlier)}
        return self.plan.errand(b, here=self.store.get(a), start=values(a), **more)

    def note(self, a: int, b: int, arrival: Arrival) -> None:
        """Remember a way of the tree as one that has been tried."""
        self.tried.add((a, self.states[a].version, b))
        self.trials[a, b] = Trial(self.states[a].version, arrival)

    def settle(self, number: int, arrival: Arrival, label: int) -> None:
        """Make an arrival the state of its point, and save it."""
        old = self.states.get(number)
        file = self.store.put(number, arrival.solution)
        self.states[number] = State(
            arrival, numbers_of(arrival.solution), label, file,
            0 if old is None else old.version + 1,
            arrival.steps if old is None else old.steps,
            arrival.seconds if old is None else old.seconds)
        if self.on_point is not None:
            self.on_point(self.point(number))
        self.index.write(self.sweep("It is under way."))

    # -- who makes it ------------------------------------------------------------------------------

    def submit(self, token: Hashable, errand: Errand) -> None:
        """Have an errand made, unless an earlier run has."""
        key = self.keys[token] = _errand_key(errand)
        found = self._recall(key, errand)
        if found is not None:
            self.recalled.append((token, found))
        elif self.makers.far and self.makers.client is not None and errand.here is None \
                and len(self.plan.roots) == 1 and can_search_far(errand):
            # A single search: its walks are spread over the cluster.
            options = {**errand.options, "workers": self.makers.client}
            self.recalled.append((token, self._kept(
                key, arrive(replace(errand, options=options)))))
        else:
            self.makers.submit(token, arrive, errand)

    def take(self, call: Callback | None) -> tuple[Any, Arrival]:
        """The next one that is there.

        Raises
        ------
        StudyStopped
            Where it was stopped.
        """
        if self.recalled:
            return self.recalled.popleft()
        token, arrival = self.makers.take(call)
        if arrival.solution.status in CUT_SHORT:
            raise StudyStopped
        return token, self._kept(self.keys[token], arrival)

    def _recall(self, key: str, errand: Errand) -> Arrival | None:
        found = recall(key, changed(errand.problem, errand.values))
        return None if found is None else Arrival.of(*found)

    def _kept(self, key: str, arrival: Arrival) -> Arrival:
        keep(key, arrival.solution, arrival.numbers())
        return arrival


def _errand_key(errand: Errand) -> str:
    """A key of all that an errand's result depends on."""
    return key_of("point of a sweep", problem_key(errand.problem), errand.values,
                  method_key(errand.method), errand.layers, without_who(errand.options),
                  solution_key(errand.here), solution_key(errand.before), errand.start,
                  errand.earlier, errand.folds, errand.trial, errand.predictor)
