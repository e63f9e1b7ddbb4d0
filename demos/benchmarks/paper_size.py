"""The paper's own size, 30 → 3 → 30, width 100, 1000 samples, 20 layers: seconds to an objective.

    python demos/benchmarks/paper_size.py                    # what is missing, then the table
    python demos/benchmarks/paper_size.py --start identity     # the second table
    python demos/benchmarks/paper_size.py --seeds 0 --methods hamshoot adam   # a part of it
    python demos/benchmarks/paper_size.py --sweeps             # speed of the sweeps against dgemm
    python demos/benchmarks/paper_size.py --smooth --limit 900 # to a small gradient, smooth ReLU
    python demos/benchmarks/paper_size.py --ends --seeds 0 1   # to a small gradient, to the kinks
    python demos/benchmarks/paper_size.py --grid --limit 30    # other depths and numbers of samples
    python demos/benchmarks/paper_size.py --report             # tables and figure alone

The peers begin at the same controls, a fit to all samples on all layers; hamshoot is given the same
name of a start and seed, and makes its own fit, to 125 samples on 10 layers. All have the same
number of threads; a trace is J of the ReLU network over seconds. Compilation and the first call are
left out. hamshoot works in single precision until the gradient is small, Adam in single, both
L-BFGS in double. Results are kept in paper_size.json, a piece at a time, so that a run can be
interrupted and gone on with, and split over seeds, starts and methods.

Peers: PyTorch's Adam (full batch, float32, 6000 epochs), the paper's recipe (Adam 5000 epochs, then
SGD 1000), SciPy's L-BFGS-B with 30 pairs and the project's own gradients, and torch.optim.LBFGS.
Adam's rate and schedule are chosen for every seed and start: all four rates with all three
schedules (see `hamshoot.methods.descent.optimizers`) run 1000 epochs, the whole schedule in them,
and are rows of their own, "adam, 1000 epochs"; of each schedule the best rate (``--finalists 2``:
the best two) then has 6000. Schedules are not compared after 1000 epochs, as a cosine arrives only
at its end. Where Adam is constant or decays at last the runs share their beginning, and the
recipe's Adam is the same one. Its SGD has the best of five rates after a tenth of its epochs.

``--ends`` has no limit: a solve ends by its own rules, a smooth network with a small gradient, a
ReLU network after the rounds that hold activations on the kink (`methods/single_shooting/held.py`);
"stages" in the results says when each of its stages ended, in CPU seconds, and at which J. What
else was tried to get there, on seed 0 and, first, on a teacher 20 → 4 → 20 of width 30:

* smaller ε alone: the stationarity of ReLU itself does not fall, as no activation comes to lie on
  the kink; best slopes without activations there have nothing to choose;
* all candidates put on the kink at once: too far from where they were, see `held.py`; in the
  Euclidean metric instead of the Gauss–Newton one J rises much further still;
* L-BFGS in all rounds: J falls on, but the gradient goes up and down at one size;
* Newton's method by CG or minimal residuals around the Kronecker preconditioner, products by
  differences: the gradient's own norm falls hardly at all over dozens of products, without the
  preconditioner it does; but over steps that long kinks are passed and the model is wrong, which is
  why `minimal_residual.py` takes one gradient for one dimension of the space;
* holding activations earlier in the valley: slower along it than smoothing is;
* not tried: lifting the states (multiple shooting), an augmented Lagrangian of the kinks.

Minutes on one core, for a seed and start: 3 for the twelve of 1000 epochs (``--pilots`` ends
there), 4 for constant and decay at one rate with the recipe from both, 2 for a cosine, 2 for the
recipe from a cosine; 5 for each of the L-BFGS, 2 for hamshoot.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import sys
import time
from datetime import date
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

import hamshoot as hs
from hamshoot.dynamics.block_sweeps import BlockSweeps, threads
from hamshoot.methods.common.starts import starting_weights
from hamshoot.methods.descent.optimizers import HOLD, SCHEDULES

RESULTS = Path(__file__).with_name("paper_size.json")
LAYERS, DEPTH, EPOCHS, RATES, LIMIT = 20, 7.0, 6000, (0.01, 0.03, 0.1, 0.3), 300.0
#: Epochs that rates and schedules are tried with; of the recipe's Adam, and of its SGD; that SGD's
#: rates are tried with; these rates.
PILOT, RECIPE, TAIL, TRIAL, TAIL_RATES = (
    1000, 5000, 1000, 100, (0.003, 0.01, 0.03, 0.1, 0.3))
METHODS = ("hamshoot", "adam", "recipe", "lbfgsb", "torch_lbfgs")
NOISE = {"path": None, "identity": 0.1}


class Trace:
    """J of the ReLU network over seconds, the time of looking left out.

    On one thread these are CPU seconds of the process, so that other work on the machine does not
    count; on several, seconds of the clock.
    """

    def __init__(self, limit: float = np.inf):
        self.clock = time.process_time if thread_count() == 1 else time.perf_counter
        self.limit, self.points, self.began, self.off = limit, [], self.clock(), 0.0

    @property
    def seconds(self) -> float:
        """Since the start, looks left out."""
        return self.clock() - self.began - self.off

    def add(self, objective: float) -> None:
        """Note an objective; raises TimeoutError at the limit."""
        self.points.append([round(self.seconds, 3), float(objective)])
        if self.seconds > self.limit:
            raise TimeoutError


class Network:
    """The same J in PyTorch."""

    def __init__(self, problem, weights):
        import torch

        def tensor(a):
            return torch.tensor(np.array(a), dtype=torch.float32)

        self.A0, self.Y, self.Q = (tensor(a) for a in (
            problem.initial_state, problem.targets, problem.readout))
        self.W = [tensor(w[:, :-1]).requires_grad_() for w in weights]
        self.b = [tensor(w[:, -1:]).requires_grad_() for w in weights]
        self.leak, self.decay = problem.effective_depth, problem.weight_decay

    @property
    def parameters(self):
        """Weights and biases."""
        return [*self.W, *self.b]

    def objective(self):
        """J, as a scalar tensor."""
        A, rho = self.A0, 1 / len(self.W)
        for W, b in zip(self.W, self.b, strict=True):
            A = (1 - rho * self.leak) * A + rho * (W @ A.relu() + b)
        norm = sum((p * p).sum() for p in self.parameters)
        loss = ((self.Q @ A - self.Y) ** 2).sum() / self.Y.shape[1]
        return loss + self.decay / (2 * self.leak) * rho * norm


def factor(schedule: str, share: float) -> float:
    """Of the rate when a share of the run is done, as `optimizers.schedule_factors` has it."""
    if schedule == "cosine":
        return 0.5 * (1 + np.cos(np.pi * share))
    return min(1.0, (1 - share) / (1 - HOLD)) if schedule == "decay" else 1.0


class Descent:
    """Full-batch Adam in float32, which can be left for another schedule on the way.

    The schedule is fitted to the epochs, or to a limit in seconds where that ends sooner.
    """

    def __init__(self, problem, weights, rate, epochs=EPOCHS, limit=np.inf):
        import torch

        self.network = Network(problem, weights)
        self.optimizer = torch.optim.Adam(self.network.parameters, lr=rate)
        self.rate, self.epochs, self.limit, self.epoch = rate, epochs, limit, 0
        self.points, self.spent, self.last = [], 0.0, 0.0

    def go(self, schedule: str, until: float = 1.0) -> Descent:
        """On to a share of the whole run; ends where J is no longer finite."""
        trace, done = Trace(), self.spent
        share = self.share(done)
        while share < until:
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate * factor(schedule, share)
            self.optimizer.zero_grad(set_to_none=True)
            J = self.network.objective()
            J.backward()
            if self.epoch % 25 == 0:
                self.note(done + trace.seconds, J.item())
            self.optimizer.step()
            self.epoch += 1
            share = self.share(done + trace.seconds)
        self.spent = done + trace.seconds
        self.note(self.spent, self.network.objective().item())
        return self

    def share(self, seconds: float) -> float:
        """How much of the run is done; all of it where J is no longer finite."""
        if not np.isfinite(self.last):
            return 1.0
        return max(self.epoch / self.epochs, seconds / self.limit)

    def note(self, seconds: float, J: float) -> None:
        """Add a point to the trace."""
        self.last = J
        if np.isfinite(J):
            self.points.append([round(seconds, 3), J])

    def fork(self, epochs: int | None = None) -> Descent:
        """Another run that goes on from here, with its own number of epochs."""
        twin = copy.deepcopy(self)
        twin.epochs = self.epochs if epochs is None else epochs
        return twin

    def tail(self) -> Descent:
        """SGD from here, at the rate that is lowest after some epochs; `rate` becomes its own."""
        import torch

        tried = []
        for rate in TAIL_RATES:
            twin = self.fork(TAIL)
            twin.optimizer = torch.optim.SGD(twin.network.parameters, lr=rate)
            twin.rate, twin.epoch = rate, 0
            tried.append(twin.go("constant", TRIAL / TAIL))
        return min(tried, key=lambda one: one.last if np.isfinite(one.last) else np.inf).go(
            "constant")


def cosine(problem, weights, rate, epochs=EPOCHS, limit=np.inf) -> dict:
    """Adam's run with a cosine schedule, by method and schedule."""
    return {("adam", "cosine"): Descent(problem, weights, rate, epochs, limit).go("cosine")}


