"""Mutations: everything a solution holds altered, and every formula of the solvers broken.

The certificate has to notice each one, and to hold where nothing was altered. Changes are relative
to what matters: to the root mean square of the node or layer for an entry of an array (many entries
are 0), to itself for a number, to 1 for a residual.
"""

import json
from functools import cache, partial

import numpy as np
import problems
import pytest
from scipy.integrate import solve_ivp

import hamshoot as hs
from hamshoot.dynamics.sweeps import EulerSweeps
from hamshoot.optimality import layers
from hamshoot.problem.activations import Activation
from hamshoot.solution import evaluate
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.solution.solution import Status
from hamshoot.theory import blockwise, clarke
from hamshoot.theory import hamiltonian as ham
from hamshoot.theory import layers as discrete
from hamshoot.theory.clarke import clarke_residual

SIZES = [1e-9, 1e-6, 1e-3, 1.0]
SEEDS = [0, 1, 2]
STEPS = np.array([0.3, 0.1, 0.25, 0.15, 0.2])
LAYERED = ["relu", "dead", "smooth", "linear", "rk4", "hard", "smoothed"]

teacher = partial(problems.teacher, effective_depth=2.5, weight_decay=2.5e-3)


def with_a_dead_neuron(solution):
    """The same network one neuron wider: nothing feeds the new one, and nothing reads it."""
    problem = solution.problem
    wider = problem.replace(width=5, lift=np.vstack([problem.lift, np.zeros(4)]),
                            readout=np.hstack([problem.readout, np.zeros((4, 1))]))
    W = np.zeros((len(STEPS), *wider.control_shape))
    W[:, :4, [0, 1, 2, 3, 5]] = solution.weights
    return rebuilt(wider, W)


def rebuilt(problem, W, **options):
    return solution_from_weights(
        problem, W, STEPS, **{"status": Status.CONVERGED, "success": True, "method": "test",
                              **options})


@cache
def solved(name, seed):
    smooth = {"activation": "smooth_relu", "epsilon": 0.2}
    if name == "dead":
        return with_a_dead_neuron(solved("relu", seed))
    if name == "hard":
        rng = np.random.default_rng(seed)
        problem = hs.TrainingProblem(rng.standard_normal((3, 4)), width=4, weight_decay=0.05,
                                     endpoint=rng.standard_normal((4, 3)), effective_depth=2.0,
                                     **smooth)
        return hs.solve(problem, hs.DirectMultipleShooting(layers=5, steps=STEPS))
    if name == "geodesic":
        problem = teacher(dims=(2, 1, 2), samples=4, width=2, effective_depth=2.0,
                          weight_decay=0.02, seed=seed, **smooth)
        return hs.solve(problem, hs.IndirectShooting(segments=5))
    if name == "rk4":
        method = hs.DirectMultipleShooting(layers=5, steps=STEPS, integrator="rk4", starts=1)
        return hs.solve(teacher(seed=seed, **smooth), method)
    if name == "smoothed":
        method = hs.DirectSingleShooting(layers=5, steps=STEPS, polish=False, starts=1)
        return hs.solve(teacher(seed=seed), method)
    options = {"relu": {}, "smooth": smooth, "linear": {"activation": "linear"}}[name]
    return hs.solve(teacher(seed=seed, **options),
                    hs.DirectSingleShooting(layers=5, steps=STEPS, starts=1, seed=seed))


def certify(solution, **options):
    return hs.certify(solution, second_order=False, **options)


# -- nothing altered -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", [*LAYERED, "geodesic"])
def test_it_holds_where_nothing_was_altered(name, seed, tmp_path):
    solution = solved(name, seed)
    assert solution.success, solution.message
    for same in (solution, hs.Solution.load(solution.save(tmp_path / "same"))):
        proof = certify(same)
        assert proof.holds, proof
        assert proof.reasons == proof.failures == ()
    if name == "dead":
        assert proof.kinks == certify(solved("relu", seed)).kinks + proof.idle_kinks
        assert proof.idle_kinks >= 12 * (len(STEPS) - 1)
    assert (proof.kinks > 0) == (name in ("relu", "dead"))


