"""The demos run small: a figure, results, and claims that their own numbers bear out."""

import json
import math
import re
import runpy
from pathlib import Path

import pytest

DEMOS = Path(__file__).parent.parent / "demos"
PNG = b"\x89PNG\r\n\x1a\n"
NAMES = ("01_optimal_network", "02_geodesics_in_depth", "03_exact_relu_optimum")
NUMBER = re.compile(r"[−-]?\d+(\.\d+)?(e[+-]?\d+)?")


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
        sentence = one(record["findings"], "From the same start")
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
    digits = int(re.search(r"constant to (\d+) digits", one(record["findings"], "Hamiltonian"))[1])
    assert digits == int(-math.log10(max(g["flatness"] for g in geodesics))) >= 8


def test_the_exact_relu_optimum_is_certified_and_the_others_are_not(ran):
    record, _ = ran("03_exact_relu_optimum")
    adam, smooth, exact = (record["networks"][name]
                           for name in ("Adam", "smooth ReLU", "exact optimum"))
    assert exact["clarke_residual"] < 1e-12 < 1e-6 < min(adam["clarke_residual"],
                                                        smooth["clarke_residual"])
    assert exact["second_order"].startswith("strict local minimum of the ReLU network")
    assert adam["second_order"].startswith("not decided")
    assert exact["min_eigenvalue"] > 0
    d = exact["multipliers"]
    assert len(d) == exact["kinks"] > 0
    assert 0 <= min(d) < 0.5 < max(d) <= 1
    assert exact["objective"] < smooth["objective"]
    sentence = one(record["findings"], "The certificate of the exact optimum")
    assert exact["second_order"] in sentence
