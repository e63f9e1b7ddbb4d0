"""Gradient descent: the textbook's optimisers, an honest grid, and ends that can be trusted."""

import signal
import threading
from functools import cache, partial

import numpy as np
import problems
import pytest

import hamshoot as hs
from hamshoot.dynamics.sweeps import EulerSweeps
from hamshoot.methods.common.starts import equidistant_steps, starting_weights
from hamshoot.methods.descent.epochs import EpochLoop, largest_curvature
from hamshoot.methods.descent.grid import pilot_epochs
from hamshoot.methods.descent.optimizers import (
    HOLD,
    SCHEDULES,
    SGD,
    Adam,
    held_epochs,
    optimizer_named,
    schedule_factors,
)
from hamshoot.methods.descent.train import train
from hamshoot.network.layer_steps import irregular_steps, relative_changes
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.solution.solution import Status
from hamshoot.theory import closed_forms as exact

SHORT = Adam(rate=0.03, epochs=300, sgd_epochs=60, schedule="cosine")

teacher = partial(problems.teacher, effective_depth=2.0, weight_decay=1e-2, seed=0)


def hard_endpoint():
    return hs.TrainingProblem(X=np.eye(2), endpoint=np.ones((2, 2)), width=2, effective_depth=2.0,
                              weight_decay=1e-2)


@cache
def trained():
    return train(teacher(), 8, optimizer=SHORT)


# -- against PyTorch -------------------------------------------------------------------------------


def torch_values(problem, weights, steps, make, epochs, schedule=None):
    """J at every epoch of a torch optimiser on the same network, float64."""
    torch = pytest.importorskip("torch")
    W = torch.tensor(weights, dtype=torch.float64, requires_grad=True)
    A0, Q, Y = (torch.tensor(np.array(x)) for x in
                (problem.initial_state, problem.readout, problem.targets))
    depth, decay, N = problem.effective_depth, problem.weight_decay, problem.n_samples
    optimizer = make(torch, [W])
    scheduler = None
    if schedule is not None:
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    values = []
    for _ in range(epochs):
        optimizer.zero_grad()
        A = A0
        for rho, layer in zip(steps, W, strict=True):
            if problem.activation == "relu":
                S = torch.relu(A)
            else:
                S = 0.5 * (A + torch.sqrt(A * A + problem.sigma.epsilon**2))
            if problem.bias:
                S = torch.cat([S, torch.ones((1, N), dtype=torch.float64)])
            A = (1 - rho * depth) * A + rho * layer @ S
        norm = sum(rho * torch.sum(layer**2) for rho, layer in zip(steps, W, strict=True))
        J = torch.sum((Q @ A - Y) ** 2) / N + decay / (2 * depth) * norm
        J.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        values.append(J.item())
    return np.array(values)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ["relu", "smooth_relu"])
@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_every_epoch_is_that_of_torch(activation, bias, name):
    problem, steps = teacher(activation, bias=bias), irregular_steps(8)
    weights = starting_weights(problem, steps, "path", 3)
    if name == "adam":
        loop = EpochLoop(EulerSweeps(problem, steps), weights, adam=True, beta1=0.8, beta2=0.99,
                         epsilon=1e-6)
        expected = torch_values(problem, weights, steps, lambda torch, W: torch.optim.Adam(
            W, lr=0.02, betas=(0.8, 0.99), eps=1e-6), 50)
        rates = np.full(50, 0.02)
    else:
        loop = EpochLoop(EulerSweeps(problem, steps), weights, adam=False, beta1=0.7)
        expected = torch_values(problem, weights, steps, lambda torch, W: torch.optim.SGD(
            W, lr=0.05, momentum=0.7), 50)
        rates = np.full(50, 0.05)
    ours = np.concatenate([loop.run(rates[:20]), loop.run(rates[20:])])  # chunks go on seamlessly
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-8)
    assert np.ptp(expected) > 1e-2