@pytest.mark.parametrize("seed", SEEDS)
def test_it_holds_for_a_trained_network_whose_stationarity_is_asked_for(seed):
    trained = hs.train(teacher(seed=seed), layers=5, steps=STEPS, seed=seed,
                       optimizer=hs.Adam(rate=0.03, epochs=300))
    assert certify(trained, stationarity=trained.stationarity * (1 + 1e-9)).holds
    assert not certify(trained, stationarity=trained.stationarity * (1 - 1e-9)).holds
    assert certify(trained).reasons == (
        "the status, trained, claims no stationary point, and no bound on the stationarity was "
        "asked for",)
    for name in ("stationarity", "gradient_norm", "clarke_residual"):
        residuals = {**trained.residuals, name: trained.residuals[name] * (1 + 1e-9)}
        proof = certify(trained.replace(residuals=residuals), stationarity=np.inf)
        assert [b.name for b in proof.failures] == [
            f"recorded against recomputed {name.replace('_', ' ')}"]


# -- stored arrays ---------------------------------------------------------------------------------


def altered_array(solution, name, size, rng):
    """One entry changed by `size` times the root mean square of its node or layer."""
    array = np.array(getattr(solution, name))
    at = tuple(rng.integers(n) for n in array.shape)
    scale = np.sqrt(np.mean(array[at[0]] ** 2)) if array.ndim > 1 else array.max()
    array[at] += rng.choice([-1, 1]) * size * scale
    return solution.replace(**{name: array}), at


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LAYERED)
def test_every_array_of_a_layered_solution_is_checked(name, size):
    rng = np.random.default_rng(0)
    for seed in SEEDS:
        for array in ("p", "representations", "momenta", "weights", "steps"):
            for _ in range(8):
                changed, at = altered_array(solved(name, seed), array, size, rng)
                assert certify(changed).failures, (seed, array, at)


@pytest.mark.parametrize("name", ["relu", "dead", "smooth", "linear"])
def test_every_entry_is_checked_to_its_own_last_digits(name):
    """A relative change by 1e-9 of entries that are not themselves the rest of a cancellation."""
    rng = np.random.default_rng(1)
    for array in ("representations", "momenta", "weights"):
        values = np.array(getattr(solved(name, 0), array))
        typical = np.sqrt(np.mean(values**2, axis=(1, 2), keepdims=True))
        large = np.argwhere(np.abs(values) > 0.1 * typical)
        for at in map(tuple, rng.permutation(large)[:30]):
            changed = values.copy()
            changed[at] *= 1 + 1e-9
            assert certify(solved(name, 0).replace(**{array: changed})).failures, (array, at)


# A differs from what DOP853 integrates by up to 1e-9 of the norm of a node, and that is what moves
# of a node by 1e-8 may change as well. B is checked through the controls L̃Bσ̂(A)ᵀ, to rounding.
@pytest.mark.parametrize(("array", "least"), [
    ("p", 1e-7), ("representations", 1e-8), ("momenta", 1e-9), ("weights", 1e-9)])
def test_every_array_of_a_geodesic_is_checked_to_what_the_integrator_resolves(array, least):
    rng = np.random.default_rng(2)
    for seed in SEEDS:
        for size in (least, 1e-3, 1.0):
            for _ in range(3):
                changed, at = altered_array(solved("geodesic", seed), array, size, rng)
                assert certify(changed).failures, (seed, size, at)


@pytest.mark.parametrize("name", LAYERED)
def test_arrays_that_are_consistent_elsewhere_do_not_fit_here(name):
    solution, other = solved(name, 0), solved(name, 1)
    assert certify(solution.replace(steps=STEPS[::-1])).failures
    assert certify(solution.replace(steps=STEPS[[1, 0, 2, 3, 4]])).failures
    assert certify(solution.replace(p=solution.p**2)).failures
    assert "nodes p against the steps" in [
        b.name for b in certify(solution.replace(p=0.9 * solution.p, steps=0.9 * STEPS)).failures]
    assert certify(solution.replace(weights=solution.weights[::-1])).failures
    for array in ("representations", "momenta", "weights"):
        assert certify(solution.replace(**{array: getattr(other, array)})).failures
    # All that other solution but the problem, whose data the formulas start from.
    assert certify(other.replace(problem=solution.problem)).failures


