"""Reference solves: what every method answers on small problems, kept in `reference_solves.json`.

A rebuild must not change them. The suite compares them to 1e-6, which another build of BLAS leaves
alone (`test_reference_solves.py`). By hand, on the machine that wrote the file, to 1e-12:

    python tests/reference_solves.py --exact [NAME ...]
    python tests/reference_solves.py --write

Written anew only where a change of the numbers is meant, and said so in the CHANGELOG.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import problems

import hamshoot as hs
from hamshoot.theory import closed_forms

KEPT = Path(__file__).with_name("reference_solves.json")
#: Relative agreement on another machine, and on the same one; geodesics are those of an adaptive
#: integrator, which takes rounding into its choice of steps.
PORTABLE, EXACT, EXACT_GEODESIC = 1e-6, 1e-12, 1e-9
#: Fields of a solve that hold on another machine as well; the others (iterations, drift, norms)
#: tell what a rebuild on one machine has touched.
ROBUST = ("objective", "hamiltonian", "status")
#: Parts of a number below this are rounding of terms of size one.
FLOOR = 1e-3

_SOLVES: dict[str, Callable[[], hs.Solution | dict]] = {}


def _reference(solve: Callable) -> Callable:
    _SOLVES[solve.__name__] = solve
    return solve


# -- problems --------------------------------------------------------------------------------------

teacher = partial(problems.teacher, weight_decay=1e-2, test_samples=3, seed=0)
#: One sample in the positive orthant of the plane.
between_endpoints = partial(problems.between, [1.0, 0.2], [0.7, 0.9], lift=np.eye(2))


# -- what is kept of an answer ---------------------------------------------------------------------


def numbers_of(answer: hs.Solution | dict) -> dict[str, float | str]:
    """Objective, H, status and what else an exact comparison looks at."""
    if isinstance(answer, dict):
        return answer
    return {
        "objective": answer.objective, "hamiltonian": float(np.median(answer.hamiltonian)),
        "status": answer.status.name, "loss": answer.loss, "parameter_norm": answer.parameter_norm,
        "hamiltonian_drift": answer.hamiltonian_drift,
        "stable_bottleneck_rank": answer.stable_bottleneck_rank, "iterations": answer.nit,
        "kinks": answer.kinks, "weights_norm": float(np.linalg.norm(answer.weights)),
        "momenta_norm": float(np.linalg.norm(answer.momenta)),
    }


def _of_network(network: hs.LeakyResNet, problem: hs.TrainingProblem) -> dict[str, float]:
    return {"objective": network.objective(problem), "test_error": network.test_error(problem),
            "longest_step": float(network.steps.max())}


# -- multiple shooting -----------------------------------------------------------------------------


def _multiple(problem: hs.TrainingProblem, **options) -> hs.Solution:
    return hs.DirectMultipleShooting(layers=8, **{"effort": "quick", **options}).solve(problem)


@_reference
def multiple_shooting_smooth():
    return _multiple(teacher("smooth_relu"))


@_reference
def multiple_shooting_fatrop():
    return _multiple(teacher("smooth_relu"), nlp_solver="fatrop")


@_reference
def multiple_shooting_rk4():
    return _multiple(teacher("smooth_relu"), integrator="rk4")


@_reference
def multiple_shooting_linear_irregular():
    return _multiple(teacher("linear"), steps="irregular")


@_reference
def multiple_shooting_relu():
    return _multiple(teacher("relu"), starts=2)


@_reference
def multiple_shooting_relu_smoothed():
    return _multiple(teacher("relu"), polish=False, epsilon=(0.1, 1e-2, 0.5))


@_reference
def multiple_shooting_without_bias():
    return _multiple(teacher("smooth_relu", bias=False))


@_reference
def multiple_shooting_hard_endpoint():
    return _multiple(between_endpoints())


# -- single shooting -------------------------------------------------------------------------------


def _single(problem: hs.TrainingProblem, **options) -> hs.Solution:
    options = {"effort": "quick", "tol": 1e-9, **options}
    return hs.DirectSingleShooting(layers=8, **options).solve(problem)


@_reference
def single_shooting_smooth():
    return _single(teacher("smooth_relu"))


@_reference
def single_shooting_relu():
    return _single(teacher("relu"), starts=2)


@_reference
def single_shooting_linear():
    return _single(teacher("linear"), start="identity")


@_reference
def single_shooting_kronecker():
    return _single(teacher("smooth_relu"), optimizer="kronecker", tol=1e-8)


@_reference
def single_shooting_gauss_newton():
    return _single(teacher("smooth_relu"), optimizer="gauss_newton", tol=1e-8)


@_reference
def single_shooting_from_a_coarser_network():
    problem = teacher("smooth_relu")
    coarse = hs.DirectSingleShooting(layers=5, effort="quick").solve(problem)
    return hs.solve(problem, "single_shooting", layers=8, tol=1e-9, initial_guess=coarse)


# -- indirect shooting -----------------------------------------------------------------------------


def _geodesic(problem: hs.TrainingProblem, **options) -> hs.Solution:
    return hs.IndirectShooting(**{"effort": "quick", **options}).solve(problem)


@_reference
def geodesic_smooth():
    return _geodesic(teacher("smooth_relu"))


@_reference
def geodesic_condensed_form():
    return _geodesic(teacher("smooth_relu"), form="condensed", segments=40)


@_reference
def geodesic_control_form():
    return _geodesic(teacher("smooth_relu"), form="control", segments=40)


@_reference
def geodesic_collocation():
    return _geodesic(teacher("smooth_relu"), integrator="gauss")


@_reference
def geodesic_hard_endpoint():
    return _geodesic(between_endpoints())


@_reference
def geodesic_relu():
    return _geodesic(between_endpoints("relu"))


@_reference
def geodesic_relu_smoothed():
    return _geodesic(teacher("relu"), epsilon_last=1e-2)


@_reference
def geodesic_by_auto():
    return hs.solve(teacher("linear"), effort="quick")


# -- gradient descent ------------------------------------------------------------------------------


@_reference
def trained_by_adam():
    optimizer = hs.Adam(rate=0.03, epochs=200, schedule="cosine", sgd_epochs=50, sgd_rate=1e-2)
    return hs.train(teacher("relu"), layers=8, optimizer=optimizer)


@_reference
def trained_by_sgd():
    optimizer = hs.SGD(rate=0.02, epochs=200, schedule="constant")
    return hs.train(teacher("smooth_relu"), layers=8, optimizer=optimizer)


@_reference
def trained_with_adaptive_steps():
    optimizer = hs.Adam(rate=0.03, epochs=200, schedule="cosine", sgd_epochs=0)
    return hs.train(teacher("smooth_relu"), layers=8, steps="adaptive", optimizer=optimizer)


# -- networks of a path ----------------------------------------------------------------------------


@_reference
def network_of_a_geodesic():
    solution = geodesic_smooth()
    return _of_network(solution.to_network(layers=10, steps="adaptive"), solution.problem)


@_reference
def network_polished():
    solution = geodesic_smooth()
    network = solution.to_network(layers=10)
    return network.polish(solution.problem, "single_shooting", tol=1e-9)


@_reference
def network_polished_by_a_method_object():
    problem = teacher("relu")
    network = multiple_shooting_relu_smoothed().to_network()
    return network.polish(problem, hs.DirectMultipleShooting(effort="quick"))


@_reference
def path_between_its_nodes():
    p, sizes = np.linspace(0, 1, 7), {}
    for name, solution in {"euler": single_shooting_smooth(), "rk4": multiple_shooting_rk4(),
                           "flow": geodesic_smooth()}.items():
        point, energies = solution.at(p), solution.energies()
        for part in ("representations", "momenta", "weights"):
            sizes[f"{name}_{part}"] = float(np.linalg.norm(getattr(point, part)))
        sizes[f"{name}_kinetic"] = float(np.mean(energies.kinetic))
    return sizes


# -- closed forms ----------------------------------------------------------------------------------


@_reference
def closed_form_linear():
    rng = np.random.default_rng(0)
    path = closed_forms.linear_path(0.5, rng.standard_normal((3, 5)), rng.standard_normal((3, 3)),
                                    3.0)
    return {"objective": float(path.cost), "hamiltonian": float(path.hamiltonian),
            "middle": float(np.linalg.norm(path.representations))}


@_reference
def closed_form_one_sample():
    path = closed_forms.one_sample_path(0.5, [1.0, 0.2], [0.7, 0.9], 2.0)
    return {"objective": float(path.cost), "hamiltonian": float(path.hamiltonian),
            "middle": float(np.linalg.norm(path.representations))}


@_reference
def closed_form_scalar():
    return {"objective": float(closed_forms.scalar_soft_endpoint(1.0, 0.6, 2.0, 0.05)),
            "weight": float(closed_forms.scalar_euler_weight(1.0, 0.6, 2.0, 5)),
            "aligned": float(closed_forms.aligned_cost([1.0, 2.0], [0.5, 3.0], 2.0))}


# -- comparison ------------------------------------------------------------------------------------


def solve_all(names: list[str] | None = None) -> dict[str, dict[str, float | str]]:
    """Numbers of the reference solves (all, or those named), by name."""
    return {name: numbers_of(solve()) for name, solve in _SOLVES.items()
            if not names or name in names}


def kept() -> dict[str, dict[str, float | str]]:
    """The numbers of the file."""
    return json.loads(KEPT.read_text(encoding="utf-8"))


def differences(
    name: str, found: dict[str, float | str], expected: dict[str, float | str], exact: bool = False
) -> list[str]:
    """Sentences on what differs: the robust fields to `PORTABLE`, or every field to `EXACT`.

    Measures that belong to no solve (no status) are all compared.
    """
    tolerance = PORTABLE
    if exact:
        tolerance = EXACT_GEODESIC if "geodesic" in name else EXACT
    every = exact or "status" not in expected  # measures of a path, not a solve
    lines = []
    for field, before in expected.items():
        if not (every or field in ROBUST):
            continue
        now = found.get(field)
        if isinstance(before, str) or now is None:
            same = now == before
        else:
            same = abs(now - before) <= tolerance * max(abs(before), FLOOR)
        if not same:
            lines.append(f"{name}: {field} was {before!r}, is {now!r}")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Compare or write; exit code 1 where numbers differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the file anew")
    parser.add_argument("--exact", action="store_true", help="every field, to 1e-12")
    parser.add_argument("names", nargs="*", help="of solves; default all")
    asked = parser.parse_args(arguments)
    started = time.perf_counter()
    found = solve_all(asked.names)
    if asked.write:
        whole = {**(kept() if asked.names else {}), **found}
        KEPT.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    expected = kept()
    lines = [line for name, numbers in found.items()
             for line in differences(name, numbers, expected[name], asked.exact)]
    print(*lines, f"{len(found)} solves, {len(lines)} differences, "
                  f"{time.perf_counter() - started:.0f} s", sep="\n")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
