"""A sweep: the lower envelope of branches that are in closed form, folds, resumption, executors."""

import json
import os
import pickle
import signal
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from problems import one_neuron, teacher
from scipy.optimize import brentq, minimize_scalar

import hamshoot as hs
from hamshoot.study.sweep_files import INDEX, JOURNAL
from hamshoot.study.sweep_grid import Grid, between
from hamshoot.study.sweep_predictor import network_objective, predictor
from hamshoot.study.sweep_steps import (
    Arrival,
    Errand,
    arrive,
    change,
)
from hamshoot.theory.closed_forms import scalar_objective, scalar_stationary_endpoints

DEPTH, LAYERS = 6.0, 12
DECAYS = tuple(float(v) for v in np.geomspace(0.05, 0.8, 7))
QUICK = {"layers": LAYERS, "start": "path"}


def neuron(decay=0.2, depth=DEPTH):
    return one_neuron(1.0, "linear", effective_depth=depth, weight_decay=decay)


def minima(decay, layers=None, depth=DEPTH):
    """J of the minima of one neuron, that near the target last; between them is a maximum."""
    ends = scalar_stationary_endpoints(1.0, 1.0, depth, decay, layers)
    return [scalar_objective(1.0, a, 1.0, depth, decay, layers) for a in ends[::2]]


@cache
def geodesics():
    return hs.sweep(neuron(), {"weight_decay": DECAYS}, "indirect", search=2)


def fields(found):
    """All but the seconds."""
    return [(p.values, p.objective, p.status, p.branch, p.begun, p.steps) for p in found.points]


# -- the envelope ----------------------------------------------------------------------------------


def test_every_point_has_the_least_of_all_minima():
    found = geodesics()
    assert found.complete
    for point in found:
        assert point.objective == pytest.approx(min(minima(point.values["weight_decay"])),
                                                rel=1e-7)
    assert {point.status for point in found} == {"converged", "collapsed"}
    assert found.success


def test_branches_cross_where_their_objectives_are_equal():
    found = geodesics()
    (crossing,) = found.crossings
    assert crossing.kind == "crossing"

    def difference(log_decay):
        low, high = minima(np.exp(log_decay))[0], minima(np.exp(log_decay))[-1]
        return high - low

    exact = np.exp(brentq(difference, np.log(0.15), np.log(0.5)))
    # Linear between two neighbours whose λ differ by a factor of 1.6.
    assert crossing.at["weight_decay"] == pytest.approx(exact, rel=0.05)
    low, high = (ends["weight_decay"] for ends in crossing.between)
    assert low < exact < high
    assert [point.branch for point in found] == sorted(point.branch for point in found)
    assert "two branches cross" in found.finding()


def test_a_basin_that_one_search_found_goes_as_far_as_it_is_lower():
    """Warm starts from the left alone keep to the minimum near the target."""
    found = hs.sweep(neuron(0.05), {"weight_decay": DECAYS}, search=2, **QUICK)
    left = hs.sweep(neuron(0.05), {"weight_decay": DECAYS[:4]}, search=1, **QUICK)
    for point in found:
        assert point.objective <= min(minima(point.values["weight_decay"], LAYERS)) * (1 + 1e-6)
    for point in left:
        assert point.objective == pytest.approx(minima(point.values["weight_decay"], LAYERS)[-1],
                                                rel=1e-6)
    assert [point.begun for point in left] == ["search", *(
        f"from λ = {decay:.4g}" for decay in DECAYS[:3])]


def test_a_fold_is_found_and_followed():
    arrival = over_the_fold()
    (curve,), (switch,) = arrival.curves, arrival.switches
    fold = curve.points[curve.folds[0]].value
    assert switch.kind == "fold"
    assert switch.last["weight_decay"] < fold < switch.next["weight_decay"] * (1 + 1e-9)
    assert arrival.along is None
    assert not arrival.continued
    again = Arrival.of(arrival.solution, json.loads(json.dumps(arrival.numbers())))
    assert again.numbers() == arrival.numbers()


@cache
def over_the_fold():
    """From the geodesic near the target at λ = 0.4, above the trivial objective, to beyond it."""
    low = hs.solve(neuron(0.2), "indirect")
    here = hs.solve(neuron(0.4), "indirect", initial_guess=low)
    return arrive(Errand(neuron(), {"weight_decay": 0.65}, "indirect", None, {}, here=here,
                         start={"weight_decay": 0.4}))