FACTORS = {
    "constant": lambda e: 1.0,
    "decay": lambda e: min(1.0, (1 - e / 100) / (1 - HOLD)),
    "cosine": lambda e: 0.5 * (1 + np.cos(np.pi * e / 100)),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_a_schedule_is_that_of_torch(schedule, name):
    problem, steps = teacher("smooth_relu"), equidistant_steps(8)
    weights = starting_weights(problem, steps)
    options = dict(epochs=100, schedule=schedule)
    if name == "adam":
        optimizer = Adam(rate=0.02, sgd_epochs=0, **options)
        expected = torch_values(problem, weights, steps, lambda torch, W: torch.optim.Adam(
            W, lr=0.02), 101, FACTORS[schedule])
    else:
        optimizer = SGD(rate=0.05, **options)
        expected = torch_values(problem, weights, steps, lambda torch, W: torch.optim.SGD(
            W, lr=0.05, momentum=0.9), 101, FACTORS[schedule])
    solution = train(problem, 8, optimizer=optimizer, initial_guess=weights)
    assert solution.nit == 100
    records = [record.objective for record in solution.history]
    if schedule != "cosine":  # they stop at the decay, which a constant run may leave there
        assert len(records) == 3
        assert abs(records.pop(1) - expected[held_epochs(100)]) < 1e-8
    np.testing.assert_allclose(records, expected[[50, 100]], rtol=0, atol=1e-8)
    assert solution.objective == pytest.approx(expected.min(), rel=1e-9)
    other = torch_values(problem, weights, steps, lambda torch, W: torch.optim.Adam(W, lr=0.02),
                         101, FACTORS["decay" if schedule == "cosine" else "cosine"])
    assert abs(records[-1] - other[100]) > 1e-5


def test_the_decay_is_constant_and_then_falls_evenly():
    factors = schedule_factors("decay", 1000)
    held = held_epochs(1000)
    assert held == round(1000 * HOLD)
    np.testing.assert_array_equal(factors[:held], 1.0)
    np.testing.assert_allclose(np.diff(factors[held:]), -1 / (1000 - held), rtol=1e-10)
    assert factors[-1] == pytest.approx(1 / (1000 - held))
    for schedule in SCHEDULES:
        assert schedule_factors(schedule, 1).tolist() == [1.0]


# -- the recipe ------------------------------------------------------------------------------------


def test_training_lowers_the_objective_and_says_how_it_ended():
    problem, solution = teacher(), trained()
    before = solution_from_weights(
        problem, starting_weights(problem, solution.steps, "path", 0), solution.steps,
        status=Status.MAX_ITER, success=False, method="start")
    assert solution.success
    assert solution.status is Status.TRAINED
    assert solution.objective < 0.5 * before.objective
    assert solution.method == "gradient descent (adam)"
    assert solution.nit == 360
    records = [record.objective for record in solution.history]
    assert solution.objective <= min(records) * (1 + 1e-12)
    assert "grid_seconds" not in solution.extra


def test_descent_after_adam_lowers_the_objective_at_a_stable_rate():
    alone = train(teacher(), 8, optimizer=Adam(rate=0.03, epochs=300, sgd_epochs=0,
                                               schedule="cosine"))
    both = trained()
    assert both.objective < alone.objective * (1 - 1e-4)
    sweeps = EulerSweeps(teacher(), alone.steps)
    curvature = largest_curvature(sweeps, alone.weights)
    assert 0 < both.extra["sgd_rate"] < 2 * 1.9 / curvature


def test_the_largest_curvature_is_that_of_the_hessian():
    problem, steps = teacher("smooth_relu", width=2, dims=(2, 1, 2)), equidistant_steps(4)
    sweeps, W = EulerSweeps(problem, steps), starting_weights(problem, equidistant_steps(4))
    columns = []
    for unit in np.eye(W.size):
        d = 1e-5 * unit.reshape(W.shape)
        columns.append((sweeps.gradient(W + d)[1].copy() - sweeps.gradient(W - d)[1]) / 2e-5)
    largest = np.abs(np.linalg.eigvalsh(np.array(columns).reshape(W.size, -1))).max()
    found = largest_curvature(sweeps, W, iterations=50)
    assert 0.95 * largest < found < 1.001 * largest


@pytest.mark.parametrize("steps", ["equidistant", "adaptive"])
def test_the_grid_takes_the_lowest_of_its_rates_and_schedules(steps):
    rates = (1e-5, 0.003, 0.03, 0.1)
    options = dict(epochs=503, sgd_epochs=0)  # no multiple of anything
    grid = train(teacher(), 8, steps, Adam(rates=rates, **options))
    each = {(rate, schedule): train(teacher(), 8, steps, Adam(
        rate=rate, schedule=schedule, **options)) for rate in rates for schedule in SCHEDULES}
    rows = grid.extra["grid"]
    assert [(row["rate"], row["schedule"]) for row in rows] == list(each)
    in_full = [row for row in rows if row["objective"] is not None]
    counts = [sum(row["schedule"] == schedule for row in in_full) for schedule in SCHEDULES]
    assert counts == [2, 2, 2]
    for row in in_full:  # also where constant and decay shared their beginning
        alone = each[row["rate"], row["schedule"]]
        assert row["objective"] == pytest.approx(alone.objective, rel=1e-13)
        assert {"rate": row["rate"], "schedule": row["schedule"]}.items() <= alone.extra.items()
    lowest = min(in_full, key=lambda row: row["objective"])
    assert (grid.extra["rate"], grid.extra["schedule"]) == (lowest["rate"], lowest["schedule"])
    assert grid.objective == pytest.approx(lowest["objective"], rel=1e-13)
    assert grid.objective == min(one.objective for one in each.values())
    assert f"rate {lowest['rate']:g}, schedule {lowest['schedule']}, chosen from 12" in grid.message
    assert grid.extra["grid_seconds"] > grid.seconds > 0


def test_pilots_rank_the_rates_of_one_schedule_and_never_the_schedules():
    grid = train(teacher(), 8, optimizer=Adam(rates=(1e-5, 0.003, 0.03, 0.1), epochs=500,
                                              sgd_epochs=30)).extra["grid"]
    for schedule in SCHEDULES:
        rows = [row for row in grid if row["schedule"] == schedule]
        assert len(rows) == 4
        order = sorted(rows, key=lambda row: row["pilot_objective"])
        assert [row["objective"] is not None for row in order] == [True, True, False, False]


def test_the_winner_is_the_lowest_of_the_full_runs_even_where_the_pilots_say_otherwise():
    turned = 0
    for seed in range(4):
        solution = train(teacher(), 8, seed=seed, optimizer=Adam(
            rates=(0.01, 0.1, 0.3), epochs=1000, sgd_epochs=0))
        rows = [row for row in solution.extra["grid"] if row["objective"] is not None]
        winner = min(rows, key=lambda row: row["objective"])
        assert solution.objective == pytest.approx(winner["objective"], rel=1e-13)
        assert (solution.extra["rate"], solution.extra["schedule"]) == (
            winner["rate"], winner["schedule"])
        turned += winner != min(rows, key=lambda row: row["pilot_objective"])
    assert turned > 0


@pytest.mark.parametrize(("finalists", "full"), [(1, 1), (3, 3), (4, 4), (9, 4)])
def test_as_many_rates_as_asked_for_run_in_full(finalists, full):
    rates = (1e-5, 0.003, 0.03, 0.1)
    grid = train(teacher(), 8, optimizer=SGD(rates=rates, epochs=300, finalists=finalists)).extra[
        "grid"]
    for schedule in SCHEDULES:
        rows = [row for row in grid if row["schedule"] == schedule]
        assert sum(row["objective"] is not None for row in rows) == full
        assert all((row["pilot_objective"] is None) is (finalists >= 4) for row in rows)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_given_schedule_is_used_alone(schedule):
    solution = train(teacher(), 8, optimizer=Adam(rates=(0.01, 0.03, 0.1), epochs=300,
                                                  sgd_epochs=30, schedule=schedule))
    grid = solution.extra["grid"]
    assert [row["schedule"] for row in grid] == [schedule] * 3
    assert solution.extra["schedule"] == schedule
    assert all(f" {schedule}, " in record.stage for record in solution.history)
    alone = train(teacher(), 8, optimizer=Adam(rate=0.03, epochs=300, sgd_epochs=30,
                                               schedules=[schedule]))
    assert len(alone.extra["grid"]) == 1
    assert alone.extra["schedule"] == schedule
    assert "grid_seconds" not in alone.extra
    assert f"(rate 0.03, schedule {schedule})" in alone.message


def test_a_constant_run_and_its_decay_share_their_beginning():
    optimizer = Adam(rate=0.03, epochs=1000, sgd_epochs=0, schedules=("constant", "decay"))
    records = []
    train(teacher(), 8, optimizer=optimizer, callback=records.append)
    last = [int(r.stage.split("epoch ")[1].split("/")[0]) for r in records]
    held = held_epochs(1000)
    at = last.index(1000) + 1
    assert last[:at] == list(range(50, 1001, 50))
    assert last[at:] == list(range(held + 50, 1001, 50))
    assert all("constant" in r.stage for r in records[:at])
    assert all("decay" in r.stage for r in records[at:])


def test_a_rate_that_diverges_is_left_out():
    solution = train(teacher(), 8, optimizer=SGD(rates=(1e6, 0.1, 1e7), epochs=300))
    assert solution.status is Status.TRAINED
    assert solution.extra["rate"] == 0.1
    assert solution.extra["grid"][:3] == [
        {"rate": 1e6, "schedule": schedule, "pilot_objective": None, "objective": None}
        for schedule in SCHEDULES]
    assert solution.method == "gradient descent (sgd)"


def test_the_best_of_starts_is_returned():
    solution = train(teacher(), 8, optimizer=SHORT, starts=3, seed=5)
    ends = solution.extra["start_objectives"]
    assert len(ends) == 3
    assert len(set(ends)) == 3
    assert solution.objective == pytest.approx(min(ends), rel=1e-12)
    single = train(teacher(), 8, optimizer=SHORT, seed=5)
    assert single.objective == pytest.approx(ends[0], rel=1e-12)


def test_other_starts_take_the_rate_and_schedule_that_the_grid_chose():
    grid = Adam(rates=(0.003, 0.03), epochs=200, sgd_epochs=0)
    solution = train(teacher(), 8, optimizer=grid, starts=2)
    assert solution.extra["rate"] == 0.03
    assert len(solution.extra["start_objectives"]) == 2
    alone = train(teacher(), 8, seed=1000, optimizer=Adam(
        rate=0.03, schedule=solution.extra["schedule"], epochs=200, sgd_epochs=0))
    assert solution.extra["start_objectives"][1] == pytest.approx(alone.objective, rel=1e-12)


def test_the_same_seed_gives_the_same_numbers():
    again = train(teacher(), 8, optimizer=SHORT)
    np.testing.assert_array_equal(again.weights, trained().weights)
    other = train(teacher(), 8, optimizer=SHORT, seed=1)
    assert abs(other.objective - again.objective) > 1e-8
    grid = Adam(rates=(0.01, 0.03, 0.1), epochs=300, sgd_epochs=30)
    first, second = (train(teacher(), 8, optimizer=grid) for _ in range(2))
    np.testing.assert_array_equal(first.weights, second.weights)
    assert first.extra["grid"] == second.extra["grid"]


def test_a_linear_scalar_reaches_its_closed_form():
    problem = hs.TrainingProblem(X=[[1.0]], Y=[[1.5]], width=1, effective_depth=1.0,
                                 weight_decay=0.05, activation="linear", bias=False,
                                 lift=np.eye(1), readout=np.eye(1))
    end = exact.scalar_soft_endpoint(1.0, 1.5, 1.0, 0.05, 6)
    J = exact.scalar_objective(1.0, end, 1.5, 1.0, 0.05, 6)
    for optimizer in (Adam(rate=0.03, epochs=2000, sgd_epochs=500), SGD(rate=1.0, epochs=2000)):
        solution = train(problem, 6, optimizer=optimizer)
        assert abs(solution.objective - J) < 1e-10
        assert abs(solution.representations[-1, 0, 0] - end) < 1e-5


# -- steps -----------------------------------------------------------------------------------------


def test_named_and_given_steps_are_the_same_mesh():
    named = train(teacher(), 8, steps="irregular", optimizer=SHORT)
    given = train(teacher(), 8, steps=irregular_steps(8), optimizer=SHORT)
    np.testing.assert_allclose(named.steps, irregular_steps(8), rtol=1e-14)
    assert named.objective == pytest.approx(given.objective, rel=1e-10)
    assert abs(named.objective - trained().objective) > 1e-8


def test_adaptive_steps_end_with_nearly_equal_changes():
    optimizer = Adam(rate=0.03, epochs=1500, sgd_epochs=100, schedule="cosine")
    fixed = train(teacher(), 8, optimizer=optimizer)
    solution = train(teacher(), 8, steps="adaptive", optimizer=optimizer)
    changes = relative_changes(solution.representations)
    before = relative_changes(fixed.representations)
    assert np.ptp(changes) < 0.2 * np.mean(changes)
    assert np.ptp(before) > 0.5 * np.mean(before)
    assert solution.objective < 1.1 * fixed.objective
    assert abs(solution.steps.sum() - 1) < 1e-12
    for rate in (0.03, 3.0):  # the second only wanders
        again = train(teacher(), 8, steps="adaptive", initial_guess=solution,
                      optimizer=Adam(rate=rate, epochs=300, sgd_epochs=0))
        assert again.objective <= solution.objective * (1 + 1e-12)


# -- continuing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["solution", "array"])
def test_a_guess_is_never_left_for_worse(kind):
    first = trained()
    guess = first if kind == "solution" else first.weights
    for rate in (1e-3, 1.0):  # the second only wanders
        solution = train(teacher(), 8, initial_guess=guess,
                         optimizer=Adam(rate=rate, epochs=100, sgd_epochs=0))
        assert solution.objective <= first.objective * (1 + 1e-13)
        assert solution.status is Status.TRAINED
    assert train(teacher(), 8, initial_guess=guess, optimizer=SHORT).objective < first.objective


def test_a_guess_goes_over_to_another_mesh():
    solution = train(teacher(), 12, initial_guess=trained(), optimizer=SHORT)
    assert solution.layers == 12
    assert solution.objective < 1.1 * trained().objective


# -- early ends ------------------------------------------------------------------------------------


def interrupt(record):
    raise KeyboardInterrupt


@pytest.mark.parametrize("stop", [interrupt, lambda record: True])
@pytest.mark.parametrize("after", [1, 4, 9])
def test_stopping_keeps_the_best_network(stop, after):
    records = []

    def callback(record):
        records.append(record)
        return stop(record) if len(records) == after else None

    solution = train(teacher(), 8, optimizer=SHORT, callback=callback)
    assert solution.status is Status.INTERRUPTED
    assert not solution.success
    assert len(records) == after == len(solution.history)
    assert solution.objective <= min(r.objective for r in records) * (1 + 1e-12)
    assert solution.objective < records[0].objective * (1 + 1e-12)
    assert "epoch" in records[-1].stage
    assert "rate 0.03" in records[-1].stage


@pytest.mark.parametrize("steps", ["equidistant", "adaptive"])
def test_a_signal_at_any_moment_keeps_the_best_network(steps):
    trained()  # so that everything is compiled
    timer = threading.Timer(0.4, signal.raise_signal, [signal.SIGINT])
    timer.start()
    solution = train(teacher(), 8, steps=steps, optimizer=Adam(rate=0.03, epochs=10**6))
    timer.join()
    assert solution.status is Status.INTERRUPTED
    assert solution.objective < 0.5


def test_a_truthy_answer_that_is_not_true_goes_on():
    solution = train(teacher(), 8, optimizer=SHORT, callback=lambda record: 1)
    assert solution.status is Status.TRAINED


def test_a_time_limit_is_kept():
    solution = train(teacher(), 8, time_limit=0.3, optimizer=Adam(rate=0.03, epochs=10**7))
    assert solution.status is Status.TIME_LIMIT
    assert not solution.success
    assert 0 < solution.nit < 10**6  # of epochs that would take minutes
    assert np.isfinite(solution.objective)


@pytest.mark.parametrize("optimizer", [
    SGD(rate=1e8, epochs=300),
    SGD(rates=(1e8, 1e9, 1e10), epochs=300),
    Adam(rate=1e200, epochs=300),
    Adam(rate=0.03, epochs=50, sgd_epochs=200, sgd_rate=1e8),
])
def test_divergence_is_said_and_leaves_finite_numbers(optimizer):
    solution = train(teacher(), 8, optimizer=optimizer)
    assert solution.status is Status.DIVERGED
    assert not solution.success
    for values in (solution.weights, solution.representations, solution.momenta):
        assert np.all(np.isfinite(values))
    assert np.isfinite(solution.objective)


def test_a_training_that_gets_nowhere_is_no_success():
    solution = train(teacher(), 8, optimizer=Adam(rate=100.0, epochs=50, sgd_epochs=0))
    assert solution.status is Status.STALLED
    assert not solution.success
    assert "start's objective" in solution.message


def test_a_trained_solution_is_saved_whole(tmp_path):
    solution = train(teacher(), 8, optimizer=SGD(rates=(1e8, 0.1, 0.2), epochs=300))
    again = hs.Solution.load(solution.save(tmp_path / "trained.npz"))
    assert again.extra == solution.extra
    assert again.status is Status.TRAINED
    assert [r.objective for r in again.history] == [r.objective for r in solution.history]
    assert again.history[-1] == solution.history[-1]


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("call", "complaint"), [
    (lambda: Adam(rate=0), "rate: expected a finite number > 0, got 0"),
    (lambda: Adam(rates=()), "rates: expected one or more"),
    (lambda: Adam(rates=(0.1, -1.0)), "rates: expected a finite number > 0, got -1"),
    (lambda: Adam(rates=0.1), "rates: expected one or more"),
    (lambda: Adam(epochs=0), "epochs: expected an integer >= 1, got 0"),
    (lambda: Adam(epochs=10.0), "epochs: expected an integer >= 1, got 10.0"),
    (lambda: Adam(beta1=1.0), r"beta1: expected a number in \[0, 1\), got 1.0"),
    (lambda: Adam(beta2=-0.1), r"beta2: expected a number in \[0, 1\)"),
    (lambda: Adam(epsilon=0.0), "epsilon: expected a finite number > 0"),
    (lambda: Adam(schedule="linear"), "schedule: expected one of constant, decay, cosine, got 'li"),
    (lambda: SGD(schedule=1), "schedule: expected one of constant, decay, cosine, got 1"),
    (lambda: Adam(schedules=()), "schedules: expected one or more of constant, decay, cosine, got"),
    (lambda: Adam(schedules="decay"), "schedules: expected one or more of constant, decay, cosine"),
    (lambda: Adam(finalists=0), "finalists: expected an integer >= 1, got 0"),
    (lambda: SGD(schedules=("decay", "step")), "schedules: expected one of .* got 'step'"),
    (lambda: schedule_factors("step", 10), "schedule: expected one of constant, decay, cosine"),
    (lambda: Adam(sgd_epochs=-1), "sgd_epochs: expected an integer >= 0"),
    (lambda: Adam(sgd_rate=float("nan")), "sgd_rate: expected a finite number > 0"),
    (lambda: SGD(momentum=True), r"momentum: expected a number in \[0, 1\), got True"),
    (lambda: SGD(rate="fast"), "rate: expected a finite number > 0, got 'fast'"),
    (lambda: optimizer_named("rmsprop", {}), "optimizer: expected one of adam, sgd, got 'rmsp"),
    (lambda: optimizer_named("sgd", {"beta1": 0.9}), "beta1: not an option of sgd; expected some "
                                                     "of rate, rates, epochs, momentum"),
    (lambda: train(teacher(), 2), "layers: equidistant steps need"),
    (lambda: train(teacher(), 8.0), "layers: expected an integer"),
    (lambda: train(teacher(), 8, steps="golden"), "steps: expected one of equidistant, irregular"),
    (lambda: train(teacher(), 8, steps=[0.5, 0.5]), "steps: expected 8 of them"),
    (lambda: train(teacher(), 8, optimizer="adam"), "optimizer: expected Adam"),
    (lambda: train(teacher(), 8, start="zero"), "start: expected one of"),
    (lambda: train(teacher(), 8, starts=0), "starts: expected an integer >= 1"),
    (lambda: train(teacher(), 8, seed=-1), "seed: expected an integer >= 0"),
    (lambda: train(teacher(), 8, noise=-1.0), "noise: expected"),
    (lambda: train(teacher(), 8, time_limit=0), "time_limit: expected a finite number > 0"),
    (lambda: train(teacher(), 8, initial_guess=np.zeros((8, 3, 3))), "initial_guess: expected"),
    (lambda: train(teacher(), 8, initial_guess=np.full((8, 4, 5), 1e300)),
     "initial_guess: expected a network of finite objective"),
    (lambda: train(hard_endpoint(), 8), "hard endpoint"),
])
def test_bad_input_is_refused_in_a_sentence(call, complaint):
    with pytest.raises(ValueError, match=complaint) as error:
        call()
    assert "\n" not in str(error.value)


def test_options_by_name_make_the_optimiser():
    assert optimizer_named("adam", {"rates": [0.1, 0.2]}) == Adam(rates=(0.1, 0.2))
    assert optimizer_named("sgd", {"momentum": 0.5}) == SGD(momentum=0.5)
    named = optimizer_named("adam", {"schedules": ["cosine", "decay", "cosine"]})
    assert named == Adam(schedules=("cosine", "decay"))


def test_the_package_offers_them():
    assert (hs.train, hs.Adam, hs.SGD) == (train, Adam, SGD)


def test_a_pilot_is_a_fifth_of_the_epochs_and_five_thousand_at_most():
    lengths = {epochs: pilot_epochs(hs.Adam(epochs=epochs))
               for epochs in (100, 500, 5000, 25_000, 50_000)}
    assert lengths == {100: 100, 500: 200, 5000: 1000, 25_000: 5000, 50_000: 5000}