@pytest.mark.parametrize("name", [*LAYERED, "geodesic"])
def test_the_problem_of_a_solution_is_the_one_it_solves(name):
    solution, rng = solved(name, 0), np.random.default_rng(3)
    problem = solution.problem
    numbers = ["effective_depth", "weight_decay"]
    if problem.activation == "smooth_relu":
        problem = problem.replace(epsilon=problem.sigma.epsilon)
        altered = [problem.replace(epsilon=problem.sigma.epsilon * (1 + 1e-8))]
    else:
        altered = []
    if problem.hard_endpoint:
        numbers.remove("weight_decay")  # λ scales J alone, and that is checked below
    altered += [problem.replace(**{k: getattr(problem, k) * (1 + 1e-8)}) for k in numbers]
    for array in ["X", "lift", *(["endpoint"] if problem.hard_endpoint else ["Y", "readout"])]:
        values = np.array(getattr(problem, array), dtype=float)
        # An entry that matters: what multiplies a dead neuron's zeros does not.
        rows, columns = np.nonzero(values)
        k = rng.integers(len(rows))
        values[rows[k], columns[k]] *= 1 + 1e-7
        altered.append(problem.replace(**{array: values}))
    for other in altered:
        assert certify(solution.replace(problem=other)).failures, other
    heavier = problem.replace(weight_decay=problem.weight_decay * (1 + 1e-8))
    assert certify(solution.replace(problem=heavier)).failures


# -- recorded numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2e-9, 1e-6, 1e-3, 1.0])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", [*LAYERED, "geodesic"])
def test_every_recorded_number_is_checked_against_itself(name, seed, size):
    solution = solved(name, seed)
    for number in ("objective", "loss", "parameter_norm"):
        value = getattr(solution, number)
        for factor in (1 + size, 1 - size):
            changed = solution.replace(**{number: value * factor if value else size})
            assert [b.name for b in certify(changed).failures] == [
                f"recorded against recomputed {number.replace('_', ' ')}"]
    residuals = ["stationarity", "boundary_residual",
                 *(["hamiltonian_drift"] if name == "geodesic" else ["gradient_norm", "defect"])]
    if name not in ("relu", "dead", "geodesic"):  # there it is what the polish began with, or none
        residuals += ["smooth_stationarity", "smooth_objective"]
    if name in ("relu", "dead", "smoothed"):
        residuals.append("clarke_residual")
    for number in residuals:
        changed = {**solution.residuals, number: solution.residuals[number] + size}
        assert [b.name for b in certify(solution.replace(residuals=changed)).failures] == [
            f"recorded against recomputed {number.replace('_', ' ')}"]
    if name == "geodesic":
        for number in ("epsilon", "hamiltonian"):
            changed = {**solution.extra, number: solution.extra[number] * (1 + size)}
            assert len(certify(solution.replace(extra=changed)).failures) == 1
    elif name not in ("relu", "dead", "linear", "smoothed"):
        changed = {**solution.residuals, "epsilon": solution.residuals["epsilon"] * (1 + size)}
        assert [b.name for b in certify(solution.replace(residuals=changed)).failures] == [
            "recorded against given ε"]


def test_a_small_objective_is_checked_against_itself():
    """J = 9e-7: what was 9e-10 of 1 is a thousandth of it."""
    problem = hs.TrainingProblem(1e-3 * np.eye(3), 1e-3 * np.eye(3)[::-1], width=3,
                                 effective_depth=2.0, weight_decay=1e-7, activation="linear")
    solution = hs.solve(problem, hs.DirectSingleShooting(layers=5, steps=STEPS, starts=1))
    proof = certify(solution, stationarity=np.inf)
    assert proof.holds, proof
    assert solution.objective < 2e-6
    for change in (9e-10, 1e-15):
        changed = solution.replace(objective=solution.objective + change)
        assert len(certify(changed, stationarity=np.inf).failures) == 1