def cosine_recipe(problem, weights, rate) -> dict:
    """The recipe with a cosine schedule of its Adam."""
    return {("recipe", "cosine"): Descent(problem, weights, rate, RECIPE).go("cosine").tail()}


def holding(problem, weights, rate, epochs=EPOCHS, limit=np.inf) -> dict:
    """Adam's runs that begin at a constant rate."""
    run = Descent(problem, weights, rate, epochs, limit).go("constant", HOLD)
    decay = run.fork()
    return {("adam", "constant"): run.go("constant"), ("adam", "decay"): decay.go("decay")}


def holding_and_recipe(problem, weights, rate) -> dict:
    """The same in full, and the recipe, whose Adam is this one but for its end."""
    run = Descent(problem, weights, rate).go("constant", HOLD * RECIPE / EPOCHS)
    recipe_decay = run.fork(RECIPE)
    decay = run.go("constant", HOLD).fork()
    recipe_constant = run.go("constant", RECIPE / EPOCHS).fork(RECIPE)
    return {("adam", "constant"): run.go("constant"), ("adam", "decay"): decay.go("decay"),
            ("recipe", "constant"): recipe_constant.tail(),
            ("recipe", "decay"): recipe_decay.go("decay").tail()}


def torch_lbfgs(problem, weights):
    """torch.optim.LBFGS, 30 pairs, strong Wolfe, in double precision (float32 stalls sooner)."""
    import torch

    network = Network(problem, weights)
    for name in ("A0", "Y", "Q"):
        setattr(network, name, getattr(network, name).double())
    network.W = [torch.tensor(w[:, :-1]).requires_grad_() for w in weights]
    network.b = [torch.tensor(w[:, -1:]).requires_grad_() for w in weights]
    optimizer = torch.optim.LBFGS(network.parameters, history_size=30, max_iter=20,
                                  line_search_fn="strong_wolfe", tolerance_change=0,
                                  tolerance_grad=0)
    trace = Trace(LIMIT)

    def closure():
        optimizer.zero_grad(set_to_none=True)
        J = network.objective()
        J.backward()
        return J

    try:
        while True:
            trace.add(optimizer.step(closure).item())
    except TimeoutError:
        return trace.points


