"""A sweep as labelled arrays, for those who have xarray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.study.sweep_points import NUMBERS
from hamshoot.support.extras import missing

if TYPE_CHECKING:
    from hamshoot.study.sweep_fields import SweepFields


def dataset_of(sweep: SweepFields) -> Any:
    """Numbers over the parameters, an `xarray.Dataset`; see `Sweep.to_xarray`."""
    xarray = _xarray()
    shape = tuple(len(axis) for axis in sweep.over.values())
    variables: dict[str, Any] = {name: np.full(shape, np.nan) for name in NUMBERS}
    variables["branch"] = np.full(shape, -1)
    variables["status"] = np.full(shape, "", dtype=object)
    for point in sweep.points:
        place = tuple(axis.index(point.values[name]) for name, axis in sweep.over.items())
        for name in NUMBERS:
            value = point.numbers[name]
            variables[name][place] = np.nan if value is None else value
        variables["branch"][place], variables["status"][place] = point.branch, point.status
    names = tuple(sweep.over)
    return xarray.Dataset({name: (names, array) for name, array in variables.items()},
                          {name: np.array(axis) for name, axis in sweep.over.items()},
                          attrs={"problem": repr(sweep.problem), "complete": sweep.complete})


def tree_of(sweep: SweepFields) -> Any:
    """The same with the solutions below it, an `xarray.DataTree`."""
    xarray = _xarray()
    if not hasattr(xarray, "DataTree"):
        raise ImportError("to_xarray(solutions=True) needs a DataTree, which xarray has from "
                          f"2024.10 on; this one is {xarray.__version__}")
    nodes = {"/": dataset_of(sweep)}
    for point in sweep.points:
        nodes[f"/points/{point.number:04d}"] = point.solution.to_xarray().assign_attrs(
            {f"over_{name}": value for name, value in point.values.items()})
    return xarray.DataTree.from_dict(nodes)


def _xarray() -> Any:
    try:
        import xarray
    except ImportError:
        raise missing("to_xarray", "xarray", "xarray") from None
    return xarray