@pytest.mark.parametrize("name", [*LAYERED, "geodesic"])
def test_kinks_are_counted(name):
    solution = solved(name, 0)
    for kinks in {0, solution.kinks - 1, solution.kinks + 1} - {solution.kinks}:
        assert [b.name for b in certify(solution.replace(kinks=kinks)).failures] == [
            "recorded against counted kinks"]


@pytest.mark.parametrize("name", [*LAYERED, "geodesic"])
def test_no_other_status_passes(name):
    """What CONVERGED and SMOOTHED claim is checked, and whatever else claims nothing."""
    solution = solved(name, 0)
    for status in set(Status) - {solution.status}:
        for success in (True, False):
            proof = certify(solution.replace(status=status, success=success))
            assert proof.reasons, status
    assert certify(solution.replace(success=False)).reasons == (
        f"no success is recorded with the status {solution.status.name.lower()}, which claims it",)


def test_a_smoothed_network_is_stationary_at_the_epsilon_it_names():
    solution = solved("smoothed", 0)
    assert solution.status is Status.SMOOTHED
    for factor in (1 + 1e-5, 0.5, 2.0):
        changed = {**solution.residuals, "epsilon": solution.residuals["epsilon"] * factor}
        assert certify(solution.replace(residuals=changed)).failures
    nothing = {k: v for k, v in solution.residuals.items() if k != "epsilon"}
    proof = certify(solution.replace(residuals=nothing))
    assert proof.reasons[0].startswith("stationarity of a smoothed network, of which no ε is known")
    polished = solved("relu", 0)
    assert polished.residuals["epsilon"] > 0
    proof = certify(polished.replace(status=Status.SMOOTHED))
    assert "stationarity of the smoothed network" in [b.name for b in proof.failures]


def test_a_momentum_that_asks_for_a_slope_outside_the_unit_interval_is_no_witness():
    """A consistent costate, but with d = 1.5 or −0.5 at one entry on the kink."""
    solution = solved("relu", 0)
    problem, W, A = solution.problem, solution.weights, solution.representations
    own = clarke_residual(problem, A, W, STEPS)
    at = tuple(np.argwhere(own.on_kink)[0])
    for d in (1.5, -0.5, 0.5 * own.slopes[at]):
        slopes = own.slopes.copy()
        slopes[at] = d
        B, G = discrete.costates(problem, A, W, STEPS, slopes=slopes)
        proof = certify(solution.replace(momenta=B, residuals={
            **solution.residuals, "stationarity": discrete.stationarity(W, G),
            "gradient_norm": blockwise.gradient_norm(problem, STEPS, G),
            "clarke_residual": blockwise.gradient_norm(problem, STEPS, G)}))
        inside = 0 <= d <= 1
        assert next(b.name for b in proof.failures if "recorded" not in b.name) == (
            "stationarity" if inside else "defect of the momenta")


@pytest.mark.parametrize("argument", ["stationarity", "defect", "boundary_residual", "drift",
                                      "agreement"])
def test_a_bound_that_is_no_bound_is_refused(argument):
    for value in (-1.0, float("nan")):
        with pytest.raises(ValueError, match=f"{argument}: expected a number >= 0, got"):
            certify(solved("smooth", 0), **{argument: value})


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
@pytest.mark.parametrize("name", [*LAYERED, "geodesic"])
def test_what_is_not_finite_is_answered_not_raised(name, value):
    solution = solved(name, 0)
    for array in ("representations", "momenta", "weights"):
        changed = np.array(getattr(solution, array))
        changed[1, 0, 1] = value
        proof = hs.certify(solution.replace(**{array: changed}))
        assert proof.failures
        assert not proof.holds
        assert json.loads(json.dumps(proof.to_dict(), allow_nan=False))["holds"] is False


# -- by blocks of samples --------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch):
    """Limits at which 12 samples are too many to store, in blocks of 5."""
    monkeypatch.setattr(blockwise, "MOST_STORED", 50)
    monkeypatch.setattr(layers, "BLOCK_NUMBERS", 5 * 6 * 4)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("name", ["smooth", "linear", "smoothed"])