def lbfgsb(problem, weights):
    """SciPy's L-BFGS-B on plain ReLU, 30 pairs, with the project's sweeps in double precision."""
    from scipy.optimize import minimize

    steps = np.full(LAYERS, 1 / LAYERS)
    with threads(problem) as executor:
        sweeps = BlockSweeps(problem, steps, executor=executor)
        sweeps.gradient(weights)  # the first call compiles
        trace, best = Trace(LIMIT), [np.inf]

        def value(x):
            J, G = sweeps.gradient(x.reshape(weights.shape))
            best[0] = min(best[0], J)
            if sweeps.gradients % 25 == 0:
                trace.add(best[0])
            return J, G.ravel()

        x = weights.ravel()
        try:
            while True:  # the line search gives up at kinks: begin again from there
                x = minimize(value, x, jac=True, method="L-BFGS-B",
                             options=dict(maxcor=30, maxiter=10**6, maxfun=10**7, ftol=0,
                                          gtol=0)).x
                trace.add(best[0])
        except TimeoutError:
            return trace.points


def hamshoot(problem, seed, start, limit):
    """The project's search for large networks, from the same named start."""
    warm = hs.DirectSingleShooting(layers=LAYERS, seed=seed, start=start, noise=NOISE[start],
                                   optimizer="kronecker", max_iter=30, stage_iter=5)
    hs.solve(problem, warm)
    method = hs.DirectSingleShooting(layers=LAYERS, seed=seed, start=start, noise=NOISE[start],
                                     optimizer="kronecker", time_limit=limit)
    solution = hs.solve(problem, method)
    points = [[round(t, 3), float(J)] for t, J in solution.extra["trace"]]
    return points, {"relative_gradient": solution.residuals["relative_gradient"],
                    "status": solution.status.name, "stationarity": solution.stationarity,
                    "test_error": solution.test_error()}


