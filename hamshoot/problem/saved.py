"""A problem as arrays and settings, and back, whole or some rows; large maps by their paths."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.problem import memory_map as mapped
from hamshoot.problem.maps import DECAYS
from hamshoot.problem.open_rows import reopened
from hamshoot.problem.stored_rows import StoredRows
from hamshoot.support import schema
from hamshoot.support.checks import brief, check_real
from hamshoot.support.journal import key_of
from hamshoot.support.schema import Kind, check_fields

if TYPE_CHECKING:
    from numpy.typing import NDArray

ARRAYS = ("X", "lift", "readout", "Y", "endpoint", "X_test", "Y_test", "sample_weights")
#: What may lie in files of its own.
MAPPED = ("X", "Y")
SETTINGS = ("effective_depth", "weight_decay", "width", "activation", "bias", "standardize",
            "seed", "input_names", "target_names", "classes")
#: The settings by their kinds, and what is written of a map.
FIELDS = {
    "effective_depth": schema.NUMBER, "weight_decay": schema.NUMBER, "width": schema.COUNT,
    "activation": schema.TEXT, "bias": schema.FLAG, "seed": schema.COUNT,
    "standardize": Kind("true, false, 'columns' or 'common'",
                        lambda v: v is None or isinstance(v, bool) or schema.is_text(v)),
    **dict.fromkeys(("input_names", "target_names", "classes"), schema.MAYBE_TEXTS),
}
INTEGERS = Kind("a list of integers", lambda v: isinstance(v, list) and all(
    isinstance(i, int) and not isinstance(i, bool) and abs(i) < 2**62 for i in v))
MAP = {"path": schema.TEXT, "bytes": schema.COUNT, "dtype": schema.TEXT, "offset": schema.COUNT,
       "shape": INTEGERS, "strides": INTEGERS}


def arrays_and_settings(
    values: Mapping[str, Any],
) -> tuple[dict[str, NDArray], dict[str, Any]]:
    """Arrays and settings of a problem's attributes; `arguments` is the inverse.

    Maps of more than `hamshoot.problem.memory_map.MEMORY_BYTES` in double precision are not among
    the arrays: the settings hold their absolute paths.

    Parameters
    ----------
    values : mapping of str to object
        Attributes by name.
    """
    arrays = {k: values[k] for k in ARRAYS if values[k] is not None}
    large = {k: mapped.MappedRows.of(v) for k, v in arrays.items()
             if mapped.is_mapped(v) and 8 * v.size > mapped.MEMORY_BYTES}
    maps = {k: v.to_dict() for k, v in large.items()
            if (v.whole if isinstance(v, StoredRows) else v.rows is None)}
    arrays = {k: v for k, v in arrays.items() if k not in maps}
    settings = {k: values[k] for k in SETTINGS}
    if values["preparation"] is not None:
        settings["preparation"] = values["preparation"].to_dict()
    sigma = values["sigma"]
    settings |= {name: float(getattr(sigma, name)) for name in ("epsilon", "negative_slope")
                 if getattr(sigma, name)}
    if values["loss"] != "squared":
        settings["loss"] = values["loss"]
    if values["criterion"].delta:
        settings["huber_delta"] = float(values["criterion"].delta)
    settings |= {name: values[name] for name in DECAYS if values[name] is not None}
    if maps:
        settings["maps"] = maps
    return arrays, settings


def arguments(arrays: Mapping[str, NDArray], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the problem that was written.

    Raises
    ------
    ValueError
        For settings and arrays that are none of a problem, and if a file that the settings refer
        to is gone or has another size.
    """
    given = dict(settings)
    _check(arrays, given)
    maps = {k: reopened(k, v) if "kind" in v else mapped.MappedRows.from_dict(k, v)
            for k, v in given.pop("maps", {}).items()}
    return {**arrays, **maps, **given}