def test_what_is_left_of_a_solution_without_states_is_checked(name):
    whole = solved(name, 0)
    solution = whole.replace(representations=None, momenta=None)
    assert not solution.stored
    proof, stored = certify(solution), certify(whole)
    assert proof.holds, proof
    for number in ("objective", "loss", "parameter_norm", "hamiltonian", "hamiltonian_drift"):
        assert getattr(proof, number) == pytest.approx(getattr(stored, number), rel=1e-12)
    rng = np.random.default_rng(4)
    for size in (1e-6, 1e-3, 1.0):
        for array in ("p", "weights", "steps"):
            changed, at = altered_array(solution, array, size, rng)
            assert certify(changed).failures, (size, array, at)
        for number in ("objective", "loss", "parameter_norm"):
            changed = solution.replace(**{number: getattr(solution, number) * (1 + size)})
            assert len(certify(changed).failures) == 1
    assert certify(solution.replace(kinks=1)).failures


# -- formulas of the solvers, broken ---------------------------------------------------------------


def euler(leak=1.0, own=1.0):
    def step(problem, A, W, rho):
        S = ham.augmented(A, problem.sigma, problem.bias)
        return (1 - leak * rho * problem.effective_depth) * A + own * rho * W @ S
    return step


def adjoint(leak=1.0, slope=True, transposed=True, own=1.0):
    def step(problem, A, W, rho, B, slopes=None):
        d = problem.sigma.slope(A) if slopes is None else slopes
        S, V = ham.augmented(A, problem.sigma, problem.bias), W[:, : problem.width]
        pull = (V.T if transposed else V) @ B
        left = (1 - leak * rho * problem.effective_depth) * B + rho * (d * pull if slope else pull)
        return left, own * B @ S.T
    return step


def after(function, change):
    """A function whose result is changed."""
    return lambda *args, **options: change(function(*args, **options))


def shifted(pair):
    """G with the momentum of the layer before in place of its own: an index of ℓ off by one."""
    B, G = pair
    return B, np.roll(G, 1, axis=0)


def ones_first(A, activation, bias=True):
    return np.concatenate([np.ones((1, A.shape[1])), activation(A)])


ORIGINAL = {name: getattr(discrete, name) for name in (
    "roll_out", "objective", "costates", "stationarity", "boundary_residual")}