def problem_of(seed: int, depth: float = DEPTH, samples: int = 1000):
    """The paper's teacher; lift and readout random orthonormal.

    With the embedding as lift 70 of the 100 neurons begin at zero, from which Adam recovers slowly
    (J = 0.60 at its best rate of 0.01, 0.03 and 0.1 on seed 0, and L-BFGS-B at 0.38: under
    "embedding_lift" in the results, from the same command before the lift was changed).
    """
    return hs.teacher_problem(dims=(30, 3, 30), samples=samples, effective_depth=depth, width=100,
                              seed=seed, lift="orthonormal", readout="orthonormal")


def begin(seed: int, start: str):
    """Problem and weights of a seed and start."""
    problem = problem_of(seed)
    return problem, starting_weights(problem, np.full(LAYERS, 1 / LAYERS), start, seed,
                                     NOISE[start])


def run(method: str, seed: int, start: str, limit: float) -> dict:
    """One method that is not tuned, and seed; the record that is kept."""
    problem, weights = begin(seed, start)
    more: dict = {}
    if method == "hamshoot":
        points, more = hamshoot(problem, seed, start, limit)
    else:
        points = {"lbfgsb": lbfgsb, "torch_lbfgs": torch_lbfgs}[method](problem, weights)
    return record_of(method, seed, start, points, more)


def record_of(method: str, seed: int, start: str, points: list, more: dict) -> dict:
    return {"method": method, "seed": seed, "start": start, "threads": thread_count(),
            "seconds": points[-1][0], "objective": min(p[1] for p in points), **more,
            "load": os.getloadavg()[0], "date": str(date.today()), "trace": thin(points)}


def untuned(method: str, seed: int, start: str, limit: float, again: bool) -> None:
    """Run a method that is not tuned where it is missing, and keep its row."""
    def same(r):
        return (r["method"], r["seed"], r["start"]) == (method, seed, start)

    if any(map(same, load()["runs"])) and not again:
        return
    print(f"{method}, {start}, seed {seed} ...", end=" ", flush=True)
    record = run(method, seed, start, limit)
    print(f"J {record['objective']:.5f} in {record['seconds']:.1f} s", flush=True)
    results = load()
    results["runs"] = [r for r in results["runs"] if not same(r)] + [record]
    save(results)


#: Pieces of the tuned methods: what runs them, and the methods, schedules and epochs of their rows.
PIECES = {
    "short cosine": (partial(cosine, epochs=PILOT), [("adam", "cosine", PILOT)]),
    "short": (partial(holding, epochs=PILOT),
              [("adam", "constant", PILOT), ("adam", "decay", PILOT)]),
    "cosine": (cosine, [("adam", "cosine", EPOCHS)]),
    "recipe cosine": (cosine_recipe, [("recipe", "cosine", RECIPE)]),
    "holding": (holding_and_recipe,
                [("adam", "constant", EPOCHS), ("adam", "decay", EPOCHS),
                 ("recipe", "constant", RECIPE), ("recipe", "decay", RECIPE)]),
}


def tuned(seed: int, start: str, methods: list[str], finalists: int, pilots: bool,
          again: bool) -> None:
    """Adam and the recipe of one seed and start: all rates in short, the best of them in full."""
    for rate in RATES:
        for name in ("short cosine", "short"):
            piece(name, seed, start, rate, again)
    if pilots:
        return
    chosen = {schedule: best_rates(seed, start, schedule, finalists) for schedule in SCHEDULES}
    for rate in chosen["cosine"]:
        if "adam" in methods:
            piece("cosine", seed, start, rate, again)
        if "recipe" in methods:
            piece("recipe cosine", seed, start, rate, again)
    for rate in dict.fromkeys(chosen["constant"] + chosen["decay"]):
        piece("holding", seed, start, rate, again)


def best_rates(seed: int, start: str, schedule: str, count: int) -> list[float]:
    """The rates of a schedule that ended lowest in short."""
    rows = [r for r in load()["runs"] if (r["method"], r["seed"], r["start"], r.get("schedule"),
            r.get("epochs")) == ("adam", seed, start, schedule, PILOT)]
    return [r["rate"] for r in sorted(rows, key=lambda r: r["objective"])[:count]]


