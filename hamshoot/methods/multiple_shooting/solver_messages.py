"""What CasADi and its NLP solvers complain of, in one sentence each, and what they count.

Options of a solver are tried on a program of two variables before anything is built or searched:
one that is unknown, out of range or of the wrong type, or a linear solver whose library is missing,
is named in milliseconds, with what was expected. CasADi prints through Python's own streams, where
it is caught; what it says of the program is said by `hamshoot.methods.multiple_shooting.method`.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO

import numpy as np

from hamshoot.support.checks import brief

#: Options that the program needs for itself, and what serves instead.
OWN = {
    "iteration_callback": "give callback= to solve",
    **dict.fromkeys(("structure_detection", "N", "nx", "nu", "ng", "equality"),
                    "the program sets the stages itself"),
}
#: The linear solvers of IPOPT that CasADi's wheels hold; the others are loaded when asked for.
BUILT_IN = ("mumps", "spral")
#: Records of an iteration kept of the last call of a solver.
MOST_ITERATIONS = 1000


# -- options ---------------------------------------------------------------------------------------


def check_solver_options(
    nlp_solver: str, given: Mapping[str, Any] | None, defaults: Mapping[str, Any]
) -> None:
    """Raise ValueError for the first option that the solver does not take, in one sentence.

    Parameters
    ----------
    nlp_solver : {"ipopt", "fatrop", "sqpmethod"}
    given : mapping of str to object, or None
        The user's, tried one by one and all together.
    defaults : mapping of str to object
        The quiet ones beneath them.
    """
    if not given:
        return
    for name in given:
        if not isinstance(name, str):
            raise ValueError("solver_options: expected names of options, as 'ipopt.tol', got "
                             f"{brief(name)}")
        if name in OWN:
            raise ValueError(f"solver_options: {name!r} is not free: {OWN[name]}")
    # As a rule all are good, and one trial says so.
    if _refusal(nlp_solver, {**defaults, **given}) is None:
        return
    # The linear solver last, with all others: one of them may name its library.
    ordered = sorted(given.items(), key=lambda item: "linear_solver" in item[0])
    for name, value in ordered:
        others = given if "linear_solver" in name else {}
        if (said := _refusal(nlp_solver, {**defaults, **others, name: value})) is not None:
            break
    raise ValueError("solver_options: "
                     + _sentence(nlp_solver, name, value, said or "", defaults))


def _refusal(nlp_solver: str, options: dict[str, Any]) -> str | None:
    """What is said where a program of two variables is refused with these options; else None."""
    import casadi as ca

    x = ca.MX.sym("x", 2)
    program = {"x": x, "f": ca.sumsqr(x), "g": ca.sum1(x) - 1}
    if options.get("ipopt.print_level") == 0:
        options = {**options, "ipopt.print_level": 1}  # at which it says what it misses
    with caught() as text:
        try:
            solver = ca.nlpsol("trial", nlp_solver, program, {"print_time": False, **options})
            solver(lbg=0, ubg=0)
        except RuntimeError as error:  # all that CasADi raises
            return f"{text.getvalue()}\n{error}"
    refused = solver.stats().get("return_status") == "Invalid_Option"
    return text.getvalue() if refused else None


def _sentence(nlp_solver: str, name: str, value: Any, said: str, defaults: Mapping[str, Any]
              ) -> str:
    """Which option, what came, what was expected."""
    own = name.removeprefix(f"{nlp_solver}.")
    library = re.search(r"Exception message: (\S+): (cannot open|.*not found)", said)
    if "linear_solver" in name and (library or "not available" in said):
        missing = f"{library[1]} was not found" if library else "it is not part of this build"
        place = ", or name its library in 'ipopt.hsllib'" if str(value).startswith("ma") else ""
        return (f"the linear solver {value!r} is not here ({missing}); use "
                f"{' or '.join(map(repr, BUILT_IN))}, which are{place}")
    if library:
        return f"{name!r}: the library {library[1]} was not found"
    if re.search(r"Unknown option|No such .* option|option not supported", said):
        prefixed = f"{nlp_solver}.{name}"
        if own == name and nlp_solver != "sqpmethod" and \
                _refusal(nlp_solver, {**defaults, prefixed: value}) is None:
            return f"expected {prefixed!r}, as options of {nlp_solver} are written, got {name!r}"
        return f"{nlp_solver} has no option {brief(name)}"
    return f"{nlp_solver} refuses {name!r}: expected {_expected(said)}, got {brief(value)}"


def _expected(said: str) -> str:
    """What a solver takes, from what it printed."""
    limits = re.search(r"^\S+ <=? \(.*?\) <=? \S+$", said, re.MULTILINE)
    if limits:
        return f"a value with {re.sub(r'[(].*?[)]', 'value', limits[0])}"
    settings = re.findall(r"^\t(\S+) ?(?:\(.*)?$", said, re.MULTILINE)
    if settings:
        return f"one of {', '.join(settings)}"
    kind = re.search(r"is_(double|int|string|bool)\(\)", said)
    if kind:
        return {"double": "a number", "int": "an integer", "string": "a string",
                "bool": "True or False"}[kind[1]]
    cast = re.search(r"cannot be cast to OT_(\w+)", said)
    if cast:
        return f"a value of CasADi's type {cast[1].lower()}"
    plugin = re.search(r"Plugin '.*?' is not found", said)
    return "a plugin that this CasADi has" if plugin else "another value"


# -- what is printed -------------------------------------------------------------------------------


@contextmanager
def caught() -> Iterator[io.StringIO]:
    """Catch what CasADi prints while it builds a program; it writes to `sys.stdout` and stderr."""
    text = io.StringIO()
    with redirect_stdout(text), redirect_stderr(text):
        yield text


class _Without(io.TextIOBase):
    """Hands lines on to a stream, but for those that hold some words."""

    def __init__(self, words: str, stream: TextIO):
        self.words, self.stream, self.line = words, stream, ""

    def write(self, text: str) -> int:
        """Hand on what is whole."""
        *whole, self.line = (self.line + text).split("\n")
        for line in whole:
            if self.words not in line:
                self.stream.write(f"{line}\n")
        return len(text)

    def flush(self) -> None:
        """And what is not."""
        self.stream.write(self.line)
        self.stream.flush()
        self.line = ""


@contextmanager
def without_overconstrained(is_so: bool) -> Iterator[None]:
    """Leave CasADi's line on too many constraints out, which it repeats at every call.

    Where the program is not so the stream is left alone: progress is shown on it.
    """
    if not is_so or sys.stderr is None:  # None of a program without a console
        yield
        return
    stream = _Without("NLP is overconstrained", sys.stderr)
    with redirect_stderr(stream):
        yield
    stream.flush()


# -- what is counted -------------------------------------------------------------------------------


def plain_statistics(stats: Mapping[str, Any]) -> dict[str, Any]:
    """A solver's statistics as plain Python values that JSON knows; None for what is not finite.

    Of the iterations the last `MOST_ITERATIONS` are kept.
    """
    return {str(name): _plain(value) for name, value in stats.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return plain_statistics(value)
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(one) for one in list(value)[-MOST_ITERATIONS:]]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return str(value)
