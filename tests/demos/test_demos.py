"""The demos run small: a figure, results, and claims that their own numbers bear out."""

import itertools
import json
import math
import re
import runpy
import statistics
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
from claims import (
    called_minimum_wrongly,
    called_optimal_wrongly,
    rank_without_its_estimate,
)

DEMOS = Path(__file__).parents[2] / "demos"
PNG = b"\x89PNG\r\n\x1a\n"
NAMES = ("01_optimal_network", "02_geodesics_in_depth", "03_exact_relu_optimum",
         "04_rank_over_depth", "05_layer_steps", "06_theorem_4", "07_timescales",
         "08_control_against_descent", "09_local_minima", "10_resnet_to_fully_connected",
         "11_real_data", "12_collapse_and_turnpike", "14_price_of_depth",
         pytest.param("13_train_in_pytorch_finish_here", marks=pytest.mark.skipif(
             find_spec("torch") is None, reason="needs the extra torch")),
         "15_what_the_data_do", "16_sweep", "17_learned_lift")
NUMBER = re.compile(r"[−-]?\d+(\.\d+)?(e[+-]?\d+)?")


@pytest.fixture(autouse=True, scope="module")
def beside_the_demos():
    """What the demos share is found beside them, as when they run as scripts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DEMOS))
        yield


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Run a demo small, once: its record, its figure's bytes, and the sentences recorded."""
    done = {}

    def run(name):
        if name not in done:
            out = tmp_path_factory.mktemp(name)
            runpy.run_path(str(DEMOS / f"{name}.py"))["main"](["--small", "--out", str(out)])
            record = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
            done[name] = record, (out / f"{name}.png").read_bytes()
        return done[name]

    return run