def piece(name: str, seed: int, start: str, rate: float, again: bool) -> None:
    """Run what is missing, and keep a row a method and schedule."""
    function, rows = PIECES[name]
    keys = {(method, seed, start, rate, schedule, epochs) for method, schedule, epochs in rows}
    if keys <= {key_of(r) for r in load()["runs"]} and not again:
        return
    print(f"{name}, rate {rate:g}, {start}, seed {seed} ...", end=" ", flush=True)
    found = function(*begin(seed, start), rate)
    records = []
    for method, schedule, epochs in rows:
        descent = found[method, schedule]
        more = {"rate": rate, "schedule": schedule, "epochs": epochs}
        if method == "recipe":
            more["sgd_rate"] = descent.rate
        records.append(record_of(method, seed, start, descent.points, more))
    print(", ".join(f"{r['method']} {r['schedule']} J {r['objective']:.5f} in {r['seconds']:.1f} s"
                    for r in records), flush=True)
    results = load()
    results["runs"] = [r for r in results["runs"] if key_of(r) not in keys] + records
    save(results)


def key_of(r: dict) -> tuple:
    """What a run is of."""
    return (r["method"], r["seed"], r["start"], r.get("rate"), r.get("schedule"), r.get("epochs"))


def thin(points: list, most: int = 60) -> list:
    """Evenly in log time; best so far."""
    times, best = np.array([p[0] for p in points]), np.minimum.accumulate([p[1] for p in points])
    at = np.geomspace(max(times[0], 0.1), times[-1], most)
    keep = sorted({int(np.searchsorted(times, t, side="right") - 1) for t in at})
    return [[float(times[k]), round(float(best[k]), 6)] for k in keep if k >= 0]


def thread_count() -> int:
    return int(os.environ.get("OMP_NUM_THREADS", os.cpu_count()))


def load() -> dict:
    if not RESULTS.exists():
        return {"runs": []}
    results = json.loads(RESULTS.read_text())
    for r in results["runs"]:  # rows from before there were schedules to choose from
        if r["method"] == "adam" and "schedule" not in r:
            r.update(schedule="cosine", epochs=EPOCHS)
        elif r["method"] == "recipe" and "schedule" not in r:
            r.update(rate=0.03, schedule="constant", epochs=RECIPE, sgd_rate=0.003)
    return results


def save(results: dict) -> None:
    import numba
    import torch

    results["machine"] = f"{platform.machine()}, {os.cpu_count()} cores"
    results["versions"] = {"python": platform.python_version(), "numpy": np.__version__,
                           "numba": numba.__version__, "torch": torch.__version__,
                           "hamshoot": hs.__version__}
    partial = RESULTS.with_suffix(".tmp")
    runs = ",\n".join(json.dumps(r) for r in results["runs"])
    rest = json.dumps({k: v for k, v in results.items() if k != "runs"})
    partial.write_text(rest[:-1] + ', "runs": [\n' + runs + "\n]}\n")
    partial.replace(RESULTS)


def grid(limit: float, again: bool) -> None:
    """Other depths and numbers of samples: J after the same seconds, hamshoot beside Adam.

    Again, it is hamshoot's half that is run anew. Adam's is where it had no schedules to choose
    from, a rate at a time.
    """
    for depth, samples in [(1.0, 1000), (3.0, 1000), (7.0, 1000), (15.0, 1000), (7.0, 300),
                           (7.0, 10_000)]:
        key = {"effective_depth": depth, "samples": samples, "limit": limit}
        known = next((r for r in load().get("grid", []) if key.items() <= r.items()), {})
        if "adam_schedule" in known and not again:
            continue
        problem = problem_of(0, depth, samples)
        theirs = {k: v for k, v in known.items() if k.startswith("adam")}
        if "adam_schedule" not in theirs:
            theirs = adam_at(problem, key)
        row = {**known, **theirs}
        if not known or again:
            points, more = hamshoot(problem, 0, "path", limit)
            row = {**key, "hamshoot": min(J for _, J in points), "seconds": points[-1][0], **more,
                   **theirs, "hamshoot_trace": thin(points), "threads": thread_count(),
                   "date": str(date.today())}
        if "hamshoot_trace" in row:
            row["hamshoot_reaches_adam"] = reached({"trace": row["hamshoot_trace"]}, row["adam"])
        print(row, flush=True)
        results = load()
        others = [r for r in results.get("grid", [])
                  if (r["effective_depth"], r["samples"]) != (depth, samples)]
        save({**results, "grid": [*others, row]})


