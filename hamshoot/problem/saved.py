"""A problem as arrays and settings, and back, whole or some rows; large maps by their paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hamshoot.problem import memory_map as mapped

if TYPE_CHECKING:
    from numpy.typing import NDArray

ARRAYS = ("X", "lift", "readout", "Y", "endpoint", "X_test", "Y_test")
SETTINGS = ("effective_depth", "weight_decay", "width", "activation", "bias", "standardize",
            "seed", "input_names", "target_names", "classes")


def arrays_and_settings(
    values: Mapping[str, Any],
) -> tuple[dict[str, NDArray], dict[str, Any]]:
    """Arrays and settings of a problem's attributes; `arguments` is the inverse.

    Maps of more than `hamshoot.problem.memory_map.MEMORY_BYTES` in double precision are not among
    the arrays: the settings hold their absolute paths.

    Parameters
    ----------
    values : mapping of str to object
        Attributes by name, and `epsilon`, ε of the activation.
    """
    arrays = {k: values[k] for k in ARRAYS if values[k] is not None}
    large = {k: mapped.MappedRows.of(v) for k, v in arrays.items()
             if mapped.is_mapped(v) and 8 * v.size > mapped.MEMORY_BYTES}
    maps = {k: v.to_dict() for k, v in large.items() if v.rows is None}
    arrays = {k: v for k, v in arrays.items() if k not in maps}
    settings = {k: values[k] for k in SETTINGS}
    if values["preparation"] is not None:
        settings["preparation"] = values["preparation"].to_dict()
    if values["activation"] == "smooth_relu":
        settings["epsilon"] = values["epsilon"]
    if maps:
        settings["maps"] = maps
    return arrays, settings


def arguments(arrays: Mapping[str, NDArray], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the problem that was written.

    Raises
    ------
    ValueError
        If a file that the settings refer to is gone or has another size.
    """
    given = dict(settings)
    maps = {k: mapped.MappedRows.from_dict(k, v) for k, v in given.pop("maps", {}).items()}
    return {**arrays, **maps, **given}


def light(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values with the paths of maps in place of the maps and of what was made of them."""
    whole = {"initial_state", "targets"} if any(map(mapped.is_mapped, values.values())) else set()
    return {k: mapped.MappedRows.of(v) if k in ("X", "Y") and mapped.is_mapped(v) else v
            for k, v in values.items() if k not in whole}


def subset_arguments(values: Mapping[str, Any], rows: NDArray, stays: bool) -> dict[str, Any]:
    """What changes in the arguments of a problem for that of some rows.

    Parameters
    ----------
    values : mapping of str to object
        Attributes of the problem by name.
    rows : ndarray of int
    stays : bool
        Whether the rows stay in their file, in the user's units; else they are copied and scaled.
    """
    kept: dict[str, Any] = {
        name: mapped.taken(values[name], rows) if stays else scaling.apply(values[name][rows])
        for name, scaling in (("X", values["input_scaling"]), ("Y", values["target_scaling"]))
        if values[name] is not None
    }
    if values["endpoint"] is not None:
        kept["endpoint"] = values["endpoint"][:, rows]
    return {"X_test": None, "Y_test": None, "endpoint": None, "Y": None, **kept,
            "standardize": False, "lift": values["lift"], "readout": values["readout"],
            "classes": None, "preparation": None}