def test_over_one_parameter_branches_are_followed_beyond_where_they_cross():
    (curve,) = geodesics().curves

    def decay(a):  # of a stationary end a: 2(a − 1)a + (λ/L̃)(L̃ + ln a) = 0
        return 2 * (1 - a) * a * DEPTH / (DEPTH + np.log(a))

    # At a fold λ(a) is extreme; one lies near the target.
    exact = -minimize_scalar(lambda a: -decay(a), bounds=(0.2, 0.99), method="bounded",
                             options={"xatol": 1e-10}).fun
    folds = [curve.points[k].value for k in curve.folds]
    assert folds[0] == pytest.approx(exact, rel=1e-6)
    assert len(folds) == 2
    assert f"λ = {exact:.4g}" in geodesics().finding()


# -- steps -----------------------------------------------------------------------------------------


def test_the_secant_is_nearer_than_the_neighbour():
    values = [{"weight_decay": decay} for decay in (0.02, 0.03, 0.045)]
    for method, layers in (("indirect", None), ("single_shooting", LAYERS)):
        options = {} if layers is None else QUICK
        one, two, three = (hs.solve(neuron(v["weight_decay"]), method, **options) for v in values)
        guess, how = predictor(two, values[1], one, values[0], three.problem, values[2])
        assert how == "secant"
        if layers:
            assert change(guess, three) < 0.5 * change(two, three)
            assert network_objective(guess, three.problem) < network_objective(two, three.problem)
        else:
            gaps = [np.abs(s.representations - three.representations).max() for s in (guess, two)]
            assert gaps[0] < 0.5 * gaps[1]
        # Not in line: no secant.
        aslant = {"weight_decay": 0.02}
        assert predictor(two, values[1], one, values[0], neuron(0.02), aslant).how == "none"


def test_a_change_of_depth_keeps_the_path():
    two = hs.solve(neuron(0.05, 4.0), "single_shooting", **QUICK)
    guess, how = predictor(two, {"effective_depth": 4.0}, None, {}, neuron(0.05, 5.0),
                           {"effective_depth": 5.0})
    assert how == "none"
    np.testing.assert_allclose(guess.weights / 5.0, two.weights / 4.0, rtol=1e-14)


def test_what_lies_between_is_geometric_and_ends_exactly():
    start, end = {"weight_decay": 0.1, "width": 3}, {"weight_decay": 0.9, "width": 3}
    assert between(start, end, 1.0) == end
    assert between(start, end, 0.5) == {"weight_decay": pytest.approx(0.3), "width": 3}


# -- the lattice -----------------------------------------------------------------------------------


def grid(**over):
    return Grid.of(over, teacher("smooth_relu"))


def test_the_forest_holds_every_point_once_by_shortest_steps():
    lattice = grid(effective_depth=[1, 1.1, 4, 4.2], weight_decay=[1e-3, 2e-3, 1e-1])
    roots = lattice.searched(teacher(), 2)
    before = lattice.forest(roots)
    assert [k for k, parent in enumerate(before) if parent is None] == sorted(roots)
    edges = {frozenset(edge) for edge in lattice.edges()}
    where = lattice.coordinates()
    length = 0.0
    for number, parent in enumerate(before):
        if parent is not None:
            assert frozenset((number, parent)) in edges
            length += float(np.linalg.norm(where[number] - where[parent]))
            chain, steps = parent, 0
            while before[chain] is not None:
                chain, steps = before[chain], steps + 1
                assert steps < len(before)
    # No shorter one among all pairs of points, whether they are neighbours or not.
    assert length == pytest.approx(shortest(where, roots), rel=1e-9)


def shortest(where, roots):
    """Length of the minimum spanning forest, by Prim's method on all pairs."""
    left, length = set(range(len(where))) - set(roots), 0.0
    reached = list(roots)
    while left:
        gaps = {k: min(np.linalg.norm(where[k] - where[r]) for r in reached) for k in left}
        nearest = min(gaps, key=gaps.get)
        length += gaps[nearest]
        reached.append(nearest)
        left.remove(nearest)
    return length


def test_searches_are_spread_and_each_width_has_its_own():
    lattice = grid(weight_decay=[1e-4, 3e-3, 1e-1], width=[4, 5])
    roots = lattice.searched(teacher(weight_decay=3e-3), 2)
    assert [lattice.values(root) for root in roots] == [
        {"weight_decay": 3e-3, "width": 4}, {"weight_decay": 1e-1, "width": 4},
        {"weight_decay": 3e-3, "width": 5}, {"weight_decay": 1e-1, "width": 5}]
    before = lattice.forest(roots)
    for number, parent in enumerate(before):
        if parent is not None:
            assert lattice.values(parent)["width"] == lattice.values(number)["width"]
    assert sorted(lattice.searched(teacher(), 100)) == list(range(6))