def adam_at(problem, key: dict) -> dict:
    """Adam's J at the best of its rates and schedules, each within the limit."""
    weights = starting_weights(problem, np.full(LAYERS, 1 / LAYERS), "path", 0, None)
    for rate in RATES:
        if any({**key, "rate": rate}.items() <= r.items() for r in load().get("grid_adam", [])):
            continue
        found = {name: run for way in (cosine, holding) for name, run in
                 way(problem, weights, rate, limit=key["limit"]).items()}
        rows = [{**key, "rate": rate, "schedule": schedule, "epochs": run.epoch,
                 "objective": min(J for _, J in run.points), "seconds": run.points[-1][0],
                 "threads": thread_count(), "date": str(date.today())}
                for (_, schedule), run in found.items()]
        results = load()
        save({**results, "grid_adam": [*results.get("grid_adam", []), *rows]})
    best = min((r for r in load()["grid_adam"] if key.items() <= r.items()),
               key=lambda r: r["objective"])
    return {"adam": best["objective"], "adam_rate": best["rate"],
            "adam_schedule": best["schedule"], "adam_seconds": best["seconds"],
            "adam_epochs": best["epochs"]}


def smooth(seeds: list[int], epsilons: list[float], limit: float) -> None:
    """Seconds until the relative gradient is 1e-4 and J is flat; ε = 0 stands for ReLU itself."""
    for epsilon, seed in product(epsilons, seeds):
        problem = problem_of(seed)
        if epsilon:
            problem = problem.replace(activation="smooth_relu", epsilon=epsilon)
        settings = dict(layers=LAYERS, seed=seed, optimizer="kronecker", gradient_tol=1e-4)
        hs.solve(problem, hs.DirectSingleShooting(**settings, max_iter=30, stage_iter=5))
        solution = hs.solve(problem, hs.DirectSingleShooting(**settings, time_limit=limit))
        row = {"epsilon": epsilon, "seed": seed, "objective": solution.objective,
               "seconds": solution.seconds,
               "relative_gradient": solution.residuals["relative_gradient"],
               "stationarity": solution.stationarity, "status": solution.status.name,
               "iterations": solution.nit, "threads": thread_count(), "date": str(date.today())}
        print(row, flush=True)
        results = load()
        rows = [r for r in results.get("smooth", [])
                if (r.get("epsilon", 0.01), r["seed"]) != (epsilon, seed)]
        save({**results, "smooth": [*rows, row]})


def ends(seeds: list[int], epsilons: list[float], effort: str) -> None:
    """CPU seconds to where a solve ends by itself; of ReLU (ε = 0), with its activations held."""
    for epsilon, seed in product(epsilons, seeds):
        problem = problem_of(seed)
        if epsilon:
            problem = problem.replace(activation="smooth_relu", epsilon=epsilon)
        settings = dict(layers=LAYERS, seed=seed, optimizer="kronecker", effort=effort)
        hs.solve(problem, hs.DirectSingleShooting(**settings, max_iter=30, stage_iter=5))
        stages: list[list] = []
        began = time.process_time()

        def look(record, stages=stages, began=began):
            """When the stages end, and at which J."""
            row = [record.stage, round(time.process_time() - began, 1), record.objective]
            stages[-1 if stages and stages[-1][0] == record.stage else len(stages):] = [row]

        solution = hs.solve(problem, hs.DirectSingleShooting(**settings), callback=look)
        row = {"epsilon": epsilon, "seed": seed, "effort": effort,
               "cpu_seconds": time.process_time() - began, "objective": solution.objective,
               "relative_gradient": solution.residuals["relative_gradient"],
               "stationarity": solution.stationarity, "kinks": solution.kinks,
               "status": solution.status.name, "iterations": solution.nit, "stages": stages,
               "threads": thread_count(), "date": str(date.today())}
        print({k: v for k, v in row.items() if k != "stages"}, flush=True)
        results = load()
        rows = [r for r in results.get("ends", [])
                if (r["epsilon"], r["seed"], r["effort"]) != (epsilon, seed, effort)]
        save({**results, "ends": [*rows, row]})