def _check(arrays: Mapping[str, NDArray], settings: dict[str, Any]) -> None:
    """Raise ValueError unless arrays and settings are such as `arrays_and_settings` gives.

    Sizes that nothing backs would be allocated by defaults: lift and readout have to be there.
    """
    check_fields("problem", settings, FIELDS, {
        "epsilon": schema.NUMBER, "negative_slope": schema.NUMBER, "maps": schema.OBJECT,
        "loss": schema.TEXT, "huber_delta": schema.NUMBER,
        **dict.fromkeys(DECAYS, schema.NUMBER),
        "preparation": schema.OBJECT})
    maps = settings.get("maps", {})
    for name, entry in maps.items():
        if name not in MAPPED or name in arrays:
            raise ValueError(f"maps: there is no map {brief(name)} of a problem")
        if isinstance(entry, dict) and "kind" in entry:  # checked where it is opened
            continue
        check_fields(f"maps: {name}", entry, MAP)
        _check_extent(name, entry)
    for name, array in arrays.items():
        check_real(name, array)
    for name in ("X", "lift", "readout"):
        if name not in arrays and name not in maps:
            raise ValueError(f"the array problem.{name} is missing")
    width = settings["width"]
    for name, side in (("lift", 0), ("readout", 1)):
        shape = arrays[name].shape
        if len(shape) != 2 or shape[side] != width:
            raise ValueError(f"{name}: expected a matrix for the width {width}, got shape {shape}")


def _check_extent(name: str, entry: dict[str, Any]) -> None:
    """Raise ValueError for a map that reaches beyond its file, or is none of numbers."""
    shape, strides = entry["shape"], entry["strides"]
    good = len(shape) == 2 and len(strides) == 2 and \
        re.fullmatch(r"[<>|=]?[fiub][1248]", entry["dtype"])
    if not good:
        raise ValueError(f"maps: {name}: expected a matrix of numbers, got {brief(entry)}")
    size = int(entry["dtype"][-1])
    ends = [sum((n - 1) * s for n, s in zip(shape, strides, strict=True) if sign * s > 0 and n > 0)
            for sign in (-1, 1)]
    if entry["offset"] + ends[0] < 0 or entry["offset"] + ends[1] + size > entry["bytes"]:
        raise ValueError(f"maps: {name}: expected numbers within the {entry['bytes']} bytes of "
                         "its file")


def key(problem: Any) -> str:
    """A key of a problem, the same for the same data and settings; computed once.

    Large maps, and stored rows, count by the path, size and time of their files.
    """
    known = vars(problem).get("_key")
    if known is None:
        arrays, settings = problem.to_arrays()
        arrays = {k: _counted(v) for k, v in arrays.items()}
        times = {name: os.stat(entry["path"]).st_mtime_ns
                 for name, entry in settings.get("maps", {}).items() if "path" in entry}
        scalings = [getattr(problem, f"{side}_scaling") for side in ("input", "target")]
        known = key_of(arrays, settings, times, [(s.mean, s.scale) for s in scalings])
        object.__setattr__(problem, "_key", known)
    return known


def _counted(array: Any) -> Any:
    """What an array counts by in a key: stored rows by what their files were."""
    if isinstance(array, StoredRows) and array.whole:
        return array.to_dict()
    return np.asarray(array)


def light(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values with the paths of maps in place of the maps and of what was made of them."""
    whole = {"initial_state", "targets"} if any(map(mapped.is_mapped, values.values())) else set()
    return {k: mapped.MappedRows.of(v) if k in ("X", "Y") and mapped.is_mapped(v) else v
            for k, v in values.items() if k not in whole}


def subset_arguments(
    values: Mapping[str, Any], rows: NDArray
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What changes in the arguments of a problem for that of some rows, and its scalings.

    Many rows of mapped data stay in their file, in the user's units, and need the scalings that
    they had; else rows are copied and scaled, and the second dict is empty.

    Parameters
    ----------
    values : mapping of str to object
        Attributes of the problem by name.
    rows : ndarray of int
    """
    given = [values[name] for name in ("X", "Y") if values[name] is not None]
    stays = any(map(mapped.is_mapped, given)) and \
        8 * len(rows) * sum(array.shape[1] for array in given) > mapped.MEMORY_BYTES
    kept: dict[str, Any] = {
        name: mapped.taken(values[name], rows) if stays else scaling.apply(values[name][rows])
        for name, scaling in (("X", values["input_scaling"]), ("Y", values["target_scaling"]))
        if values[name] is not None
    }
    if values["endpoint"] is not None:
        kept["endpoint"] = values["endpoint"][:, rows]
    if values["sample_weights"] is not None:
        kept["sample_weights"] = values["sample_weights"][rows]
    scalings = {name: values[name] for name in ("input_scaling", "target_scaling") if stays}
    return {"X_test": None, "Y_test": None, "endpoint": None, "Y": None, **kept,
            "standardize": False, "lift": values["lift"], "readout": values["readout"],
            "classes": None, "preparation": None}, scalings
