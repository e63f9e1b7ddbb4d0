"""`hamshoot solve --from RESULT.npz`: the result, and whether the problem is one to go on with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hamshoot.command.config import Config, read_settings
from hamshoot.network.follow_path import same_steps
from hamshoot.problem.activations import WITH_EPSILON, WITH_SLOPE
from hamshoot.solution.solution import Solution
from hamshoot.study.validate import rescaled

#: What of a result's own problem --set may change; the rest decides what the network is.
FREE = ("effective_depth", "weight_decay", "activation", "epsilon", "negative_slope")


def own_config(result: Solution, path: Path, settings: Sequence[str]) -> Config:
    """Config of the result's own problem, with λ, L̃ and activation changed where asked for.

    Raises
    ------
    ValueError
        For settings of another section than [problem] and [solve], or that make another network.
    """
    tree = read_settings(settings, ("problem", "solve"), f"without PROBLEM.toml the data are those "
                         f"of {path.name}")
    problem = tree.get("problem", {})
    for name, value in problem.items():
        if name not in FREE:
            raise ValueError(f"problem.{name}: {path.name} holds its own, and with --from only "
                             f"{', '.join(FREE)} can be set, got {value!r}")
    for name, having in (("epsilon", WITH_EPSILON), ("negative_slope", WITH_SLOPE)):
        if "activation" in problem and problem["activation"] not in having:
            problem.setdefault(name, None)
    options = dict(tree.get("solve", {}))
    return Config(result.problem.replace(**problem), options.pop("method", "auto"),
                  options.pop("layers", None), options)


def continued(config: Config, result: Solution, path: Path) -> tuple[Config, Any]:
    """Config with the layers of the result where none are asked for, and the guess to begin with.

    Raises
    ------
    ValueError
        Where the result's network is not one of the problem: see `check_match`.
    """
    check_match(result, config, path)
    options = dict(config.solve)
    method, layers = config.method, config.layers
    if result.steps is None:
        method = "indirect" if method == "auto" and layers is None else method
    else:
        layers = result.layers if layers is None and method != "indirect" else layers
        if result.integrator == "rk4" and method == "auto":
            method = "multiple_shooting"
            options.setdefault("integrator", "rk4")
        equidistant = np.full(len(result.steps), 1 / len(result.steps))
        if layers == result.layers and not same_steps(result.steps, equidistant):
            options.setdefault("steps", result.steps)
    guess = rescaled(result, config.problem.effective_depth)
    return replace(config, method=method, layers=layers, solve=options), guess


def check_match(result: Solution, config: Config, path: Path) -> None:
    """Raise ValueError unless the weights of the result mean the same in the problem.

    Sizes, bias, names of columns, classes, lift and readout are compared; λ, L̃, the activation and
    the samples may differ: that is continuation.
    """
    was, now = result.problem, config.problem
    for name, label in (("d_in", "input columns"), ("d_out", "output columns"),
                        ("width", "neurons (problem.width)")):
        a, b = getattr(was, name), getattr(now, name)
        if a != b:
            raise ValueError(f"--from: {path} holds a network of {a} {label}, this problem has {b}")
    if bool(was.bias) != bool(now.bias):
        raise ValueError(f"--from: {path} holds a network {'with' if was.bias else 'without'} "
                         f"bias, this problem is one {'with' if now.bias else 'without'} "
                         "(problem.bias)")
    for name in ("input_names", "target_names", "classes"):
        a, b = getattr(was, name), getattr(now, name)
        if a is not None and b is not None and a != b:
            k = next(i for i, pair in enumerate(zip(a, b, strict=True)) if pair[0] != pair[1])
            raise ValueError(f"--from: {path} has {a[k]!r} among its {name}, where this problem "
                             f"has {b[k]!r}; the columns have to be the same, in the same order")
    for name in ("lift", "readout"):
        if getattr(now, f"{name}_decay") is not None:  # it goes on from the one that there is
            continue
        if not np.allclose(getattr(was, name), getattr(now, name), rtol=0, atol=1e-12):
            raise ValueError(f"--from: the {name} of {path} is not that of this problem; its "
                             f"weights mean something else here (see problem.{name} and "
                             "problem.seed)")
