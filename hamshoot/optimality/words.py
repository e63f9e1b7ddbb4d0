"""A certificate in words: what each of its numbers means for somebody who did not compute them.

It takes the fields of `hamshoot.Certificate.to_dict`, so that a certificate that was kept as JSON
can be read the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

#: Sizes of a stationarity that are told apart: rounding, the bound of a claim to have converged
#: (`hamshoot.optimality.checks.CLAIMED`), and what is still near a stationary point.
ROUNDED, CLAIMED, NEAR = 1e-11, 1e-6, 1e-2
#: The verdict where no second-order test was asked for.
NOT_ASKED = "not decided: not asked for"
#: What the beginning of a verdict of the second-order test says.
VERDICTS = (
    ("strict local minimum", "Every other network near by has a higher objective: the point is a "
     "strict local minimum"),
    ("no descent found", "The second-order conditions leave neurons open that are zero for all "
     "samples; among the ways to switch them on that were tried none leads down"),
    ("saddle", "The point is no minimum but a saddle: along a direction of negative curvature the "
     "objective falls"),
    ("concave kink", "The point is no minimum: it lies on a kink of ReLU on both sides of which "
     "the objective falls"),
    ("descent found", "The point is no minimum: a way down was found"),
    ("not decided", "Whether the point is a minimum is not decided"),
)


class Sentence(NamedTuple):
    """One statement of a certificate.

    Attributes
    ----------
    about : str
        What it is about, in a word or two.
    text : str
        Whole sentences.
    verdict : bool or None
        Whether it speaks for the solution, against it, or neither.
    """

    about: str
    text: str
    verdict: bool | None


def headline(certificate: Mapping[str, Any]) -> str:
    """The outcome in one line."""
    count = len(certificate["bounds"])
    if certificate["holds"]:
        return f"Certified: all {count} checks hold."
    return f"Not certified: {certificate['reasons'][0]}."


def in_words(certificate: Mapping[str, Any]) -> list[Sentence]:
    """All that a certificate says, the most important first.

    Parameters
    ----------
    certificate : mapping
        Of `hamshoot.Certificate.to_dict`; None stands for a number that is not known.

    Returns
    -------
    list of Sentence
    """
    continuous = any(b["name"].startswith("controls against") for b in certificate["bounds"])
    found = [_checks(certificate), _objective(certificate),
             (_path if continuous else _stationarity)(certificate)]
    if learned := _learned(certificate):
        found.append(learned)
    if certificate["kinks"]:
        found.append(_kinks(certificate))
    if certificate["near_kinks"] and not found[2].verdict:
        found.append(Sentence("Near kinks", f"{certificate['near_kinks']} activations are within "
                              "1e-5 of the kink and not on it, as single precision or training "
                              "leaves them; solve on from here.", None))
    found += [_second_order(certificate), _hamiltonian(certificate, continuous)]
    return [*found, Sentence(
        "Reach", "All this is local: that no lower minimum lies elsewhere, a certificate cannot "
        "say. A comparison with other starts and methods can make it likely.", None)]


def _checks(c: Mapping[str, Any]) -> Sentence:
    """How many checks, which fail, and what else speaks against it."""
    failed = [b["name"] for b in c["bounds"] if not b["holds"]]
    count = len(c["bounds"])
    if c["holds"]:
        return Sentence("Checks", f"What is stored was computed anew, by formulas that no solver "
                        f"uses: all {count} checks hold.", True)
    others = list(c["reasons"][len(failed):])
    parts = [f"{len(failed)} of {count} checks fail ({', '.join(failed)})" if failed
             else f"All {count} checks of the stored numbers hold", *others]
    return Sentence("Checks", "; ".join(parts) + ".", False)


def _objective(c: Mapping[str, Any]) -> Sentence:
    if c["objective"] is None:
        return Sentence("Objective", "The objective is not a finite number.", False)
    return Sentence("Objective", f"The objective is J = {c['objective']:.8g}: a loss of "
                    f"{_number(c['loss'])}, and the price of weights whose squared norm, "
                    f"integrated over depth, is {_number(c['parameter_norm'])}.", None)


def _stationarity(c: Mapping[str, Any]) -> Sentence:
    """The first-order conditions over layers."""
    s = c["stationarity"]
    if s is None:
        return Sentence("First order", "The stationarity is not a finite number.", False)
    condition = "the optimality condition W = L̃Bσ̂(A)ᵀ"
    if s <= CLAIMED:
        to = "rounding" if s <= ROUNDED else f"the tolerance of {CLAIMED:g}"
        return Sentence("First order", f"The network is stationary to {to}: the weights of no "
                        f"layer are further than {s:.1e} of their size from {condition}.", True)
    where = "near a stationary point, and not at one" if s <= NEAR else "not stationary"
    return Sentence("First order", f"The network is {where}: the weights of a layer differ from "
                    f"{condition} by {s:.1e} of their size (of 1, where they are smaller).", False)


def _learned(c: Mapping[str, Any]) -> Sentence | None:
    """Learned maps: first order at both ends. Certificates that were kept before lack them."""
    found = [(name, c[f"{name}_stationarity"]) for name in ("lift", "readout")
             if c.get(f"{name}_stationarity") is not None]
    if not found:
        return None
    names = " and ".join(name for name, _ in found)
    largest = max(value for _, value in found)
    good = largest <= CLAIMED
    return Sentence("Learned maps", f"The {names}, learned with weight decay of "
                    f"{'their' if len(found) > 1 else 'its'} own ({_number(c['map_decay'])} of J), "
                    f"{'are' if len(found) > 1 else 'is'} {'' if good else 'not '}stationary: off "
                    f"by {largest:.1e} of {'their' if len(found) > 1 else 'its'} size at most.",
                    good)


def _path(c: Mapping[str, Any]) -> Sentence:
    """A continuous path: the flow, the ends, and the gap that smoothing leaves."""
    numbers = c["defect"], c["costate_defect"], c["boundary_residual"]
    if None in numbers:
        return Sentence("First order", "The path has entries that are not finite numbers.", False)
    names = ("defect of the representations", "defect of the momenta", "boundary residual")
    holds = all(b["holds"] for b in c["bounds"] if b["name"] in names)
    text = (f"Integrated anew from each node to the next, the Hamiltonian flow meets the stored "
            f"path to {numbers[0]:.1e} in the representations and {numbers[1]:.1e} in the momenta; "
            f"the conditions at both ends hold to {numbers[2]:.1e}.")
    if c["stationarity"]:
        text += (f" Where ReLU was smoothed, the plain ReLU path is stationary to "
                 f"{c['stationarity']:.1e}.")
    return Sentence("First order", text, holds)


def _kinks(c: Mapping[str, Any]) -> Sentence:
    kinks, idle = c["kinks"], c["idle_kinks"]
    are = "activations lie" if kinks != 1 else "activation lies"
    text = (f"{kinks} {are} exactly on the kink of ReLU, as at optima of ReLU networks they do; "
            "stationary is meant in Clarke's sense, with a slope between 0 and 1 on each.")
    if idle:
        text += f" {idle} of them belong to neurons that no weight reads."
    return Sentence("Kinks", text, None)


def _second_order(c: Mapping[str, Any]) -> Sentence:
    verdict = c["second_order"]
    if verdict == NOT_ASKED:
        return Sentence("Second order", "Whether the point is a minimum was not asked.", None)
    meaning = next((words for opening, words in VERDICTS if verdict.startswith(opening)), "")
    good = verdict.startswith("strict local minimum")
    bad = verdict.startswith(("saddle", "concave kink", "descent found"))
    text = f"{meaning}. In the test's own words: {verdict}." if meaning else f"{verdict}."
    return Sentence("Second order", text, True if good else False if bad else None)


def _hamiltonian(c: Mapping[str, Any], continuous: bool) -> Sentence:
    if c["hamiltonian"] is None:
        return Sentence("Hamiltonian", "The Hamiltonian is not a finite number.", False)
    text = f"The Hamiltonian is {c['hamiltonian']:.5g} in the median over depth"
    if continuous:
        held = [b["holds"] for b in c["bounds"] if b["name"] == "Hamiltonian drift"]
        return Sentence("Hamiltonian", f"{text}, and drifts by {c['hamiltonian_drift']:.1e}: an "
                        "optimal path conserves it.", held[0] if held else None)
    return Sentence("Hamiltonian", f"{text}, and drifts by {c['hamiltonian_drift']:.1e}. The "
                    "continuous path conserves it, a network of layers only as far as its layers "
                    "are fine.", None)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.6g}"