@pytest.mark.parametrize(("over", "words"), [
    ({}, "over: expected a dict such as"),
    ([1, 2], "over: expected a dict"),
    ({"depth": [1]}, "over: expected some of effective_depth, weight_decay, epsilon, width"),
    ({"weight_decay": []}, "at least one value"),
    ({"weight_decay": "0.1"}, "expected a list of numbers, got '0.1'"),
    ({"weight_decay": [0.1, -1]}, "expected a finite number > 0, got -1"),
    ({"width": [2.5]}, "expected an integer >= 1"),
    ({"epsilon": [0.1]}, "epsilon is swept where the activation is smooth_relu"),
    ({"effective_depth": [1.0, 50.0]}, "use at least 51"),
    ({"weight_decay": np.linspace(1, 2, 400), "effective_depth": np.linspace(1, 2, 400)},
     "at most 100000 points"),
])
def test_bad_values_are_refused_before_anything_is_solved(over, words):
    def called(record):
        raise AssertionError("something was solved")

    with pytest.raises(ValueError, match=words):
        hs.sweep(neuron(), over, "single_shooting", layers=LAYERS, callback=called)


@pytest.mark.parametrize(("options", "words"), [
    ({"search": 0}, "search: expected an integer >= 1"),
    ({"search": "some"}, "expected a number of points or 'all'"),
    ({"executor": 3}, "expected a Dask client or an executor"),
    ({"executor": 3, "scheduler": "tcp://a:1"}, "expected one of them, got both"),
    ({"scheduler": 3}, "expected an address such as"),
    ({"speed": 3}, "speed: single_shooting has no such option"),
])
def test_bad_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        hs.sweep(neuron(), {"weight_decay": [0.1]}, **QUICK, **options)


# -- kept, stopped, gone on with -------------------------------------------------------------------


def small(directory=None, **options):
    return hs.sweep(neuron(), {"weight_decay": DECAYS[:4]}, "single_shooting", search=1,
                    directory=directory, **QUICK, **options)


def test_a_directory_holds_it_whole_and_is_read_again(tmp_path):
    found = small(tmp_path / "s")
    again = hs.Sweep.load(tmp_path / "s")
    assert fields(again) == fields(found)
    assert again.problem.weight_decay == 0.2
    assert repr(again) == repr(found)
    assert again.at(weight_decay=0.1).solution.objective == again.at(weight_decay=0.1).objective
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == [
        "index.csv", "index.json", "sweep-points"]
    lines = (tmp_path / "s" / "index.csv").read_text().splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("number,weight_decay,objective,")
    assert lines[1].endswith("0000.npz")

    def called(record):
        raise AssertionError("something was solved")

    assert fields(small(tmp_path / "s", callback=called)) == fields(found)
    with pytest.raises(ValueError, match="holds another sweep"):
        hs.sweep(neuron(), {"weight_decay": [0.1]}, directory=tmp_path / "s", **QUICK)


def test_stopped_anywhere_it_goes_on_to_the_same_end(tmp_path):
    whole, seen = small(tmp_path / "whole"), []
    parts = small(tmp_path / "s", on_point=seen.append, callback=lambda record: len(seen) >= 2)
    assert not parts.complete
    assert len(parts.points) == 2
    assert "stopped before all was done" in parts.finding()
    assert not hs.Sweep.load(tmp_path / "s").complete
    assert (tmp_path / "s" / JOURNAL).is_dir()
    solved = []
    rest = small(tmp_path / "s", callback=lambda record: solved.append(record.stage))
    assert fields(rest) == fields(whole)
    for one, other in zip(rest, whole, strict=True):
        np.testing.assert_array_equal(one.solution.weights, other.solution.weights)
    assert not any("point 1 of" in stage or "point 2 of" in stage for stage in solved)
    assert not (tmp_path / "s" / JOURNAL).exists()


def test_ctrl_c_keeps_what_is_done():
    seen = []

    def press(record):
        if seen:
            raise KeyboardInterrupt

    found = small(on_point=seen.append, callback=press)
    assert not found.complete
    assert len(found.points) == 1


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"over": 1}', '{"over": {}, "format": 2}'])
def test_a_damaged_index_is_one_sentence(damage, tmp_path):
    (tmp_path / INDEX).write_text(damage)
    with pytest.raises(ValueError, match=r"index\.json"):
        hs.Sweep.load(tmp_path)


def test_an_index_names_no_files_elsewhere(tmp_path):
    small(tmp_path)
    record = json.loads((tmp_path / INDEX).read_text())
    record["points"][0]["file"] = "../../secret.npz"
    (tmp_path / INDEX).write_text(json.dumps(record))
    with pytest.raises(ValueError, match="not the index of a sweep"):
        hs.Sweep.load(tmp_path)
    with pytest.raises(ValueError, match="no such file"):
        hs.Sweep.load(tmp_path / "none")


# -- by others -------------------------------------------------------------------------------------


def test_the_same_in_threads():
    with ThreadPoolExecutor(2) as pool:
        assert fields(small(executor=pool)) == fields(small())