BROKEN = {
    "leak of the roll-out with the other sign": (discrete, "_euler_step", euler(leak=-1.0)),
    "leak of the roll-out left out": (discrete, "_euler_step", euler(leak=0.0)),
    "weights of the roll-out with the other sign": (discrete, "_euler_step", euler(own=-1.0)),
    "weights of the roll-out in another order": (
        discrete, "roll_out", lambda problem, W, steps, *rest: ORIGINAL["roll_out"](
            problem, W[::-1], steps, *rest)),
    "steps of the roll-out in another order": (
        discrete, "roll_out", lambda problem, W, steps, *rest: ORIGINAL["roll_out"](
            problem, W, np.roll(steps, 1), *rest)),
    "last node of the roll-out twice": (
        discrete, "roll_out", after(ORIGINAL["roll_out"],
                                    lambda A: np.concatenate([A[:-1], A[-2:-1]]))),
    "row of ones first": (ham, "augmented", ones_first),
    "weight decay with the other sign": (
        discrete, "objective",
        after(ORIGINAL["objective"], lambda x: (2 * x[1] - x[0], x[1], x[2]))),
    "weight decay twice": (
        discrete, "objective",
        after(ORIGINAL["objective"], lambda x: (2 * x[0] - x[1], x[1], x[2]))),
    "norm without the steps": (
        discrete, "objective",
        lambda problem, end, W, steps: ORIGINAL["objective"](problem, end, W, np.ones_like(steps))),
    "loss of all but the first output": (
        ham, "loss", lambda A, Q, Y, _: np.sum((Q @ A - Y)[1:] ** 2) / A.shape[1]),
    "loss not divided by N": (ham, "loss", lambda A, Q, Y, _: np.sum((Q @ A - Y) ** 2)),
    "terminal momentum with the other sign": (
        ham, "terminal_momentum", after(ham.terminal_momentum, lambda B: -B)),
    "terminal momentum without its factor 2": (
        ham, "terminal_momentum", after(ham.terminal_momentum, lambda B: B / 2)),
    "terminal momentum of the next sample": (
        ham, "terminal_momentum", after(ham.terminal_momentum, lambda B: np.roll(B, 1, axis=1))),
    "leak of the costate with the other sign": (discrete, "_euler_adjoint", adjoint(leak=-1.0)),
    "leak of the costate left out": (discrete, "_euler_adjoint", adjoint(leak=0.0)),
    "slope left out": (discrete, "_euler_adjoint", adjoint(slope=False)),
    "weights not transposed": (discrete, "_euler_adjoint", adjoint(transposed=False)),
    "gradient with the other sign": (discrete, "_euler_adjoint", adjoint(own=-1.0)),
    "gradients of the layers before": (
        discrete, "costates", after(ORIGINAL["costates"], shifted)),
    "momenta one node on": (
        discrete, "costates",
        after(ORIGINAL["costates"], lambda x: (np.roll(x[0], 1, axis=0), x[1]))),
    "stationarity of no layer": (discrete, "stationarity", lambda W, G: 0.0),
    "stationarity without the bias": (
        discrete, "stationarity", lambda W, G: ORIGINAL["stationarity"](W, G[:, :, :-1])),
    "stationarity of all layers but the first": (
        discrete, "stationarity", lambda W, G: ORIGINAL["stationarity"](W[1:], G[1:])),
    "boundary residual a billionth too large": (
        discrete, "boundary_residual", after(ORIGINAL["boundary_residual"], lambda x: x + 1e-9)),
    "slopes of the kink mirrored": (
        evaluate, "clarke_residual", after(clarke.clarke_residual, lambda r: r._replace(
            slopes=np.where(r.on_kink, 1 - r.slopes, r.slopes)))),
    "slopes of the kink a layer off": (
        evaluate, "clarke_residual", after(clarke.clarke_residual, lambda r: r._replace(
            slopes=np.where(r.on_kink, np.roll(r.slopes, 1, axis=0), r.slopes)))),
    "no entry on the kink": (
        evaluate, "clarke_residual", after(clarke.clarke_residual, lambda r: r._replace(
            on_kink=np.zeros_like(r.on_kink)))),
    "Clarke residual a billionth too large": (
        evaluate, "clarke_residual", after(clarke.clarke_residual, lambda r: r._replace(
            residual=r.residual + 1e-9))),
    "slope of the activation mirrored": (
        Activation, "slope", after(Activation.slope, lambda d: 1 - d)),
    "activation with the other sign": (
        Activation, "__call__", after(Activation.__call__, lambda x: -x)),
}
#: What a network away from its optimum tells apart, and an optimal one does not.
AWAY = {"stationarity of no layer", "stationarity without the bias",
        "stationarity of all layers but the first", "gradients of the layers before"}
#: What a smooth network does not have, and a linear one.
NOT_SMOOTH = {"slopes of the kink mirrored", "slopes of the kink a layer off",
              "no entry on the kink", "Clarke residual a billionth too large"}
NOT_LINEAR = NOT_SMOOTH | {"slope left out"}


@pytest.mark.parametrize(("name", "broken"), [
    *(("relu", broken) for broken in BROKEN),
    *(("smooth", broken) for broken in BROKEN if broken not in NOT_SMOOTH),
    *(("linear", broken) for broken in BROKEN if broken not in NOT_LINEAR)])
def test_a_broken_formula_is_noticed(monkeypatch, name, broken):
    solution = solved(name, 0)
    W = np.array(solution.weights)
    if broken in AWAY:
        W += 1e-3 * np.random.default_rng(5).standard_normal(W.shape)
    assert not certify(rebuilt(solution.problem, W)).failures or broken in AWAY
    with monkeypatch.context() as patch:
        where, what, wrong = BROKEN[broken]
        patch.setattr(where, what, wrong)
        proof = certify(rebuilt(solution.problem, W))
    others = {b.name for b in proof.failures} - {"stationarity"}
    assert others, proof


