"""An activation made of functions: solved, certified, and refused where it cannot be taken."""

import casadi
import numpy as np
import pytest
from problems import teacher

import hamshoot as hs
from hamshoot.dynamics.block_sweeps import BlockSweeps
from hamshoot.dynamics.sweeps import EulerSweeps

LAYERS = 3


def swish(z):
    return z / (1 + np.exp(-z))


def swish_slope(z):
    s = 1 / (1 + np.exp(-z))
    return s + z * s * (1 - s)


def swish_curvature(z):
    s = 1 / (1 + np.exp(-z))
    return s * (1 - s) * (2 + z * (1 - 2 * s))


FUNCTIONS = dict(value=swish, slope=swish_slope, curvature=swish_curvature,
                 casadi=lambda z: z / (1 + casadi.exp(-z)))
SWISH = hs.Activation.custom("custom_swish", **FUNCTIONS)
#: One that is known already, by its functions.
TANH = hs.Activation("tanh")
TWIN = hs.Activation.custom("tanh_again", np.tanh, TANH.slope, TANH.curvature, casadi.tanh)


def problem_of(sigma, **options):
    return teacher(width=2, dims=(2, 1, 2), samples=5, effective_depth=1.5, weight_decay=3e-2,
                   **options).replace(activation=sigma)


@pytest.mark.parametrize("method", [hs.DirectSingleShooting, hs.DirectMultipleShooting])
def test_it_is_solved_and_certified(method, tmp_path):
    solution = hs.solve(problem_of(SWISH), method(layers=LAYERS, starts=1, reheats=0))
    assert solution.status is hs.Status.CONVERGED
    certificate = hs.certify(solution)
    assert certificate.holds, str(certificate)
    assert certificate.second_order.startswith("strict local minimum")
    again = hs.Solution.load(solution.save(tmp_path / "solution.npz"))
    assert again.problem.sigma == SWISH
    network = hs.LeakyResNet.load(solution.to_network().save(tmp_path / "network.npz"))
    X = solution.problem.X
    np.testing.assert_array_equal(network.predict(X), solution.to_network().predict(X))


def test_sweeps_and_solutions_are_those_of_the_activation_that_is_known():
    known, twin = problem_of(TANH), problem_of(TWIN)
    W = np.random.default_rng(0).standard_normal((LAYERS, *known.control_shape))
    steps = np.full(LAYERS, 1 / LAYERS)
    (value, G), (twins, G2) = (EulerSweeps(p, steps).gradient(W) for p in (known, twin))
    assert twins == pytest.approx(value, rel=1e-13)
    np.testing.assert_allclose(G2, G, rtol=0, atol=1e-13 * np.abs(G).max())
    method = hs.DirectSingleShooting(layers=LAYERS, start="path")
    ends = [hs.solve(p, method) for p in (known, twin)]
    assert ends[1].objective == pytest.approx(ends[0].objective, rel=1e-10)
    assert ends[1].message.count("smooth") == 0


def test_auto_takes_a_method_that_can():
    solution = hs.solve(problem_of(SWISH), layers=LAYERS)
    assert solution.method == "single shooting (lbfgs)"


@pytest.mark.parametrize("call", [
    lambda p: hs.solve(p, hs.IndirectShooting()),
    lambda p: hs.train(p, layers=LAYERS),
    lambda p: hs.solve(p, hs.DirectSingleShooting(layers=LAYERS, optimizer="kronecker")),
    lambda p: BlockSweeps(p, [1.0]),
], ids=["indirect", "descent", "levels", "blocks"])
def test_what_is_compiled_says_that_it_cannot_take_it(call):
    with pytest.raises(ValueError, match=r"'custom_swish' is made of functions, .* cannot take; D"):
        call(problem_of(SWISH))


def test_exports_and_multiple_shooting_without_casadi_say_so(tmp_path):
    plain = hs.Activation.custom("swish_numpy", swish, swish_slope, swish_curvature)
    with pytest.raises(ValueError, match="'swish_numpy' has no CasADi form"):
        hs.solve(problem_of(plain), hs.DirectMultipleShooting(layers=LAYERS))
    network = hs.LeakyResNet.from_weights(problem_of(plain), np.zeros((2, 2, 3)), [0.5, 0.5])
    with pytest.raises(ValueError, match="made of functions, which this format cannot hold"):
        network.to_safetensors(tmp_path / "net")


@pytest.mark.parametrize(("change", "said"), [
    ({"name": "relu"}, "name: expected a new name"),
    ({"name": "two words"}, "name: expected a new name"),
    ({"value": 3}, "value: expected a function of an array, got 3"),
    ({"value": lambda z: z.sum()}, "value: expected finite floats of shape"),
    ({"slope": swish}, "slope: expected the derivative of value"),
    ({"curvature": swish_slope}, "curvature: expected the derivative of slope"),
    ({"casadi": casadi.tanh}, "casadi: expected the same numbers as value gives"),
])
def test_what_does_not_fit_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        hs.Activation.custom(**{"name": "other", **FUNCTIONS, **change})
    with pytest.raises(ValueError, match="activation: expected one of"):
        hs.Activation("other")