def test_lost_workers_leave_what_is_done_and_the_rest_goes_on(tmp_path):
    seen = []
    with ProcessPoolExecutor(1) as pool:
        pool.submit(pickle.dumps, 1).result()

        def kill(point):
            seen.append(point)
            for process in pool._processes.values():
                process.kill()

        parts = small(tmp_path, executor=pool, on_point=kill)
    assert not parts.complete
    assert len(parts.points) == len(seen) == 1
    assert "workers were lost" in parts.reason
    assert fields(small(tmp_path)) == fields(small())


def test_the_same_by_a_cluster():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None,
                                  protocol="tcp") as cluster:
        found = small(scheduler=cluster.scheduler_address)
    assert fields(found) == fields(small())
    with pytest.raises(ValueError, match="scheduler: expected the address of a scheduler"):
        small(scheduler="nonsense://x")


@pytest.mark.slow
def test_workers_of_a_cluster_are_killed():
    """One after each point: others, or their successors, make it again."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1,
                                  dashboard_address=None) as cluster, \
            distributed.Client(cluster, set_as_default=False) as client:

        def kill(point):
            with suppress(Exception):
                os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)

        found = small(executor=client, on_point=kill)
    assert fields(found) == fields(small())


# -- as tables and figures -------------------------------------------------------------------------


def test_tables(tmp_path):
    pandas, xarray = pytest.importorskip("pandas"), pytest.importorskip("xarray")
    found = small(tmp_path)
    frame = found.to_pandas()
    assert frame["objective"].tolist() == [point.objective for point in found]
    assert frame["weight_decay"].tolist() == list(DECAYS[:4])
    assert pandas.read_csv(tmp_path / "index.csv")["objective"].tolist() == pytest.approx(
        frame["objective"].tolist(), rel=1e-15)
    data = found.to_xarray()
    assert data.sizes == {"weight_decay": 4}
    assert float(data["objective"].sel(weight_decay=DECAYS[2])) == found.points[2].objective
    if hasattr(xarray, "DataTree"):
        tree = found.to_xarray(solutions=True)
        np.testing.assert_array_equal(tree["points/0001"]["weights"],
                                      found.points[1].solution.weights)
    text = repr(found)
    assert all(f"{point.objective:.8g}" in text for point in found)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["complete"] is True


def test_a_part_of_two_parameters_and_its_figures():
    found = hs.sweep(neuron(), {"effective_depth": [3.0, 4.0], "weight_decay": DECAYS[:3]},
                     "single_shooting", search=1, **QUICK)
    for point in found:
        values = point.values["weight_decay"], LAYERS, point.values["effective_depth"]
        assert point.objective == pytest.approx(min(minima(*values)), rel=1e-6)
    part = found.select(effective_depth=4.0)
    assert list(part.over) == ["weight_decay"]
    assert [point.objective for point in part] == [point.objective for point in found.points[3:]]
    assert part.problem.effective_depth == 4.0
    assert found.at(effective_depth=3.9, weight_decay=0.06).values["effective_depth"] == 4.0
    curves, maps = part.plot(), found.plot(("objective", "bottleneck_rank"))
    drawn = [line.get_xydata() for line in curves.axes[0].get_lines()]
    assert any(np.allclose(line[:, 1], [point.objective for point in part]) for line in drawn
               if line.shape == (3, 2))
    meshes = [ax.collections[0].get_array() for ax in maps.axes if ax.collections]
    np.testing.assert_allclose(meshes[0], [[p.objective for p in found.points[:3]],
                                           [p.objective for p in found.points[3:]]])
    with pytest.raises(ValueError, match=r"expected one of 3, 4, got 5\.0"):
        found.select(effective_depth=5.0)
    with pytest.raises(ValueError, match="quantities: expected some of"):
        found.plot(("speed",))
    with pytest.raises(ValueError, match="expected one of effective_depth, weight_decay"):
        found.at(width=3)


def test_three_parameters_are_not_drawn():
    found = hs.sweep(neuron(), {"effective_depth": [3.0], "weight_decay": [0.1], "width": [1]},
                     search=1, **QUICK)
    with pytest.raises(ValueError, match=r"this sweep is over 3; select\(\.\.\.\)"):
        found.plot()


def test_the_figure_of_a_fold_shows_both_sheets():
    figure = replace(geodesics(), curves=over_the_fold().curves).plot()
    styles = {line.get_linestyle() for line in figure.axes[0].get_lines()}
    assert {"-", "--"} <= styles
    assert any(line.get_marker() == "^" and len(line.get_xdata()) for line in
               figure.axes[0].get_lines())


def test_a_trial_that_stops_is_not_kept():
    errand = Errand(neuron(), {"weight_decay": 0.1}, "single_shooting", LAYERS, {"start": "path"})
    assert arrive(errand, lambda record: True).solution.status is hs.Status.INTERRUPTED
