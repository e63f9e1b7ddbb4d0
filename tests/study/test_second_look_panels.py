"""Panels of a second look: what is drawn are the numbers, in the Axes given."""

from functools import cache

import numpy as np
import problems
import pytest
from matplotlib.figure import Figure
from scipy.integrate import trapezoid

import hamshoot as hs


@cache
def solved(layers=None):
    problem = problems.teacher("smooth_relu", samples=6, width=3, dims=(3, 2, 3), seed=3,
                               weight_decay=0.03, effective_depth=2.0, epsilon=0.2)
    if layers is None:
        return hs.IndirectShooting(tol=1e-10, effort="quick", layers=30).solve(problem)
    return hs.solve(problem, "single_shooting", layers=layers, effort="quick")


@cache
def again(layers=None):
    return solved(layers).resimulate()


def labelled(ax):
    return {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}


@pytest.mark.parametrize("layers", [None, 6])
def test_errors_are_drawn_as_they_are(layers):
    found, ax = again(layers), Figure().subplots()
    assert hs.plot.plot_resimulation(found, ax=ax) is ax
    lines = labelled(ax)
    assert ("state, continuous" in lines) == (layers is not None)
    for name in ("state", "costate"):
        error = getattr(found, f"{name}_error")
        drawn = lines[f"{name}, simulated anew"].get_ydata()
        np.testing.assert_allclose(drawn[error > 1e-18], error[error > 1e-18])
    assert ax.get_yscale() == "log"
    low, high = ax.get_ylim()
    assert low < found.costate_error.max() < high


@pytest.mark.parametrize("of", ["representations", "momenta"])
def test_the_simulated_path_is_drawn_over_the_solved_one(of):
    found = again(6)
    ax = hs.plot.plot_resimulation(found, of, sample=2)
    lines = labelled(ax)
    np.testing.assert_array_equal(lines["solved"].get_ydata(),
                                  getattr(found, f"solved_{of}")[:, 0, 2])
    np.testing.assert_array_equal(lines["continuous, the same $W$"].get_ydata(),
                                  getattr(found.continuous, of)[:, 0, 2])
    assert "sample 2" in ax.get_ylabel()


def test_a_whole_figure_has_states_costates_and_errors():
    figure = again().plot()
    assert len(figure.axes) == 3
    labels = " ".join(ax.get_ylabel() for ax in figure.axes)
    assert all(word in labels for word in ("A_p", "B_p", "error"))


def test_the_area_under_the_running_cost_is_what_the_weights_cost():
    for solution in (solved(), solved(6)):
        ax = hs.plot.plot_running_cost(solution)
        p, rate = ax.lines[0].get_data()
        loss = solution.loss
        assert trapezoid(rate, p) + loss == pytest.approx(solution.objective, rel=1e-3)
        assert f"J {solution.objective:.4g}" in ax.texts[0].get_text()


def test_the_mesh_is_drawn_with_its_errors():
    report = solved(6).mesh_report()
    ax = hs.plot.plot_mesh(report)
    lines = labelled(ax)
    np.testing.assert_allclose(lines["of one layer"].get_ydata()[:-1], report.error)
    np.testing.assert_allclose(lines["from the continuous network"].get_ydata()[1:],
                               report.node_error[1:])
    path = hs.plot.plot_mesh(solved().mesh_report())
    assert "of one segment" in labelled(path)


def test_what_cannot_be_drawn_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match="of: expected one of errors, representations, momenta"):
        hs.plot.plot_resimulation(again(), "weights")
    for sample in (6, -1, 1.0, True):
        with pytest.raises(ValueError, match="sample: expected an index from 0 to 5"):
            hs.plot.plot_resimulation(again(), "momenta", sample=sample)