def one(sentences, opening):
    """The sentence that begins so."""
    found = [s for s in sentences if s.startswith(opening)]
    assert len(found) == 1, (opening, sentences)
    return found[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_demo_leaves_a_figure_and_results_that_say_where_they_come_from(ran, name):
    record, picture = ran(name)
    assert picture.startswith(PNG)
    assert len(picture) > 10_000
    assert record["command"].startswith(f"python demos/{name}.py --small")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", record["date"])
    assert "hamshoot" in record["versions"]
    assert "seed" in record["settings"] or "seeds" in record["settings"]


@pytest.mark.parametrize("name", NAMES)
def test_what_a_demo_prints_is_what_it_records(tmp_path, capsys, name):
    runpy.run_path(str(DEMOS / f"{name}.py"))["main"](["--small", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    findings = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))["findings"]
    assert all(sentence in printed for sentence in findings)
    assert sum(bool(NUMBER.search(sentence)) for sentence in findings) >= 5
    assert not re.search(r"\b(nan|inf)\b", printed)


def test_what_pytorch_trained_is_certified_only_when_it_is_finished(ran):
    pytest.importorskip("torch")
    record, _ = ran("13_train_in_pytorch_finish_here")
    for row in record["rows"]:
        trained, finished, back = row["trained"], row["finished"], row["sent_back"]
        assert trained["holds"] is False
        assert trained["reason"].startswith("stationarity")
        assert finished["holds"] is True
        assert finished["objective"] <= trained["objective"] == pytest.approx(row["values"][-1][1])
        assert back["apart"] <= 1e-12
        assert back["objective"] == pytest.approx(finished["objective"], rel=1e-6)


def test_the_slope_of_the_objective_over_depth_is_the_rank_of_the_geodesic(ran):
    record, _ = ran("14_price_of_depth")
    decay, rows = record["settings"]["weight_decay"], record["rows"]
    for row in rows:
        assert row["slopes_solved"]
        assert row["price"] == pytest.approx(row["bottleneck_rank"], rel=1e-4, abs=1e-5)
    # Over a whole step the slope at its ends brackets the change of J, which is convex here.
    for one, other in itertools.pairwise(rows):
        step = other["effective_depth"] - one["effective_depth"]
        change = 2 / decay * (other["objective"] - one["objective"]) / step
        assert one["bottleneck_rank"] < change < other["bottleneck_rank"]


def test_a_learned_lift_and_readout_lower_j_of_the_same_problem(ran):
    record, _ = ran("17_learned_lift")
    mu = record["settings"]["map_decay"]
    rows = {(row["kind"], row["effective_depth"], row["seed"], row["variant"]): row
            for row in record["rows"]}
    shares = []
    for (*problem, variant), row in rows.items():
        fixed = rows[(*problem, "fixed")]
        assert row["objective"] <= fixed["objective"] * (1 + 1e-9)
        assert row["objective"] > row["loss"] + mu / 2 * (row["lift"] + row["readout"])
        for name in ("lift", "readout"):
            if variant in ("fixed", {"lift": "readout", "readout": "lift"}[name]):
                assert row[name] == fixed[name]
        if variant == "both" and row["kind"] == "teacher":
            shares.append(100 * (1 - row["objective"] / fixed["objective"]))
    assert f"both learned {statistics.median(shares):.1f} %" in one(
        record["findings"], "Below J of fixed maps on the teachers")


@pytest.mark.parametrize("name", NAMES)
def test_a_demo_calls_things_by_what_they_are(ran, name):
    record, _ = ran(name)
    assert called_optimal_wrongly(record["findings"], record) == []
    assert called_minimum_wrongly(record["findings"], record) == []
    if name != "06_theorem_4":  # on whose exact paths both estimates are one
        assert rank_without_its_estimate(record["findings"]) == []
    assert sum(how["networks"] for how in record["ended"].values()) > 0
    for how in record["ended"].values():
        assert sum(how["statuses"].values()) == how["networks"] >= how["converged"]
        least, middle, most = how["stationarity"]
        assert least <= middle <= most


def test_a_sweep_counts_its_branches_and_knows_the_price_of_depth(ran):
    record, _ = ran("16_sweep")
    decays, depths, grid = (record[name] for name in ("decays", "depths", "map"))
    branches = len({row["branch"] for row in decays["points"]})
    assert f"{len(decays['points'])} geodesics lie on {branches} branch" in one(
        record["findings"], "Over λ from")
    checked = [row for row in depths["points"] if "slope" in row][1:-1]
    assert checked
    for row in checked:  # from J alone, and from H
        assert row["slope"] == pytest.approx(row["price"], rel=0.01)
        assert row["price"] == pytest.approx(
            record["settings"]["weight_decay"] / 2 * row["bottleneck_rank"], rel=1e-5)
    low = sum(row["objective"] < row["searched"] * (1 - 1e-6) for row in grid["rows"])
    assert f"search at {low}, " in one(record["findings"], f"Of {len(grid['rows'])} ReLU")


def test_how_networks_ended_is_said_by_their_statuses():
    import common

    def rows(*ends):
        return [{"status": status, "stationarity": value} for status, value in ends]

    whole = common.endings(rows(("CONVERGED", 1e-9), ("converged", 3e-9)))
    part = common.endings(rows(("CONVERGED", 1e-9), ("MAX_ITER", 2.0), ("MAX_ITER", 1.0)))
    none = common.endings([{"status": "TIME_LIMIT"}])
    adam = common.endings(rows(("TRAINED", 0.1), ("COLLAPSED", 0.2)))
    assert (whole["converged"], part["converged"], none["converged"]) == (2, 1, 0)
    assert common.said(whole) == "2 of 2 converged; stationarity 2e-09, from 1e-09 to 3e-09"
    assert common.said(part) == ("1 of 3 converged: MAX_ITER 2; stationarity 1, "
                                 "from 1e-09 to 2")
    assert common.said(none) == "none of 1 converged: TIME_LIMIT 1; stationarity not recorded"
    assert common.said(adam).startswith("1 of 2 trained to the last epoch: COLLAPSED 1;")
    assert [common.labelled("network", how) for how in (whole, part, none, adam)] == [
        "network", "network (not converged)", "network (not converged)", "network"]


def test_verdicts_are_counted_in_their_own_words():
    import common

    proved = "strict local minimum of the network (proved): smallest eigenvalue 1"
    said = common.verdicts([proved, proved, "saddle of the network: -1"])
    assert said == ("2 “strict local minimum of the network (proved)”; "
                    "1 “saddle of the network”")


def test_the_optimal_network_is_stationary_and_the_gaps_are_those_of_the_objectives(ran):
    record, _ = ran("01_optimal_network")
    for k, result in enumerate(record["seeds"]):
        rows = result["rows"]
        control, adam = rows["optimal control"], rows["gradient descent"]
        assert control["stationarity"] < 1e-8 < 1e-4 < adam["stationarity"]
        assert control["bottleneck_rank"] < control["cost_of_identity"]
        gap = (control["objective"] - adam["objective"]) / adam["objective"]
        assert record["gaps"]["control_over_adam"][k] == pytest.approx(gap, rel=1e-12)
        continued = rows["optimal control from descent"]["objective"]
        better = min(adam["objective"], rows["gradient descent, longer"]["objective"])
        assert continued <= better * (1 + 1e-9)
        sentence = one(record["findings"], "From that of Adam's usual run")
        assert f"{100 * gap:+.1f} %" in sentence
        assert ("lower at 1 of 1" in sentence) == (gap < 0)


def test_the_costate_is_the_slope_of_the_value_function(ran):
    check = ran("02_geodesics_in_depth")[0]["costate_check"]
    assert check["slope"] < 0
    assert math.isclose(check["slope"], check["predicted"], rel_tol=1e-6)


def test_geodesics_keep_their_hamiltonian_and_layers_do_not(ran):
    record, _ = ran("02_geodesics_in_depth")
    geodesics = record["geodesics"]
    assert [g["effective_depth"] for g in geodesics] == record["settings"]["depths"]
    assert all(g["flatness"] < 1e-8 for g in geodesics)
    assert all(g["bottleneck_rank"] < g["cost_of_identity"] for g in geodesics)
    assert geodesics[0]["bottleneck_rank"] < geodesics[-1]["bottleneck_rank"]
    beside = record["beside"]
    assert beside["optimal control"]["stationarity"] < 1e-8
    assert 1e-3 < beside["optimal control"]["flatness"] < 100
    coarse, *_, fine = record["meshes"]  # the departure is the mesh's: it falls with more layers
    assert coarse["layers"] < fine["layers"]
    assert fine["flatness"] < coarse["flatness"]
    sentence = one(record["findings"], "Euler's own drift")
    assert all(f"{row['flatness']:.2f} with {row['layers']} layers" in sentence
               for row in record["meshes"])
    digits = int(re.search(r"constant to (\d+) digits", one(record["findings"], "Hamiltonian"))[1])
    assert digits == int(-math.log10(max(g["flatness"] for g in geodesics))) >= 8


def test_the_polished_network_is_stationary_and_the_others_are_not(ran):
    record, _ = ran("03_exact_relu_optimum")
    adam, smooth, exact = (record["networks"][name]
                           for name in ("Adam", "smooth ReLU", "polished ReLU"))
    assert exact["clarke_residual"] < 1e-12 < 1e-6 < min(adam["clarke_residual"],
                                                        smooth["clarke_residual"])
    assert (exact["status"], smooth["status"]) == ("CONVERGED", "SMOOTHED")
    assert adam["second_order"].startswith("not decided: not a stationary point")
    assert not exact["second_order"].startswith("not decided: not a stationary point")
    d = exact["multipliers"]
    assert len(d) == exact["kinks"] > 0
    assert 0 <= min(d) < 0.5 < max(d) <= 1
    assert exact["objective"] < smooth["objective"]
    sentence = one(record["findings"], "The certificate says of the polished network")
    assert exact["second_order"] in sentence


def test_theorem_4_holds_and_the_bias_needs_its_factor_2(ran):
    record, _ = ran("06_theorem_4")
    cases = [case for row in record["geodesics"] for case in row["theorem"]]
    assert len(cases) == len(record["settings"]["depths"]) * len(record["settings"]["gammas"])
    for case in cases:
        assert case["holds"]
        assert case["lower"] <= case["gap"] <= case["upper"]
        assert case["speed_lower"] <= case["speed_least"] < case["speed_most"]
        assert case["speed_most"] <= case["speed_upper"]
        assert case["identity_residual"] < 1e-9 * case["identity_size"]
    assert f"{len(cases)} of {len(cases)}" in one(record["findings"], "Theorem 4: agree")
    coarse, fine = record["balancedness"]
    for row in (coarse, fine):
        assert row["change"] == pytest.approx(row["exact"], rel=1e-3)
        assert row["twice"] == pytest.approx(2 * row["once"], rel=1e-6)
    departures = [1 - row["change"] / row["twice"] for row in (coarse, fine)]
    assert 0 < departures[1] < 0.7 * departures[0]  # the smooth ReLU's own, of the order of ε
    assert abs(fine["change"] / fine["once"] - 1) > 0.5
    assert "does not agree" in one(record["findings"], "Balancedness")


def test_timescales_are_those_of_the_speeds_recorded(ran):
    record, _ = ran("07_timescales")
    rows = [*record["teacher"], *record["folds"]["identity"]]
    points = record["settings"]["points"]
    jumps = 0
    for row in rows:
        speed, coi = row["speed"], row["coi"]
        assert len(speed) == len(coi) == points
        # The record has four digits of the costs: just inside and just outside of 5 %.
        least, most = (sum(value <= factor * min(coi) for value in coi) / points
                       for factor in (1.049, 1.051))
        assert least - 1e-6 <= row["near"] <= most + 1e-6
        inner = range(math.ceil(0.25 * (points - 1)), int(0.75 * (points - 1)) + 1)
        maxima = [k for k in inner if speed[k - 1] < speed[k] >= speed[k + 1]]
        assert [peak[0] for peak in row["peaks"]] == pytest.approx(
            [k / (points - 1) for k in maxima])
        jumps += any(speed[k] > 3 * row["median_speed"] for k in maxima)
    found = "none was found" if jumps == 0 else f"{jumps} found"
    assert f"{found} in {len(rows)} geodesics" in one(record["findings"], "Jumps in the middle")
    last = record["teacher"][-1]
    contrast = (last["speed"][0] + last["speed"][-1]) / 2 / last["median_speed"]
    assert f"{contrast:.2f} at L̃ = {last['effective_depth']:g}" in one(
        record["findings"], "Jumps at both ends")


def test_minima_are_counted_and_ranked_by_their_objectives(ran):
    record, _ = ran("09_local_minima")
    settings, rows = record["settings"], record["networks"]
    count = len(settings["teachers"]) * len(settings["seeds"]) * len(settings["starts"])
    assert [sum(r["method"] == m for r in rows) for m in
            ("optimal control", "Adam", "Adam, then solved")] == [count] * 3
    minima = [r for r in rows if "minimum" in r]
    assert len(minima) >= count  # most of the solves converge
    assert all(r["method"] != "Adam" and r["clarke_residual"] < 1e-9 for r in minima)
    ordered = sorted(minima, key=lambda r: r["objective"])
    for a, b in itertools.pairwise(ordered):
        same = b["objective"] < a["objective"] * (1 + 1e-8)  # the record has seven digits
        assert b["minimum"] == a["minimum"] + (not same)
    found = ordered[-1]["minimum"] + 1
    assert f"ended in {found} distinct stationary points" in record["findings"][0]
    by_start = {(r["seed"], r["start"], r["method"]): r for r in rows}
    for row in minima:
        if row["method"] == "Adam, then solved":  # the answer is never worse than the guess
            assert row["objective"] <= by_start[row["seed"], row["start"], "Adam"]["objective"]
    sentence = one(record["findings"], f"Certificates of {len(minima)} converged solves")
    verdicts = Counter(r["second_order"].split(":")[0] for r in minima)
    assert all(f"{count} “{verdict}”" in sentence for verdict, count in verdicts.items())


def test_analytic_and_numerical_paths_are_one_and_the_film_shows_every_depth(ran, tmp_path):
    record, _ = ran("10_resnet_to_fully_connected")
    for name in ("one_sample", "linear"):
        assert len(record[name]) == record["settings"]["analytic"]
        assert all(row["of_representations"] < 1e-8 for row in record[name])
        assert all(row["of_weights"] < 1e-8 for row in record[name])
    assert all(row["cost"] == pytest.approx(row["known_cost"], rel=1e-6)
               for row in record["one_sample"])
    costs = [row["known_cost"] for row in record["one_sample"]]
    assert abs(costs[0] / costs[-1] - 1) > 0.05  # other L̃, another cost; the same path
    assert all(row["from_first"] < 1e-8 for row in record["one_sample"])
    first, *_, last = record["nonlinear"]
    contrasts = [sum(row["speed_at_ends"]) / 2 / row["speed_at_half"] for row in (first, last)]
    agree = contrasts[1] > 3 * max(1, contrasts[0])
    sentence = one(record["findings"], "The paper's jumps at both ends")
    assert ("does not agree" in sentence) != agree
    film = runpy.run_path(str(DEMOS / "10_resnet_to_fully_connected.py"))["animate"]
    film(record, tmp_path / "film.gif")
    from PIL import Image

    with Image.open(tmp_path / "film.gif") as picture:
        assert picture.format == "GIF"
        assert picture.n_frames >= len(record["nonlinear"])


def test_networks_close_in_on_the_geodesic_and_the_winners_are_those_of_the_record(ran):
    record, _ = ran("05_layer_steps")
    rows, schemes = record["rows"], ("equidistant", "irregular", "adaptive", "integrator")
    assert {row["scheme"] for row in rows} == set(schemes)
    assert all(row["longest"] * row["effective_depth"] < 1 for row in rows)
    assert all(row["longest"] * row["layers"] > 1.01 for row in rows
               if row["scheme"] != "equidistant" and not row["capped"])
    for depth in record["settings"]["depths"]:
        cases = {}
        for row in rows:
            if row["effective_depth"] == depth:
                cases.setdefault(row["layers"], {})[row["scheme"]] = row
        fewest, *_, most = sorted(cases)
        for kind in ("open", "built"):
            for scheme in schemes[:3]:
                coarse, fine = (cases[n][scheme][kind]["output"] for n in (fewest, most))
                assert fine < 1.6 * coarse * fewest / most  # first order in 1/L
            best = [min(case, key=lambda s, c=case, k=kind: c[s][k]["output"])
                    for case in cases.values()]
            opening = {"open": "Open loop", "built": "Built networks"}[kind]
            sentence = one(record["findings"], f"{opening} at L̃ = {depth:g}")
            for scheme in schemes:
                assert f"{scheme} {best.count(scheme)}" in sentence.split(":")[-1]
        for case in cases.values():  # the correction towards the path is worth its name
            assert all(row["built"]["output"] < 0.6 * row["open"]["output"]
                       for row in case.values())
    large = record["settings"]["depths"][-1]
    pairs = {}
    for row in rows:
        if row["effective_depth"] == large and row["scheme"] in ("adaptive", "equidistant"):
            pairs.setdefault(row["layers"], {})[row["scheme"]] = row["built"]
    lower = [sum(pair["adaptive"][key] < pair["equidistant"][key] for pair in pairs.values())
             for key in ("test", "objective")]
    sentence = one(record["findings"], "Adaptive steps help at large L̃, built networks")
    assert f"lower in {lower[0]} and {lower[1]} of {len(pairs)}" in sentence
    for cost in record["costs"]:
        assert cost["share"] == pytest.approx(0.08 * cost["update"] / cost["epoch"], rel=1e-5)


def test_control_and_descent_are_compared_by_the_numbers_recorded(ran):
    record, _ = ran("08_control_against_descent")
    settings, rows = record["settings"], record["networks"]
    control, adam, longer = (
        {(r["effective_depth"], r["seed"]): r for r in rows
         if (r["method"], r["share"]) == contestant}
        for contestant in (("optimal control", 1), ("Adam", 1), ("Adam", 4)))
    assert set(control) == set(adam) == set(longer) == set(
        itertools.product(settings["depths"], settings["seeds"]))
    for problem, row in control.items():
        assert row["seconds"] < adam[problem]["seconds"] + 1
        assert longer[problem]["nit"] == 4 * adam[problem]["nit"]
        assert longer[problem]["rate"] == adam[problem]["rate"]
        for r in (row, adam[problem]):  # J is the loss and the norm of the same network
            assert r["objective"] == pytest.approx(r["loss"] + 0.001 * r["norm"] / 2, rel=1e-5)
    for key, opening in (("objective", "Objective after the same seconds"),
                         ("test_error", "Test error after the same seconds")):
        lower = sum(control[k][key] < 0.999 * adam[k][key] for k in control)
        lost = sum(adam[k][key] < 0.999 * control[k][key] for k in control)
        sentence = one(record["findings"], opening)
        assert f"lower in {lower} of {len(control)}" in sentence
        assert ("Adam wins nowhere" if lost == 0 else f"Adam wins {lost}:") in sentence
    agree = count = 0
    for problem in control:
        five = [r for r in rows if (r["effective_depth"], r["seed"]) == problem]
        assert len(five) == 5
        for a, b in itertools.combinations(five, 2):
            low, high = sorted((a, b), key=lambda r: r["objective"])
            if low["objective"] < 0.999 * high["objective"]:
                count += 1
                agree += low["test_error"] < high["test_error"]
    assert f"in {agree} of {count} pairs" in one(record["findings"], "Of two networks")


def test_the_weight_decay_of_each_contestant_is_its_best_by_validation(ran):
    record, _ = ran("08_control_against_descent")
    settings, rows = record["settings"], record["decays"]
    factors, seeds = settings["decay"]["factors"], settings["seeds"]
    assert len(rows) == 2 * len(factors) * len(seeds)
    best = {(method, seed): min((r for r in rows if (r["method"], r["seed"]) == (method, seed)),
                                key=lambda r: r["validation_error"])
            for method in ("optimal control", "Adam") for seed in seeds}
    wins = [sum(best[a, s]["test_error"] < 0.999 * best[b, s]["test_error"] for s in seeds)
            for a, b in (("optimal control", "Adam"), ("Adam", "optimal control"))]
    assert (f"lower for optimal control in {wins[0]}, for Adam in {wins[1]} of {len(seeds)}"
            in one(record["findings"], "With noise, each at its own best λ"))
    verdict = "Undecided" if abs(wins[0] - wins[1]) <= 2 * sum(wins) ** 0.5 else (
        "Yes" if wins[0] > wins[1] else "No")
    sentence = one(record["findings"], "Does a lower objective generalise better?")
    answer = f"{verdict} (lower test error {wins[0]} to {wins[1]})"
    assert f"each at its own best λ? {answer}" in sentence
    at = [{r["method"]: r for r in rows if (r["factor"], r["seed"]) == (factors[0], s)}
          for s in seeds]
    lower = sum(r["optimal control"]["objective"] < 0.999 * r["Adam"]["objective"] for r in at)
    assert f"{factors[0]:g}: J {lower} to" in one(record["findings"], "With noise on the targets")


SHORT = {"ridge regression": "ridge", "Leaky ResNet, optimal control": "optimal control",
         "Leaky ResNet, Adam": "Adam", "scikit-learn's MLP": "the MLP"}


def real_data_fits(record, **wanted):
    return [row for row in record["fits"] if all(row[k] == v for k, v in wanted.items())]


def test_real_data_strengths_are_chosen_on_validation_rows_and_the_best_is_named(ran):
    record, _ = ran("11_real_data")
    settings = record["settings"]
    for data, opening in (("diabetes", "Diabetes, root mean"), ("digits", "Digits, percent")):
        medians = {}
        for method, short in SHORT.items():
            errors = []
            for seed in settings["seeds"]:
                rows = real_data_fits(record, data=data, seed=seed, method=method)
                (chosen,) = (row for row in rows if row["chosen"])
                assert len(rows) >= 2
                assert (chosen["validation_error"], chosen["validation_squared"]) == min(
                    (row["validation_error"], row["validation_squared"]) for row in rows)
                errors.append(chosen["test_error"])
            medians[short] = statistics.median(errors)
        sentence = one(record["findings"], opening)
        best = min(medians, key=medians.get)
        assert f"The lowest median is that of {best}, " in sentence
        assert all(f"{short} {median:.3g} " in sentence for short, median in medians.items())
    pictures = 1797 - settings["digits"]["training"]
    for row in real_data_fits(record, data="digits"):
        wrong = row["test_error"] * pictures / 100
        assert wrong == pytest.approx(round(wrong), abs=1e-3)
        assert 0 < wrong < 0.9 * pictures  # better than chance


def test_real_data_objectives_are_those_of_the_errors_and_norms(ran):
    record, _ = ran("11_real_data")
    depth = record["settings"]["effective_depth"]
    leaky = [row for row in record["fits"] if "objective" in row]
    for row in leaky:
        assert row["loss"] == pytest.approx(row["train_squared"], rel=1e-5)
        decay = row["strength"] * row["parameter_norm"] / (2 * depth)
        assert row["objective"] == pytest.approx(row["loss"] + decay, rel=1e-5)
    lower = higher = count = 0
    for data in ("diabetes", "digits"):
        for seed, strength in itertools.product(record["settings"]["seeds"],
                                                record["settings"][data]["decays"]):
            control, adam = (
                real_data_fits(record, data=data, seed=seed, strength=strength, method=method)[0]
                for method in ("Leaky ResNet, optimal control", "Leaky ResNet, Adam"))
            gap = control["objective"] / adam["objective"] - 1
            lower, higher, count = lower + (gap < -1e-4), higher + (gap > 1e-4), count + 1
    assert 2 * count == len(leaky)
    verdict = one(record["findings"], "Verdict")
    same = count - lower - higher
    assert f"below Adam in {lower} of {count} fits and level in {same}," in verdict
    good = higher <= 0.2 * count + 1e-9 and lower > higher
    assert ("Good for low objectives" in verdict) == good


def test_real_data_says_what_to_install(monkeypatch):
    module = runpy.run_path(str(DEMOS / "11_real_data.py"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="pip install scikit-learn"):
        module["needed"]()


def test_ranks_over_depth_are_medians_over_the_seeds_and_the_pairs_are_counted(ran):
    record, _ = ran("04_rank_over_depth")
    settings, rows = record["settings"], record["networks"]
    methods = ("optimal control", "Adam, then SGD")
    assert len(rows) == len(methods) * len(settings["depths"]) * len(settings["seeds"])
    last = settings["depths"][-1]
    for method in methods:
        mine = [r for r in rows if (r["method"], r["effective_depth"]) == (method, last)]
        sentence = one(record["findings"], f"{method}, true rank {settings['dims'][1]}")
        assert f"{statistics.median(r['rank'] for r in mine):.2f}" in sentence
        assert f"{statistics.median(r['least_coi'] for r in mine):.2f}" in sentence
        assert f"{statistics.median(r['rank_costate'] for r in mine):.2f}" in sentence
        converged = sum(r["status"] == "CONVERGED" for r in mine)
        assert method != methods[0] or f"({converged or 'none'} of {len(mine)} conv" in sentence
        for r in mine:
            assert r["rank_low"] <= r["rank"] <= r["rank_high"]
            assert r["least_coi"] > 0
    by_problem = {}
    for r in rows:
        by_problem.setdefault((r["effective_depth"], r["seed"]), {})[r["method"]] = r
    lower = [sum(pair[methods[0]][key] < pair[methods[1]][key] for pair in by_problem.values())
             for key in ("objective", "test_error")]
    sentence = one(record["findings"], "Optimal control has the lower objective")
    assert f"in {lower[0]} of {len(by_problem)} pairs" in sentence
    assert f"lower test error in {lower[1]}" in sentence
    for r in rows:  # the curves are those of the numbers
        if "curves" in r:
            H = r["curves"]["hamiltonian"]
            sums = [k + v for k, v in zip(r["curves"]["kinetic"], r["curves"]["potential"],
                                          strict=True)]
            assert pytest.approx(sums, rel=1e-4, abs=1e-3) == H
            assert r["rank"] == pytest.approx(
                -2 * statistics.median(H) / r["effective_depth"], rel=1e-4, abs=1e-4)
    geodesics = record["geodesics"]
    assert geodesics
    assert all(g["rank"] < g["least_coi"] for g in geodesics)


def test_collapse_is_measured_on_certified_networks_and_the_bounds_hold(ran):
    record, _ = ran("12_collapse_and_turnpike")
    settings, rows = record["settings"], record["networks"]
    control = [row for row in rows if row["method"] == "optimal control"]
    linear = [row for row in rows if row["method"] == "optimal control, linear network"]
    assert len(control) == len(settings["seeds"]) * len(settings["digits"]["decays"])
    assert all(row["certified"] and row["stationarity"] < 1e-8 for row in control + linear)
    for row in control:
        assert row["nc1"][-2] < 0.5 * row["nc1"][0]
        trained, = (r for r in rows if r["method"] == "gradient descent" and all(
            r[key] == row[key] for key in ("seed", "decay")))
        assert row["objective"] < trained["objective"] * (1 + 1e-9)
    said = one(record["findings"], "NC1 before the last layer")
    medians = [statistics.median(row["nc1"][-2] for row in control if row["decay"] == decay)
               for decay in settings["digits"]["decays"]]
    assert all(f"{value:.2g}" in said for value in medians)
    for row in linear:  # W_ℓM_ℓᵀ = M_{ℓ+1}ᵀW_{ℓ+1}, and that of fully connected layers is not it
        assert max(row["leaky_balance"]) < 1e-9 < 1e-2 < min(row["balance"])
        assert max(row["norms"]) == pytest.approx(min(row["norms"]), rel=1e-4)
    for row in record["geodesics"]:
        assert row["drift"] < 1e-9
        for name in ("set", "rest", "point"):
            curve, rate = row[name]["curve"], row[name]["bound_rate"]
            T = row["effective_depth"]
            t = [T * k / (len(curve) - 1) for k in range(len(curve))]
            sides = [math.exp(-rate * s) + math.exp(-rate * (T - s)) for s in t]
            shares = [d / (3 * side) for d, side in zip(curve, sides, strict=True)]
            assert 0.8 < max(shares) <= 1.01  # it touches the bound, between two of the values
            outside = T * sum(d > 0.1 for d in curve) / len(curve)
            assert row[name]["time_outside"] == pytest.approx(outside, abs=3 * T / len(curve))
        assert 0.7 < row["set"]["rate"] < 2 or row["kind"] != "linear"
