"""The report on a mesh: planted errors and insertions, and orders that are known."""

import json
from functools import cache

import numpy as np
import problems
import pytest

import hamshoot as hs
from hamshoot.network.path import interpolate
from hamshoot.study.mesh_report import Refined, _order, mesh_report

GEODESICS = hs.IndirectShooting(tol=1e-12, effort="quick", layers=30)


def teacher(activation="smooth_relu"):
    return problems.teacher(activation, samples=6, width=3, dims=(3, 2, 3), seed=3,
                            weight_decay=0.03, effective_depth=2.0, epsilon=0.2)


@cache
def geodesic():
    solution = GEODESICS.solve(teacher())
    assert solution.success
    return solution


def on_nodes(solution, p):
    """The same path with other nodes."""
    at = interpolate(solution, p)
    return solution.replace(p=p, representations=at.representations, momenta=at.momenta,
                            weights=at.weights)


# -- geodesics -------------------------------------------------------------------------------------


def test_a_converged_geodesic_has_neither_defects_nor_node_errors_nor_inserted_nodes():
    report = geodesic().mesh_report()
    assert report.error.shape == (len(geodesic().p) - 1,)
    assert report.error.max() < 1e-11
    assert report.node_error.max() < 1e-10
    assert not report.inserted.any()
    assert report.steps.min() >= 1
    assert np.isnan(report.order)
    assert "0 nodes inserted" in repr(report)


def test_the_estimated_error_of_the_nodes_is_the_one_that_was_planted():
    solution = geodesic()
    rng = np.random.default_rng(0)
    A, B = (np.array(v) for v in (solution.representations, solution.momenta))
    planted = [1e-6 * np.abs(v).max() * rng.standard_normal(v.shape) for v in (A, B)]
    report = solution.replace(representations=A + planted[0], momenta=B + planted[1]).mesh_report()
    sizes = [np.linalg.norm(v, axis=(1, 2)).max() for v in (A, B)]
    wanted = np.max([np.linalg.norm(e, axis=(1, 2)) / s
                     for e, s in zip(planted, sizes, strict=True)], axis=0)
    np.testing.assert_allclose(report.node_error, wanted, rtol=1e-3)
    assert report.error.min() > 1e-7


def test_nodes_that_halve_a_segment_are_counted_as_inserted():
    even = np.linspace(0, 1, 21)
    p = np.sort(np.append(even, [0.075, 0.0875, 0.975]))
    report = on_nodes(geodesic(), p).mesh_report()
    assert p[report.inserted] == pytest.approx([0.075, 0.0875, 0.975])
    assert "3 nodes inserted" in repr(report)
    assert report.error.max() < 1e-10
    uneven = np.array([0, 0.2, 0.55, 0.7, 1.0])
    assert not on_nodes(geodesic(), uneven).mesh_report().inserted.any()


# -- layers ----------------------------------------------------------------------------------------


@cache
def network(layers, integrator="euler"):
    if integrator == "rk4":
        return hs.solve(teacher(), "multiple_shooting", layers=layers, integrator="rk4",
                        effort="quick")
    return hs.solve(teacher(), "single_shooting", layers=layers, effort="quick")


@pytest.mark.parametrize(("integrator", "layers", "order", "within"),
                         [("euler", 10, 1.0, 0.1), ("rk4", 3, 2.0, 0.15)])
def test_the_order_in_the_layers_is_that_of_the_scheme_and_the_limit_the_geodesic(
    integrator, layers, order, within,
):
    report = network(layers, integrator).mesh_report(refine=(2, 4))
    assert [row.layers for row in report.refined] == [layers, 2 * layers, 4 * layers]
    assert all(row.status == "converged" for row in report.refined)
    assert report.order == pytest.approx(order, abs=within)
    apart = abs(report.refined[-1].objective - geodesic().objective)
    assert abs(report.limit - geodesic().objective) < 0.2 * apart
    assert report.refined[1].apart > report.refined[2].apart
    assert f"order {report.order:.3f} in L" in repr(report)
    assert json.loads(json.dumps(report.to_dict()))["refined"][0]["apart"] is None


def test_the_error_of_a_layer_is_its_distance_from_the_exponential():
    from scipy.linalg import expm

    solution = hs.DirectMultipleShooting(layers=5, effort="quick").solve(
        problems.between([1.0, 0.3], [0.5, 0.8]))
    report = solution.mesh_report()
    size = np.linalg.norm(solution.representations, axis=(1, 2)).max()
    for k, (W, rho) in enumerate(zip(solution.weights, solution.steps, strict=True)):
        end = expm(rho * (W - 2.0 * np.eye(2))) @ solution.representations[k]
        error = np.linalg.norm(end - solution.representations[k + 1]) / size
        assert report.error[k] == pytest.approx(error, rel=1e-8)
    assert report.steps is None
    assert not report.inserted.any()


def test_an_order_needs_three_converged_networks_of_one_ratio_that_come_closer():
    def rows(*values, layers=(5, 10, 20), statuses=("converged",) * 3):
        return [Refined(one, value, status, 0.0)
                for one, value, status in zip(layers, values, statuses, strict=True)]

    assert _order(rows(1.4, 1.2, 1.1)) == pytest.approx((1.0, 1.0))
    assert _order(rows(1 + 16 / 15, 1 + 1 / 15, 1 + 1 / 240))[0] == pytest.approx(4.0)
    for wrong in (rows(1.4, 1.2, 1.3), rows(1.2, 1.1, 0.9), rows(1.4, 1.2, 1.1, layers=(5, 10, 30)),
                  rows(1.4, 1.2, 1.1, statuses=("converged", "converged", "max_iter")),
                  rows(1.4, 1.2, 1.1)[:2]):
        assert np.isnan(_order(wrong)).all()


@pytest.mark.parametrize("refine", [(1,), (4, 2), (2, 2), (2.5,), ("2",), 1, (True,), None])
def test_multiples_that_are_none_are_refused(refine):
    with pytest.raises(ValueError, match=r"refine: expected increasing multiples of the layers"):
        mesh_report(network(10), refine=refine)


def test_a_path_has_no_layers_to_refine_and_there_is_a_most():
    with pytest.raises(ValueError, match="a continuous path has no layers to multiply"):
        geodesic().mesh_report(refine=(2,))
    with pytest.raises(ValueError, match="at most 5000 layers, got 10000"):
        network(10).mesh_report(refine=(1000,))