@pytest.mark.parametrize("wrong", ["bias", "first layer", "sign", "next layer"])
def test_a_broken_gradient_of_the_kernels_is_noticed(monkeypatch, wrong):
    """The network that gradient descent ends at with it, whatever it then claims."""
    gradient = EulerSweeps.gradient

    def broken(self, W):
        J, G = gradient(self, W)
        if wrong == "bias":
            G[:, :, -1] = 0
        elif wrong == "first layer":
            G[0] = 0
        elif wrong == "sign":
            G[1] *= -1
        else:
            G[:] = np.roll(G, 1, axis=0)
        return J, G

    monkeypatch.setattr(EulerSweeps, "gradient", broken)
    problem = teacher("smooth_relu", epsilon=0.2, seed=0)
    solution = hs.train(problem, layers=5, steps=STEPS, seed=0,
                        optimizer=hs.Adam(rate=0.03, epochs=500))
    claimed = solution.replace(status=Status.CONVERGED, success=True)
    assert "stationarity" in [b.name for b in certify(claimed).failures]


def backwards(function):
    """A and B exchanged."""
    return lambda A, B, **settings: function(B, A, **settings)


FLOWS = {
    "velocity with the other sign": ("velocity", lambda f: after(f, lambda x: -x)),
    "force with the other sign": ("force", lambda f: after(f, lambda x: -x)),
    "A and B exchanged in the velocity": ("velocity", backwards),
    "A and B exchanged in the force": ("force", backwards),
    "force of the next sample": ("force", lambda f: after(f, lambda x: np.roll(x, 1, axis=1))),
    "velocity of the next neuron": (
        "velocity", lambda f: after(f, lambda x: np.roll(x, 1, axis=0))),
    "controls with the other sign": ("control", lambda f: after(f, lambda x: -x)),
    "controls transposed": (
        "control", lambda f: after(f, lambda x: np.hstack([x[:, :-1].T, x[:, -1:]]))),
}


def path_of(problem, A0, B0, nodes=9):
    """A trajectory of the reference flow, with the targets for which it is extremal."""
    flow = {"effective_depth": problem.effective_depth, "activation": problem.sigma,
            "bias": problem.bias}

    def rates(_, y):
        a, b = y[:-1].reshape(2, *A0.shape)
        W = ham.control(a, b, **flow)
        return np.concatenate([*(x.ravel() for x in ham.flow(a, b, **flow)), [np.sum(W * W)]])

    p = np.linspace(0, 1, nodes)
    start = np.concatenate([A0.ravel(), B0.ravel(), [0]])
    y = solve_ivp(rates, (0, 1), start, method="DOP853", rtol=1e-12, atol=1e-13, t_eval=p).y
    A, B = y[:-1].T.reshape(nodes, 2, *A0.shape).swapaxes(0, 1)
    Y = A[-1] + problem.weight_decay * problem.n_samples / 2 * B[-1]
    problem = problem.replace(Y=Y.T)
    loss, norm = float(ham.loss(A[-1], problem.readout, problem.targets)), float(y[-1, -1])
    return hs.Solution(
        problem=problem, p=p, representations=A, momenta=B, loss=loss, parameter_norm=norm,
        weights=np.array([ham.control(a, b, **flow) for a, b in zip(A, B, strict=True)]),
        objective=loss + problem.weight_decay / (2 * problem.effective_depth) * norm, success=True,
        status=Status.CONVERGED, message="", nit=0, residuals={"stationarity": 0.0}, history=(),
        seconds=0.0, method="exact", integrator="flow")


@pytest.mark.parametrize("activation", ["smooth_relu", "linear"])
@pytest.mark.parametrize("broken", FLOWS)
def test_a_broken_flow_is_noticed(monkeypatch, broken, activation):
    rng = np.random.default_rng(6)
    problem = hs.TrainingProblem(
        0.5 * rng.standard_normal((4, 3)), np.zeros((4, 3)), effective_depth=0.5, weight_decay=0.1,
        width=3, activation=activation, **({"epsilon": 0.3} if "smooth" in activation else {}))
    B0 = 0.3 * rng.standard_normal((3, 4))
    proof = certify(path_of(problem, problem.initial_state, B0))
    assert proof.holds, proof
    name, wrong = FLOWS[broken]
    monkeypatch.setattr(ham, name, wrong(getattr(ham, name)))
    assert certify(path_of(problem, problem.initial_state, B0)).failures
