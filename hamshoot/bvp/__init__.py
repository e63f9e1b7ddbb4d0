"""Multiple shooting for any two-point boundary value problem; knows no network."""

# `solve_bvp` is called as SciPy's and finds meshes and steps by itself; `solve_two_point` takes a
# flow over segments, as a compiled kernel, with its Jacobians. Names load on first use.

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "BVPResult": "records",
    "BVPStatus": "records",
    "ControlPath": "optimal_control",
    "OptimalControlProblem": "optimal_control",
    "RightHandSideFlow": "field_flow",
    "affine_boundary": "solve",
    "solve_bvp": "adaptive",
    "solve_two_point": "solve",
}

__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from hamshoot.bvp.adaptive import solve_bvp as solve_bvp
    from hamshoot.bvp.field_flow import RightHandSideFlow as RightHandSideFlow
    from hamshoot.bvp.optimal_control import ControlPath as ControlPath
    from hamshoot.bvp.optimal_control import OptimalControlProblem as OptimalControlProblem
    from hamshoot.bvp.records import BVPResult as BVPResult
    from hamshoot.bvp.records import BVPStatus as BVPStatus
    from hamshoot.bvp.solve import affine_boundary as affine_boundary
    from hamshoot.bvp.solve import solve_two_point as solve_two_point


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'hamshoot.bvp' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"hamshoot.bvp.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