def figure(results: dict, start: str) -> None:
    """Work and precision: objective above the best known value over seconds, medians over seeds."""
    from matplotlib.figure import Figure

    labels = {"hamshoot": "hamshoot", "adam": "Adam (PyTorch, best rate, schedule)",
              "recipe": "Adam, then SGD", "lbfgsb": "L-BFGS-B (SciPy)",
              "torch_lbfgs": "L-BFGS (PyTorch)"}
    palette = hs.plot.colours(labels)
    runs = [r for r in results["runs"] if r["start"] == start and r.get("epochs") != PILOT]
    ends = [r for r in results.get("smooth", []) if r.get("epsilon") == 0]  # ReLU, not hurried
    known = {s: min(r["objective"] for r in runs + ends if r["seed"] == s) for s in {
        r["seed"] for r in runs}}
    fig = Figure(figsize=(7.2, 4.4), layout="constrained")
    ax = fig.subplots()
    at = np.geomspace(0.5, max(r["seconds"] for r in runs), 200)
    for method, label in labels.items():
        curves = []
        for seed in known:
            mine = [r for r in runs if (r["method"], r["seed"]) == (method, seed)]
            if mine:
                t, J = np.array(min(mine, key=lambda r: r["objective"])["trace"]).T
                k = np.searchsorted(t, at, side="right") - 1
                curves.append(np.where((k >= 0) & (at <= 1.05 * t[-1]), J[k] - known[seed], np.nan))
        if curves:
            ax.loglog(at, np.median(curves, axis=0), color=palette[label if label in palette
                      else method], lw=2, label=f"{label}, {len(curves)} seeds")
    ax.set_xlabel("seconds")
    ax.set_ylabel("objective $J$ above the best known")
    ax.set_ylim(1e-4, 20)
    ax.grid(color="#dddddd", lw=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    fig.legend(loc="outside right center", frameon=False)
    print(hs.plot.save_figure(fig, RESULTS.with_name(f"paper_size_{start}.png")))


def reached(record: dict, objective: float) -> float:
    """Seconds until the trace lies at or below an objective."""
    return next((t for t, J in record["trace"] if objective >= J), np.inf)


def report(results: dict, start: str) -> None:
    """Medians over seeds, and the ratios asked for."""
    by: dict = {}
    for r in results["runs"]:
        if r["start"] == start:
            by.setdefault(r["seed"], {}).setdefault(name_of(r), []).append(r)
    print(f"\nstart: {start}")
    rows: dict = {}
    for seed, methods in sorted(by.items()):
        best = {m: min(rs, key=lambda r: r["objective"]) for m, rs in methods.items()}
        ours = best.get("hamshoot")
        if ours:
            print(f"  seed {seed} hamshoot     J {ours['objective']:.5f} in {ours['seconds']:6.1f} "
                  f"s, relative gradient {ours['relative_gradient']:.1e}, {ours['status']}")
        for m, r in best.items():
            if m == "hamshoot":
                continue
            t = reached(ours, r["objective"]) if ours else np.nan
            rows.setdefault(m, []).append((r["objective"], r["seconds"], t, r["seconds"] / t,
                                           ours["objective"] / r["objective"] if ours else np.nan))
            how = f", {r['rate']:g} {r['schedule']}" if "schedule" in r else ""
            print(f"  seed {seed} {m + how:<34} J {r['objective']:.5f} in {r['seconds']:6.1f} s"
                  f"   hamshoot reaches it in {t:6.1f} s, 1/{r['seconds'] / t:.1f} of the time")
    for m, values in rows.items():
        J, s, t, ratio, share = np.median(np.array(values), axis=0)
        print(f"  median of {len(values)} {m:<17} J {J:.5f} in {s:6.1f} s; reached in {t:.1f} s, "
              f"1/{ratio:.1f}; hamshoot's end is {share:.3f} of it")


def name_of(r: dict) -> str:
    """A method, and its epochs where they are the few of the trials."""
    return f"{r['method']}, {PILOT} epochs" if r.get("epochs") == PILOT else r["method"]


def report_ends(results: dict) -> None:
    """How far the search comes when it is not hurried."""
    for epsilon in sorted({r["epsilon"] for r in results.get("smooth", [])}):
        rows = [r for r in results["smooth"] if r["epsilon"] == epsilon]
        print(f"  {'ReLU' if not epsilon else f'epsilon {epsilon}'}: {len(rows)} seeds, median "
              f"{np.median([r['seconds'] for r in rows]):.0f} s to a relative gradient of at most "
              f"{max(r['relative_gradient'] for r in rows):.1e}, stationarity at most "
              f"{max(r['stationarity'] for r in rows):.3f}, "
              f"{', '.join(sorted({r['status'] for r in rows}))}")


def sweeps_against_dgemm() -> dict:
    """Gradient and products against dgemm on the same shapes, medians."""
    from hamshoot.problem.activations import Activation

    problem = problem_of(0)
    steps = np.full(LAYERS, 1 / LAYERS)
    W = starting_weights(problem, steps, "path", 0)
    V = np.random.default_rng(0).standard_normal(W.shape)
    L, w, c = W.shape
    N, rows = problem.n_samples, {}

    def median(f, times=15):
        f()
        seconds = []
        for _ in range(times):
            began = time.perf_counter()
            f()
            seconds.append(time.perf_counter() - began)
        return float(np.median(seconds))

    with threads(problem) as executor:
        for kind in (np.float64, np.float32):
            sweeps = BlockSweeps(problem, steps, Activation("smooth_relu", 0.01), dtype=kind,
                                 executor=executor)
            T = sweeps._shards[0].block(0)[0].shape[1]
            shape = [(W[0].astype(kind), np.ones((c, T), kind), np.ones((w, T), kind))
                     for _ in range(N // T)]

            def layer(arrays):
                # The three products of a layer, on one block, as often as a gradient has them.
                A, S, D = arrays
                for _ in range(L):
                    np.dot(A, S)
                    np.dot(D, S.T)
                    np.dot(A.T, D)

            gemm = median(lambda arrays=shape: list(executor.map(layer, arrays)))
            gradient = median(partial(sweeps.gradient, W))
            sweeps.expand(W)
            gn = median(partial(sweeps.gauss_newton, V))
            hessian = median(partial(sweeps.hessian, V))
            flops = 6 * L * w * c * N
            rows[np.dtype(kind).name] = {
                "gemm_gflops": round(flops / gemm / 1e9, 1),
                "gradient_gflops": round(flops / gradient / 1e9, 1),
                "gradient_share_of_gemm": round(gemm / gradient, 3),
                "gradient_ms": round(1e3 * gradient, 2),
                "gauss_newton_over_gradient": round(gn / gradient, 3),
                "hessian_over_gradient": round(hessian / gradient, 3)}
            print(np.dtype(kind).name, rows[np.dtype(kind).name])
    return {"threads": thread_count(), "date": str(date.today()), **rows}


def report_settled(results: dict) -> None:
    """Where solves end by themselves."""
    for r in sorted(results.get("ends", []), key=lambda r: (r["epsilon"], r["seed"])):
        held = next((t for s, t, _ in reversed(r["stages"]) if "held" not in s), r["cpu_seconds"])
        print(f"  {'ReLU' if not r['epsilon'] else 'epsilon ' + str(r['epsilon'])}, seed "
              f"{r['seed']}, {r['effort']}: {r['cpu_seconds']:.0f} CPU s, of which "
              f"{r['cpu_seconds'] - held:.0f} after the levels; J {r['objective']:.5f}, relative "
              f"gradient {r['relative_gradient']:.1e}, stationarity {r['stationarity']:.1e}, "
              f"{r['kinks']} kinks, {r['status']}")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--start", choices=list(NOISE), default="path")
    parser.add_argument("--limit", type=float, default=90.0, help="seconds of hamshoot")
    parser.add_argument("--pilots", action="store_true",
                        help="of Adam and the recipe only the runs of 1000 epochs")
    parser.add_argument("--finalists", type=int, default=1,
                        help="rates of a schedule that run in full")
    parser.add_argument("--again", action="store_true", help="run what is there already")
    parser.add_argument("--sweeps", action="store_true")
    parser.add_argument("--smooth", action="store_true")
    parser.add_argument("--epsilon", type=float, nargs="+",
                        help="of --smooth (by default 0.1 and 0.01) and --ends (0.01 and 0); "
                        "0 for ReLU down its ladder")
    parser.add_argument("--ends", action="store_true")
    parser.add_argument("--effort", choices=("quick", "default", "thorough"), default="default",
                        help="of --ends")
    parser.add_argument("--grid", action="store_true")
    parser.add_argument("--report", action="store_true", help="print the tables only")
    args = parser.parse_args(argv)
    if args.sweeps:
        rows = sweeps_against_dgemm()
        save({**load(), "sweeps": rows})
        return
    if args.grid:
        grid(args.limit, args.again)
        return
    if args.ends:
        ends(args.seeds, args.epsilon or [0.01, 0.0], args.effort)
        return
    if args.smooth:
        smooth(args.seeds, args.epsilon or [0.1, 0.01], args.limit)
        return
    for seed in [] if args.report else args.seeds:
        if {"adam", "recipe"} & set(args.methods):
            tuned(seed, args.start, args.methods, args.finalists, args.pilots, args.again)
        for method in args.methods:
            if method not in ("adam", "recipe"):
                untuned(method, seed, args.start, args.limit, args.again)
    results = load()
    for start in NOISE:
        if any(r["start"] == start for r in results["runs"]):
            report(results, start)
            figure(results, start)
    report_ends(results)
    report_settled(results)


if __name__ == "__main__":
    sys.exit(main())
